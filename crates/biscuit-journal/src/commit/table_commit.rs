//! A change of a table and its commit. The order of calls and its reasons are in `commit/mod.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use biscuit_core::{CommitId, Error, ObjectRef, Outcome, Result};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;

use crate::commit::clean;
use crate::commit::extras::CommitExtras;
use crate::commit::interrupt::RunInterrupt;
use crate::commit::preconditions::Preconditions;
use crate::commit::publish::{self, PublishOutcome};
use crate::commit::staged::{StagedWriter, staged_error};
use crate::commit::stager::{DeferredChecks, FileStager};
use crate::log::head::{list_entries, read};
use crate::log::journal_store::{JournalStore, conflict_error};
use crate::log::layout::{JournalObjectKind, path_below};
use crate::log::record::{self, CommitException, CommitRecord, DoneMark, FORMAT, RetainedFile, StateFile};
use crate::store::state_objects::delete_run;
use crate::{ObservedTable, StagedFile, store_error};

/// Maximum number of state files that are written at the same time.
const STATE_FILES_IN_FLIGHT: usize = 8;

/// Result of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitSummary {
    /// Version that this commit made; for an unchanged table the base, or the version that has the same commit id.
    pub version: u64,
    /// `Committed` if this commit made the version, which is published then; `Unchanged` if it wrote no version.
    pub outcome: Outcome,
    /// Exceptions: what the version could not do after the commit. The rows are right all the same.
    pub exceptions: Vec<CommitException>,
    /// Number of external files that this version adopted without changing them.
    pub adopted: u64,
    /// Number of orphan files that this version removed.
    pub orphan_files: u64,
}

impl CommitSummary {
    /// Creates the summary of a commit that had nothing to change in this version.
    pub fn unchanged(version: u64) -> Self {
        Self { version, outcome: Outcome::Unchanged, exceptions: vec![], adopted: 0, orphan_files: 0 }
    }
}

/// One change of a table: staged files, removals and state, which [`commit`](Self::commit) makes visible as one step.
///
/// A change that is dropped without a commit leaves staged files. [`abandon`](Self::abandon) deletes them, and
/// otherwise the next commit of the table does.
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
/// let observed = journal.observe().await?;
/// let mut change = journal.begin_commit(&observed);
///
/// let mut writer = change.writer("", "csv");
/// writer.write("id\n1\n".into()).await?;
/// change.publish(writer.finish().await?.with_rows(1));
/// change.with_property("owner", "sales".into());
/// change.commit().await?;
///
/// let head = journal.head().await?;
/// assert_eq!(head.live.values().next().unwrap().rows, Some(1));
/// assert_eq!(head.properties["owner"], "sales");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TableCommit<'a> {
    journal: &'a JournalStore,
    interrupt: &'a RunInterrupt,
    observed: &'a ObservedTable,
    files: Arc<AtomicU32>,
    checks: DeferredChecks,
    record: CommitRecord,
    /// Whether a version is written even if the change only adopts what was found.
    adopts: bool,
}

impl<'a> TableCommit<'a> {
    /// Begins a change on the observed version, under a new writer id.
    pub(crate) fn new(journal: &'a JournalStore, interrupt: &'a RunInterrupt, observed: &'a ObservedTable) -> Self {
        let record = CommitRecord {
            format: FORMAT,
            version: observed.head.version + 1,
            writer_id: journal.writer_id(),
            commit_id: None,
            run: None,
            publish: vec![],
            remove: vec![],
            retain: vec![],
            adopt: vec![],
            missing_files: vec![],
            reconciles: false,
            state: BTreeMap::new(),
            properties: BTreeMap::new(),
            report: Value::Null,
        };
        interrupt.begin(&journal.storage, &journal.state, observed.head.version, &record.writer_id);
        Self {
            journal,
            interrupt,
            observed,
            files: Arc::default(),
            checks: DeferredChecks::default(),
            record,
            adopts: false,
        }
    }

    /// Returns a writer for a new file in `folder` (relative to the table, empty for the folder of the table itself),
    /// whose name ends in `.ending`. Pass the finished file to [`publish`](Self::publish).
    pub fn writer(&self, folder: &str, ending: &str) -> StagedWriter {
        self.stager().writer(folder, ending)
    }

