//! Preparing: establishes everything that has to hold before the record of a change may exist. Independent requests are
//! sent at once.

use std::collections::BTreeMap;

use biscuit_core::{Error, Result};
use futures::future::join_all;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectStoreExt};

use crate::commit::path_lengths::check_lengths;
use crate::commit::publish::LeftTrials;
use crate::commit::staged::{staged_error, staged_gone};
use crate::commit::stager::DeferredChecks;
use crate::log::journal_store::JournalStore;
use crate::log::layout::{self, folder_of, path_below, run_folder};
use crate::log::pointer;
use crate::log::record::{CommitRecord, PublishedFile};
use crate::observe::ownership::{check_around, check_inside, list_folder};
use crate::options::WriterPolicy;
use crate::store::put_if_absent::{PutIfAbsentProbe, remember};
use crate::{TableStorage, codes, store_error};

/// Maximum number of trial copies at the same time.
const TRIALS_IN_FLIGHT: usize = 8;

/// Maximum number of checks of staged files at the same time.
const CHECKS_IN_FLIGHT: usize = 16;

/// Maximum number of staged files whose sizes are compared at the same time.
const SIZES_IN_FLIGHT: usize = 32;

/// Name that no object has, and with which the right to delete is tried. It is shorter than the name of a trial copy.
const ABSENT: &str = "_biscuit-absent";

/// The preconditions of the record of a change.
pub(crate) struct Preconditions<'a> {
    pub(crate) journal: &'a JournalStore,
    pub(crate) record: &'a CommitRecord,
    pub(crate) checks: &'a DeferredChecks,
    /// Whether it is known that put-if-absent has one winner in the store.
    pub(crate) is_probed: bool,
}

/// Returns the files of which trial copies are made: the smallest one, and on a disk the smallest one of each folder.
pub(crate) fn trial_files<'a>(record: &'a CommitRecord, storage: &TableStorage) -> Vec<&'a PublishedFile> {
    let mut files: Vec<&PublishedFile> = record.publish.iter().collect();
    files.sort_by_key(|file| file.size);
    let mut folders: BTreeMap<&str, &PublishedFile> = BTreeMap::new();
    let tried = if storage.durability.is_immediate() { 1 } else { files.len() };
    for file in files.into_iter().take(tried) {
        folders.entry(folder_of(&file.path)).or_insert(file);
    }
    folders.into_values().collect()
}

/// Returns the path of the trial copy of a file.
pub(crate) fn trial_path(journal: &JournalStore, record: &CommitRecord, file: &PublishedFile) -> Path {
    path_beside(journal, file, &layout::trial_name(record.version - 1, &record.writer_id))
}

/// Returns the path of a name in the folder of a file.
fn path_beside(journal: &JournalStore, file: &PublishedFile, name: &str) -> Path {
    match folder_of(&file.path) {
        "" => path_below(&journal.table, name),
        folder => path_below(&journal.table, &format!("{folder}/{name}")),
    }
}

/// Trial copies in the folder of a table, which are not needed any more.
#[must_use]
pub(crate) struct TrialCopies(Vec<Path>);

impl TrialCopies {
    /// Deletes the copies. A failure is logged: the next commit deletes what remains.
    pub(crate) async fn delete_if_possible(self, storage: &TableStorage) -> LeftTrials {
        let deletes = self.0.iter().map(|trial| async move {
            match storage.store.delete(trial).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => true,
                Err(e) => {
                    tracing::warn!("`{trial}` remains for now: {e}");
                    false
                }
            }
        });
        match join_all(deletes).await.into_iter().all(|deleted| deleted) {
            true => LeftTrials::Deleted,
            false => LeftTrials::MayRemain,
        }
    }
}

