//! Records that cannot be used: the rule for the quarantine, and the search for invalid rows in a batch.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use biscuit_core::{Error, ErrorKind, Result};
use biscuit_merge::internal::{RawSource, raw_row_changes};
use biscuit_merge::{BadRows, ChangeBatch, ChangeColumns, RefusedRecord};
use biscuit_schema::{Contract, ContractColumn, OnError};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::values::declared::{RowPlaces, RowTyping};

/// Decides which invalid records are quarantined: all of them, or only records with an invalid value in certain
/// columns (`on_error = "quarantine"` in the contract).
#[derive(Debug, Clone, Default)]
pub(crate) struct QuarantineRule {
    all: bool,
    columns: Vec<String>,
}

impl QuarantineRule {
    pub(crate) fn new(bad_rows: BadRows, contract: Option<&Contract>) -> Self {
        let columns = contract.into_iter().flat_map(|contract| {
            let wanted = |c: &&ContractColumn| contract.on_error_of(c) == OnError::Quarantine;
            contract.columns.iter().filter(wanted).map(|c| c.name.clone())
        });
        Self { all: bad_rows == BadRows::Quarantine, columns: columns.collect() }
    }

    /// Returns whether any record may be quarantined, so that readers must keep the raw records.
    pub(crate) fn may_quarantine(&self) -> bool {
        self.all || !self.columns.is_empty()
    }

    /// Returns whether every invalid record is quarantined.
    pub(crate) fn all(&self) -> bool {
        self.all
    }

    /// Returns whether the record that caused this error is quarantined.
    pub(crate) fn covers(&self, e: &Error) -> bool {
        let by_column = || e.column().is_some_and(|column| self.columns.iter().any(|own| own == column));
        is_about_a_record(e) && (self.all || by_column())
    }
}

/// Returns whether an error is about one record, so that this record can be quarantined alone.
fn is_about_a_record(e: &Error) -> bool {
    e.kind() == ErrorKind::Data && e.row().is_some()
}

/// Writes one row as a Parquet file: the raw form of rows of Parquet and Avro files. The Avro schema in its metadata is
/// needed to read the types of Kafka Connect again.
pub fn parquet_row(row: &RecordBatch) -> Result<Vec<u8>> {
    let failed =
        |e: parquet::errors::ParquetError| Error::internal("cannot write a record to the quarantine").with_source(e);
    let schema = row.schema();
    let metadata = schema.metadata().iter().filter(|(k, _)| k.contains("avro"));
    let metadata = metadata.map(|(k, v)| KeyValue::new(k.clone(), v.clone())).collect();
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let mut out = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut out, schema, Some(properties)).map_err(failed)?;
    writer.write(row).map_err(failed)?;
    writer.close().map_err(failed)?;
    Ok(out)
}

/// Returns the span of each line of a text with its number from 1. Blank lines are counted but not returned.
pub(crate) fn line_spans(text: &str) -> impl Iterator<Item = (u64, Range<usize>)> {
    let (mut at, mut number) = (0, 0);
    std::iter::from_fn(move || {
        while at < text.len() {
            let (from, end) = (at, memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |end| at + end));
            (at, number) = (end + 1, number + 1);
            let line = text[from..end].trim_end_matches('\r');
            // Most lines begin with a value.
            if line.starts_with(['{', '[']) || !line.trim().is_empty() {
                return Some((number, from..from + line.len()));
            }
        }
        None
    })
}

/// Rows of one file that are not change records yet, with their places and raw records.
#[derive(Debug, Clone)]
pub(crate) struct RowsInProgress {
    pub(crate) batch: RecordBatch,
    pub(crate) places: Vec<u64>,
    pub(crate) raws: Option<RawSource>,
    pub(crate) typing: RowTyping,
}

