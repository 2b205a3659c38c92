//! Erasure of subjects from a table and its state, as one commit. It works for tables with and without periods.

use biscuit_apply::internal::{ErasedKeys, ErasedState, erased_state};
use biscuit_apply::{MergeSpec, RunMode};
use biscuit_change::{ChangeBatch, RefusedRecord};
use biscuit_core::{Error, Result};
use biscuit_dataset::TableVersion;
use biscuit_journal::CommitExtras;
use biscuit_rewrite::{EraseReport, ErasureSubjects, SubjectRows};
use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use serde::Serialize;

use crate::pending;
use crate::retracted::{RETRACTED, RetractedKeys};

/// Report of an erasure or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForgetReport {
    /// Erased rows and replaced files.
    #[serde(flatten)]
    pub erased: EraseReport,
    /// Number of erased pending records.
    pub pending: u64,
    /// Number of erased retractions.
    pub retracted: u64,
    /// Number of keys whose key metadata was erased, such as a tombstone.
    pub keys: u64,
    /// Number of erased records of the quarantine.
    pub quarantined: u64,
    /// Number of keys that are forgotten from now on: keys of the subjects, or of the erased rows. Records with these
    /// keys no longer change the table.
    pub forgotten: u64,
    /// Places where values of the subjects may remain or come back from.
    pub not_covered: Vec<NotCovered>,
}

/// A place that an erasure does not reach, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NotCovered {
    /// Stable name: `Copies`, `Replay`, `RunsUnderWay`, `FolderNames`, `InputNames`, `BloomFilters`, `Quarantine` or
    /// `ObjectVersions`.
    pub code: &'static str,
    /// Description of the place, and what to do.
    pub message: String,
}

