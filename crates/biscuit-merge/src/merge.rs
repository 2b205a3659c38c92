use std::sync::Arc;

use biscuit_change::{BadRows, Changes, Refused};
use biscuit_core::{CommitId, Error, Result};
use biscuit_dataset::{Dataset, OpenFile, ParquetOptions, Snapshot};
use biscuit_journal::Outcome as CommitOutcome;
use biscuit_rewrite::Mode;

use crate::change_files::{Format, records_again};
use crate::commit::Work;
use crate::plan::{Plan, Planner};
use crate::prepare::Prepared;
use crate::quarantine::{self, Quarantine, quarantined};
use crate::report::MergeReport;
use crate::scan::Stored;
use crate::segment::Entry;
use crate::spec::MergeSpec;
use crate::table::Tables;

/// Choices of a merge that have a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MergeOptions {
    /// Columns that make folders. Default: the table's own, none for a new one.
    pub partition_by: Vec<String>,
    /// The most rows, in percent of those before, that may be deleted from a table of more than 1,000. Default: 30.
    pub max_deleted: f64,
    /// What happens to records that cannot be used. Default: they stop the run. The reader of the changes needs the same
    /// choice: a record that it did not keep as it was is not put aside, but stops the run.
    pub bad_rows: BadRows,
    /// The most records of a run, in percent, that may be put aside. Default: 0.1.
    pub max_quarantined: f64,
    /// Cores that are used. Default: all.
    pub parallelism: usize,
    /// Bytes of memory that row groups in work may take together; where they are used up, fewer are worked on at a time.
    /// Default: no limit.
    pub memory: Option<usize>,
    /// How Parquet is written.
    pub parquet: ParquetOptions,
    /// Bytes of a file that no more rows are appended to. Default: 256 MiB.
    pub target_size: u64,
    /// Bytes, by the encoder's estimate, at which a file that is rewritten is ended and another one begun. Default: 4 GiB,
    /// since one server-side copy on S3 moves at most 5 GiB.
    pub max_file_size: u64,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            partition_by: vec![],
            max_deleted: 30.0,
            bad_rows: BadRows::Fail,
            max_quarantined: 0.1,
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            parquet: ParquetOptions::default(),
            memory: None,
            target_size: 256 << 20,
            max_file_size: 4 << 30,
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

    /// The same options with another choice for records that cannot be used, and the most of them in percent.
    pub fn with_bad_rows(mut self, bad_rows: BadRows, max_quarantined: f64) -> Self {
        (self.bad_rows, self.max_quarantined) = (bad_rows, max_quarantined);
        self
    }

    /// The same options with another number of cores.
    pub fn with_parallelism(mut self, cores: usize) -> Self {
        self.parallelism = cores.max(1);
        self
    }

    /// The same options with a budget of memory, in bytes.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// The same options with another limit for the size of rewritten files, in bytes.
    pub fn with_max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes.max(1);
        self
    }

    /// The same options with other Parquet options.
    pub fn with_parquet(mut self, parquet: ParquetOptions) -> Self {
        self.parquet = parquet;
        self
    }
}

/// Whether a run adds to the quarantine, or is made of what is in it.
#[derive(Debug, Clone, Copy)]
enum Aside<'a> {
    Add,
    Take(&'a [Refused]),
}

/// Merges change records into a table as one step.
#[derive(Debug, Clone)]
pub struct Merge {
    pub(crate) dataset: Dataset,
    pub(crate) spec: Arc<MergeSpec>,
    pub(crate) options: MergeOptions,
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
    /// with: `SpecDrift`, `PartitioningDiffers`. `TooManyDeleted`, `TooManyQuarantined`. `Conflict` if another run was first, `Diverged`, and
    /// those of the store. After any of them the table is as it was.
    pub async fn run(&self, changes: Changes, mode: Mode) -> Result<MergeReport> {
        self.run_as(changes, mode, None).await
    }

    /// As [`run`](Self::run), with the id of the commit in the journal's record.
    pub async fn run_as(&self, changes: Changes, mode: Mode, commit: Option<&CommitId>) -> Result<MergeReport> {
        self.start(changes, mode, commit, Aside::Add).await
    }