impl Preconditions<'_> {
    /// Establishes everything that has to hold before the record may exist. Returns the trial copies that remain to be
    /// deleted.
    pub(crate) async fn establish(&self) -> Result<TrialCopies> {
        check_lengths(&self.journal.table, &self.journal.state, self.record)?;
        // The files were synced when they were written; their names and the folders above them are synced once, here.
        for (kind, used) in
            [("staging", !self.record.publish.is_empty()), ("state", self.record.state.values().any(Option::is_some))]
        {
            if used {
                let folder = run_folder(&self.journal.state, kind, self.base(), &self.record.writer_id);
                self.journal.sync_folders(&folder.join("x"), &self.journal.state).await?;
            }
        }
        let (claimed, tried) = futures::join!(self.verify_and_claim(), self.try_publish());
        match (claimed, tried) {
            (Ok(()), tried) => tried,
            (Err(e), Ok(trials)) => {
                trials.delete_if_possible(&self.journal.storage).await;
                Err(e)
            }
            (Err(e), Err(_)) => Err(e),
        }
    }

    /// Verifies the staged files. Before the first version it also probes the store and claims the table: a table with
    /// a version has its pointer, and its store has been probed.
    async fn verify_and_claim(&self) -> Result<()> {
        if self.base() > 0 {
            return self.verify_staged().await;
        }
        let JournalStore { storage, state, options, .. } = self.journal;
        if self.is_probed || options.writers == WriterPolicy::One {
            let (verified, claimed) = futures::join!(self.verify_staged(), self.claim());
            // If the files are not valid, the pointer remains: another run with the same state root may rely on it.
            verified?;
            return self.check_claim(claimed?).await;
        }
        let probe = PutIfAbsentProbe::run(&storage.store, state, options.writers, &self.record.writer_id);
        let ((probe, shown), verified) = futures::join!(probe, self.verify_staged());
        let claim = async {
            verified.and(shown)?;
            let (claimed, ()) = futures::join!(self.claim(), remember(storage, &self.journal.table));
            self.check_claim(claimed?).await
        };
        let (cleaned, claimed) = futures::join!(probe.clean(&storage.store), claim);
        if let Err(e) = cleaned {
            tracing::warn!("objects of the probe remain in `{state}` until a recovery: {e}");
        }
        claimed
    }

    async fn verify_staged(&self) -> Result<()> {
        let (compared, checked) = futures::join!(self.compare_sizes(), self.run_checks());
        compared.and(checked)
    }

    fn base(&self) -> u64 {
        self.record.version - 1
    }

    /// Carries out the checks that the stager got.
    async fn run_checks(&self) -> Result<()> {
        let checks = stream::iter(self.checks.take()).buffer_unordered(CHECKS_IN_FLIGHT);
        let checked: Result<()> = checks.try_collect().await;
        checked.map_err(|e| match e.is(biscuit_core::codes::NOT_FOUND) {
            true => staged_gone("a staged file").with_source(e),
            false => e,
        })
    }

    /// Compares the sizes of the staged files and state files in the store with the numbers of bytes written.
    async fn compare_sizes(&self) -> Result<()> {
        let published = self.record.publish.iter().map(|f| (&f.staged, f.size));
        let state = self.record.state.values().flatten().map(|f| (&f.path, f.size));
        let compare = |(path, size): (&String, u64)| {
            let object = path_below(&self.journal.state, path);
            async move {
                let found =
                    self.journal.storage.store.head(&object).await.map_err(|e| staged_error("check", &object, e))?;
                if found.size == size {
                    return Ok(());
                }
                let message = format!("`{object}` has {} bytes, but {size} were written; run again", found.size);
                Err(Error::new(codes::TORN_WRITE, message))
            }
            .boxed()
        };
        let each: Vec<_> = published.chain(state).map(compare).collect();
        stream::iter(each).buffer_unordered(SIZES_IN_FLIGHT).try_collect().await
    }

    /// Claims the table. Returns whether this call has written the pointer.
    async fn claim(&self) -> Result<bool> {
        pointer::claim(self.journal, &self.record.writer_id).await
    }

    /// After the claim of the table, checks again that no other table was begun inside or around it.
    ///
    /// The order is that of Dekker's algorithm: each of two runs first writes its own pointer and then looks for the
    /// pointer of the other. Whichever writes second sees the first one, so at most one of them continues (both
    /// may give up).
    async fn check_claim(&self, claimed: bool) -> Result<()> {
        let looked = async {
            let (listing, around) = futures::join!(list_folder(self.journal), check_around(self.journal));
            check_inside(&self.journal.table, &listing?)?;
            around
        };
        match looked.await {
            Err(e) if claimed => {
                pointer::withdraw_claim(self.journal).await?;
                Err(e)
            }
            looked => looked,
        }
    }

    /// Makes and deletes a trial copy of a staged file in the folders of the table, so that a publish that would fail
    /// does so before the commit. Examples: missing rights on the folder of the table, a file with the name of a
    /// partition folder, a name that the file system does not distinguish from another one.
    ///
    /// On a disk every folder is tried. In a store without folders one trial is enough, made with the smallest file. There the
    /// right to delete is tried with a name that does not exist, so that the copy can be deleted while the record is put.
    async fn try_publish(&self) -> Result<TrialCopies> {
        let trials = trial_files(self.record, &self.journal.storage);
        let trials = trials.into_iter().map(|file| self.try_copy(file).boxed());
        let copies: Vec<_> = stream::iter(trials.collect::<Vec<_>>()).buffered(TRIALS_IN_FLIGHT).try_collect().await?;
        Ok(TrialCopies(copies.into_iter().flatten().collect()))
    }

    /// Makes a trial copy of a file. Returns it if it remains to be deleted.
    async fn try_copy(&self, file: &PublishedFile) -> Result<Option<Path>> {
        let TableStorage { store, durability } = &self.journal.storage;
        let staged = path_below(&self.journal.state, &file.staged);
        let trial = trial_path(self.journal, self.record, file);
        // On a disk, a copy that may replace a file is first made under a temporary name, which no listing shows. A crash
        // before the rename would leave it there forever.
        let mode = if durability.is_immediate() { CopyMode::Overwrite } else { CopyMode::Create };
        let copy = store.copy_opts(&staged, &trial, CopyOptions::new().with_mode(mode));
        let absent = path_beside(self.journal, file, ABSENT);
        let (copied, refused) = match durability.is_immediate() {
            true => futures::join!(copy, async { store.delete(&absent).await }),
            false => (copy.await, Ok(())),
        };
        match copied {
            Ok(()) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(e @ object_store::Error::NotFound { .. }) => return Err(staged_error("publish", &staged, e)),
            Err(e) => return Err(store_error("publish to", &trial, e)),
        }
        if durability.is_immediate() {
            return match refused {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Some(trial)),
                Err(e) => {
                    // The delete may have failed for another reason than a missing right.
                    TrialCopies(vec![trial]).delete_if_possible(&self.journal.storage).await;
                    Err(store_error("delete", &absent, e))
                }
            };
        }
        let spelled = durability.is_spelled_so(&trial, &self.journal.table).await;
        match store.delete(&trial).await {
            // Another run that has committed since may have deleted this trial copy.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("delete", &trial, e)),
        }
        if spelled? {
            return Ok(None);
        }
        let message = format!(
            "the folder of `{}` exists with different letter case or Unicode form, and this file system does not distinguish the two; use a file system or a store that does",
            file.path
        );
        Err(Error::new(biscuit_purge::codes::LOOKS_ALIKE, message))
    }
}
