//! Partitioned writes in bounded memory.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::Result;
use biscuit_journal::{FileStager, StagedFile, TableCommit};
use datafusion::arrow::array::RecordBatch;

use crate::files::writer::{FileWriter, ParquetOptions};
use crate::paths::spelling::FolderSpelling;
use crate::rows::partition_folders;

/// Number or size of the files of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileSizing {
    /// Number of files in every partition, filled evenly. There are fewer files if there are fewer rows.
    Files(usize),
    /// Target size of a file, in bytes.
    TargetSize(u64),
}

/// Options of a write.
///
/// ```
/// use biscuit_dataset::{Dataset, FileSizing, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sales = Dataset::new(Location::parse("memory://write-options/lake/sales")?, JournalOptions::default());
/// let options = WriteOptions::default().with_partition_by(["day"]).with_sizing(FileSizing::Files(1));
/// let rows = dataframe!("day" => ["2024-02-28", "2024-02-29"], "amount" => [1, 2])?;
/// sales.observe().await?.write(rows, WriteMode::Append, &options).await?;
///
/// let version = sales.view().await?;
/// assert_eq!(version.files().len(), 2);
/// assert!(version.files()[0].path().starts_with("day=2024-02-28/"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct WriteOptions {
    /// Partition columns. Default: none.
    pub partition_by: Vec<String>,
    /// Number or size of the files. Default: files of about 256 MiB.
    pub sizing: FileSizing,
    /// Maximum memory of all unfinished row groups together, in bytes. Beyond it, the largest row group ends early.
    /// Default: 256 MiB.
    pub memory: usize,
    /// Maximum number of open files. Beyond it, the largest file is finished, so that many partitions make more and
    /// smaller files. Default: 128.
    pub open_files: usize,
    /// Options of the Parquet files.
    pub parquet: ParquetOptions,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            partition_by: vec![],
            sizing: FileSizing::TargetSize(256 << 20),
            memory: 256 << 20,
            open_files: 128,
            parquet: ParquetOptions::default(),
        }
    }
}

impl WriteOptions {
    /// Sets the partition columns.
    pub fn with_partition_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the number or size of the files. Default: files of about 256 MiB.
    pub fn with_sizing(mut self, sizing: FileSizing) -> Self {
        self.sizing = sizing;
        self
    }

    /// Sets the options of the Parquet files.
    pub fn with_parquet(mut self, parquet: ParquetOptions) -> Self {
        self.parquet = parquet;
        self
    }

    /// Sets the maximum memory of all unfinished row groups together, in bytes. Default: 256 MiB.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }
}

/// Writes rows to staged files, one or more for each partition, in bounded memory. It does not borrow the table
/// commit, so that several writers can work for one commit.
#[derive(Debug)]
pub struct PartitionedWriter {
    stager: FileStager,
    options: WriteOptions,
    parent: String,
    only: Option<BTreeSet<String>>,
    spelling: FolderSpelling,
    open: BTreeMap<(String, usize), FileWriter>,
    turn: usize,
    rows: u64,
    staged: Vec<StagedFile>,
}

impl PartitionedWriter {
    /// Creates a writer that stages files for the commit of `stager`.
    pub fn new(stager: FileStager, options: &WriteOptions) -> Self {
        Self {
            stager,
            options: options.clone(),
            parent: String::new(),
            only: None,
            spelling: FolderSpelling::default(),
            open: BTreeMap::new(),
            turn: 0,
            rows: 0,
            staged: vec![],
        }
    }

    /// Sets the spelling of folders to that of the table.
    #[must_use]
    pub fn with_spelling(mut self, spelling: FolderSpelling) -> Self {
        self.spelling = spelling;
        self
    }

    /// Restricts the writer to these folders. Rows of other folders are dropped.
    #[must_use]
    pub fn only(mut self, folders: BTreeSet<String>) -> Self {
        self.only = Some(folders);
        self
    }

