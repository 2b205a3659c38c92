use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take_record_batch;
use biscuit_core::{Error, Result};
use biscuit_schema::{ColumnLosses, TypeConflict};
use serde::{Deserialize, Serialize};

use crate::records::op::ChangeOp;
use crate::records::refused::{RawRows, RawSource, RefusedRecord};
use crate::values::declared::{LossCounter, push_once};

/// Whether a column that a record's batch does not have was null in it, or was not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbsentColumns {
    /// Records are full images: a column that is not there is null.
    Full,
    /// Records name what changed: a column that is not there keeps its value.
    Sparse,
}

/// Which half of a key update a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyChangeKind {
    /// The delete of the old key; the other key is the new one.
    To,
    /// The create of the new key; the other key is the old one.
    From,
}

/// The other half of a key update.
#[derive(Debug, Clone)]
pub struct KeyChange {
    /// The row of its batch that this belongs to.
    pub row: usize,
    /// Which half that row is.
    pub kind: KeyChangeKind,
    /// The other half's key: one row, the key columns.
    pub key: RecordBatch,
}

/// The database server whose log the positions of records are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogServer {
    /// Its `server_id`; `None` for rows that a snapshot read, which do not say it.
    pub server_id: Option<String>,
    /// The source of its GTIDs, where the records have them: a server's UUID, or MariaDB's domain and server.
    pub gtid_source: Option<String>,
    /// The order column that has the number of the log's file.
    pub column: String,
    /// The order column that has the position in it, if there is one.
    pub position: Option<String>,
}

/// Change records of one file that share a schema.
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    /// The columns to store, the key and the order columns among them.
    pub rows: RecordBatch,
    /// What each record does.
    pub ops: Vec<ChangeOp>,
    /// The operation code of each record in lower case, empty where it has none; no entry at all where no record has one.
    pub codes: Vec<Arc<str>>,
    /// By column, which records give it; none where all do.
    pub present: Vec<Option<BooleanBuffer>>,
    /// What the absence of a column means.
    pub completeness: AbsentColumns,
    /// The source rank: 0 for a full load that ranks below changes, 1 for changes.
    pub rank: u8,
    /// The number of the slice from which on the records count, where the table has one state per period; else 0.
    pub period: u32,
    /// The halves of key updates.
    pub key_changes: Vec<KeyChange>,
    /// The server whose log orders the records, where positions in the logs of two servers cannot be compared.
    pub server: Option<LogServer>,
    /// The file, as messages call it.
    pub file: Arc<str>,
    /// The row or line of each record in its file, from 1.
    pub places: Vec<u64>,
    /// The records as they were in the file, for those that are put aside later; readers keep them where bad records are to
    /// be put aside.
    pub raw: Option<RawRows>,
}

impl ChangeBatch {
    /// The records but those in these rows.
    ///
    /// # Errors
    /// `Internal`.
    pub fn without(self, rows: &[usize]) -> Result<Self> {
        if rows.is_empty() {
            return Ok(self);
        }
        let keep: Vec<u32> = (0..self.ops.len())
            .filter(|r| !rows.contains(r))
            .map(|r| u32::try_from(r).expect("a batch has fewer than 2^32 rows"))
            .collect();
        self.pick(&keep)
    }

    /// The records of these rows, in this order.
    ///
    /// # Errors
    /// `Internal`.
    pub fn pick(&self, rows: &[u32]) -> Result<Self> {
        let old = || rows.iter().map(|&r| r as usize);
        let failed = |e| Error::internal("records could not be picked").with_source(e);
        let bits = |b: &BooleanBuffer| old().map(|r| b.value(r)).collect();
        let new: HashMap<usize, usize> =
            if self.key_changes.is_empty() { HashMap::new() } else { old().zip(0..).collect() };
        let moved = |m: &KeyChange| Some(KeyChange { row: *new.get(&m.row)?, ..m.clone() });
        Ok(Self {
            rows: take_record_batch(&self.rows, &UInt32Array::from(rows.to_vec())).map_err(failed)?,
            ops: old().map(|r| self.ops[r]).collect(),
            codes: if self.codes.is_empty() { vec![] } else { old().map(|r| self.codes[r].clone()).collect() },
            present: self.present.iter().map(|g| g.as_ref().map(bits)).collect(),
            places: old().map(|r| self.places[r]).collect(),
            raw: self.raw.as_ref().map(|r| r.0.pick(rows).map(RawRows)).transpose()?,
            key_changes: self.key_changes.iter().filter_map(moved).collect(),
            file: self.file.clone(),
            completeness: self.completeness,
            rank: self.rank,
            period: self.period,
            server: self.server.clone(),
        })
    }

