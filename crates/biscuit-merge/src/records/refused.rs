//! Records that cannot be used: how they are handled, the quarantined record, and the raw records of a batch.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use biscuit_core::{Error, Result};

/// Handling of records that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BadRows {
    /// The first such record stops the run with its error.
    #[default]
    Fail,
    /// Such records are quarantined with their reason, and the other records are used.
    Quarantine,
}

/// Quarantined record: its origin, the reason and the record itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the quarantine stores each field, and must not forget one")]
pub struct RefusedRecord {
    /// Name of the file in messages.
    pub file: String,
    /// Row or line in the file, from 1.
    pub row: u64,
    /// Code of the error.
    pub code: String,
    /// Column of the error, if the error is about one column.
    pub column: Option<String>,
    /// Message of the error.
    pub message: String,
    /// Record as a file of its own, in the format of its source: a JSON line, a CSV line with the header if the file
    /// has one, or a Parquet file with one row.
    pub raw: Vec<u8>,
}

impl RefusedRecord {
    /// Creates a quarantined record from the error that it caused.
    pub fn new(file: &str, row: u64, e: &Error, raw: Vec<u8>) -> Self {
        let column = e.column().map(str::to_owned);
        Self { file: file.to_owned(), row, code: e.code().to_owned(), column, message: e.message().to_owned(), raw }
    }
}

/// Writes a batch of one row as a file. The format is decided by the reader that read the row, since the quarantined
/// record is read by the same reader again.
pub type RowEncoder = fn(&RecordBatch) -> Result<Vec<u8>>;

/// Raw records of a batch as they were in their file. Readers keep them only if records may be quarantined.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "it only hides its content")]
pub struct RawRows(pub RawSource);

/// Form in which the raw records of a batch are kept.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum RawSource {
    /// Spans of a text, and the header that each record needs to be a file of its own.
    Text {
        /// Text of the file.
        text: Arc<String>,
        /// Header that each record needs.
        header: Option<Arc<str>>,
        /// Span of each record in the text, in bytes.
        spans: Vec<Range<usize>>,
    },
    /// Rows of a columnar file.
    Rows {
        /// The rows.
        rows: RecordBatch,
        /// Writes one of them as a file.
        encode: RowEncoder,
    },
    /// Each record as bytes of its own.
    Each(Vec<Arc<[u8]>>),
}

impl RawSource {
    /// Returns the raw records of these rows, in this order.
    pub fn select_rows(&self, rows: &[u32]) -> Result<Self> {
        Ok(match self {
            Self::Text { text, header, spans } => {
                let spans = rows.iter().map(|&r| spans[r as usize].clone()).collect();
                Self::Text { text: text.clone(), header: header.clone(), spans }
            }
            Self::Each(all) => Self::Each(rows.iter().map(|&r| all[r as usize].clone()).collect()),
            Self::Rows { rows: batch, encode } => Self::Rows {
                rows: take_record_batch(batch, &UInt32Array::from(rows.to_vec()))
                    .map_err(|e| Error::internal("cannot select rows of a batch").with_source(e))?,
                encode: *encode,
            },
        })
    }

    /// Returns one record as a file of its own.
    pub fn get(&self, row: usize) -> Result<Vec<u8>> {
        match self {
            Self::Text { text, header, spans } => {
                let record = text[spans[row].clone()].trim_end_matches(['\n', '\r']);
                Ok(match header {
                    Some(header) => format!("{}\n{record}\n", header.trim_end_matches(['\n', '\r'])).into_bytes(),
                    None => format!("{record}\n").into_bytes(),
                })
            }
            Self::Rows { rows, encode } => encode(&rows.slice(row, 1)),
            Self::Each(all) => Ok(all[row].to_vec()),
        }
    }
}
