use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use biscuit_change::BadRows;
use biscuit_core::{Error, Result};
use biscuit_dataset::{
    Dataset, FolderSpelling, OpenFile, ParquetOptions, TableVersion, WriteMode, check_partition_columns,
};
use biscuit_schema::merge_schemas;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use hashbrown::HashMap;
use serde_json::{Value, json};

use crate::changes::change_set::ChangeSet;
use crate::changes::intake::InputSummary;
use crate::changes::key_coverage::KeyCoverage;
use crate::changes::log_epochs::LOG_SERVERS;
use crate::changes::spilled_ranges::InputPart;
use crate::keys::record_order::RecordOrder;
use crate::merge::Merge;
use crate::options::MergeOptions;
use crate::periods::by_period::PeriodsInRun;
use crate::periods::period_state::PeriodBase;
use crate::report::MergeReport;
use crate::resolve::retraction::PartRetractions;
use crate::spec::MergeSpec;
use crate::state::forgotten_keys::ErasedKeys;
use crate::state::key_segment::{KeyMetadata, KeySegments, KeyTimeline};
use crate::target::rows::{TargetRows, known, without};

/// Facts in the journal: what orders mean, and the order at or before which everything was truncated.
pub(crate) const SPEC: &str = "merge";
pub(crate) const TRUNCATED: &str = "truncated";
/// Which column names the slices, where orders are by slice.
pub(crate) const PERIOD_COLUMN: &str = "period_column";

/// What is known after the table was read and before anything is written.
pub(crate) struct MergeContext {
    pub(crate) snapshot: TableVersion,
    /// Those of the merge, with the encryption of the table's files.
    pub(crate) options: MergeOptions,
    pub(crate) files: Vec<OpenFile>,
    pub(crate) target: SchemaRef,
    /// By file, the first row of each row group, and their number.
    pub(crate) starts: Vec<Vec<u64>>,
    pub(crate) partition_by: Vec<String>,
    pub(crate) spelling: FolderSpelling,
    /// What the journal is to know of the servers whose logs order the records.
    pub(crate) log_servers: Option<Value>,
    pub(crate) segments: KeySegments,
    pub(crate) forgotten: Arc<ErasedKeys>,
    pub(crate) truncated: Option<RecordOrder>,
    pub(crate) truncated_before: Option<RecordOrder>,
    /// Truncates of this run, ascending, each once, and how many records they are.
    pub(crate) truncates: (Vec<(u32, RecordOrder)>, u64),
    /// Where the run works, in which memory.
    pub(crate) session: Arc<TaskContext>,
    /// What the part of the records that is worked on takes of it.
    memory: Option<MemoryReservation>,
    /// What the part of the records that is worked on is about.
    pub(crate) set: ChangeSet,
    pub(crate) tables: TargetRows,
    /// Its keys, sorted, by number.
    pub(crate) sorted: Arc<Vec<u32>>,
    /// What is kept of its keys, in the slice that is worked on.
    pub(crate) kept: HashMap<u32, KeyMetadata>,
    pub(crate) covers: KeyCoverage,
    pub(crate) periods: PeriodsInRun,
    pub(crate) retracting: PartRetractions,
}

impl MergeContext {
    /// Lets go of the records, which are in the plan by now, as far as they matter.
    pub(crate) fn leave(&mut self) {
        (self.set, self.tables, self.sorted) = (ChangeSet::default(), TargetRows::default(), Arc::default());
        self.memory = None;
    }

    /// The columns of files: the target's without those in the path.
    pub(crate) fn data_schema(&self) -> SchemaRef {
        let data = self.target.fields().iter().filter(|f| !self.partition_by.contains(f.name()));
        Arc::new(Schema::new(data.cloned().collect::<Vec<_>>()))
    }
}

