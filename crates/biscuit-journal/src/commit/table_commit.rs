use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use biscuit_core::{CommitId, Error, Result};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::{CopyOptions, ObjectStoreExt};
use serde_json::Value;

use crate::commit::publish::{self, PublishOutcome};
use crate::commit::staged::staged_error;
use crate::commit::stager::FileStager;
use crate::journal::{Journal, conflict, pause, unavailable};
use crate::log::head::{list_entries, read};
use crate::log::layout::{self, JournalObjectKind, below, folder_of, run_folder};
use crate::log::record::{
    self, CommitException, CommitRecord, DoneMark, FORMAT, FileRef, PublishedFile, RetainedFile, StateFile,
};
use crate::{ObservedTable, StagedFile, StagedWriter, TableStorage, log::pointer, store::put_if_absent, store_error};

/// Folders that are tried at once.
const TRIALS_IN_FLIGHT: usize = 8;

/// Whether a commit made a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// A version was committed and is published.
    Committed,
    /// There was nothing to change: no version was written.
    Unchanged,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSummary {
    /// The version that is the newest now, by this run's knowledge.
    pub version: u64,
    /// Whether this run made it.
    pub outcome: CommitOutcome,
    /// What could not be done after the commit; the rows are right all the same.
    pub exceptions: Vec<CommitException>,
    /// External files that this version adopted without changing them.
    pub adopted: u64,
    /// Orphan files that this version deleted.
    pub orphan_files: u64,
}

/// One change of the table, put together and then committed as one step.
#[derive(Debug)]
pub struct TableCommit<'a> {
    journal: &'a Journal,
    observed: &'a ObservedTable,
    files: Arc<AtomicU32>,
    record: CommitRecord,
    adopts: bool,
}

impl Journal {
    /// Begins a change on top of what was observed.
    pub fn replace<'a>(&'a self, observed: &'a ObservedTable) -> TableCommit<'a> {
        let record = CommitRecord {
            format: FORMAT,
            version: observed.head.version + 1,
            writer_id: self.writer_id(),
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
        self.interrupt.begin(self, observed.head.version, &record.writer_id);
        TableCommit { journal: self, observed, files: Arc::default(), record, adopts: false }
    }
}

impl TableCommit<'_> {
    /// A writer for a new file in `folder` (relative to the table, empty for its root), its name ending in `.ending`.
    pub fn writer(&self, folder: &str, ending: &str) -> StagedWriter {
        self.stager().writer(folder, ending)
    }

    /// What makes writers, apart from this change: for tasks of their own.
    pub fn stager(&self) -> FileStager {
        FileStager {
            storage: self.journal.storage.clone(),
            table: self.journal.table.clone(),
            hard_links: self.journal.options.hard_links,
            state: self.journal.state.clone(),
            base: self.base(),
            writer_id: self.record.writer_id.clone(),
            files: self.files.clone(),
        }
    }

    /// The content of a staged file, for the check of its format.
    ///
    /// # Errors
    /// `Conflict` if it is gone again, since another run has committed, and those of the store.
    pub async fn read_back(&self, file: &StagedFile) -> Result<Bytes> {
        let path = file.object();
        let read = async { self.journal.storage.store.get(path).await?.bytes().await }.await;
        read.map_err(|e| staged_error("read", path, e))
    }

    /// Stages a small file in one call, to be published.
    pub async fn stage(&mut self, folder: &str, ending: &str, content: Bytes) -> Result<()> {
        let mut writer = self.writer(folder, ending);
        writer.write(content).await?;
        let staged = writer.finish().await?;
        self.publish(staged);
        Ok(())
    }

    /// A staged file becomes part of the table.
    pub fn publish(&mut self, file: StagedFile) {
        self.record.publish.push(file.entry);
    }

