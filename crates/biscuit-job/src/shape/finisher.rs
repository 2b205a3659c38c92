//! The last steps before rows are written: added columns, the coercion to the output's contract, its checks, and the
//! folders of the partition columns. Refused rows go to the quarantine with their file, row and original text.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result};
use biscuit_dataset::internal::rows_without_folder;
use biscuit_schema::checks::CheckFinding;
use biscuit_schema::coercion::{CoercedRows, CoercionReport, RefusedRow};
use biscuit_schema::internal::{stored_type, written_type};
use biscuit_schema::{
    Coercion, ColumnType, ContractColumn, ContractCompliance, DecimalRounding, ReadingRules, coerce_column,
};

use crate::shape::columns::AddedColumns;

/// File, row and original text of each row of a batch.
pub(crate) struct RowOrigin<'a> {
    pub(crate) place: &'a dyn Fn(usize) -> (String, u64),
    pub(crate) raw: &'a dyn Fn(usize) -> Vec<u8>,
}

/// Prepares rows for writing: adds columns, applies the output's contract and its checks. All writers of an output
/// share it.
#[derive(Debug)]
pub(crate) struct RowFinisher {
    added: AddedColumns,
    coercion: Option<Coercion>,
    /// Partition columns whose text may have no valid folder name. Rows with such a text are quarantined.
    folders: Vec<String>,
    /// Whether the rows come from a query, so that their types were not chosen by a contract.
    of_query: bool,
    state: Mutex<FinisherState>,
}

#[derive(Debug)]
struct FinisherState {
    /// `None` after [`finish`](RowFinisher::finish).
    compliance: Option<ContractCompliance>,
    report: CoercionReport,
    refused: Vec<RefusedRecord>,
}

/// Everything that was found in the rows of an output.
pub(crate) struct FinishReport {
    pub(crate) report: CoercionReport,
    pub(crate) refused: Vec<RefusedRecord>,
    pub(crate) findings: Vec<CheckFinding>,
}

impl RowFinisher {
    pub(crate) fn new(added: AddedColumns, coercion: Option<Coercion>, compliance: ContractCompliance) -> Self {
        let state = FinisherState { compliance: Some(compliance), report: CoercionReport::default(), refused: vec![] };
        Self { added, coercion, folders: vec![], of_query: false, state: Mutex::new(state) }
    }

    /// Quarantines rows whose text in one of these columns cannot be the name of a folder.
    pub(crate) fn with_folders(mut self, folders: Vec<String>) -> Self {
        self.folders = folders;
        self
    }

    /// Sets whether the rows come from a query.
    pub(crate) fn of_query(mut self, of_query: bool) -> Self {
        self.of_query = of_query;
        self
    }