impl NotCovered {
    /// Creates a note about a place.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Erases the rows of subjects from a table, and everything about them in its state, as one commit: retained files,
/// pending records, retractions, key metadata, and the given records of the quarantine. If the table is the result of
/// merges, the keys of the subjects are forgotten: records with these keys no longer change the table.
///
/// ```
/// use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{RowsOptions, RowsReader};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
/// use biscuit_partition::{ErasureSubjects, forget};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://forget/lake/customer")?, JournalOptions::default());
/// let merge = Merge::new(dataset.clone(), MergeSpec::new(["id"], ["seq"])?, MergeOptions::default())?;
/// let lines = r#"{"id": "ann", "seq": 1, "city": "Lyon"}
/// {"id": "bob", "seq": 1, "city": "Kyiv"}"#;
/// let mut reader = RowsReader::new(RowsOptions::default());
/// reader.read("changes.jsonl", lines.into())?;
/// let records = reader.finish()?;
/// merge.run(records.clone(), RunMode::Commit).await?;
///
/// let ann = ErasureSubjects::new("id", ["ann"]);
/// let report = forget(dataset.observe().await?, &ann, &[], RunMode::Commit).await?;
/// assert_eq!((report.erased.erased, report.forgotten), (1, 1));
///
/// // The same records arrive again, and the forgotten key has no effect.
/// let report = merge.run(records, RunMode::Commit).await?;
/// assert_eq!((report.rows.after, report.verdicts.forgotten), (1, 1));
/// # Ok(()) }
/// ```
///
/// # Errors
/// `NoTable` if there is no table; `UnknownColumn`, `NotText`, `NoFileKeys`, `RawLayer`; `Conflict` if another run
/// committed first; errors of the store. After an error the table is unchanged.
pub async fn forget(
    snapshot: TableVersion,
    subjects: &ErasureSubjects,
    quarantined: &[RefusedRecord],
    mode: RunMode,
) -> Result<ForgetReport> {
    let found = SubjectRows::find(&snapshot, subjects).await?;
    let (journal, head) = (snapshot.journal(), &snapshot.observed.head);
    let spec = biscuit_apply::internal::stored_spec(&head.properties)?;
    let pending = pending::load_pending(journal, head).await?;
    // If the subject column is not the key, the erased rows and pending records tell which keys to forget.
    let rows = match &spec {
        Some(spec) if !spec.key.iter().any(|key| key == subjects.column()) => {
            let key: Vec<&str> = spec.key.iter().map(String::as_str).collect();
            let mut rows = found.read(Some(&key)).await?;
            rows.extend(pending.iter().map(|batch| rows_of_subjects(batch, subjects)).collect::<Result<Vec<_>>>()?);
            rows
        }
        _ => vec![],
    };
    let schema = found.schema()?;
    let ErasedState { mut extras, keys, marked, forgotten, spec, .. } =
        erased_state(&snapshot, subjects, &schema, &rows, quarantined).await?;
    let mut report = ForgetReport { keys, forgotten: marked, ..ForgetReport::default() };
    report.quarantined = quarantined.len() as u64;
    if let Some(spec) = &spec {
        report.pending = erase_pending(pending, subjects, &forgotten, spec, &mut extras)?;
        let mut retracted = RetractedKeys::load(journal, head).await?;
        report.retracted = retracted.forget_keys(&|key| forgotten.contains(spec, key));
        if report.retracted > 0 {
            extras.put_state(RETRACTED.0, retracted.write());
        }
    }
    report.not_covered = not_covered(&snapshot, subjects, spec.as_ref(), found.has_bloom_filters());
    report.erased = found.erase(extras, mode).await?;
    Ok(report)
}

/// Returns the rows of a batch that belong to the subjects.
fn rows_of_subjects(batch: &ChangeBatch, subjects: &ErasureSubjects) -> Result<RecordBatch> {
    let places = match batch.rows.column_by_name(subjects.column()) {
        Some(column) => subjects.find_rows(column)?,
        None => vec![],
    };
    let places = places.into_iter().map(|row| u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
    let failed = |e| Error::internal("cannot select records").with_source(e);
    take_record_batch(&batch.rows, &UInt32Array::from_iter_values(places)).map_err(failed)
}

/// Removes the records of subjects and of forgotten keys from the pending records. Returns how many were removed.
fn erase_pending(
    pending: Vec<ChangeBatch>,
    subjects: &ErasureSubjects,
    forgotten: &ErasedKeys,
    spec: &MergeSpec,
    extras: &mut CommitExtras,
) -> Result<u64> {
    let (mut rest, mut count, mut links) = (Vec::with_capacity(pending.len()), 0, 0);
    for batch in pending {
        let (before, of) = (batch.key_changes.len(), batch.ops.len());
        let (batch, _) = forgotten.without_forgotten(batch, spec)?;
        let column = batch.rows.column_by_name(subjects.column());
        let theirs = column.map(|column| subjects.find_rows(column)).transpose()?.unwrap_or_default();
        let batch = batch.without_rows(&theirs)?;
        count += (of - batch.ops.len()) as u64;
        links += before - batch.key_changes.len();
        if !batch.ops.is_empty() {
            rest.push(batch);
        }
    }
    if count > 0 || links > 0 {
        pending::store(&rest, extras)?;
    }
    Ok(count)
}

/// Returns the places that the erasure of a table does not reach.
fn not_covered(
    snapshot: &TableVersion,
    subjects: &ErasureSubjects,
    spec: Option<&MergeSpec>,
    has_bloom_filters: bool,
) -> Vec<NotCovered> {
    let column = subjects.column();
    let head = &snapshot.observed.head;
    let mut all = vec![NotCovered::new(
        "Copies",
        "input files, tables derived from this table, and backups are unchanged; erase the subjects there as well",
    )];
    let replay = match spec {
        Some(spec) if spec.key.iter().any(|key| key == column) => None,
        Some(spec) => Some(format!(
            "records with the keys of erased rows ({}) are refused, but records of the subjects with other keys are not; delete old input, or encrypt values with [pii] subject keys",
            spec.key.join(", ")
        )),
        None => Some(
            "the table has no key, so records of the subjects cannot be refused, and old input that is read again brings them back; delete old input, or encrypt values with [pii] subject keys"
                .to_owned(),
        ),
    };
    all.extend(replay.map(|message| NotCovered::new("Replay", message)));
    all.push(NotCovered::new(
        "RunsUnderWay",
        "a run that began before the erasure ends with `Conflict` and deletes its staged files; if it is killed first, the next commit or `biscuit recover` deletes them",
    ));
    if !snapshot.partition_columns().is_empty() {
        let columns: Vec<&str> = snapshot.partition_columns().iter().map(|(name, _)| name.as_str()).collect();
        let message = format!(
            "the history of the journal retains the names of folders ({}); do not partition by values that identify a person",
            columns.join(", ")
        );
        all.push(NotCovered::new("FolderNames", message));
    }
    if head.state.keys().any(|name| name.starts_with("bookmarks/")) {
        let message = "bookmarks retain the names of input objects, including deleted ones";
        all.push(NotCovered::new("InputNames", message));
    }
    if has_bloom_filters {
        let message = "bloom filters of copied row groups may still answer `perhaps` for an erased value; rewrite them by `biscuit compact` with another row group size";
        all.push(NotCovered::new("BloomFilters", message));
    }
    all
}
