use biscuit_change::{ChangeBatch, RefusedRecord};
use biscuit_core::{Error, Result};
use biscuit_dataset::TableVersion;
use biscuit_merge::{ErasedKeys, ErasedState, MergeSpec, RunMode, erased_state};
use biscuit_rewrite::{EraseReport, ErasureSubjects, SubjectRows};
use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use serde::Serialize;

use crate::pending::{self, PENDING};
use crate::retracted::{RETRACTED, RetractedKeys};

/// What was erased of a table, or would be, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForgetReport {
    /// Rows and files.
    #[serde(flatten)]
    pub erased: EraseReport,
    /// Records that waited for their period.
    pub pending: u64,
    /// Records that were taken back, of which that was remembered.
    pub retracted: u64,
    /// Keys of which something was kept besides their rows, such as a delete.
    pub keys: u64,
    /// Records of the quarantine.
    pub quarantined: u64,
    /// ErasureSubjects, or keys of erased rows, whose records change the table no more from now on.
    pub forgotten: u64,
    /// Where values of the subjects may be or come back from, and what to do about it.
    pub not_covered: Vec<NotCovered>,
}

/// A place that an erasure does not reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NotCovered {
    /// A name that does not change: `Copies`, `Replay`, `RunsUnderWay`, `FolderNames`, `InputNames`, `BloomFilters`, `Quarantine`,
    /// `ObjectVersions`.
    pub code: &'static str,
    /// What it is, and what to do.
    pub message: String,
}

impl NotCovered {
    /// A place by its code, and what to do about it.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Erases the rows of subjects from a table, and everything that its state holds of them, as one commit: files that were replaced and stay for
/// slow readers, records that wait for their period, records that were taken back, what is kept by key, and these records of the
/// quarantine. Where the table is one of merges, the keys of the subjects are forgotten: their records change nothing any more.
///
/// # Errors
/// `NotFound` if there is no table; `MissingColumn`, `NotText`, `NoFileKeys`, `RawLayer`; `Conflict` if another run was first; those of the store.
/// After any of them the table is as it was.
pub async fn forget(
    snapshot: TableVersion,
    subjects: &ErasureSubjects,
    quarantined: &[RefusedRecord],
    mode: RunMode,
) -> Result<ForgetReport> {
    let found = SubjectRows::of(&snapshot, subjects).await?;
    let (journal, head) = (snapshot.dataset().journal(), &snapshot.observed.head);
    let spec = biscuit_merge::stored_spec(&head.properties)?;
    let pending = pending::load(journal, head).await?;
    let rows = match &spec {
        Some(spec) if !spec.key.iter().any(|key| key == subjects.column()) => {
            let key: Vec<&str> = spec.key.iter().map(String::as_str).collect();
            let mut rows = found.read(Some(&key)).await?;
            rows.extend(pending.iter().map(|batch| theirs_in(batch, subjects)).collect::<Result<Vec<_>>>()?);
            rows
        }
        _ => vec![],
    };
    let schema = found.schema()?;
    let ErasedState { mut state, keys, marked, forgotten, spec, .. } =
        erased_state(&snapshot, subjects, &schema, &rows, quarantined).await?;
    let mut report = ForgetReport { keys, forgotten: marked, ..ForgetReport::default() };
    report.quarantined = quarantined.len() as u64;
    if let Some(spec) = &spec {
        report.pending = erase_pending(pending, subjects, &forgotten, spec, &mut state)?;
        let mut retracted = RetractedKeys::load(journal, head).await?;
        report.retracted = retracted.forget(&|key| forgotten.has(spec, key));
        if report.retracted > 0 {
            state.push((RETRACTED.0.to_owned(), Some(retracted.write())));
        }
    }
    report.not_covered = not_covered(&snapshot, subjects, spec.as_ref(), found.has_bloom_filters());
    report.erased = found.erase(state, mode).await?;
    Ok(report)
}

/// The rows of a batch that are of the subjects.
fn theirs_in(batch: &ChangeBatch, subjects: &ErasureSubjects) -> Result<RecordBatch> {
    let places = match batch.rows.column_by_name(subjects.column()) {
        Some(column) => subjects.places(column)?,
        None => vec![],
    };
    let places = places.into_iter().map(|row| u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
    let failed = |e| Error::internal("records could not be picked").with_source(e);
    take_record_batch(&batch.rows, &UInt32Array::from_iter_values(places)).map_err(failed)
}

/// Takes the records of subjects, and those of forgotten keys, out of those that wait; answers with how many they were.
fn erase_pending(
    pending: Vec<ChangeBatch>,
    subjects: &ErasureSubjects,
    forgotten: &ErasedKeys,
    spec: &MergeSpec,
    state: &mut Vec<(String, Option<Bytes>)>,
) -> Result<u64> {
    let (mut rest, mut count, mut links) = (Vec::with_capacity(pending.len()), 0, 0);
    for batch in pending {
        let (before, of) = (batch.key_changes.len(), batch.ops.len());
        let (batch, _) = forgotten.without(batch, spec)?;
        let column = batch.rows.column_by_name(subjects.column());
        let theirs = column.map(|column| subjects.places(column)).transpose()?.unwrap_or_default();
        let batch = batch.without(&theirs)?;
        count += (of - batch.ops.len()) as u64;
        links += before - batch.key_changes.len();
        if !batch.ops.is_empty() {
            rest.push(batch);
        }
    }
    if count > 0 || links > 0 {
        let content = if rest.is_empty() { None } else { Some(pending::write(&rest)?) };
        state.push((PENDING.0.to_owned(), content));
    }
    Ok(count)
}

/// What the erasure of a table does not reach.
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
        "input files, tables that were made of this one, and backups hold what they held: erase it there as well",
    )];
    let replay = match spec {
        Some(spec) if spec.key.iter().any(|key| key == column) => None,
        Some(spec) => Some(format!(
            "records of the erased rows are refused by their key ({}), and records of the subjects under other keys are not: delete old input, or encrypt values with [pii] subject keys",
            spec.key.join(", ")
        )),
        None => Some(
            "the table has no key by which records could be refused, so that old input that is read again brings the subjects back: delete it, or encrypt values with [pii] subject keys"
                .to_owned(),
        ),
    };
    all.extend(replay.map(|message| NotCovered::new("Replay", message)));
    all.push(NotCovered::new(
        "RunsUnderWay",
        "a run that began before the erasure ends with `Conflict` and deletes what it has staged; one that is killed before that leaves it to the next commit or `biscuit recover`",
    ));
    if !snapshot.partition_columns().is_empty() {
        let columns: Vec<&str> = snapshot.partition_columns().iter().map(|(name, _)| name.as_str()).collect();
        let message = format!(
            "names of folders ({}) are in the history of the journal as they were: no value that says who somebody is should be in them",
            columns.join(", ")
        );
        all.push(NotCovered::new("FolderNames", message));
    }
    if head.state.keys().any(|name| name.starts_with("bookmarks/")) {
        let message = "bookmarks remember the names of input objects, also of those that are gone";
        all.push(NotCovered::new("InputNames", message));
    }
    if has_bloom_filters {
        let message = "bloom filters of row groups that are not of the subjects now may answer `perhaps` for a value that was there before: `biscuit compact` with another row group size makes them anew";
        all.push(NotCovered::new("BloomFilters", message));
    }
    all
}
