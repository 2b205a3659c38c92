use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use biscuit_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use crate::commit::interrupt::RunInterrupt;
use crate::commit::publish::{self, PublishOutcome};
use crate::log::head::{self, TableHead, list_entries, read_head};
use crate::log::layout::{JournalObjectKind, below, run_folder};
use crate::log::record::{CommitRecord, PastVersion, StateFile};
use crate::{TableStorage, default_state_root, store_error};

/// Whether others may write to the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriterPolicy {
    /// There may be others: the store has to show that put-if-absent has one winner.
    #[default]
    Many,
    /// There is one writer, by the word of the caller: stores that ignore put-if-absent are accepted.
    One,
}

/// What to do with files in the table's folder that somebody else wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalFiles {
    /// They are part of the table; the next commit adopts them.
    #[default]
    Adopt,
    /// They stop the run.
    Fail,
    /// They are not read and stay where they are.
    Ignore,
}

/// What to do with a table that is not what its journal says: a live file is missing or changed, Biscuit files have no
/// journal, or staged files were lost after their commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DivergedPolicy {
    /// It stops the run.
    #[default]
    Fail,
    /// What is there is the table, and the next commit says so.
    Adopt,
}

/// What to do with a folder that another table format has a log for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherTableFormats {
    /// It is neither read nor written: files that its log has removed would be rows again, and live ones could be deleted.
    #[default]
    Refuse,
    /// Its data files are taken as they are.
    Allow,
}

/// Choices of a journal that have a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournalOptions {
    /// Whether others may write. Default: many.
    pub writers: WriterPolicy,
    /// What to do with external files. Default: adopt.
    pub external: ExternalFiles,
    /// What to do with a table that is not what its journal says. Default: stop.
    pub diverged: DivergedPolicy,
    /// What to do with a folder of Delta Lake, Iceberg, Hudi or Paimon. Default: refuse.
    #[serde(default)]
    pub other_formats: OtherTableFormats,
    /// How long files stay in the folder after they were replaced, in whole seconds, for readers that took longer to open them;
    /// [`release`](Journal::release) deletes them then. A reader that lists the folder by itself sees them beside those that
    /// replaced them: only for tables that are read through Biscuit or by the locations of a catalog. Default: not at all.
    #[serde(default)]
    pub retention: Duration,
    /// Whether files that are alike may be one file on a local disk, with several names: what changes it in place under one name
    /// changes it under all of them. Default: no, each is a file of its own, whose blocks are shared where the file system can.
    #[serde(default)]
    pub hard_links: bool,
    /// A checkpoint every so many versions. Default: 32.
    pub checkpoint_every: u64,
    /// Records kept below the newest checkpoint, for the history. Default: 10,000.
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
    /// The same options with another choice of writers.
    pub fn with_writers(mut self, writers: WriterPolicy) -> Self {
        self.writers = writers;
        self
    }

    /// The same options with another choice for external files.
    pub fn with_external_files(mut self, external: ExternalFiles) -> Self {
        self.external = external;
        self
    }

    /// The same options with another choice for a table that is not what its journal says.
    pub fn with_diverged(mut self, diverged: DivergedPolicy) -> Self {
        self.diverged = diverged;
        self
    }

    /// The same options with another choice for folders of other table formats.
    pub fn with_other_formats(mut self, other_formats: OtherTableFormats) -> Self {
        self.other_formats = other_formats;
        self
    }

    /// The same options; replaced files stay in the folder for so long.
    pub fn with_retention(mut self, duration: Duration) -> Self {
        self.retention = duration;
        self
    }

    /// The same options; files that are alike may be one file with several names.
    pub fn with_hard_links(mut self, hard_links: bool) -> Self {
        self.hard_links = hard_links;
        self
    }

    /// The same options with a checkpoint every `versions` versions (at least 1).
    pub fn with_checkpoint_every(mut self, versions: u64) -> Self {
        self.checkpoint_every = versions.max(1);
        self
    }
}

/// Where nonces come from: numbers that no other execution draws.
pub trait WriterIds: fmt::Debug + Send + Sync {
    /// The next nonce.
    fn next(&self) -> u64;
}

/// Nonces from the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomWriterIds;

impl WriterIds for RandomWriterIds {
    fn next(&self) -> u64 {
        getrandom::u64().expect("the operating system gives random numbers")
    }
}

/// What a recovery did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    /// The version that was committed and is finished now.
    pub rolled_forward: Option<u64>,
    /// The version of the fence, if one was asked for.
    pub fence: Option<u64>,
    /// Objects of dead runs that were deleted from the state root.
    pub cleaned: u64,
}

