//! The merge of change records into a table, from the input to the commit.
//! A run divides its records into parts that fit into memory. It decides all keys of one part after the other without
//! changing the table, checks the guards, and puts everything into one commit.

use std::sync::Arc;

use biscuit_change::{BadRows, ChangeFormat, ChangeRecords, RefusedRecord};
use biscuit_core::{CommitId, Error, Result};
use biscuit_dataset::{Dataset, OpenFile, TableVersion, refuse_raw};
use biscuit_journal::{CommitOutcome, FileStager, TableCommit};
use biscuit_merge::{MergeSpec, OrderAuthority};
use biscuit_rewrite::{RunMode, WrittenUnit, session};
use datafusion::execution::TaskContext;
use tokio::task::JoinHandle;

use crate::changes::files::{ChangeFiles, records_again};
use crate::changes::intake::{ChangeIntake, InputSummary};
use crate::changes::spilled_ranges::InputParts;
use crate::options::MergeOptions;
use crate::periods::period_state::{CommitExtras, PeriodBase, PeriodStates};
use crate::periods::retraction::PartRetractions;
use crate::plan::merge_plan::{MergePlan, PlanInput};
use crate::plan::new_files::NewFiles;
use crate::report::MergeReport;
use crate::state::commit::CommitWork;
use crate::state::key_segment::{KeyTimeline, SegmentEntry};
use crate::state::quarantine::quarantined;
use crate::target::context::{EncodedPart, MergeContext};
use crate::target::scan::StoredRows;

/// Effect of a run on the quarantine of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QuarantineChange<'a> {
    /// Quarantines the invalid records of the run in addition to those that are there.
    Add,
    /// Retries these quarantined records: those that are valid now leave the quarantine.
    Take(&'a [RefusedRecord]),
}

/// Merges change records into a table in one commit.
#[derive(Debug, Clone)]
pub struct Merge {
    pub(crate) dataset: Dataset,
    pub(crate) spec: Arc<MergeSpec>,
    pub(crate) options: MergeOptions,
    pub(crate) periods: Option<Arc<PeriodStates>>,
}

impl Merge {
    /// Creates a merge into `dataset`.
    ///
    /// # Errors
    /// `InvalidSpec` if `spec` drops a key column.
    pub fn new(dataset: Dataset, spec: MergeSpec, options: MergeOptions) -> Result<Self> {
        spec.check()?;
        Ok(Self { dataset, spec: Arc::new(spec), options, periods: None })
    }

    /// Merges into a table of periodic snapshots, which has one folder for each period. The records of a batch take
    /// effect in the period that [`ChangeBatch::period`](biscuit_change::ChangeBatch::period) names, and in all later
    /// periods.
    ///
    /// # Errors
    /// `InvalidSpec` if `periods` is empty or not in ascending order, or if a key, order or partition column has the
    /// name of the period column.
    pub fn with_periods(mut self, periods: PeriodStates) -> Result<Self> {
        let ascend = periods.all.windows(2).all(|pair| pair[0].number < pair[1].number);
        if periods.all.is_empty() || !ascend {
            return Err(Error::usage(
                "InvalidSpec",
                "periods must be in ascending order, and there must be at least one",
            ));
        }
        let named = self.spec.key.iter().chain(&self.spec.order).chain(&self.options.partition_by);
        if named.into_iter().any(|n| *n == periods.column) {
            let message = format!(
                "`{}` is the column that names the periods; rename the key, order or partition column",
                periods.column
            );
            return Err(Error::usage("InvalidSpec", message));
        }
        self.periods = Some(Arc::new(periods));
        Ok(self)
    }

    /// Merges records on top of an observed version of the table, and commits `extras` together with the rows. A
    /// bookmark, for example, is such an extra.
    /// Periods in which no record takes effect are not opened. The files of a new period that no record changes are
    /// copied from its predecessor by the store.
    ///
    /// # Errors
    /// As [`run`](Self::run); `ColumnClash` if the records have the column that names the periods.
    pub async fn run_on(
        &self,
        snapshot: TableVersion,
        changes: ChangeRecords,
        mode: RunMode,
        extras: CommitExtras,
    ) -> Result<MergeReport> {
        let intake = self.intake()?;
        let run = RunParts { mode, commit: None, quarantine_change: QuarantineChange::Add, extras };
        self.start_on(Some(snapshot), intake, changes, run).await
    }

