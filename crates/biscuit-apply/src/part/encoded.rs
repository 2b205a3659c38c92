//! A part of the records, checked and encoded.

use biscuit_change::{BadRows, ChangeBatch, ChangeOp};
use biscuit_core::Result;
use biscuit_dataset::internal::rows_without_folder;
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{ChangeSet, TargetRows};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use crate::changes::key_coverage::KeyCoverage;
use crate::changes::spilled_ranges::InputPart;
use crate::state::forgotten_keys::ErasedKeys;

/// A part of the records, checked and grouped by key.
#[derive(Debug)]
pub(crate) struct EncodedPart {
    pub(crate) set: ChangeSet,
    pub(crate) tables: TargetRows,
    pub(crate) covers: KeyCoverage,
    pub(crate) memory: MemoryReservation,
    /// Number of records of forgotten keys, which were removed.
    pub(crate) forgotten: u64,
}

impl EncodedPart {
    /// Checks and encodes a part, without records of forgotten keys.
    ///
    /// # Errors
    /// The errors of [`ChangeSet::new`].
    pub(crate) fn new(
        part: InputPart,
        spec: &MergeSpec,
        partition_by: &[String],
        bad_rows: BadRows,
        target: &SchemaRef,
        forgotten: &ErasedKeys,
    ) -> Result<Self> {
        let mut tables = TargetRows::default();
        let (batches, forgotten) = forgotten.without_all(part.batches, spec)?;
        // A deleted row needs no folder.
        let without_folder = |batch: &ChangeBatch| {
            let bad = rows_without_folder(&batch.rows, partition_by).into_iter();
            let bad = bad.filter(|(row, _)| batch.ops[*row] == ChangeOp::Upsert);
            bad.map(|(row, e)| (row, e.at(&batch.file, batch.places[row]))).collect()
        };
        let set = ChangeSet::new(batches, spec, &without_folder, bad_rows, target, &mut tables)?;
        Ok(Self { set, tables, covers: part.covers, memory: part.memory, forgotten })
    }

    /// Number of keys with records.
    pub(crate) fn keys(&self) -> usize {
        self.set.keys.len()
    }
}
