//! Columns that a job adds to its rows: audit columns with values of the run, and parts of times such as the date of
//! an event.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{DatePart as Part, cast, date_part, take};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use biscuit_core::{Error, Result, Run};
use biscuit_schema::internal::{column_index, iso_date_time};

use crate::codes;
use crate::spec::{AuditSpec, DatePart, DerivedColumn};

/// Columns to add to rows: values of the run, and parts of other columns.
#[derive(Debug)]
pub(crate) struct AddedColumns {
    constants: Vec<(String, ArrayRef)>,
    derived: Vec<(String, DerivedColumn)>,
}

impl AddedColumns {
    pub(crate) fn new(
        audit: &AuditSpec,
        derived: impl IntoIterator<Item = (String, DerivedColumn)>,
        run: &Run,
    ) -> Self {
        let mut constants: Vec<(String, ArrayRef)> = Vec::new();
        if let Some(name) = &audit.processing_datetime {
            let start = TimestampMicrosecondArray::from(vec![run.start.as_micros()]).with_timezone("UTC");
            constants.push((name.clone(), Arc::new(start)));
        }
        if let Some(name) = &audit.run_id {
            constants.push((name.clone(), Arc::new(StringArray::from(vec![run.id.as_str()]))));
        }
        Self { constants, derived: derived.into_iter().collect() }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.constants.iter().map(|(n, _)| n.as_str()).chain(self.derived.iter().map(|(n, _)| n.as_str()))
    }

    /// Appends the columns to the rows. `place` returns file and row of a row, for messages.
    ///
    /// # Errors
    /// `ColumnClash` if the rows already have a column of that name, `MissingColumn`, `BadDate` for text that is not
    /// a date or time, `InvalidJob` for a column that has no parts of a date.
    pub(crate) fn append_to(&self, batch: &RecordBatch, place: &dyn Fn(usize) -> (String, u64)) -> Result<RecordBatch> {
        if self.constants.is_empty() && self.derived.is_empty() {
            return Ok(batch.clone());
        }
        if let Some(name) = self.names().find(|n| batch.schema_ref().index_of(n).is_ok()) {
            let message = format!(
                "cannot add the column `{name}`: the rows already have a column of that name; choose another name"
            );
            return Err(Error::new(biscuit_change::codes::COLUMN_CLASH, message).with_column(name));
        }
        let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
        let mut arrays = batch.columns().to_vec();
        for (name, one) in &self.constants {
            fields.push(Arc::new(Field::new(name, one.data_type().clone(), true)));
            arrays.push(repeat_value(one, batch.num_rows())?);
        }
        for (name, column) in &self.derived {
            let at = column_index(batch.schema_ref(), &column.from, "the rows")?;
            let array = time_part(batch.column(at), column, place)?;
            fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
            arrays.push(array);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(internal_error)
    }
}

/// Repeats the only value of an array.
pub(crate) fn repeat_value(one: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    take(one, &UInt32Array::from(vec![0; rows]), None).map_err(internal_error)
}

/// Returns a part of the times in a column, such as the year.
fn time_part(array: &ArrayRef, column: &DerivedColumn, place: &dyn Fn(usize) -> (String, u64)) -> Result<ArrayRef> {
    let times = to_timestamps(array, &column.from, place)?;
    let part = match column.part {
        DatePart::Date => return cast(&times, &DataType::Date32).map_err(internal_error),
        DatePart::Year => Part::Year,
        DatePart::Month => Part::Month,
        DatePart::Day => Part::Day,
        DatePart::Hour => Part::Hour,
    };
    date_part(&times, part).map_err(internal_error)
}

/// Converts dates, timestamps and text to timestamps without a zone. Times with a zone or an offset are converted to
/// UTC.
fn to_timestamps(array: &ArrayRef, column: &str, place: &dyn Fn(usize) -> (String, u64)) -> Result<ArrayRef> {
    let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
    match array.data_type() {
        DataType::Date32 | DataType::Date64 => cast(array, &plain).map_err(internal_error),
        DataType::Timestamp(unit, _) => {
            // A cast from a zone to no zone would convert to local time. The ticks of a timestamp with a zone are
            // UTC, so they are taken as they are.
            let ticks = cast(array, &DataType::Int64).map_err(internal_error)?;
            let plain_of = cast(&ticks, &DataType::Timestamp(*unit, None)).map_err(internal_error)?;
            cast(&plain_of, &plain).map_err(internal_error)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(array, &DataType::Utf8).map_err(internal_error)?;
            let texts = texts.as_string::<i32>();
            let mut micros = Vec::with_capacity(texts.len());
            for row in 0..texts.len() {
                if texts.is_null(row) {
                    micros.push(None);
                    continue;
                }
                let Some((nanos, offset)) = iso_date_time(texts.value(row)) else {
                    let (file, number) = place(row);
                    let message =
                        format!("a value of column `{column}` is not a date or time; declare its type in a contract");
                    return Err(Error::new(biscuit_schema::codes::BAD_DATE, message)
                        .with_column(column)
                        .at(file, number));
                };
                let instant = nanos - i128::from(offset.unwrap_or(0)) * 1_000_000_000;
                micros.push(i64::try_from(instant.div_euclid(1000)).ok());
            }
            Ok(Arc::new(TimestampMicrosecondArray::from(micros)))
        }
        other => {
            let message = format!(
                "column `{column}` is {other}, which has no parts of a date; derive from a date, a timestamp or text"
            );
            Err(Error::new(codes::INVALID_JOB, message).with_column(column))
        }
    }
}

fn internal_error(e: arrow::error::ArrowError) -> Error {
    Error::internal("cannot add a column").with_source(e)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int32Array};
    use biscuit_core::{Instant, RunId};

    use super::*;

    #[test]
    fn parts_of_times_are_taken_in_utc() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("2024-03-01T00:30:00+01:00"), None]));
        let batch = RecordBatch::try_from_iter_with_nullable([("at", texts, true)]).unwrap();
        let run = Run::new("j", RunId::new("r"), Instant::from_micros(0));
        let of = |part| {
            let derived = [("p".to_owned(), DerivedColumn { from: "at".into(), part })];
            let columns = AddedColumns::new(&AuditSpec::default(), derived, &run);
            columns.append_to(&batch, &|_| ("f".into(), 1)).unwrap().column(1).clone()
        };
        assert_eq!(of(DatePart::Date).as_ref(), &Date32Array::from(vec![Some(19_782), None]) as &dyn Array);
        assert_eq!(of(DatePart::Hour).as_ref(), &Int32Array::from(vec![Some(23), None]) as &dyn Array);
        let columns = AddedColumns::new(&AuditSpec { run_id: Some("at".into()), ..AuditSpec::default() }, [], &run);
        assert_eq!(columns.append_to(&batch, &|_| ("f".into(), 1)).unwrap_err().code(), "ColumnClash");
    }
}
