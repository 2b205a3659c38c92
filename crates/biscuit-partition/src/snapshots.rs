use std::collections::BTreeMap;

use biscuit_change::{BadRows, ChangeBatch, Changes, Refused};
use biscuit_core::{Error, Instant, Result};
use biscuit_dataset::Dataset;
use biscuit_merge::{Beside, Merge, MergeOptions, MergeSpec, Mode, SliceBase, Slices};
use bytes::Bytes;

use crate::calendar::Period;
use crate::effective::Effective;
use crate::plan::{self, BeforeFirst, By, Fact, PERIODS, Periods, slice};
use crate::report::SnapshotReport;
use crate::retracted::{RETRACTED, Retracted, retractions};
use crate::waiting::{self, Known, WAITING};

/// A table that holds one full copy of its rows per period.
#[derive(Debug, Clone)]
pub struct Snapshots {
    pub(crate) dataset: Dataset,
    pub(crate) spec: MergeSpec,
    pub(crate) options: MergeOptions,
    pub(crate) periods: Periods,
}

/// The records of a run by the period in which they count first.
#[derive(Debug, Default)]
struct Dated {
    by_period: BTreeMap<Period, Vec<ChangeBatch>>,
    /// Those that take effect in a period that is not open yet.
    later: Vec<ChangeBatch>,
    refused: Vec<Refused>,
}

/// What one commit is made of.
struct Step {
    periods: Vec<Period>,
    slices: Slices,
    changes: Vec<ChangeBatch>,
    first: Period,
    last: Period,
}

/// What waits, before and after.
struct Waiting {
    /// What waits after the run.
    rest: Vec<ChangeBatch>,
    /// Whether that is not what waited before.
    changed: bool,
}

impl Snapshots {
    /// The table of a dataset. Partition columns of the options come below the period's.
    ///
    /// # Errors
    /// `InvalidSpec` if the effective column is dropped, or a column has the name of the period's.
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
    /// own, so that a run that was cut off goes on where it stopped; what an error meets then stays undone, and what was committed before
    /// it stands. Nothing is changed, and no version written, if there is nothing to
    /// change.
    ///
    /// # Errors
    /// As [`Merge::run`]; `NullEffective`, `EffectiveType`, `BeforeFirstPeriod` for records without a period, naming file and row;
    /// `TooManyPeriods`; `SpecDrift` if the table's periods are others.
    pub async fn run(&self, mut changes: Changes, as_of: Instant, mode: Mode) -> Result<SnapshotReport> {
        let snapshot = self.dataset.observe().await?;
        let existing = plan::existing(&snapshot, &self.periods)?;
        let asked = self.periods.calendar.period(as_of)?;
        let current = existing.map_or(asked, |(_, last)| asked.max(last));
        let mut report = SnapshotReport::new(as_of, &current, snapshot.observed.head.version);
        report.records = changes.len() as u64 + changes.ignored + changes.refused.len() as u64;
        let mut dated = Dated::default();
        let had = waiting::load(self.dataset.journal(), &snapshot.observed.head).await?;
        let ingested = self.periods.by == By::Ingestion;
        let journal = self.dataset.journal();
        for batch in std::mem::take(&mut changes.batches) {
            match ingested {
                true => dated.by_period.entry(asked).or_default().push(batch),
                false => self.date(&batch, &current, &mut dated)?,
            }
        }
        let first = self.first(existing, &mut dated, &current)?;
        // Only what was not refused by now takes anything back.
        let mut retracted = Retracted::load(journal, &snapshot.observed.head).await?;
        let mut new = Vec::new();
        for batch in dated.by_period.values().flatten().chain(&dated.later) {
            new.extend(retracted.take(batch, &self.periods, &self.spec)?);
        }
        for batches in dated.by_period.values_mut().chain([&mut dated.later]) {
            let (others, taken_back) = self.without(&retracted, std::mem::take(batches))?;
            *batches = others;
            report.verdicts.superseded += taken_back;
        }
        let (had, forgotten) = self.without(&retracted, had)?;
        let mut waiting = self.wait(&had, &current, &mut dated, &mut report)?;
        waiting.changed |= forgotten > 0;
        let steps = self.steps(existing, first, &current, dated.by_period, mode)?;
        let count = steps.len();
        let later = steps.iter().skip(1).flat_map(|step| &step.changes);
        let columns: Vec<_> = later.map(|batch| (batch.rows.schema(), batch.file.clone())).collect();
        let mut snapshot = Some(snapshot);
        let mut rest = Some((changes, dated.refused));
        for (number, step) in steps.into_iter().enumerate() {
            let on = match snapshot.take() {
                Some(snapshot) => snapshot,
                None => self.dataset.observe().await?,
            };
            // What another run has done between two commits of this one is not in the plan: periods, or records that wait.
            if number > 0 && on.observed.head.version != report.version {
                let message = format!("another run has committed version {}; run again", on.observed.head.version);
                return Err(Error::conflict("Conflict", message));
            }
            let mut all = Changes::of(step.changes);
            if let Some((others, refused)) = rest.take() {
                (all.ignored, all.other_tables) = (others.ignored, others.other_tables);
                all.dropped_columns = others.dropped_columns;
                all.refused = others.refused.into_iter().chain(refused).collect();
            }
            let mut beside = Beside { of_records: report.records, ..Beside::default() };
            let fact = Fact::new(&self.periods, &step.first, &step.last);
            if Fact::of(&on)?.as_ref() != Some(&fact) {
                beside.facts.push((PERIODS.to_owned(), fact.value()?));
            }
            // What waits is kept until the last of the commits that take it up.
            if waiting.changed && number + 1 == count {
                beside.state.push((WAITING.to_owned(), waiting.state()?));
            }
            // What was taken back is taken out of the periods that are there, with the first commit.
            if number == 0 {
                beside.columns.clone_from(&columns);
            }
            if number == 0 && !new.is_empty() {
                beside.state.push((RETRACTED.to_owned(), Some(retracted.write())));
                beside.retractions = retractions(&new, &self.periods, &step.periods)?;
            }
            let merge = Merge::new(self.dataset.clone(), self.spec.clone(), self.options.clone())?;
            let merged = merge.with_slices(step.slices)?.run_slices(on, all, mode, beside).await?;
            tracing::info!(period = %step.last, outcome = merged.outcome, "period");
            report.take(merged);
        }
        Ok(report)
    }

