use std::sync::Arc;

use biscuit_dataset::{OpenFile, ParquetOptions};
use biscuit_journal::Published;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::Edit;

/// New rows for a file.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The row group at whose end they are put, counted through all sources; behind the last one where there is none.
    pub group: Option<usize>,
    /// The rows, in the columns of the file.
    pub rows: RecordBatch,
}

/// How a file is written although it could be done otherwise: for tests and for comparisons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Force {
    /// Nothing is forced.
    #[default]
    No,
    /// All rows are encoded again.
    Rewrite,
}

/// What becomes of row groups that have less than half of the usual rows, although nothing in them changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SmallGroups {
    /// They stay, unless a neighbour is encoded anyway.
    #[default]
    Keep,
    /// They are made larger ones.
    Join,
}

/// A column that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortBy {
    /// The column.
    pub column: String,
    /// Whether the greatest value comes first. Nulls come last either way.
    pub descending: bool,
}

/// One piece of work: a file of the table, or several that become one, what happens to their rows, and the rows they get.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unit {
    /// The files as they are, whose rows are counted through.
    pub sources: Vec<OpenFile>,
    /// Edits by number of row, counted from 0, ascending; none names a row twice.
    pub edits: Vec<(u64, Edit)>,
    /// The new rows that edits name, in the columns of `schema`.
    pub rows: Arc<Vec<RecordBatch>>,
    /// Rows that are added.
    pub inserts: Vec<Insert>,
    /// The columns of the new file; columns of the path are not among them.
    pub schema: SchemaRef,
    /// The folder of the new file, relative to the table.
    pub folder: String,
    /// What is not to follow the source.
    pub parquet: ParquetOptions,
    /// Bytes, by the encoder's estimate, at which a file is ended and another one begun.
    pub max_file_size: u64,
    /// What becomes of small row groups.
    pub small_groups: SmallGroups,
    /// What all rows of the unit are sorted by, in files one after the other. None: they keep their order.
    pub sort_by: Vec<SortBy>,
    /// What is done although it need not be.
    pub force: Force,
}

impl Unit {
    /// A file that stays as it is, in these columns.
    pub fn new(source: OpenFile, schema: SchemaRef, folder: impl Into<String>) -> Self {
        Self::of(vec![source], schema, folder)
    }

    /// Files that become one, their rows in this order.
    pub fn of(sources: Vec<OpenFile>, schema: SchemaRef, folder: impl Into<String>) -> Self {
        Self {
            sources,
            edits: vec![],
            rows: Arc::default(),
            inserts: vec![],
            schema,
            folder: folder.into(),
            parquet: ParquetOptions::default(),
            max_file_size: 4 << 30,
            small_groups: SmallGroups::Keep,
            sort_by: vec![],
            force: Force::No,
        }
    }

    /// The same unit with another treatment of small row groups.
    pub fn with_small_groups(mut self, small_groups: SmallGroups) -> Self {
        self.small_groups = small_groups;
        self
    }

    /// The same unit, sorted.
    pub fn with_sort_by(mut self, columns: Vec<SortBy>) -> Self {
        self.sort_by = columns;
        self
    }

    /// The same unit with edits; `rows` are what they replace rows by.
    pub fn with_edits(mut self, edits: Vec<(u64, Edit)>, rows: Arc<Vec<RecordBatch>>) -> Self {
        (self.edits, self.rows) = (edits, rows);
        self
    }

    /// The same unit with rows that are added.
    pub fn with_inserts(mut self, inserts: Vec<Insert>) -> Self {
        self.inserts = inserts;
        self
    }

    /// The same unit with Parquet options that need not follow the source.
    pub fn with_parquet(mut self, parquet: ParquetOptions) -> Self {
        self.parquet = parquet;
        self
    }

    /// The same unit with another limit for the size of a file, in bytes.
    pub fn with_max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// The same unit, done in this way.
    pub fn with_force(mut self, force: Force) -> Self {
        self.force = force;
        self
    }

    /// The edits of the rows from `first` to before `end`.
    pub(crate) fn edits_of(&self, first: u64, end: u64) -> &[(u64, Edit)] {
        let from = self.edits.partition_point(|(r, _)| *r < first);
        let to = self.edits.partition_point(|(r, _)| *r < end);
        &self.edits[from..to]
    }

    /// The row groups of all sources.
    pub(crate) fn groups(&self) -> Vec<SourceGroup> {
        let (mut groups, mut first) = (Vec::new(), 0);
        for (source, file) in self.sources.iter().enumerate() {
            for (group, metadata) in file.metadata().metadata().row_groups().iter().enumerate() {
                let rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
                groups.push(SourceGroup { source, group, first, rows });
                first += rows;
            }
        }
        groups
    }

    /// What the work costs, in rows that are encoded; one that is copied costs a thirtieth of that.
    pub(crate) fn cost(&self) -> u64 {
        self.sources.iter().map(OpenFile::rows).sum()
    }

    /// What messages call the sources.
    pub(crate) fn name(&self) -> &str {
        self.sources.first().map_or("", |s| &s.file.path)
    }
}

/// A row group of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceGroup {
    pub(crate) source: usize,
    /// Its number in the source.
    pub(crate) group: usize,
    /// The number of its first row, through all sources.
    pub(crate) first: u64,
    pub(crate) rows: u64,
}

/// A file that a unit has staged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The number of the unit.
    pub unit: usize,
    /// What is staged.
    pub file: Published,
    /// Row groups that were copied as they were.
    pub copied: u64,
    /// Row groups that were encoded.
    pub encoded: u64,
}
