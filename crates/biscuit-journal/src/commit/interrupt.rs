//! Stopping a run from outside, for example after a signal, before its point of no return.

use std::sync::Mutex;

use biscuit_core::{Error, Result};
use object_store::path::Path;

use crate::store::state_objects::delete_run;
use crate::store::storage::TableStorage;

/// Stops a run before its commits, or reports that a commit is already under way. One interrupt serves all tables of
/// a run, which may be written one after the other or at the same time.
///
/// All decisions are made under one lock: either [`stop`](Self::stop) comes before the point of no return of a
/// commit, and the commit is refused, or `stop` returns false and the commit takes its course.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{Journal, JournalOptions, RunInterrupt, TableStorage};
/// use object_store::{memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let interrupt = Arc::new(RunInterrupt::default());
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// let journal = Journal::new(storage, Path::from("lake/orders"), JournalOptions::default());
/// let journal = journal.with_interrupt(interrupt.clone());
/// let observed = journal.observe().await?;
/// let mut change = journal.begin_commit(&observed);
/// change.stage("", "csv", "id\n1\n".into()).await?;
///
/// assert!(interrupt.stop()); // a handler of signals calls this
/// assert_eq!(change.commit().await.unwrap_err().code(), "Interrupted");
/// assert_eq!(journal.head().await?.version, 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct RunInterrupt(Mutex<InterruptState>);

#[derive(Debug, Default)]
struct InterruptState {
    stopped: bool,
    /// Whether any commit of the run has passed its point of no return.
    committed: bool,
    /// Versions that are being committed and published, with their writer ids.
    committing: Vec<(u64, String)>,
    /// Changes before their point of no return.
    begun: Vec<BegunChange>,
}

/// A change before its point of no return: the place of its staged files.
#[derive(Debug)]
struct BegunChange {
    storage: TableStorage,
    state: Path,
    base: u64,
    writer_id: String,
}

impl RunInterrupt {
    /// Stops the run: later commits are refused with `Interrupted`.
    ///
    /// Returns true if no commit is under way. Returns false if one is; give it time to finish. If the process ends
    /// before that, the next run or a recovery finishes the version.
    pub fn stop(&self) -> bool {
        let mut state = self.lock();
        state.stopped = true;
        state.committing.is_empty()
    }

    /// Returns the first version that is being committed and published, if there is one.
    pub fn committing(&self) -> Option<u64> {
        self.lock().committing.first().map(|(version, _)| *version)
    }

    /// Whether a commit of the run has passed its point of no return. If not, the run has changed nothing.
    pub fn has_committed(&self) -> bool {
        self.lock().committed
    }

    /// Deletes the files that a stopped run staged for changes that it did not commit. Files that remain after an
    /// error are deleted after the next commit of the table.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn clean_up(&self) -> Result<()> {
        let begun = std::mem::take(&mut self.lock().begun);
        for change in begun {
            delete_run(&change.storage, &change.state, change.base, &change.writer_id).await?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InterruptState> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Registers a change, so that [`clean_up`](Self::clean_up) can delete its staged files.
    pub(crate) fn begin(&self, storage: &TableStorage, state: &Path, base: u64, writer_id: &str) {
        let (storage, state, writer_id) = (storage.clone(), state.clone(), writer_id.to_owned());
        self.lock().begun.push(BegunChange { storage, state, base, writer_id });
    }

    /// Passes the point of no return. From here on the record may exist, so staged files must not be deleted.
    pub(crate) fn commit(&self, version: u64, writer_id: &str) -> Result<()> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Error::new(biscuit_core::codes::INTERRUPTED, "the run was stopped before its commit"));
        }
        state.begun.retain(|change| change.writer_id != writer_id);
        state.committing.push((version, writer_id.to_owned()));
        state.committed = true;
        Ok(())
    }

    /// Ends a change. A change that was dropped after the stop remains registered, so that `clean_up` deletes its
    /// files.
    pub(crate) fn end(&self, writer_id: &str) {
        let mut state = self.lock();
        state.committing.retain(|(_, n)| n != writer_id);
        if !state.stopped {
            state.begun.retain(|change| change.writer_id != writer_id);
        }
    }
}
