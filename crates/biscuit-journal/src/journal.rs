//! The journal of one table: its newest version, its history, changes, recovery and state files.
//!
//! The protocol of a commit is explained in `commit/mod.rs`, the objects of the log in `log/mod.rs`. Recovery is in
//! `commit/recovery.rs`.

use std::sync::Arc;

use biscuit_core::{Error, ObjectRef, Result};
use biscuit_purge::ProtectedTable;
use bytes::Bytes;
use object_store::path::Path;

use crate::commit::interrupt::RunInterrupt;
use crate::commit::recovery::{self, RecoveryReport};
use crate::commit::table_commit::{CommitSummary, TableCommit};
use crate::log::head::TableHead;
use crate::log::journal_store::JournalStore;
use crate::log::pointer;
use crate::log::record::{PastVersion, StateFile};
use crate::log::writer_ids::WriterIds;
use crate::observe::observed::{self, ObservedTable};
use crate::observe::orphans::{self, OrphanedObjects, RetainedFiles};
use crate::observe::protected::protected;
use crate::options::{DivergedPolicy, JournalOptions};
use crate::store::storage::TableStorage;

/// The journal of one table: the folder of its files and its state root, both in one store.
///
/// A journal holds no state of the table in memory. Each call reads what it needs, so a value can be cloned, used by
/// several tasks and kept for any time.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{Journal, JournalOptions, TableStorage};
/// use object_store::{memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// let journal = Journal::new(storage, Path::from("lake/orders"), JournalOptions::default());
/// assert_eq!(journal.head().await?.version, 0); // before the first commit
///
/// let observed = journal.observe().await?;
/// let mut change = journal.begin_commit(&observed);
/// change.stage("day=2024-02-29", "csv", "id\n1\n".into()).await?;
/// change.commit().await?;
///
/// assert_eq!(journal.head().await?.version, 1);
/// assert!(journal.observe().await?.folders().contains("day=2024-02-29"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Journal {
    store: JournalStore,
    interrupt: Arc<RunInterrupt>,
}

impl Journal {
    /// Creates the journal of the table in the folder `table`, with the [default state
    /// root](crate::default_state_root).
    pub fn new(storage: TableStorage, table: Path, options: JournalOptions) -> Self {
        Self { store: JournalStore::new(storage, table, options), interrupt: Arc::default() }
    }

    /// Sets the state root, a folder in the same store. Default: [`default_state_root`](crate::default_state_root).
    #[must_use]
    pub fn with_state_root(mut self, state: Path) -> Self {
        self.store.state = state;
        self
    }

    /// Sets the source of writer ids, for tests that need repeatable names. Default:
    /// [`RandomWriterIds`](crate::internal::RandomWriterIds).
    #[must_use]
    pub fn with_writer_ids(mut self, writer_ids: Arc<dyn WriterIds>) -> Self {
        self.store.writer_ids = writer_ids;
        self
    }

    /// Sets the interrupt that can stop a run before its commits. Default: one that is never triggered.
    #[must_use]
    pub fn with_interrupt(mut self, interrupt: Arc<RunInterrupt>) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// Sets the handling of a diverged table: see [`JournalOptions::diverged`].
    #[must_use]
    pub fn with_diverged(mut self, diverged: DivergedPolicy) -> Self {
        self.store.options.diverged = diverged;
        self
    }

    /// Sets the state root to the one that the pointer of the table names, if there is a pointer.
    ///
    /// # Errors
    /// `StateRootMismatch` if the pointer belongs to another table, `UnreadableRecord`, and errors of the store.
    pub async fn follow_pointer(mut self) -> Result<Self> {
        self.store.state = pointer::followed(&self.store).await?;
        Ok(self)
    }

    /// Folder of the table.
    pub fn table(&self) -> &Path {
        &self.store.table
    }

    /// State root of the table.
    pub fn state_root(&self) -> &Path {
        &self.store.state
    }

    /// Store of the table and of its state root.
    pub fn storage(&self) -> &TableStorage {
        &self.store.storage
    }

    /// Returns the newest committed version, finished or not. Changes nothing, so readers start here.
    ///
    /// # Errors
    /// `Diverged` if a version is missing, `NewerFormat`, `OlderFormat`, `UnreadableRecord`, and errors of the store.
    pub async fn head(&self) -> Result<TableHead> {
        self.store.head().await
    }

    /// Returns all versions whose records are in force, oldest first. A record without a done mark below the newest
    /// checkpoint is void: a sleeping run wrote it after other runs had passed its number and dropped its record.
    pub async fn history(&self) -> Result<Vec<PastVersion>> {
        self.store.history().await
    }

    /// Observes the table for a run that writes: reads the head, finishes its version if it is unfinished, lists the
    /// folder, and compares both. Also deletes objects of dead runs from the state root.
    ///
    /// # Errors
    /// `Diverged` if a live file is missing or changed, or if the folder contains Biscuit files and there is no
    /// journal; `ExternalFiles` if there are external files and [`ExternalFiles::Fail`](crate::ExternalFiles::Fail) is
    /// set; `StateRootMismatch` if the pointer names another state root; `OverlapsTable` if another table is inside the
    /// folder or, before the first version, around it; `LinkInTable`; `OtherTableFormat`; `Conflict` if other runs keep
    /// committing; those of [`finished_head`](Self::finished_head).
    pub async fn observe(&self) -> Result<ObservedTable> {
        observed::observe(&self.store).await
    }

