//! The store of a journal: where the objects of a table are, and the reads and writes that commits, recovery and
//! observation share.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectStore, ObjectStoreExt, PutMode};

use crate::log::head::{self, TableHead, list_entries, read_head};
use crate::log::layout::{JournalObjectKind, default_state_root, path_below, run_folder};
use crate::log::record::{CommitRecord, PastVersion, StateFile};
use crate::log::writer_ids::{RandomWriterIds, WriterIds};
use crate::options::JournalOptions;
use crate::store::storage::TableStorage;
use crate::{codes, store_error};

/// The folder of a table and its state root in their store, and the options of the journal.
#[derive(Debug, Clone)]
pub(crate) struct JournalStore {
    pub(crate) storage: TableStorage,
    pub(crate) table: Path,
    pub(crate) state: Path,
    pub(crate) options: JournalOptions,
    pub(crate) writer_ids: Arc<dyn WriterIds>,
}

impl JournalStore {
    /// Creates the store of the table in the folder `table`, with the default state root.
    pub(crate) fn new(storage: TableStorage, table: Path, options: JournalOptions) -> Self {
        let state = default_state_root(&table);
        Self { storage, table, state, options, writer_ids: Arc::new(RandomWriterIds) }
    }

    /// Returns the newest committed version, finished or not.
    pub(crate) async fn head(&self) -> Result<TableHead> {
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
    pub(crate) async fn history(&self) -> Result<Vec<PastVersion>> {
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
    pub(crate) async fn read_state(&self, head: &TableHead, file: &StateFile) -> Result<Bytes> {
        let path = path_below(&self.state, &file.path);
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

    /// Interprets an error that occurred while files of `head` were read.
    pub(crate) async fn explain(&self, error: Error, head: &TableHead) -> Error {
        if !error.is(biscuit_core::codes::NOT_FOUND) {
            return error;
        }
        match self.head().await {
            Ok(now) if now.version > head.version => conflict_error(head.version + 1).with_source(error),
            Ok(_) => Error::new(codes::DIVERGED, format!("a file of the table is missing: {}", error.message())),
            Err(e) => e,
        }
    }

    /// Refuses a head whose version is not finished.
    pub(crate) fn check_finished(&self, head: &TableHead) -> Result<()> {
        if head.is_finished() {
            return Ok(());
        }
        let message = format!(
            "version {} of `{}` is committed but not finished; if its run is dead, `biscuit recover` finishes it",
            head.version, self.table
        );
        Err(Error::new(codes::UNFINISHED, message))
    }

    /// Returns the error of a call that other runs have made fail again and again.
    pub(crate) fn busy(&self) -> Error {
        Error::new(biscuit_core::codes::CONFLICT, format!("other runs keep changing `{}`; run again", self.table))
    }

    /// Returns a new writer id.
    pub(crate) fn writer_id(&self) -> String {
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
pub(crate) fn conflict_error(version: u64) -> Error {
    Error::new(biscuit_core::codes::CONFLICT, format!("another run has committed version {version}; run again"))
}