    /// Writes rows, and returns their folders. All batches must have the same schema.
    ///
    /// # Errors
    /// The errors of [`partition_folders`] and of the store; `EncryptedColumn` for a partition column that the
    /// options encrypt.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        let mut folders = Vec::new();
        for (folder, rows) in partition_folders(batch, &self.options.partition_by, &self.spelling)? {
            if self.only.as_ref().is_some_and(|only| !only.contains(&folder)) {
                continue;
            }
            self.rows += rows.num_rows() as u64;
            folders.push(folder.clone());
            match self.options.sizing {
                FileSizing::TargetSize(_) => self.append_rows(folder, 0, &rows).await?,
                FileSizing::Files(n) => {
                    let (n, total) = (n.max(1), rows.num_rows());
                    for i in 0..n {
                        let (from, to) = (total * i / n, total * (i + 1) / n);
                        if to > from {
                            // Each batch begins with another file, so that batches with few rows are spread over all
                            // files.
                            let slot = (i + self.turn) % n;
                            self.append_rows(folder.clone(), slot, &rows.slice(from, to - from)).await?;
                        }
                    }
                }
            }
        }
        self.turn += 1;
        Ok(folders)
    }

    async fn append_rows(&mut self, folder: String, slot: usize, rows: &RecordBatch) -> Result<()> {
        let key = (folder, slot);
        if !self.open.contains_key(&key) {
            if self.open.len() >= self.options.open_files {
                let largest = self.open.iter().max_by_key(|(_, w)| w.estimated_size()).map(|(k, _)| k.clone());
                self.close_file(&largest.expect("the maximum number of open files is at least 1")).await?;
            }
            let folder = match (self.parent.as_str(), key.0.as_str()) {
                ("", folder) | (folder, "") => folder.to_owned(),
                (parent, folder) => format!("{parent}/{folder}"),
            };
            // Checked for each file, since the encryption of the options may cover a column that is in the path.
            if let Some(encryption) = &self.options.parquet.encryption {
                encryption.check_clear("a partition column", &self.options.partition_by)?;
            }
            let stage = self.stager.writer(&folder, "parquet");
            self.open.insert(key.clone(), FileWriter::like(stage, rows, &self.options.parquet).await?);
        }
        let writer = self.open.get_mut(&key).expect("it was inserted above");
        writer.write(rows).await?;
        let full = matches!(self.options.sizing, FileSizing::TargetSize(t) if writer.estimated_size() as u64 >= t);
        if full {
            self.close_file(&key).await?;
        }
        // The options limit the memory of all unfinished row groups together. Ending the largest one first gives the
        // fewest small row groups. The two breaks prevent an endless loop if a flush does not release memory.
        while self.open.values().map(FileWriter::memory_size).sum::<usize>() > self.options.memory {
            let largest = self.open.values_mut().max_by_key(|w| w.memory_size()).expect("one of them takes memory");
            if largest.memory_size() == 0 {
                break;
            }
            let before = largest.memory_size();
            largest.flush().await?;
            if largest.memory_size() >= before {
                break;
            }
        }
        Ok(())
    }

    async fn close_file(&mut self, key: &(String, usize)) -> Result<()> {
        if let Some(writer) = self.open.remove(key) {
            self.staged.push(writer.finish(&self.stager).await?);
        }
        Ok(())
    }

    /// Finishes all files. Returns the number of rows, and the staged files, which the caller has to publish.
    ///
    /// # Errors
    /// The errors of the store, and `UnreadableParquet` for a file that differs from what was written.
    pub async fn finish(mut self) -> Result<(u64, Vec<StagedFile>)> {
        let open: Vec<_> = self.open.keys().cloned().collect();
        for key in open {
            self.close_file(&key).await?;
        }
        Ok((self.rows, self.staged))
    }
}

/// Writes rows to staged files and publishes them with a table commit. One or more files for each partition, in
/// bounded memory.
#[derive(Debug)]
pub struct TableWriter<'a, 'b> {
    table_commit: &'a mut TableCommit<'b>,
    rows: PartitionedWriter,
}

impl<'a, 'b> TableWriter<'a, 'b> {
    /// Creates a writer for `table_commit`, which publishes the files when the writer finishes.
    pub fn new(table_commit: &'a mut TableCommit<'b>, options: &'a WriteOptions) -> Self {
        let rows = PartitionedWriter::new(table_commit.stager(), options);
        Self { table_commit, rows }
    }

    /// Sets the spelling of folders to that of the table.
    #[must_use]
    pub fn with_spelling(mut self, spelling: FolderSpelling) -> Self {
        self.rows = self.rows.with_spelling(spelling);
        self
    }

    /// Puts all files below `folder`, relative to the table.
    #[must_use]
    pub fn in_folder(mut self, folder: &str) -> Self {
        folder.clone_into(&mut self.rows.parent);
        self
    }

    /// Writes rows, and returns their folders. All batches must have the same schema.
    ///
    /// # Errors
    /// The errors of [`partition_folders`] and of the store.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        self.rows.write(batch).await
    }

    /// Finishes all files, and returns the number of rows and of files.
    ///
    /// # Errors
    /// As [`PartitionedWriter::finish`].
    pub async fn finish(self) -> Result<(u64, u64)> {
        let (rows, staged) = self.rows.finish().await?;
        let files = staged.len() as u64;
        staged.into_iter().for_each(|file| self.table_commit.publish(file));
        Ok((rows, files))
    }
}
