use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use biscuit_core::{Error, ErrorKind, Result};
use biscuit_schema::{Contract, ContractColumn, OnError};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

/// What happens to a record that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BadRows {
    /// It stops the run.
    #[default]
    Fail,
    /// It is put aside with the reason, and the others go on.
    Quarantine,
}

/// Decides which invalid records are quarantined: all of them, or only those with an invalid value in certain columns (`on_error = "quarantine"`).
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

    /// Whether any record may be quarantined, so that readers have to keep the raw records.
    pub(crate) fn any(&self) -> bool {
        self.all || !self.columns.is_empty()
    }

    /// Whether every invalid record is quarantined.
    pub(crate) fn all(&self) -> bool {
        self.all
    }

    /// Whether the record that caused this error is quarantined.
    pub(crate) fn takes(&self, e: &Error) -> bool {
        let by_column = || e.column().is_some_and(|column| self.columns.iter().any(|own| own == column));
        is_about_a_record(e) && (self.all || by_column())
    }
}

/// A record that was put aside: where it came from, why, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// The file, as messages call it.
    pub file: String,
    /// The row or line in it, from 1.
    pub row: u64,
    /// The code of the error it would have been.
    pub code: String,
    /// The column it is about, if it is about one.
    pub column: Option<String>,
    /// The message of that error.
    pub message: String,
    /// The record as a file of its own, in the format of the file it came from: a line, a header and a line, or Parquet
    /// with one row.
    pub raw: Vec<u8>,
}

impl RefusedRecord {
    /// A record that was refused for this error.
    pub fn new(file: &str, row: u64, e: &Error, raw: Vec<u8>) -> Self {
        let column = e.column().map(str::to_owned);
        Self { file: file.to_owned(), row, code: e.code().to_owned(), column, message: e.message().to_owned(), raw }
    }
}

/// Whether an error is about one record, which can be put aside without the others.
fn is_about_a_record(e: &Error) -> bool {
    e.kind() == ErrorKind::Data && e.row().is_some()
}

/// The records of a batch as they were in their file; kept only where bad ones may be put aside.
#[derive(Debug, Clone)]
pub struct RawRows(pub(crate) RawSource);

#[derive(Debug, Clone)]
pub(crate) enum RawSource {
    /// Parts of a text, with the header that each of them needs.
    Text { text: Arc<str>, header: Option<Arc<str>>, spans: Vec<Range<usize>> },
    /// Rows of a file that holds columns.
    Rows(RecordBatch),
    /// Each record by itself.
    Each(Vec<Arc<[u8]>>),
}

impl RawSource {
    /// The records of these rows only.
    pub(crate) fn pick(&self, rows: &[u32]) -> Result<Self> {
        Ok(match self {
            Self::Text { text, header, spans } => {
                let spans = rows.iter().map(|&r| spans[r as usize].clone()).collect();
                Self::Text { text: text.clone(), header: header.clone(), spans }
            }
            Self::Each(all) => Self::Each(rows.iter().map(|&r| all[r as usize].clone()).collect()),
            Self::Rows(batch) => Self::Rows(
                take_record_batch(batch, &UInt32Array::from(rows.to_vec()))
                    .map_err(|e| Error::internal("rows could not be picked").with_source(e))?,
            ),
        })
    }

    /// One record as a file of its own.
    pub(crate) fn get(&self, row: usize) -> Result<Vec<u8>> {
        match self {
            Self::Text { text, header, spans } => {
                let record = text[spans[row].clone()].trim_end_matches(['\n', '\r']);
                Ok(match header {
                    Some(header) => format!("{}\n{record}\n", header.trim_end_matches(['\n', '\r'])).into_bytes(),
                    None => format!("{record}\n").into_bytes(),
                })
            }
            Self::Rows(batch) => one_row(&batch.slice(row, 1)),
            Self::Each(all) => Ok(all[row].to_vec()),
        }
    }
}

