use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{FolderSpelling, OpenFile, partition_folders};
use biscuit_rewrite::{BufferedRows, InsertedRows, RewriteUnit, RowGroupEdits, SpillFolder, default_rows};
use datafusion::arrow::array::{AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use hashbrown::HashMap;

use crate::keys::key_table::KeyTable;
use crate::options::MergeOptions;
use crate::plan::fingerprints::{DuplicateFiles, FileDigest, FingerprintInput, SliceFingerprints};
use crate::plan::new_files::new_file;
use crate::plan::placement::{FileCapacity, RowGroupCapacity, RowPlacement, places};
use crate::report::RowCounts;
use crate::resolve::outcome::{KeyOutcome, RowChange};
use crate::target::context::MergeContext;
use crate::target::key_statistics::KeyStatistics;
use crate::target::rows::{CellLocation, TargetRows};
use crate::target::scan::{self, StoredRows};

/// New rows and what happens to the files, before anything is written.
#[derive(Debug, Default)]
pub(crate) struct MergePlan {
    /// Edits by file and row group.
    pub(crate) edits: BTreeMap<usize, BTreeMap<usize, RowGroupEdits>>,
    /// Rows that files get besides, without partition columns.
    pub(crate) inserts: BTreeMap<usize, Vec<InsertedRows>>,
    /// Rows of new files by folder, without partition columns; none where they are written already.
    pub(crate) added: BTreeMap<String, Vec<BufferedRows>>,
    /// Files that are rewritten although no row of them changes, since a column became wider.
    pub(crate) widened: BTreeSet<usize>,
    pub(crate) counts: RowCounts,
    /// By folder, where new rows find room.
    placements: BTreeMap<String, Vec<FileCapacity>>,
    /// Where new rows wait that do not fit into memory.
    spill: Option<Arc<SpillFolder>>,
    /// What is done to files, where the same may be done to others.
    fingerprints: Option<SliceFingerprints>,
}

/// What a part of a run comes to.
#[derive(Debug, Default)]
pub(crate) struct PartPlan {
    /// Rows that go.
    removed: Vec<scan::RowLocation>,
    /// New rows by key: the row that each replaces, if it replaces one, its key, and its cells.
    written: Vec<NewRow>,
}

#[derive(Debug)]
struct NewRow {
    place: Option<scan::RowLocation>,
    key: u32,
    cells: CellLocation,
}

/// What a plan is made from.
pub(crate) struct PlanInput<'a> {
    pub(crate) files: &'a [OpenFile],
    /// By file, the first row of each row group, and their number.
    pub(crate) starts: &'a [Vec<u64>],
    pub(crate) target: &'a SchemaRef,
    /// The columns of files.
    pub(crate) data: SchemaRef,
    pub(crate) partition_by: &'a [String],
    pub(crate) spelling: &'a FolderSpelling,
    pub(crate) tables: &'a TargetRows,
    pub(crate) keys: &'a KeyTable,
    pub(crate) stored: &'a StoredRows,
    /// The key columns.
    pub(crate) key: &'a [String],
    /// The folder that all of this is in; empty for the table's own.
    pub(crate) within: &'a str,
    /// Bytes of a file that no more rows are put into.
    pub(crate) target_size: u64,
    /// The most rows of a row group, where that was chosen.
    pub(crate) row_group_rows: Option<u64>,
    pub(crate) cores: usize,
}

/// Rows that are put together at a time.
const BATCH: usize = 8192;

impl MergePlan {
    /// The plan before any key has come to anything: wider columns. New rows wait on the disk, if there is one to wait on. In a table
    /// with slices the same may happen to files of several of them.
    pub(crate) fn begin(files: &[OpenFile], target: &Schema, by_period: bool, spill: Option<Arc<SpillFolder>>) -> Self {
        let mut plan = Self { spill, fingerprints: by_period.then(SliceFingerprints::default), ..Self::default() };
        plan.counts.before = files.iter().map(OpenFile::rows).sum();
        let same = |x: &Arc<Field>| target.field_with_name(x.name()).is_ok_and(|t| t.data_type() == x.data_type());
        plan.widened = (0..files.len()).filter(|&i| !files[i].schema().fields().iter().all(same)).collect();
        plan
    }

    /// The counts when all is planned; nothing goes to the disk any more.
    pub(crate) fn finish(&mut self) {
        self.spill = None;
        let c = &mut self.counts;
        if self.fingerprints.is_some() {
            // Each slice has its own.
            return;
        }
        c.after = c.before + c.inserted - c.deleted - c.duplicate_target_keys;
    }

    fn edit(&mut self, file: usize, group: usize, edits: RowGroupEdits) -> Result<()> {
        let edits = match &self.spill {
            Some(spill) => edits.spilled(spill)?,
            None => edits,
        };
        self.edits.entry(file).or_default().entry(group).or_default().extend(edits);
        Ok(())
    }

