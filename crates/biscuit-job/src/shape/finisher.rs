use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result};
use biscuit_dataset::check_folder;
use biscuit_schema::{
    CheckFinding, CoercedRows, Coercion, CoercionReport, ColumnType, ContractColumn, ContractCompliance,
    DecimalRounding, ReadingRules, RefusedRow, coerce_column, stored_type, written_type,
};

use crate::shape::columns::AddedColumns;

/// Where a row comes from, and what it was there.
pub(crate) struct RowOrigin<'a> {
    pub(crate) place: &'a dyn Fn(usize) -> (String, u64),
    pub(crate) raw: &'a dyn Fn(usize) -> Vec<u8>,
}

/// What rows go through before they are written: columns are added, the output's contract is applied and looked at. Shared by all that
/// write.
#[derive(Debug)]
pub(crate) struct RowFinisher {
    added: AddedColumns,
    coercion: Option<Coercion>,
    /// Columns that make folders, whose rows are put aside where a text has none.
    folders: Vec<String>,
    /// Whether rows are computed, and have types that no contract has asked for.
    of_query: bool,
    state: Mutex<FinisherState>,
}

#[derive(Debug)]
struct FinisherState {
    compliance: Option<ContractCompliance>,
    report: CoercionReport,
    refused: Vec<RefusedRecord>,
}

/// What came up.
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

    /// The same; rows with texts in these columns that have no folder are put aside.
    pub(crate) fn with_folders(mut self, folders: Vec<String>) -> Self {
        self.folders = folders;
        self
    }

    /// The same, for what a query computes.
    pub(crate) fn of_query(mut self, of_query: bool) -> Self {
        self.of_query = of_query;
        self
    }

    fn state(&self) -> MutexGuard<'_, FinisherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows as they are written.
    ///
    /// # Errors
    /// Those of the columns that are added, and of the contract.
    pub(crate) fn rows(&self, batch: &RecordBatch, origin: &RowOrigin<'_>) -> Result<RecordBatch> {
        let mut batch = self.added.add(batch, origin.place)?;
        if self.coercion.is_none() && self.of_query {
            batch = self.as_written(&batch)?;
        }
        // Places in the batch that came of the rows that are left of it.
        let mut left: Option<Vec<usize>> = None;
        if let Some(coercion) = &self.coercion {
            let file = if batch.num_rows() > 0 { (origin.place)(0).0 } else { String::new() };
            // Rows that follow one another here need not do so where they come from.
            let coerced = coercion.coerce(&batch, &file, 0);
            let CoercedRows { batch: coerced, kept, refused, report } = coerced.map_err(|e| match e.row() {
                Some(row) => {
                    let (file, number) = (origin.place)(row as usize);
                    e.relocated(file, number)
                }
                None => e,
            })?;
            left = kept.map(|kept| kept.values().set_indices().collect());
            self.state().report.add(&report);
            self.refuse(refused, None, origin);
            batch = coerced;
        }
        let came = |row: usize| left.as_ref().map_or(row, |left| left[row]);
        let mut refused = match &mut self.state().compliance {
            Some(compliance) => compliance.check(&batch, &|row| (origin.place)(came(row)))?,
            None => return Err(Error::internal("rows came after the end")),
        };
        self.without_folder(&batch, &mut refused);
        if refused.is_empty() {
            return Ok(batch);
        }
        let aside: BTreeSet<usize> = refused.iter().map(|r| r.row).collect();
        self.refuse(refused, Some(&came), origin);
        let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(!aside.contains(&row))).collect();
        filter_record_batch(&batch, &keep).map_err(|e| Error::internal("rows could not be left out").with_source(e))
    }

    /// Adds rows whose texts have no folder.
    fn without_folder(&self, batch: &RecordBatch, refused: &mut Vec<RefusedRow>) {
        for name in &self.folders {
            let Some(texts) = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()) else { continue };
            for (row, text) in texts.iter().enumerate() {
                if let Some(Err(e)) = text.map(|text| check_folder(name, text))
                    && refused.iter().all(|other| other.row != row)
                {
                    refused.push(RefusedRow { row, column: name.clone(), code: e.code(), message: e.message().into() });
                }
            }
        }
    }

    /// Rows in the types in which values are written where no contract asks for others. What a query computes in nanoseconds is rounded, and counted.
    fn as_written(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = batch.schema();
        let (mut fields, mut columns) = (schema.fields().to_vec(), batch.columns().to_vec());
        for (field, values) in fields.iter_mut().zip(&mut columns) {
            if stored_type(field.data_type()).is_none() {
                let message = format!(
                    "the query gives the column `{}` the type {}, which no table holds: cast it to another one",
                    field.name(),
                    field.data_type()
                );
                return Err(Error::usage("UnsupportedType", message).with_column(field.name()));
            }
            let written = written_type(field.data_type());
            if written == *field.data_type() {
                continue;
            }
            let reading = ReadingRules { rounding: DecimalRounding::HalfUp, ..ReadingRules::default() };
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
            .map_err(|e| Error::internal("rows could not be put in other types").with_source(e))
    }

    fn refuse(&self, rows: Vec<RefusedRow>, came: Option<&dyn Fn(usize) -> usize>, origin: &RowOrigin<'_>) {
        for refused in rows {
            let row = came.map_or(refused.row, |came| came(refused.row));
            let (file, number) = (origin.place)(row);
            let refused = RefusedRecord::new(&file, number, &refused.error().at(&file, number), (origin.raw)(row));
            self.state().refused.push(refused);
        }
    }

    /// The columns that rows of these columns have in the end.
    ///
    /// # Errors
    /// As [`rows`](Self::rows), of the columns alone.
    pub(crate) fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        let origin = RowOrigin { place: &|_| (String::new(), 0), raw: &|_| vec![] };
        self.rows(&RecordBatch::new_empty(schema.clone()), &origin).map(|rows| rows.schema())
    }

    /// What came up, when all rows are written.
    ///
    /// # Errors
    /// The rules that stop the run.
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
