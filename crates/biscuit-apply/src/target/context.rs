//! The context of a run: the table as it was read, and the part of the records that is being merged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use biscuit_change::{BadRows, ChangeBatch, ChangeOp};
use biscuit_core::{Error, Result};
use biscuit_dataset::{
    Dataset, FolderSpelling, OpenFile, ParquetOptions, TableVersion, WriteMode, check_partition_columns,
    rows_without_folder,
};
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{ChangeSet, RecordOrder, TargetRows, known, without};
use biscuit_schema::merge_schemas;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use hashbrown::HashMap;
use serde_json::{Value, json};

use crate::changes::intake::InputSummary;
use crate::changes::key_coverage::KeyCoverage;
use crate::changes::log_epochs::LOG_SERVERS;
use crate::changes::spilled_ranges::InputPart;
use crate::merge::Merge;
use crate::options::MergeOptions;
use crate::periods::by_period::PeriodsInRun;
use crate::periods::period_state::PeriodBase;
use crate::periods::retraction::PartRetractions;
use crate::report::MergeReport;
use crate::state::forgotten_keys::ErasedKeys;
use crate::state::key_segment::{KeyMetadata, KeySegments, KeyTimeline};

/// Names of properties in the journal: the specification of the merges, and the truncate marks.
pub(crate) const SPEC: &str = "merge";
pub(crate) const TRUNCATED: &str = "truncated";
/// Field of the specification with the period column of a table of periodic snapshots.
pub(crate) const PERIOD_COLUMN: &str = "period_column";

/// Everything that a run knows between reading the table and writing to it. The lower fields belong to the current
/// part of the records and are replaced by `enter`.
pub(crate) struct MergeContext {
    pub(crate) snapshot: TableVersion,
    /// Options of the merge, with the encryption of the table's files.
    pub(crate) options: MergeOptions,
    pub(crate) files: Vec<OpenFile>,
    /// Schema of the table after the run, partition columns last.
    pub(crate) target: SchemaRef,
    /// For each file, the first row of each row group, and as last entry the number of rows.
    pub(crate) starts: Vec<Vec<u64>>,
    pub(crate) partition_by: Vec<String>,
    pub(crate) spelling: FolderSpelling,
    /// New value of the property with the log servers.
    pub(crate) log_servers: Option<Value>,
    pub(crate) segments: KeySegments,
    pub(crate) forgotten: Arc<ErasedKeys>,
    /// Greatest truncate mark in the current period, with the truncates of the run, and before the run.
    pub(crate) truncated: Option<RecordOrder>,
    pub(crate) truncated_before: Option<RecordOrder>,
    /// Truncates of the run, ascending and without repetitions, and the number of truncate records.
    pub(crate) truncates: (Vec<(u32, RecordOrder)>, u64),
    /// Memory pool and runtime of the run.
    pub(crate) session: Arc<TaskContext>,
    /// Part of the session's budget that the current part takes.
    memory: Option<MemoryReservation>,
    /// The current part of the records.
    pub(crate) set: ChangeSet,
    pub(crate) tables: TargetRows,
    /// Numbers of its keys, in the order of the keys.
    pub(crate) sorted: Arc<Vec<u32>>,
    /// Metadata of its keys in the current period.
    pub(crate) kept: HashMap<u32, KeyMetadata>,
    pub(crate) covers: KeyCoverage,
    pub(crate) periods: PeriodsInRun,
    pub(crate) retracting: PartRetractions,
}

impl MergeContext {
    /// Frees the records. The plan has what it needs of them.
    pub(crate) fn leave(&mut self) {
        (self.set, self.tables, self.sorted) = (ChangeSet::default(), TargetRows::default(), Arc::default());
        self.memory = None;
    }

    /// Returns the schema of files: without partition columns, whose values are in the path.
    pub(crate) fn data_schema(&self) -> SchemaRef {
        let data = self.target.fields().iter().filter(|f| !self.partition_by.contains(f.name()));
        Arc::new(Schema::new(data.cloned().collect::<Vec<_>>()))
    }
}