    /// Returns a stager for this change that is independent of its lifetime, for tasks that write files in parallel.
    pub fn stager(&self) -> FileStager {
        FileStager {
            storage: self.journal.storage.clone(),
            table: self.journal.table.clone(),
            hard_links: self.journal.options.hard_links,
            state: self.journal.state.clone(),
            base: self.base(),
            writer_id: self.record.writer_id.clone(),
            files: self.files.clone(),
            checks: self.checks.clone(),
        }
    }

    /// Reads the content of a staged file, so that a caller can check its format.
    ///
    /// # Errors
    /// `Conflict` if another run has committed and deleted the file, and errors of the store.
    pub async fn read_back(&self, file: &StagedFile) -> Result<Bytes> {
        let path = file.object();
        let read = async { self.journal.storage.store.get(path).await?.bytes().await }.await;
        read.map_err(|e| staged_error("read", path, e))
    }

    /// Stages a small file in one call and adds it to the change.
    ///
    /// # Errors
    /// Those of [`StagedWriter::write`] and [`StagedWriter::finish`].
    pub async fn stage(&mut self, folder: &str, ending: &str, content: Bytes) -> Result<()> {
        let mut writer = self.writer(folder, ending);
        writer.write(content).await?;
        let staged = writer.finish().await?;
        self.publish(staged);
        Ok(())
    }

    /// Adds a staged file to the table.
    pub fn publish(&mut self, file: StagedFile) {
        self.record.publish.push(file.entry);
    }

    /// Removes a file from the table. After the commit it is deleted if it is still the observed one, or retained if
    /// [`JournalOptions::retention`](crate::JournalOptions::retention) is set.
    pub fn remove(&mut self, file: &ObjectRef) {
        let seconds = self.journal.options.retention.as_secs();
        let retained = RetainedFile { file: file.clone(), seconds };
        match seconds {
            0 => self.release(file),
            _ if self.record.retain.contains(&retained) => {}
            _ => self.record.retain.push(retained),
        }
    }

    /// Removes a file and deletes it after the commit if it is still the observed one, whatever the retention is. For
    /// retained files, and for files that must not be retained.
    pub fn release(&mut self, file: &ObjectRef) {
        if !self.record.remove.contains(file) {
            self.record.remove.push(file.clone());
        }
    }

    /// Writes the content of the state file `name`, which replaces an older state file of that name with this
    /// version.
    ///
    /// # Errors
    /// Those of [`StagedWriter::write`] and [`StagedWriter::finish`].
    pub async fn with_state(&mut self, name: &str, content: Bytes) -> Result<()> {
        let file = self.write_state(name, content).await?;
        self.record.state.insert(name.to_owned(), Some(file));
        Ok(())
    }

    async fn write_state(&self, name: &str, content: Bytes) -> Result<StateFile> {
        let relative = format!("state/{}-{}/{name}", self.base(), self.record.writer_id);
        let path = path_below(&self.journal.state, &relative);
        let mut writer = StagedWriter::new(&self.journal.storage, path, String::new(), relative);
        writer.write(content).await?;
        let entry = writer.finish().await?.entry;
        Ok(StateFile { path: entry.staged, size: entry.size, checksum: entry.checksum })
    }

    /// Removes the state file `name` with this version.
    pub fn without_state(&mut self, name: &str) {
        if self.observed.head.state.contains_key(name) {
            self.record.state.insert(name.to_owned(), None);
        }
    }

    /// Sets the property `name`; null removes it. Setting the value that the property has already is not a change.
    pub fn with_property(&mut self, name: &str, value: Value) {
        if self.observed.head.properties.get(name).unwrap_or(&Value::Null) != &value {
            self.record.properties.insert(name.to_owned(), value);
        }
    }

