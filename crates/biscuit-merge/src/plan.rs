use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{OpenFile, partition_folders};
use datafusion::arrow::array::{AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};

use crate::outcome::{Outcome, RowChange};
use crate::report::{FileCounts, Partitions, RowCounts};
use crate::rewrite::Edit;
use crate::scan::{Place, Stored};
use crate::table::Tables;

/// New rows and what happens to the files, before anything is written.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// New rows, without partition columns.
    pub(crate) rows: Arc<Vec<RecordBatch>>,
    /// Edits by file.
    pub(crate) edits: BTreeMap<usize, BTreeMap<u64, Edit>>,
    /// Rows to insert by folder, without partition columns.
    pub(crate) inserts: BTreeMap<String, Vec<RecordBatch>>,
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
}

const CHUNK: usize = 8192;

impl Planner<'_> {
    /// Turns outcomes into edits of files and rows to insert.
    pub(crate) fn plan(&self, outcomes: &[Outcome]) -> Result<Plan> {
        let mut plan = Plan::default();
        plan.counts.before = self.files.iter().map(OpenFile::rows).sum();
        for (file, rows) in self.stored.truncated.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            plan.counts.deleted += rows.len() as u64;
            plan.edits.entry(file).or_default().extend(rows.iter().map(|r| (*r, Edit::Remove)));
        }
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
        let mut rows = Vec::new();
        for chunk in written.chunks(CHUNK) {
            self.write(chunk, &mut rows, &mut plan)?;
        }
        plan.rows = Arc::new(rows);
        let wider = |f: &OpenFile| {
            let same =
                |x: &Arc<Field>| self.target.field_with_name(x.name()).is_ok_and(|t| t.data_type() == x.data_type());
            !f.schema().fields().iter().all(same)
        };
        plan.widened = (0..self.files.len()).filter(|&i| wider(&self.files[i])).collect();
        let c = &mut plan.counts;
        c.after = c.before + c.inserted - c.deleted - c.duplicate_target_keys;
        Ok(plan)
    }

    fn write(&self, outcomes: &[&Outcome], rows: &mut Vec<RecordBatch>, plan: &mut Plan) -> Result<()> {
        let columns = self.target.fields().len();
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
                plan.edits.entry(place.file).or_default().insert(place.row, Edit::Replace(rows.len(), i));
            } else {
                plan.counts.moved += 1;
                plan.remove(place);
                inserts.entry(&folders[i]).or_default().push(number);
            }
        }
        for (folder, numbers) in inserts {
            let batch = take_record_batch(&data, &UInt32Array::from(numbers))
                .map_err(|e| Error::internal("rows to insert could not be picked").with_source(e))?;
            plan.inserts.entry(folder.to_owned()).or_default().push(batch);
        }
        rows.push(data);
        Ok(())
    }
}

impl Plan {
    fn remove(&mut self, place: Place) {
        self.edits.entry(place.file).or_default().insert(place.row, Edit::Remove);
    }

    /// Whether no file changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.inserts.is_empty() && self.widened.is_empty()
    }

    /// Files that are written anew or go.
    pub(crate) fn touched(&self) -> BTreeSet<usize> {
        self.edits.keys().copied().chain(self.widened.iter().copied()).collect()
    }

    /// Whether no row of a file stays.
    pub(crate) fn empties(&self, file: usize, files: &[OpenFile]) -> bool {
        let removed = self.edits.get(&file).map_or(0, |e| e.values().filter(|e| **e == Edit::Remove).count());
        removed as u64 == files[file].rows()
    }

    /// What the plan does to partitions and files; `homes` are files that take the inserts of
    /// their folder.
    pub(crate) fn describe(&self, files: &[OpenFile], homes: &BTreeMap<usize, String>) -> (Partitions, FileCounts) {
        let touched = self.touched();
        let mut before: BTreeSet<&str> = BTreeSet::new();
        let mut after: BTreeSet<&str> = self.inserts.keys().map(String::as_str).collect();
        let mut changed: BTreeSet<&str> = after.clone();
        let mut counts = FileCounts { kept: (files.len() - touched.len()) as u64, ..FileCounts::default() };
        for (i, file) in files.iter().enumerate() {
            let folder = folder_of(&file.file.path);
            before.insert(folder);
            if touched.contains(&i) {
                changed.insert(folder);
            }
            if touched.contains(&i) && self.empties(i, files) && !homes.contains_key(&i) {
                counts.removed += 1;
            } else {
                after.insert(folder);
                counts.rewritten += u64::from(touched.contains(&i));
            }
        }
        counts.added = self.inserts.keys().filter(|f| !homes.values().any(|h| h == *f)).count() as u64;
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
