//! The journal of one table: its options, its newest version, the history and the state files.
//!
//! The protocol of a commit is explained in `commit/mod.rs`, the objects of the log in `log/mod.rs`. Recovery is in
//! `commit/recovery.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use biscuit_core::{Error, Result};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use crate::commit::interrupt::RunInterrupt;
use crate::log::head::{self, TableHead, list_entries, read_head};
use crate::log::layout::{JournalObjectKind, below, run_folder};
use crate::log::record::{CommitRecord, PastVersion, StateFile};
use crate::{TableStorage, codes, default_state_root, store_error};

/// Whether several runs may write to the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WriterPolicy {
    /// Several runs may write at the same time: the store has to prove that put-if-absent has exactly one winner.
    #[default]
    Many,
    /// Single writer: the caller promises that no other run writes. Stores that ignore put-if-absent are accepted.
    One,
}

/// Handling of external files: files in the folder of the table that another program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExternalFiles {
    /// External files are part of the table; the next commit adopts them.
    #[default]
    Adopt,
    /// External files stop the run.
    Fail,
    /// External files are neither read nor changed.
    Ignore,
}

/// Handling of a diverged table: a live file is missing or changed, Biscuit files have no journal, or staged files
/// were lost after their commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DivergedPolicy {
    /// A divergence stops the run.
    #[default]
    Fail,
    /// The files that exist are the table, and the next commit records them.
    Adopt,
}

/// Handling of a folder that contains the log of another table format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OtherTableFormats {
    /// The folder is neither read nor written: rows of files that the other log has removed would come back, and live
    /// files of the other table could be deleted.
    #[default]
    Refuse,
    /// The data files are read as they are, without regard to the other log.
    Allow,
}

/// Options of a journal; each has a default.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{ExternalFiles, Journal, JournalOptions, TableStorage};
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let (storage, table) = (TableStorage::durable(Arc::new(InMemory::new())), Path::from("lake/orders"));
/// storage.store.put(&Path::from("lake/orders/part-0.csv"), "id\n1\n".into()).await.unwrap();
///
/// let adopting = Journal::new(storage.clone(), table.clone(), JournalOptions::default());
/// assert_eq!(adopting.observe().await?.external.len(), 1);
///
/// let options = JournalOptions::default().with_external_files(ExternalFiles::Fail);
/// let strict = Journal::new(storage, table, options);
/// assert_eq!(strict.observe().await.unwrap_err().code(), "ExternalFiles");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct JournalOptions {
    /// Whether several runs may write to the table. Default: [`WriterPolicy::Many`].
    pub writers: WriterPolicy,
    /// Handling of external files. Default: [`ExternalFiles::Adopt`].
    pub external: ExternalFiles,
    /// Handling of a diverged table. Default: [`DivergedPolicy::Fail`].
    pub diverged: DivergedPolicy,
    /// Handling of a folder with a log of Delta Lake, Iceberg, Hudi or Paimon. Default:
    /// [`OtherTableFormats::Refuse`].
    #[serde(default)]
    pub other_formats: OtherTableFormats,
    /// How long a replaced file is retained, in whole seconds, so that readers of the older version can finish.
    /// [`Journal::release`] deletes retained files afterwards. Default: zero, the commit deletes replaced files.
    ///
    /// A reader that lists the folder without the journal sees retained files together with their replacements. Set a
    /// retention only for a table that is read through Biscuit or by the file locations of a catalog.
    #[serde(default)]
    pub retention: Duration,
    /// Whether identical files may be hard links to one file on a local disk. A program that changes such a file in
    /// place changes it under all its names. Default: false; each copy is a separate file, which shares its blocks
    /// with the source where the file system supports that (reflink).
    #[serde(default)]
    pub hard_links: bool,
    /// Number of versions from one checkpoint to the next. Default: 32.
    pub checkpoint_every: u64,
    /// Number of versions before the newest checkpoint whose records are kept for the history. Default: 10,000.
    pub keep_history: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            writers: WriterPolicy::Many,
            external: ExternalFiles::Adopt,
            diverged: DivergedPolicy::Fail,
            other_formats: OtherTableFormats::Refuse,
            retention: Duration::ZERO,
            hard_links: false,
            checkpoint_every: 32,
            keep_history: 10_000,
        }
    }
}

impl JournalOptions {
    /// Sets whether several runs may write to the table. Default: [`WriterPolicy::Many`].
    pub fn with_writers(mut self, writers: WriterPolicy) -> Self {
        self.writers = writers;
        self
    }

    /// Sets the handling of external files. Default: [`ExternalFiles::Adopt`].
    pub fn with_external_files(mut self, external: ExternalFiles) -> Self {
        self.external = external;
        self
    }

