//! Options of a merge with their defaults.

use biscuit_change::BadRows;
use biscuit_dataset::ParquetOptions;

use crate::changes::buffered::BufferedChanges;
use crate::changes::log_epochs::NewServerPolicy;

/// Options of a merge. Each has a default.
///
/// ```
/// use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{RowsOptions, RowsReader};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://merge-options/lake/customer")?, JournalOptions::default());
/// let options = MergeOptions::default().with_partition_by(["country"]).with_max_deleted(5.0).with_memory(1 << 30);
/// let merge = Merge::new(dataset, MergeSpec::new(["id"], ["seq"])?, options)?;
///
/// let mut reader = RowsReader::new(RowsOptions::default());
/// reader.read("customers.jsonl", r#"{"id": 1, "seq": 1, "country": "FR"}"#.into())?;
/// let report = merge.run(reader.finish()?, RunMode::Commit).await?;
/// assert_eq!(report.partitions.added, ["country=FR"]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct MergeOptions {
    /// Partition columns. Default: the partition columns of the table; none for a new table.
    pub partition_by: Vec<String>,
    /// Maximum share of the rows of a table that a run may delete, in percent. It applies to tables of more than
    /// 1,000 rows; a run beyond it fails with `TooManyDeleted` and changes nothing. Default: 30.
    pub max_deleted: f64,
    /// Handling of invalid records. Default: they stop the run.
    /// The reader of the changes needs the same setting: a record that the reader did not keep in its original form
    /// cannot be quarantined and stops the run.
    pub bad_rows: BadRows,
    /// Whether the caller seals records before they are quarantined. Default: `false`; records are quarantined in
    /// plain text, which is refused for tables whose files encrypt columns. Records that are in the quarantine
    /// already are not changed.
    pub sealed: bool,
    /// Maximum share of the records of a run that may be quarantined, in percent. A run beyond it fails with
    /// `TooManyQuarantined` and changes nothing. Default: 0.1.
    pub max_quarantined: f64,
    /// Number of cores to use. Default: all.
    pub parallelism: usize,
    /// Memory budget in bytes for change records, and later for row groups that are rewritten. Beyond it, change
    /// records are written to the local disk and fewer row groups are rewritten at a time. Default: no limit.
    pub memory: Option<usize>,
    /// Memory in bytes for change records. Beyond it, records are written to the local disk, divided by key ranges.
    /// Then one part of the records is merged while the next one is read, and both together take up to twice this
    /// amount. Default: a quarter of `memory`.
    pub change_memory: Option<usize>,
    /// How the log positions of a database server compare whose records were never merged before. Default: the run
    /// fails with `NewServer`.
    pub new_server: NewServerPolicy,
    /// Options for writing Parquet files.
    pub parquet: ParquetOptions,
    /// Size in bytes from which a file gets no further rows. Default: 256 MiB.
    pub target_size: u64,
    /// Size in bytes, estimated by the encoder, at which a rewritten file is closed and another one begun. Default: 4
    /// GiB, because a server-side copy on S3 moves at most 5 GiB.
    pub max_file_size: u64,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            partition_by: vec![],
            max_deleted: 30.0,
            bad_rows: BadRows::Fail,
            sealed: false,
            max_quarantined: 0.1,
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            new_server: NewServerPolicy::Fail,
            parquet: ParquetOptions::default(),
            memory: None,
            change_memory: None,
            target_size: 256 << 20,
            max_file_size: 4 << 30,
        }
    }
}

impl MergeOptions {
    /// Sets the partition columns of a new table. For an existing table, they must equal its partition columns.
    pub fn with_partition_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the maximum share of rows that a run may delete, in percent. Default: 30. A run beyond it fails with
    /// `TooManyDeleted` and changes nothing.
    pub fn with_max_deleted(mut self, percent: f64) -> Self {
        self.max_deleted = percent;
        self
    }

    /// Sets what happens to invalid records, and the maximum share of records that may be quarantined, in percent.
    /// Default: the run stops; at most 0.1.
    pub fn with_bad_rows(mut self, bad_rows: BadRows, max_quarantined: f64) -> Self {
        (self.bad_rows, self.max_quarantined) = (bad_rows, max_quarantined);
        self
    }

    /// Sets how the log positions of a database server compare whose records were never merged before. Default: the
    /// run fails.
    pub fn with_new_server(mut self, new_server: NewServerPolicy) -> Self {
        self.new_server = new_server;
        self
    }

    /// Sets the number of cores to use, at least 1. Default: all.
    pub fn with_parallelism(mut self, cores: usize) -> Self {
        self.parallelism = cores.max(1);
        self
    }

    /// Sets the memory budget of the run in bytes. Default: no limit. Beyond it, change records are written to the
    /// local disk.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Sets the memory for change records in bytes. Default: a quarter of the memory budget. Beyond it, records are
    /// written to the local disk.
    pub fn with_change_memory(mut self, bytes: usize) -> Self {
        self.change_memory = Some(bytes);
        self
    }

    /// Returns the memory for change records in bytes; `None` for no limit.
    pub(crate) fn change_limit(&self) -> Option<usize> {
        self.change_memory.or(self.memory.map(|bytes| bytes / 4))
    }

    /// Reduces the memory budget by the memory of waiting records, for the runs that merge them.
    pub fn sharing_memory_with(mut self, records: &BufferedChanges) -> Self {
        if let (Some(memory), Some(taken)) = (self.memory, records.limit()) {
            self.memory = Some(memory.saturating_sub(taken));
        }
        self
    }

    /// Sets the size in bytes at which a rewritten file is closed and another one begun, at least 1. Default: 4 GiB.
    pub fn with_max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes.max(1);
        self
    }

    /// Sets the options for writing Parquet files.
    pub fn with_parquet(mut self, parquet: ParquetOptions) -> Self {
        self.parquet = parquet;
        self
    }
}
