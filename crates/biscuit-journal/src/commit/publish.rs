use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, Result};
use biscuit_purge::{ListedObject, PurgePlan, execute};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectStore, ObjectStoreExt};

use crate::journal::{DivergedPolicy, Journal};
use crate::log::head::{TableHead, list_entries};
use crate::log::layout::{JournalObjectKind, below, folder_of, parse_run_folder};
use crate::log::record::{
    self, CHANGED, CommitException, CommitRecord, DoneMark, FORMAT, FileRef, LOST, NOT_RETIRED, PublishedFile,
};
use crate::store_error;

const IN_FLIGHT: usize = 8;

/// How the finishing of a version ended.
#[derive(Debug)]
pub(crate) enum PublishOutcome {
    /// This run finished it.
    Finished(DoneMark),
    /// Another run had finished it; this one did nothing more.
    Overtaken,
}

/// Stops a run quietly whose version was finished by another.
enum PublishError {
    Overtaken,
    Failed(Error),
}

impl From<Error> for PublishError {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

/// Shows, before each publish and each delete, that the version is still this record's to finish.
struct VersionFence<'a> {
    journal: &'a Journal,
    version: u64,
    /// The record as it was found: another one under its number is none of this run's business.
    etag: Option<String>,
}

impl<'a> VersionFence<'a> {
    async fn new(journal: &'a Journal, record: &CommitRecord) -> Result<Self, PublishError> {
        let path = JournalObjectKind::Record(record.version).path(&journal.state);
        let found = match journal.storage.store.get(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Err(PublishError::Overtaken),
            Err(e) => return Err(store_error("read", &path, e).into()),
        };
        let etag = found.meta.e_tag.clone();
        let bytes = found.bytes().await.map_err(|e| store_error("read", &path, e))?;
        let there: CommitRecord = record::parse(&bytes, path.as_ref())?;
        if there.writer_id != record.writer_id {
            return Err(PublishError::Overtaken);
        }
        Ok(Self { journal, version: record.version, etag })
    }

    /// Ends in `Overtaken` if the version is done. Where records are dropped below a checkpoint they go before their
    /// marks, so a mark that is not there any more is told by a record that is not either.
    async fn check(&self) -> Result<(), PublishError> {
        let state = &self.journal.state;
        if self.journal.exists(&JournalObjectKind::Done(self.version).path(state)).await? {
            return Err(PublishError::Overtaken);
        }
        let path = JournalObjectKind::Record(self.version).path(state);
        match self.journal.storage.store.head(&path).await {
            Ok(found) if found.e_tag == self.etag => Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Err(PublishError::Overtaken),
            Err(e) => Err(store_error("look at", &path, e).into()),
        }
    }
}

/// Publishes and retires what the record says, partition by partition, and marks the version as done.
pub(crate) async fn complete(journal: &Journal, record: &CommitRecord) -> Result<PublishOutcome> {
    match carry_out(journal, record).await {
        Ok(done) => Ok(PublishOutcome::Finished(done)),
        Err(PublishError::Overtaken) => Ok(PublishOutcome::Overtaken),
        // What failed may have failed because another run did the same, finished the version and cleaned up.
        Err(PublishError::Failed(e)) => match VersionFence::new(journal, record).await {
            Ok(guard) => match guard.check().await {
                Err(PublishError::Overtaken) => Ok(PublishOutcome::Overtaken),
                _ => Err(e),
            },
            Err(PublishError::Overtaken) => Ok(PublishOutcome::Overtaken),
            Err(PublishError::Failed(_)) => Err(e),
        },
    }
}

/// A folder's files to publish and to retire.
type FolderChanges<'a> = BTreeMap<&'a str, (Vec<&'a PublishedFile>, Vec<&'a FileRef>)>;

async fn carry_out(journal: &Journal, record: &CommitRecord) -> Result<DoneMark, PublishError> {
    let guard = VersionFence::new(journal, record).await?;
    let mut done = DoneMark { format: FORMAT, writer_id: record.writer_id.clone(), ..DoneMark::default() };
    let mut folders: FolderChanges<'_> = BTreeMap::new();
    for f in &record.publish {
        folders.entry(folder_of(&f.path)).or_default().0.push(f);
    }
    for f in &record.remove {
        folders.entry(folder_of(&f.path)).or_default().1.push(f);
    }
    for (folder, (publish, remove)) in &folders {
        match partition(&guard, publish, remove, &mut done).await {
            Err(PublishError::Failed(e))
                if e.code() == "LostStaging" && journal.options.diverged == DivergedPolicy::Adopt =>
            {
                tracing::warn!("a partition stays as it was: {e}");
                let exception =
                    |path: &String, code: &str| CommitException { path: path.clone(), code: code.to_owned() };
                done.exceptions.extend(publish.iter().map(|f| exception(&f.path, LOST)));
                done.exceptions.extend(remove.iter().map(|f| exception(&f.path, NOT_RETIRED)));
                let retain = record.retain.iter().map(|h| &h.file.path).filter(|path| folder_of(path) == *folder);
                done.exceptions.extend(retain.map(|path| exception(path, NOT_RETIRED)));
            }
            other => other?,
        }
    }
    let path = JournalObjectKind::Done(record.version).path(&journal.state);
    let bytes = record::to_bytes(&done)?;
    guard.check().await?;
    match journal.create(&path, bytes.into(), record.version - 1, &record.writer_id).await {
        Ok(()) => {}
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            return Err(PublishError::Overtaken);
        }
        Err(e @ object_store::Error::NotFound { .. }) => {
            guard.check().await?;
            return Err(store_error("finish", &path, e).into());
        }
        Err(e) => return Err(store_error("finish", &path, e).into()),
    }
    Ok(done)
}

