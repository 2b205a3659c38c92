//! Compaction: joins small files and small row groups, sorts rows, and changes codec, row group size and encryption.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use biscuit_core::{Error, Outcome, Result};
use biscuit_dataset::{Dataset, OpenFile, ParquetOptions, TableVersion};
use biscuit_journal::CommitExtras;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use serde::Serialize;
use serde_json::json;

use crate::plan::choice::{default_rows, has_sound_statistics, largest_group, same_codec};
use crate::plan::unit::{SmallGroups, WrittenUnit};
use crate::replacing::FileReplacement;
use crate::{RewriteUnit, RunMode, SortBy};

/// Options of a compaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct CompactOptions {
    /// Target size of a file, in bytes. Smaller files of a folder are joined up to this size. Default: 256 MiB.
    pub target_size: u64,
    /// Columns by which the rows of each folder are sorted. Default: none, the rows keep their order.
    pub sort_by: Vec<SortBy>,
    /// Codec, row group size and encryption of the new files. Default: as in the sources.
    pub parquet: ParquetOptions,
    /// Number of cores to use. Default: all.
    pub parallelism: usize,
    /// Memory for row groups and for sorting, in bytes. Sorts spill to disk beyond it. Default: no limit.
    pub memory: Option<usize>,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self {
            target_size: 256 << 20,
            sort_by: vec![],
            parquet: ParquetOptions::default(),
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            memory: None,
        }
    }
}

/// Result of a compaction, or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// `Committed`, `Unchanged`, or `Planned` for a dry run.
    pub outcome: Outcome,
    /// Newest version of the table.
    pub version: u64,
    /// Number of rows of the table, which a compaction does not change.
    pub rows: u64,
    /// Number of live files before the compaction.
    pub files_before: u64,
    /// Number of new files. It is 0 for a dry run, which does not know the number.
    pub files_written: u64,
    /// Number of files that the new files replace.
    pub files_replaced: u64,
    /// Size of the replaced files, in bytes.
    pub bytes_replaced: u64,
    /// Size of the new files, in bytes.
    pub bytes_written: u64,
    /// Number of row groups that were copied byte for byte.
    pub groups_copied: u64,
    /// Number of row groups that were encoded.
    pub groups_encoded: u64,
    /// Replaced files that were not deleted because another program had changed them. The run ended with exceptions.
    pub exceptions: Vec<String>,
}

/// Compacts a table: in each folder, joins small files to large ones and small row groups to large ones. Sorts rows,
/// and changes codec, row group size and encryption, if the options ask for it.
///
/// Files that already comply with the options keep their name and ETag. The rows of the table do not change.
///
/// ```
/// use biscuit_core::Outcome;
/// use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use biscuit_rewrite::{CompactOptions, RunMode, compact};
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let table = Dataset::new(Location::parse("memory://compact/lake/items")?, JournalOptions::default());
/// for id in [1, 2, 3] {
///     let rows = dataframe!("id" => [id])?;
///     table.observe().await?.write(rows, WriteMode::Append, &WriteOptions::default()).await?;
/// }
/// let report = compact(&table, &CompactOptions::default(), RunMode::Commit).await?;
/// assert_eq!((report.files_replaced, report.files_written, report.rows), (3, 1, 3));
///
/// let again = compact(&table, &CompactOptions::default(), RunMode::Commit).await?;
/// assert_eq!(again.outcome, Outcome::Unchanged);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `UnknownColumn` for a sort column or an encrypted column that does not exist; `NoFileKeys` for a table with
/// encrypted columns and no keys; `Conflict` if another run committed first; the errors of the store. After an error
/// the table is unchanged.
pub async fn compact(dataset: &Dataset, options: &CompactOptions, mode: RunMode) -> Result<CompactReport> {
    let snapshot = if mode == RunMode::DryRun { dataset.view().await? } else { dataset.observe().await? };
    let head = snapshot.observed.head.clone();
    let done = compact_snapshot(&snapshot, options, mode).await;
    match done {
        Err(e) => Err(dataset.journal().explain_error(e, &head).await),
        done => done,
    }
}

