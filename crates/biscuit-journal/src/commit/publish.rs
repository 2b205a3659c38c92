//! Publishing and finishing: what follows a commit record, by the run itself or by a recovery.
//!
//! Each function here may run at the same time in several processes, and again after a crash. See the invariants in
//! `commit/mod.rs`.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, ObjectRef, Result};
use biscuit_purge::internal::execute_in;
use biscuit_purge::{AnyStore, ListedObject, PurgePlan};
use futures::future::join_all;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::codes;
use crate::commit::preconditions::{trial_files, trial_path};
use crate::log::journal_store::JournalStore;
use crate::log::layout::{JournalObjectKind, folder_of, path_below};
use crate::log::record::{
    self, CHANGED, CommitException, CommitRecord, DoneMark, FORMAT, LOST, NOT_REMOVED, PublishedFile,
};
use crate::options::DivergedPolicy;
use crate::store::state_objects::delete_all;
use crate::store_error;

/// Maximum number of files of a folder that are copied or deleted at the same time.
const IN_FLIGHT: usize = 8;

/// Maximum number of removed files of a folder that are deleted after one check of the fence.
const REMOVED_TOGETHER: usize = 64;

/// Maximum number of folders that are published at the same time.
const FOLDERS_IN_FLIGHT: usize = 16;

/// Outcome of finishing a version.
#[derive(Debug)]
pub(crate) enum PublishOutcome {
    /// This process finished the version.
    Finished(DoneMark),
    /// Another process finished the version first; this process has nothing more to do.
    Overtaken,
}

/// Ends the publishing of a version early.
enum PublishError {
    /// Another process finished the version. This is not an error for the caller.
    Overtaken,
    /// The record is not in force. Nothing was published.
    Void(Error),
    Failed(Error),
}

impl From<Error> for PublishError {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

/// Check that the version is still to be finished, before copies and deletes: with the look for each file, before each
/// group of deletes, and for the first files and deletes with the look before them.
///
/// A process may sleep for hours between two calls. Meanwhile another process can finish the version, commit further
/// ones, and drop the record below a checkpoint. Without the check, the sleeper would copy files that were removed
/// since, or complain about staged files that were cleaned rightly.
///
/// The check and the effect are two calls, so a process can still fall asleep between them. That is harmless: a late
/// copy is an orphan file, a late delete is conditional on size and ETag, and a late done mark is created if absent.
struct VersionFence<'a> {
    journal: &'a JournalStore,
    version: u64,
    /// ETag of the record when it was first read. A record with another ETag under the same number was put after the
    /// first one had been dropped: it is void and not to be carried out.
    etag: Option<String>,
}