    /// The records that were not taken back, and how many were.
    pub(crate) fn without(&self, retracted: &Retracted, batches: Vec<ChangeBatch>) -> Result<(Vec<ChangeBatch>, u64)> {
        let (mut others, mut taken_back) = (Vec::with_capacity(batches.len()), 0);
        for batch in batches {
            match retracted.others(&batch, &self.periods, &self.spec)? {
                None => others.push(batch),
                Some(rows) => {
                    taken_back += (batch.ops.len() - rows.len()) as u64;
                    others.push(batch.pick(&rows)?);
                }
            }
        }
        Ok((others, taken_back))
    }

    /// Finds the period of every record of a batch.
    fn date(&self, batch: &ChangeBatch, current: &Period, dated: &mut Dated) -> Result<()> {
        let By::Effective(column) = &self.periods.by else { return Ok(()) };
        let effective = Effective::new(batch, column)?;
        let calendar = &self.periods.calendar;
        let mut rows: BTreeMap<Period, Vec<u32>> = BTreeMap::new();
        let (mut later, mut known): (Vec<u32>, Option<Period>) = (vec![], None);
        for row in 0..batch.ops.len() {
            let number = u32::try_from(row).expect("a batch has fewer than 2^32 rows");
            let found = effective.at(row, column, calendar).and_then(|at| match known {
                Some(period) if period.contains(at) => Ok(period),
                _ => calendar.period(at),
            });
            let period = match found {
                Ok(period) => period,
                Err(e) => {
                    self.refuse(batch, row, e.with_column(column), dated)?;
                    continue;
                }
            };
            known = Some(period);
            if period > *current {
                later.push(number);
            } else {
                rows.entry(period).or_default().push(number);
            }
        }
        for (period, rows) in rows {
            dated.by_period.entry(period).or_default().push(batch.pick(&rows)?);
        }
        if !later.is_empty() {
            dated.later.push(batch.pick(&later)?);
        }
        Ok(())
    }