    fn rows(&self, rows: RecordBatch) -> Result<BufferedRows> {
        match &self.spill {
            Some(spill) => spill.write(&rows),
            None => Ok(rows.into()),
        }
    }

    /// Goes on to another part of the records.
    pub(crate) fn next_part(&mut self) {
        self.fingerprints.iter_mut().for_each(SliceFingerprints::next_part);
    }

    /// Takes down what is done to a file, or what rows a new one gets.
    fn fingerprint<'a>(
        &mut self,
        place: impl FnOnce() -> FingerprintInput,
        what: u8,
        news: impl Iterator<Item = &'a NewRow>,
    ) {
        if let Some(fingerprints) = &mut self.fingerprints {
            // Where a new row was before, if it was anywhere, does not matter where it is put.
            let rows = news.map(|new| (new.place.filter(|_| what == b'=').map(|p| p.row), &new.cells));
            fingerprints.add(place(), what, rows);
        }
    }

    /// Files that come out as others do, and new ones that get the same rows.
    pub(crate) fn same(&self, p: &MergeContext, units: &BTreeMap<usize, Option<RewriteUnit>>) -> DuplicateFiles {
        let mut same = DuplicateFiles::default();
        let Some(fingerprints) = &self.fingerprints else { return same };
        let mut first: HashMap<(&str, FileDigest), usize> = HashMap::new();
        for file in units.iter().filter(|(_, unit)| unit.is_some()).map(|(file, _)| *file) {
            let key = (p.periods.contents[file].as_ref(), fingerprints.of(&FingerprintInput::File(file)));
            let first = *first.entry(key).or_insert(file);
            if first != file {
                same.units.insert(file, first);
            }
        }
        let mut first: HashMap<FileDigest, &str> = HashMap::new();
        for folder in self.added.iter().filter(|(_, rows)| !rows.is_empty()).map(|(folder, _)| folder) {
            let first = *first.entry(fingerprints.of(&FingerprintInput::New(folder.clone()))).or_insert(folder);
            if first != folder {
                same.added.insert(folder.clone(), first.to_owned());
            }
        }
        same
    }

    /// Puts the rows of new files that nobody has written yet on the disk, if they are to wait there.
    pub(crate) fn spill_added(&mut self) -> Result<()> {
        let Some(spill) = &self.spill else { return Ok(()) };
        for rows in self.added.values_mut() {
            *rows = std::mem::take(rows).into_iter().map(|r| r.spilled(spill)).collect::<Result<_>>()?;
        }
        Ok(())
    }
}

