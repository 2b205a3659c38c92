//! The plan of a merge: which rows of which files change, and where new rows are written.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::OpenFile;
use biscuit_dataset::internal::{FolderSpelling, partition_folders};
use biscuit_merge::RowCounts;
use biscuit_merge::internal::{CellLocation, KeyOutcome, KeyTable, RowChange, TargetRows};
use biscuit_rewrite::internal::default_rows;
use biscuit_rewrite::unit::{InsertedRows, RowGroupEdits};
use biscuit_rewrite::{BufferedRows, RewriteUnit, SpillFolder};
use datafusion::arrow::array::{AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use hashbrown::HashMap;

use crate::options::MergeOptions;
use crate::plan::fingerprints::{DuplicateFiles, FileDigest, FingerprintInput, PeriodFingerprints};
use crate::plan::joining::join_small_files;
use crate::plan::placement::{FileCapacity, RowGroupCapacity, RowPlacement, place_rows};
use crate::table::key_statistics::KeyStatistics;
use crate::table::open_files::folder_of;
use crate::table::scan::{self, StoredRows};

/// New rows and edits of files, before anything is committed. The plan grows part by part. Its rows are on the disk
/// if the run does not fit into memory.
#[derive(Debug, Default)]
pub(crate) struct MergePlan {
    /// Edits of existing rows, by file and row group.
    pub(crate) edits: BTreeMap<usize, BTreeMap<usize, RowGroupEdits>>,
    /// New rows of existing files, without partition columns.
    pub(crate) inserts: BTreeMap<usize, Vec<InsertedRows>>,
    /// New rows of new files by folder, without partition columns. An empty list means that the rows were written
    /// already: the folder still has a new file.
    pub(crate) added: BTreeMap<String, Vec<BufferedRows>>,
    /// Files that are rewritten although none of their rows changes, because a column became wider.
    pub(crate) widened: BTreeSet<usize>,
    pub(crate) counts: RowCounts,
    /// Room for new rows in the files of each folder.
    capacities: BTreeMap<String, Vec<FileCapacity>>,
    /// Folder on the disk for rows that do not fit into memory.
    spill: Option<Arc<SpillFolder>>,
    /// Fingerprints of the edits, for a table with periods.
    fingerprints: Option<PeriodFingerprints>,
}

/// The changed rows of a part in one period, before they are divided by file and row group.
#[derive(Debug, Default)]
pub(crate) struct PartPlan {
    /// Removed rows.
    removed: Vec<scan::RowLocation>,
    /// New rows in the order of keys.
    written: Vec<NewRow>,
}

/// A row to write: location of the row that it replaces, if there is one, its key, and locations of its values.
#[derive(Debug)]
struct NewRow {
    place: Option<scan::RowLocation>,
    key: u32,
    cells: CellLocation,
}

/// The input of planning.
pub(crate) struct PlanInput<'a> {
    pub(crate) files: &'a [OpenFile],
    /// For each file, the first row of each row group, and as last entry the number of rows.
    pub(crate) starts: &'a [Vec<u64>],
    pub(crate) target: &'a SchemaRef,
    /// Schema of files, without partition columns.
    pub(crate) data: SchemaRef,
    pub(crate) partition_by: &'a [String],
    pub(crate) spelling: &'a FolderSpelling,
    pub(crate) tables: &'a TargetRows,
    pub(crate) keys: &'a KeyTable,
    pub(crate) stored: &'a StoredRows,
    /// Key columns.
    pub(crate) key: &'a [String],
    /// Folder of the current period; empty for a table without periods.
    pub(crate) within: &'a str,
    /// Size in bytes from which a file gets no further rows.
    pub(crate) target_size: u64,
    /// Maximum number of rows of a row group, if it was configured.
    pub(crate) row_group_rows: Option<u64>,
    pub(crate) cores: usize,
}

/// Number of rows that are gathered at a time.
const BATCH: usize = 8192;

impl MergePlan {
    /// Begins a plan: files whose columns become wider are rewritten. With `spill`, new rows are written to the disk.
    /// In a table with periods (`by_period`), edits get fingerprints.
    pub(crate) fn begin(files: &[OpenFile], target: &Schema, by_period: bool, spill: Option<Arc<SpillFolder>>) -> Self {
        let mut plan = Self { spill, fingerprints: by_period.then(PeriodFingerprints::default), ..Self::default() };
        plan.counts.before = files.iter().map(OpenFile::rows).sum();
        let same = |x: &Arc<Field>| target.field_with_name(x.name()).is_ok_and(|t| t.data_type() == x.data_type());
        plan.widened = (0..files.len()).filter(|&i| !files[i].schema().fields().iter().all(same)).collect();
        plan
    }