impl<'a> VersionFence<'a> {
    async fn new(journal: &'a JournalStore, record: &CommitRecord) -> Result<Self, PublishError> {
        let path = JournalObjectKind::Record(record.version).path(&journal.state);
        let mark = JournalObjectKind::Done(record.version).path(&journal.state);
        let read = async { journal.storage.store.get(&path).await };
        let (is_done, found) = futures::join!(journal.exists(&mark), read);
        let found = match found {
            Ok(_) if is_done? => return Err(PublishError::Overtaken),
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

    /// Returns `Overtaken` if the version is done, or if its record is missing or another one.
    ///
    /// Both requests are sent at once, for effects that do no harm if they come late.
    async fn check(&self) -> Result<(), PublishError> {
        let state = &self.journal.state;
        let mark = JournalObjectKind::Done(self.version).path(state);
        let path = JournalObjectKind::Record(self.version).path(state);
        let look = async { self.journal.storage.store.head(&path).await };
        let (is_done, found) = futures::join!(self.journal.exists(&mark), look);
        if is_done? {
            return Err(PublishError::Overtaken);
        }
        match found {
            Ok(found) if found.e_tag == self.etag => Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Err(PublishError::Overtaken),
            Err(e) => Err(store_error("check", &path, e).into()),
        }
    }

    /// As [`check`](Self::check), with the mark before the record. Below a checkpoint records are deleted before their
    /// marks, so if the mark is missing because it was dropped, the record is missing as well.
    async fn check_in_order(&self) -> Result<(), PublishError> {
        if self.journal.exists(&JournalObjectKind::Done(self.version).path(&self.journal.state)).await? {
            return Err(PublishError::Overtaken);
        }
        self.check().await
    }
}

/// Finishes a version: publishes and removes the files of its record, folder by folder, and puts the done mark.
/// `in_force` checks that the record is in force; nothing is published before it succeeds. `trials` says what happens to
/// trial copies.
///
/// Safe to repeat, and safe while other processes finish the same version.
pub(crate) async fn finish_version(
    journal: &JournalStore,
    record: &CommitRecord,
    in_force: impl Future<Output = Result<()>>,
    trials: LeftTrials,
) -> Result<PublishOutcome> {
    match carry_out(journal, record, in_force, trials).await {
        Ok(done) => Ok(PublishOutcome::Finished(done)),
        Err(PublishError::Overtaken) => Ok(PublishOutcome::Overtaken),
        Err(PublishError::Void(e)) => Err(e),
        // The failure may be a consequence of another process that finished the version and cleaned its staged files.
        // So the error counts only if the version is still unfinished.
        Err(PublishError::Failed(e)) => match VersionFence::new(journal, record).await {
            Ok(guard) => match guard.check_in_order().await {
                Err(PublishError::Overtaken) => Ok(PublishOutcome::Overtaken),
                _ => Err(e),
            },
            Err(PublishError::Overtaken) => Ok(PublishOutcome::Overtaken),
            Err(_) => Err(e),
        },
    }
}

/// The changes of a record in one folder.
#[derive(Default)]
struct FolderChanges<'a> {
    publish: Vec<&'a PublishedFile>,
    remove: Vec<&'a ObjectRef>,
}

/// ETags and exceptions of one folder, for the done mark.
#[derive(Default)]
struct PublishedFolder {
    etags: Vec<(String, String)>,
    exceptions: Vec<CommitException>,
}

async fn carry_out(
    journal: &JournalStore,
    record: &CommitRecord,
    in_force: impl Future<Output = Result<()>>,
    trials: LeftTrials,
) -> Result<DoneMark, PublishError> {
    let mut folders: BTreeMap<&str, FolderChanges<'_>> = BTreeMap::new();
    for f in &record.publish {
        folders.entry(folder_of(&f.path)).or_default().publish.push(f);
    }
    for f in &record.remove {
        folders.entry(folder_of(&f.path)).or_default().remove.push(f);
    }
    // A few files are looked for at once: they are the first to be published, so a later look would tell no more. All
    // other files are looked for just before they are copied.
    let first: Vec<&PublishedFile> = folders.values().flat_map(|f| &f.publish).copied().take(IN_FLIGHT).collect();
    let looks = join_all(first.iter().map(|file| find_published(journal, file)));
    let (in_force, guard, looks, cleaned) =
        futures::join!(in_force, VersionFence::new(journal, record), looks, delete_trials(journal, record, trials));
    in_force.map_err(PublishError::Void)?;
    cleaned?;
    let guard = guard?;
    let mut looks = looks.into_iter();
    // Each folder by itself: a reader that lists a partition sees its new files beside its old ones for a short time
    // only. All folders are carried out to their end before an error of one of them is returned, so a lost staged file
    // leaves the other partitions complete.
    let each = folders.iter().map(|(folder, changes)| {
        let looks = changes.publish.iter().map(|_| looks.next()).collect();
        publish_or_keep_folder(&guard, record, folder, changes, looks).boxed()
    });
    let each: Vec<_> = each.collect();
    let published: Vec<_> = stream::iter(each).buffered(FOLDERS_IN_FLIGHT).collect().await;
    let published = published.into_iter().collect::<Result<Vec<PublishedFolder>, _>>()?;
    let mut done = DoneMark { format: FORMAT, writer_id: record.writer_id.clone(), ..DoneMark::default() };
    for folder in published {
        done.etags.extend(folder.etags);
        done.exceptions.extend(folder.exceptions);
    }
    // The mark comes last: it promises that every file of the record has its final name. If two processes finish the
    // version at once, the mark of the first counts, and both marks are true. The fence was checked together with the
    // last deletes or looks.
    let path = JournalObjectKind::Done(record.version).path(&journal.state);
    let bytes = record::to_bytes(&done)?;
    let put = journal.create(&path, bytes.into(), record.version - 1, &record.writer_id);
    let (put, cleaned) = futures::join!(put, delete_published(journal, record, &done));
    if let Err(e) = cleaned {
        tracing::warn!("staged files remain in `{}` until a later run: {e}", journal.state);
    }
    match put {
        Ok(()) => {}
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            return Err(PublishError::Overtaken);
        }
        // On a local disk the mark is staged first, in the run folder, which another process may just have cleaned.
        Err(e @ object_store::Error::NotFound { .. }) => {
            guard.check_in_order().await?;
            return Err(store_error("finish", &path, e).into());
        }
        Err(e) => return Err(store_error("finish", &path, e).into()),
    }
    Ok(done)
}

