use biscuit_apply::report::{MergeRemarks, MergeReport, PeriodReport, RecordVerdicts};
use biscuit_core::{Instant, Outcome};
use serde::Serialize;

use crate::period::calendar::Period;

/// Report of a run or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PeriodTableReport {
    /// `Committed`, `Unchanged`, or `Planned` for a dry run.
    pub outcome: Outcome,
    /// Newest version of the table.
    pub version: u64,
    /// Number of commits: one for the existing periods together with the first new period, and one for each further
    /// new period.
    pub commits: u64,
    /// Instant for which the run was scheduled.
    pub as_of: String,
    /// Name of the newest period.
    pub current: String,
    /// Number of input records.
    pub records: u64,
    /// Number of pending records whose period was opened by this run. They have verdicts, too.
    pub opened: u64,
    /// Number of pending records after the run.
    pub pending: u64,
    /// Verdicts of the records, each in the period in which the record first counts.
    pub verdicts: RecordVerdicts,
    /// Report of each period, in ascending order.
    pub periods: Vec<PeriodReport>,
    /// Remarks about the input, the columns and the files. A column that becomes wider rewrites all periods.
    #[serde(flatten)]
    pub remarks: MergeRemarks,
}

impl PeriodTableReport {
    pub(crate) fn new(as_of: Instant, current: &Period, version: u64) -> Self {
        let (as_of, current) = (as_of.to_string(), current.to_string());
        Self { outcome: Outcome::Unchanged, version, as_of, current, ..Self::default() }
    }

    /// Adds the report of a commit.
    pub(crate) fn add_merge(&mut self, merged: MergeReport) {
        if merged.outcome != Outcome::Unchanged {
            self.outcome = merged.outcome;
            self.commits += u64::from(merged.outcome == Outcome::Committed);
        }
        self.version = self.version.max(merged.version);
        self.verdicts.add(&merged.verdicts);
        self.remarks.add(merged.remarks);
        for report in merged.periods {
            match self.periods.iter_mut().find(|p| p.period == report.period) {
                // The period was made or changed by an earlier commit of the run, and is only the base of this
                // commit.
                Some(_) if !report.is_touched() => {}
                Some(known) => known.clone_from(&report),
                None => self.periods.push(report),
            }
        }
    }
}