    /// Ends planning, and computes the number of rows after the run. Nothing is written to the disk any more.
    pub(crate) fn finish(&mut self) {
        self.spill = None;
        let c = &mut self.counts;
        if self.fingerprints.is_some() {
            // Each period has its own counts.
            return;
        }
        c.after = c.before + c.inserted - c.deleted - c.duplicate_target_keys;
    }

    /// Adds edits of a row group.
    fn add_edits(&mut self, file: usize, group: usize, edits: RowGroupEdits) -> Result<()> {
        let edits = match &self.spill {
            Some(spill) => edits.spill(spill)?,
            None => edits,
        };
        self.edits.entry(file).or_default().entry(group).or_default().extend(edits);
        Ok(())
    }

    /// Keeps new rows in memory or on the disk.
    fn buffer_rows(&self, rows: RecordBatch) -> Result<BufferedRows> {
        match &self.spill {
            Some(spill) => spill.write(&rows),
            None => Ok(rows.into()),
        }
    }

    /// Begins the next part of the records.
    pub(crate) fn next_part(&mut self) {
        self.fingerprints.iter_mut().for_each(PeriodFingerprints::next_part);
    }

    /// Adds rows of an edit to the fingerprints.
    fn add_fingerprint<'a>(
        &mut self,
        input: impl FnOnce() -> FingerprintInput,
        what: u8,
        news: impl Iterator<Item = &'a NewRow>,
    ) {
        if let Some(fingerprints) = &mut self.fingerprints {
            // For a row that is moved to another place, its former place does not matter.
            let rows = news.map(|new| (new.place.filter(|_| what == b'=').map(|p| p.row), &new.cells));
            fingerprints.add_rows(input(), what, rows);
        }
    }

    /// Finds files that become equal to others, and new files with the same rows as others. `contents` has the content
    /// of each opened file.
    pub(crate) fn find_duplicates(
        &self,
        contents: &[Arc<str>],
        units: &BTreeMap<usize, Option<RewriteUnit>>,
    ) -> DuplicateFiles {
        let mut same = DuplicateFiles::default();
        let Some(fingerprints) = &self.fingerprints else { return same };
        let mut first: HashMap<(&str, FileDigest), usize> = HashMap::new();
        for file in units.iter().filter(|(_, unit)| unit.is_some()).map(|(file, _)| *file) {
            let key = (contents[file].as_ref(), fingerprints.fingerprint(&FingerprintInput::File(file)));
            let first = *first.entry(key).or_insert(file);
            if first != file {
                same.units.insert(file, first);
            }
        }
        let mut first: HashMap<FileDigest, &str> = HashMap::new();
        for folder in self.added.iter().filter(|(_, rows)| !rows.is_empty()).map(|(folder, _)| folder) {
            let first =
                *first.entry(fingerprints.fingerprint(&FingerprintInput::New(folder.clone()))).or_insert(folder);
            if first != folder {
                same.added.insert(folder.clone(), first.to_owned());
            }
        }
        same
    }

    /// Writes the rows of new files that were not staged yet to the disk, if the run does not fit into memory.
    pub(crate) fn spill_added(&mut self) -> Result<()> {
        let Some(spill) = &self.spill else { return Ok(()) };
        for rows in self.added.values_mut() {
            *rows = std::mem::take(rows).into_iter().map(|r| r.spill(spill)).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Whether no file changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.inserts.is_empty() && self.added.is_empty() && self.widened.is_empty()
    }

    /// Returns the files that are rewritten or removed.
    pub(crate) fn changed_files(&self) -> BTreeSet<usize> {
        self.edits.keys().chain(&self.widened).chain(self.inserts.keys()).copied().collect()
    }

    /// Whether all rows of a file are removed and none is added.
    fn is_emptied(&self, file: usize, files: &[OpenFile]) -> bool {
        let removed: u64 = self.edits.get(&file).iter().flat_map(|e| e.values()).map(RowGroupEdits::removed).sum();
        removed == files[file].rows() && !self.inserts.contains_key(&file)
    }

    /// Returns the rewrite of each changed file, by index; `None` for a file that is removed. Takes the edits out of
    /// the plan.
    pub(crate) fn rewrite_units(
        &mut self,
        files: &[OpenFile],
        schema: &SchemaRef,
        options: &MergeOptions,
    ) -> BTreeMap<usize, Option<RewriteUnit>> {
        let mut units = BTreeMap::new();
        for file in self.changed_files() {
            let empty = self.is_emptied(file, files);
            let edits = self.edits.remove(&file).unwrap_or_default();
            let unit = rewrite_of(&files[file], schema, options)
                .with_edits(edits)
                .with_inserts(self.inserts.remove(&file).unwrap_or_default());
            units.insert(file, (!empty).then_some(unit));
        }
        // In a table with periods, files that become equal are found file by file.
        if self.fingerprints.is_none() {
            join_small_files(&mut units, files, schema, options);
        }
        units
    }

    /// Returns the new files that were not staged yet. Takes their rows out of the plan.
    pub(crate) fn new_files(&mut self, schema: &SchemaRef, options: &MergeOptions) -> Vec<RewriteUnit> {
        let unit = |(folder, rows): (String, Vec<BufferedRows>)| {
            let inserts = rows.into_iter().map(|rows| InsertedRows::new(None, rows)).collect();
            new_file(folder, schema, options).with_inserts(inserts)
        };
        let all = std::mem::take(&mut self.added).into_iter();
        all.filter(|(_, rows)| !rows.is_empty()).map(unit).collect()
    }
}

