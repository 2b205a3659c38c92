use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{OpenFile, partition_folders};
use biscuit_rewrite::{Choice, Edit, Insert, Unit, choose, usual_rows};
use datafusion::arrow::array::{AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};

use crate::bounds::Bounds;
use crate::encode::{Encoder, Purpose};
use crate::homes::{Home, Place, Room, places};
use crate::merge::MergeOptions;
use crate::outcome::{Outcome, RowChange};
use crate::report::{FileCounts, Partitions, RowCounts};
use crate::scan::{self, Stored};
use crate::table::Tables;

/// New rows and what happens to the files, before anything is written.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// New rows, without partition columns.
    rows: Vec<RecordBatch>,
    /// New rows by folder, until they have a place.
    new: BTreeMap<String, Vec<RecordBatch>>,
    /// Edits by file.
    pub(crate) edits: BTreeMap<usize, BTreeMap<u64, Edit>>,
    /// Rows that files get besides, without partition columns.
    pub(crate) inserts: BTreeMap<usize, Vec<Insert>>,
    /// Rows of new files by folder, without partition columns.
    pub(crate) added: BTreeMap<String, Vec<RecordBatch>>,
    /// Files that are rewritten although no row of them changes, since a column became wider.
    pub(crate) widened: BTreeSet<usize>,
    pub(crate) counts: RowCounts,
}

/// What a plan is made from.
pub(crate) struct Planner<'a> {
    pub(crate) files: &'a [OpenFile],
    pub(crate) target: &'a SchemaRef,
    pub(crate) partition_by: &'a [String],
    pub(crate) tables: &'a Tables,
    pub(crate) stored: &'a Stored,
    /// The key columns.
    pub(crate) key: &'a [String],
    /// Bytes of a file that no more rows are put into.
    pub(crate) target_size: u64,
    /// The most rows of a row group, where that was chosen.
    pub(crate) row_group_rows: Option<u64>,
}

