//! Key changes among change records: a delete of the old key and a create of the new key.

use arrow::array::RecordBatch;

/// Half of a key change: a key change is a delete of the old key and a create of the new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyChangeKind {
    /// Delete of the old key; [`KeyChange::key`] is the new key.
    To,
    /// Create of the new key; [`KeyChange::key`] is the old key.
    From,
}

/// Link from one half of a key change to the key of the other half.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "readers write it as a literal, and must not forget a field")]
pub struct KeyChange {
    /// Index of the row in [`ChangeBatch::rows`](crate::ChangeBatch::rows).
    pub row: usize,
    /// Half of the key change that the row is.
    pub kind: KeyChangeKind,
    /// Key of the other half: one row with the key columns.
    pub key: RecordBatch,
}
