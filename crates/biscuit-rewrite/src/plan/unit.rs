//! A rewrite unit: the sources, edits, inserted rows and options of a new file, and the description of what was
//! written.

use std::collections::BTreeMap;
use std::ops::Range;

use biscuit_core::{Error, Result};
use biscuit_dataset::encryption::FileEncryption;
use biscuit_dataset::{OpenFile, ParquetOptions};
use biscuit_journal::record::PublishedFile;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::plan::edits::RowGroupEdits;
use crate::spill::buffered_rows::BufferedRows;

/// New rows for a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InsertedRows {
    /// Row group after whose rows the new rows are put, counted through all sources. `None` puts them after the last
    /// row group.
    pub group: Option<usize>,
    /// The rows, in the columns of the file.
    pub rows: BufferedRows,
}

impl InsertedRows {
    /// Creates new rows for the end of `group`, or for the end of the file.
    pub fn new(group: Option<usize>, rows: impl Into<BufferedRows>) -> Self {
        Self { group, rows: rows.into() }
    }
}

/// Forces a rewrite, for tests and comparisons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForcedRewrite {
    /// [`choose_rewrite`](crate::choose_rewrite) decides.
    #[default]
    No,
    /// All rows are encoded.
    Rewrite,
}

/// Treatment of unchanged row groups with less than half of the usual rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmallGroups {
    /// They remain, unless a neighbour is encoded.
    #[default]
    Keep,
    /// They are encoded and joined to larger ones.
    Join,
}

/// Treatment of the bloom filters of row groups that change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BloomFilters {
    /// The filters are carried over and new values are added. For removed values they still answer "perhaps".
    #[default]
    Carried,
    /// The filters are built from the remaining rows, or left out if the pages of the column are not encoded.
    Rebuilt,
}

/// A sort column.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SortBy {
    /// Name of the column.
    pub column: String,
    /// Whether the greatest value comes first. Nulls come last in both orders.
    pub descending: bool,
}

impl SortBy {
    /// Sorts by a column with the least value first.
    pub fn ascending(column: impl Into<String>) -> Self {
        Self { column: column.into(), descending: false }
    }

    /// Sorts by a column with the greatest value first.
    pub fn descending(column: impl Into<String>) -> Self {
        Self { column: column.into(), descending: true }
    }
}

/// Unit of work: one or several source files that become one, the edits of their rows, and the rows that are added. A
/// unit without a source makes a new file.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct RewriteUnit {
    /// Source files. Row numbers are counted through all of them.
    pub sources: Vec<OpenFile>,
    /// Edits by row group, counted through all sources.
    pub edits: BTreeMap<usize, RowGroupEdits>,
    /// Rows that are added.
    pub inserts: Vec<InsertedRows>,
    /// Columns of the new file, without the partition columns.
    pub schema: SchemaRef,
    /// Folder of the new file, relative to the table.
    pub folder: String,
    /// Parquet options that take precedence over the properties of the sources.
    pub parquet: ParquetOptions,
    /// Maximum size of a file, in bytes. A row group that would exceed it, by the encoder's estimate, begins another
    /// file. Default: 4 GiB.
    pub max_file_size: u64,
    /// Treatment of small row groups. Default: keep.
    pub small_groups: SmallGroups,
    /// Columns by which all rows of the unit are sorted, across files. Default: none, the rows keep their order.
    pub sort_by: Vec<SortBy>,
    /// Forces a rewrite. Default: no.
    pub force: ForcedRewrite,
    /// Treatment of the bloom filters of row groups that change. Default: carried over.
    pub bloom_filters: BloomFilters,
}

impl RewriteUnit {
    /// Creates a unit that keeps `source` as it is, in the columns of `schema`.
    pub fn new(source: OpenFile, schema: SchemaRef, folder: impl Into<String>) -> Self {
        Self::from_sources(vec![source], schema, folder)
    }

