use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use biscuit_change::{Changes, Op};
use biscuit_core::{CommitId, Error, Result};
use biscuit_dataset::{Dataset, OpenFile, ParquetOptions, Snapshot, TableWriter, WriteMode, WriteOptions};
use biscuit_journal::{Outcome as CommitOutcome, Replace};
use biscuit_schema::merge_schemas;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashMap;
use serde_json::{Value, json};

use crate::change_set::{ChangeSet, Record};
use crate::fetch::fetch;
use crate::key_state::KeyState;
use crate::order::Order;
use crate::plan::{Plan, Planner, folder_of};
use crate::report::MergeReport;
use crate::resolve::{Groups, Prior, Resolved, Resolver};
use crate::rewrite::{Rewrite, rewrite};
use crate::scan::{FileScan, Stored, StoredKey, scan};
use crate::segment::{Kept, Segments};
use crate::spec::{MergeSpec, Tombstones};
use crate::table::{RowRef, Tables, known, without};

/// Facts in the journal: what orders mean, and the order at or before which everything was truncated.
const SPEC: &str = "merge";
const TRUNCATED: &str = "truncated";

/// A row whose values were not asked for. Using them would be a defect, and ends in an error.
const NOT_FETCHED: RowRef = RowRef { table: u32::MAX, row: u32::MAX };

/// Whether a merge changes anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// It commits.
    #[default]
    Commit,
    /// It says what it would do. An unfinished version of another run is finished all the same.
    DryRun,
}

/// Choices of a merge that have a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MergeOptions {
    /// Columns that make folders. Default: the table's own, none for a new one.
    pub partition_by: Vec<String>,
    /// The most rows, in percent of those before, that may be deleted from a table of more than 1,000. Default: 30.
    pub max_deleted: f64,
    /// Files that are worked on at the same time. Default: the number of cores.
    pub parallelism: usize,
    /// How Parquet is written.
    pub parquet: ParquetOptions,
    /// Bytes of a file that no more rows are appended to. Default: 256 MiB.
    pub target_size: u64,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            partition_by: vec![],
            max_deleted: 30.0,
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            parquet: ParquetOptions::default(),
            target_size: 256 << 20,
        }
    }
}

impl MergeOptions {
    /// The same options with partition columns for a new table.
    pub fn with_partition_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with another guard against deleting, in percent.
    pub fn with_max_deleted(mut self, percent: f64) -> Self {
        self.max_deleted = percent;
        self
    }

    /// The same options with another number of files at the same time.
    pub fn with_parallelism(mut self, files: usize) -> Self {
        self.parallelism = files.max(1);
        self
    }

    /// The same options with other Parquet options.
    pub fn with_parquet(mut self, parquet: ParquetOptions) -> Self {
        self.parquet = parquet;
        self
    }
}

/// Merges change records into a table as one step.
#[derive(Debug, Clone)]
pub struct Merge {
    dataset: Dataset,
    spec: Arc<MergeSpec>,
    options: MergeOptions,
}

/// What is known after the table was read and before anything is written.
struct Prepared {
    snapshot: Snapshot,
    files: Vec<OpenFile>,
    target: SchemaRef,
    partition_by: Vec<String>,
    set: ChangeSet,
    tables: Tables,
    segments: Segments,
    kept: HashMap<u32, Kept>,
    truncated: Option<Order>,
    truncated_before: Option<Order>,
}

impl Merge {
    /// A merge into `dataset`.
    ///
    /// # Errors
    /// `InvalidSpec`.
    pub fn new(dataset: Dataset, spec: MergeSpec, options: MergeOptions) -> Result<Self> {
        spec.check()?;
        Ok(Self { dataset, spec: Arc::new(spec), options })
    }

    /// Merges these records. Nothing is changed if there is nothing to change: no version, no file.
    ///
    /// # Errors
    /// Bad records: `NullKey`, `NullOrder`, `TextOrder`, `KeyType`, `OrderType`, `MissingColumn`, `UnknownOp`,
    /// `AmbiguousOrder`, `UnavailableWithoutPrior`, `NoCommonType`, `ColumnCase`. A spec that the table was not made
    /// with: `SpecDrift`, `PartitioningDiffers`. `TooManyDeleted`. `Conflict` if another run was first, `Diverged`, and
    /// those of the store. After any of them the table is as it was.
    pub async fn run(&self, changes: Changes, mode: Mode) -> Result<MergeReport> {
        self.run_as(changes, mode, None).await
    }

