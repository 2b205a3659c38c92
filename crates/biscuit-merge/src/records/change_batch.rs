//! Change records: batches of rows with their operations, order and origin.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take_record_batch;
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::records::key_change::KeyChange;
use crate::records::op::ChangeOp;
use crate::records::packed::{PackedReader, PackedWriter};
use crate::records::refused::{RawRows, RawSource, RefusedRecord, RowEncoder};

/// Meaning of a table column that a batch does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a missing column is null or unchanged")]
pub enum AbsentColumns {
    /// Records are full images: an absent column is null.
    Full,
    /// Records contain changed columns only: an absent column keeps its value.
    Sparse,
}

/// Database server that wrote the log in which records have their positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "readers write it as a literal, and must not forget a field")]
pub struct LogServer {
    /// `server_id` of the server; `None` for snapshot rows, which do not have one.
    pub server_id: Option<String>,
    /// Source of the GTIDs of the server, if the records have GTIDs: the UUID of the server, or domain and server of
    /// MariaDB.
    pub gtid_source: Option<String>,
    /// Order column with the number of the log file.
    pub column: String,
    /// Order column with the position in the log file, if there is one.
    pub position: Option<String>,
}

/// Change records of one file that share a schema.
///
/// `ops`, `codes`, `places` and `raw` are parallel to the rows, and `present` is parallel to the columns of `rows`.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "readers write it as a literal, and must not forget a field")]
pub struct ChangeBatch {
    /// Columns to store, including the key and the order columns.
    pub rows: RecordBatch,
    /// Operation of each record.
    pub ops: Vec<ChangeOp>,
    /// Operation code of each record in lower case, or empty text if the record has none. Empty if no record has a
    /// code; use [`operation_code`](Self::operation_code).
    pub codes: Vec<Arc<str>>,
    /// For each column, the records in which it is present; `None` if it is present in all records. A column that is
    /// not present is an unchanged value.
    pub present: Vec<Option<BooleanBuffer>>,
    /// Meaning of table columns that `rows` does not have.
    pub completeness: AbsentColumns,
    /// Source rank: 0 for a full load, which is older than all changes, and 1 for changes.
    pub rank: u8,
    /// Number of the first period in which the records take effect, for a table with one state per period; otherwise
    /// 0.
    pub period: u32,
    /// Halves of key changes among the records.
    pub key_changes: Vec<KeyChange>,
    /// Server whose log orders the records, for databases in which the positions of two servers cannot be compared.
    pub server: Option<LogServer>,
    /// Name of the file in messages.
    pub file: Arc<str>,
    /// Row or line of each record in its file, from 1.
    pub places: Vec<u64>,
    /// Records as they were in the file. Readers keep them only if invalid records may be quarantined.
    pub raw: Option<RawRows>,
}

