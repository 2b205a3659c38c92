use std::collections::BTreeMap;

use biscuit_change::{ChangeBatch, Changes};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::{Dataset, Snapshot};
use biscuit_merge::{Beside, Forgotten, Merge, MergeOptions, MergeSpec, Mode, SliceBase, Slices};

use crate::calendar::Period;
use crate::dated::Dated;
use crate::plan::{self, By, Fact, PERIODS, Periods, slice};
use crate::report::SnapshotReport;
use crate::retracted::{RETRACTED, Retracted, retractions};
use crate::waiting::{self, WAITING};

/// A table that holds one full copy of its rows per period.
#[derive(Debug, Clone)]
pub struct Snapshots {
    pub(crate) dataset: Dataset,
    pub(crate) spec: MergeSpec,
    pub(crate) options: MergeOptions,
    pub(crate) periods: Periods,
}

/// What is known of the table before a run.
struct Known {
    existing: Option<(Period, Period)>,
    waiting: Vec<ChangeBatch>,
    retracted: Retracted,
}

/// The periods that a commit is about, and their records.
struct Step {
    periods: Vec<Period>,
    slices: Slices,
    changes: Vec<ChangeBatch>,
    first: Period,
    last: Period,
}

/// What one commit is made of.
struct Commit {
    step: Step,
    changes: Changes,
    beside: Beside,
}

impl Commit {
    fn of(mut step: Step, of_records: u64) -> Self {
        let changes = Changes::of(std::mem::take(&mut step.changes));
        Self { step, changes, beside: Beside { of_records, ..Beside::default() } }
    }
}

impl Snapshots {
    /// The table of a dataset. Partition columns of the options come below the period's.
    ///
    /// # Errors
    /// `InvalidSpec` if the effective column is dropped, or records of a table by ingestion are to take others back.
    pub fn new(dataset: Dataset, spec: MergeSpec, options: MergeOptions, periods: Periods) -> Result<Self> {
        if periods.retracts.is_some() && periods.by == By::Ingestion {
            let message = "records that take others back name the time at which these took effect: by effective date";
            return Err(Error::usage("InvalidSpec", message));
        }
        if let By::Effective(column) = &periods.by
            && spec.drop_columns.contains(column)
        {
            let message =
                format!("the effective column `{column}` cannot be dropped: it tells records of one order apart");
            return Err(Error::usage("InvalidSpec", message));
        }
        Merge::new(dataset.clone(), spec.clone(), options.clone())?;
        Ok(Self { dataset, spec, options, periods })
    }

    /// Brings change records to the periods they belong to, and opens periods up to the current one, which holds `as_of`: the instant
    /// for which the run was scheduled. A retry after the period has ended names the same instant.
    ///
    /// Periods that are there are changed in one commit, together with the first one that is new; each further one has a commit of its
    /// own, so that a run that was cut off goes on where it stopped; what was committed before an error stands. Nothing is changed, and
    /// no version written, if there is nothing to change.
    ///
    /// # Errors
    /// As [`Merge::run`]; `NullEffective`, `EffectiveType`, `BeforeFirstPeriod` for records without a period, naming file and row;
    /// `TooManyPeriods`; `EncryptedColumn` by effective date if files encrypt columns; `SpecDrift` if the table's periods are others.
    pub async fn run(&self, changes: Changes, as_of: Instant, mode: Mode) -> Result<SnapshotReport> {
        self.run_on(self.dataset.observe().await?, changes, as_of, mode, Beside::default()).await
    }