impl PlanInput<'_> {
    /// Begins the draft of a part with the rows of other keys that a truncate removes.
    pub(crate) fn begin_part(&self, plan: &mut MergePlan) -> PartPlan {
        let mut draft = PartPlan::default();
        for (file, rows) in (self.stored.first..).zip(&self.stored.truncated) {
            plan.counts.deleted += rows.len() as u64;
            draft.removed.extend(rows.iter().map(|&row| scan::RowLocation { file, row }));
        }
        draft
    }

    /// Adds the outcomes of keys to the draft.
    pub(crate) fn add_outcomes(&self, outcomes: Vec<KeyOutcome>, draft: &mut PartPlan, plan: &mut MergePlan) {
        let columns = self.target.fields().len();
        for outcome in outcomes {
            for surplus in self.stored.duplicates(outcome.key) {
                plan.counts.duplicate_target_keys += 1;
                draft.removed.push(*surplus);
            }
            let place = self.stored.row(outcome.key).map(|s| s.place);
            match outcome.row {
                RowChange::Keep => {}
                RowChange::Remove => {
                    draft.removed.push(place.expect("a removed row is stored"));
                    plan.counts.deleted += 1;
                }
                RowChange::Insert => {
                    plan.counts.inserted += 1;
                    draft.written.push(NewRow {
                        place: None,
                        key: outcome.key,
                        cells: outcome.state.row_location(columns),
                    });
                }
                RowChange::Replace => {
                    plan.counts.updated += 1;
                    draft.written.push(NewRow { place, key: outcome.key, cells: outcome.state.row_location(columns) });
                }
            }
        }
    }

    /// Turns a draft into edits of row groups, and places new rows.
    /// A changed row that remains in its folder replaces the stored row at its place. A row whose folder changes is
    /// removed from its file and placed in the new folder. The rest are inserts.
    pub(crate) fn reconcile(&self, mut draft: PartPlan, plan: &mut MergePlan) -> Result<()> {
        let mut replaced: Vec<&NewRow> = Vec::new();
        let mut inserts: BTreeMap<String, Vec<&NewRow>> = BTreeMap::new();
        let mut within: Vec<&NewRow> = Vec::new();
        let is_within: Vec<bool> = self.files.iter().map(|f| folder_of(f.path()) == self.within).collect();
        for news in draft.written.chunks(BATCH) {
            let folders = self.folders_of_rows(news)?;
            for (at, new) in news.iter().enumerate() {
                let folder = folders.as_ref().map(|folders| &folders[at]);
                let stays = |place: scan::RowLocation| match folder {
                    Some(folder) => folder_of(self.files[place.file].path()) == folder,
                    None => is_within[place.file],
                };
                match new.place {
                    Some(place) if stays(place) => {
                        replaced.push(new);
                        continue;
                    }
                    Some(place) => {
                        plan.counts.repartitioned += 1;
                        draft.removed.push(place);
                    }
                    None => {}
                }
                match folder {
                    None => within.push(new),
                    Some(folder) => match inserts.get_mut(folder) {
                        Some(of_folder) => of_folder.push(new),
                        None => drop(inserts.insert(folder.clone(), vec![new])),
                    },
                }
            }
        }
        if !within.is_empty() {
            inserts.insert(self.within.to_owned(), within);
        }
        // Sorted by file and row, so that the rows of a row group are adjacent. Edits need rows in ascending order,
        // and fingerprints the same order in all periods.
        draft.removed.sort_unstable();
        for same in draft.removed.chunk_by(|a, b| self.group_of(*a) == self.group_of(*b)) {
            let (file, group) = self.group_of(same[0]);
            let mut edits = RowGroupEdits::default();
            edits.remove_rows(&same.iter().map(|p| p.row).collect::<Vec<_>>());
            if let Some(fingerprints) = &mut plan.fingerprints {
                fingerprints.add_removed_rows(FingerprintInput::File(file), same.iter().map(|p| p.row));
            }
            plan.add_edits(file, group, edits)?;
        }
        let place = |new: &NewRow| new.place.expect("`replaced` has only rows that replace a stored row");
        replaced.sort_unstable_by_key(|new| place(new));
        let mut groups = replaced.chunk_by(|a, b| self.group_of(place(a)) == self.group_of(place(b))).peekable();
        while groups.peek().is_some() {
            // As many row groups at a time as there are cores, so that only these are in memory.
            let now: Vec<&[&NewRow]> = groups.by_ref().take(self.cores).collect();
            for (same, rows) in now.iter().zip(self.gather_groups(&now)) {
                let (file, group) = self.group_of(place(same[0]));
                let mut edits = RowGroupEdits::default();
                edits.replace_rows(&same.iter().map(|new| place(new).row).collect::<Vec<_>>(), &rows?)?;
                plan.add_fingerprint(|| FingerprintInput::File(file), b'=', same.iter().copied());
                plan.add_edits(file, group, edits)?;
            }
        }
        for (folder, news) in inserts {
            self.place_rows(&folder, &news, plan)?;
        }
        Ok(())
    }

    /// Returns the file and the row group of a row.
    fn group_of(&self, place: scan::RowLocation) -> (usize, usize) {
        (place.file, self.starts[place.file].partition_point(|first| *first <= place.row) - 1)
    }

    /// Gathers new rows, without partition columns.
    fn gather_rows(&self, news: &[&NewRow]) -> Result<RecordBatch> {
        self.tables.gather_rows(self.target, &self.data, &news.iter().map(|n| &n.cells).collect::<Vec<_>>())
    }

    /// Gathers the new rows of several row groups, each on its own core.
    fn gather_groups(&self, groups: &[&[&NewRow]]) -> Vec<Result<RecordBatch>> {
        let [first, others @ ..] = groups else { return vec![] };
        std::thread::scope(|scope| {
            let others: Vec<_> = others.iter().map(|news| scope.spawn(|| self.gather_rows(news))).collect();
            let first = self.gather_rows(first);
            let joined = others.into_iter().map(|rows| rows.join().unwrap_or_else(|panic| resume_unwind(panic)));
            std::iter::once(first).chain(joined).collect()
        })
    }

    /// Returns the folder of each row; `None` without partition columns, when all rows are in the folder of the
    /// period.
    fn folders_of_rows(&self, news: &[NewRow]) -> Result<Option<Vec<String>>> {
        if self.partition_by.is_empty() {
            return Ok(None);
        }
        let columns = |n: &String| self.target.index_of(n).ok();
        let columns: Vec<usize> = self.partition_by.iter().filter_map(columns).collect();
        let schema = Arc::new(self.target.project(&columns).expect("indices come from this schema"));
        let rows = self.tables.gather_rows(self.target, &schema, &news.iter().map(|n| &n.cells).collect::<Vec<_>>())?;
        let mut folders = row_folders(&rows, self.partition_by, self.spelling)?;
        if !self.within.is_empty() {
            folders.iter_mut().for_each(|folder| *folder = format!("{}/{folder}", self.within));
        }
        Ok(Some(folders))
    }

    /// Places the new rows of a folder, which are sorted by key, in files and row groups.
    fn place_rows(&self, folder: &str, news: &[&NewRow], plan: &mut MergePlan) -> Result<()> {
        // If a key column is a partition column, files do not contain it, and the statistics of row groups do not
        // bound the keys.
        let bounded = !self.key.iter().any(|k| self.partition_by.contains(k));
        let keys: Vec<Option<&[u8]>> = news.iter().map(|n| bounded.then(|| self.keys.bytes(n.key))).collect();
        let mut capacities = match plan.capacities.remove(folder) {
            None => self.file_capacities(folder, plan)?,
            // A part before this one has used some of the room. Files that were edited since are written in any case.
            Some(mut capacities) => {
                let touched = plan.changed_files();
                capacities.iter_mut().for_each(|c| c.touched |= touched.contains(&c.file));
                capacities
            }
        };
        let places = place_rows(&keys, &mut capacities, self.target_size);
        plan.capacities.insert(folder.to_owned(), capacities);
        let mut by_place: BTreeMap<Option<RowPlacement>, Vec<&NewRow>> = BTreeMap::new();
        for (new, place) in news.iter().zip(places) {
            by_place.entry(place).or_default().push(new);
        }
        for (place, news) in by_place {
            plan.add_fingerprint(|| fingerprint_input(place, folder), b'+', news.iter().copied());
            for news in news.chunks(BATCH) {
                let rows = self.gather_rows(news)?;
                match place {
                    Some((file, group)) => {
                        let rows = plan.buffer_rows(rows)?;
                        plan.inserts.entry(file).or_default().push(InsertedRows::new(group, rows));
                    }
                    None => plan.added.entry(folder.to_owned()).or_default().push(rows.into()),
                }
            }
        }
        Ok(())
    }

    /// Returns the files of a folder with the room in their row groups.
    fn file_capacities(&self, folder: &str, plan: &MergePlan) -> Result<Vec<FileCapacity>> {
        let touched = plan.changed_files();
        let mut capacities = Vec::new();
        for (i, file) in self.files.iter().enumerate().filter(|(_, f)| folder_of(f.path()) == folder) {
            let starts = &self.starts[i];
            let full = self.row_group_rows.unwrap_or_else(|| default_rows(std::slice::from_ref(file)));
            let edits = plan.edits.get(&i);
            let capacity = |(g, bounds): (usize, KeyStatistics)| {
                let own = edits.and_then(|e| e.get(&g));
                // Removed rows make room for new ones.
                let rows = starts[g + 1] - starts[g] - own.map_or(0, RowGroupEdits::removed);
                RowGroupCapacity { bounds, capacity: full.saturating_sub(rows), touched: own.is_some() }
            };
            let groups =
                KeyStatistics::read_bounds(file, &self.key[0])?.into_iter().enumerate().map(capacity).collect();
            capacities.push(FileCapacity { file: i, size: file.size(), touched: touched.contains(&i), groups });
        }
        Ok(capacities)
    }
}

