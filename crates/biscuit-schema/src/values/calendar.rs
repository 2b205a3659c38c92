//! The calendar of Spark 2: Julian before 1582-10-15, where Parquet has the proleptic Gregorian calendar.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, Int64Type, TimeUnit};
use biscuit_core::Error;
use parquet::file::metadata::KeyValue;

use crate::codes;

/// Days since 1970 of 1582-10-15, the first day of the Gregorian calendar. From this day on, both calendars agree.
const GREGORIAN: i32 = -141_427;

/// Microseconds since 1970 of 1900-01-01. From this time on, Spark 2 and Parquet agree about the offsets of time
/// zones.
const ALIKE: i64 = -2_208_988_800_000_000;

/// Returns whether a Parquet file has dates and times in the calendar of Spark 2: Julian before 1582-10-15, and with
/// other offsets of time zones before 1900. Spark 3 marks files that it writes in this calendar. Spark 2 writes only
/// its version.
pub fn has_legacy_calendar(metadata: Option<&Vec<KeyValue>>) -> bool {
    metadata.into_iter().flatten().any(|kv| match kv.key.as_str() {
        "org.apache.spark.legacyDateTime" | "org.apache.spark.legacyINT96" => true,
        "org.apache.spark.version" => kv.value.as_deref().is_some_and(|version| version.starts_with(['1', '2'])),
        _ => false,
    })
}

/// Returns whether the INT96 timestamps of a file are in the calendar of Spark 2. Spark 3.0 wrote INT96 in this
/// calendar regardless of the calendar of other times.
pub(crate) fn has_legacy_int96(metadata: Option<&Vec<KeyValue>>) -> bool {
    let is_before_3_1 = |kv: &KeyValue| {
        kv.key == "org.apache.spark.version" && kv.value.as_deref().is_some_and(|version| version.starts_with("3.0"))
    };
    has_legacy_calendar(metadata) || metadata.into_iter().flatten().any(is_before_3_1)
}

/// Returns the error for a column with values that differ between the calendars.
pub fn legacy_calendar(column: &str) -> Error {
    let message = format!(
        "column `{column}` has dates before 1582-10-15 or times before 1900 in the calendar of Spark 2, which Parquet readers take for other days; rewrite the file with Spark 3 and `datetimeRebaseModeInWrite=CORRECTED`"
    );
    Error::new(codes::LEGACY_CALENDAR, message).with_column(column)
}

/// Returns whether some of these values differ between the two calendars: dates before 1582-10-15, and times before
/// 1900.
pub fn differs_by_calendar(values: &ArrayRef) -> bool {
    match values.data_type() {
        DataType::Date32 => values.as_primitive::<Date32Type>().iter().flatten().any(|days| days < GREGORIAN),
        DataType::Timestamp(unit, _) => {
            let per = match unit {
                TimeUnit::Second => 1_000_000,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond | TimeUnit::Nanosecond => 1,
            };
            let divide = if *unit == TimeUnit::Nanosecond { 1_000 } else { 1 };
            let Ok(ticks) = arrow::compute::cast(values, &DataType::Int64) else { return false };
            let micros = |t: i64| i128::from(t) * i128::from(per) / divide;
            ticks.as_primitive::<Int64Type>().iter().flatten().any(|t| micros(t) < i128::from(ALIKE))
        }
        DataType::List(_) => differs_by_calendar(values.as_list::<i32>().values()),
        DataType::Struct(_) => values.as_struct().columns().iter().any(differs_by_calendar),
        DataType::Map(..) => values.as_map().entries().columns().iter().any(differs_by_calendar),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn files_of_spark_2_and_marked_files_have_the_legacy_calendar() {
        let of =
            |key: &str, value: &str| has_legacy_calendar(Some(&vec![KeyValue::new(key.to_owned(), value.to_owned())]));
        assert!(of("org.apache.spark.version", "2.4.8") && of("org.apache.spark.legacyDateTime", ""));
        let int96 = |value: &str| {
            has_legacy_int96(Some(&vec![KeyValue::new("org.apache.spark.version".to_owned(), value.to_owned())]))
        };
        assert!(int96("3.0.3") && int96("2.4.8") && !int96("3.1.0") && !has_legacy_int96(None));
        assert!(!of("org.apache.spark.version", "3.5.1") && !of("other", "2") && !has_legacy_calendar(None));
    }

    #[test]
    fn values_differ_before_the_day_on_which_the_calendars_agree() {
        let days = |n: i32| differs_by_calendar(&(Arc::new(Date32Array::from(vec![0, n])) as ArrayRef));
        assert_eq!((days(GREGORIAN), days(GREGORIAN - 1)), (false, true));
        let millis = |n: i64| differs_by_calendar(&(Arc::new(TimestampMillisecondArray::from(vec![n])) as ArrayRef));
        assert_eq!((millis(ALIKE / 1000), millis(ALIKE / 1000 - 1)), (false, true));
    }
}
