use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use biscuit_core::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::{CopyOptions, ObjectStore, ObjectStoreExt};

use crate::commit::staged::{MAX_STAGED, staged_error};
use crate::log::layout::{below, data_name};
use crate::log::record::{FileRef, PublishedFile};
use crate::{StagedFile, StagedWriter, TableStorage, store_error};

/// Makes writers for the staging of one change.
#[derive(Debug, Clone)]
pub struct FileStager {
    pub(crate) storage: TableStorage,
    pub(crate) table: Path,
    pub(crate) state: Path,
    pub(crate) hard_links: bool,
    pub(crate) base: u64,
    pub(crate) writer_id: String,
    pub(crate) files: Arc<AtomicU32>,
}

impl FileStager {
    /// A writer for a new file in `folder` (relative to the table, empty for its root), its name ending in `.ending`.
    pub fn writer(&self, folder: &str, ending: &str) -> StagedWriter {
        let (path, staged) = self.names(folder, ending);
        StagedWriter::new(&self.storage, below(&self.state, &staged), path, staged)
    }

    /// A file that one of these writers has staged, by what the record is to say of it: it may come from another process.
    pub fn staged(&self, entry: PublishedFile) -> StagedFile {
        StagedFile { object: below(&self.state, &entry.staged), entry }
    }

    /// Stages a copy of a file of the table, for `folder`, without reading it: by the store itself, and on a local disk by a file
    /// of its own whose blocks are shared where the file system can, or by a further name of the same one where the journal's
    /// options allow that. `rows` and `content` are what the head says of the file.
    ///
    /// # Errors
    /// `Conflict` if the file is not the observed one any more, `FileTooLarge` from 5 GiB on, and those of the store.
    pub async fn copy(&self, source: &FileRef, folder: &str, rows: Option<u64>, content: &str) -> Result<StagedFile> {
        let from = below(&self.table, &source.path);
        let mut copy = self.copied(&from, source.size, &source.path, folder).await?;
        let found = self.storage.store.head(&from).await.map_err(|e| store_error("look at", &from, e))?;
        if found.size != source.size || (source.etag.is_some() && found.e_tag != source.etag) {
            let message = format!("`{}` was changed by somebody else while it was copied; run again", source.path);
            return Err(Error::conflict("Conflict", message));
        }
        copy.entry.rows = rows;
        copy.entry.content = Some(content.to_owned());
        Ok(copy)
    }

    /// Stages the content of a staged file once more, for `folder`.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub async fn again(&self, staged: &PublishedFile, folder: &str) -> Result<StagedFile> {
        let from = below(&self.state, &staged.staged);
        let mut copy = self.copied(&from, staged.size, &staged.path, folder).await?;
        let content = staged.content.clone().unwrap_or_else(|| staged.path.clone());
        (copy.entry.checksum, copy.entry.rows) = (staged.checksum.clone(), staged.rows);
        copy.entry.content = Some(content);
        Ok(copy)
    }

    async fn copied(&self, from: &Path, size: u64, name: &str, folder: &str) -> Result<StagedFile> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let (path, staged) = self.names(folder, name.split_once('.').map_or("", |(_, ending)| ending));
        if size >= MAX_STAGED {
            return Err(Error::usage("FileTooLarge", format!("`{from}` has 5 GiB or more and cannot be copied")));
        }
        let to = below(&self.state, &staged);
        let own = if self.hard_links { None } else { self.storage.durability.copy(from, &to).await };
        let copied = match own {
            Some(copied) => copied,
            None => self.storage.store.copy_opts(from, &to, CopyOptions::new()).await,
        };
        copied.map_err(|e| match e {
            object_store::Error::NotFound { .. } => {
                let message = format!("`{from}` is gone, since another run has committed; run again");
                Error::conflict("Conflict", message).with_plain_source(e)
            }
            e => store_error("copy", from, e),
        })?;
        self.storage.durability.sync_file(&to).await?;
        let found = self.storage.store.head(&to).await.map_err(|e| staged_error("check", &to, e))?;
        if found.size != size {
            let message = format!("the copy of `{from}` has {} bytes instead of {size}; run again", found.size);
            return Err(Error::new(ErrorKind::Unavailable, "TornWrite", message));
        }
        let entry = PublishedFile { path, staged, size, checksum: String::new(), rows: None, content: None };
        Ok(StagedFile { object: to, entry })
    }

    /// A new name in `folder`, and the staged one.
    fn names(&self, folder: &str, ending: &str) -> (String, String) {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let name = data_name(&self.writer_id, number, ending);
        // Staged names must not look like data to a reader that finds them: the ending is not the last part.
        let staged = format!("staging/{}-{}/{name}.staged", self.base, self.writer_id);
        (if folder.is_empty() { name } else { format!("{folder}/{name}") }, staged)
    }

    /// Where files are staged.
    pub fn storage(&self) -> &TableStorage {
        &self.storage
    }
}
