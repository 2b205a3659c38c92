//! Runs of a table of periods. A run first divides its records by period and plans its commits, a pure function
//! (`commits`), and then performs them in order.

use std::collections::BTreeMap;

use biscuit_apply::internal::ErasedKeys;
use biscuit_apply::internal::{PeriodBase, PeriodRunContext, PeriodStates};
use biscuit_apply::{BufferedChanges, CollectedChanges, Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeBatch, ChangeRecords};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_journal::CommitExtras;

use crate::codes;
use crate::pending;
use crate::period::calendar::Period;
use crate::period::plan::{self, PERIODS, PeriodBasis, PeriodPlan, PeriodsProperty, period_state};
use crate::period::table_report::PeriodTableReport;
use crate::records_by_period::{DivisionRules, RecordsByPeriod};
use crate::retracted::{RETRACTED, RetractedKeys, retraction_set};

/// A merge into the periods of a table: what each run of the table has in common.
#[derive(Debug, Clone)]
pub(crate) struct PeriodMerge {
    pub(crate) dataset: Dataset,
    pub(crate) spec: MergeSpec,
    pub(crate) options: MergeOptions,
    pub(crate) periods: PeriodPlan,
}

/// State of the table before a run.
struct TableBeforeRun {
    existing: Option<(Period, Period)>,
    pending: Vec<ChangeBatch>,
    retracted: RetractedKeys,
}

/// Periods of one commit, and their records.
struct CommitStep {
    periods: Vec<Period>,
    period_states: PeriodStates,
    /// Records of each period, by its index among the periods of the commit.
    changes: Vec<(u32, BufferedChanges)>,
    first: Period,
    last: Period,
}

/// One commit of a run, with the state that it stores in addition to the rows.
struct PlannedCommit {
    step: CommitStep,
    /// Quarantined records, counts, key and order of the input. It has no batches.
    rest: ChangeRecords,
    extras: CommitExtras,
    whole: PeriodRunContext,
}

impl PlannedCommit {
    fn new(step: CommitStep, of_records: u64) -> Self {
        let mut whole = PeriodRunContext::default();
        whole.of_records = of_records;
        Self { step, rest: ChangeRecords::default(), extras: CommitExtras::default(), whole }
    }
}

/// Collects the records of a commit, which were divided by period, for its merge.
async fn collect(
    merge: &Merge,
    by_period: Vec<(u32, BufferedChanges)>,
    rest: ChangeRecords,
) -> Result<CollectedChanges> {
    let mut records = merge.collect()?;
    for (period, changes) in by_period {
        for batch in changes.into_batches() {
            records.add(ChangeBatch { period, ..batch? }).await?;
        }
    }
    records.add_records(rest).await?;
    Ok(records)
}