    /// Merges the records in the quarantine again, read in the format in which they came; those that cannot be used still
    /// stay there. Whatever the options say, bad records are put aside.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn retry(&self, format: &Format, mode: Mode) -> Result<MergeReport> {
        let again = Self { options: self.options.clone().with_bad_rows(BadRows::Quarantine, 100.0), ..self.clone() };
        let tried: Vec<Refused> = quarantined(&self.dataset).await?.into_iter().map(|q| q.refused).collect();
        let changes = records_again(&tried, format)?;
        again.start(changes, mode, None, Aside::Take(&tried)).await
    }

    async fn start(
        &self,
        changes: Changes,
        mode: Mode,
        commit: Option<&CommitId>,
        aside: Aside<'_>,
    ) -> Result<MergeReport> {
        let refused = changes.refused.len() as u64;
        let mut report = MergeReport {
            records: changes.len() as u64 + changes.ignored + refused,
            other_tables: changes.other_tables,
            dropped_columns: changes.dropped_columns.clone(),
            ..MergeReport::default()
        };
        report.verdicts.ignored = changes.ignored;
        let snapshot = self.dataset.observe().await?;
        report.version = snapshot.observed.head.version;
        let head = snapshot.observed.head.clone();
        match self.merge(snapshot, changes, mode, commit, aside, &mut report).await {
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
        aside: Aside<'_>,
        report: &mut MergeReport,
    ) -> Result<()> {
        report.outcome = "unchanged";
        if changes.is_empty() && changes.refused.is_empty() {
            report.rows.before = rows_of(&snapshot).await?;
            report.rows.after = report.rows.before;
            return Ok(());
        }
        let mut prepared = self.prepare(snapshot, changes, report).await?;
        let Decided { mut plan, kept, refused } = self.decide(&mut prepared, report).await?;
        let aside = self.put_aside(&prepared, refused, aside, report).await?;
        self.count_truncates(&prepared, &plan, report);
        report.rows = plan.counts;
        self.guard(&plan)?;
        let nothing = plan.is_empty();
        let units = plan.units(&prepared.files, &prepared.data_schema(), &self.options);
        (report.partitions, report.files) = plan.describe(&prepared.files, &units);
        let mark = (prepared.truncated != prepared.truncated_before).then(|| prepared.truncated.clone()).flatten();
        if nothing && kept.is_empty() && mark.is_none() && aside.is_empty() {
            return Ok(());
        }
        report.outcome = "planned";
        if mode == Mode::DryRun {
            return Ok(());
        }
        let committed = self.commit(&prepared, Work { units, added: plan.added, kept, aside }, report, commit).await?;
        report.outcome = if committed.outcome == CommitOutcome::Committed { "committed" } else { "unchanged" };
        report.version = committed.version;
        report.files.adopted = committed.adopted;
        report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        Ok(())
    }

    /// What becomes of every key: some thousand keys at a time, so that only what is written of them stays in memory.
    async fn decide(&self, p: &mut Prepared, report: &mut MergeReport) -> Result<Decided> {
        let stored = self.scan(p).await?;
        let groups = self.groups(p)?;
        let fetched = self.fetch(p, &stored, &groups).await?;
        let mut decided = Decided { refused: std::mem::take(&mut p.set.refused), ..Decided::default() };
        decided.plan = self.planner(p, &stored).begin();
        for groups in chunks(&groups) {
            let (resolved, before) = self.resolve(p, &stored, &fetched, groups)?;
            report.verdicts.add(&resolved.verdicts);
            self.planner(p, &stored).add(&resolved.outcomes, &mut decided.plan)?;
            decided.kept.extend(self.kept_changes(p, &resolved, &before)?);
            for (at, e) in resolved.refused {
                decided.refused.push(p.set.batches[at.table as usize].refuse(at.row as usize, e)?);
            }
        }
        self.planner(p, &stored).finish(&mut decided.plan)?;
        // The records are in the plan by now, as far as they matter.
        p.set.forget();
        p.tables = Tables::default();
        Ok(decided)
    }

    fn planner<'a>(&'a self, p: &'a Prepared, stored: &'a Stored) -> Planner<'a> {
        Planner {
            files: &p.files,
            target: &p.target,
            partition_by: &p.partition_by,
            tables: &p.tables,
            stored,
            key: &self.spec.key,
            target_size: self.options.target_size,
            row_group_rows: self.options.parquet.row_group_rows.map(|rows| rows as u64),
        }
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

    /// What becomes of the quarantine.
    async fn put_aside(
        &self,
        p: &Prepared,
        refused: Vec<Refused>,
        aside: Aside<'_>,
        report: &mut MergeReport,
    ) -> Result<quarantine::Change> {
        report.verdicts.quarantined = refused.len() as u64;
        let percent = 100.0 * refused.len() as f64 / report.records.max(1) as f64;
        if percent > self.options.max_quarantined {
            let first = &refused[0];
            let message = format!(
                "{} of {} records cannot be used ({percent:.1} %), and at most {} % may be put aside; nothing was changed. The first is {}: {}",
                refused.len(),
                report.records,
                self.options.max_quarantined,
                first.code,
                first.message
            );
            return Err(Error::data("TooManyQuarantined", message));
        }
        let head = &p.snapshot.observed.head;
        if refused.is_empty() && matches!(aside, Aside::Add) {
            return Ok(quarantine::Change::default());
        }
        let known = Quarantine::load(self.dataset.journal(), head).await?;
        match aside {
            Aside::Add => known.add(refused, head.version + 1),
            Aside::Take(tried) => known.take(tried, &refused, head.version + 1),
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
}

/// What a run comes to, before anything is written.
#[derive(Default)]
struct Decided {
    plan: Plan,
    kept: Vec<Entry>,
    refused: Vec<Refused>,
}

/// Keys that are decided at a time.
const KEYS: usize = 8192;

/// Groups of keys, whole, some thousand keys at a time.
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

async fn rows_of(snapshot: &Snapshot) -> Result<u64> {
    Ok(snapshot.open_files().await?.iter().map(OpenFile::rows).sum())
}