    /// As [`run`](Self::run), on top of a snapshot, and with what the last of its commits is to make true beside the rows: a bookmark of
    /// what was read. A run that was cut off before that reads the same again, which changes nothing where it is applied already.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_on(
        &self,
        snapshot: Snapshot,
        mut changes: Changes,
        as_of: Instant,
        mode: Mode,
        beside: Beside,
    ) -> Result<SnapshotReport> {
        if matches!(self.periods.by, By::Effective(_))
            && snapshot.clone().for_writing(&self.options.parquet, &[]).await?.1.encryption.is_some()
        {
            let message = "columns of the table are encrypted inside of its files, and records by effective date may wait for their period outside of them, where all would be in the clear: encrypt values instead";
            return Err(Error::usage("EncryptedColumn", message));
        }
        let existing = plan::existing(&snapshot, &self.periods)?;
        let asked = self.periods.calendar.period(as_of)?;
        let current = existing.map_or(asked, |(_, last)| asked.max(last));
        let mut report = SnapshotReport::new(as_of, &current, snapshot.observed.head.version);
        report.records = changes.len() as u64 + changes.ignored + changes.refused.len() as u64;
        let head = &snapshot.observed.head;
        // Records of forgotten keys do not wait either.
        let forgotten = Forgotten::load(self.dataset.journal(), head).await?;
        (changes.batches, report.verdicts.forgotten) = forgotten.without_all(changes.batches, &self.spec)?;
        let known = Known {
            existing,
            waiting: waiting::load(self.dataset.journal(), head).await?,
            retracted: Retracted::load(self.dataset.journal(), head).await?,
        };
        let mut commits = self.commits(changes, known, &asked, &current, mode, &mut report)?;
        if let Some(last) = commits.last_mut() {
            last.beside.state.extend(beside.state);
            last.beside.facts.extend(beside.facts);
        }
        let mut snapshot = Some(snapshot);
        for commit in commits {
            let on = match snapshot.take() {
                Some(snapshot) => snapshot,
                None => self.dataset.observe().await?,
            };
            // What another run has done between two commits of this one is not in the plan: periods, or records that wait.
            if on.observed.head.version != report.version {
                let message = format!("another run has committed version {}; run again", on.observed.head.version);
                return Err(Error::conflict("Conflict", message));
            }
            let Commit { step, changes, mut beside } = commit;
            let fact = Fact::new(&self.periods, &step.first, &step.last);
            if Fact::of(&on)?.as_ref() != Some(&fact) {
                beside.facts.push((PERIODS.to_owned(), fact.value()?));
            }
            let merge = Merge::new(self.dataset.clone(), self.spec.clone(), self.options.clone())?;
            let merged = merge.with_slices(step.slices)?.run_on(on, changes, mode, beside).await?;
            tracing::info!(period = %step.last, outcome = merged.outcome, "period");
            report.take(merged);
        }
        Ok(report)
    }

    /// What a run is to commit, one after the other: a function of its records and of what is known of the table.
    fn commits(
        &self,
        mut changes: Changes,
        known: Known,
        asked: &Period,
        current: &Period,
        mode: Mode,
        report: &mut SnapshotReport,
    ) -> Result<Vec<Commit>> {
        let Known { existing, waiting, mut retracted } = known;
        let mut dated = Dated::default();
        let batches = std::mem::take(&mut changes.batches);
        match self.periods.by {
            By::Ingestion => drop(dated.by_period.insert(*asked, batches)),
            By::Effective(_) => batches.iter().try_for_each(|batch| self.date(batch, current, &mut dated))?,
        }
        let first = self.first(existing, &mut dated, current)?;
        // Only what was not refused by now takes anything back.
        let mut new = Vec::new();
        for batch in dated.by_period.values().flatten().chain(&dated.later) {
            new.extend(retracted.take(batch, &self.periods, &self.spec)?);
        }
        for batches in dated.by_period.values_mut().chain([&mut dated.later]) {
            let others = retracted.without(std::mem::take(batches), &self.periods, &self.spec)?;
            report.verdicts.superseded += others.1;
            *batches = others.0;
        }
        let (waiting, forgotten) = retracted.without(waiting, &self.periods, &self.spec)?;
        let mut waiting = self.wait(&waiting, current, &mut dated, report)?;
        waiting.changed |= forgotten > 0;
        changes.refused.append(&mut dated.refused);
        let steps = self.steps(existing, first, current, dated.by_period, mode)?;
        let mut commits: Vec<Commit> = steps.into_iter().map(|step| Commit::of(step, report.records)).collect();
        let columns =
            |c: &Commit| c.changes.batches.iter().map(|b| (b.rows.schema(), b.file.clone())).collect::<Vec<_>>();
        let later = commits.iter().skip(1).flat_map(columns).collect();
        if let Some(first) = commits.first_mut() {
            let records = std::mem::take(&mut first.changes.batches);
            (changes.batches, first.beside.columns) = (records, later);
            first.changes = changes;
            // What was taken back is taken out of the periods that are there.
            if !new.is_empty() {
                first.beside.state.push((RETRACTED.0.to_owned(), Some(retracted.write())));
                first.beside.retractions = retractions(&new, &self.periods, &first.step.periods);
            }
        }
        // What waits is kept until the last of the commits that take it up.
        if let Some(last) = commits.last_mut().filter(|_| waiting.changed) {
            last.beside.state.push((WAITING.0.to_owned(), waiting.state()?));
        }
        Ok(commits)
    }

    /// The periods from one to another, of which one may be there already.
    fn added(&self, first: &Period, last: &Period) -> Result<Vec<Period>> {
        let mut all = vec![*first];
        while let Some(at) = all.last().filter(|at| *at < last) {
            if all.len() > self.periods.most_new {
                let message = format!(
                    "the run would add more than {} periods, from {first} to {last}: is a date wrong, or the granularity?",
                    self.periods.most_new
                );
                return Err(Error::usage("TooManyPeriods", message));
            }
            all.push(at.next()?);
        }
        Ok(all)
    }

    /// The commits of a run, one after the other. A dry run looks at all periods at once.
    fn steps(
        &self,
        existing: Option<(Period, Period)>,
        first: Period,
        current: &Period,
        mut by_period: BTreeMap<Period, Vec<ChangeBatch>>,
        mode: Mode,
    ) -> Result<Vec<Step>> {
        let mut there: Vec<(Period, SliceBase)> = Vec::new();
        let mut new: Vec<Period> = Vec::new();
        match existing {
            Some((was, last)) => {
                let earlier = self.added(&first, &was)?.into_iter().filter(|p| *p < was);
                there.extend(earlier.map(|p| (p, SliceBase::Empty)));
                there.extend(was.range(&last)?.into_iter().map(|p| (p, SliceBase::Own)));
                new.extend(self.added(&last, current)?.into_iter().skip(1));
            }
            None => new.extend(self.added(&first, current)?),
        }
        let base = |nothing_before: bool| if nothing_before { SliceBase::Empty } else { SliceBase::Predecessor };
        let mut groups: Vec<Vec<(Period, SliceBase)>> = Vec::new();
        // The first new period is made together with the changes of those before it.
        let together = if mode == Mode::DryRun { new.len() } else { new.len().min(1) };
        let mut group = there;
        for period in new.drain(..together) {
            let nothing_before = group.is_empty();
            group.push((period, base(nothing_before)));
        }
        groups.push(group);
        for period in new {
            let before = groups.last().and_then(|g| g.last()).map(|(p, _)| (*p, SliceBase::Own));
            groups.push(before.into_iter().chain([(period, SliceBase::Predecessor)]).collect());
        }
        let mut steps = Vec::new();
        for group in groups {
            let last = group.last().map_or(*current, |(p, _)| *p);
            let mut changes = Vec::new();
            for (at, (period, _)) in (0..).zip(&group) {
                for mut batch in by_period.remove(period).unwrap_or_default() {
                    batch.slice = at;
                    changes.push(batch);
                }
            }
            let all = group.iter().map(|(period, base)| slice(period, *base, &last)).collect();
            let slices = Slices { column: self.periods.column.clone(), all };
            let periods = group.iter().map(|(period, _)| *period).collect();
            steps.push(Step { periods, slices, changes, first, last });
        }
        if let Some((period, _)) = by_period.first_key_value() {
            return Err(Error::internal(format!("records of {period} have no place")));
        }
        Ok(steps)
    }
}
