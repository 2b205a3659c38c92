use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, OpenFile, ParquetOptions, Snapshot};
use biscuit_journal::Outcome;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use serde::Serialize;

use crate::choose::{has_sound_statistics, largest_group, same_codec, usual_rows};
use crate::{Mode, SmallGroups, SortBy, Unit, Written, rewrite_units, session};

/// Choices of a compaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompactOptions {
    /// Bytes of a file: smaller ones of a folder are put together up to this size. Default: 256 MiB.
    pub target_size: u64,
    /// What the rows of each folder are sorted by. Default: nothing, they keep their order.
    pub sort_by: Vec<SortBy>,
    /// Codec and row group size, where they are not to stay.
    pub parquet: ParquetOptions,
    /// Cores that are used. Default: all.
    pub parallelism: usize,
    /// Bytes of memory for row groups in work, and for sorting, which goes on on disk beyond. Default: no limit.
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

/// What a compaction did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// `committed`, `planned` for a dry run, or `unchanged`.
    pub outcome: &'static str,
    /// The newest version.
    pub version: u64,
    /// Rows of the table, which do not change.
    pub rows: u64,
    /// Files before.
    pub files_before: u64,
    /// Files that take the place of others; of a dry run 0, since it is not known how many.
    pub files_written: u64,
    /// Files that others take the place of.
    pub files_replaced: u64,
    /// Bytes of those.
    pub bytes_replaced: u64,
    /// Bytes of the files written.
    pub bytes_written: u64,
    /// Row groups that were copied as they were.
    pub groups_copied: u64,
    /// Row groups that were encoded.
    pub groups_encoded: u64,
    /// Live files that were kept because somebody else changed them since: the run ended with exceptions.
    pub exceptions: Vec<String>,
}

/// Makes few large files of many small ones, and few large row groups of many small ones, in each folder; sorts, and changes
/// codec and row group size where that is asked for. What is as it should be stays: name and ETag. The rows are the same
/// before and after.
///
/// # Errors
/// `MissingColumn` for a column to sort by that is not there, `Conflict` if another run was first, and those of the store.
/// After any of them the table is as it was.
pub async fn compact(dataset: &Dataset, options: &CompactOptions, mode: Mode) -> Result<CompactReport> {
    let snapshot = if mode == Mode::DryRun { dataset.view().await? } else { dataset.observe().await? };
    let head = snapshot.observed.head.clone();
    let done = compact_snapshot(dataset, &snapshot, options, mode).await;
    match done {
        Err(e) => Err(dataset.journal().explain(e, &head).await),
        done => done,
    }
}

async fn compact_snapshot(
    dataset: &Dataset,
    snapshot: &Snapshot,
    options: &CompactOptions,
    mode: Mode,
) -> Result<CompactReport> {
    let files = snapshot.open_files().await?;
    let units = units(snapshot, &files, options)?;
    let sources = || units.iter().flat_map(|u| &u.sources);
    let mut report = CompactReport {
        outcome: "unchanged",
        version: snapshot.observed.head.version,
        rows: files.iter().map(OpenFile::rows).sum(),
        files_before: files.len() as u64,
        files_replaced: sources().count() as u64,
        bytes_replaced: sources().map(|f| f.file.size).sum(),
        ..CompactReport::default()
    };
    if units.is_empty() {
        return Ok(report);
    }
    report.outcome = "planned";
    if mode == Mode::DryRun {
        return Ok(report);
    }
    let mut replace = dataset.journal().replace(&snapshot.observed);
    for file in sources() {
        let listed = snapshot.observed.file(&file.file.path);
        replace.retire(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
    }
    let wanted: u64 = sources().map(OpenFile::rows).sum();
    let stager = replace.stager();
    let written = rewrite_units(units, &stager, session(options.parallelism, options.memory)?)
        .await
        .and_then(|w| complete(w, wanted));
    let written = match written {
        Ok(written) => written,
        Err(e) => {
            replace.abandon().await?;
            return Err(e);
        }
    };
    for w in written {
        report.files_written += 1;
        report.bytes_written += w.file.size;
        report.groups_copied += w.copied;
        report.groups_encoded += w.encoded;
        replace.publish(stager.staged(w.file));
    }
    let partition_by: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
    for (name, value) in snapshot.facts(&snapshot.schema(&files)?, &partition_by)? {
        replace.with_meta(name, value);
    }
    replace.with_report(serde_json::json!({
        "compacted": {"files_replaced": report.files_replaced, "files_written": report.files_written},
        "rows": {"before": report.rows, "after": report.rows},
    }));
    let committed = replace.commit().await?;
    report.version = committed.version;
    report.outcome = if committed.outcome == Outcome::Committed { "committed" } else { "unchanged" };
    report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
    Ok(report)
}

/// A compaction that loses a row is a defect, and must not be committed.
fn complete(written: Vec<Written>, wanted: u64) -> Result<Vec<Written>> {
    let rows: u64 = written.iter().filter_map(|w| w.file.rows).sum();
    if rows != wanted {
        return Err(Error::internal(format!("{rows} rows were written where there are {wanted}")));
    }
    Ok(written)
}

/// The work there is, folder by folder.
fn units(snapshot: &Snapshot, files: &[OpenFile], options: &CompactOptions) -> Result<Vec<Unit>> {
    let table = snapshot.schema(files)?;
    let in_path = |name: &String| snapshot.partition_columns().iter().any(|(p, _)| p == name);
    let data: Vec<_> = table.fields().iter().filter(|f| !in_path(f.name())).cloned().collect();
    let schema: SchemaRef = Arc::new(Schema::new(data));
    if let Some(by) = options.sort_by.iter().find(|by| schema.index_of(&by.column).is_err()) {
        let message = format!("there is no column `{}` in the files to sort by", by.column);
        return Err(Error::usage("MissingColumn", message));
    }
    let mut folders: BTreeMap<&str, Vec<&OpenFile>> = BTreeMap::new();
    for file in files {
        let folder = file.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        folders.entry(folder).or_default().push(file);
    }
    let mut units = Vec::new();
    for (folder, files) in folders {
        let sources = if options.sort_by.is_empty() {
            bins(&files, options)
        } else if is_sorted(&files, options) {
            vec![]
        } else {
            vec![files]
        };
        for sources in sources {
            let sources = sources.into_iter().cloned().collect();
            let unit = Unit::of(sources, schema.clone(), folder)
                .with_small_groups(SmallGroups::Join)
                .with_sort_by(options.sort_by.clone())
                .with_parquet(options.parquet.clone())
                .with_max_file_size(options.target_size);
            units.push(unit);
        }
    }
    Ok(units)
}

/// Small files that are put together, and single files that are not as they should be.
fn bins<'a>(files: &[&'a OpenFile], options: &CompactOptions) -> Vec<Vec<&'a OpenFile>> {
    let (mut bins, mut open): (Vec<Vec<&OpenFile>>, Vec<&OpenFile>) = (Vec::new(), Vec::new());
    let size = |files: &[&OpenFile]| files.iter().map(|f| f.file.size).sum::<u64>();
    for file in files {
        if file.file.size >= options.target_size / 2 {
            bins.push(vec![file]);
            continue;
        }
        if size(&open) + file.file.size > options.target_size {
            bins.push(std::mem::take(&mut open));
        }
        open.push(file);
    }
    bins.push(open);
    bins.retain(|bin| bin.len() > 1 || bin.iter().any(|f| !is_as_wanted(f, &options.parquet)));
    bins
}