impl RowsInProgress {
    /// Creates a part from rows of a Parquet or Avro file, numbered from `first`.
    pub(crate) fn from_batch(batch: RecordBatch, first: u64, quarantine_rule: &QuarantineRule) -> Self {
        let places = (first..first + batch.num_rows() as u64).collect();
        let raws =
            quarantine_rule.may_quarantine().then(|| RawSource::Rows { rows: batch.clone(), encode: parquet_row });
        Self { batch, places, raws, typing: RowTyping::AsRead }
    }

    /// Returns where the rows come from.
    pub(crate) fn at<'a>(&'a self, file: &'a Arc<str>) -> RowPlaces<'a> {
        RowPlaces { file, places: &self.places }
    }

    /// Converts the rows to change records. Returns the records and the number of rows that are not changes.
    ///
    /// # Errors
    /// The errors of [`row_changes`](biscuit_merge::row_changes).
    pub(crate) fn into_changes(self, file: &Arc<str>, columns: &ChangeColumns) -> Result<(ChangeBatch, u64)> {
        raw_row_changes(&self.batch, file, self.places, self.raws, columns)
    }

    /// Returns the part without the rows whose flag in `bad` is set.
    pub(crate) fn without_rows(self, bad: &[bool]) -> Result<Self> {
        if !bad.contains(&true) {
            return Ok(self);
        }
        let rows: Vec<u32> = (0..).zip(bad).filter(|(_, bad)| !**bad).map(|(row, _)| row).collect();
        let batch = take_record_batch(&self.batch, &UInt32Array::from(rows.clone()))
            .map_err(|e| Error::internal("cannot select rows of a batch").with_source(e))?;
        let places = rows.iter().map(|&r| self.places[r as usize]).collect();
        let raws = self.raws.map(|r| r.select_rows(&rows)).transpose()?;
        Ok(Self { batch, places, raws, typing: self.typing })
    }

    /// Returns `len` rows beginning with row `from`.
    fn slice(&self, from: usize, len: usize) -> Result<Self> {
        let rows: Vec<u32> =
            (from..from + len).map(|r| u32::try_from(r).expect("a batch has fewer than 2^32 rows")).collect();
        Ok(Self {
            batch: self.batch.slice(from, len),
            places: self.places[from..from + len].to_vec(),
            raws: self.raws.as_ref().map(|r| r.select_rows(&rows)).transpose()?,
            typing: self.typing,
        })
    }
}

/// Applies `make` to rows and quarantines the rows that make it fail, so that all other rows are used.
///
/// Binary search by halving: a part that fails is split in two until single rows remain. With one invalid row among
/// `n`, `make` runs about `2 log2(n)` times. The results are in the order of the rows.
pub(crate) fn quarantine_failing_rows<T>(
    file: &str,
    part: RowsInProgress,
    quarantine_rule: &QuarantineRule,
    refused: &mut Vec<RefusedRecord>,
    make: &mut dyn FnMut(&RowsInProgress) -> Result<T>,
) -> Result<Vec<T>> {
    let mut made = Vec::new();
    // Stack of parts still to try; the first half is pushed last, so that it is tried first.
    let mut parts = vec![part];
    while let Some(part) = parts.pop() {
        let e = match make(&part) {
            Ok(one) => {
                made.push(one);
                continue;
            }
            Err(e) if quarantine_rule.covers(&e) => e,
            Err(e) => return Err(e),
        };
        let rows = part.places.len();
        if rows == 1 {
            let raw = part.raws.as_ref().map_or(Ok(vec![]), |r| r.get(0))?;
            refused.push(RefusedRecord::new(file, part.places[0], &e, raw));
            continue;
        }
        parts.push(part.slice(rows / 2, rows - rows / 2)?);
        parts.push(part.slice(0, rows / 2)?);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_returned_with_number_and_span() {
        let text = "a\r\n\n  \nlast";
        let found: Vec<_> = line_spans(text).map(|(n, s)| (n, &text[s])).collect();
        assert_eq!(found, [(1, "a"), (4, "last")]);
    }
}
