//! Truncate marks: the orders at or before which everything is deleted, and their property in the journal.

use biscuit_core::{Error, Result};
use biscuit_merge::internal::{ChangeSet, RecordOrder};
use biscuit_schema::internal::{hex_bytes, hex_text};
use serde_json::Value;

/// Name of the property with the truncate marks.
pub(crate) const TRUNCATED: &str = "truncated";

/// The truncates of a run.
#[derive(Debug, Default)]
pub(crate) struct RunTruncates {
    /// Truncates as pairs of the first period in which they take effect, and their order. Ascending and without
    /// repetitions.
    pub(crate) own: Vec<(u32, RecordOrder)>,
    /// Number of truncate records, with repetitions.
    pub(crate) records: u64,
}

impl RunTruncates {
    /// Takes over the truncates of a part of the records. Only the first part has truncates, all of the run.
    pub(crate) fn take_truncates(&mut self, set: &ChangeSet) {
        if !set.truncates.is_empty() {
            (self.own, self.records) = (set.truncates.clone(), set.truncate_records);
        }
    }

    /// Returns the greatest order of a truncate of the run that takes effect up to this period.
    pub(crate) fn newest(&self, period: u32) -> Option<RecordOrder> {
        self.own.iter().filter(|(first, _)| *first <= period).map(|(_, order)| order.clone()).max()
    }
}

/// Reads the truncate marks by period. A table without periods has its mark under 0.
pub(crate) fn parse_marks(property: Option<&Value>) -> Result<Vec<(i64, RecordOrder)>> {
    let mark = |hex: &str| -> Result<RecordOrder> {
        hex_bytes(hex).map(|bytes| RecordOrder::from_bytes(&bytes)).ok_or_else(damaged_mark)
    };
    match property {
        Some(Value::String(hex)) => Ok(vec![(0, mark(hex)?)]),
        Some(Value::Object(by_period)) => {
            let of_period = |(period, hex): (&String, &Value)| {
                let period = period.parse().map_err(|e| damaged_mark().with_source(e))?;
                Ok((period, mark(hex.as_str().unwrap_or_default())?))
            };
            let mut marks = by_period.iter().map(of_period).collect::<Result<Vec<_>>>()?;
            marks.sort();
            Ok(marks)
        }
        _ => Ok(vec![]),
    }
}

fn damaged_mark() -> Error {
    Error::new(biscuit_journal::codes::DIVERGED, "the truncate mark in the journal cannot be read")
}

/// Returns the property with the truncate marks; [`parse_marks`] reads it.
pub(crate) fn truncated_property(marks: &[(i64, RecordOrder)], by_period: bool) -> Option<Value> {
    if by_period && !marks.is_empty() {
        let mark = |(number, order): &(i64, RecordOrder)| (number.to_string(), Value::String(hex_text(order.bytes())));
        return Some(Value::Object(marks.iter().map(mark).collect()));
    }
    marks.last().map(|(_, order)| Value::String(hex_text(order.bytes())))
}
