//! Converts rows of DMS files to change records: types, order columns, and key changes from before images.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, is_not_null, nullif};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use biscuit_core::{Error, Result};
use biscuit_merge::{ChangeBatch, ChangeColumns, ChangeOp, KeyChange, KeyChangeKind, RawRows};
use biscuit_schema::internal::{column_index, plain_type, written_type};
use biscuit_schema::{ContractColumn, ExtraColumns};

use crate::csv::records::text_in_column;
use crate::dms::file_name::{DmsFile, DmsFileKind};
use crate::dms::options::{DmsOptions, FILE, ROW};
use crate::records::refused::RowsInProgress;
use crate::values::declared::{LossCounter, RowTyping, coerce_values, of_type, with_defaults};

/// Builds change records from the rows of one file.
pub(crate) struct DmsChangeBuilder<'a> {
    pub(crate) options: &'a DmsOptions,
    pub(crate) columns: &'a ChangeColumns,
    pub(crate) order: &'a [String],
    pub(crate) by_place: bool,
    pub(crate) file: &'a Arc<str>,
    pub(crate) named: &'a DmsFile,
}

impl DmsChangeBuilder<'_> {
    /// Converts rows to a batch of change records, with the losses that the contract allows.
    pub(crate) fn build_batch(&self, part: &RowsInProgress) -> Result<(ChangeBatch, LossCounter)> {
        let mut lost = LossCounter::default();
        let old_keys = self.old_keys(part, &mut lost)?;
        let mut fields: Vec<Field> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let schema = part.batch.schema();
        for (field, column) in schema.fields().iter().zip(part.batch.columns()) {
            let name = field.name();
            // Before images are not stored, and neither are the columns that only transaction files have.
            let before = self.options.key_before(name).is_some_and(|key| self.has_key(&part.batch, &key));
            if before || name.starts_with('\u{0}') {
                continue;
            }
            let ordering = self.order.contains(name);
            if name == &self.options.op {
                columns.push(column.clone());
            } else if ordering {
                columns.push(self.convert_order(column, name, part, &mut lost)?);
            } else if let Some(declared) = self.options.declared_column(name) {
                let array = self.convert_declared(column, &declared, part, &mut lost)?;
                fields.push(Field::new(&declared.name, array.data_type().clone(), true));
                columns.push(array);
                continue;
            } else if let Some(extra) =
                self.options.contract.as_ref().map(|c| c.extra).filter(|e| *e != ExtraColumns::Keep)
            {
                if extra == ExtraColumns::Refuse {
                    let message = format!("the contract does not have column `{name}`");
                    return Err(Error::new(biscuit_schema::codes::EXTRA_COLUMNS, message)
                        .with_column(name)
                        .in_file(self.file));
                }
                lost.drop(name);
                continue;
            } else {
                let plain = plain_type(column.data_type());
                let written = written_type(&plain);
                columns.push(match written == plain {
                    true => column.clone(),
                    false => self.convert_declared(column, &of_type(name, &written), part, &mut lost)?,
                });
            }
            fields.push(Field::new(name, columns[columns.len() - 1].data_type().clone(), true));
        }
        if self.by_place {
            let rows = part.places.len();
            let place = |p: &u64| i64::try_from(*p).unwrap_or(i64::MAX);
            columns.push(Arc::new(Int64Array::from_value(self.named.number, rows)));
            columns.push(Arc::new(part.places.iter().map(place).collect::<Int64Array>()));
            fields.extend([FILE, ROW].map(|n| Field::new(n, DataType::Int64, true)));
        }
        let size = arrow::array::RecordBatchOptions::new().with_row_count(Some(part.places.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &size)
            .map_err(|e| Error::internal("cannot build a batch of DMS rows").with_source(e))?;
        let batch = match &self.options.contract {
            Some(contract) => with_defaults(&batch, contract, &mut lost)?,
            None => batch,
        };
        let (mut batch, _) = RowsInProgress { batch, ..part.clone() }.into_changes(self.file, self.columns)?;
        // Ordered by file, a full load is older than the changes because its number is less than any time.
        if self.named.kind == DmsFileKind::Load && !self.by_place {
            batch.rank = 0;
        }
        Ok((self.with_old_keys(batch, old_keys.as_ref())?, lost))
    }

    /// Converts an order column. Text of digits becomes a number of up to 38 digits, other text a timestamp. A full
    /// load may have no values, and gets the minimum: its source rank makes it older than all changes in any case.
    fn convert_order(
        &self,
        column: &ArrayRef,
        name: &str,
        part: &RowsInProgress,
        lost: &mut LossCounter,
    ) -> Result<ArrayRef> {
        let mut column = column.clone();
        let load = self.named.kind == DmsFileKind::Load;
        if load && *column.data_type() == DataType::Utf8 {
            let blank = column.as_string::<i32>().iter().map(|v| Some(v.is_some_and(str::is_empty))).collect();
            column = nullif(&column, &blank).map_err(|e| Error::internal("cannot read order values").with_source(e))?;
        }
        let declared = self.options.declared_column(name).map_or_else(
            || {
                let plain = plain_type(column.data_type());
                if plain != DataType::Utf8 {
                    return Ok(of_type(name, &plain));
                }
                let text = as_text(&column)?;
                let digits = |v: &str| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit());
                Ok(of_type(
                    name,
                    &match text.as_string::<i32>().iter().flatten().all(digits) {
                        true => DataType::Decimal128(38, 0),
                        false => DataType::Timestamp(TimeUnit::Microsecond, None),
                    },
                ))
            },
            Ok,
        )?;
        let t = declared.column_type.arrow().clone();
        let column = self.convert_declared(&column, &declared, part, lost)?;
        if !load || column.null_count() == 0 {
            return Ok(column);
        }
        let valid = is_not_null(&column).map_err(|e| Error::internal("cannot read order values").with_source(e))?;
        let minimum = cast_with_options(&Int64Array::from_value(0, 1), &DataType::Int64, &CastOptions::default())
            .and_then(|zero| cast_with_options(&zero, &t, &CastOptions::default()))
            .map_err(|e| Error::internal("cannot make the minimum order value").with_source(e))?;
        let minimum = arrow::compute::take(&minimum, &Int64Array::from_value(0, column.len()), None)
            .map_err(|e| Error::internal("cannot make the minimum order value").with_source(e))?;
        arrow::compute::kernels::zip::zip(&valid, &column, &minimum)
            .map_err(|e| Error::internal("cannot make the minimum order value").with_source(e))
    }

    /// Converts a column to its declared type. DMS writes many types as text, and numbers and timestamps in types of
    /// its own.
    fn convert_declared(
        &self,
        values: &ArrayRef,
        column: &ContractColumn,
        part: &RowsInProgress,
        lost: &mut LossCounter,
    ) -> Result<ArrayRef> {
        if part.typing == RowTyping::Coerced && values.data_type() == column.column_type.arrow() {
            return Ok(values.clone());
        }
        let at = part.at(self.file);
        let (array, bad) = match plain_type(values.data_type()) {
            DataType::Utf8 => text_in_column(column, &as_text(values)?, at, lost)?,
            _ => coerce_values(column, values, at, lost)?,
        };
        match bad.into_iter().next() {
            Some((_, e)) => Err(e),
            None => Ok(array),
        }
    }

    fn has_key(&self, batch: &RecordBatch, key: &str) -> bool {
        batch.schema().fields().iter().any(|f| self.options.is_called(f.name(), key))
    }

    /// Returns the key before each update, if the file has a column with the prefix for every key column. The columns
    /// get the names of the key columns.
    fn old_keys(&self, part: &RowsInProgress, lost: &mut LossCounter) -> Result<Option<RecordBatch>> {
        let key = self.options.key();
        let mut columns = Vec::new();
        for name in key {
            let schema = part.batch.schema();
            let before = schema.fields().iter().position(|f| self.options.key_before(f.name()).as_ref() == Some(name));
            let Some(column) = before.map(|at| part.batch.column(at)) else { return Ok(None) };
            // Without a declaration, a before image has the type of the key column, so that both can be compared.
            let now = schema.fields().iter().find(|f| self.options.is_called(f.name(), name));
            let now = now.map(|f| plain_type(f.data_type()));
            let now = now.unwrap_or_else(|| column.data_type().clone());
            let mut declared = self.options.declared_column(name).unwrap_or_else(|| of_type(name, &now));
            declared.reading.default = None;
            columns.push((name.clone(), self.convert_declared(column, &declared, part, lost)?));
        }
        if columns.is_empty() {
            return Ok(None);
        }
        let keys = RecordBatch::try_from_iter(columns);
        keys.map(Some).map_err(|e| Error::internal("cannot build a batch of keys").with_source(e))
    }

    /// Splits each update that changes the key into a delete of the old key, appended at the end of the batch, and
    /// the update itself, which creates the new key. Both halves are linked by key changes.
    fn with_old_keys(&self, mut batch: ChangeBatch, old: Option<&RecordBatch>) -> Result<ChangeBatch> {
        let Some(old) = old else { return Ok(batch) };
        let key = self.options.key();
        let failed = |e| Error::internal("cannot split a key change").with_source(e);
        let mut now = Vec::with_capacity(key.len());
        for name in key {
            now.push(batch.rows.column(column_index(&batch.rows.schema(), name, &format!("`{}`", self.file))?).clone());
        }
        // Only updates with an old key that differs are key changes; other records may have a before image, too.
        let changed = |row: &usize| {
            let differs = |(o, n): (&ArrayRef, &ArrayRef)| {
                o.is_valid(*row) && o.slice(*row, 1).to_data() != n.slice(*row, 1).to_data()
            };
            batch.operation_code(*row) == "u" && old.columns().iter().zip(&now).any(differs)
        };
        let moved: Vec<usize> = (0..batch.ops.len()).filter(changed).collect();
        if moved.is_empty() {
            return Ok(batch);
        }
        // A delete has the old key and the order of its update; its other columns are null.
        let schema = batch.rows.schema();
        let mut deletes = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            let indices: Int64Array = moved.iter().map(|&r| r as i64).collect();
            let ordering = self.order.contains(field.name());
            deletes.push(match key.iter().position(|k| k == field.name()) {
                Some(k) => arrow::compute::take(old.column(k), &indices, None).map_err(failed)?,
                None if ordering => arrow::compute::take(batch.rows.column(i), &indices, None).map_err(failed)?,
                None => new_null_array(field.data_type(), moved.len()),
            });
        }
        let deletes = RecordBatch::try_new(schema.clone(), deletes).map_err(failed)?;
        let rows = batch.ops.len();
        let new_keys = RecordBatch::try_from_iter(key.iter().cloned().zip(now)).map_err(failed)?;
        for (n, &row) in moved.iter().enumerate() {
            batch.key_changes.push(KeyChange { row: rows + n, kind: KeyChangeKind::To, key: new_keys.slice(row, 1) });
            batch.key_changes.push(KeyChange { row, kind: KeyChangeKind::From, key: old.slice(row, 1) });
        }
        // All vectors of the batch get the entries of the deletes, in the same sequence.
        let indices: Vec<u32> = (0..rows).chain(moved.iter().copied()).map(|r| r as u32).collect();
        batch.raw = batch.raw.map(|r| r.0.select_rows(&indices).map(RawRows)).transpose()?;
        batch.rows = concat_batches(&schema, [&batch.rows, &deletes]).map_err(failed)?;
        batch.ops.extend(moved.iter().map(|_| ChangeOp::Delete));
        batch.codes.extend(moved.iter().map(|_| Arc::from("d")));
        batch.places.extend(moved.iter().map(|&r| batch.places[r]).collect::<Vec<_>>());
        for present in batch.present.iter_mut().flatten() {
            *present = present.iter().chain(moved.iter().map(|_| true)).collect();
        }
        Ok(batch)
    }
}

fn cast_column(column: &ArrayRef, t: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, t, &options).map_err(|e| {
        Error::new(biscuit_schema::codes::WRONG_TYPE, "a value does not fit the type of its column").with_source(e)
    })
}

fn as_text(column: &ArrayRef) -> Result<ArrayRef> {
    cast_column(column, &DataType::Utf8)
}