/// Returns the rewrite of a file, without edits.
pub(crate) fn rewrite_of(file: &OpenFile, schema: &SchemaRef, options: &MergeOptions) -> RewriteUnit {
    RewriteUnit::new(file.clone(), schema.clone(), folder_of(file.path()))
        .with_parquet(options.parquet.clone())
        .with_max_file_size(options.max_file_size)
}

/// Returns the work for a new file without rows, with the maximum size of new files.
pub(crate) fn new_file(folder: String, schema: &SchemaRef, options: &MergeOptions) -> RewriteUnit {
    RewriteUnit::from_sources(vec![], schema.clone(), folder)
        .with_parquet(options.parquet.clone())
        .with_max_file_size(options.target_size.min(options.max_file_size))
}

/// Returns the target of new rows for the fingerprints.
fn fingerprint_input(place: Option<RowPlacement>, folder: &str) -> FingerprintInput {
    match place {
        Some((file, group)) => FingerprintInput::Group(file, group),
        None => FingerprintInput::New(folder.to_owned()),
    }
}

/// Returns the folder of each row.
fn row_folders(batch: &RecordBatch, partition_by: &[String], spelling: &FolderSpelling) -> Result<Vec<String>> {
    let mut folders = vec![String::new(); batch.num_rows()];
    if partition_by.is_empty() {
        return Ok(folders);
    }
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for name in partition_by {
        let at = biscuit_schema::internal::column_index(&batch.schema(), name, "the rows to write")?;
        fields.push(batch.schema().field(at).clone());
        columns.push(batch.column(at).clone());
    }
    // The number of the row is an additional column, with a name that no other column can have. So the rows can be
    // assigned after they were divided by folder.
    fields.push(Field::new("\u{0}row", DataType::UInt32, false));
    columns
        .push(Arc::new(UInt32Array::from_iter_values(0..u32::try_from(batch.num_rows()).expect("a chunk is small"))));
    let numbered = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| Error::internal("rows could not be numbered").with_source(e))?;
    for (folder, rows) in partition_folders(&numbered, partition_by, spelling)? {
        for row in rows.column(0).as_primitive::<UInt32Type>().values() {
            folders[*row as usize].clone_from(&folder);
        }
    }
    Ok(folders)
}