impl PeriodMerge {
    /// Creates a merge.
    ///
    /// # Errors
    /// `InvalidArguments` if the effective column is dropped, or if a table by ingestion has a column of retractions.
    pub(crate) fn new(dataset: Dataset, spec: MergeSpec, options: MergeOptions, periods: PeriodPlan) -> Result<Self> {
        if periods.retracts.is_some() && periods.by == PeriodBasis::Ingestion {
            let message =
                "retractions name the effective time of other records; they require periods by effective time";
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        if let PeriodBasis::Effective(column) = &periods.by
            && spec.drop_columns.contains(column)
        {
            let message =
                format!("the effective column `{column}` cannot be dropped: it distinguishes records of equal order");
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        let merge = Self { dataset, spec, options, periods };
        merge.merge()?;
        Ok(merge)
    }

    /// Returns a merge into the dataset, without periods.
    pub(crate) fn merge(&self) -> Result<Merge> {
        Merge::new(self.dataset.clone(), self.spec.clone(), self.options.clone())
    }

    /// Merges change records into the periods they belong to, based on the given table version. The last commit also
    /// stores `extras`.
    pub(crate) async fn run_on(
        &self,
        snapshot: TableVersion,
        changes: BufferedChanges,
        as_of: Instant,
        mode: RunMode,
        extras: CommitExtras,
    ) -> Result<PeriodTableReport> {
        if matches!(self.periods.by, PeriodBasis::Effective(_))
            && snapshot.clone().for_writing(&self.options.parquet, &[]).await?.1.encryption.is_some()
        {
            let message = "the table encrypts columns in its files, but pending records of a table by effective time are stored in plain text; encrypt the values instead";
            return Err(Error::new(biscuit_dataset::codes::ENCRYPTED_COLUMN, message));
        }
        let existing = plan::existing_periods(&snapshot, &self.periods)?;
        // A late retry names an earlier period, but the newest period of the table remains the current one.
        let asked = self.periods.calendar.period(as_of)?;
        let current = existing.map_or(asked, |(_, last)| asked.max(last));
        let mut report = PeriodTableReport::new(as_of, &current, snapshot.observed.head.version);
        report.records = changes.len() + changes.rest().ignored + changes.rest().refused.len() as u64;
        let head = &snapshot.observed.head;
        // Records of forgotten keys must not become pending either.
        let forgotten = ErasedKeys::load(self.dataset.journal(), head).await?;
        let changes = match forgotten.is_empty() {
            true => changes,
            false => changes.map(|batch| {
                let (batch, theirs) = forgotten.without_forgotten(batch, &self.spec)?;
                report.verdicts.forgotten += theirs;
                Ok(batch)
            })?,
        };
        let known = TableBeforeRun {
            existing,
            pending: pending::load_pending(self.dataset.journal(), head).await?,
            retracted: RetractedKeys::load(self.dataset.journal(), head).await?,
        };
        let options = self.options.clone().sharing_memory_with(&changes);
        let mut commits = self.plan_commits(changes, known, &asked, &current, mode, &mut report)?;
        commits.iter_mut().for_each(|commit| commit.extras.run.clone_from(&extras.run));
        if let Some(last) = commits.last_mut() {
            last.extras.state.extend(extras.state);
            last.extras.properties.extend(extras.properties);
        }
        let mut snapshot = Some(snapshot);
        for commit in commits {
            let on = match snapshot.take() {
                Some(snapshot) => snapshot,
                None => self.dataset.observe().await?,
            };
            // Another run that committed between two commits of this run may have added periods or pending records,
            // which the plan does not consider.
            if on.observed.head.version != report.version {
                let message = format!("another run committed version {}; run again", on.observed.head.version);
                return Err(Error::new(biscuit_core::codes::CONFLICT, message));
            }
            let PlannedCommit { step, rest, mut extras, whole } = commit;
            let property = PeriodsProperty::new(&self.periods, &step.first, &step.last);
            if PeriodsProperty::from_table(&on)?.as_ref() != Some(&property) {
                extras.set_property(PERIODS, property.to_json()?);
            }
            let merge = Merge::new(self.dataset.clone(), self.spec.clone(), options.clone())?;
            let merge = merge.with_periods(step.period_states)?;
            let records = collect(&merge, step.changes, rest).await?;
            let merged = merge.input(records).on(on).with_extras(extras).with_period_run(whole).run(mode).await?;
            tracing::info!(period = %step.last, outcome = %merged.outcome, "period");
            report.add_merge(merged);
        }
        Ok(report)
    }

    /// Plans the commits of a run: a function of its records and of the state of the table.
    fn plan_commits(
        &self,
        mut changes: BufferedChanges,
        known: TableBeforeRun,
        asked: &Period,
        current: &Period,
        mode: RunMode,
        report: &mut PeriodTableReport,
    ) -> Result<Vec<PlannedCommit>> {
        let TableBeforeRun { existing, pending, mut retracted } = known;
        let rules = DivisionRules { periods: &self.periods, bad_rows: self.options.bad_rows };
        let mut rest = changes.take_rest();
        let mut records_by_period = RecordsByPeriod::sharing_memory_with(&changes);
        match self.periods.by {
            PeriodBasis::Ingestion => drop(records_by_period.by_period.insert(*asked, changes)),
            PeriodBasis::Effective(_) => {
                changes.into_batches().try_for_each(|batch| records_by_period.add_batch(&batch?, current, rules))?;
            }
        }
        let first = records_by_period.first_period(existing, current, rules)?;
        // Retractions are collected after records were refused, since a refused record must not retract anything.
        let mut new = Vec::new();
        if self.periods.retracts.is_some() {
            for batch in records_by_period.batches() {
                new.extend(retracted.add_retractions(&batch?, &self.periods, &self.spec)?);
            }
        }
        report.verdicts.superseded += records_by_period.remove_retracted(&retracted, &self.periods, &self.spec)?;
        let (pending, forgotten) = retracted.remove_all_retracted(pending, &self.periods, &self.spec)?;
        let mut pending = records_by_period.update_pending(&pending, current, rules, report)?;
        pending.changed |= forgotten > 0;
        rest.refused.append(&mut records_by_period.refused);
        let steps = self.plan_steps(existing, first, current, records_by_period.by_period, mode)?;
        let mut commits: Vec<PlannedCommit> =
            steps.into_iter().map(|step| PlannedCommit::new(step, report.records)).collect();
        let later = commits.iter().skip(1).flat_map(|commit| &commit.step.changes);
        let later = later.flat_map(|(_, changes)| changes.columns()).cloned().collect();
        if let Some(first) = commits.first_mut() {
            (first.rest, first.whole.columns) = (rest, later);
            // Existing rows of retracted records are removed by the first commit, which contains all existing
            // periods.
            if !new.is_empty() {
                first.extras.put_state(RETRACTED.0, retracted.write());
                first.whole.retractions = retraction_set(&new, &self.periods, &first.step.periods);
            }
        }
        // Pending records remain in the state until the last commit that contains them, so that an interrupted run
        // finds them again.
        if let Some(last) = commits.last_mut().filter(|_| pending.changed) {
            pending::store(&pending.rest, &mut last.extras)?;
        }
        Ok(commits)
    }

    /// Returns the periods from `first` to `last`. `first` may already exist.
    fn added_periods(&self, first: &Period, last: &Period) -> Result<Vec<Period>> {
        let mut all = vec![*first];
        while let Some(at) = all.last().filter(|at| *at < last) {
            if all.len() > self.periods.max_new_periods {
                let message = format!(
                    "the run would add more than {} periods, from {first} to {last}; check the dates of the records and the granularity",
                    self.periods.max_new_periods
                );
                return Err(Error::new(codes::TOO_MANY_PERIODS, message));
            }
            all.push(at.next()?);
        }
        Ok(all)
    }

    /// Groups periods into commits. A dry run has a single group with all periods.
    fn plan_steps(
        &self,
        existing: Option<(Period, Period)>,
        first: Period,
        current: &Period,
        mut by_period: BTreeMap<Period, BufferedChanges>,
        mode: RunMode,
    ) -> Result<Vec<CommitStep>> {
        let mut there: Vec<(Period, PeriodBase)> = Vec::new();
        let mut new: Vec<Period> = Vec::new();
        match existing {
            Some((was, last)) => {
                let earlier = self.added_periods(&first, &was)?.into_iter().filter(|p| *p < was);
                there.extend(earlier.map(|p| (p, PeriodBase::Empty)));
                there.extend(was.range(&last)?.into_iter().map(|p| (p, PeriodBase::Own)));
                new.extend(self.added_periods(&last, current)?.into_iter().skip(1));
            }
            None => new.extend(self.added_periods(&first, current)?),
        }
        let base = |nothing_before: bool| if nothing_before { PeriodBase::Empty } else { PeriodBase::Predecessor };
        let mut groups: Vec<Vec<(Period, PeriodBase)>> = Vec::new();
        // The first new period is in the commit that changes the existing periods.
        let together = if mode == RunMode::DryRun { new.len() } else { new.len().min(1) };
        let mut group = there;
        for period in new.drain(..together) {
            let nothing_before = group.is_empty();
            group.push((period, base(nothing_before)));
        }
        groups.push(group);
        for period in new {
            // Each further commit also contains the period before its new one, since the new period begins as a copy
            // of it.
            let before = groups.last().and_then(|g| g.last()).map(|(p, _)| (*p, PeriodBase::Own));
            groups.push(before.into_iter().chain([(period, PeriodBase::Predecessor)]).collect());
        }
        let mut steps = Vec::new();
        for group in groups {
            let last = group.last().map_or(*current, |(p, _)| *p);
            let own = |(at, (period, _)): (u32, &(Period, PeriodBase))| Some((at, by_period.remove(period)?));
            let changes = (0..).zip(&group).filter_map(own).collect();
            let all = group.iter().map(|(period, base)| period_state(period, *base, &last)).collect();
            let period_states = PeriodStates { column: self.periods.column.clone(), all };
            let periods = group.iter().map(|(period, _)| *period).collect();
            steps.push(CommitStep { periods, period_states, changes, first, last });
        }
        if let Some((period, _)) = by_period.first_key_value() {
            return Err(Error::internal(format!("records of {period} are in no commit")));
        }
        Ok(steps)
    }
}
