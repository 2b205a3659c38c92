//! Effective times: when a record counts, from a column of dates, timestamps or text.

use biscuit_change::ChangeBatch;
use biscuit_core::{Error, Instant, Result};
use biscuit_schema::type_name;
use chrono::{DateTime, NaiveDate};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};

use crate::codes;
use crate::period::calendar::PeriodCalendar;

/// The effective times of the records of a batch, from one column. A date is midnight at its beginning. A timestamp
/// without a zone is the time on the clock of the calendar's zone. Text is read as either, or as an instant if it has
/// an offset.
#[derive(Debug)]
pub(crate) struct EffectiveColumn {
    column: EffectiveValues,
}

#[derive(Debug)]
enum EffectiveValues {
    /// Microseconds since the epoch.
    Instants(ArrayRef),
    /// Microseconds as shown on the clock of the calendar's zone.
    Local(ArrayRef),
    Dates(ArrayRef),
    Text(StringArray),
}

impl EffectiveColumn {
    /// Takes the named column of the rows of a batch.
    ///
    /// # Errors
    /// `MissingColumn`, and `EffectiveType` for a column whose type is not a time.
    pub(crate) fn new(batch: &ChangeBatch, name: &str) -> Result<Self> {
        let place = format!("`{}`", batch.file);
        let at = biscuit_schema::internal::column_index(batch.rows.schema_ref(), name, &place)?;
        Self::from_array(batch.rows.column(at), name, &place)
    }

    /// Takes the values of an array.
    ///
    /// # Errors
    /// `EffectiveType`.
    pub(crate) fn from_array(column: &ArrayRef, name: &str, place: &str) -> Result<Self> {
        let failed = |e| {
            let message = format!("column `{name}` of {place} contains a time that is out of range");
            Error::new(biscuit_schema::codes::OVERFLOW, message).with_column(name).with_source(e)
        };
        let micros = |zone: Option<&str>| {
            let to = DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
            cast(column, &to).map_err(failed)
        };
        let column = match column.data_type() {
            DataType::Timestamp(_, Some(_)) => EffectiveValues::Instants(micros(Some("+00:00"))?),
            DataType::Timestamp(_, None) => EffectiveValues::Local(micros(None)?),
            DataType::Date32 | DataType::Date64 => {
                EffectiveValues::Dates(cast(column, &DataType::Date32).map_err(failed)?)
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
                EffectiveValues::Text(cast(column, &DataType::Utf8).map_err(failed)?.as_string::<i32>().clone())
            }
            other => {
                let shown = type_name(other).unwrap_or_else(|| other.to_string());
                let message = format!(
                    "column `{name}` of {place} is {shown} and cannot be an effective time; declare it as a date or a timestamp"
                );
                return Err(Error::new(codes::EFFECTIVE_TYPE, message).with_column(name));
            }
        };
        Ok(Self { column })
    }

    /// Returns the effective time of a record.
    ///
    /// # Errors
    /// `NullEffective`, `EffectiveType` for text that is not a time, and `PeriodOutOfRange`, all without file and
    /// row.
    pub(crate) fn effective_time(&self, row: usize, name: &str, calendar: &PeriodCalendar) -> Result<Instant> {
        let null = || {
            Error::new(
                codes::NULL_EFFECTIVE,
                format!("column `{name}` is null, so the effective time of the record is not known"),
            )
        };
        let array: &dyn Array = match &self.column {
            EffectiveValues::Instants(a) | EffectiveValues::Local(a) | EffectiveValues::Dates(a) => a,
            EffectiveValues::Text(a) => a,
        };
        if array.is_null(row) {
            return Err(null());
        }
        let out_of_range =
            || Error::new(codes::PERIOD_OUT_OF_RANGE, format!("column `{name}` is outside the years 1 to 9999"));
        match &self.column {
            EffectiveValues::Instants(a) => Ok(Instant::from_micros(a.as_primitive::<TimestampMicrosecondType>().value(row))),
            EffectiveValues::Local(a) => {
                let micros = a.as_primitive::<TimestampMicrosecondType>().value(row);
                let shown = DateTime::from_timestamp_micros(micros).ok_or_else(out_of_range)?;
                calendar.instant_of_local(shown.naive_utc())
            }
            EffectiveValues::Dates(a) => {
                let date = NaiveDate::from_epoch_days(a.as_primitive::<Date32Type>().value(row));
                calendar.begin_of_date(date.ok_or_else(out_of_range)?)
            }
            EffectiveValues::Text(a) => calendar.instant_in(a.value(row))?.ok_or_else(|| {
                let message = format!(
                    "column `{name}` is text that is not a date or time; use a form such as 2024-02-29, 2024-02-29T12:00:00 or 2024-02-29T12:00:00Z"
                );
                Error::new(codes::EFFECTIVE_TYPE, message)
            }),
        }
    }
}