impl Merge {
    /// Reads footers and what is kept by key; finds the schema that records and target have in common.
    pub(crate) async fn prepare(
        &self,
        snapshot: TableVersion,
        session: Arc<TaskContext>,
        taken: &InputSummary,
        report: &mut MergeReport,
    ) -> Result<MergeContext> {
        self.check_drift(&snapshot)?;
        let partition_by = self.partition_by(&snapshot)?;
        let (files, has) = self.known(&snapshot).await?;
        let (snapshot, parquet) = snapshot.for_writing(&self.options.parquet, &files).await?;
        self.check_encryption(&parquet, &partition_by)?;
        // Of a table with slices files are opened with these.
        let files = if self.periods.is_some() { vec![] } else { files };
        let target = self.target_schema(&has, taken, &partition_by)?;
        let comes = |name: &str| taken.columns.iter().any(|(schema, _)| schema.index_of(name).is_ok());
        snapshot.check_encrypted(&|name| target.index_of(name).is_ok() || comes(name))?;
        if !has.fields().is_empty() {
            let new = target.fields().iter().filter(|f| has.index_of(f.name()).is_err());
            report.added_columns = new.map(|f| f.name().clone()).collect();
            let wider = |f: &&Arc<Field>| has.field_with_name(f.name()).is_ok_and(|h| h.data_type() != f.data_type());
            report.widened_columns = target.fields().iter().filter(wider).map(|f| f.name().clone()).collect();
        }
        let journal = self.dataset.journal();
        let observed = &snapshot.observed;
        let segments =
            KeySegments::load(journal, &observed.head, observed.diverged, parquet.encryption.as_ref()).await?;
        let forgotten = Arc::new(ErasedKeys::load(journal, &observed.head).await?);
        let marks = marks(snapshot.observed.head.properties.get(TRUNCATED))?;
        let truncated_before = marks.iter().map(|(_, mark)| mark.clone()).max();
        let partition_by = partition_by.into_iter().filter(|n| target.index_of(n).is_ok()).collect();
        let mut prepared = MergeContext {
            spelling: snapshot.folder_spelling()?,
            log_servers: log_servers(&snapshot, taken)?,
            snapshot,
            options: self.options.clone().with_parquet(parquet),
            starts: files.iter().map(OpenFile::group_starts).collect(),
            files,
            target,
            partition_by,
            segments,
            forgotten,
            truncated: truncated_before.clone(),
            truncated_before,
            truncates: (vec![], 0),
            session,
            memory: None,
            set: ChangeSet::default(),
            tables: TargetRows::default(),
            sorted: Arc::default(),
            kept: HashMap::new(),
            covers: KeyCoverage::default(),
            periods: PeriodsInRun::new(marks),
            retracting: PartRetractions::default(),
        };
        self.begin_periods(&mut prepared)?;
        if self.periods.is_some() && !report.widened_columns.is_empty() {
            if prepared.periods.all.iter().any(|s| s.base == PeriodBase::Rebuilt) {
                let message = format!(
                    "the column `{}` would become wider in the periods that are built anew, and not in the others",
                    report.widened_columns[0]
                );
                return Err(Error::data("NoCommonType", message));
            }
            for at in 0..prepared.periods.all.len() {
                self.open_period(&mut prepared, at).await?;
            }
        }
        Ok(prepared)
    }

    /// What is encrypted inside of files is not kept elsewhere.
    fn check_encryption(&self, parquet: &ParquetOptions, partition_by: &[String]) -> Result<()> {
        let Some(encryption) = &parquet.encryption else { return Ok(()) };
        encryption.check_clear("one of the key", &self.spec.key)?;
        encryption.check_clear("one that orders the changes", &self.spec.order)?;
        encryption.check_clear("one that makes folders", partition_by)?;
        match self.options.bad_rows {
            BadRows::Quarantine => self.check_sealed(),
            BadRows::Fail => Ok(()),
        }
    }

    /// Refuses to quarantine records of a table with encrypted columns in plain text.
    pub(crate) fn check_sealed(&self) -> Result<()> {
        if !self.options.sealed {
            let message = "columns of the table are encrypted inside of its files, and records that cannot be used would be put aside as they came: they can stop the run instead, or be merged by a job with [pii], which seals them";
            return Err(Error::usage("EncryptedColumn", message));
        }
        Ok(())
    }

    /// The table's files and columns. Of a table with slices no file is opened here, if its columns are known without it, and the
    /// column that names the slices is left out.
    async fn known(&self, snapshot: &TableVersion) -> Result<(Vec<OpenFile>, SchemaRef)> {
        let Some(periods) = &self.periods else {
            let files = snapshot.open_files().await?;
            let has = snapshot.schema(&files)?;
            return Ok((files, has));
        };
        let (files, has) = match snapshot.known_schema()? {
            Some(known) => (vec![], known),
            None => {
                let files = snapshot.open_files().await?;
                let has = snapshot.schema(&files)?;
                (files, has)
            }
        };
        let rest: Vec<_> = has.fields().iter().filter(|f| *f.name() != periods.column).cloned().collect();
        Ok((files, Arc::new(Schema::new(rest))))
    }