fn one_row(row: &RecordBatch) -> Result<Vec<u8>> {
    let failed = |e: parquet::errors::ParquetError| {
        Error::internal("a record could not be written for the quarantine").with_source(e)
    };
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

/// The spans of the lines of a text, with their numbers from 1; lines without anything in them are left out.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = 0;
    let span = move |line: &str| {
        let from = at;
        at += line.len();
        from..from + line.trim_end_matches(['\n', '\r']).len()
    };
    let numbered = text.split_inclusive('\n').map(span).zip(1..).map(|(span, n)| (n, span));
    numbered.filter(|(_, span)| !text[span.clone()].trim().is_empty())
}

/// Rows on their way to be change records.
#[derive(Debug, Clone)]
pub(crate) struct RowsInProgress {
    pub(crate) batch: RecordBatch,
    pub(crate) places: Vec<u64>,
    pub(crate) raws: Option<RawSource>,
    /// Whether the values were coerced to the types of their columns already.
    pub(crate) is_typed: bool,
}

impl RowsInProgress {
    /// Rows of a file that holds columns, numbered from `first`.
    pub(crate) fn of(batch: RecordBatch, first: u64, keeps_raws: bool) -> Self {
        let places = (first..first + batch.num_rows() as u64).collect();
        let raws = keeps_raws.then(|| RawSource::Rows(batch.clone()));
        Self { batch, places, raws, is_typed: false }
    }

    /// The rows that are not bad.
    pub(crate) fn without(self, bad: &[bool]) -> Result<Self> {
        if !bad.contains(&true) {
            return Ok(self);
        }
        let rows: Vec<u32> = (0..).zip(bad).filter(|(_, bad)| !**bad).map(|(row, _)| row).collect();
        let batch = take_record_batch(&self.batch, &UInt32Array::from(rows.clone()))
            .map_err(|e| Error::internal("rows could not be picked").with_source(e))?;
        let places = rows.iter().map(|&r| self.places[r as usize]).collect();
        let raws = self.raws.map(|r| r.pick(&rows)).transpose()?;
        Ok(Self { batch, places, raws, is_typed: self.is_typed })
    }

    fn half(&self, from: usize, len: usize) -> Result<Self> {
        let rows: Vec<u32> = (from..from + len).map(|r| u32::try_from(r).expect("fewer than 2^32 rows")).collect();
        Ok(Self {
            batch: self.batch.slice(from, len),
            places: self.places[from..from + len].to_vec(),
            raws: self.raws.as_ref().map(|r| r.pick(&rows)).transpose()?,
            is_typed: self.is_typed,
        })
    }
}

/// Makes something of rows. Where a record makes that fail, and bad records are put aside, it is looked for by halving:
/// everything else is used.
pub(crate) fn sift<T>(
    file: &str,
    part: RowsInProgress,
    quarantine_rule: &QuarantineRule,
    refused: &mut Vec<RefusedRecord>,
    make: &mut dyn FnMut(&RowsInProgress) -> Result<T>,
) -> Result<Vec<T>> {
    let mut made = Vec::new();
    let mut parts = vec![part];
    while let Some(part) = parts.pop() {
        let e = match make(&part) {
            Ok(one) => {
                made.push(one);
                continue;
            }
            Err(e) if quarantine_rule.takes(&e) => e,
            Err(e) => return Err(e),
        };
        let rows = part.places.len();
        if rows == 1 {
            let raw = part.raws.as_ref().map_or(Ok(vec![]), |r| r.get(0))?;
            refused.push(RefusedRecord::new(file, part.places[0], &e, raw));
            continue;
        }
        parts.push(part.half(rows / 2, rows - rows / 2)?);
        parts.push(part.half(0, rows / 2)?);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_numbers_and_spans() {
        let text = "a\r\n\n  \nlast";
        let found: Vec<_> = lines(text).map(|(n, s)| (n, &text[s])).collect();
        assert_eq!(found, [(1, "a"), (4, "last")]);
    }
}