    fn state(&self) -> MutexGuard<'_, FinisherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the rows as they are written.
    ///
    /// # Errors
    /// Errors of the added columns and of the contract.
    pub(crate) fn finish_rows(&self, batch: &RecordBatch, origin: &RowOrigin<'_>) -> Result<RecordBatch> {
        let mut batch = self.added.append_to(batch, origin.place)?;
        if self.coercion.is_none() && self.of_query {
            batch = self.as_written(&batch)?;
        }
        // For each remaining row its index in the incoming batch. `None` if all rows remain.
        let mut left: Option<Vec<usize>> = None;
        if let Some(coercion) = &self.coercion {
            let file = if batch.num_rows() > 0 { (origin.place)(0).0 } else { String::new() };
            // Coerce with row numbers from 0 and look up file and row afterwards: consecutive rows of a query come
            // from different places.
            let coerced = coercion.coerce(&batch, &file, 0);
            let CoercedRows { batch: coerced, kept, refused, report, .. } = coerced.map_err(|e| match e.row() {
                Some(row) => {
                    let (file, number) = (origin.place)(row as usize);
                    e.relocated(file, number)
                }
                None => e,
            })?;
            left = kept.map(|kept| kept.values().set_indices().collect());
            self.state().report.add(&report);
            self.refuse_rows(refused, None, origin);
            batch = coerced;
        }
        let came = |row: usize| left.as_ref().map_or(row, |left| left[row]);
        let mut refused = match &mut self.state().compliance {
            Some(compliance) => compliance.check(&batch, &|row| (origin.place)(came(row)))?,
            None => return Err(Error::internal("rows arrived after the end")),
        };
        self.without_folder(&batch, &mut refused);
        if refused.is_empty() {
            return Ok(batch);
        }
        // Checks see the coerced batch, so `came` maps their rows back to the incoming batch.
        let refused_rows: BTreeSet<usize> = refused.iter().map(|r| r.row).collect();
        self.refuse_rows(refused, Some(&came), origin);
        let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(!refused_rows.contains(&row))).collect();
        filter_record_batch(&batch, &keep).map_err(|e| Error::internal("cannot filter rows").with_source(e))
    }

    /// Adds the rows whose text cannot be the name of a folder to `refused`.
    fn without_folder(&self, batch: &RecordBatch, refused: &mut Vec<RefusedRow>) {
        for (row, e) in rows_without_folder(batch, &self.folders) {
            if refused.iter().all(|other| other.row != row) {
                refused.push(RefusedRow::of(row, &e));
            }
        }
    }

    /// Converts columns without a contract to the types in which values are stored. Nanoseconds that a query computes
    /// are rounded to microseconds, and counted.
    fn as_written(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = batch.schema();
        let (mut fields, mut columns) = (schema.fields().to_vec(), batch.columns().to_vec());
        for (field, values) in fields.iter_mut().zip(&mut columns) {
            if stored_type(field.data_type()).is_none() {
                let message = format!(
                    "column `{}` of the query has the type {}, which tables cannot store; cast it to another type",
                    field.name(),
                    field.data_type()
                );
                return Err(Error::new(biscuit_dataset::codes::UNSTORABLE_TYPE, message).with_column(field.name()));
            }
            let written = written_type(field.data_type());
            if written == *field.data_type() {
                continue;
            }
            let reading = ReadingRules::default().with_rounding(DecimalRounding::HalfUp);
            let column = ContractColumn::new(field.name(), ColumnType::of_arrow(written.clone())).with_reading(reading);
            let made = coerce_column(&column, values)?;
            if made.rounded > 0 {
                self.state().report.columns.entry(field.name().clone()).or_default().rounded += made.rounded;
            }
            *values = made.array;
            *field = Arc::new(field.as_ref().clone().with_data_type(written));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(|e| Error::internal("cannot convert the types of rows").with_source(e))
    }

    /// Records refused rows with their origin.
    fn refuse_rows(&self, rows: Vec<RefusedRow>, came: Option<&dyn Fn(usize) -> usize>, origin: &RowOrigin<'_>) {
        for refused in rows {
            let row = came.map_or(refused.row, |came| came(refused.row));
            let (file, number) = (origin.place)(row);
            let refused = RefusedRecord::new(&file, number, &refused.error().at(&file, number), (origin.raw)(row));
            self.state().refused.push(refused);
        }
    }

    /// Returns the columns that rows with the given columns have after all steps.
    ///
    /// # Errors
    /// As [`finish_rows`](Self::finish_rows), for the columns alone.
    pub(crate) fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        let origin = RowOrigin { place: &|_| (String::new(), 0), raw: &|_| vec![] };
        self.finish_rows(&RecordBatch::new_empty(schema.clone()), &origin).map(|rows| rows.schema())
    }

    /// Returns what was found in all rows. Call it after the last row.
    ///
    /// # Errors
    /// `NotUnique` and other rules of the contract that stop the run.
    pub(crate) fn finish(&self) -> Result<FinishReport> {
        let mut state = self.state();
        let findings = state.compliance.take().map_or_else(|| Ok(vec![]), ContractCompliance::finish)?;
        Ok(FinishReport {
            report: std::mem::take(&mut state.report),
            refused: std::mem::take(&mut state.refused),
            findings,
        })
    }
}
