//! Files that were opened to learn the columns of a table, for the run that reads them next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::files::data_file::{DataFile, OpenFile};

/// Open files of the last version whose columns were read from its files. The next opening of files takes them out, so
/// that they are not in memory for longer. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenedBefore(Arc<Mutex<HashMap<String, OpenFile>>>);

impl OpenedBefore {
    /// Keeps open files.
    pub(crate) fn keep(&self, files: Vec<OpenFile>) {
        let files = files.into_iter().map(|file| (file.path().to_owned(), file)).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Takes all files out.
    pub(crate) fn take(&self) -> KnownFiles {
        KnownFiles(std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Open files by path.
pub(crate) struct KnownFiles(HashMap<String, OpenFile>);

impl KnownFiles {
    /// Returns a file if it is open already, and was the same when it was listed.
    pub(crate) fn find(&mut self, file: &DataFile) -> Option<OpenFile> {
        let known = self.0.remove(file.path())?;
        // Without an ETag, a file of the same size may be another one.
        let same = known.file.listed == file.listed && file.listed.etag.is_some();
        same.then(|| known.known_as(file.clone()))
    }
}