/// The journal of one table: a folder of files and its state root, in one store.
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
    /// The journal of the table in the folder `table`, with its state root in the default place.
    pub fn new(storage: TableStorage, table: Path, options: JournalOptions) -> Self {
        let state = default_state_root(&table);
        Self { storage, table, state, options, writer_ids: Arc::new(RandomWriterIds), interrupt: Arc::default() }
    }

    /// The same journal with another state root in the same store.
    pub fn with_state_root(mut self, state: Path) -> Self {
        self.state = state;
        self
    }

    /// The same journal with other nonces, as tests need them.
    pub fn with_writer_ids(mut self, writer_ids: Arc<dyn WriterIds>) -> Self {
        self.writer_ids = writer_ids;
        self
    }

    /// The same journal; its commits can be stopped by this.
    pub fn with_interrupt(mut self, interrupt: Arc<RunInterrupt>) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// The same journal with another choice for a table that is not what its journal says.
    pub fn with_diverged(mut self, diverged: DivergedPolicy) -> Self {
        self.options.diverged = diverged;
        self
    }

    /// The folder of the table.
    pub fn table(&self) -> &Path {
        &self.table
    }

    /// The state root.
    pub fn state_root(&self) -> &Path {
        &self.state
    }

    /// The store of both.
    pub fn storage(&self) -> &TableStorage {
        &self.storage
    }

    /// The newest committed version, finished or not. Changes nothing: this is what readers start from.
    ///
    /// # Errors
    /// `DivergedPolicy` if a version is missing, `NewerFormat`, `UnreadableRecord`, and those of the store.
    pub async fn head(&self) -> Result<TableHead> {
        Ok(self.head_and_entries().await?.0)
    }

    pub(crate) async fn head_and_entries(&self) -> Result<(TableHead, head::JournalListing)> {
        let mut gap = None;
        for _ in 0..4 {
            match read_head(&self.storage.store, &self.state).await {
                // A record that is not there any more was dropped below a new checkpoint: list again.
                Err(e) if e.code() == "NotFound" => gap = Some(e),
                other => return other,
            }
        }
        let message = format!(
            "the journal `{}` misses a version, or did not finish one that others went on from; `biscuit history` shows those that are there",
            self.state
        );
        let e = Error::data("Diverged", message);
        Err(match gap {
            Some(gap) => e.with_source(gap),
            None => e,
        })
    }

    /// The newest version, after finishing it if a run did not come to that.
    ///
    /// # Errors
    /// As [`head`](Self::head), and `LostStaging` where a staged file is nowhere to be found.
    pub async fn finished_head(&self) -> Result<TableHead> {
        Ok(self.roll_forward().await?.0)
    }

    async fn roll_forward(&self) -> Result<(TableHead, Option<u64>)> {
        let mut rolled = None;
        for _ in 0..8 {
            let (head, _) = self.head_and_entries().await?;
            let Some(record) = &head.unfinished else { return Ok((head, rolled)) };
            tracing::info!(version = record.version, "rolling an unfinished version forward");
            if let PublishOutcome::Finished(_) = publish::complete(self, record).await? {
                rolled = Some(record.version);
            }
        }
        Err(Error::conflict("Conflict", format!("other runs keep changing `{}`; run again", self.table)))
    }

    /// Finishes an unfinished version and deletes what dead runs left in the state root. Safe to run at any time.
    pub async fn recover(&self) -> Result<RecoveryReport> {
        let (head, rolled_forward) = self.roll_forward().await?;
        let cleaned = publish::clean(self, &head).await? + publish::clean_probes(self, &head).await?;
        Ok(RecoveryReport { rolled_forward, fence: None, cleaned })
    }

    /// As [`recover`](Self::recover), and an empty version first, so that what a dead run staged on top of the newest
    /// version can be deleted too. A run that is alive ends with `Conflict` and has to run again.
    pub async fn recover_with_fence(&self) -> Result<RecoveryReport> {
        let (_, rolled_forward) = self.roll_forward().await?;
        let observed = self.observe().await?;
        let (fence, cleaned) = self.replace(&observed).fence().await?;
        Ok(RecoveryReport { rolled_forward, fence: Some(fence), cleaned })
    }

    /// All versions whose records are in force, oldest first. A record without a mark below the newest checkpoint is void: a run put it there that
    /// others had gone on without.
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

    /// The content of a state file, checked against what its record says.
    ///
    /// # Errors
    /// `Conflict` if a newer version has replaced it meanwhile, `DivergedPolicy` if it is lost or is not what was written.
    pub async fn read_state(&self, head: &TableHead, file: &StateFile) -> Result<Bytes> {
        let path = below(&self.state, &file.path);
        let got = async { self.storage.store.get(&path).await?.bytes().await }.await;
        let bytes = match got {
            Ok(bytes) => bytes,
            Err(e) => return Err(self.explain(store_error("read", &path, e), head).await),
        };
        let sum = format!("crc32:{:08x}", crc32fast::hash(&bytes));
        if bytes.len() as u64 != file.size || sum != file.checksum {
            return Err(Error::data("Diverged", format!("the state file `{path}` is not the one that was written")));
        }
        Ok(bytes)
    }

    /// What an error means that came up while the files of `head` were read: where something is not there and a newer
    /// version is, it is `Conflict`; where there is no newer version, `DivergedPolicy`; any other error stays what it is.
    pub async fn explain(&self, error: Error, head: &TableHead) -> Error {
        if error.code() != "NotFound" {
            return error;
        }
        match self.head().await {
            Ok(now) if now.version > head.version => conflict(head.version + 1).with_source(error),
            Ok(_) => Error::data("Diverged", format!("a file of the table is gone: {}", error.message())),
            Err(e) => e,
        }
    }

    /// A name of 16 hexadecimal digits that no other execution draws.
    pub fn writer_id(&self) -> String {
        format!("{:016x}", self.writer_ids.next())
    }

    pub(crate) async fn exists(&self, path: &Path) -> Result<bool> {
        match self.storage.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(store_error("look at", path, e)),
        }
    }

    /// Creates an object if it is absent, whole and durable or not at all: on a local disk it is written and synced in the
    /// folder of this execution, and linked from there.
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

    /// Syncs the folder of `path` and all above it up to and including the one that holds `root`.
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

/// Another run has committed this version.
pub(crate) fn conflict(version: u64) -> Error {
    Error::conflict("Conflict", format!("another run has committed version {version}; run again"))
}

pub(crate) fn unavailable(message: String, e: object_store::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "StoreUnavailable", message).with_plain_source(e)
}

pub(crate) async fn pause(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
}