impl Merge {
    /// Prepares a run: checks the specification against the table, reads footers, key metadata and erased keys, and
    /// determines the common schema of records and table.
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
        // The files of a table with periods are opened with their periods.
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
                    "the column `{}` would become wider in the rebuilt periods, and not in the others; a rebuild cannot make a column wider",
                    report.widened_columns[0]
                );
                return Err(Error::data("NoCommonType", message));
            }
            // A wider column rewrites files of all periods, so all of them are opened.
            for at in 0..prepared.periods.all.len() {
                self.open_period(&mut prepared, at).await?;
            }
        }
        Ok(prepared)
    }

    /// Refuses options that would store columns outside of files that the files encrypt: keys and orders are in key
    /// metadata, partition columns in paths.
    fn check_encryption(&self, parquet: &ParquetOptions, partition_by: &[String]) -> Result<()> {
        let Some(encryption) = &parquet.encryption else { return Ok(()) };
        encryption.check_clear("a key column", &self.spec.key)?;
        encryption.check_clear("an order column", &self.spec.order)?;
        encryption.check_clear("a partition column", partition_by)?;
        match self.options.bad_rows {
            BadRows::Quarantine => self.check_sealed(),
            BadRows::Fail => Ok(()),
        }
    }

    /// Refuses to quarantine records of a table with encrypted columns in plain text.
    pub(crate) fn check_sealed(&self) -> Result<()> {
        if !self.options.sealed {
            let message = "cannot quarantine: the table encrypts columns in its Parquet files, and the quarantine would store them in plain text; use `--bad-rows fail`, or merge in a job with a `[pii]` section, which seals records";
            return Err(Error::usage("EncryptedColumn", message));
        }
        Ok(())
    }

    /// Returns the opened files and the schema of the table. For a table with periods, the period column is left out,
    /// and files are opened only if their schema is not known otherwise.
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

    /// Begins a part of the records: replaces the part before it in the context. The order of the steps matters,
    /// because each one may add keys: keys of all key metadata for a truncate, keys of retractions, keys that key
    /// changes lead to. Only then are the keys sorted.
    pub(crate) fn enter(&self, p: &mut MergeContext, part: EncodedPart, report: &mut MergeReport) -> Result<()> {
        (p.set, p.tables, p.covers, p.kept) = (part.set, part.tables, part.covers, HashMap::new());
        p.memory = Some(part.memory);
        report.verdicts.duplicate += p.set.duplicates;
        report.verdicts.forgotten += part.forgotten;
        if let Some((_, newest)) = p.set.truncates.last() {
            p.truncated = p.truncated.take().max(Some(newest.clone()));
            p.truncates = (p.set.truncates.clone(), p.set.truncate_records);
        }
        let rebuilds = p.periods.all.iter().any(|s| s.base == PeriodBase::Rebuilt);
        if p.truncated != p.truncated_before || !p.truncates.0.is_empty() || rebuilds {
            // A truncate concerns all keys. Rows without key metadata are compared by their own order while they are
            // scanned. Keys with metadata have to be resolved, because their orders are not in their rows. The same
            // holds for a rebuilt period.
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

    /// Refuses a specification that differs from the one of earlier merges: stored orders and key metadata would have
    /// another meaning.
    fn check_drift(&self, snapshot: &TableVersion) -> Result<()> {
        let Some(made) = snapshot.observed.head.properties.get(SPEC) else { return Ok(()) };
        let column = self.periods.as_ref().map(|periods| &periods.column);
        match (made.get(PERIOD_COLUMN).and_then(Value::as_str), column) {
            (Some(then), Some(now)) if then == now => {}
            (None, None) => {}
            (Some(then), None) => {
                let message =
                    format!("this table has periodic snapshots by `{then}`; merge into it with `biscuit snapshot`");
                return Err(Error::usage("SpecDrift", message));
            }
            (then, Some(now)) => {
                let then = then.map_or("has no periodic snapshots".to_owned(), |then| {
                    format!("has periodic snapshots by `{then}`")
                });
                let message = format!("this table {then}, and this run merges into periodic snapshots by `{now}`");
                return Err(Error::usage("SpecDrift", message));
            }
        }
        for (what, now) in [("key", &self.spec.key), ("order", &self.spec.order), ("op_rank", &self.spec.op_rank)] {
            let then = made.get(what).cloned().unwrap_or(Value::Null);
            if then != json!(now) {
                let message = format!(
                    "the {what} of this table is {then}, and this run has {}; use the {what} of the table",
                    json!(now)
                );
                return Err(Error::usage("SpecDrift", message));
            }
        }
        Ok(())
    }

    /// Returns the partition columns of the table, without the period column. Configured columns must equal them.
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

    /// Returns the schema of the table after the run: its columns, then the new columns of the records, then the
    /// partition columns.
    fn target_schema(&self, has: &SchemaRef, taken: &InputSummary, partition_by: &[String]) -> Result<SchemaRef> {
        if let Some(name) = self.spec.drop_columns.iter().find(|c| has.index_of(c).is_ok()) {
            return Err(Error::usage(
                "InvalidSpec",
                format!(
                    "the column `{name}` cannot be dropped, because the table stores it; remove it from the columns to drop"
                ),
            ));
        }
        let mut schema = has.clone();
        for (columns, file) in &taken.columns {
            let stored = without(columns, &self.spec.drop_columns);
            if let Some(periods) = &self.periods
                && let Some(field) = stored.fields().iter().find(|f| f.name().eq_ignore_ascii_case(&periods.column))
            {
                let message = format!(
                    "the records have a column `{}`, which is the period column of the table; rename or drop it in the records",
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
                    let message = format!("the records do not have the partition column `{name}`");
                    return Err(Error::data("MissingColumn", message).with_source(e));
                }
                // Deletes alone need no partition columns.
                Err(_) => {}
            }
        }
        if taken.writes {
            check_partition_columns(fields.iter().map(|f| f.name().as_str()), partition_by)?;
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// A part of the records, checked and grouped by key.
#[derive(Debug)]
pub(crate) struct EncodedPart {
    set: ChangeSet,
    tables: TargetRows,
    covers: KeyCoverage,
    memory: MemoryReservation,
    /// Number of records of forgotten keys, which were removed.
    forgotten: u64,
}

impl EncodedPart {
    /// Checks and encodes a part, without records of forgotten keys.
    ///
    /// # Errors
    /// The errors of [`ChangeSet::new`].
    pub(crate) fn new(
        part: InputPart,
        (spec, partition_by): (&MergeSpec, &[String]),
        bad_rows: BadRows,
        target: &SchemaRef,
        forgotten: &ErasedKeys,
    ) -> Result<Self> {
        let mut tables = TargetRows::default();
        let (batches, forgotten) = forgotten.without_all(part.batches, spec)?;
        // A deleted row needs no folder.
        let without_folder = |batch: &ChangeBatch| {
            let bad = rows_without_folder(&batch.rows, partition_by).into_iter();
            let bad = bad.filter(|(row, _)| batch.ops[*row] == ChangeOp::Upsert);
            bad.map(|(row, e)| (row, e.at(&batch.file, batch.places[row]))).collect()
        };
        let set = ChangeSet::new(batches, spec, &without_folder, bad_rows, target, &mut tables)?;
        Ok(Self { set, tables, covers: part.covers, memory: part.memory, forgotten })
    }

    /// Number of keys with records.
    pub(crate) fn keys(&self) -> usize {
        self.set.keys.len()
    }
}

/// Loads the metadata of all keys, and adds the keys that key changes lead to, until no key is new (a fixed point).
/// Only keys from `from` on are looked up, so each segment is asked once per round.
/// Example: key 1 was moved to 2, and 2 to 3. A record of key 1 loads its metadata, which adds 2, whose metadata adds
/// 3.
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

/// Returns the key and order columns of the merges of a table; `None` if the table was never merged into.
///
/// # Errors
/// The errors of the journal.
pub async fn merged_by(dataset: &Dataset) -> Result<Option<(Vec<String>, Vec<String>)>> {
    let spec = stored_spec(&dataset.journal().head().await?.properties)?;
    Ok(spec.map(|spec| (spec.key, spec.order)))
}

/// Returns the specification of the merges of a table from the properties of its head: key, order and ranks of
/// operations, and defaults for everything else. Returns `None` if the table was never merged into.
///
/// # Errors
/// `Diverged` if the property cannot be read.
pub fn stored_spec(properties: &BTreeMap<String, Value>) -> Result<Option<MergeSpec>> {
    let Some(made) = properties.get(SPEC) else { return Ok(None) };
    let columns = |what: &str| -> Vec<String> {
        let names = made.get(what).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let damaged =
        |e: Error| Error::data("Diverged", "the merge specification in the journal cannot be read").with_source(e);
    let spec = MergeSpec::new(columns("key"), columns("order")).map_err(damaged)?;
    Ok(Some(spec.with_op_rank(columns("op_rank"))))
}

/// Returns the period column of a table of periodic snapshots.
pub(crate) fn period_column_of(properties: &BTreeMap<String, Value>) -> Option<&str> {
    properties.get(SPEC)?.get(PERIOD_COLUMN)?.as_str()
}

/// Reads the truncate marks by period. A table without periods has its mark under 0.
fn marks(property: Option<&Value>) -> Result<Vec<(i64, RecordOrder)>> {
    let mark = |hex: &str| Ok(RecordOrder::from_bytes(&unhex(hex)?));
    match property {
        Some(Value::String(hex)) => Ok(vec![(0, mark(hex)?)]),
        Some(Value::Object(by_period)) => {
            let of_period = |(period, hex): (&String, &Value)| {
                let period = period.parse().map_err(|e| damaged_mark().with_source(e))?;
                Ok((period, mark(hex.as_str().unwrap_or_default())?))
            };
            let mut marks = by_period.iter().map(of_period).collect::<Result<Vec<_>>>()?;
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

/// Returns the new property with the log servers. It must still have the value from which the epochs of the records
/// were computed.
fn log_servers(snapshot: &TableVersion, taken: &InputSummary) -> Result<Option<Value>> {
    let Some(epochs) = &taken.epochs else { return Ok(None) };
    if !epochs.is_of(snapshot.observed.head.properties.get(LOG_SERVERS)) {
        let message = "another run has added log servers since the records were read; run again";
        return Err(Error::conflict("Conflict", message));
    }
    epochs.property().map(Some)
}