impl Planner<'_> {
    /// The plan before any key has come to anything: rows of other keys that a truncate takes away, and wider columns.
    pub(crate) fn begin(&self) -> Plan {
        let mut plan = Plan::default();
        plan.counts.before = self.files.iter().map(OpenFile::rows).sum();
        for (file, rows) in self.stored.truncated.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            plan.counts.deleted += rows.len() as u64;
            plan.edits.entry(file).or_default().extend(rows.iter().map(|r| (*r, Edit::Remove)));
        }
        let wider = |f: &OpenFile| {
            let same =
                |x: &Arc<Field>| self.target.field_with_name(x.name()).is_ok_and(|t| t.data_type() == x.data_type());
            !f.schema().fields().iter().all(same)
        };
        plan.widened = (0..self.files.len()).filter(|&i| wider(&self.files[i])).collect();
        plan
    }

    /// Turns outcomes into edits of files and new rows.
    pub(crate) fn add(&self, outcomes: &[Outcome], plan: &mut Plan) -> Result<()> {
        let mut written: Vec<&Outcome> = Vec::new();
        for outcome in outcomes {
            let stored = self.stored.rows.get(&outcome.key);
            for surplus in stored.iter().flat_map(|s| &s.surplus) {
                plan.counts.duplicate_target_keys += 1;
                plan.remove(*surplus);
            }
            match outcome.row {
                RowChange::Keep => {}
                RowChange::Remove => {
                    plan.remove(stored.expect("a row that goes is stored").place);
                    plan.counts.deleted += 1;
                }
                RowChange::Insert | RowChange::Replace => written.push(outcome),
            }
        }
        if written.is_empty() { Ok(()) } else { self.write(&written, plan) }
    }

    /// Finds places for the new rows, when all are known.
    pub(crate) fn finish(&self, plan: &mut Plan) -> Result<()> {
        for (folder, batches) in std::mem::take(&mut plan.new) {
            self.place(&folder, &batches, plan)?;
        }
        let c = &mut plan.counts;
        c.after = c.before + c.inserted - c.deleted - c.duplicate_target_keys;
        Ok(())
    }

    fn write(&self, outcomes: &[&Outcome], plan: &mut Plan) -> Result<()> {
        let (columns, updated) = (self.target.fields().len(), plan.counts.updated);
        let sources: Vec<_> = outcomes.iter().map(|o| o.state.row(columns)).collect();
        let whole = self.tables.gather(self.target, &sources)?;
        let folders = row_folders(&whole, self.partition_by)?;
        let data: Vec<usize> =
            (0..columns).filter(|&i| !self.partition_by.contains(self.target.field(i).name())).collect();
        let data = whole.project(&data).expect("indices come from this batch");
        let mut inserts: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (i, outcome) in outcomes.iter().enumerate() {
            let number = u32::try_from(i).expect("a chunk is small");
            if outcome.row == RowChange::Insert {
                plan.counts.inserted += 1;
                inserts.entry(&folders[i]).or_default().push(number);
                continue;
            }
            plan.counts.updated += 1;
            let place = self.stored.rows[&outcome.key].place;
            if folder_of(&self.files[place.file].file.path) == folders[i] {
                let batch = u32::try_from(plan.rows.len()).expect("there are fewer than 2^32 batches");
                let edit = Edit::Replace { batch, row: number };
                plan.edits.entry(place.file).or_default().insert(place.row, edit);
            } else {
                plan.counts.moved += 1;
                plan.remove(place);
                inserts.entry(&folders[i]).or_default().push(number);
            }
        }
        for (folder, numbers) in inserts {
            let batch = take_record_batch(&data, &UInt32Array::from(numbers))
                .map_err(|e| Error::internal("rows to insert could not be picked").with_source(e))?;
            plan.new.entry(folder.to_owned()).or_default().push(batch);
        }
        if plan.counts.updated > updated {
            plan.rows.push(data);
        }
        Ok(())
    }

    /// Finds files and row groups for new rows of a folder, which are sorted by key.
    fn place(&self, folder: &str, batches: &[RecordBatch], plan: &mut Plan) -> Result<()> {
        let failed = |e| Error::internal("new rows could not be sorted").with_source(e);
        let schema = batches.first().map(RecordBatch::schema).unwrap_or_else(|| self.target.clone());
        let rows = concat_batches(&schema, batches).map_err(failed)?;
        let keys = self.keys(&rows)?;
        let mut order: Vec<u32> =
            (0..u32::try_from(rows.num_rows()).expect("a run has fewer than 2^32 rows")).collect();
        order.sort_by(|a, b| keys.get(*a as usize).cmp(&keys.get(*b as usize)));
        let sorted: Vec<Option<&[u8]>> = order.iter().map(|&r| keys.get(r as usize).map(Vec::as_slice)).collect();
        let places = places(&sorted, &mut self.homes(folder, plan)?, self.target_size);
        let mut by_place: BTreeMap<Option<Place>, Vec<u32>> = BTreeMap::new();
        for (row, place) in order.into_iter().zip(places) {
            by_place.entry(place).or_default().push(row);
        }
        for (place, numbers) in by_place {
            let rows = take_record_batch(&rows, &UInt32Array::from(numbers)).map_err(failed)?;
            match place {
                Some((file, group)) => plan.inserts.entry(file).or_default().push(Insert { group, rows }),
                None => plan.added.entry(folder.to_owned()).or_default().push(rows),
            }
        }
        Ok(())
    }

    /// The keys of new rows, encoded; nothing where a key column is in the path, since then they say nothing of the place.
    fn keys(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        if self.key.iter().any(|k| self.partition_by.contains(k)) {
            return Ok(vec![]);
        }
        let encoder = Encoder::new(rows, self.key, Purpose::Key, "the new rows")?;
        let key = |row| {
            let mut bytes = Vec::new();
            encoder.encode(row, &mut bytes).map_err(|_| Error::internal("a new row has a null in its key"))?;
            Ok(bytes)
        };
        (0..rows.num_rows()).map(key).collect()
    }

    /// The files of a folder with the room that their row groups have.
    fn homes(&self, folder: &str, plan: &Plan) -> Result<Vec<Home>> {
        let touched = plan.touched();
        let mut homes = Vec::new();
        for (i, file) in self.files.iter().enumerate().filter(|(_, f)| folder_of(&f.file.path) == folder) {
            let starts = file.group_starts();
            let full = self.row_group_rows.unwrap_or_else(|| usual_rows(std::slice::from_ref(file)));
            let edits = plan.edits.get(&i);
            let room = |(g, bounds): (usize, Bounds)| {
                let own = edits.iter().flat_map(|e| e.range(starts[g]..starts[g + 1]));
                let (mut edited, mut removed) = (false, 0);
                own.for_each(|(_, e)| (edited, removed) = (true, removed + u64::from(*e == Edit::Remove)));
                let rows = starts[g + 1] - starts[g] - removed;
                Room { bounds, room: full.saturating_sub(rows), touched: edited }
            };
            let groups = Bounds::of(file, &self.key[0])?.into_iter().enumerate().map(room).collect();
            homes.push(Home { file: i, size: file.file.size, touched: touched.contains(&i), groups });
        }
        Ok(homes)
    }
}