    /// Sets the handling of a diverged table. Default: [`DivergedPolicy::Fail`].
    pub fn with_diverged(mut self, diverged: DivergedPolicy) -> Self {
        self.diverged = diverged;
        self
    }

    /// Sets the handling of folders with the log of another table format. Default: [`OtherTableFormats::Refuse`].
    pub fn with_other_formats(mut self, other_formats: OtherTableFormats) -> Self {
        self.other_formats = other_formats;
        self
    }

    /// Sets how long replaced files are retained, in whole seconds: see [`retention`](Self::retention). Default:
    /// zero.
    pub fn with_retention(mut self, duration: Duration) -> Self {
        self.retention = duration;
        self
    }

    /// Allows hard links of identical files to one file: see [`hard_links`](Self::hard_links). Default: each copy is a
    /// separate file.
    pub fn with_hard_links(mut self) -> Self {
        self.hard_links = true;
        self
    }

    /// Sets the number of versions from one checkpoint to the next. Minimum: 1. Default: 32.
    pub fn with_checkpoint_every(mut self, versions: u64) -> Self {
        self.checkpoint_every = versions.max(1);
        self
    }
}

/// Source of writer ids: numbers that no other execution gets.
pub trait WriterIds: fmt::Debug + Send + Sync {
    /// Returns the next number.
    fn next(&self) -> u64;
}

/// Writer ids from the random number generator of the operating system.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct RandomWriterIds;

impl WriterIds for RandomWriterIds {
    fn next(&self) -> u64 {
        getrandom::u64().expect("the operating system provides random numbers")
    }
}

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
/// let mut change = journal.replace(&observed);
/// change.stage("day=2024-02-29", "csv", "id\n1\n".into()).await?;
/// change.commit().await?;
///
/// assert_eq!(journal.head().await?.version, 1);
/// assert!(journal.observe().await?.folders().contains("day=2024-02-29"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Journal {
    pub(crate) storage: TableStorage,
    pub(crate) table: Path,
    pub(crate) state: Path,
    pub(crate) options: JournalOptions,
    pub(crate) writer_ids: Arc<dyn WriterIds>,
    pub(crate) interrupt: Arc<RunInterrupt>,
}

impl Journal {
    /// Creates the journal of the table in the folder `table`, with the [default state root](default_state_root).
    pub fn new(storage: TableStorage, table: Path, options: JournalOptions) -> Self {
        let state = default_state_root(&table);
        Self { storage, table, state, options, writer_ids: Arc::new(RandomWriterIds), interrupt: Arc::default() }
    }

    /// Sets the state root, a folder in the same store. Default: [`default_state_root`].
    #[must_use]
    pub fn with_state_root(mut self, state: Path) -> Self {
        self.state = state;
        self
    }

    /// Sets the source of writer ids, for tests that need repeatable names. Default: [`RandomWriterIds`].
    #[must_use]
    pub fn with_writer_ids(mut self, writer_ids: Arc<dyn WriterIds>) -> Self {
        self.writer_ids = writer_ids;
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
        self.options.diverged = diverged;
        self
    }

    /// Folder of the table.
    pub fn table(&self) -> &Path {
        &self.table
    }

    /// State root of the table.
    pub fn state_root(&self) -> &Path {
        &self.state
    }

    /// Store of the table and of its state root.
    pub fn storage(&self) -> &TableStorage {
        &self.storage
    }

    /// Returns the newest committed version, finished or not. Changes nothing, so readers start here.
    ///
    /// # Errors
    /// `Diverged` if a version is missing, `NewerFormat`, `OlderFormat`, `UnreadableRecord`, and errors of the store.
    pub async fn head(&self) -> Result<TableHead> {
        Ok(self.head_and_entries().await?.0)
    }

    pub(crate) async fn head_and_entries(&self) -> Result<(TableHead, head::JournalListing)> {
        let mut gap = None;
        for _ in 0..4 {
            match read_head(&self.storage.store, &self.state).await {
                // A record or mark that was listed, or that must exist by its number, is missing. Another run may
                // have written a checkpoint after the listing and deleted the records below it: a new listing shows
                // that checkpoint. If the object is lost, each attempt fails in the same way.
                Err(e) if e.is(biscuit_core::codes::NOT_FOUND) => gap = Some(e),
                other => return other,
            }
        }
        let message = format!(
            "the journal `{}` lacks a version, or a version that later ones build on is not finished; `biscuit history` lists the versions that exist",
            self.state
        );
        let e = Error::new(codes::DIVERGED, message);
        Err(match gap {
            Some(gap) => e.with_source(gap),
            None => e,
        })
    }