async fn partition(
    guard: &VersionFence<'_>,
    publish: &[&PublishedFile],
    remove: &[&FileRef],
    done: &mut DoneMark,
) -> Result<(), PublishError> {
    let journal = guard.journal;
    let copies: Vec<_> = publish.iter().map(|f| publish_one(guard, f).boxed()).collect();
    let published: Vec<_> = stream::iter(copies).buffered(IN_FLIGHT).try_collect().await?;
    for (file, etag) in publish.iter().zip(published) {
        done.etags.extend(etag.map(|e| (file.path.clone(), e)));
    }
    if let Some(first) = publish.first() {
        journal.sync_folders(&below(&journal.table, &first.path), &journal.table).await?;
    }
    let deletes: Vec<_> = remove.iter().map(|f| remove_one(guard, f).boxed()).collect();
    let kept: Vec<_> = stream::iter(deletes).buffered(IN_FLIGHT).try_collect().await?;
    done.exceptions.extend(kept.into_iter().flatten());
    Ok(())
}

/// Brings one staged file to its final name, where it may be already, and answers with its ETag there.
async fn publish_one(guard: &VersionFence<'_>, file: &PublishedFile) -> Result<Option<String>, PublishError> {
    let (journal, version) = (guard.journal, guard.version);
    let store: &dyn ObjectStore = &journal.storage.store;
    let (from, to) = (below(&journal.state, &file.staged), below(&journal.table, &file.path));
    for _ in 0..3 {
        match store.head(&to).await {
            Ok(found) if found.size == file.size => return Ok(found.e_tag),
            Ok(_) => {
                let message = format!("`{to}` is there with another size than was staged; nothing was retired");
                return Err(Error::data("Diverged", message).into());
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("look at", &to, e).into()),
        }
        guard.check().await?;
        match copy_if_absent(store, &from, &to).await {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(object_store::Error::NotFound { .. }) => {
                if !journal.exists(&to).await? {
                    guard.check().await?;
                    let message = format!(
                        "version {version}: neither `{from}` nor `{to}` is there; nothing was retired; `biscuit adopt` leaves the partition as it was"
                    );
                    return Err(Error::data("LostStaging", message).into());
                }
            }
            Err(e) => return Err(store_error("publish", &to, e).into()),
        }
    }
    Err(Error::data("Diverged", format!("`{to}` is not there after it was published")).into())
}

/// A copy that does not replace: where the store has no such copy, the name is unique and was looked at just before.
async fn copy_if_absent(store: &dyn ObjectStore, from: &Path, to: &Path) -> object_store::Result<()> {
    use object_store::Error as E;
    match store.copy_opts(from, to, CopyOptions::new().with_mode(CopyMode::Create)).await {
        Err(E::NotSupported { .. } | E::NotImplemented { .. }) => store.copy_opts(from, to, CopyOptions::new()).await,
        other => other,
    }
}

async fn remove_one(guard: &VersionFence<'_>, file: &FileRef) -> Result<Option<CommitException>, PublishError> {
    guard.check().await?;
    let journal = guard.journal;
    let listed = ListedObject::new(below(&journal.table, &file.path), file.size, file.etag.clone());
    let plan = PurgePlan::exact(&journal.table, [listed])?;
    let mut report = execute(&journal.storage.store, &plan).await;
    if let Some((_, e)) = report.failed.pop() {
        return Err(e.into());
    }
    let changed = !report.kept.is_empty();
    Ok(changed.then(|| CommitException { path: file.path.clone(), code: CHANGED.to_owned() }))
}

/// Deletes as [`clean`] does, for a run whose own work is done: what is left now is deleted by a later run.
pub(crate) async fn clean_if_possible(journal: &Journal, head: &TableHead) -> u64 {
    match clean(journal, head).await {
        Ok(cleaned) => cleaned,
        Err(e) => {
            tracing::warn!("what dead runs left in `{}` is left to a later run: {e}", journal.state);
            0
        }
    }
}

