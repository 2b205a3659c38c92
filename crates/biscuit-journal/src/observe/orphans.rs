//! Retained files and the objects that dead runs left: what a purge may delete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use biscuit_core::{Error, Instant, ObjectRef, Result};
use biscuit_purge::{KeepReason, ListedObject, PurgePlan};
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::codes;
use crate::commit::clean::OrphanedState;
use crate::log::head::TableHead;
use crate::log::journal_store::JournalStore;
use crate::log::layout::{JournalObjectKind, journal_folder, path_below};
use crate::observe::observed::{ObservedTable, classify_files};
use crate::observe::ownership::list_folder;
use crate::store_error;

/// Objects of dead runs, which no run needs now or later.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OrphanedObjects {
    /// Newest version, which proves that the objects are dead.
    pub version: u64,
    /// Dead objects in the state root: staged files, and state files that do not belong to the newest version.
    pub dead: Vec<ObjectMeta>,
    /// Orphan files in the folder of the table.
    pub orphan_files: Vec<ObjectRef>,
}

/// Retained files of a table, with their times.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RetainedFiles {
    /// Table in which the files were found.
    pub observed: ObservedTable,
    /// For each file: the file, the latest time at which it can have been replaced (on the clock of the store), and
    /// its retention from that time on.
    pub files: Vec<(ObjectRef, Instant, Duration)>,
}

impl RetainedFiles {
    /// Plans to delete the files whose retention ended at least `grace` before `now`, on the clock of the store.
    /// Returns the plan, in which the other files are kept as retained, and the files to pass to
    /// [`Journal::release_files`](crate::Journal::release_files).
    ///
    /// # Errors
    /// Those of [`PurgePlan::keeping`].
    pub fn plan_due(&self, table: &Path, now: Instant, grace: Duration) -> Result<(PurgePlan, Vec<ObjectRef>)> {
        // One more second, because stores cut times to whole seconds: a time may be up to a second too early.
        let over =
            |since: Instant, stays: Duration| since.saturating_add(stays + grace + Duration::from_secs(1)) <= now;
        let key = |file: &ObjectRef| path_below(table, &file.path).to_string();
        let (due, young): (Vec<_>, Vec<_>) = self.files.iter().partition(|(_, since, stays)| over(*since, *stays));
        let young: BTreeSet<String> = young.iter().map(|(file, ..)| key(file)).collect();
        let listing = self.files.iter().map(|(file, since, _)| {
            let mut object = ListedObject::from(file.clone().with_path(key(file)));
            object.modified = Some(*since);
            object
        });
        let plan =
            PurgePlan::keeping(table, listing.collect(), |o| young.contains(o.key()).then_some(KeepReason::Retained))?;
        Ok((plan, due.into_iter().map(|(file, ..)| file.clone()).collect()))
    }
}

/// Returns the objects that dead runs left.
pub(crate) async fn orphaned_objects(journal: &JournalStore) -> Result<OrphanedObjects> {
    for _ in 0..8 {
        let head = finished_head_only(journal).await?;
        let observed = classify_files(&journal.options, &head, list_folder(journal).await?.files);
        let (mut objects, dead) = (Vec::new(), OrphanedState::new(&journal.state, &head));
        for root in &dead.roots {
            let listed = journal.storage.store.list(Some(root)).try_collect::<Vec<ObjectMeta>>().await;
            let listed = listed.map_err(|e| store_error("list", root, e))?;
            objects.extend(listed.into_iter().filter(|object| dead.contains(root, &object.location)));
        }
        // A file that is not live in this version may belong to the next one, which publishes only after its
        // record exists. So the result is proven if the head is still the same after all listings.
        if journal.head().await? == head {
            return Ok(OrphanedObjects { version: head.version, dead: objects, orphan_files: observed?.orphan_files });
        }
    }
    Err(journal.busy())
}

/// Returns the retained files with the times from which [`RetainedFiles::plan_due`] decides.
pub(crate) async fn retained_files(journal: &JournalStore) -> Result<RetainedFiles> {
    for _ in 0..8 {
        let head = finished_head_only(journal).await?;
        let observed = classify_files(&journal.options, &head, list_folder(journal).await?.files);
        let committed = commit_times(journal).await?;
        if journal.head().await? != head {
            continue;
        }
        let observed = observed?;
        let mut files = Vec::new();
        for (path, retained) in &head.retained {
            // If the record of that version was dropped, the next record or checkpoint that exists gives a later
            // time. Later is safe: the file is retained for longer.
            let (_, at) = committed.range(retained.since..).next().ok_or_else(|| {
                Error::new(codes::DIVERGED, format!("the journal has no record from version {} on", retained.since))
            })?;
            // The file as it is listed now, with its present ETag; if it does not exist, as the record has it.
            let file = observed.retained.iter().find(|f| f.path == *path).cloned();
            let file = file.unwrap_or_else(|| ObjectRef::new(path, retained.size, retained.etag.clone()));
            files.push((file, *at, Duration::from_secs(retained.seconds)));
        }
        return Ok(RetainedFiles { observed, files });
    }
    Err(journal.busy())
}

/// Reads the head without changes, and refuses one that is not finished.
async fn finished_head_only(journal: &JournalStore) -> Result<TableHead> {
    crate::log::pointer::check(journal).await?;
    let head = journal.head().await?;
    journal.check_finished(&head)?;
    Ok(head)
}

/// Times at which the existing records were written, by version, on the clock of the store. A version whose
/// record was dropped has the time of its checkpoint, if there is one.
async fn commit_times(journal: &JournalStore) -> Result<BTreeMap<u64, Instant>> {
    let folder = journal_folder(&journal.state);
    let mut objects = journal.storage.store.list(Some(&folder));
    let mut times = BTreeMap::new();
    while let Some(object) = objects.try_next().await.map_err(|e| store_error("list", &folder, e))? {
        let at = Instant::from_micros(object.last_modified.timestamp_micros());
        match JournalObjectKind::parse(&object.location) {
            Some(JournalObjectKind::Record(v)) => drop(times.insert(v, at)),
            Some(JournalObjectKind::Checkpoint(v)) => drop(times.entry(v).or_insert(at)),
            _ => {}
        }
    }
    Ok(times)
}