    /// Adds state files, properties and the id of the run, in the order in which `extras` has them.
    ///
    /// # Errors
    /// Those of [`with_state`](Self::with_state).
    pub async fn with_extras(&mut self, extras: CommitExtras) -> Result<()> {
        // The last change of a name counts.
        let changes: BTreeMap<String, Option<Bytes>> = extras.state.into_iter().collect();
        let writes = changes.iter().filter_map(|(name, content)| Some((name, content.clone()?)));
        let writes = writes.map(|(name, content)| {
            let this = &*self;
            async move { this.write_state(name, content).await.map(|file| (name.clone(), Some(file))) }.boxed()
        });
        let files: Vec<_> =
            stream::iter(writes.collect::<Vec<_>>()).buffered(STATE_FILES_IN_FLIGHT).try_collect().await?;
        self.record.state.extend(files);
        for (name, _) in changes.iter().filter(|(_, content)| content.is_none()) {
            self.record.state.remove(name);
            self.without_state(name);
        }
        extras.properties.into_iter().for_each(|(name, value)| self.with_property(&name, value));
        extras.run.into_iter().for_each(|run| self.with_run(run));
        Ok(())
    }

    /// Sets the report of this version for the history. If the report is a JSON object, the commit sets its members
    /// `outcome` and `version`, which are not known before.
    pub fn with_report(&mut self, report: Value) {
        self.record.report = report;
    }

    /// Sets the id that the scheduler gave the run, for the history.
    pub fn with_run(&mut self, run: impl Into<String>) {
        self.record.run = Some(run.into());
    }