    /// A file stops being part of the table and is deleted, if it still is the observed one; or it stays for a while, if the
    /// journal's options say so.
    pub fn remove(&mut self, file: &FileRef) {
        let seconds = self.journal.options.retention.as_secs();
        let retained = RetainedFile { file: file.clone(), seconds };
        match seconds {
            0 => self.release(file),
            _ if self.record.retain.contains(&retained) => {}
            _ => self.record.retain.push(retained),
        }
    }

    /// A file is deleted, if it still is the observed one: one that was held, or one that is not to be held whatever the options say.
    pub fn release(&mut self, file: &FileRef) {
        if !self.record.remove.contains(file) {
            self.record.remove.push(file.clone());
        }
    }

    /// A state file of this name gets this content.
    pub async fn with_state(&mut self, name: &str, content: Bytes) -> Result<()> {
        let relative = format!("state/{}-{}/{name}", self.base(), self.record.writer_id);
        let path = below(&self.journal.state, &relative);
        let mut writer = StagedWriter::new(&self.journal.storage, path, String::new(), relative);
        writer.write(content).await?;
        let entry = writer.finish().await?.entry;
        let file = StateFile { path: entry.staged, size: entry.size, checksum: entry.checksum };
        self.record.state.insert(name.to_owned(), Some(file));
        Ok(())
    }

    /// The state file of this name is no more.
    pub fn without_state(&mut self, name: &str) {
        if self.observed.head.state.contains_key(name) {
            self.record.state.insert(name.to_owned(), None);
        }
    }

    /// A small fact of this name gets this value; null drops it. A value that is there already is no change.
    pub fn with_properties(&mut self, name: &str, value: Value) {
        if self.observed.head.properties.get(name).unwrap_or(&Value::Null) != &value {
            self.record.properties.insert(name.to_owned(), value);
        }
    }

    /// What the history shows of this version. `outcome` and `version` of an object are set when it is committed: a report is made before.
    pub fn with_report(&mut self, report: Value) {
        self.record.report = report;
    }

    /// What the scheduler calls the run.
    pub fn with_run(&mut self, run: impl Into<String>) {
        self.record.run = Some(run.into());
    }

    /// The commit's id, the same for every attempt of the run. A second commit with an id changes nothing.
    pub fn with_commit_id(&mut self, id: &CommitId) {
        self.record.commit_id = Some(id.as_str().to_owned());
    }

    /// External files, and what a diverged table was found to be, are worth a version of their own.
    pub fn with_adoption(&mut self) {
        let o = self.observed;
        self.adopts = o.diverged || !o.external.is_empty() || !o.missing.is_empty();
    }

    /// The nonce of this execution, in all names it gives.
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

    /// Commits and publishes. A change of nothing writes no version.
    ///
    /// # Errors
    /// `Conflict` if another run was first, `NoPutIfAbsent` if this store cannot tell, `StateRootMismatch`,
    /// `LostStaging`, and those of the store. After an error before the commit nothing is visible; after one behind
    /// it the version stands, and the next run or a recovery finishes it.
    pub async fn commit(mut self) -> Result<CommitSummary> {
        let unchanged = |version| CommitSummary {
            version,
            outcome: CommitOutcome::Unchanged,
            exceptions: vec![],
            adopted: 0,
            orphan_files: 0,
        };
        let id = self.record.commit_id.clone().map(CommitId::new);
        if let Some(version) = id.and_then(|id| self.observed.head.committed(&id)) {
            self.delete_staged().await?;
            return Ok(unchanged(version));
        }
        if self.is_empty() {
            return Ok(unchanged(self.base()));
        }
        let retained = self.record.retain.iter().map(|h| &h.file);
        let removed: BTreeSet<&str> = self.record.remove.iter().chain(retained).map(|f| f.path.as_str()).collect();
        let adopt = self.observed.external.iter().filter(|f| !removed.contains(f.path.as_str())).cloned().collect();
        self.record.adopt = adopt;
        self.record.remove.extend(self.observed.orphan_files.iter().chain(&self.observed.trials).cloned());
        self.record.missing_files.clone_from(&self.observed.missing);
        self.record.reconciles = self.observed.diverged;
        Ok(self.finish().await?.0)
    }