/// Deletes what is provably dead below a finished head: staging of earlier bases, state files that are not live, and
/// records far below a checkpoint. Writes that checkpoint first if it is due.
pub(crate) async fn clean(journal: &Journal, head: &TableHead) -> Result<u64> {
    if head.version == 0 || !head.is_finished() {
        return Ok(0);
    }
    checkpoint(journal, head).await?;
    let dead = OrphanedState::new(journal, head);
    let mut cleaned = 0;
    for root in &dead.roots {
        cleaned += delete_below(journal, root, |path| dead.has(root, path)).await?;
        journal.storage.durability.remove_folders(root, &|name: &str| dead.is_whole_run(root, name)).await?;
    }
    Ok(cleaned)
}

/// What is provably dead in the state root below a finished head: all of runs that began on earlier bases, but live state files.
pub(crate) struct OrphanedState {
    version: u64,
    pub(crate) roots: [Path; 2],
    live: BTreeSet<Path>,
}

impl OrphanedState {
    pub(crate) fn new(journal: &Journal, head: &TableHead) -> Self {
        let state = &journal.state;
        Self {
            version: head.version,
            roots: ["staging", "state"].map(|kind| state.clone().join(kind)),
            live: head.state.values().map(|f| below(state, &f.path)).collect(),
        }
    }

    fn is_run(&self, name: &str) -> bool {
        parse_run_folder(name).is_some_and(|(base, _)| base < self.version)
    }

    /// Whether an object below one of the roots is dead.
    pub(crate) fn has(&self, root: &Path, path: &Path) -> bool {
        let run = path.prefix_match(root).and_then(|mut parts| parts.next());
        run.is_some_and(|r| self.is_run(r.as_ref())) && !self.live.contains(path)
    }

    fn is_whole_run(&self, root: &Path, name: &str) -> bool {
        self.is_run(name) && !self.live.iter().any(|f| f.prefix_matches(&root.clone().join(name)))
    }
}

/// Deletes what a run left that died while it probed the store. Only asked for by a recovery: two runs may begin a table
/// at once, and the probes of the one that will lose are not dead yet.
pub(crate) async fn clean_probes(journal: &Journal, head: &TableHead) -> Result<u64> {
    if head.version == 0 {
        return Ok(0);
    }
    let cleaned = delete_below(journal, &journal.state.clone().join("probe"), |_| true).await?;
    journal.storage.durability.remove_folders(&journal.state, &|name: &str| name == "probe").await?;
    Ok(cleaned)
}

async fn checkpoint(journal: &Journal, head: &TableHead) -> Result<()> {
    if !head.version.is_multiple_of(journal.options.checkpoint_every) {
        return Ok(());
    }
    let path = JournalObjectKind::Checkpoint(head.version).path(&journal.state);
    // Any name that nobody else has will do: this run may have made no version of its own.
    match journal.create(&path, record::to_bytes(head)?.into(), head.version - 1, &journal.writer_id()).await {
        Ok(()) => {}
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => return Ok(()),
        Err(e) => {
            // Another run that is further on cleans up what this one writes; a checkpoint that is missing costs time alone.
            tracing::warn!("the checkpoint `{path}` could not be written: {}", store_error("write", &path, e));
            return Ok(());
        }
    }
    let Some(oldest) = head.version.checked_sub(journal.options.keep_history) else { return Ok(()) };
    let entries = list_entries(&journal.storage.store, &journal.state).await?;
    let paths = |set: &BTreeSet<u64>, entry: fn(u64) -> JournalObjectKind| {
        set.range(..oldest).map(|&v| entry(v).path(&journal.state)).collect::<Vec<_>>()
    };
    // Records first: a run that slept since its record was there must find either the mark or no record.
    delete_all(journal, paths(&entries.records, JournalObjectKind::Record)).await?;
    delete_all(journal, paths(&entries.done, JournalObjectKind::Done)).await.map(drop)
}

/// Deletes the objects below a folder of the state root that `which` picks.
pub(crate) async fn delete_below(journal: &Journal, folder: &Path, which: impl Fn(&Path) -> bool) -> Result<u64> {
    let listed: Vec<Path> = journal
        .storage
        .store
        .list(Some(folder))
        .map_ok(|properties| properties.location)
        .try_collect()
        .await
        .map_err(|e| store_error("list", folder, e))?;
    delete_all(journal, listed.into_iter().filter(|p| which(p)).collect()).await
}

async fn delete_all(journal: &Journal, paths: Vec<Path>) -> Result<u64> {
    let mut deleted = 0;
    let mut answers = journal.storage.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(_) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("clean", &journal.state, e)),
        }
    }
    Ok(deleted)
}
