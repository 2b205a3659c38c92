//! The stager of one change: names, writers and copies of staged files, for use by several tasks.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use biscuit_core::{Error, ObjectRef, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{CopyOptions, ObjectStore, ObjectStoreExt};

use crate::commit::staged::StagedWriter;
use crate::commit::staged::{MAX_STAGED, staged_error};
use crate::log::layout::{data_name, path_below};
use crate::log::record::PublishedFile;
use crate::{StagedFile, TableStorage, codes, store_error};

/// Stages files of one change: creates writers and copies. A clone can be given to each task that writes files.
#[derive(Debug, Clone)]
pub struct FileStager {
    pub(crate) storage: TableStorage,
    pub(crate) table: Path,
    pub(crate) state: Path,
    pub(crate) hard_links: bool,
    pub(crate) base: u64,
    pub(crate) writer_id: String,
    /// Number of the next file. All clones share it, since the number makes names unique within an execution.
    pub(crate) files: Arc<AtomicU32>,
    pub(crate) checks: DeferredChecks,
}

/// Checks of staged files that the commit carries out. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct DeferredChecks(Arc<Mutex<Vec<BoxFuture<'static, Result<()>>>>>);

impl fmt::Debug for DeferredChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredChecks").finish_non_exhaustive()
    }
}

impl DeferredChecks {
    /// Takes all checks out.
    pub(crate) fn take(&self) -> Vec<BoxFuture<'static, Result<()>>> {
        std::mem::take(&mut *self.0.lock().expect("no holder of this lock panics"))
    }
}

impl FileStager {
    /// Returns a writer for a new file in `folder` (relative to the table, empty for the folder of the table itself),
    /// whose name ends in `.ending`.
    pub fn writer(&self, folder: &str, ending: &str) -> StagedWriter {
        let (path, staged) = self.new_names(folder, ending);
        StagedWriter::new(&self.storage, path_below(&self.state, &staged), path, staged)
    }

    /// Adds a check of a staged file, which the commit carries out before its record may exist, side by side with its
    /// other checks. An error of the check is the error of the commit.
    pub fn check_before_commit(&self, check: impl Future<Output = Result<()>> + Send + 'static) {
        self.checks.0.lock().expect("no holder of this lock panics").push(check.boxed());
    }

    /// Returns a staged file from its entry, for example from an entry that another process of the run has sent. The
    /// commit knows only the checks of its own stagers.
    pub fn staged(&self, entry: PublishedFile) -> StagedFile {
        StagedFile { object: path_below(&self.state, &entry.staged), entry }
    }

    /// Stages a copy of a file of the table, to be published in `folder`. The store makes the copy, so its bytes do
    /// not pass through this process. On a local disk the copy is a separate file that shares its blocks where the
    /// file system supports that, or a hard link if [`hard_links`](crate::JournalOptions::hard_links) is set. `rows`
    /// and `content` are the values of the source in the head.
    ///
    /// # Errors
    /// `Conflict` if the source has changed since it was observed or was deleted, `FileTooLarge` if it has 5 GiB or
    /// more, and errors of the store.
    pub async fn copy_file(
        &self,
        source: &ObjectRef,
        folder: &str,
        rows: Option<u64>,
        content: &str,
    ) -> Result<StagedFile> {
        let from = path_below(&self.table, &source.path);
        let mut copy = self.copy_object(&from, source.size, &source.path, folder).await?;
        // The source is checked after the copy: if it is the observed file now, the copy was made of that file.
        let found = self.storage.store.head(&from).await.map_err(|e| store_error("check", &from, e))?;
        if found.size != source.size || (source.etag.is_some() && found.e_tag != source.etag) {
            let message = format!("`{}` was changed by another program while it was copied; run again", source.path);
            return Err(Error::new(biscuit_core::codes::CONFLICT, message));
        }
        copy.entry.rows = rows;
        copy.entry.content = Some(content.to_owned());
        Ok(copy)
    }

    /// Stages a copy of a staged file, to be published in `folder`.
    ///
    /// # Errors
    /// Those of [`copy_file`](Self::copy_file).
    pub async fn copy_staged(&self, staged: &PublishedFile, folder: &str) -> Result<StagedFile> {
        let from = path_below(&self.state, &staged.staged);
        let mut copy = self.copy_object(&from, staged.size, &staged.path, folder).await?;
        let content = staged.content.clone().unwrap_or_else(|| staged.path.clone());
        (copy.entry.checksum, copy.entry.rows) = (staged.checksum.clone(), staged.rows);
        copy.entry.content = Some(content);
        Ok(copy)
    }

    /// Copies an object to a new staged name, makes it durable and compares its size.
    async fn copy_object(&self, from: &Path, size: u64, name: &str, folder: &str) -> Result<StagedFile> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let (path, staged) = self.new_names(folder, name.split_once('.').map_or("", |(_, ending)| ending));
        if size >= MAX_STAGED {
            return Err(Error::new(codes::FILE_TOO_LARGE, format!("`{from}` has 5 GiB or more and cannot be copied")));
        }
        let to = path_below(&self.state, &staged);
        // On a local disk the copy of object_store is a hard link, so a separate file needs a copy of its own.
        let own = if self.hard_links { None } else { self.storage.durability.copy(from, &to).await };
        let copied = match own {
            Some(copied) => copied,
            None => self.storage.store.copy_opts(from, &to, CopyOptions::new()).await,
        };
        copied.map_err(|e| match e {
            object_store::Error::NotFound { .. } => {
                let message = format!("`{from}` was deleted because another run has committed; run again");
                Error::new(biscuit_core::codes::CONFLICT, message).with_plain_source(e)
            }
            e => store_error("copy", from, e),
        })?;
        self.storage.durability.sync_file(&to).await?;
        let found = self.storage.store.head(&to).await.map_err(|e| staged_error("check", &to, e))?;
        if found.size != size {
            let message = format!("the copy of `{from}` has {} bytes, but should have {size}; run again", found.size);
            return Err(Error::new(codes::TORN_WRITE, message));
        }
        let entry = PublishedFile { path, staged, size, checksum: String::new(), rows: None, content: None };
        Ok(StagedFile { object: to, entry })
    }

    /// Returns a new final path in `folder` and the staged path for it.
    fn new_names(&self, folder: &str, ending: &str) -> (String, String) {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let name = data_name(&self.writer_id, number, ending);
        // A staged name must not look like data to a program that finds it, so it does not end in `.parquet`.
        let staged = format!("staging/{}-{}/{name}.staged", self.base, self.writer_id);
        (if folder.is_empty() { name } else { format!("{folder}/{name}") }, staged)
    }

    /// Store in which files are staged.
    pub fn storage(&self) -> &TableStorage {
        &self.storage
    }
}
