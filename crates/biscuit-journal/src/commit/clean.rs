//! Cleaning: deletes from the state root what a finished version proves dead.

use std::collections::BTreeSet;

use biscuit_core::Result;
use object_store::path::Path;

use crate::log::head::{TableHead, list_entries};
use crate::log::journal_store::JournalStore;
use crate::log::layout::{JournalObjectKind, parse_run_folder, path_below};
use crate::log::record;
use crate::store::state_objects::{delete_all, delete_below, list_below};
use crate::store_error;

/// Cleans like [`delete_dead_objects`], for a run whose own work is complete. A failure is logged and not returned: a
/// later run deletes what remains.
pub(crate) async fn clean_if_possible(journal: &JournalStore, head: &TableHead, found: Result<Vec<Path>>) -> u64 {
    let cleaned = match found {
        Ok(found) => delete_dead_objects(journal, head, found).await,
        Err(e) => Err(e),
    };
    match cleaned {
        Ok(cleaned) => cleaned,
        Err(e) => {
            tracing::warn!("objects of dead runs remain in `{}` until a later run: {e}", journal.state);
            0
        }
    }
}

/// Lists the objects of runs in the state root: staged files and state files.
pub(crate) async fn list_run_objects(journal: &JournalStore) -> Result<Vec<Path>> {
    let [staging, state] = run_folders(&journal.state);
    let (staging, state) = futures::join!(list_below(&journal.storage, &staging), list_below(&journal.storage, &state));
    Ok([staging?, state?].concat())
}

/// Folders of the state root with the objects of runs.
fn run_folders(state: &Path) -> [Path; 2] {
    ["staging", "state"].map(|kind| state.clone().join(kind))
}

/// Deletes the objects that a finished head proves dead: staged files of earlier bases, state files that no record in
/// force names, and records far below a checkpoint. Writes the checkpoint first if it is due. `found` are objects of
/// runs, listed at any time. Returns the number of deleted objects, without records and marks.
pub(crate) async fn delete_dead_objects(journal: &JournalStore, head: &TableHead, found: Vec<Path>) -> Result<u64> {
    if head.version == 0 || !head.is_finished() {
        return Ok(0);
    }
    write_checkpoint(journal, head).await?;
    let dead = OrphanedState::new(&journal.state, head);
    let is_dead = |path: &Path| dead.roots.iter().any(|root| dead.contains(root, path));
    let cleaned = delete_all(&journal.storage, &journal.state, found.into_iter().filter(is_dead).collect()).await?;
    for root in &dead.roots {
        journal.storage.durability.remove_folders(root, &|name: &str| dead.is_whole_run(root, name)).await?;
    }
    Ok(cleaned)
}

/// The objects in the state root that a finished head proves dead: everything in run folders of earlier bases, except
/// the state files of the head.
///
/// A run on a base below the head has published, or has lost its number to another run. In the second case it may be
/// alive and write on; its next look at a staged file fails with `Conflict`.
pub(crate) struct OrphanedState {
    version: u64,
    pub(crate) roots: [Path; 2],
    live: BTreeSet<Path>,
}

impl OrphanedState {
    pub(crate) fn new(state: &Path, head: &TableHead) -> Self {
        Self {
            version: head.version,
            roots: run_folders(state),
            live: head.state.values().map(|f| path_below(state, &f.path)).collect(),
        }
    }

    fn is_run(&self, name: &str) -> bool {
        parse_run_folder(name).is_some_and(|(base, _)| base < self.version)
    }

    /// Whether an object below a root is dead.
    pub(crate) fn contains(&self, root: &Path, path: &Path) -> bool {
        let run = path.prefix_match(root).and_then(|mut parts| parts.next());
        run.is_some_and(|r| self.is_run(r.as_ref())) && !self.live.contains(path)
    }

    /// Whether a run folder is dead as a whole, that is, contains no state file of the head.
    fn is_whole_run(&self, root: &Path, name: &str) -> bool {
        self.is_run(name) && !self.live.iter().any(|f| f.prefix_matches(&root.clone().join(name)))
    }
}

/// Deletes the objects of runs that died while they probed the store. Only a recovery does this: two runs may begin a
/// table at the same time, and the probes of the slower one must not be deleted under it.
pub(crate) async fn clean_probes(journal: &JournalStore, head: &TableHead) -> Result<u64> {
    if head.version == 0 {
        return Ok(0);
    }
    let cleaned =
        delete_below(&journal.storage, &journal.state, &journal.state.clone().join("probe"), |_| true).await?;
    journal.storage.durability.remove_folders(&journal.state, &|name: &str| name == "probe").await?;
    Ok(cleaned)
}

/// Writes the checkpoint of a head if it is due, and deletes the records that are old enough.
async fn write_checkpoint(journal: &JournalStore, head: &TableHead) -> Result<()> {
    if !head.version.is_multiple_of(journal.options.checkpoint_every) {
        return Ok(());
    }
    let path = JournalObjectKind::Checkpoint(head.version).path(&journal.state);
    // The checkpoint is staged under a new writer id, because this run may have made no version of its own.
    match journal.create(&path, record::to_bytes(head)?.into(), head.version - 1, &journal.writer_id()).await {
        Ok(()) => {}
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => return Ok(()),
        Err(e) => {
            // Another run that has committed since may delete the staged checkpoint. A missing checkpoint only costs
            // time, because readers then read more records.
            tracing::warn!("the checkpoint `{path}` could not be written: {}", store_error("write", &path, e));
            return Ok(());
        }
    }
    let Some(oldest) = head.version.checked_sub(journal.options.keep_history) else { return Ok(()) };
    let entries = list_entries(&journal.storage.store, &journal.state).await?;
    let paths = |set: &BTreeSet<u64>, entry: fn(u64) -> JournalObjectKind| {
        set.range(..oldest).map(|&v| entry(v).path(&journal.state)).collect::<Vec<_>>()
    };
    // Records before marks: a process that slept since it read a record must find either the mark or no record.
    // See `VersionFence::check_in_order`.
    delete_all(&journal.storage, &journal.state, paths(&entries.records, JournalObjectKind::Record)).await?;
    delete_all(&journal.storage, &journal.state, paths(&entries.done, JournalObjectKind::Done)).await.map(drop)
}