    /// Goes on to the next part of the records.
    pub(crate) fn enter(&self, p: &mut MergeContext, part: EncodedPart, report: &mut MergeReport) -> Result<()> {
        (p.set, p.tables, p.covers, p.kept) = (part.set, part.tables, part.covers, HashMap::new());
        p.memory = Some(part.memory);
        report.verdicts.duplicate += p.set.duplicates;
        report.verdicts.forgotten += part.forgotten;
        if let Some((_, newest)) = p.set.truncates.last() {
            p.truncated = p.truncated.take().max(Some(newest.clone()));
            p.truncates = (p.set.truncates.clone(), p.set.truncate_records);
        }
        let anew = p.periods.all.iter().any(|s| s.base == PeriodBase::Rebuilt);
        if p.truncated != p.truncated_before || !p.truncates.0.is_empty() || anew {
            // A truncate is about all keys, so those whose rows do not say their order are looked at too. So is a slice that is built
            // anew.
            for (key, _) in p.segments.all()?.iter().filter(|(key, _)| p.covers.has(key)) {
                p.set.keys_mut().intern(key);
            }
        }
        p.enter_retractions();
        p.periods.timelines.clear();
        follow_key_changes(&mut p.set, &p.segments, &mut p.periods.timelines)?;
        p.kept = p.periods.timelines.iter().filter_map(|(key, t)| Some((*key, t.at(0)?.clone()))).collect();
        p.sorted = Arc::new(p.set.keys.sorted());
        p.periods.enter_part(p.set.records.len());
        Ok(())
    }

    fn check_drift(&self, snapshot: &TableVersion) -> Result<()> {
        let Some(made) = snapshot.observed.head.properties.get(SPEC) else { return Ok(()) };
        let column = self.periods.as_ref().map(|periods| &periods.column);
        match (made.get(PERIOD_COLUMN).and_then(Value::as_str), column) {
            (Some(then), Some(now)) if then == now => {}
            (None, None) => {}
            (Some(then), None) => {
                let message = format!(
                    "this table holds one state per `{then}`: changes are brought to each of them by `biscuit snapshot`"
                );
                return Err(Error::usage("SpecDrift", message));
            }
            (then, Some(now)) => {
                let then = then.map_or("is one state".to_owned(), |then| format!("holds one state per `{then}`"));
                let message = format!("this table {then}, and this run is about one state per `{now}`");
                return Err(Error::usage("SpecDrift", message));
            }
        }
        for (what, now) in [("key", &self.spec.key), ("order", &self.spec.order), ("op_rank", &self.spec.op_rank)] {
            let then = made.get(what).cloned().unwrap_or(Value::Null);
            if then != json!(now) {
                let message = format!("the {what} of this table is {then}, and this run has {}", json!(now));
                return Err(Error::usage("SpecDrift", message));
            }
        }
        Ok(())
    }

    fn partition_by(&self, snapshot: &TableVersion) -> Result<Vec<String>> {
        if let Some(periods) = &self.periods {
            let has: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
            let rest = match self.options.partition_by.is_empty() {
                true => has.into_iter().filter(|n| *n != periods.column).collect(),
                false => self.options.partition_by.clone(),
            };
            let all: Vec<String> = std::iter::once(periods.column.clone()).chain(rest.iter().cloned()).collect();
            snapshot.check_partitioning(&all, WriteMode::Append)?;
            return Ok(rest);
        }
        if self.options.partition_by.is_empty() {
            return Ok(snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect());
        }
        snapshot.check_partitioning(&self.options.partition_by, WriteMode::Append)?;
        Ok(self.options.partition_by.clone())
    }

