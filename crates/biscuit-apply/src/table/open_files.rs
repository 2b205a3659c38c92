//! The files of the table that a run has opened.

use std::sync::Arc;

use biscuit_dataset::OpenFile;

/// Opened files of the table version that is merged into. Files of a table with periods are opened period by period,
/// so that the list grows during a run.
#[derive(Default)]
pub(crate) struct OpenFiles {
    pub(crate) files: Vec<OpenFile>,
    /// For each file, the first row of each row group, and as last entry the number of rows.
    pub(crate) starts: Vec<Vec<u64>>,
    /// Content of each file of a table with periods; otherwise empty. Files with equal content, such as copies of a
    /// file in several periods, have equal text here.
    pub(crate) contents: Vec<Arc<str>>,
}

impl OpenFiles {
    /// Creates the list of the files of a table without periods.
    pub(crate) fn without_periods(files: Vec<OpenFile>) -> Self {
        Self { starts: files.iter().map(OpenFile::group_starts).collect(), files, contents: vec![] }
    }

    /// Adds a file of a period.
    pub(crate) fn add_file(&mut self, file: OpenFile, content: Arc<str>) {
        self.starts.push(file.group_starts());
        self.files.push(file);
        self.contents.push(content);
    }
}

/// Returns the folder of a path; empty for a path without folder.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
