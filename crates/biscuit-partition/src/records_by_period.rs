//! Divides the records of a run by period, and decides which records are pending, carried to another period, or
//! refused.

use std::collections::BTreeMap;

use biscuit_apply::{BufferedChanges, MergeSpec};
use biscuit_change::{BadRows, ChangeBatch, RefusedRecord};
use biscuit_core::{Error, Result};

use crate::codes;
use crate::pending::PendingIndex;
use crate::period::calendar::Period;
use crate::period::effective::EffectiveColumn;
use crate::period::plan::{BeforeFirstPeriod, PeriodBasis, PeriodPlan};
use crate::period::table_report::PeriodTableReport;
use crate::retracted::RetractedKeys;

/// Records of a run, by the period in which they first count.
#[derive(Debug)]
pub(crate) struct RecordsByPeriod {
    pub(crate) by_period: BTreeMap<Period, BufferedChanges>,
    /// Records that take effect in a period that does not exist yet.
    pub(crate) later: Vec<ChangeBatch>,
    pub(crate) refused: Vec<RefusedRecord>,
    /// An empty buffer, with which those of the periods share their memory.
    empty: BufferedChanges,
}

/// Rules by which records are divided: the plan of the table, and the handling of records without a period.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DivisionRules<'a> {
    pub(crate) periods: &'a PeriodPlan,
    pub(crate) bad_rows: BadRows,
}

/// Pending records after a run.
pub(crate) struct PendingRecords {
    /// The pending records.
    pub(crate) rest: Vec<ChangeBatch>,
    /// Whether they differ from the pending records before the run.
    pub(crate) changed: bool,
}

impl RecordsByPeriod {
    /// Creates a division without records, which shares the memory of a buffer.
    pub(crate) fn sharing_memory_with(buffer: &BufferedChanges) -> Self {
        Self { by_period: BTreeMap::new(), later: vec![], refused: vec![], empty: buffer.another() }
    }

    /// Returns the records of a period.
    fn of_period(&mut self, period: Period) -> &mut BufferedChanges {
        self.by_period.entry(period).or_insert_with(|| self.empty.another())
    }