async fn compact_snapshot(snapshot: &TableVersion, options: &CompactOptions, mode: RunMode) -> Result<CompactReport> {
    let files = snapshot.open_files().await?;
    let (snapshot, parquet) = snapshot.clone().for_writing(&options.parquet, &files).await?;
    let (snapshot, options) = (&snapshot, &CompactOptions { parquet, ..options.clone() });
    if !files.is_empty() {
        let schema = snapshot.schema(&files)?;
        snapshot.check_encrypted(&|name| schema.index_of(name).is_ok())?;
    }
    let units = plan_units(snapshot, &files, options)?;
    let sources = || units.iter().flat_map(|u| &u.sources);
    let mut report = CompactReport {
        outcome: Outcome::Unchanged,
        version: snapshot.observed.head.version,
        rows: files.iter().map(OpenFile::rows).sum(),
        files_before: files.len() as u64,
        files_replaced: sources().count() as u64,
        bytes_replaced: sources().map(|f| f.size()).sum(),
        ..CompactReport::default()
    };
    if units.is_empty() {
        return Ok(report);
    }
    report.outcome = Outcome::Planned;
    if mode == RunMode::DryRun {
        return Ok(report);
    }
    let paths: HashSet<&str> = sources().map(|f| f.path()).collect();
    let gone: Vec<&OpenFile> = files.iter().filter(|f| paths.contains(f.path())).collect();
    let rows = sources().map(OpenFile::rows).sum();
    let (replaced, all) = (report.files_replaced, report.rows);
    let counts = |written: &[WrittenUnit]| {
        json!({
            "compacted": {"files_replaced": replaced, "files_written": written.len()},
            "rows": {"before": all, "after": all},
        })
    };
    let (released, extras) = (vec![], CommitExtras::default());
    let replacing = FileReplacement { snapshot, files: &files, gone, released, extras, units, rows, report: &counts };
    let done = replacing.commit(options.parallelism, options.memory).await?;
    for w in &done.written {
        report.files_written += 1;
        report.bytes_written += w.file.size;
        report.groups_copied += w.copied;
        report.groups_encoded += w.encoded;
    }
    (report.outcome, report.version, report.exceptions) = (done.outcome, done.version, done.exceptions);
    Ok(report)
}

/// Returns the units of work, folder by folder.
fn plan_units(snapshot: &TableVersion, files: &[OpenFile], options: &CompactOptions) -> Result<Vec<RewriteUnit>> {
    let table = snapshot.schema(files)?;
    let in_path = |name: &String| snapshot.partition_columns().iter().any(|(p, _)| p == name);
    let data: Vec<_> = table.fields().iter().filter(|f| !in_path(f.name())).cloned().collect();
    let schema: SchemaRef = Arc::new(Schema::new(data));
    if let Some(by) = options.sort_by.iter().find(|by| schema.index_of(&by.column).is_err()) {
        let message = format!("cannot sort by column `{}`: the files do not have it", by.column);
        return Err(Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message));
    }
    let mut folders: BTreeMap<&str, Vec<&OpenFile>> = BTreeMap::new();
    for file in files {
        let folder = file.file.listed.folder();
        folders.entry(folder).or_default().push(file);
    }
    let mut units = Vec::new();
    for (folder, files) in folders {
        let sources = if options.sort_by.is_empty() {
            pack_bins(&files, options)
        } else if is_sorted(&files, options) {
            vec![]
        } else {
            vec![files]
        };
        for sources in sources {
            let sources = sources.into_iter().cloned().collect();
            let unit = RewriteUnit::from_sources(sources, schema.clone(), folder)
                .with_small_groups(SmallGroups::Join)
                .with_sort_by(options.sort_by.clone())
                .with_parquet(options.parquet.clone())
                .with_max_file_size(options.target_size);
            units.push(unit);
        }
    }
    Ok(units)
}

/// Bins of files that are rewritten to one file each: small files that are joined (next-fit bin packing in the order
/// of the files), and single files that do not comply with the options.
fn pack_bins<'a>(files: &[&'a OpenFile], options: &CompactOptions) -> Vec<Vec<&'a OpenFile>> {
    let (mut bins, mut open): (Vec<Vec<&OpenFile>>, Vec<&OpenFile>) = (Vec::new(), Vec::new());
    let size = |files: &[&OpenFile]| files.iter().map(|f| f.size()).sum::<u64>();
    for file in files {
        // A file of at least half of the target size is not joined: two of them might not fit into one file.
        if file.size() >= options.target_size / 2 {
            bins.push(vec![file]);
            continue;
        }
        if size(&open) + file.size() > options.target_size {
            bins.push(std::mem::take(&mut open));
        }
        open.push(file);
    }
    bins.push(open);
    bins.retain(|bin| bin.len() > 1 || bin.iter().any(|f| !is_as_wanted(f, &options.parquet)));
    bins
}