impl ChangeBatch {
    /// Creates a batch of changes from full images without unchanged values. `ops` and `places` have an entry for each
    /// of the `rows`. Fields that differ are set afterwards.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    /// use biscuit_merge::{ChangeBatch, ChangeOp};
    ///
    /// let ids: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    /// let rows = RecordBatch::try_from_iter([("id", ids)])?;
    /// let full_load = ChangeBatch { rank: 0, ..ChangeBatch::new(rows, vec![ChangeOp::Upsert], "a.csv".into(), vec![2]) };
    /// assert_eq!((full_load.rank, full_load.operation_code(0), full_load.present[0].is_none()), (0, "", true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(rows: RecordBatch, ops: Vec<ChangeOp>, file: Arc<str>, places: Vec<u64>) -> Self {
        Self {
            present: vec![None; rows.num_columns()],
            rows,
            ops,
            codes: vec![],
            completeness: AbsentColumns::Full,
            rank: 1,
            period: 0,
            key_changes: vec![],
            server: None,
            file,
            places,
            raw: None,
        }
    }

    /// Returns the batch without these rows.
    ///
    /// # Errors
    /// `Internal`.
    pub fn without_rows(self, rows: &[usize]) -> Result<Self> {
        if rows.is_empty() {
            return Ok(self);
        }
        let keep: Vec<u32> = (0..self.ops.len())
            .filter(|r| !rows.contains(r))
            .map(|r| u32::try_from(r).expect("a batch has fewer than 2^32 rows"))
            .collect();
        self.select_rows(&keep)
    }

    /// Returns the batch of these rows, in this order.
    ///
    /// # Errors
    /// `Internal`.
    pub fn select_rows(&self, rows: &[u32]) -> Result<Self> {
        let old = || rows.iter().map(|&r| r as usize);
        let failed = |e| Error::internal("cannot select records of a batch").with_source(e);
        let bits = |b: &BooleanBuffer| old().map(|r| b.value(r)).collect();
        // Key changes refer to rows by index, so the indices must follow their rows.
        let new: HashMap<usize, usize> =
            if self.key_changes.is_empty() { HashMap::new() } else { old().zip(0..).collect() };
        let moved = |m: &KeyChange| Some(KeyChange { row: *new.get(&m.row)?, ..m.clone() });
        Ok(Self {
            rows: take_record_batch(&self.rows, &UInt32Array::from(rows.to_vec())).map_err(failed)?,
            ops: old().map(|r| self.ops[r]).collect(),
            codes: if self.codes.is_empty() { vec![] } else { old().map(|r| self.codes[r].clone()).collect() },
            present: self.present.iter().map(|g| g.as_ref().map(bits)).collect(),
            places: old().map(|r| self.places[r]).collect(),
            raw: self.raw.as_ref().map(|r| r.0.select_rows(rows).map(RawRows)).transpose()?,
            key_changes: self.key_changes.iter().filter_map(moved).collect(),
            file: self.file.clone(),
            completeness: self.completeness,
            rank: self.rank,
            period: self.period,
            server: self.server.clone(),
        })
    }

    /// Returns the operation code of a record in lower case, or empty text if it has none.
    pub fn operation_code(&self, row: usize) -> &str {
        self.codes.get(row).map_or("", |code| code)
    }

    /// Approximate number of bytes that the records take in memory.
    pub fn memory_size(&self) -> usize {
        let raw = match self.raw.as_ref().map(|r| &r.0) {
            None => 0,
            Some(RawSource::Text { spans, .. }) => spans.iter().map(|s| s.len() + size_of_val(s)).sum(),
            Some(RawSource::Rows { rows, .. }) => rows.get_array_memory_size(),
            Some(RawSource::Each(all)) => all.iter().map(|raw| raw.len() + size_of_val(raw)).sum(),
        };
        let key_changes: usize = self.key_changes.iter().map(|m| m.key.get_array_memory_size()).sum();
        let each = size_of::<ChangeOp>() + size_of::<u64>();
        let codes = size_of::<Arc<str>>() * self.codes.len();
        self.rows.get_array_memory_size() + raw + key_changes + codes + each * self.ops.len()
    }

    /// Copies the raw records out of the text of their file if they are a small part of it, so that the batch does not keep all
    /// of the text in memory.
    #[must_use]
    pub fn detach_raw(mut self) -> Self {
        if let Some(RawRows(RawSource::Text { text, spans, .. })) = &mut self.raw {
            let own: usize = spans.iter().map(ExactSizeIterator::len).sum();
            if own < text.len() / 2 {
                let mut copy = String::with_capacity(own);
                for span in spans {
                    let begin = copy.len();
                    copy.push_str(&text[span.clone()]);
                    *span = begin..copy.len();
                }
                *text = Arc::new(copy);
            }
        }
        self
    }

    /// Replaces each raw record by `seal(raw)`, so that the quarantine contains encrypted records.
    ///
    /// # Errors
    /// The errors of `seal`.
    pub fn map_raw(mut self, mut seal: impl FnMut(Vec<u8>) -> Result<Vec<u8>>) -> Result<Self> {
        if let Some(RawRows(raws)) = self.raw.take() {
            let sealed = (0..self.ops.len()).map(|row| seal(raws.get(row)?).map(Arc::from)).collect::<Result<_>>()?;
            self.raw = Some(RawRows(RawSource::Each(sealed)));
        }
        Ok(self)
    }

    /// Returns the quarantined form of a record that is refused with the error `e`.
    ///
    /// # Errors
    /// `e` itself if the reader did not keep the raw records: without them the record would be lost.
    pub fn refuse_row(&self, row: usize, e: Error) -> Result<RefusedRecord> {
        match &self.raw {
            Some(raw) => Ok(RefusedRecord::new(&self.file, self.places[row], &e, raw.0.get(row)?)),
            None => Err(e),
        }
    }

    /// Packs the batch into one Arrow batch: first the columns to store, then the columns about the records
    /// (`op`, `place`, `code` and so on). Values that all records share are in the schema metadata.
    ///
    /// Tables with periods store pending records in this form, so [`unpack`](Self::unpack) of later versions must
    /// read it.
    ///
    /// # Errors
    /// `Internal`.
    pub fn pack(&self) -> Result<RecordBatch> {
        let mut packed = PackedWriter::new(&self.rows, &self.file);
        packed.numbers(self.rank, self.period);
        if self.completeness == AbsentColumns::Sparse {
            packed.sparse();
        }
        if let Some(server) = &self.server {
            packed.server(server)?;
        }
        packed.ops(&self.ops);
        packed.places(&self.places);
        packed.codes(&self.codes);
        packed.present(&self.present);
        if let Some(raw) = &self.raw {
            packed.raw(&raw.0)?;
        }
        packed.key_changes(&self.key_changes, self.ops.len())?;
        packed.finish(self.ops.len())
    }

    /// Unpacks a batch that [`pack`](Self::pack) made. `encode` writes raw rows as files again.
    ///
    /// # Errors
    /// `Internal` for any other batch.
    pub fn unpack(packed: &RecordBatch, encode: RowEncoder) -> Result<Self> {
        let packed = PackedReader::new(packed)?;
        let ops = packed.ops()?;
        Ok(Self {
            rows: packed.rows(ops.len())?,
            codes: packed.codes(),
            present: packed.present(),
            completeness: if packed.is_sparse() { AbsentColumns::Sparse } else { AbsentColumns::Full },
            rank: packed.rank()?,
            period: packed.period()?,
            server: packed.server()?,
            key_changes: packed.key_changes(ops.len())?,
            file: packed.file()?,
            places: packed.places()?,
            raw: packed.raw(encode)?.map(RawRows),
            ops,
        })
    }
}