/// Trial copies of the run whose version is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftTrials {
    /// The run itself has deleted them.
    Deleted,
    /// The run may have died before it could delete them.
    MayRemain,
}

/// Deletes the trial copies of a run, so that none is left when its version is finished. On a disk they are deleted before the
/// commit.
async fn delete_trials(journal: &JournalStore, record: &CommitRecord, trials: LeftTrials) -> Result<()> {
    if trials == LeftTrials::Deleted || !journal.storage.durability.is_immediate() {
        return Ok(());
    }
    let files = trial_files(record, &journal.storage).into_iter();
    let paths = files.map(|file| trial_path(journal, record, file)).collect();
    delete_all(&journal.storage, &journal.state, paths).await.map(drop)
}

/// Deletes the staged files of a version whose files all have their final names. No process needs them any more: one that
/// finishes the same version finds the files there. On a disk the run folder is deleted as a whole later.
async fn delete_published(journal: &JournalStore, record: &CommitRecord, done: &DoneMark) -> Result<()> {
    if !journal.storage.durability.is_immediate() {
        return Ok(());
    }
    let lost = |path: &str| done.exceptions.iter().any(|e| e.code == LOST && e.path == path);
    let published = record.publish.iter().filter(|file| !lost(&file.path));
    let staged = published.map(|file| path_below(&journal.state, &file.staged)).collect();
    delete_all(&journal.storage, &journal.state, staged).await.map(drop)
}

/// A published file at its final name, `None` if it does not exist there.
type Look = Result<Option<ObjectMeta>>;

/// Publishes one folder. `looks` has a look for each file to publish, if one was taken together with the new fence. If
/// its staged files are lost and a diverged table is adopted, the folder remains as it was
/// before this version, and the mark gets an exception for each of its files, which `TableHead::apply_record` reads.
async fn publish_or_keep_folder(
    guard: &VersionFence<'_>,
    record: &CommitRecord,
    folder: &str,
    changes: &FolderChanges<'_>,
    looks: Vec<Option<Look>>,
) -> Result<PublishedFolder, PublishError> {
    match publish_folder(guard, changes, looks).await {
        Err(PublishError::Failed(e))
            if e.is(codes::LOST_STAGING) && guard.journal.options.diverged == DivergedPolicy::Adopt =>
        {
            tracing::warn!("a partition remains as it was before this version: {e}");
            let exception = |path: &String, code: &str| CommitException { path: path.clone(), code: code.to_owned() };
            let lost = changes.publish.iter().map(|f| exception(&f.path, LOST));
            let removed = changes.remove.iter().map(|f| exception(&f.path, NOT_REMOVED));
            let retained = record.retain.iter().map(|h| &h.file.path).filter(|path| folder_of(path) == folder);
            let retained = retained.map(|path| exception(path, NOT_REMOVED));
            Ok(PublishedFolder { exceptions: lost.chain(removed).chain(retained).collect(), ..Default::default() })
        }
        other => other,
    }
}

