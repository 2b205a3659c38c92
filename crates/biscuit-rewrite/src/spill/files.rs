//! Temporary files for spilled rows, and the errors of reading and writing them.

use std::fs::File;
#[cfg(not(unix))]
use std::io::{Read, Seek, SeekFrom, Write};
use std::num::NonZero;
#[cfg(unix)]
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
#[cfg(not(unix))]
use std::sync::{Mutex, MutexGuard, PoisonError};

use biscuit_core::{Error, Result};

/// Temporary files without names, one for each core, since the operating system serialises writes to one file.
#[derive(Debug)]
pub(crate) struct SpillFiles {
    /// At most `MAX_FILES` files.
    files: Vec<SpillFile>,
    /// Number of writes so far. Writes go to the files in turn.
    next: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct SpillFile {
    #[cfg(unix)]
    file: File,
    #[cfg(not(unix))]
    file: Mutex<File>,
    /// Number of bytes that are written or reserved.
    end: AtomicU64,
}

/// Maximum number of files. More cores than this write more than a disk takes.
const MAX_FILES: usize = 8;

impl SpillFiles {
    /// Creates the files.
    ///
    /// # Errors
    /// `SpillFailed` if the temporary folder does not exist or cannot be written.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let files = (0..cores.min(MAX_FILES)).map(|_| SpillFile::new()).collect::<Result<_>>()?;
        Ok(Arc::new(Self { files, next: AtomicUsize::new(0) }))
    }

    /// Reserves `bytes` bytes, and returns the number of the file and the offset in it.
    pub(crate) fn reserve(&self, bytes: u64) -> (usize, u64) {
        let file = self.next.fetch_add(1, Ordering::Relaxed) % self.files.len();
        (file, self.files[file].end.fetch_add(bytes, Ordering::Relaxed))
    }

    pub(crate) fn file(&self, number: usize) -> &SpillFile {
        &self.files[number]
    }
}

impl SpillFile {
    fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(spill_error)?;
        #[cfg(not(unix))]
        let file = Mutex::new(file);
        Ok(Self { file, end: AtomicU64::new(0) })
    }

    #[cfg(unix)]
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(spill_error)
    }

    #[cfg(unix)]
    pub(crate) fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(bytes, at).map_err(spill_error)
    }

    #[cfg(not(unix))]
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.seek(at)?.write_all(bytes).map_err(spill_error)
    }

    #[cfg(not(unix))]
    pub(crate) fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.seek(at)?.read_exact(bytes).map_err(spill_error)
    }

    #[cfg(not(unix))]
    fn seek(&self, at: u64) -> Result<MutexGuard<'_, File>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at)).map_err(spill_error)?;
        Ok(file)
    }
}

pub(crate) fn spill_error(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    // Only errors of the operating system are quoted. Others, such as Arrow errors, may contain values of rows.
    let any: &(dyn std::error::Error + 'static) = &e;
    let disk = any.downcast_ref::<std::io::Error>().map_or(String::new(), |e| format!(": {e}"));
    let message = format!(
        "rows cannot be spilled to temporary files{disk}; check space and permissions of the temporary folder (`TMPDIR`)"
    );
    Error::new(biscuit_dataset::codes::SPILL_FAILED, message).with_source(e)
}

/// Error for a temporary file with other content than this process wrote.
pub(crate) fn damaged_spill() -> Error {
    let message = "a temporary file does not contain the rows that were spilled to it; check the disk and run again";
    Error::new(biscuit_dataset::codes::SPILL_FAILED, message)
}