    /// Merges change files on top of an observed version of the table, and commits `extras` together with the rows.
    ///
    /// # Errors
    /// As [`run_files`](Self::run_files).
    pub async fn run_files_on(
        &self,
        snapshot: TableVersion,
        files: &ChangeFiles,
        mode: RunMode,
        extras: CommitExtras,
    ) -> Result<MergeReport> {
        let (intake, changes) = self.read(files).await?;
        let run = RunParts { mode, commit: None, quarantine_change: QuarantineChange::Add, extras };
        self.start_on(Some(snapshot), intake, changes, run).await
    }

    /// Merges change records. If they change nothing, the run writes no version and no file.
    ///
    /// # Errors
    /// - Invalid records: `NullKey`, `NullOrder`, `TextOrder`, `KeyType`, `OrderType`, `MissingColumn`, `UnknownOp`,
    ///   `AmbiguousOrder`, `UnavailableWithoutPrior`, `NoCommonType`, `ColumnCase`.
    /// - A specification that differs from the one the table was made with: `SpecDrift`, `PartitioningDiffers`.
    /// - Columns that the files encrypt: `NoFileKeys`, `MissingColumn`, `EncryptedColumn`.
    /// - Guards: `TooManyDeleted`, `TooManyQuarantined`.
    /// - Resources: `MemoryExhausted` if not even one row group fits into the budget, `SpillFailed` if the disk for
    ///   temporary files is full.
    /// - `Conflict` if another run committed first, `Diverged`, and the errors of the store.
    ///
    /// After each of them the table is as it was before.
    pub async fn run(&self, changes: ChangeRecords, mode: RunMode) -> Result<MergeReport> {
        self.run_as(changes, mode, None).await
    }