    /// As [`run`](Self::run), with the id of the commit in the journal's record.
    pub async fn run_as(&self, changes: Changes, mode: Mode, commit: Option<&CommitId>) -> Result<MergeReport> {
        let mut report = MergeReport {
            records: changes.len() as u64 + changes.ignored,
            other_tables: changes.other_tables,
            dropped_columns: changes.dropped_columns.clone(),
            ..MergeReport::default()
        };
        report.verdicts.ignored = changes.ignored;
        let snapshot = self.dataset.observe().await?;
        report.version = snapshot.observed.head.version;
        let head = snapshot.observed.head.clone();
        match self.merge(snapshot, changes, mode, commit, &mut report).await {
            Ok(()) => Ok(report),
            Err(e) => Err(self.dataset.journal().explain(e, &head).await),
        }
    }

    async fn merge(
        &self,
        snapshot: Snapshot,
        changes: Changes,
        mode: Mode,
        commit: Option<&CommitId>,
        report: &mut MergeReport,
    ) -> Result<()> {
        report.outcome = "unchanged";
        if changes.is_empty() {
            report.rows.before = rows_of(&snapshot).await?;
            report.rows.after = report.rows.before;
            return Ok(());
        }
        let mut prepared = self.prepare(snapshot, changes, report).await?;
        let stored = self.scan(&mut prepared).await?;
        let (resolved, before) = self.resolve(&mut prepared, &stored).await?;
        report.verdicts.add(&resolved.verdicts);
        let partition_by = prepared.partition_by.clone();
        let planner = Planner {
            files: &prepared.files,
            target: &prepared.target,
            partition_by: &partition_by,
            tables: &prepared.tables,
            stored: &stored,
        };
        let plan = planner.plan(&resolved.outcomes)?;
        let kept = self.kept_changes(&prepared, &resolved, &before)?;
        self.count_truncates(&prepared, &plan, report);
        report.rows = plan.counts;
        self.guard(&plan)?;
        let homes = homes(&prepared.files, &plan, self.options.target_size);
        let appended = homes.values().cloned().collect();
        (report.partitions, report.files) = plan.describe(&prepared.files, &appended);
        let mark = (prepared.truncated != prepared.truncated_before).then(|| prepared.truncated.clone()).flatten();
        if plan.is_empty() && kept.is_empty() && mark.is_none() {
            return Ok(());
        }
        report.outcome = "planned";
        if mode == Mode::DryRun {
            return Ok(());
        }
        let committed = self.commit(&prepared, plan, kept, &homes, report, commit).await?;
        report.outcome = if committed.outcome == CommitOutcome::Committed { "committed" } else { "unchanged" };
        report.version = committed.version;
        report.files.adopted = committed.adopted;
        report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        Ok(())
    }

    /// Reads footers and what is kept by key; brings records and target into one schema.
    async fn prepare(&self, snapshot: Snapshot, changes: Changes, report: &mut MergeReport) -> Result<Prepared> {
        self.check_drift(&snapshot)?;
        let partition_by = self.partition_by(&snapshot)?;
        let files = snapshot.open_files().await?;
        let has = snapshot.schema(&files)?;
        let target = self.target_schema(&has, &changes, &partition_by)?;
        if !has.fields().is_empty() {
            let new = target.fields().iter().filter(|f| has.index_of(f.name()).is_err());
            report.added_columns = new.map(|f| f.name().clone()).collect();
            let wider = |f: &&Arc<Field>| has.field_with_name(f.name()).is_ok_and(|h| h.data_type() != f.data_type());
            report.widened_columns = target.fields().iter().filter(wider).map(|f| f.name().clone()).collect();
        }
        let mut tables = Tables::default();
        let mut set = ChangeSet::new(changes, &self.spec, &target, &mut tables)?;
        report.verdicts.duplicate = set.duplicates;
        let journal = self.dataset.journal();
        let segments = Segments::load(journal, &snapshot.observed.head).await?;
        let truncated_before = match snapshot.observed.head.meta.get(TRUNCATED).and_then(Value::as_str) {
            Some(mark) => Some(Order::from_bytes(&unhex(mark)?)),
            None => None,
        };
        let newest = set.truncates.last().cloned();
        let truncated = newest.max(truncated_before.clone());
        let mut kept = HashMap::new();
        if truncated != truncated_before {
            // A truncate is about all keys, so those whose rows do not say their order are looked at too.
            for (key, _) in segments.all()? {
                set.keys_mut().intern(&key);
            }
        }
        follow_moves(&mut set, &segments, &mut kept)?;
        let partition_by = partition_by.into_iter().filter(|n| target.index_of(n).is_ok()).collect();
        Ok(Prepared { snapshot, files, target, partition_by, set, tables, segments, kept, truncated, truncated_before })
    }