    /// Commits exactly what was put together: neither adopts external files nor deletes orphan files.
    pub(crate) async fn commit_alone(self) -> Result<CommitSummary> {
        let committed = self.finish().await?.0;
        Ok(CommitSummary { adopted: 0, orphan_files: 0, ..committed })
    }

    /// Commits an empty version: every other run on the same base is fenced off. Answers with the version and the number
    /// of objects that were cleaned behind it.
    pub(crate) async fn fence(self) -> Result<(u64, u64)> {
        let (committed, cleaned) = self.finish().await?;
        Ok((committed.version, cleaned))
    }

    /// Deletes what was staged, for a run that will not commit.
    pub async fn abandon(self) -> Result<()> {
        self.delete_staged().await
    }

    async fn finish(mut self) -> Result<(CommitSummary, u64)> {
        if let Value::Object(report) = &mut self.record.report {
            report.insert("outcome".to_owned(), "committed".into());
            report.insert("version".to_owned(), self.record.version.into());
        }
        if let Err(e) = self.prepare().await {
            if let Err(left) = self.delete_staged().await {
                tracing::warn!("what was staged is left to a later run: {left}");
            }
            return Err(e);
        }
        if let Err(e) = self.journal.interrupt.commit(self.record.version, &self.record.writer_id) {
            self.delete_staged().await?;
            return Err(e);
        }
        if let Err(e) = self.put_record().await {
            if e.code() == "Conflict" {
                self.delete_staged().await?;
            }
            return Err(e);
        }
        // What was staged stays if this fails: the record may have been in force, and what it staged be live.
        self.not_void().await?;
        let path = JournalObjectKind::Record(self.record.version).path(&self.journal.state);
        self.journal.sync_folders(&path, &self.journal.state).await?;
        tracing::info!(version = self.record.version, "committed");
        let exceptions = match publish::complete(self.journal, &self.record).await? {
            PublishOutcome::Finished(done) => done.exceptions,
            PublishOutcome::Overtaken => vec![],
        };
        let head = self.journal.head().await?;
        let newest = head.version == self.record.version && head.is_finished();
        let cleaned = if newest { publish::clean_if_possible(self.journal, &head).await } else { 0 };
        let committed = CommitSummary {
            version: self.record.version,
            outcome: CommitOutcome::Committed,
            exceptions,
            adopted: self.record.adopt.len() as u64,
            orphan_files: self.observed.orphan_files.len() as u64,
        };
        Ok((committed, cleaned))
    }

    /// Everything that has to hold before the record may exist.
    async fn prepare(&self) -> Result<()> {
        layout::check_lengths(self.journal, &self.record)?;
        if self.base() == 0 {
            put_if_absent::probe(self.journal, &self.record.writer_id).await?;
            self.claim().await?;
        }
        for (kind, used) in
            [("staging", !self.record.publish.is_empty()), ("state", self.record.state.values().any(Option::is_some))]
        {
            if used {
                let folder = run_folder(&self.journal.state, kind, self.base(), &self.record.writer_id);
                self.journal.sync_folders(&folder.join("x"), &self.journal.state).await?;
            }
        }
        self.try_publish().await
    }

    /// Claims the table, and looks once more whether another one was begun inside or around it meanwhile: each of two runs
    /// claims before it looks, so that at most one of them goes on.
    async fn claim(&self) -> Result<()> {
        let claimed = pointer::claim(self.journal, &self.record.writer_id).await?;
        let looked = async {
            self.journal.check_inside(&self.journal.list_folder().await?)?;
            self.journal.check_around().await
        };
        match looked.await {
            Err(e) if claimed => {
                pointer::withdraw(self.journal).await?;
                Err(e)
            }
            looked => looked,
        }
    }