    /// The operation code of a record in lower case; empty where it has none.
    pub fn code(&self, row: usize) -> &str {
        self.codes.get(row).map_or("", |code| code)
    }

    /// Bytes that the records take in memory, about.
    pub fn memory(&self) -> usize {
        let raw = match self.raw.as_ref().map(|r| &r.0) {
            None => 0,
            Some(RawSource::Text { spans, .. }) => spans.iter().map(|s| s.len() + size_of_val(s)).sum(),
            Some(RawSource::Rows(rows)) => rows.get_array_memory_size(),
            Some(RawSource::Each(all)) => all.iter().map(|raw| raw.len() + size_of_val(raw)).sum(),
        };
        let key_changes: usize = self.key_changes.iter().map(|m| m.key.get_array_memory_size()).sum();
        let each = size_of::<ChangeOp>() + size_of::<u64>();
        let codes = size_of::<Arc<str>>() * self.codes.len();
        self.rows.get_array_memory_size() + raw + key_changes + codes + each * self.ops.len()
    }

    /// The same records, of which others are put aside than what was in the file: sealed ones.
    ///
    /// # Errors
    /// Those of `seal`.
    pub fn map_raw(mut self, mut seal: impl FnMut(Vec<u8>) -> Result<Vec<u8>>) -> Result<Self> {
        if let Some(RawRows(raws)) = self.raw.take() {
            let sealed = (0..self.ops.len()).map(|row| seal(raws.get(row)?).map(Arc::from)).collect::<Result<_>>()?;
            self.raw = Some(RawRows(RawSource::Each(sealed)));
        }
        Ok(self)
    }

    /// A record that is put aside for this error.
    ///
    /// # Errors
    /// The error itself if the source did not keep the records as they were: what is put aside must not be lost.
    pub fn refuse(&self, row: usize, e: Error) -> Result<RefusedRecord> {
        match &self.raw {
            Some(raw) => Ok(RefusedRecord::new(&self.file, self.places[row], &e, raw.0.get(row)?)),
            None => Err(e),
        }
    }
}

/// The change records of one run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ChangeRecords {
    /// The records.
    pub batches: Vec<ChangeBatch>,
    /// Input records that are no change of the table: Kafka tombstones, images before an update, logical messages.
    pub ignored: u64,
    /// Input records of other tables.
    pub other_tables: u64,
    /// Records of files that do not have the operation column that was named: upserts, as those of a full load are.
    pub without_op: u64,
    /// The key columns, where the records say them.
    pub key: Vec<String>,
    /// The order columns, where the records say them.
    pub order: Vec<String>,
    /// Files that have the keys or headers of messages, whose values are in others.
    pub passed_over: Vec<String>,
    /// Records that were put aside.
    pub refused: Vec<RefusedRecord>,
    /// Columns of the records that the contract does not have, and that were left out.
    pub dropped_columns: Vec<String>,
    /// Values that were rounded, or became null or the default, as the contract has it, by column.
    pub losses: BTreeMap<String, ColumnLosses>,
    /// Columns of text formats whose values are of several types, and that are text for that.
    pub conflicts: Vec<TypeConflict>,
}

impl ChangeRecords {
    /// The change records of these batches, without a key or an order of their own.
    pub fn of(batches: Vec<ChangeBatch>) -> Self {
        Self { batches, ..Self::default() }
    }

    /// The number of change records, without those that were put aside.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|b| b.ops.len()).sum()
    }

    pub(crate) fn lost(&mut self, lost: LossCounter) {
        lost.dropped.into_iter().for_each(|name| push_once(&mut self.dropped_columns, name));
        lost.columns.into_iter().for_each(|(column, losses)| self.losses.entry(column).or_default().add(&losses));
    }

    /// Whether there is no change record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