    /// Returns the batches of all periods, and those of later ones.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<ChangeBatch>> {
        let later = self.later.iter().cloned().map(Ok);
        self.by_period.values().flat_map(BufferedChanges::batches).chain(later)
    }

    /// Removes the records that are retracted. Returns their number.
    pub(crate) fn remove_retracted(
        &mut self,
        retracted: &RetractedKeys,
        periods: &PeriodPlan,
        spec: &MergeSpec,
    ) -> Result<u64> {
        if retracted.is_empty() {
            return Ok(0);
        }
        let mut removed = 0;
        for buffer in self.by_period.values_mut() {
            let all = std::mem::replace(buffer, self.empty.another());
            *buffer = all.map(|batch| {
                let (others, count) = retracted.remove_retracted(batch, periods, spec)?;
                removed += count;
                Ok(others)
            })?;
        }
        let (others, count) = retracted.remove_all_retracted(std::mem::take(&mut self.later), periods, spec)?;
        self.later = others;
        Ok(removed + count)
    }

    /// Adds the records of a batch, each to its period.
    pub(crate) fn add_batch(&mut self, batch: &ChangeBatch, current: &Period, rules: DivisionRules<'_>) -> Result<()> {
        let PeriodBasis::Effective(column) = &rules.periods.by else { return Ok(()) };
        let effective = EffectiveColumn::new(batch, column)?;
        let calendar = &rules.periods.calendar;
        let mut rows: BTreeMap<Period, Vec<u32>> = BTreeMap::new();
        let (mut later, mut known): (Vec<u32>, Option<Period>) = (vec![], None);
        for row in 0..batch.ops.len() {
            let number = u32::try_from(row).expect("a batch has fewer than 2^32 rows");
            // Neighbouring records often have the same period, so the last period is tried first.
            let found = effective.effective_time(row, column, calendar).and_then(|at| match known {
                Some(period) if period.contains(at) => Ok(period),
                _ => calendar.period(at),
            });
            let period = match found {
                Ok(period) => period,
                Err(e) => {
                    self.refuse_record(batch, row, e.with_column(column), rules.bad_rows)?;
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
            self.of_period(period).add(batch.select_rows(&rows)?)?;
        }
        if !later.is_empty() {
            self.later.push(batch.select_rows(&later)?);
        }
        Ok(())
    }

    /// Quarantines a record, or stops the run, as the options demand.
    fn refuse_record(&mut self, batch: &ChangeBatch, row: usize, e: Error, bad_rows: BadRows) -> Result<()> {
        let e = e.at(&batch.file, batch.places[row]);
        if bad_rows == BadRows::Fail {
            return Err(e);
        }
        self.refused.push(batch.refuse_row(row, e)?);
        Ok(())
    }

    /// Moves pending records whose period is open now to `by_period`, and adds new records of later periods to the
    /// pending ones.
    pub(crate) fn update_pending(
        &mut self,
        had: &[ChangeBatch],
        current: &Period,
        rules: DivisionRules<'_>,
        report: &mut PeriodTableReport,
    ) -> Result<PendingRecords> {
        let new = std::mem::take(&mut self.later);
        let mut rest = Vec::new();
        for batch in had {
            let mut of_batch = Self::sharing_memory_with(&self.empty);
            of_batch.add_batch(batch, current, rules)?;
            for (period, buffer) in of_batch.by_period {
                report.opened += buffer.len();
                self.of_period(period).append(buffer);
            }
            rest.append(&mut of_batch.later);
        }
        let mut changed = report.opened > 0;
        let mut known = PendingIndex::from_batches(&rest)?;
        for batch in new {
            let unknown = known.add_batch(&batch)?;
            report.verdicts.pending += unknown.len() as u64;
            report.verdicts.duplicate += (batch.ops.len() - unknown.len()) as u64;
            if !unknown.is_empty() {
                changed = true;
                rest.push(batch.select_rows(&unknown)?);
            }
        }
        report.pending = rest.iter().map(|b| b.ops.len() as u64).sum();
        Ok(PendingRecords { rest, changed })
    }

    /// Returns the first period after the run. Records before the existing first period are handled as `before_first`
    /// of the plan demands.
    pub(crate) fn first_period(
        &mut self,
        existing: Option<(Period, Period)>,
        current: &Period,
        rules: DivisionRules<'_>,
    ) -> Result<Period> {
        let earliest = self.by_period.first_key_value().map(|(period, _)| *period);
        if let (None, Some(first)) = (existing, rules.periods.first)
            && first > *current
        {
            let message = format!(
                "the first period {first} is after the current period {current}; choose an earlier first period"
            );
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        let begins = match (existing, rules.periods.first) {
            (Some((first, _)), _) | (None, Some(first)) => first,
            (None, None) => return Ok(earliest.unwrap_or(*current)),
        };
        let Some(earliest) = earliest.filter(|earliest| *earliest < begins) else { return Ok(begins.min(*current)) };
        if rules.periods.before_first == BeforeFirstPeriod::Extend {
            return Ok(earliest);
        }
        // Everything that remains in `before` is before the first period.
        let since = self.by_period.split_off(&begins);
        let before = std::mem::replace(&mut self.by_period, since);
        for (period, buffer) in before {
            if rules.periods.before_first == BeforeFirstPeriod::Clamp {
                self.of_period(begins).append(buffer);
                continue;
            }
            for batch in buffer.into_batches() {
                let batch = batch?;
                for row in 0..batch.ops.len() {
                    let message = format!(
                        "a record takes effect in {period}, before the first period {begins}; choose how to handle such records with `before_first`"
                    );
                    self.refuse_record(&batch, row, Error::new(codes::BEFORE_FIRST_PERIOD, message), rules.bad_rows)?;
                }
            }
        }
        Ok(begins.min(*current))
    }
}