/// Publishes and removes the files of one folder.
///
/// All new files are there, and their names are durable, before the first old file is deleted. A crash in between
/// leaves both, which the next process completes; it never leaves a partition without its rows. If the new files are copied
/// already and only the last look at them is left, a few old files are looked at together with them, which saves a request
/// before the deletes.
async fn publish_folder(
    guard: &VersionFence<'_>,
    changes: &FolderChanges<'_>,
    looks: Vec<Option<Look>>,
) -> Result<PublishedFolder, PublishError> {
    let journal = guard.journal;
    let all_copied = looks.iter().all(Option::is_some);
    let copies = changes.publish.iter().zip(looks).map(|(file, look)| copy_after_look(guard, file, look).boxed());
    let copies: Vec<_> = copies.collect();
    let copied: Vec<Option<FinalName>> = stream::iter(copies).buffered(IN_FLIGHT).try_collect().await?;
    let publish = changes.publish.iter().zip(copied).map(|(file, found)| async move {
        match found {
            Some(found) => Ok(found),
            None => publish_one(guard, file).await,
        }
    });
    let publish: Vec<_> = publish.map(FutureExt::boxed).collect();
    let publish = stream::iter(publish).buffered(IN_FLIGHT).try_collect::<Vec<FinalName>>();
    let groups: Vec<_> = changes.remove.chunks(REMOVED_TOGETHER).collect();
    let look_early = all_copied && journal.storage.durability.is_immediate();
    let first = groups.first().filter(|_| look_early).copied().unwrap_or_default();
    let first = &first[..first.len().min(IN_FLIGHT)];
    let (published, mut looks) = futures::join!(publish, look_at_removed(journal, first));
    let published = published?;
    let is_checked = published.iter().any(|f| f.is_checked);
    let etags = changes.publish.iter().zip(published);
    let etags = etags.filter_map(|(f, found)| Some((f.path.clone(), found.etag?))).collect();
    if let Some(first) = changes.publish.first() {
        journal.sync_folders(&path_below(&journal.table, &first.path), &journal.table).await?;
    }
    if changes.remove.is_empty() {
        return Ok(PublishedFolder { etags, exceptions: vec![] });
    }
    let mut exceptions = Vec::new();
    for (n, group) in groups.iter().enumerate() {
        // A fence that was checked with a look at the last published files counts for the first deletes.
        if n > 0 || !is_checked {
            guard.check().await?;
        }
        match n + 1 == groups.len() {
            true => {
                let removed = remove_group(guard, group, std::mem::take(&mut looks));
                let (kept, checked) = futures::join!(removed, guard.check());
                exceptions.extend(kept?);
                checked?;
            }
            false => exceptions.extend(remove_group(guard, group, std::mem::take(&mut looks)).await?),
        }
    }
    Ok(PublishedFolder { etags, exceptions })
}