    /// The records of a batch that take effect up to a period, by period. Those that say no time are left out where bad records are
    /// put aside.
    pub(crate) fn by_period(&self, batch: &ChangeBatch, last: &Period) -> Result<Vec<(Period, ChangeBatch)>> {
        let mut dated = Dated::default();
        self.date(batch, last, &mut dated)?;
        let all = dated.by_period.into_iter();
        Ok(all.flat_map(|(period, batches)| batches.into_iter().map(move |batch| (period, batch))).collect())
    }

    fn refuse(&self, batch: &ChangeBatch, row: usize, e: Error, dated: &mut Dated) -> Result<()> {
        let e = e.at(&batch.file, batch.places[row]);
        if self.options.bad_rows == BadRows::Fail {
            return Err(e);
        }
        dated.refused.push(batch.refuse(row, e)?);
        Ok(())
    }

    /// Takes up what has waited long enough, and puts by what has to wait.
    fn wait(
        &self,
        had: &[ChangeBatch],
        current: &Period,
        dated: &mut Dated,
        report: &mut SnapshotReport,
    ) -> Result<Waiting> {
        let new = std::mem::take(&mut dated.later);
        let mut rest = Vec::new();
        for batch in had {
            let mut of_batch = Dated::default();
            self.date(batch, current, &mut of_batch)?;
            for (period, batches) in of_batch.by_period {
                report.opened += batches.iter().map(|b| b.ops.len() as u64).sum::<u64>();
                dated.by_period.entry(period).or_default().extend(batches);
            }
            rest.append(&mut of_batch.later);
        }
        let mut changed = report.opened > 0;
        let mut known = Known::of(&rest)?;
        for batch in new {
            let unknown = known.add(&batch)?;
            report.verdicts.waiting += unknown.len() as u64;
            report.verdicts.duplicate += (batch.ops.len() - unknown.len()) as u64;
            if !unknown.is_empty() {
                changed = true;
                rest.push(batch.pick(&unknown)?);
            }
        }
        report.waiting = rest.iter().map(|b| b.ops.len() as u64).sum();
        Ok(Waiting { rest, changed })
    }

    /// The first period after the run. Records before the first one that is there go where the choice for them says.
    fn first(&self, existing: Option<(Period, Period)>, dated: &mut Dated, current: &Period) -> Result<Period> {
        let earliest = dated.by_period.first_key_value().map(|(period, _)| *period);
        if let (None, Some(first)) = (existing, self.periods.first)
            && first > *current
        {
            let message =
                format!("the first period is to be {first}, and the run is as of {current}, which is before it");
            return Err(Error::usage("InvalidSpec", message));
        }
        let begins = match (existing, self.periods.first) {
            (Some((first, _)), _) | (None, Some(first)) => first,
            (None, None) => return Ok(earliest.unwrap_or(*current)),
        };
        let Some(earliest) = earliest.filter(|earliest| *earliest < begins) else { return Ok(begins.min(*current)) };
        if self.periods.before_first == BeforeFirst::Extend {
            return Ok(earliest);
        }
        let since = dated.by_period.split_off(&begins);
        let before = std::mem::replace(&mut dated.by_period, since);
        for (period, batches) in before {
            if self.periods.before_first == BeforeFirst::Clamp {
                dated.by_period.entry(begins).or_default().extend(batches);
                continue;
            }
            for batch in batches {
                for row in 0..batch.ops.len() {
                    let message = format!(
                        "a record takes effect in {period}, before the first period, {begins}: choose what becomes of such records"
                    );
                    self.refuse(&batch, row, Error::data("BeforeFirstPeriod", message), dated)?;
                }
            }
        }
        Ok(begins.min(*current))
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

impl Waiting {
    fn state(&self) -> Result<Option<Bytes>> {
        if self.rest.is_empty() { Ok(None) } else { waiting::write(&self.rest).map(Some) }
    }
}
