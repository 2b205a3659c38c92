use std::sync::Arc;

use biscuit_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;

use crate::log::record::PublishedFile;
use crate::{TableStorage, store_error};

/// Staged files stay below what one server-side copy can move.
pub(crate) const MAX_STAGED: u64 = 5 * 1024 * 1024 * 1024;

/// Bytes of a part of an upload: 10,000 of them, the most that S3 takes, make more than a staged file may have.
const PART: usize = 8 * 1024 * 1024;
/// Parts of one file that are on their way at once, each of which is in memory.
const PARTS_IN_FLIGHT: usize = 2;

/// A file that was staged, is durable, and has the size that was written.
#[derive(Debug, Clone)]
pub struct StagedFile {
    pub(crate) entry: PublishedFile,
    pub(crate) object: Path,
}

impl StagedFile {
    /// Where it will be, relative to the table.
    pub fn path(&self) -> &str {
        &self.entry.path
    }

    /// Where it is now, from the root of the store: what a check of the format opens, unless
    /// [`Replace::read_back`](crate::Replace::read_back) is enough for it.
    pub fn object(&self) -> &Path {
        &self.object
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// What the record says of it.
    pub fn entry(&self) -> &PublishedFile {
        &self.entry
    }

    /// The same file with its number of rows, for formats that have rows.
    pub fn with_rows(mut self, rows: u64) -> Self {
        self.entry.rows = Some(rows);
        self
    }
}

/// Writes one file to the staging folder, a part at a time.
#[derive(Debug)]
pub struct StagedWriter {
    storage: TableStorage,
    entry: PublishedFile,
    object: Path,
    out: BufWriter,
    sum: crc32fast::Hasher,
}

impl StagedWriter {
    pub(crate) fn new(storage: &TableStorage, object: Path, path: String, staged: String) -> Self {
        Self {
            storage: storage.clone(),
            entry: PublishedFile { path, staged, size: 0, checksum: String::new(), rows: None, content: None },
            out: BufWriter::with_capacity(Arc::clone(&storage.store), object.clone(), PART)
                .with_max_concurrency(PARTS_IN_FLIGHT),
            object,
            sum: crc32fast::Hasher::new(),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `FileTooLarge` past 5 GiB, and those of the store.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.sum.update(&bytes);
        self.entry.size += bytes.len() as u64;
        if self.entry.size >= MAX_STAGED {
            return Err(Error::usage("FileTooLarge", format!("`{}` would be 5 GiB or more", self.entry.path)));
        }
        self.out.put(bytes).await.map_err(|e| store_error("write", &self.object, e))
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.entry.size
    }

    /// Closes the file, makes it durable, and looks at it again.
    ///
    /// # Errors
    /// `Conflict` if the file is gone again, `TornWrite` if the store holds another size than was written, and those of the store.
    pub async fn finish(mut self) -> Result<StagedFile> {
        self.out.shutdown().await.map_err(|e| match e.downcast::<object_store::Error>() {
            Ok(e) => store_error("write", &self.object, e),
            Err(e) => Error::new(ErrorKind::Unavailable, "StoreUnavailable", format!("cannot write `{}`", self.object))
                .with_plain_source(e),
        })?;
        self.storage.durability.sync_file(&self.object).await?;
        let found = self.storage.store.head(&self.object).await.map_err(|e| staged_error("check", &self.object, e))?;
        if found.size != self.entry.size {
            let (object, wrote, holds) = (&self.object, self.entry.size, found.size);
            return Err(Error::new(
                ErrorKind::Unavailable,
                "TornWrite",
                format!("`{object}` has {holds} bytes where {wrote} were written; run again"),
            ));
        }
        self.entry.checksum = format!("crc32:{:08x}", self.sum.finalize());
        Ok(StagedFile { entry: self.entry, object: self.object })
    }
}

/// What it means that a staged file cannot be used: if it is gone, another run has committed and cleaned up.
pub(crate) fn staged_error(verb: &str, path: &Path, e: object_store::Error) -> Error {
    match e {
        object_store::Error::NotFound { .. } => {
            let message = format!("the staged file `{path}` is gone, since another run has committed; run again");
            Error::conflict("Conflict", message).with_plain_source(e)
        }
        e => store_error(verb, path, e),
    }
}