/// Returns whether a file has the wanted codec, row group size and encryption, and no two adjacent row groups that
/// could be joined.
fn is_as_wanted(file: &OpenFile, parquet: &ParquetOptions) -> bool {
    let groups = file.metadata().metadata().row_groups();
    let codec = |codec| groups.iter().flat_map(|g| g.columns()).all(|c| same_codec(c.compression(), codec));
    let (largest, default) = (largest_group(std::slice::from_ref(file)), default_rows(std::slice::from_ref(file)));
    let full = parquet.row_group_rows.map_or(default, |rows| rows as u64);
    let rows: Vec<u64> = groups.iter().map(|g| u64::try_from(g.num_rows()).unwrap_or(0)).collect();
    let joinable = rows.windows(2).any(|w| w[0] < full / 2 && w[1] < full / 2);
    let encrypted = parquet.encryption.as_ref().is_none_or(|encryption| file.is_encrypted_as(encryption));
    parquet.compression.is_none_or(codec) && largest <= full && !joinable && encrypted
}

/// Returns whether the files need no sort: all of them declare the sort columns, comply with the options, and their
/// ranges of the first sort column do not overlap.
fn is_sorted(files: &[&OpenFile], options: &CompactOptions) -> bool {
    let Some(by) = options.sort_by.first() else { return false };
    let declares_sort = |file: &OpenFile| {
        let index = |by: &SortBy| file.schema().index_of(&by.column).ok().and_then(|i| i32::try_from(i).ok());
        let wanted: Vec<_> = options.sort_by.iter().map(|by| (index(by), by.descending, false)).collect();
        file.metadata().metadata().row_groups().iter().all(|g| {
            let has = g.sorting_columns().into_iter().flatten();
            has.map(|c| (Some(c.column_idx), c.descending, c.nulls_first)).eq(wanted.iter().copied())
        })
    };
    let sound = files.iter().all(|f| declares_sort(f) && has_sound_statistics(f) && is_as_wanted(f, &options.parquet));
    sound && (files.len() == 1 || are_in_sequence(files, &by.column).unwrap_or(false))
}

/// Returns whether the ranges of `column` in the files do not overlap, by the statistics of the footers. Returns
/// `None` if statistics are missing.
fn are_in_sequence(files: &[&OpenFile], column: &str) -> Option<bool> {
    use datafusion::arrow::array::{Array, make_comparator};
    use datafusion::arrow::compute::{SortOptions, concat};
    let (mut mins, mut maxes) = (Vec::new(), Vec::new());
    for file in files {
        let metadata = file.metadata();
        let converter = StatisticsConverter::try_new(column, metadata.schema(), metadata.parquet_schema()).ok()?;
        let groups = metadata.metadata().row_groups();
        let (min, max) = (converter.row_group_mins(groups).ok()?, converter.row_group_maxes(groups).ok()?);
        if min.is_empty() || min.null_count() + max.null_count() > 0 {
            return None;
        }
        let of = |array: &dyn Array| make_comparator(array, array, SortOptions::default()).ok();
        let (low, high) = (of(&min)?, of(&max)?);
        let lowest = (0..min.len()).min_by(|a, b| low(*a, *b))?;
        let highest = (0..max.len()).max_by(|a, b| high(*a, *b))?;
        mins.push(min.slice(lowest, 1));
        maxes.push(max.slice(highest, 1));
    }
    let refs = |arrays: &[Arc<dyn Array>]| -> Option<Arc<dyn Array>> {
        concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>()).ok()
    };
    let (mins, maxes) = (refs(&mins)?, refs(&maxes)?);
    let low = make_comparator(&mins, &mins, SortOptions::default()).ok()?;
    let between = make_comparator(&maxes, &mins, SortOptions::default()).ok()?;
    // Sort the files by their minimum; then the maximum of each must be at most the minimum of the next.
    let mut order: Vec<usize> = (0..mins.len()).collect();
    order.sort_by(|a, b| low(*a, *b));
    Some(order.windows(2).all(|w| between(w[0], w[1]).is_le()))
}