    /// Merges change records as [`run`](Self::run), and stores the id of the commit in the record of the journal.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_as(
        &self,
        changes: ChangeRecords,
        mode: RunMode,
        commit: Option<&CommitId>,
    ) -> Result<MergeReport> {
        let intake = self.intake()?;
        self.start(intake, changes, mode, commit, QuarantineChange::Add).await
    }

    /// Merges the records of change files. Records of Parquet and Avro files that exceed the memory budget are
    /// written to the local disk, so that there may be any number of them. Text files are read into memory as a
    /// whole.
    ///
    /// # Errors
    /// As [`run`](Self::run), and the errors of [`ChangeFiles::changes`].
    pub async fn run_files(&self, files: &ChangeFiles, mode: RunMode) -> Result<MergeReport> {
        let (intake, changes) = self.read(files).await?;
        self.start(intake, changes, mode, None, QuarantineChange::Add).await
    }

    async fn read(&self, files: &ChangeFiles) -> Result<(ChangeIntake, ChangeRecords)> {
        let mut intake = self.intake()?;
        let changes = files.each_batch(&mut intake).await?;
        tracing::info!(records = intake.taken.records, "read all changes");
        if changes.without_op > 0 {
            let records = changes.without_op;
            tracing::warn!(records, "the change files have no operation column: all their records are upserts");
        }
        Ok((intake, changes))
    }

    /// Retries the quarantined records, which are read in the format in which they came. Records that are still
    /// invalid remain in the quarantine, whatever [`MergeOptions::bad_rows`] is.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn retry(&self, format: &ChangeFormat, mode: RunMode) -> Result<MergeReport> {
        let again = Self { options: self.options.clone().with_bad_rows(BadRows::Quarantine, 100.0), ..self.clone() };
        let tried: Vec<RefusedRecord> = quarantined(&self.dataset).await?.into_iter().map(|q| q.refused).collect();
        let changes = records_again(&tried, format)?;
        again.start(again.intake()?, changes, mode, None, QuarantineChange::Take(&tried)).await
    }

    fn intake(&self) -> Result<ChangeIntake> {
        let session = session(self.options.parallelism, self.options.memory)?;
        // A quarter of the budget for pending records: a part is decoded while the part before it is decided, and
        // rewriting files needs the rest.
        let limit = self.options.change_memory.or(self.options.memory.map(|bytes| bytes / 4));
        let intake = ChangeIntake::new(&self.spec.key, limit.unwrap_or(usize::MAX), self.options.parallelism, session);
        Ok(intake.with_servers(self.dataset.journal(), self.options.new_server))
    }

    async fn start(
        &self,
        intake: ChangeIntake,
        changes: ChangeRecords,
        mode: RunMode,
        commit: Option<&CommitId>,
        quarantine_change: QuarantineChange<'_>,
    ) -> Result<MergeReport> {
        let run = RunParts { mode, commit, quarantine_change, extras: CommitExtras::default() };
        self.start_on(None, intake, changes, run).await
    }

    async fn start_on(
        &self,
        snapshot: Option<TableVersion>,
        mut intake: ChangeIntake,
        mut changes: ChangeRecords,
        run: RunParts<'_>,
    ) -> Result<MergeReport> {
        for batch in std::mem::take(&mut changes.batches) {
            intake.add(batch).await?;
        }
        let session = intake.session.clone();
        let (mut taken, parts) = intake.finish().await?;
        taken.columns.extend(run.extras.columns.iter().cloned());
        let mut report = MergeReport {
            records: taken.records + changes.ignored + changes.refused.len() as u64,
            other_tables: changes.other_tables,
            dropped_columns: changes.dropped_columns,
            losses: changes.losses,
            passed_over: changes.passed_over,
            conflicts: changes.conflicts,
            ..MergeReport::default()
        };
        report.verdicts.ignored = changes.ignored;
        let snapshot = match snapshot {
            Some(snapshot) => snapshot,
            None => self.dataset.observe().await?,
        };
        report.version = snapshot.observed.head.version;
        let head = snapshot.observed.head.clone();
        let records = InputRecords { session, taken, parts, refused: changes.refused };
        match self.merge(snapshot, records, run, &mut report).await {
            Ok(()) => Ok(report),
            Err(e) => Err(self.dataset.journal().explain(e, &head).await),
        }
    }

    async fn merge(
        &self,
        snapshot: TableVersion,
        records: InputRecords,
        run: RunParts<'_>,
        report: &mut MergeReport,
    ) -> Result<()> {
        report.outcome = "unchanged";
        let RunParts { mode, commit, quarantine_change, mut extras } = run;
        // A new or rebuilt period changes the table even if no record takes effect in it.
        let grows = self.periods.iter().flat_map(|s| &s.all).any(|s| s.base != PeriodBase::Own);
        if records.taken.records == 0 && records.refused.is_empty() && !grows && extras.is_empty() {
            report.rows.before = self.rows_of(&snapshot).await?;
            report.rows.after = report.rows.before;
            return Ok(());
        }
        refuse_raw(&snapshot.observed.head, "merged into")?;
        let observed = snapshot.observed.clone();
        let session = records.session.clone();
        let mut prepared = self.prepare(snapshot, session, &records.taken, report).await?;
        prepared.retracting = PartRetractions::new(std::mem::take(&mut extras.retractions));
        let replace = (mode == RunMode::Commit).then(|| self.dataset.journal().replace(&observed));
        // With records on the disk, new files are staged before the guards are checked. If nothing is committed,
        // `abandon` has to delete the staged objects. Otherwise nothing is staged before `commit`.
        let stages_early = records.parts.on_disk().is_some();
        let stager = replace.as_ref().map(TableCommit::stager);
        let work = self.work(&mut prepared, records, quarantine_change, extras, stager, report).await;
        let (replace, work) = match (replace, work) {
            (Some(replace), Ok(Some(work))) => (replace, work),
            (Some(replace), nothing) if stages_early => {
                replace.abandon().await?;
                return nothing.map(drop);
            }
            (_, nothing) => return nothing.map(drop),
        };
        let committed = self.commit(replace, &prepared, work, report, commit).await?;
        report.outcome = if committed.outcome == CommitOutcome::Committed { "committed" } else { "unchanged" };
        report.version = committed.version;
        report.files.adopted = committed.adopted;
        report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        Ok(())
    }

    /// Decides the whole run and checks its guards. Returns the work to commit; `None` if nothing changes, and for a
    /// dry run.
    async fn work(
        &self,
        p: &mut MergeContext,
        records: InputRecords,
        quarantine_change: QuarantineChange<'_>,
        extras: CommitExtras,
        stager: Option<FileStager>,
        report: &mut MergeReport,
    ) -> Result<Option<CommitWork>> {
        let schema = p.data_schema();
        let dry_run = stager.is_none();
        let stager = stager.filter(|_| records.parts.on_disk().is_some());
        let mut new_files = stager.map(|stager| NewFiles::new(stager, p.session.clone(), schema.clone(), &p.options));
        let decided = match self.decide(p, records, new_files.as_mut(), report).await {
            Ok(decided) => decided,
            Err(e) => {
                if let Some(new_files) = new_files {
                    new_files.stop().await;
                }
                return Err(e);
            }
        };
        // The guards come after all decisions and before the commit: what they compare is known only here.
        let DecidedRun { mut plan, written, kept, refused } = decided;
        let quarantine_change =
            self.quarantine_records(p, refused, quarantine_change, extras.of_records, report).await?;
        self.count_truncates(p, &plan, report);
        report.rows = plan.counts;
        self.guard(p, &plan)?;
        // Before `units`, which takes the edits out of the plan.
        let nothing = plan.is_empty() && p.periods.all.iter().all(|s| s.base == PeriodBase::Own);
        let units = plan.units(&p.files, &schema, &p.options);
        (report.partitions, report.files) = plan.describe(p, &units);
        let marks = p.periods.marks_after(&p.truncates.0);
        if nothing && kept.is_empty() && marks == p.periods.marks && quarantine_change.is_empty() && extras.is_empty() {
            return Ok(None);
        }
        report.outcome = "planned";
        // `units` takes the edits out of the plan, `new_files` the new rows. `same` compares new rows, so it comes
        // before `new_files`.
        let same = plan.same(p, &units);
        let added = plan.new_files(&schema, &p.options);
        p.describe_periods(&units, &added, &same, report);
        Ok((!dry_run).then_some(CommitWork { units, added, same, written, kept, quarantine_change, marks, extras }))
    }

    /// Decides all keys, one part of the records after the other and `KEYS` keys at a time. Only the plan and the key
    /// metadata of decided keys remain in memory.
    async fn decide(
        &self,
        p: &mut MergeContext,
        records: InputRecords,
        mut new_files: Option<&mut NewFiles>,
        report: &mut MergeReport,
    ) -> Result<DecidedRun> {
        let InputRecords { mut parts, refused, .. } = records;
        let plan = MergePlan::begin(&p.files, &p.target, p.periods.has_periods(), parts.on_disk().cloned());
        let mut decided = DecidedRun { refused, kept: vec![], plan, written: vec![] };
        if parts.on_disk().is_some() {
            // Key changes of earlier runs also connect keys of different ranges: these keys have to be in one part,
            // in which the union-find can join them.
            parts.tie(p.segments.linked_keys()?);
        }
        let mut next = self.next_part(p, parts);
        let parts = loop {
            let (part, parts) = next
                .await
                .map_err(|e| Error::internal("the task that reads a part of the records failed").with_source(e))??;
            let Some(part) = part else { break parts };
            next = self.next_part(p, parts);
            tracing::debug!(keys = part.keys(), "deciding");
            self.enter(p, part, report)?;
            decided.refused.append(&mut p.set.refused);
            let groups = self.groups(p)?;
            // Periods in ascending order: a period inherits the overtaken records and the retracted states of the
            // period before it.
            for at in 0..p.periods.all.len() {
                if p.enter_period(at) {
                    self.open_period(p, at).await?;
                    self.decide_part(p, &groups, &mut decided, report).await?;
                    p.end_period();
                }
            }
            decided.kept.extend(p.changed_timelines());
            decided.plan.next_part();
            if let Some(new_files) = &mut new_files {
                new_files.take(&mut decided.plan).await?;
            }
            decided.plan.spill_added()?;
        };
        decided.plan.finish();
        // Deleting a large temporary file takes as long as writing a part of it, so it happens in the background.
        drop(tokio::task::spawn_blocking(move || drop(parts)));
        if let Some(new_files) = new_files {
            decided.written = new_files.finish().await?;
        }
        p.leave();
        Ok(decided)
    }

    /// Starts to read and encode the next part of the records, while the part before it is decided.
    fn next_part(
        &self,
        p: &MergeContext,
        mut parts: InputParts,
    ) -> JoinHandle<Result<(Option<EncodedPart>, InputParts)>> {
        let (spec, bad_rows, target) = (self.spec.clone(), self.options.bad_rows, p.target.clone());
        let (forgotten, partition_by) = (p.forgotten.clone(), p.partition_by.clone());
        tokio::task::spawn_blocking(move || {
            let part = parts.next(&spec.key)?;
            let part = part.map(|part| EncodedPart::new(part, (&spec, &partition_by), bad_rows, &target, &forgotten));
            let part = part.transpose()?;
            Ok((part, parts))
        })
    }

    async fn decide_part(
        &self,
        p: &mut MergeContext,
        groups: &[(u32, u32)],
        decided: &mut DecidedRun,
        report: &mut MergeReport,
    ) -> Result<()> {
        // The order matters: `scan` finds the stored rows of the keys, `fetch` reads the values that resolving may
        // compare, and resolving does no I/O.
        let stored = self.scan(p).await?;
        let groups = self.groups_now(p, groups);
        let counts = decided.plan.counts;
        let fetched = self.fetch(p, &stored, &groups).await?;
        // Chunks are resolved and planned one after the other. `reconcile` then orders the rows of all chunks by file
        // and row group at once.
        let mut draft = self.planner(p, &stored).begin(&mut decided.plan);
        for groups in chunks(&groups) {
            let resolved = self.resolve(p, &stored, &fetched, groups)?;
            report.verdicts.add(&resolved.verdicts);
            let kept = self.kept_changes(p, &resolved)?;
            p.leave_period(&resolved.outcomes, &kept, self.spec.authority == OrderAuthority::Reload);
            if !p.periods.has_periods() {
                let entry = |(key, kept)| (p.set.keys.bytes(key).into(), KeyTimeline::of(kept));
                decided.kept.extend(kept.into_iter().map(entry));
            }
            for (at, e) in resolved.refused {
                decided.refused.push(p.set.batches[at.table as usize].refuse(at.row as usize, e)?);
                p.leave_out(at);
            }
            self.planner(p, &stored).add(resolved.outcomes, &mut draft, &mut decided.plan);
        }
        self.planner(p, &stored).reconcile(draft, &mut decided.plan)?;
        p.periods.all[p.periods.at].report.count(&counts, &decided.plan.counts);
        Ok(())
    }

    fn planner<'a>(&'a self, p: &'a MergeContext, stored: &'a StoredRows) -> PlanInput<'a> {
        PlanInput {
            files: &p.files,
            starts: &p.starts,
            target: &p.target,
            data: p.data_schema(),
            partition_by: &p.partition_by,
            spelling: &p.spelling,
            within: &p.periods.now().folder,
            tables: &p.tables,
            keys: &p.set.keys,
            stored,
            key: &self.spec.key,
            target_size: self.options.target_size,
            row_group_rows: self.options.parquet.row_group_rows.map(|rows| rows as u64),
            cores: self.options.parallelism.max(1),
        }
    }

    /// Returns the number of rows of the whole table.
    async fn rows_of(&self, snapshot: &TableVersion) -> Result<u64> {
        if self.periods.is_some() {
            return Ok(snapshot.observed.head.live.values().filter_map(|live| live.rows).sum());
        }
        Ok(snapshot.open_files().await?.iter().map(OpenFile::rows).sum())
    }
}