impl Plan {
    fn remove(&mut self, place: scan::Place) {
        self.edits.entry(place.file).or_default().insert(place.row, Edit::Remove);
    }

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
        let removed = self.edits.get(&file).map_or(0, |e| e.values().filter(|e| **e == Edit::Remove).count());
        removed as u64 == files[file].rows() && !self.inserts.contains_key(&file)
    }

    /// The work on files that are there, by number; files that go have none.
    pub(crate) fn units(
        &mut self,
        files: &[OpenFile],
        schema: &SchemaRef,
        options: &MergeOptions,
    ) -> BTreeMap<usize, Option<Unit>> {
        let (mut units, rows) = (BTreeMap::new(), Arc::new(std::mem::take(&mut self.rows)));
        for file in self.touched() {
            let empty = self.empties(file, files);
            let edits = self.edits.remove(&file).unwrap_or_default().into_iter().collect();
            let source = files[file].clone();
            let folder = folder_of(&source.file.path).to_owned();
            let unit = Unit::new(source, schema.clone(), folder)
                .with_edits(edits, rows.clone())
                .with_inserts(self.inserts.remove(&file).unwrap_or_default())
                .with_parquet(options.parquet.clone())
                .with_max_file_size(options.max_file_size);
            units.insert(file, (!empty).then_some(unit));
        }
        units
    }

    /// What the plan does to partitions and files, of which these are worked on.
    pub(crate) fn describe(
        &self,
        files: &[OpenFile],
        units: &BTreeMap<usize, Option<Unit>>,
    ) -> (Partitions, FileCounts) {
        let mut before: BTreeSet<&str> = BTreeSet::new();
        let mut after: BTreeSet<&str> = self.added.keys().map(String::as_str).collect();
        let mut changed: BTreeSet<&str> = after.clone();
        let mut counts = FileCounts { kept: (files.len() - units.len()) as u64, ..FileCounts::default() };
        for (i, file) in files.iter().enumerate() {
            let folder = folder_of(&file.file.path);
            before.insert(folder);
            match units.get(&i) {
                None => drop(after.insert(folder)),
                Some(None) => {
                    changed.insert(folder);
                    counts.removed += 1;
                }
                Some(Some(unit)) => {
                    changed.insert(folder);
                    after.insert(folder);
                    counts.rewritten += 1;
                    counts.spliced += u64::from(choose(unit) == Choice::Splice);
                }
            }
        }
        counts.added = self.added.len() as u64;
        let pick = |was: bool, is: bool| {
            let fits = |f: &&str| before.contains(f) == was && after.contains(f) == is;
            changed.iter().filter(|f| fits(f)).map(|f| (*f).to_owned()).collect()
        };
        (Partitions { added: pick(false, true), changed: pick(true, true), emptied: pick(true, false) }, counts)
    }
}

pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The folder of every row.
fn row_folders(batch: &RecordBatch, partition_by: &[String]) -> Result<Vec<String>> {
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
    for (folder, rows) in partition_folders(&numbered, partition_by)? {
        for row in rows.column(0).as_primitive::<UInt32Type>().values() {
            folders[*row as usize].clone_from(&folder);
        }
    }
    Ok(folders)
}