/// Looks for a file of a record at its final name.
async fn find_published(journal: &JournalStore, file: &PublishedFile) -> Look {
    let to = path_below(&journal.table, &file.path);
    match journal.storage.store.head(&to).await {
        Ok(found) if found.size == file.size => Ok(Some(found)),
        Ok(_) => {
            let message = format!(
                "`{to}` exists with a different size than the staged file; no file of its partition was removed"
            );
            Err(Error::new(codes::DIVERGED, message))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(store_error("check", &to, e)),
    }
}

/// A file that was found at its final name.
struct FinalName {
    etag: Option<String>,
    /// Whether the fence was checked together with the look that found it.
    is_checked: bool,
}

/// Copies one staged file to its final name, unless the look that was taken together with the new fence has found it there.
/// Returns the file if it was found. Without such a look, nothing is copied.
async fn copy_after_look(
    guard: &VersionFence<'_>,
    file: &PublishedFile,
    first_look: Option<Look>,
) -> Result<Option<FinalName>, PublishError> {
    let Some(found) = first_look else { return Ok(None) };
    if let Some(found) = found? {
        return Ok(Some(FinalName { etag: found.e_tag, is_checked: false }));
    }
    copy_to_final_name(guard, file).await.map(|()| None)
}

/// Copies one staged file to its final name, unless another process has done so, and returns its ETag there.
///
/// The loop looks at the final name first and again after each copy. So the outcome of a copy does not matter, only
/// whether the file is there in the end: an answer may be lost, and another process may copy at the same time. The
/// fence is checked together with each look.
async fn publish_one(guard: &VersionFence<'_>, file: &PublishedFile) -> Result<FinalName, PublishError> {
    for _ in 0..3 {
        let (found, checked) = futures::join!(find_published(guard.journal, file), guard.check());
        checked?;
        if let Some(found) = found? {
            return Ok(FinalName { etag: found.e_tag, is_checked: true });
        }
        copy_to_final_name(guard, file).await?;
    }
    let to = path_below(&guard.journal.table, &file.path);
    Err(Error::new(codes::DIVERGED, format!("`{to}` does not exist after it was published")).into())
}

/// Copies one staged file to its final name. Whether it is there afterwards is not known.
async fn copy_to_final_name(guard: &VersionFence<'_>, file: &PublishedFile) -> Result<(), PublishError> {
    let (journal, version) = (guard.journal, guard.version);
    let (from, to) = (path_below(&journal.state, &file.staged), path_below(&journal.table, &file.path));
    match copy_if_absent(&journal.storage.store, &from, &to).await {
        Ok(()) | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
        Err(object_store::Error::NotFound { .. }) => {
            // The staged file is missing. Either another process has published it and cleaned up, in which case the
            // final name or the fence shows that, or the file is lost.
            if !journal.exists(&to).await? {
                guard.check_in_order().await?;
                let message = format!(
                    "version {version}: neither `{from}` nor `{to}` exists; no file of its partition was removed; `biscuit adopt` keeps the partition as it was before"
                );
                return Err(Error::new(codes::LOST_STAGING, message).into());
            }
            Ok(())
        }
        Err(e) => Err(store_error("publish", &to, e).into()),
    }
}

/// Copies without replacing an existing object. For a store that has no such copy, a plain copy is safe enough: the
/// name is unique, and the caller has just checked that it does not exist.
async fn copy_if_absent(store: &dyn ObjectStore, from: &Path, to: &Path) -> object_store::Result<()> {
    use object_store::Error as E;
    match store.copy_opts(from, to, CopyOptions::new().with_mode(CopyMode::Create)).await {
        Err(E::NotSupported { .. } | E::NotImplemented { .. }) => store.copy_opts(from, to, CopyOptions::new()).await,
        other => other,
    }
}

/// Looks at files that are deleted next. A file without an answer is looked at again before its delete.
async fn look_at_removed(journal: &JournalStore, files: &[&ObjectRef]) -> Vec<ObjectMeta> {
    let looks = files.iter().map(|file| {
        let object = path_below(&journal.table, &file.path);
        async move { journal.storage.store.head(&object).await.ok() }.boxed()
    });
    join_all(looks.collect::<Vec<_>>()).await.into_iter().flatten().collect()
}

/// Deletes removed files that still have the observed size and ETag. A file that another program has changed since is
/// kept and becomes an exception of the version: its rows are not known to this table. `looks` are what was just found
/// out about some of them.
async fn remove_group(
    guard: &VersionFence<'_>,
    files: &[&ObjectRef],
    looks: Vec<ObjectMeta>,
) -> Result<Vec<CommitException>, PublishError> {
    let journal = guard.journal;
    let listed = |file: &&ObjectRef| {
        let object = path_below(&journal.table, &file.path);
        ListedObject::from((*file).clone().with_path(object))
    };
    let plan = PurgePlan::exact(&journal.table, files.iter().map(listed))?;
    let mut report = execute_in(&AnyStore::new(journal.storage.store.clone()).with_known_metadata(looks), &plan).await;
    if let Some((_, e)) = report.failed.pop() {
        return Err(e.into());
    }
    let kept: BTreeSet<&Path> = report.kept.iter().map(|(path, _)| path).collect();
    let changed = files.iter().filter(|file| kept.contains(&path_below(&journal.table, &file.path)));
    Ok(changed.map(|file| CommitException { path: file.path.clone(), code: CHANGED.to_owned() }).collect())
}
