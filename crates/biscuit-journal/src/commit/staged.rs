//! Staged files and their writer: one upload below the state root, with its size, checksum and durability.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use bytes::Bytes;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;

use crate::log::record::PublishedFile;
use crate::{TableStorage, codes, store_error};

/// Exclusive maximum size of a staged file: 5 GiB, the limit of one server-side copy on S3 (CopyObject).
pub(crate) const MAX_STAGED: u64 = 5 * 1024 * 1024 * 1024;

/// Size of a part of an upload in bytes. S3 takes at most 10,000 parts, which together exceed [`MAX_STAGED`].
const PART: usize = 8 * 1024 * 1024;
/// Maximum number of parts of one file that are uploaded at the same time. Each is in memory.
const PARTS_IN_FLIGHT: usize = 2;

/// A staged file. It is durable; the commit compares its size in the store.
#[derive(Debug, Clone)]
pub struct StagedFile {
    pub(crate) entry: PublishedFile,
    pub(crate) object: Path,
}

impl StagedFile {
    /// Final path, relative to the table.
    pub fn path(&self) -> &str {
        &self.entry.path
    }

    /// Staged path, from the root of the store. A check of the file format opens this object, or uses
    /// [`TableCommit::read_back`](crate::TableCommit::read_back).
    pub fn object(&self) -> &Path {
        &self.object
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// Entry of the file in the commit record.
    pub fn entry(&self) -> &PublishedFile {
        &self.entry
    }

    /// Sets the number of rows, for formats that have rows. Default: none.
    #[must_use]
    pub fn with_rows(mut self, rows: u64) -> Self {
        self.entry.rows = Some(rows);
        self
    }
}

/// Writer of one staged file. Uploads in parts of 8 MiB, at most two of them at a time.
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
    /// `FileTooLarge` if the file would have 5 GiB or more, and errors of the store.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.sum.update(&bytes);
        self.entry.size += bytes.len() as u64;
        if self.entry.size >= MAX_STAGED {
            return Err(Error::new(codes::FILE_TOO_LARGE, format!("`{}` would have 5 GiB or more", self.entry.path)));
        }
        self.out.put(bytes).await.map_err(|e| store_error("write", &self.object, e))
    }

    /// Number of bytes written so far.
    pub fn written(&self) -> u64 {
        self.entry.size
    }

    /// Closes the file and makes it durable. The commit compares its size in the store with the number of bytes
    /// written.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn finish(mut self) -> Result<StagedFile> {
        self.out.shutdown().await.map_err(|e| match e.downcast::<object_store::Error>() {
            Ok(e) => store_error("write", &self.object, e),
            Err(e) => Error::new(biscuit_core::codes::STORE_UNAVAILABLE, format!("cannot write `{}`", self.object))
                .with_plain_source(e),
        })?;
        self.storage.durability.sync_file(&self.object).await?;
        self.entry.checksum = format!("crc32:{:08x}", self.sum.finalize());
        Ok(StagedFile { entry: self.entry, object: self.object })
    }
}

/// Interprets a failure to use a staged file. If the file does not exist, another run has committed on the same base
/// and cleaned up: this run has lost.
pub(crate) fn staged_error(verb: &str, path: &Path, e: object_store::Error) -> Error {
    match e {
        object_store::Error::NotFound { .. } => staged_gone(&format!("the staged file `{path}`")).with_plain_source(e),
        e => store_error(verb, path, e),
    }
}

/// Error of a run whose staged file does not exist any more.
pub(crate) fn staged_gone(file: &str) -> Error {
    let message = format!("{file} was deleted because another run has committed; run again");
    Error::new(biscuit_core::codes::CONFLICT, message)
}
