//! Times and timestamps as change files encode them: numbers in a unit, and ISO texts.

use arrow::datatypes::TimeUnit;
use biscuit_schema::internal::iso_date_time;

use crate::json::object;
use crate::values::text::InvalidValue;
use crate::values::text_value::TextValue;

/// `infinity` and `-infinity` of PostgreSQL as Debezium writes them for timestamps without a zone, in microseconds.
pub(super) const INFINITY: i64 = 9_223_372_036_825_200_000;
const NEGATIVE_INFINITY: i64 = -9_223_372_036_832_400_000;

/// Decodes a time since midnight. `TIME` of MySQL has up to 838 hours and PostgreSQL has 24:00:00; both are refused,
/// because a time of day must be before midnight.
pub(super) fn time_of_day(n: i64, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    match is_within_a_day(n, unit) {
        true => to_stored_unit(n, unit),
        false => Err(InvalidValue::overflow("the time is not within a day, as times in Parquet must be")),
    }
}

/// Returns whether a time since midnight is before the next midnight.
fn is_within_a_day(n: i64, unit: TimeUnit) -> bool {
    (0..86_400 * units_of_a_second(unit) as i64).contains(&n)
}

fn units_of_a_second(unit: TimeUnit) -> u64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Formats a time: `-838:59:59`, `24:00:00`, `08:00:00.5`.
pub(super) fn format_time(n: i64, unit: TimeUnit) -> String {
    let per = units_of_a_second(unit);
    let (seconds, part) = (n.unsigned_abs() / per, n.unsigned_abs() % per);
    let mut text =
        format!("{}{:02}:{:02}:{:02}", if n < 0 { "-" } else { "" }, seconds / 3600, seconds / 60 % 60, seconds % 60);
    if part > 0 {
        let digits = format!("{:0width$}", part, width = per.ilog10() as usize);
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

/// Converts milliseconds to microseconds; other units are stored as they are.
pub(super) fn to_stored_unit(value: i64, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    let per = if unit == TimeUnit::Millisecond { 1000 } else { 1 };
    value.checked_mul(per).map(TextValue::Int).ok_or_else(|| "the value is out of range in microseconds".into())
}

/// Converts nanoseconds to the unit of a column, exactly or not at all.
pub(super) fn to_unit(nanos: i128, unit: TimeUnit) -> Result<TextValue, InvalidValue> {
    let per: i128 = if unit == TimeUnit::Nanosecond { 1 } else { 1000 };
    if nanos % per != 0 {
        return Err("the value has digits below the microsecond".into());
    }
    i64::try_from(nanos / per).map(TextValue::Int).map_err(|_| "the value is out of range".into())
}

/// Parses a timestamp from ISO text. If the column has a zone and the text has none, the text is in UTC. Text with a
/// zone is refused for a column without one.
pub(super) fn parse_timestamp(text: &str, unit: TimeUnit, zoned: bool) -> Result<TextValue, InvalidValue> {
    let (nanos, offset) = iso_date_time(text).ok_or("the value is not a timestamp; use YYYY-MM-DDTHH:MM:SS")?;
    if offset.is_some() && !zoned {
        return Err("the value has a time zone, and the column has none".into());
    }
    to_unit(nanos - i128::from(offset.unwrap_or(0)) * 1_000_000_000, unit)
}

pub(super) fn decode_zoned(raw: &str) -> Result<TextValue, InvalidValue> {
    match object::parse_string(raw).ok_or("the value is not text")?.as_str() {
        "infinity" => Ok(TextValue::Int(INFINITY)),
        "-infinity" => Ok(TextValue::Int(NEGATIVE_INFINITY)),
        text => parse_timestamp(text, TimeUnit::Microsecond, true),
    }
}
