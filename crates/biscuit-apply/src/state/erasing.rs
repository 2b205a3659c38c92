//! Erasure of subjects from the state of merges.

use biscuit_change::RefusedRecord;
use biscuit_core::Result;
use biscuit_dataset::{ParquetOptions, TableVersion};
use biscuit_journal::CommitExtras;
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{TupleEncoder, TuplePurpose};
use biscuit_rewrite::ErasureSubjects;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;

use crate::state::forgotten_keys::{ErasedKeys, FORGOTTEN};
use crate::state::key_segment::KeySegments;
use crate::state::quarantine::QuarantineFile;
use crate::table::stored_spec::stored_spec;

/// The changes of merge state for an erasure, to be committed together with the rows.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ErasedState {
    /// State files to write and to remove.
    pub extras: CommitExtras,
    /// Number of keys whose metadata was removed.
    pub keys: u64,
    /// Number of newly forgotten values, or keys of rows.
    pub marked: u64,
    /// Forgotten keys after the erasure.
    pub forgotten: ErasedKeys,
    /// Specification of the table's merges; `None` for a table that was never merged into.
    pub spec: Option<MergeSpec>,
}

/// Erases subjects from the state of merges: removes the metadata of their keys, forgets these keys, and removes
/// `quarantined` records from the quarantine.
///
/// If the column of the subjects is a key column, their keys are the keys with one of the values. Otherwise, their
/// keys are the keys of the erased `rows`, and of rows that are moving to another key. `schema` has the type of the
/// column, if there is one.
///
/// # Errors
/// `NoFileKeys` if the state is encrypted and there are no keys for it; `NewerFormat`, `Diverged`, and the errors of
/// the journal.
pub async fn erased_state(
    snapshot: &TableVersion,
    subjects: &ErasureSubjects,
    schema: &Schema,
    rows: &[RecordBatch],
    quarantined: &[RefusedRecord],
) -> Result<ErasedState> {
    let (journal, head) = (snapshot.journal(), &snapshot.observed.head);
    let version = head.version + 1;
    let mut erased = ErasedState::default();
    if !quarantined.is_empty() {
        erased.extras.extend(QuarantineFile::load(journal, head).await?.remove_retried(quarantined, &[], version)?);
    }
    let Some(spec) = stored_spec(&head.properties)? else { return Ok(erased) };
    let (writable, parquet) = snapshot.clone().for_writing(&ParquetOptions::default(), &[]).await?;
    let keys = parquet.encryption.as_ref().or(writable.dataset_encryption());
    let segments = KeySegments::of_observed(journal, &snapshot.observed, keys).await?;
    let mut forgotten = ErasedKeys::load(journal, head).await?.with_salt(|| journal.writer_id());
    let column = subjects.column();
    if spec.key.iter().any(|key| key == column) {
        let kind = schema.field_with_name(column).ok().map(|field| field.data_type());
        for value in subjects.values() {
            erased.marked += u64::from(forgotten.add_value(column, value, kind));
        }
    } else {
        let mut tuple = Vec::new();
        for batch in rows {
            let encoder = TupleEncoder::new(batch, &spec.key, TuplePurpose::Key, "the rows to erase")?;
            for row in 0..batch.num_rows() {
                tuple.clear();
                if encoder.encode(row, &mut tuple).is_ok() {
                    erased.marked += u64::from(forgotten.add_key(&spec, &tuple));
                }
            }
        }
        for tuple in segments.keys_of_pending_changes(subjects)? {
            erased.marked += u64::from(forgotten.add_key(&spec, &tuple));
        }
    }
    let theirs = |key: &[u8]| forgotten.contains(&spec, key);
    if let Some((update, keys)) = segments.without_keys(&theirs, version, parquet.encryption.as_ref()).await? {
        erased.keys = keys;
        erased.extras.extend(update);
    }
    if erased.marked > 0 {
        erased.extras.put_state(FORGOTTEN, forgotten.to_bytes()?);
    }
    (erased.forgotten, erased.spec) = (forgotten, Some(spec));
    Ok(erased)
}