    /// The target's columns, then the records' new ones; partition columns last.
    fn target_schema(&self, has: &SchemaRef, taken: &InputSummary, partition_by: &[String]) -> Result<SchemaRef> {
        if let Some(name) = self.spec.drop_columns.iter().find(|c| has.index_of(c).is_ok()) {
            return Err(Error::usage(
                "InvalidSpec",
                format!("the table stores the column `{name}`, so it cannot be dropped"),
            ));
        }
        let mut schema = has.clone();
        for (columns, file) in &taken.columns {
            let stored = without(columns, &self.spec.drop_columns);
            if let Some(periods) = &self.periods
                && let Some(field) = stored.fields().iter().find(|f| f.name().eq_ignore_ascii_case(&periods.column))
            {
                let message = format!(
                    "records have a column `{}`, which is the folder column of the table's states: name that another way, or drop it",
                    field.name()
                );
                return Err(Error::usage("ColumnClash", message).in_file(&**file));
            }
            schema = Arc::new(merge_schemas(&schema, &stored, &format!("`{file}`"))?);
        }
        let is_folder = |f: &Arc<Field>| partition_by.contains(f.name());
        let mut fields: Vec<_> = known(&schema).fields().iter().filter(|f| !is_folder(f)).cloned().collect();
        for name in partition_by {
            match schema.field_with_name(name) {
                Ok(f) if *f.data_type() == DataType::Null => {
                    fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
                }
                Ok(f) => fields.push(Arc::new(f.clone())),
                Err(e) if taken.writes => {
                    let message = format!("the records have no column `{name}` to partition by");
                    return Err(Error::data("MissingColumn", message).with_source(e));
                }
                // Deletes alone need no folder.
                Err(_) => {}
            }
        }
        if taken.writes {
            check_partition_columns(fields.iter().map(|f| f.name().as_str()), partition_by)?;
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// A part of the records, checked and brought together by key.
#[derive(Debug)]
pub(crate) struct EncodedPart {
    set: ChangeSet,
    tables: TargetRows,
    covers: KeyCoverage,
    memory: MemoryReservation,
    /// Records of forgotten keys, which are in none of it.
    forgotten: u64,
}

impl EncodedPart {
    /// # Errors
    /// Those of [`ChangeSet::new`].
    pub(crate) fn new(
        part: InputPart,
        (spec, partition_by): (&MergeSpec, &[String]),
        bad_rows: BadRows,
        target: &SchemaRef,
        forgotten: &ErasedKeys,
    ) -> Result<Self> {
        let mut tables = TargetRows::default();
        let (batches, forgotten) = forgotten.without_all(part.batches, spec)?;
        let set = ChangeSet::new(batches, (spec, partition_by), bad_rows, target, &mut tables)?;
        Ok(Self { set, tables, covers: part.covers, memory: part.memory, forgotten })
    }

    pub(crate) fn keys(&self) -> usize {
        self.set.keys.len()
    }
}

/// Adds the keys that key updates lead to, and finds what is kept of all keys, until no key is new.
fn follow_key_changes(set: &mut ChangeSet, segments: &KeySegments, kept: &mut HashMap<u32, KeyTimeline>) -> Result<()> {
    let mut from = 0;
    while from < set.keys.len() {
        let before = set.keys.len();
        segments.find(&set.keys, from, kept)?;
        let mut next = BTreeSet::new();
        for kept in kept.values().flat_map(KeyTimeline::all) {
            next.extend(kept.moved_to()?);
        }
        for to in &next {
            set.keys_mut().intern(to);
        }
        from = before;
    }
    Ok(())
}

/// The key and the order that a table's merges have had; none for a table that was never merged into.
///
/// # Errors
/// Those of the journal.
pub async fn merged_by(dataset: &Dataset) -> Result<Option<(Vec<String>, Vec<String>)>> {
    let spec = stored_spec(&dataset.journal().head().await?.properties)?;
    Ok(spec.map(|spec| (spec.key, spec.order)))
}

/// What the merges of a table have had, by the facts of its head: key, order and ranks of operations, and the defaults for everything
/// else; none for a table that was never merged into.
///
/// # Errors
/// `Diverged` if the fact cannot be read.
pub fn stored_spec(properties: &BTreeMap<String, Value>) -> Result<Option<MergeSpec>> {
    let Some(made) = properties.get(SPEC) else { return Ok(None) };
    let columns = |what: &str| -> Vec<String> {
        let names = made.get(what).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let damaged = |e: Error| Error::data("Diverged", "what the table's merges have had cannot be read").with_source(e);
    let spec = MergeSpec::new(columns("key"), columns("order")).map_err(damaged)?;
    Ok(Some(spec.with_op_rank(columns("op_rank"))))
}

/// The column that names the states of a table, where it holds several.
pub(crate) fn period_column_of(properties: &BTreeMap<String, Value>) -> Option<&str> {
    properties.get(SPEC)?.get(PERIOD_COLUMN)?.as_str()
}

/// The marks of truncates by slice; that of a table without slices is under 0.
fn marks(property: Option<&Value>) -> Result<Vec<(i64, RecordOrder)>> {
    let mark = |hex: &str| Ok(RecordOrder::from_bytes(&unhex(hex)?));
    match property {
        Some(Value::String(hex)) => Ok(vec![(0, mark(hex)?)]),
        Some(Value::Object(by_slice)) => {
            let of_slice = |(period, hex): (&String, &Value)| {
                let period = period.parse().map_err(|e| damaged_mark().with_source(e))?;
                Ok((period, mark(hex.as_str().unwrap_or_default())?))
            };
            let mut marks = by_slice.iter().map(of_slice).collect::<Result<Vec<_>>>()?;
            marks.sort();
            Ok(marks)
        }
        _ => Ok(vec![]),
    }
}

fn damaged_mark() -> Error {
    Error::data("Diverged", "the truncate mark in the journal cannot be read")
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let byte = |i: usize| u8::from_str_radix(text.get(i..i + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.ok_or_else(damaged_mark)
}

/// What the journal is to know of the servers that records came from; what was known of them when they came has to be so still.
fn log_servers(snapshot: &TableVersion, taken: &InputSummary) -> Result<Option<Value>> {
    let Some(epochs) = &taken.epochs else { return Ok(None) };
    if !epochs.is_of(snapshot.observed.head.properties.get(LOG_SERVERS)) {
        let message = "another run has met other servers since the records were read; run again";
        return Err(Error::conflict("Conflict", message));
    }
    epochs.property().map(Some)
}