    /// Sets the commit id, which is the same for every attempt of a run. A second commit with the same id changes
    /// nothing.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use biscuit_core::{CommitId, Outcome};
    /// use biscuit_journal::{Journal, JournalOptions, TableStorage};
    /// use object_store::{memory::InMemory, path::Path};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
    /// let storage = TableStorage::durable(Arc::new(InMemory::new()));
    /// let journal = Journal::new(storage, Path::from("lake/orders"), JournalOptions::default());
    /// let id = CommitId::new("daily/2024-02-29/orders");
    /// for outcome in [Outcome::Committed, Outcome::Unchanged] {
    ///     let observed = journal.observe().await?;
    ///     let mut change = journal.begin_commit(&observed);
    ///     change.stage("", "csv", "id\n1\n".into()).await?;
    ///     change.with_commit_id(&id);
    ///     let done = change.commit().await?;
    ///     assert_eq!((done.version, done.outcome), (1, outcome));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn with_commit_id(&mut self, id: &CommitId) {
        self.record.commit_id = Some(id.as_str().to_owned());
    }

    /// Makes [`commit`](Self::commit) write a version even if it only adopts external files or a diverged table.
    /// Without this, a change that is otherwise empty writes no version.
    pub fn with_adoption(&mut self) {
        let o = self.observed;
        self.adopts = o.diverged || !o.external.is_empty() || !o.missing.is_empty();
    }

    /// Writer id of this change, which is part of the names of all its files.
    pub fn writer_id(&self) -> &str {
        &self.record.writer_id
    }

    fn base(&self) -> u64 {
        self.record.version - 1
    }

    fn is_empty(&self) -> bool {
        let r = &self.record;
        let files = [r.publish.len(), r.remove.len(), r.retain.len()];
        !self.adopts && files == [0; 3] && r.state.is_empty() && r.properties.is_empty()
    }

    /// Commits and publishes the change. An empty change writes no version.
    ///
    /// After an error before the commit, nothing has changed. After an error that follows the commit, the version
    /// is valid, and the next run or a recovery finishes it. In both cases running again is safe.
    ///
    /// # Errors
    /// `Conflict` if another run has committed on the same base, `TornWrite` if the store has another size of a staged
    /// file, the errors of the checks that the stager got, `NoPutIfAbsent` if the store cannot decide between
    /// two runs, `StateRootMismatch`, `OverlapsTable`, `NameTooLong`, `LooksAlike`, `Interrupted`, `LostStaging`, and
    /// errors of the store.
    pub async fn commit(mut self) -> Result<CommitSummary> {
        let unchanged = |version| CommitSummary {
            version,
            outcome: Outcome::Unchanged,
            exceptions: vec![],
            adopted: 0,
            orphan_files: 0,
        };
        // An earlier attempt of the run has committed already: its answer was lost, or it was alive at the same time.
        let id = self.record.commit_id.clone().map(CommitId::new);
        if let Some(version) = id.and_then(|id| self.observed.head.version_of_commit(&id)) {
            self.delete_staged().await?;
            return Ok(unchanged(version));
        }
        if self.is_empty() {
            return Ok(unchanged(self.base()));
        }
        // An external file that this change removes is not adopted first.
        let retained = self.record.retain.iter().map(|h| &h.file);
        let removed: BTreeSet<&str> = self.record.remove.iter().chain(retained).map(|f| f.path.as_str()).collect();
        let adopt = self.observed.external.iter().filter(|f| !removed.contains(f.path.as_str())).cloned().collect();
        self.record.adopt = adopt;
        self.record.remove.extend(self.observed.orphan_files.iter().chain(&self.observed.trials).cloned());
        self.record.missing_files.clone_from(&self.observed.missing);
        self.record.reconciles = self.observed.diverged;
        Ok(self.finish().await?.0)
    }

    /// Commits exactly the calls on this change: neither adopts external files nor deletes orphan files.
    pub(crate) async fn commit_alone(self) -> Result<CommitSummary> {
        let committed = self.finish().await?.0;
        Ok(CommitSummary { adopted: 0, orphan_files: 0, ..committed })
    }

    /// Commits an empty version, so that no other run on the same base can commit. Returns the version and the number
    /// of objects that were cleaned after it.
    pub(crate) async fn fence(self) -> Result<(u64, u64)> {
        let (committed, cleaned) = self.finish().await?;
        Ok((committed.version, cleaned))
    }

    /// Deletes the staged files of a change that is not going to be committed.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn abandon(self) -> Result<()> {
        self.delete_staged().await
    }

    /// Carries out the steps from *prepare* to *clean* (see `commit/mod.rs`). Returns the number of cleaned objects
    /// too.
    ///
    /// Staged files may be deleted only while it is certain that no record names them: before the put, and after a
    /// put that another run has won. After any other failure the record may exist, so they remain for a recovery.
    async fn finish(mut self) -> Result<(CommitSummary, u64)> {
        if let Value::Object(report) = &mut self.record.report {
            report.insert("outcome".to_owned(), Outcome::Committed.as_str().into());
            report.insert("version".to_owned(), self.record.version.into());
        }
        let trials = match self.preconditions().establish().await {
            Ok(trials) => trials,
            Err(e) => {
                if let Err(left) = self.delete_staged().await {
                    tracing::warn!("staged files remain until a later run deletes them: {left}");
                }
                return Err(e);
            }
        };
        // The point of no return: an interrupt either comes before this call, or too late.
        if let Err(e) = self.interrupt.commit(self.record.version, &self.record.writer_id) {
            trials.delete_if_possible(&self.journal.storage).await;
            self.delete_staged().await?;
            return Err(e);
        }
        let (put, trials) = futures::join!(self.put_record(), trials.delete_if_possible(&self.journal.storage));
        if let Err(e) = put {
            if e.is(biscuit_core::codes::CONFLICT) {
                self.delete_staged().await?;
            }
            return Err(e);
        }
        // The record must be durable before the first file of the old version is deleted.
        let path = JournalObjectKind::Record(self.record.version).path(&self.journal.state);
        self.journal.sync_folders(&path, &self.journal.state).await?;
        // If the record is not in force, the staged files remain: it may have been in force for a time, and its files
        // be live.
        let published = publish::finish_version(self.journal, &self.record, self.check_not_void(), trials);
        // All runs that this version makes dead have staged before, or will lose.
        let (published, found) = futures::join!(published, clean::list_run_objects(self.journal));
        let published = published?;
        let staged: BTreeSet<Path> =
            self.record.publish.iter().map(|file| path_below(&self.journal.state, &file.staged)).collect();
        tracing::info!(version = self.record.version, "committed");
        let (exceptions, head) = match published {
            PublishOutcome::Finished(done) => {
                let mut head = self.observed.head.clone();
                head.apply_record(self.record.clone(), Some(&done));
                (done.exceptions, head)
            }
            PublishOutcome::Overtaken => (vec![], self.journal.head().await?),
        };
        // A disk has more objects by now, such as the mark that was staged, and listings cost little there.
        let found = match self.journal.storage.durability.is_immediate() {
            // The staged files of this version were deleted while it was finished.
            true => found.map(|found| found.into_iter().filter(|path| !staged.contains(path)).collect()),
            false => clean::list_run_objects(self.journal).await,
        };
        let cleaned = clean::clean_if_possible(self.journal, &head, found).await;
        let committed = CommitSummary {
            version: self.record.version,
            outcome: Outcome::Committed,
            exceptions,
            adopted: self.record.adopt.len() as u64,
            orphan_files: self.observed.orphan_files.len() as u64,
        };
        Ok((committed, cleaned))
    }

    fn preconditions(&self) -> Preconditions<'_> {
        let is_probed = self.observed.is_probed;
        Preconditions { journal: self.journal, record: &self.record, checks: &self.checks, is_probed }
    }

    /// Puts the record if absent: the one call that makes the version.
    ///
    /// An answer other than success does not mean that the put had no effect. It may have taken effect with its
    /// answer lost; S3 may answer 409 to several puts at once of which none won; and a retry of the client sees its
    /// own first put as a conflict. So the object under the number decides:
    ///
    /// - it has the writer id of this change: the put has won,
    /// - it has another writer id: `Conflict`,
    /// - it does not exist: put again,
    /// - it cannot be read: the outcome is unknown, and nothing may be deleted.
    async fn put_record(&self) -> Result<()> {
        let store = &self.journal.storage.store;
        let path = JournalObjectKind::Record(self.record.version).path(&self.journal.state);
        let bytes = Bytes::from(record::to_bytes(&self.record)?);
        let mut failure = None;
        for attempt in 0..4 {
            let put = self.journal.create(&path, bytes.clone(), self.base(), &self.record.writer_id).await;
            let Err(e) = put else { return Ok(()) };
            match read::<CommitRecord>(store, &path).await {
                Ok(found) if found.writer_id == self.record.writer_id => return Ok(()),
                Ok(_) => return Err(conflict_error(self.record.version)),
                Err(r) if r.is(biscuit_core::codes::NOT_FOUND) => failure = Some(e),
                Err(_) => {
                    let message =
                        format!("it is unknown whether `{path}` was committed; nothing was deleted; run again");
                    return Err(unavailable_error(message, e));
                }
            }
            pause_before_retry(attempt).await;
        }
        let e = failure.expect("four attempts without an answer leave a failure");
        Err(store_error("commit", &path, e))
    }

    /// Checks that the record that was just put is in force.
    ///
    /// Put-if-absent also succeeds if the number was used by another run long ago and its record has been dropped
    /// below a checkpoint. Example: this run sleeps on base 1, others commit versions 2 to 6, write checkpoint 6 and
    /// drop the record of version 2; then this run creates `2.json`. Such a record is at or below the newest
    /// checkpoint and has no done mark of this writer: it is void, and this run has lost.
    ///
    /// Another process may have finished this record and then written the checkpoint. Then the mark has the writer id
    /// of this change, and the version is valid. If that mark has been dropped too, the two cases look alike; the
    /// answer is `Conflict`, and running again is safe.
    async fn check_not_void(&self) -> Result<()> {
        let v = self.record.version;
        let store = &self.journal.storage.store;
        if list_entries(store, &self.journal.state).await?.checkpoint < v {
            return Ok(());
        }
        match read::<DoneMark>(store, &JournalObjectKind::Done(v).path(&self.journal.state)).await {
            Ok(done) if done.writer_id == self.record.writer_id => Ok(()),
            Ok(_) => Err(conflict_error(v)),
            Err(e) if e.is(biscuit_core::codes::NOT_FOUND) => Err(conflict_error(v)),
            Err(e) => Err(e),
        }
    }

    async fn delete_staged(&self) -> Result<()> {
        delete_run(&self.journal.storage, &self.journal.state, self.base(), &self.record.writer_id).await
    }
}

impl Drop for TableCommit<'_> {
    fn drop(&mut self) {
        self.interrupt.end(&self.record.writer_id);
    }
}

fn unavailable_error(message: String, e: object_store::Error) -> Error {
    Error::new(biscuit_core::codes::STORE_UNAVAILABLE, message).with_plain_source(e)
}

/// Waits before the next attempt: exponential backoff from 50 milliseconds.
async fn pause_before_retry(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
}
