use std::collections::BTreeMap;
use std::ops::Range;

use biscuit_core::{Error, Result};
use biscuit_dataset::{FileEncryption, OpenFile, ParquetOptions};
use biscuit_journal::PublishedFile;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::plan::edits::RowGroupEdits;
use crate::spill::buffered_rows::BufferedRows;

/// New rows for a file.
#[derive(Debug, Clone)]
pub struct InsertedRows {
    /// The row group at whose end they are put, counted through all sources; behind the last one where there is none.
    pub group: Option<usize>,
    /// The rows, in the columns of the file.
    pub rows: BufferedRows,
}

impl InsertedRows {
    /// Rows for the end of a row group, or behind the last one.
    pub fn new(group: Option<usize>, rows: impl Into<BufferedRows>) -> Self {
        Self { group, rows: rows.into() }
    }
}

/// How a file is written although it could be done otherwise: for tests and for comparisons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForcedRewrite {
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

/// What becomes of the bloom filters of row groups that change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BloomFilters {
    /// They are carried over, with the new values: of a value that is gone they still answer "perhaps".
    #[default]
    Carried,
    /// They are made anew of the rows that are left, or left out where the pages of the column are not encoded again.
    Anew,
}

/// A column that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortBy {
    /// The column.
    pub column: String,
    /// Whether the greatest value comes first. Nulls come last either way.
    pub descending: bool,
}

/// One piece of work: a file of the table, or several that become one, what happens to their rows, and the rows they get. A
/// unit without a source makes a new file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RewriteUnit {
    /// The files as they are, whose rows are counted through.
    pub sources: Vec<OpenFile>,
    /// Edits by row group, counted through all sources.
    pub edits: BTreeMap<usize, RowGroupEdits>,
    /// Rows that are added.
    pub inserts: Vec<InsertedRows>,
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
    pub force: ForcedRewrite,
    /// What becomes of the bloom filters of row groups that change.
    pub bloom_filters: BloomFilters,
}

impl RewriteUnit {
    /// A file that stays as it is, in these columns.
    pub fn new(source: OpenFile, schema: SchemaRef, folder: impl Into<String>) -> Self {
        Self::of(vec![source], schema, folder)
    }

    /// Files that become one, their rows in this order.
    pub fn of(sources: Vec<OpenFile>, schema: SchemaRef, folder: impl Into<String>) -> Self {
        Self {
            sources,
            edits: BTreeMap::new(),
            inserts: vec![],
            schema,
            folder: folder.into(),
            parquet: ParquetOptions::default(),
            max_file_size: 4 << 30,
            small_groups: SmallGroups::Keep,
            sort_by: vec![],
            force: ForcedRewrite::No,
            bloom_filters: BloomFilters::Carried,
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

    /// The same unit without these rows; numbers are ascending and counted from 0, through all sources.
    pub fn with_removed(mut self, numbers: &[u64]) -> Self {
        for (group, at) in self.by_group(numbers) {
            self.edits.entry(group).or_default().remove(&numbers[at]);
        }
        self
    }

    /// The same unit with new rows in place of those of these numbers, which are ascending.
    ///
    /// # Errors
    /// `Internal` if there are not as many rows as numbers.
    pub fn with_replaced(mut self, numbers: &[u64], rows: &RecordBatch) -> Result<Self> {
        if numbers.len() != rows.num_rows() {
            return Err(Error::internal("there are not as many new rows as numbers of rows"));
        }
        for (group, at) in self.by_group(numbers) {
            let new = rows.slice(at.start, at.len());
            self.edits.entry(group).or_default().replace(&numbers[at], &new)?;
        }
        Ok(self)
    }

    /// The same unit with edits by row group.
    pub fn with_edits(mut self, edits: BTreeMap<usize, RowGroupEdits>) -> Self {
        self.edits = edits;
        self
    }

    /// Where the numbers of each row group are among these.
    fn by_group(&self, numbers: &[u64]) -> Vec<(usize, Range<usize>)> {
        let place = |row: u64| numbers.partition_point(|n| *n < row);
        let groups = self.groups().into_iter().enumerate();
        groups.map(|(g, at)| (g, place(at.first)..place(at.first + at.rows))).filter(|(_, r)| !r.is_empty()).collect()
    }

    /// The same unit with rows that are added.
    pub fn with_inserts(mut self, inserts: Vec<InsertedRows>) -> Self {
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
    pub fn with_force(mut self, force: ForcedRewrite) -> Self {
        self.force = force;
        self
    }

    /// The same unit with another treatment of the bloom filters of row groups that change.
    pub fn with_bloom_filters(mut self, bloom_filters: BloomFilters) -> Self {
        self.bloom_filters = bloom_filters;
        self
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

    /// How its new files are encrypted: as it is asked for, and like those that they take the place of. None if nothing of them is.
    ///
    /// # Errors
    /// `NoFileKeys` if a source is encrypted, and there are no keys.
    pub(crate) fn encryption(&self) -> Result<Option<FileEncryption>> {
        let mut all = self.parquet.encryption.clone();
        for source in &self.sources {
            if let Some(like) = source.encryption()? {
                all = Some(all.map_or_else(|| like.clone(), |all| all.and(&like)));
            }
        }
        Ok(all)
    }

    /// Whether something is encrypted in a source, or is to be in the new file.
    pub(crate) fn is_encrypted(&self) -> bool {
        let wanted = |e: &FileEncryption| self.schema.fields().iter().any(|f| e.covers(f.name()));
        self.sources.iter().any(OpenFile::has_encrypted) || self.parquet.encryption.as_ref().is_some_and(wanted)
    }

    /// What the work costs, in rows that are encoded; one that is copied costs a thirtieth of that.
    pub(crate) fn cost(&self) -> u64 {
        let inserted: u64 = self.inserts.iter().map(|i| i.rows.len() as u64).sum();
        self.sources.iter().map(OpenFile::rows).sum::<u64>() + inserted
    }

    /// What messages call the sources, or the folder of a new file.
    pub(crate) fn name(&self) -> &str {
        self.sources.first().map_or(&self.folder, |s| &s.file.path)
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
pub struct WrittenUnit {
    /// The number of the unit.
    pub unit: usize,
    /// What is staged.
    pub file: PublishedFile,
    /// Row groups that were copied as they were.
    pub copied: u64,
    /// Row groups that were encoded.
    pub encoded: u64,
}
