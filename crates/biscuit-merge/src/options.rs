use biscuit_change::BadRows;
use biscuit_dataset::ParquetOptions;

use crate::changes::log_epochs::NewServerPolicy;

/// Choices of a merge that have a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MergeOptions {
    /// Columns that make folders. Default: the table's own, none for a new one.
    pub partition_by: Vec<String>,
    /// The most rows, in percent of those before, that may be deleted from a table of more than 1,000. Default: 30.
    pub max_deleted: f64,
    /// What happens to records that cannot be used. Default: they stop the run. The reader of the changes needs the same
    /// choice: a record that it did not keep as it was is not put aside, but stops the run.
    pub bad_rows: BadRows,
    /// Whether the records that may be put aside were sealed by who hands them over. Default: they are as they came, and are not put aside for a
    /// table with columns that its files encrypt. What was put aside before is left as it is.
    pub sealed: bool,
    /// The most records of a run, in percent, that may be put aside. Default: 0.1.
    pub max_quarantined: f64,
    /// Cores that are used. Default: all.
    pub parallelism: usize,
    /// Bytes of memory that change records, and then row groups in work, may take together: records beyond it go on on the
    /// local disk, and fewer row groups are worked on at a time. Default: no limit.
    pub memory: Option<usize>,
    /// Bytes of memory that change records may take before they go on on the local disk, divided by ranges of their keys; as much
    /// is then taken twice by those that are worked on. Default: a quarter of `memory`.
    pub change_memory: Option<usize>,
    /// What the positions of a database server are that no record came from before. Default: an error.
    pub new_server: NewServerPolicy,
    /// How Parquet is written.
    pub parquet: ParquetOptions,
    /// Bytes of a file that no more rows are appended to. Default: 256 MiB.
    pub target_size: u64,
    /// Bytes, by the encoder's estimate, at which a file that is rewritten is ended and another one begun. Default: 4 GiB,
    /// since one server-side copy on S3 moves at most 5 GiB.
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
    /// The same options with partition columns for a new table.
    pub fn with_partition_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with another guard against deleting, in percent.
    pub fn with_max_deleted(mut self, percent: f64) -> Self {
        self.max_deleted = percent;
        self
    }

    /// The same options with another choice for records that cannot be used, and the most of them in percent.
    pub fn with_bad_rows(mut self, bad_rows: BadRows, max_quarantined: f64) -> Self {
        (self.bad_rows, self.max_quarantined) = (bad_rows, max_quarantined);
        self
    }

    /// The same options for records of a server that none came from before.
    pub fn with_new_server(mut self, new_server: NewServerPolicy) -> Self {
        self.new_server = new_server;
        self
    }

    /// The same options with another number of cores.
    pub fn with_parallelism(mut self, cores: usize) -> Self {
        self.parallelism = cores.max(1);
        self
    }

    /// The same options with a budget of memory, in bytes.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// The same options with a limit for change records in memory, in bytes.
    pub fn with_change_memory(mut self, bytes: usize) -> Self {
        self.change_memory = Some(bytes);
        self
    }

    /// The same options with another limit for the size of rewritten files, in bytes.
    pub fn with_max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes.max(1);
        self
    }

    /// The same options with other Parquet options.
    pub fn with_parquet(mut self, parquet: ParquetOptions) -> Self {
        self.parquet = parquet;
        self
    }
}