/// How one run is executed and what it commits.
struct RunParts<'a> {
    mode: RunMode,
    commit: Option<&'a CommitId>,
    quarantine_change: QuarantineChange<'a>,
    extras: CommitExtras,
}

/// The input of one run.
struct InputRecords {
    /// Memory pool and runtime of the run.
    session: Arc<TaskContext>,
    taken: InputSummary,
    parts: InputParts,
    /// Records that the reader refused.
    refused: Vec<RefusedRecord>,
}

/// The decisions of a run, before anything is committed.
struct DecidedRun {
    plan: MergePlan,
    /// New files that were staged while the run was deciding.
    written: Vec<WrittenUnit>,
    /// Changes of key metadata.
    kept: Vec<SegmentEntry>,
    refused: Vec<RefusedRecord>,
}

/// Number of keys that are resolved at a time. Their states fit into the cache of a core until they are planned.
const KEYS: usize = 1024;

/// Divides sorted groups into chunks of at least `KEYS` keys. A group is never divided, because its keys are resolved
/// together.
fn chunks(groups: &[(u32, u32)]) -> impl Iterator<Item = &[(u32, u32)]> {
    let mut rest = groups;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(KEYS);
        while end > 0 && end < rest.len() && rest[end - 1].0 == rest[end].0 {
            end += 1;
        }
        let (chunk, others) = rest.split_at(end);
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}