    /// Returns all versions whose records are in force, oldest first. A record without a done mark below the newest
    /// checkpoint is void: a sleeping run wrote it after other runs had passed its number and dropped its record.
    pub async fn history(&self) -> Result<Vec<PastVersion>> {
        let entries = list_entries(&self.storage.store, &self.state).await?;
        let store: &dyn ObjectStore = &self.storage.store;
        let done = &entries.done;
        let read = |version: u64| async move {
            let (record, at) =
                head::read_dated::<CommitRecord>(store, &JournalObjectKind::Record(version).path(&self.state)).await?;
            Ok(PastVersion { record, at, finished: done.contains(&version) })
        };
        let reads: Vec<_> = entries.in_force().map(|version| read(version).boxed()).collect();
        stream::iter(reads).buffered(16).try_collect().await
    }

    /// Returns the content of a state file after comparing it with the size and the checksum in its record.
    ///
    /// # Errors
    /// `Conflict` if a newer version has replaced the file, `Diverged` if the file is lost or damaged.
    pub async fn read_state(&self, head: &TableHead, file: &StateFile) -> Result<Bytes> {
        let path = below(&self.state, &file.path);
        let got = async { self.storage.store.get(&path).await?.bytes().await }.await;
        let bytes = match got {
            Ok(bytes) => bytes,
            Err(e) => return Err(self.explain(store_error("read", &path, e), head).await),
        };
        let sum = format!("crc32:{:08x}", crc32fast::hash(&bytes));
        if bytes.len() as u64 != file.size || sum != file.checksum {
            return Err(Error::new(codes::DIVERGED, format!("the state file `{path}` does not match its record")));
        }
        Ok(bytes)
    }

    /// Interprets an error that occurred while files of `head` were read. A missing file is a `Conflict` if there is
    /// a newer version, which has replaced the file; otherwise it is `Diverged`. Any other error is returned as it
    /// is.
    pub async fn explain(&self, error: Error, head: &TableHead) -> Error {
        if !error.is(biscuit_core::codes::NOT_FOUND) {
            return error;
        }
        match self.head().await {
            Ok(now) if now.version > head.version => conflict(head.version + 1).with_source(error),
            Ok(_) => Error::new(codes::DIVERGED, format!("a file of the table is missing: {}", error.message())),
            Err(e) => e,
        }
    }

    /// Returns a new writer id: 16 hexadecimal digits that no other execution gets.
    pub fn writer_id(&self) -> String {
        format!("{:016x}", self.writer_ids.next())
    }

    pub(crate) async fn exists(&self, path: &Path) -> Result<bool> {
        match self.storage.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(store_error("check", path, e)),
        }
    }

    /// Creates an object of the journal if it is absent. Other processes see the object complete and durable, or not
    /// at all.
    ///
    /// On a local disk a plain write would show a half-written record under its final name. So the bytes are written
    /// to the staging folder of this execution and synced, then linked to their name (which fails if the name
    /// exists), and at last the folder of that name is synced. A crash between two steps leaves only a file in
    /// staging.
    pub(crate) async fn create(
        &self,
        path: &Path,
        bytes: Bytes,
        base: u64,
        writer_id: &str,
    ) -> object_store::Result<()> {
        let TableStorage { store, durability } = &self.storage;
        if durability.is_immediate() {
            return store.put_opts(path, bytes.into(), PutMode::Create.into()).await.map(drop);
        }
        let name = path.filename().unwrap_or_default();
        let written = run_folder(&self.state, "staging", base, writer_id).join(format!("{name}.staged"));
        let unsynced = |e: Error| object_store::Error::Generic { store: "local disk", source: e.into() };
        store.put(&written, bytes.into()).await?;
        durability.sync_file(&written).await.map_err(unsynced)?;
        store.copy_opts(&written, path, CopyOptions::new().with_mode(CopyMode::Create)).await?;
        durability.sync_folder_of(path).await.map_err(unsynced)
    }

    /// Syncs the folder of `path` and all folders above it, up to and including the folder that contains `root`.
    ///
    /// A file on a local disk survives a loss of power only if its name does, and a name is content of its folder.
    /// The folders may be new, so each one above is synced too.
    pub(crate) async fn sync_folders(&self, path: &Path, root: &Path) -> Result<()> {
        let mut at = path.clone();
        while at.prefix_matches(root) {
            self.storage.durability.sync_folder_of(&at).await?;
            let mut parts: Vec<_> = at.parts().collect();
            parts.pop();
            at = Path::from_iter(parts);
        }
        Ok(())
    }
}

/// Error of a run that wanted to commit a version that another run has committed.
pub(crate) fn conflict(version: u64) -> Error {
    Error::new(biscuit_core::codes::CONFLICT, format!("another run has committed version {version}; run again"))
}

pub(crate) fn unavailable(message: String, e: object_store::Error) -> Error {
    Error::new(biscuit_core::codes::STORE_UNAVAILABLE, message).with_plain_source(e)
}

/// Waits before the next attempt: exponential backoff from 50 milliseconds.
pub(crate) async fn pause(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
}