    /// Creates a unit that joins `sources` to one file, in this order.
    pub fn from_sources(sources: Vec<OpenFile>, schema: SchemaRef, folder: impl Into<String>) -> Self {
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

    /// Joins units to one whose sources become one file, with the edits and new rows of all of them. The options are
    /// those of the first unit. Returns `None` without units.
    ///
    /// ```
    /// # use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
    /// # use biscuit_journal::JournalOptions;
    /// use biscuit_rewrite::RewriteUnit;
    /// # use datafusion::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let table = Dataset::new(Location::parse("memory://joined/lake/items")?, JournalOptions::default());
    /// # for id in [1, 2] {
    /// #     let rows = dataframe!("id" => [id])?;
    /// #     table.observe().await?.write(rows, WriteMode::Append, &WriteOptions::default()).await?;
    /// # }
    /// let files = table.view().await?.open_files().await?;
    /// let unit = |file: usize| RewriteUnit::new(files[file].clone(), files[file].schema().clone(), "");
    /// let joined = RewriteUnit::joined([unit(0), unit(1).with_removed(&[0])]).expect("there are units");
    /// assert_eq!((joined.sources.len(), joined.edits.keys().copied().collect::<Vec<_>>()), (2, vec![1]));
    /// # Ok(()) }
    /// ```
    pub fn joined(units: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut units = units.into_iter();
        let mut all = units.next()?;
        let size = |unit: &Self| {
            let groups: usize = unit.sources.iter().map(|s| s.metadata().metadata().num_row_groups()).sum();
            (groups, unit.sources.iter().map(OpenFile::rows).sum::<u64>())
        };
        let (mut groups, mut rows) = size(&all);
        // New rows for the end of a unit are put after its last row group.
        let end_of = |inserts: &mut [InsertedRows], groups: usize| {
            inserts.iter_mut().for_each(|insert| insert.group = insert.group.or(groups.checked_sub(1)));
        };
        end_of(&mut all.inserts, groups);
        for unit in units {
            let (more_groups, more_rows) = size(&unit);
            all.edits.extend(unit.edits.into_iter().map(|(group, edits)| (groups + group, edits.after(rows))));
            all.inserts.extend(
                unit.inserts
                    .into_iter()
                    .map(|insert| InsertedRows { group: insert.group.map(|group| groups + group), ..insert }),
            );
            all.sources.extend(unit.sources);
            (groups, rows) = (groups + more_groups, rows + more_rows);
            end_of(&mut all.inserts, groups);
        }
        Some(all)
    }

    /// Sets the treatment of small row groups.
    pub fn with_small_groups(mut self, small_groups: SmallGroups) -> Self {
        self.small_groups = small_groups;
        self
    }

    /// Sorts all rows of the unit by these columns.
    pub fn with_sort_by(mut self, columns: Vec<SortBy>) -> Self {
        self.sort_by = columns;
        self
    }

    /// Removes the rows with these numbers, which are ascending and counted from 0 through all sources.
    pub fn with_removed(mut self, numbers: &[u64]) -> Self {
        for (group, at) in self.by_group(numbers) {
            self.edits.entry(group).or_default().remove_rows(&numbers[at]);
        }
        self
    }

    /// Replaces the rows with these numbers by the rows of a batch. The numbers are ascending and counted from 0
    /// through all sources.
    ///
    /// # Errors
    /// `Internal` if there are not as many rows as numbers.
    pub fn with_replaced(mut self, numbers: &[u64], rows: &RecordBatch) -> Result<Self> {
        if numbers.len() != rows.num_rows() {
            return Err(Error::internal("the number of new rows differs from the number of row numbers"));
        }
        for (group, at) in self.by_group(numbers) {
            let new = rows.slice(at.start, at.len());
            self.edits.entry(group).or_default().replace_rows(&numbers[at], &new)?;
        }
        Ok(self)
    }

    /// Sets the edits by row group. Replaces all earlier edits.
    pub fn with_edits(mut self, edits: BTreeMap<usize, RowGroupEdits>) -> Self {
        self.edits = edits;
        self
    }

    /// Returns, for each row group, the range of `numbers` that lies in it.
    fn by_group(&self, numbers: &[u64]) -> Vec<(usize, Range<usize>)> {
        let place = |row: u64| numbers.partition_point(|n| *n < row);
        let groups = self.source_groups().into_iter().enumerate();
        groups.map(|(g, at)| (g, place(at.first)..place(at.first + at.rows))).filter(|(_, r)| !r.is_empty()).collect()
    }

    /// Sets the rows that are added.
    pub fn with_inserts(mut self, inserts: Vec<InsertedRows>) -> Self {
        self.inserts = inserts;
        self
    }

    /// Sets the Parquet options that take precedence over the properties of the sources.
    pub fn with_parquet(mut self, parquet: ParquetOptions) -> Self {
        self.parquet = parquet;
        self
    }

    /// Sets the maximum size of a file, in bytes.
    pub fn with_max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// Forces a rewrite of the file.
    pub fn with_force(mut self, force: ForcedRewrite) -> Self {
        self.force = force;
        self
    }

    /// Sets the treatment of the bloom filters of row groups that change.
    pub fn with_bloom_filters(mut self, bloom_filters: BloomFilters) -> Self {
        self.bloom_filters = bloom_filters;
        self
    }

    /// Returns the row groups of all sources.
    pub(crate) fn source_groups(&self) -> Vec<SourceGroup> {
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

    /// Returns the encryption of the new files: what the options ask for and what the sources have. `None` if nothing
    /// is encrypted.
    ///
    /// # Errors
    /// `NoFileKeys` if a source is encrypted and there are no keys.
    pub(crate) fn encryption(&self) -> Result<Option<FileEncryption>> {
        let mut all = self.parquet.encryption.clone();
        for source in &self.sources {
            if let Some(like) = source.encryption()? {
                all = Some(all.map_or_else(|| like.clone(), |all| all.and(&like)));
            }
        }
        Ok(all)
    }

    /// Returns whether a source has, or the new file will have, encrypted columns.
    pub(crate) fn is_encrypted(&self) -> bool {
        let wanted = |e: &FileEncryption| self.schema.fields().iter().any(|f| e.covers(f.name()));
        self.sources.iter().any(OpenFile::has_encrypted) || self.parquet.encryption.as_ref().is_some_and(wanted)
    }

    /// Returns the estimated cost in rows: all rows of the sources and all inserted rows. A row counts the same
    /// whether it is encoded or copied, although copying costs about a thirtieth.
    pub(crate) fn estimate_cost(&self) -> u64 {
        let inserted: u64 = self.inserts.iter().map(|i| i.rows.len() as u64).sum();
        self.sources.iter().map(OpenFile::rows).sum::<u64>() + inserted
    }

    /// Returns the name of the unit in messages: its first source, or the folder of a new file.
    pub(crate) fn name(&self) -> &str {
        self.sources.first().map_or(&self.folder, |s| s.path())
    }
}

/// A row group of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// Index of the source in the unit.
pub(crate) struct SourceGroup {
    pub(crate) source: usize,
    /// Index of the row group in the source.
    pub(crate) group: usize,
    /// Number of its first row, counted through all sources.
    pub(crate) first: u64,
    pub(crate) rows: u64,
}

/// A file that a unit has staged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenUnit {
    /// Number of the unit.
    pub unit: usize,
    /// The staged file.
    pub file: PublishedFile,
    /// Number of row groups that were copied byte for byte.
    pub copied: u64,
    /// Number of row groups that were encoded.
    pub encoded: u64,
}