    fn check_drift(&self, snapshot: &Snapshot) -> Result<()> {
        let Some(made) = snapshot.observed.head.meta.get(SPEC) else { return Ok(()) };
        for (what, now) in [("key", &self.spec.key), ("order", &self.spec.order), ("op_rank", &self.spec.op_rank)] {
            let then = made.get(what).cloned().unwrap_or(Value::Null);
            if then != json!(now) {
                let message = format!("the {what} of this table is {then}, and this run has {}", json!(now));
                return Err(Error::usage("SpecDrift", message));
            }
        }
        Ok(())
    }

    fn partition_by(&self, snapshot: &Snapshot) -> Result<Vec<String>> {
        if self.options.partition_by.is_empty() {
            return Ok(snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect());
        }
        snapshot.check_partitioning(&self.options.partition_by, WriteMode::Append)?;
        Ok(self.options.partition_by.clone())
    }

    /// The target's columns, then the records' new ones; partition columns last.
    fn target_schema(&self, has: &SchemaRef, changes: &Changes, partition_by: &[String]) -> Result<SchemaRef> {
        if let Some(name) = self.spec.drop_columns.iter().find(|c| has.index_of(c).is_ok()) {
            return Err(Error::usage(
                "InvalidSpec",
                format!("the table stores the column `{name}`, so it cannot be dropped"),
            ));
        }
        let mut schema = has.clone();
        for batch in &changes.batches {
            let stored = without(&batch.rows.schema(), &self.spec.drop_columns);
            schema = Arc::new(merge_schemas(&schema, &stored, &format!("`{}`", batch.file))?);
        }
        let is_folder = |f: &Arc<Field>| partition_by.contains(f.name());
        let mut fields: Vec<_> = known(&schema).fields().iter().filter(|f| !is_folder(f)).cloned().collect();
        let writes = changes.batches.iter().any(|b| b.ops.contains(&Op::Upsert));
        for name in partition_by {
            match schema.field_with_name(name) {
                Ok(f) if *f.data_type() == DataType::Null => {
                    fields.push(Arc::new(Field::new(name, DataType::Utf8, true)))
                }
                Ok(f) => fields.push(Arc::new(f.clone())),
                Err(e) if writes => {
                    let message = format!("the records have no column `{name}` to partition by");
                    return Err(Error::data("MissingColumn", message).with_source(e));
                }
                // Deletes alone need no folder.
                Err(_) => {}
            }
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Finds the stored rows of the run's keys, several files at a time.
    async fn scan(&self, p: &mut Prepared) -> Result<Stored> {
        let fresh = (p.truncated != p.truncated_before).then(|| p.truncated.clone()).flatten();
        let jobs = p.files.iter().map(|f| {
            let job = scan(f.clone(), p.target.clone(), self.spec.clone(), p.set.keys.clone(), fresh.clone());
            tokio::spawn(job)
        });
        let scans: Vec<FileScan> = stream::iter(jobs.collect::<Vec<_>>())
            .then(|job| async move { job.await.map_err(|e| Error::internal("a scan was cut off").with_source(e))? })
            .try_collect()
            .await?;
        Ok(Stored::of(scans))
    }

    /// Applies the records to what was known, group by group; answers also with what was known.
    async fn resolve(&self, p: &mut Prepared, stored: &Stored) -> Result<(Resolved, HashMap<u32, KeyState>)> {
        let mut ties = Vec::new();
        for (key, kept) in &p.kept {
            for to in kept.moved_to()? {
                ties.extend(p.set.keys.find(&to).map(|to| (*key, to)));
            }
        }
        let groups = Groups::of(&p.set, &ties);
        let fetched = self.fetch(p, stored, &groups).await?;
        let mut before = HashMap::new();
        let mut resolved = Resolved::default();
        let mut priors: HashMap<u32, Prior> = HashMap::new();
        for &key in groups.iter().flatten() {
            let prior = self.prior(p, key, stored.rows.get(&key), fetched.get(&key).copied())?;
            before.insert(key, prior.state.clone());
            priors.insert(key, prior);
        }
        let resolver = Resolver {
            set: &p.set,
            spec: &self.spec,
            schema: &p.target,
            tables: &p.tables,
            truncated: p.truncated.as_ref(),
            truncated_before: p.truncated_before.as_ref(),
        };
        for group in &groups {
            let keys: Vec<(u32, Prior)> =
                group.iter().map(|k| (*k, priors.remove(k).expect("every key has a prior"))).collect();
            let records: Vec<&Record> = keys.iter().flat_map(|(k, _)| p.set.records_of(*k)).collect();
            resolver.group(&keys, &records, &mut resolved)?;
        }
        Ok((resolved, before))
    }

    /// Reads the stored rows whose values may be asked for.
    async fn fetch(&self, p: &mut Prepared, stored: &Stored, groups: &[Vec<u32>]) -> Result<HashMap<u32, RowRef>> {
        let mut wanted: BTreeMap<usize, BTreeMap<u64, u32>> = BTreeMap::new();
        let fresh_truncate = p.truncated != p.truncated_before;
        for group in groups {
            for &key in group {
                let Some(row) = stored.rows.get(&key) else { continue };
                let kept = p.kept.get(&key);
                let live = kept.and_then(Kept::live).unwrap_or(&row.order);
                let parts = group.len() > 1 || kept.is_some_and(Kept::has_parts);
                let asks = |r: &Record| r.op == Op::Upsert && (!p.set.givens_of(r).0.all || r.order == *live);
                let mut records = p.set.records_of(key);
                if parts || records.any(asks) || (fresh_truncate && kept.is_some()) {
                    wanted.entry(row.place.file).or_default().insert(row.place.row, key);
                }
            }
        }
        let mut fetched = HashMap::new();
        for (file, rows) in wanted {
            let numbers: Vec<u64> = rows.keys().copied().collect();
            for (number, at) in fetch(&p.files[file], &numbers, &p.target, &mut p.tables).await? {
                fetched.insert(rows[&number], at);
            }
        }
        Ok(fetched)
    }

    /// What was known of a key: what is kept of it, and its row.
    fn prior(&self, p: &mut Prepared, key: u32, row: Option<&StoredKey>, fetched: Option<RowRef>) -> Result<Prior> {
        let at = row.map(|_| fetched.unwrap_or(NOT_FETCHED));
        let mut state = match p.kept.get(&key) {
            None => KeyState::unknown(),
            Some(kept) => kept.state(at, &p.target, &mut p.tables)?,
        };
        match row {
            // A row that is gone although it was kept as live: as if nobody had heard of it.
            None if state.live.is_some() => state = KeyState { moves: state.moves, ..KeyState::unknown() },
            Some(row) if state.live.is_none() => {
                // A row that somebody else put there counts by its own order, against the tombstone if there is one.
                if row.order >= state.base {
                    (state.live, state.base, state.source) = (Some(row.order.clone()), row.order.clone(), at);
                }
            }
            _ => {}
        }
        Ok(Prior { state, stored: row.is_some() })
    }

    /// What has to be kept by key that was not kept so before.
    fn kept_changes(
        &self,
        p: &Prepared,
        resolved: &Resolved,
        before: &HashMap<u32, KeyState>,
    ) -> Result<Vec<(Arc<[u8]>, Option<Kept>)>> {
        let mut changes = Vec::new();
        for outcome in &resolved.outcomes {
            let (state, had) = (&outcome.state, p.kept.contains_key(&outcome.key));
            let nothing = match &state.live {
                Some(_) => state.is_in_the_row(self.spec.stores_order()),
                None => {
                    let covered =
                        p.truncated.as_ref().is_some_and(|t| state.base <= *t) || state.base == Order::oldest();
                    let forget = self.spec.tombstones == Tombstones::Forget;
                    state.moves.is_empty() && (covered || forget)
                }
            };
            let same = before.get(&outcome.key).is_some_and(|b| b == state);
            if (nothing && !had) || (!nothing && had && same) {
                continue;
            }
            let kept = if nothing { None } else { Some(Kept::of(state, &p.target, &p.tables)?) };
            changes.push((p.set.keys.bytes[outcome.key as usize].clone(), kept));
        }
        Ok(changes)
    }

    fn count_truncates(&self, p: &Prepared, plan: &Plan, report: &mut MergeReport) {
        let v = &mut report.verdicts;
        let distinct = p.set.truncates.len() as u64;
        v.duplicate += p.set.truncate_records - distinct;
        for order in &p.set.truncates {
            match &p.truncated_before {
                Some(before) if order == before => v.unchanged += 1,
                Some(before) if order < before => v.late += 1,
                _ if Some(order) != p.truncated.as_ref() => v.superseded += 1,
                _ if plan.counts.deleted > 0 => v.deleted += 1,
                _ => v.unchanged += 1,
            }
        }
    }

    fn guard(&self, plan: &Plan) -> Result<()> {
        let (before, deleted) = (plan.counts.before, plan.counts.deleted);
        let percent = 100.0 * deleted as f64 / before.max(1) as f64;
        if before <= 1000 || percent <= self.options.max_deleted {
            return Ok(());
        }
        let message = format!(
            "{deleted} of {before} rows would be deleted ({percent:.1} %), and at most {} % may be; nothing was changed",
            self.options.max_deleted
        );
        Err(Error::data("TooManyDeleted", message))
    }

    async fn commit(
        &self,
        p: &Prepared,
        plan: Plan,
        kept: Vec<(Arc<[u8]>, Option<Kept>)>,
        homes: &BTreeMap<usize, String>,
        report: &MergeReport,
        commit: Option<&CommitId>,
    ) -> Result<biscuit_journal::Committed> {
        let mut replace = self.dataset.journal().replace(&p.snapshot.observed);
        commit.inspect(|id| replace.with_commit_id(id));
        if let Err(e) = self.stage(p, plan, kept, homes, &mut replace).await {
            replace.abandon().await?;
            return Err(e);
        }
        let spec = &self.spec;
        replace.with_meta(SPEC, json!({"key": spec.key, "order": spec.order, "op_rank": spec.op_rank}));
        if let Some(mark) = &p.truncated {
            replace.with_meta(TRUNCATED, Value::String(hex(mark.bytes())));
        }
        let (columns, folders) = p.snapshot.facts(&p.target, &p.partition_by)?;
        replace.with_meta(columns.0, columns.1);
        replace.with_meta(folders.0, folders.1);
        replace.with_report(serde_json::to_value(report).map_err(|e| Error::internal("a report").with_source(e))?);
        replace.commit().await
    }

    async fn stage(
        &self,
        p: &Prepared,
        mut plan: Plan,
        kept: Vec<(Arc<[u8]>, Option<Kept>)>,
        homes: &BTreeMap<usize, String>,
        replace: &mut Replace<'_>,
    ) -> Result<()> {
        let (segment, dropped) = self.update_segments(p, kept)?;
        dropped.iter().for_each(|name| replace.without_state(name));
        if let Some((name, bytes)) = segment {
            replace.with_state(&name, bytes).await?;
        }
        let data: Vec<_> = p.target.fields().iter().filter(|f| !p.partition_by.contains(f.name())).cloned().collect();
        let schema: SchemaRef = Arc::new(Schema::new(data));
        let mut jobs = Vec::new();
        for file in plan.touched() {
            let open = &p.files[file];
            let listed = p.snapshot.observed.file(&open.file.path);
            replace.retire(listed.ok_or_else(|| Error::internal("a file of the snapshot was not observed"))?);
            let inserts = homes.get(&file).and_then(|folder| plan.inserts.remove(folder)).unwrap_or_default();
            if plan.empties(file, &p.files) && inserts.is_empty() {
                continue;
            }
            jobs.push(Rewrite {
                file: open.clone(),
                edits: plan.edits.remove(&file).unwrap_or_default(),
                rows: plan.rows.clone(),
                inserts,
                schema: schema.clone(),
                stage: replace.writer(folder_of(&open.file.path), "parquet"),
                options: open
                    .compression()
                    .map_or_else(|| self.options.parquet.clone(), |c| self.options.parquet.clone().with_compression(c)),
                store: self.dataset.journal().storage().store.clone(),
            });
        }
        let mut staged = stream::iter(jobs).map(|job| tokio::spawn(rewrite(job))).buffered(self.options.parallelism);
        while let Some(file) = staged.next().await {
            replace.publish(file.map_err(|e| Error::internal("a rewrite was cut off").with_source(e))??);
        }
        drop(staged);
        self.insert(plan, replace).await
    }

    fn update_segments(
        &self,
        p: &Prepared,
        kept: Vec<(Arc<[u8]>, Option<Kept>)>,
    ) -> Result<(Option<(String, bytes::Bytes)>, Vec<String>)> {
        p.segments.update(kept, p.snapshot.observed.head.version + 1, p.truncated.as_ref())
    }

    async fn insert(&self, plan: Plan, replace: &mut Replace<'_>) -> Result<()> {
        for (folder, batches) in plan.inserts {
            // Rows of one folder have no partition columns any more, so they are written as a table without folders.
            let options = WriteOptions::default().with_parquet(self.options.parquet.clone());
            let mut writer = TableWriter::new(self.dataset.journal(), replace, &options).in_folder(&folder);
            for batch in &batches {
                writer.write(batch).await?;
            }
            writer.finish().await?;
        }
        Ok(())
    }
}

/// The key and the order that a table's merges have had; none for a table that was never merged into.
///
/// # Errors
/// Those of the journal.
pub async fn merged_by(dataset: &Dataset) -> Result<Option<(Vec<String>, Vec<String>)>> {
    let head = dataset.journal().head().await?;
    let columns = |made: &Value, what: &str| -> Vec<String> {
        let names = made.get(what).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Ok(head.meta.get(SPEC).map(|made| (columns(made, "key"), columns(made, "order"))))
}

/// Files that also take the inserts of their folder, so that runs do not leave a trail of small files.
fn homes(files: &[OpenFile], plan: &Plan, target_size: u64) -> BTreeMap<usize, String> {
    let mut by_folder: BTreeMap<&str, usize> = BTreeMap::new();
    for file in plan.touched() {
        let open = &files[file].file;
        if open.size < target_size && plan.inserts.contains_key(folder_of(&open.path)) {
            by_folder.insert(folder_of(&open.path), file);
        }
    }
    by_folder.into_iter().map(|(folder, file)| (file, folder.to_owned())).collect()
}

/// Adds the keys that key updates lead to, and finds what is kept of all keys, until no key is new.
fn follow_moves(set: &mut ChangeSet, segments: &Segments, kept: &mut HashMap<u32, Kept>) -> Result<()> {
    let mut from = 0;
    while from < set.keys.len() {
        let before = set.keys.len();
        segments.find(&set.keys, from, kept)?;
        let mut next = BTreeSet::new();
        for kept in kept.values() {
            next.extend(kept.moved_to()?);
        }
        for to in &next {
            set.keys_mut().intern(to);
        }
        from = before;
    }
    Ok(())
}

async fn rows_of(snapshot: &Snapshot) -> Result<u64> {
    Ok(snapshot.open_files().await?.iter().map(OpenFile::rows).sum())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let byte = |i: usize| u8::from_str_radix(text.get(i..i + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.ok_or_else(|| Error::conflict("Diverged", "the truncate mark in the journal cannot be read"))
}