/// Whether a file has the codec and the row groups that are wanted, and not two small row groups that could be one.
fn is_as_wanted(file: &OpenFile, parquet: &ParquetOptions) -> bool {
    let groups = file.metadata().metadata().row_groups();
    let codec = |codec| groups.iter().flat_map(|g| g.columns()).all(|c| same_codec(c.compression(), codec));
    let (largest, usual) = (largest_group(std::slice::from_ref(file)), usual_rows(std::slice::from_ref(file)));
    let full = parquet.row_group_rows.map_or(usual, |rows| rows as u64);
    let rows: Vec<u64> = groups.iter().map(|g| u64::try_from(g.num_rows()).unwrap_or(0)).collect();
    let joinable = rows.windows(2).any(|w| w[0] < full / 2 && w[1] < full / 2);
    parquet.compression.is_none_or(codec) && largest <= full && !joinable
}

/// Whether the files say that they are sorted so, none is wanted otherwise, and their rows follow one another.
fn is_sorted(files: &[&OpenFile], options: &CompactOptions) -> bool {
    let Some(by) = options.sort_by.first() else { return false };
    let says = |file: &OpenFile| {
        let index = |by: &SortBy| file.schema().index_of(&by.column).ok().and_then(|i| i32::try_from(i).ok());
        let wanted: Vec<_> = options.sort_by.iter().map(|by| (index(by), by.descending, false)).collect();
        file.metadata().metadata().row_groups().iter().all(|g| {
            let has = g.sorting_columns().into_iter().flatten();
            has.map(|c| (Some(c.column_idx), c.descending, c.nulls_first)).eq(wanted.iter().copied())
        })
    };
    let sound = files.iter().all(|f| says(f) && has_sound_statistics(f) && is_as_wanted(f, &options.parquet));
    sound && (files.len() == 1 || follow_one_another(files, &by.column).unwrap_or(false))
}

/// Whether no two files hold values of this column in between one another; none if that cannot be told.
fn follow_one_another(files: &[&OpenFile], column: &str) -> Option<bool> {
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
        let least = (0..min.len()).min_by(|a, b| low(*a, *b))?;
        let most = (0..max.len()).max_by(|a, b| high(*a, *b))?;
        mins.push(min.slice(least, 1));
        maxes.push(max.slice(most, 1));
    }
    let refs = |arrays: &[Arc<dyn Array>]| -> Option<Arc<dyn Array>> {
        concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>()).ok()
    };
    let (mins, maxes) = (refs(&mins)?, refs(&maxes)?);
    let low = make_comparator(&mins, &mins, SortOptions::default()).ok()?;
    let between = make_comparator(&maxes, &mins, SortOptions::default()).ok()?;
    let mut order: Vec<usize> = (0..mins.len()).collect();
    order.sort_by(|a, b| low(*a, *b));
    Some(order.windows(2).all(|w| between(w[0], w[1]).is_le()))
}