    /// Observes the table as [`observe`](Self::observe) does, in the state root that the pointer of the table names.
    /// Returns the journal with this state root. On a store with slow requests this is faster than
    /// [`follow_pointer`](Self::follow_pointer) before the observation, because the pointer is read at the same time.
    ///
    /// # Errors
    /// Those of [`follow_pointer`](Self::follow_pointer) and [`observe`](Self::observe).
    pub async fn follow_and_observe(mut self) -> Result<(Self, ObservedTable)> {
        let observed = observed::follow_and_observe(&mut self.store).await?;
        Ok((self, observed))
    }

    /// Observes the table for a reader: like [`observe`](Self::observe), but writes nothing and deletes nothing.
    ///
    /// If the newest version is not finished, its files are included although some do not have their final names yet;
    /// [`LiveFile::staged`](crate::record::LiveFile::staged) is the path of such a file. Files of another table inside
    /// the folder are not included.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe); `OverlapsTable` only before the first version.
    pub async fn view(&self) -> Result<ObservedTable> {
        observed::view(&self.store).await
    }

    /// Observes the table as [`view`](Self::view) does, in the state root that the pointer of the table names. Returns the
    /// journal with this state root.
    ///
    /// # Errors
    /// Those of [`follow_pointer`](Self::follow_pointer) and [`view`](Self::view).
    pub async fn follow_and_view(mut self) -> Result<(Self, ObservedTable)> {
        let observed = observed::follow_and_view(&mut self.store).await?;
        Ok((self, observed))
    }

    /// Returns the table in the form that a purge plan needs; none before the first version. The protected files are
    /// the live files, the external files that the table would adopt, and the retained files. Changes nothing.
    ///
    /// # Errors
    /// `Unfinished` if the newest version is not finished, because the files that it removes are no longer live and
    /// not deleted either. Those of [`view`](Self::view).
    pub async fn protected_table(&self) -> Result<Option<ProtectedTable>> {
        protected(&self.store).await
    }

    /// Begins a change on the observed version. Its commit fails with `Conflict` if another run commits on that
    /// version first.
    pub fn begin_commit<'a>(&'a self, observed: &'a ObservedTable) -> TableCommit<'a> {
        TableCommit::new(&self.store, &self.interrupt, observed)
    }

    /// Commits a version that deletes these retained files and changes nothing else.
    ///
    /// # Errors
    /// Those of [`TableCommit::commit`](crate::TableCommit::commit), such as `Conflict` if another run has committed.
    pub async fn release_files(&self, observed: &ObservedTable, files: &[ObjectRef]) -> Result<CommitSummary> {
        let mut table_commit = self.begin_commit(observed);
        files.iter().for_each(|file| table_commit.release(file));
        table_commit.commit_alone().await
    }

    /// Returns the newest version, and finishes it first if its run did not.
    ///
    /// # Errors
    /// Those of [`head`](Self::head), `LostStaging` if a staged file is missing in both its places, and `Conflict` if
    /// other runs keep committing.
    pub async fn finished_head(&self) -> Result<TableHead> {
        recovery::finished_head(&self.store).await
    }

    /// Finishes an unfinished version and deletes the objects of dead runs from the state root. Safe at any time,
    /// also while other runs are alive.
    ///
    /// Objects of runs on the newest version remain, because such a run may be alive: see
    /// [`recover_with_fence`](Self::recover_with_fence).
    ///
    /// # Errors
    /// Those of [`finished_head`](Self::finished_head).
    pub async fn recover(&self) -> Result<RecoveryReport> {
        recovery::recover(&self.store).await
    }

    /// Finishes an unfinished version, commits an empty version (the fence), and deletes the objects of all runs that
    /// began before the fence.
    ///
    /// The fence takes the number that a dead or sleeping run may still use. Such a run can no longer commit, so the
    /// objects that it staged on the newest version are deleted too. A run that is alive ends with `Conflict` and has
    /// to run again.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe), and `Conflict` if another run commits the version of the fence.
    pub async fn recover_with_fence(&self) -> Result<RecoveryReport> {
        let (_, rolled_forward) = recovery::roll_forward(&self.store).await?;
        let observed = self.observe().await?;
        let (fence, cleaned) = self.begin_commit(&observed).fence().await?;
        Ok(RecoveryReport { rolled_forward, fence: Some(fence), cleaned })
    }

    /// Returns the objects that dead runs left. Changes nothing.
    ///
    /// # Errors
    /// `Unfinished` if the newest version is not finished, because its staged files are still needed; those of
    /// [`view`](Self::view).
    pub async fn orphaned_objects(&self) -> Result<OrphanedObjects> {
        orphans::orphaned_objects(&self.store).await
    }

    /// Returns the retained files with the times from which [`RetainedFiles::plan_due`] decides. Changes nothing.
    ///
    /// # Errors
    /// Those of [`orphaned_objects`](Self::orphaned_objects).
    pub async fn retained_files(&self) -> Result<RetainedFiles> {
        orphans::retained_files(&self.store).await
    }

    /// Returns the content of a state file after comparing it with the size and the checksum in its record.
    ///
    /// # Errors
    /// `Conflict` if a newer version has replaced the file, `Diverged` if the file is lost or damaged.
    pub async fn read_state(&self, head: &TableHead, file: &StateFile) -> Result<Bytes> {
        self.store.read_state(head, file).await
    }

    /// Interprets an error that occurred while files of `head` were read. A missing file is a `Conflict` if there is
    /// a newer version, which has replaced the file; otherwise it is `Diverged`. Any other error is returned as it
    /// is.
    pub async fn explain_error(&self, error: Error, head: &TableHead) -> Error {
        self.store.explain(error, head).await
    }

    /// Returns a new writer id: 16 hexadecimal digits that no other execution gets.
    pub fn writer_id(&self) -> String {
        self.store.writer_id()
    }
}