    /// What can fail a publish is to fail before the commit, where it would: rights on the table's folder, a file that has
    /// the name of a partition's folder, a name that the file system takes for another one. On a disk each folder is tried; a
    /// store without folders has the same rights for all of them.
    async fn try_publish(&self) -> Result<()> {
        let mut files: Vec<&PublishedFile> = self.record.publish.iter().collect();
        files.sort_by_key(|file| file.size);
        let mut folders: BTreeMap<&str, &PublishedFile> = BTreeMap::new();
        let tried = if self.journal.storage.durability.is_immediate() { 1 } else { files.len() };
        for file in files.into_iter().take(tried) {
            folders.entry(folder_of(&file.path)).or_insert(file);
        }
        let trials = folders.into_values().map(|file| self.try_copy(file).boxed());
        stream::iter(trials.collect::<Vec<_>>()).buffered(TRIALS_IN_FLIGHT).try_collect().await
    }

    async fn try_copy(&self, file: &PublishedFile) -> Result<()> {
        let TableStorage { store, durability } = &self.journal.storage;
        let (staged, name) =
            (below(&self.journal.state, &file.staged), layout::trial(self.base(), &self.record.writer_id));
        let trial = match folder_of(&file.path) {
            "" => name,
            folder => format!("{folder}/{name}"),
        };
        let trial = below(&self.journal.table, &trial);
        store.copy_opts(&staged, &trial, CopyOptions::new()).await.map_err(|e| match e {
            object_store::Error::NotFound { .. } => staged_error("publish", &staged, e),
            e => store_error("publish to", &trial, e),
        })?;
        let spelled = durability.is_spelled_so(&trial, &self.journal.table).await;
        match store.delete(&trial).await {
            // Whoever has committed meanwhile deletes the trials of others.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("delete", &trial, e)),
        }
        if spelled? {
            return Ok(());
        }
        let message = format!(
            "the folder of `{}` is there with other letter case or another Unicode form, and this file system takes both for one: use a file system or a store that tells them apart",
            file.path
        );
        Err(Error::data("LooksAlike", message))
    }

    /// Puts the record if absent. After any answer but a plain success, what is there under its number decides.
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
                Ok(_) => return Err(conflict(self.record.version)),
                Err(r) if r.code() == "NotFound" => failure = Some(e),
                Err(_) => {
                    let message =
                        format!("whether `{path}` was committed is not known; nothing was deleted; run again");
                    return Err(unavailable(message, e));
                }
            }
            pause(attempt).await;
        }
        let e = failure.expect("four attempts without an answer leave a failure");
        Err(store_error("commit", &path, e))
    }

    /// A record below the newest checkpoint is void if its number had been dropped: others have gone on without it. One
    /// that somebody else finished before that checkpoint has its mark. Where that mark is dropped too, this cannot be
    /// told, and running again is safe.
    async fn not_void(&self) -> Result<()> {
        let v = self.record.version;
        let store = &self.journal.storage.store;
        if list_entries(store, &self.journal.state).await?.checkpoint < v {
            return Ok(());
        }
        match read::<DoneMark>(store, &JournalObjectKind::Done(v).path(&self.journal.state)).await {
            Ok(done) if done.writer_id == self.record.writer_id => Ok(()),
            Ok(_) => Err(conflict(v)),
            Err(e) if e.code() == "NotFound" => Err(conflict(v)),
            Err(e) => Err(e),
        }
    }

    async fn delete_staged(&self) -> Result<()> {
        self.journal.delete_run(self.base(), &self.record.writer_id).await
    }
}

impl Drop for TableCommit<'_> {
    fn drop(&mut self) {
        self.journal.interrupt.end(&self.record.writer_id);
    }
}

impl Journal {
    /// Deletes what one execution wrote before its commit.
    pub(crate) async fn delete_run(&self, base: u64, writer_id: &str) -> Result<()> {
        for kind in ["staging", "state"] {
            publish::delete_below(self, &run_folder(&self.state, kind, base, writer_id), |_| true).await?;
            let (own, root) = (format!("{base}-{writer_id}"), self.state.clone().join(kind));
            self.storage.durability.remove_folders(&root, &|name: &str| name == own).await?;
        }
        Ok(())
    }
}