impl PlanInput<'_> {
    /// The draft before any key of the part has come to anything: rows of other keys that a truncate takes away.
    pub(crate) fn begin(&self, plan: &mut MergePlan) -> PartPlan {
        let mut draft = PartPlan::default();
        for (file, rows) in (self.stored.first..).zip(&self.stored.truncated) {
            plan.counts.deleted += rows.len() as u64;
            draft.removed.extend(rows.iter().map(|&row| scan::RowLocation { file, row }));
        }
        draft
    }

    /// Takes down what happens to rows.
    pub(crate) fn add(&self, outcomes: Vec<KeyOutcome>, draft: &mut PartPlan, plan: &mut MergePlan) {
        let columns = self.target.fields().len();
        for outcome in outcomes {
            for surplus in self.stored.surplus(outcome.key) {
                plan.counts.duplicate_target_keys += 1;
                draft.removed.push(*surplus);
            }
            let place = self.stored.row(outcome.key).map(|s| s.place);
            match outcome.row {
                RowChange::Keep => {}
                RowChange::Remove => {
                    draft.removed.push(place.expect("a row that goes is stored"));
                    plan.counts.deleted += 1;
                }
                RowChange::Insert => {
                    plan.counts.inserted += 1;
                    draft.written.push(NewRow { place: None, key: outcome.key, cells: outcome.state.row(columns) });
                }
                RowChange::Replace => {
                    plan.counts.updated += 1;
                    draft.written.push(NewRow { place, key: outcome.key, cells: outcome.state.row(columns) });
                }
            }
        }
    }

    /// Turns a draft into edits of row groups, and finds places for new rows.
    pub(crate) fn reconcile(&self, mut draft: PartPlan, plan: &mut MergePlan) -> Result<()> {
        let mut replaced: Vec<&NewRow> = Vec::new();
        let mut inserts: BTreeMap<String, Vec<&NewRow>> = BTreeMap::new();
        let mut within: Vec<&NewRow> = Vec::new();
        let is_within: Vec<bool> = self.files.iter().map(|f| folder_of(&f.file.path) == self.within).collect();
        for news in draft.written.chunks(BATCH) {
            let folders = self.folders(news)?;
            for (at, new) in news.iter().enumerate() {
                let folder = folders.as_ref().map(|folders| &folders[at]);
                let stays = |place: scan::RowLocation| match folder {
                    Some(folder) => folder_of(&self.files[place.file].file.path) == folder,
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
        draft.removed.sort_unstable();
        for same in draft.removed.chunk_by(|a, b| self.group_of(*a) == self.group_of(*b)) {
            let (file, group) = self.group_of(same[0]);
            let mut edits = RowGroupEdits::default();
            edits.remove(&same.iter().map(|p| p.row).collect::<Vec<_>>());
            if let Some(fingerprints) = &mut plan.fingerprints {
                fingerprints.remove(FingerprintInput::File(file), same.iter().map(|p| p.row));
            }
            plan.edit(file, group, edits)?;
        }
        let place = |new: &NewRow| new.place.expect("only rows that replace one are looked at");
        replaced.sort_unstable_by_key(|new| place(new));
        let mut groups = replaced.chunk_by(|a, b| self.group_of(place(a)) == self.group_of(place(b))).peekable();
        while groups.peek().is_some() {
            let now: Vec<&[&NewRow]> = groups.by_ref().take(self.cores).collect();
            for (same, rows) in now.iter().zip(self.gather_each(&now)) {
                let (file, group) = self.group_of(place(same[0]));
                let mut edits = RowGroupEdits::default();
                edits.replace(&same.iter().map(|new| place(new).row).collect::<Vec<_>>(), &rows?)?;
                plan.fingerprint(|| FingerprintInput::File(file), b'=', same.iter().copied());
                plan.edit(file, group, edits)?;
            }
        }
        for (folder, news) in inserts {
            self.place(&folder, &news, plan)?;
        }
        Ok(())
    }

    fn group_of(&self, place: scan::RowLocation) -> (usize, usize) {
        (place.file, self.starts[place.file].partition_point(|first| *first <= place.row) - 1)
    }

    /// New rows, without partition columns.
    fn gather(&self, news: &[&NewRow]) -> Result<RecordBatch> {
        self.tables.gather(self.target, &self.data, &news.iter().map(|n| &n.cells).collect::<Vec<_>>())
    }

    /// New rows of several row groups, each on a core of its own.
    fn gather_each(&self, groups: &[&[&NewRow]]) -> Vec<Result<RecordBatch>> {
        let [first, others @ ..] = groups else { return vec![] };
        std::thread::scope(|scope| {
            let others: Vec<_> = others.iter().map(|news| scope.spawn(|| self.gather(news))).collect();
            let first = self.gather(first);
            let joined = others.into_iter().map(|rows| rows.join().unwrap_or_else(|panic| resume_unwind(panic)));
            std::iter::once(first).chain(joined).collect()
        })
    }

    /// The folder of every row; none where all are in the one that all of this is in.
    fn folders(&self, news: &[NewRow]) -> Result<Option<Vec<String>>> {
        if self.partition_by.is_empty() {
            return Ok(None);
        }
        let columns = |n: &String| self.target.index_of(n).ok();
        let columns: Vec<usize> = self.partition_by.iter().filter_map(columns).collect();
        let schema = Arc::new(self.target.project(&columns).expect("indices come from this schema"));
        let rows = self.tables.gather(self.target, &schema, &news.iter().map(|n| &n.cells).collect::<Vec<_>>())?;
        let mut folders = row_folders(&rows, self.partition_by, self.spelling)?;
        if !self.within.is_empty() {
            folders.iter_mut().for_each(|folder| *folder = format!("{}/{folder}", self.within));
        }
        Ok(Some(folders))
    }

    /// Finds files and row groups for new rows of a folder, which are sorted by key.
    fn place(&self, folder: &str, news: &[&NewRow], plan: &mut MergePlan) -> Result<()> {
        // Where a key column is in the path, keys say nothing of the place.
        let says = !self.key.iter().any(|k| self.partition_by.contains(k));
        let keys: Vec<Option<&[u8]>> = news.iter().map(|n| says.then(|| self.keys.bytes(n.key))).collect();
        let mut placements = match plan.placements.remove(folder) {
            None => self.placements(folder, plan)?,
            Some(mut placements) => {
                let touched = plan.touched();
                placements.iter_mut().for_each(|h| h.touched |= touched.contains(&h.file));
                placements
            }
        };
        let places = places(&keys, &mut placements, self.target_size);
        plan.placements.insert(folder.to_owned(), placements);
        let mut by_place: BTreeMap<Option<RowPlacement>, Vec<&NewRow>> = BTreeMap::new();
        for (new, place) in news.iter().zip(places) {
            by_place.entry(place).or_default().push(new);
        }
        for (place, news) in by_place {
            plan.fingerprint(|| fingerprinted(place, folder), b'+', news.iter().copied());
            for news in news.chunks(BATCH) {
                let rows = self.gather(news)?;
                match place {
                    Some((file, group)) => {
                        let rows = plan.rows(rows)?;
                        plan.inserts.entry(file).or_default().push(InsertedRows { group, rows });
                    }
                    None => plan.added.entry(folder.to_owned()).or_default().push(rows.into()),
                }
            }
        }
        Ok(())
    }

    /// The files of a folder with the room that their row groups have.
    fn placements(&self, folder: &str, plan: &MergePlan) -> Result<Vec<FileCapacity>> {
        let touched = plan.touched();
        let mut placements = Vec::new();
        for (i, file) in self.files.iter().enumerate().filter(|(_, f)| folder_of(&f.file.path) == folder) {
            let starts = &self.starts[i];
            let full = self.row_group_rows.unwrap_or_else(|| default_rows(std::slice::from_ref(file)));
            let edits = plan.edits.get(&i);
            let capacity = |(g, bounds): (usize, KeyStatistics)| {
                let own = edits.and_then(|e| e.get(&g));
                let rows = starts[g + 1] - starts[g] - own.map_or(0, RowGroupEdits::removed);
                RowGroupCapacity { bounds, capacity: full.saturating_sub(rows), touched: own.is_some() }
            };
            let groups = KeyStatistics::of(file, &self.key[0])?.into_iter().enumerate().map(capacity).collect();
            placements.push(FileCapacity { file: i, size: file.file.size, touched: touched.contains(&i), groups });
        }
        Ok(placements)
    }
}

impl MergePlan {
    /// Whether no file changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.inserts.is_empty() && self.added.is_empty() && self.widened.is_empty()
    }

    /// Files that are written anew or go.
    pub(crate) fn touched(&self) -> BTreeSet<usize> {
        self.edits.keys().chain(&self.widened).chain(self.inserts.keys()).copied().collect()
    }

    /// Whether a file has no rows any more.
    fn empties(&self, file: usize, files: &[OpenFile]) -> bool {
        let removed: u64 = self.edits.get(&file).iter().flat_map(|e| e.values()).map(RowGroupEdits::removed).sum();
        removed == files[file].rows() && !self.inserts.contains_key(&file)
    }

    /// The work on files that are there, by number; files that go have none.
    pub(crate) fn units(
        &mut self,
        files: &[OpenFile],
        schema: &SchemaRef,
        options: &MergeOptions,
    ) -> BTreeMap<usize, Option<RewriteUnit>> {
        let mut units = BTreeMap::new();
        for file in self.touched() {
            let empty = self.empties(file, files);
            let edits = self.edits.remove(&file).unwrap_or_default();
            let source = files[file].clone();
            let folder = folder_of(&source.file.path).to_owned();
            let unit = RewriteUnit::new(source, schema.clone(), folder)
                .with_edits(edits)
                .with_inserts(self.inserts.remove(&file).unwrap_or_default())
                .with_parquet(options.parquet.clone())
                .with_max_file_size(options.max_file_size);
            units.insert(file, (!empty).then_some(unit));
        }
        units
    }

    /// The new files that are yet to be written.
    pub(crate) fn new_files(&mut self, schema: &SchemaRef, options: &MergeOptions) -> Vec<RewriteUnit> {
        let unit = |(folder, rows): (String, Vec<BufferedRows>)| {
            let inserts = rows.into_iter().map(|rows| InsertedRows { group: None, rows }).collect();
            new_file(folder, schema, options).with_inserts(inserts)
        };
        let all = std::mem::take(&mut self.added).into_iter();
        all.filter(|(_, rows)| !rows.is_empty()).map(unit).collect()
    }
}

/// Where new rows go, by file, or the new file of a folder.
fn fingerprinted(place: Option<RowPlacement>, folder: &str) -> FingerprintInput {
    match place {
        Some((file, group)) => FingerprintInput::Group(file, group),
        None => FingerprintInput::New(folder.to_owned()),
    }
}

pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The folder of every row.
fn row_folders(batch: &RecordBatch, partition_by: &[String], spelling: &FolderSpelling) -> Result<Vec<String>> {
    let mut folders = vec![String::new(); batch.num_rows()];
    if partition_by.is_empty() {
        return Ok(folders);
    }
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for name in partition_by {
        let at = biscuit_schema::column_index(&batch.schema(), name, "the rows to write")?;
        fields.push(batch.schema().field(at).clone());
        columns.push(batch.column(at).clone());
    }
    // The row's number rides along under a name that no column can have.
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
