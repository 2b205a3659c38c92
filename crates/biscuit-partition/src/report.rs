use std::collections::BTreeMap;

use biscuit_core::Instant;
use biscuit_merge::{MergeReport, PeriodReport, RecordVerdicts};
use biscuit_schema::{ColumnLosses, TypeConflict};
use serde::Serialize;

use crate::calendar::Period;

/// What a run did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PeriodTableReport {
    /// `committed`, `unchanged`, or `planned` for a dry run.
    pub outcome: &'static str,
    /// The newest version of the table.
    pub version: u64,
    /// Versions that the run made: one for the periods that were there and the first new one, and one for each further one.
    pub commits: u64,
    /// The instant for which the run was scheduled.
    pub as_of: String,
    /// The newest period.
    pub current: String,
    /// Input records.
    pub records: u64,
    /// Input records of other tables, which are not in `records`.
    pub other_tables: u64,
    /// Records that had waited for a period that is open now; they have verdicts too.
    pub opened: u64,
    /// Records that wait after the run.
    pub pending: u64,
    /// What became of each record in the period in which it counts first.
    pub verdicts: RecordVerdicts,
    /// What happened in each period, ascending.
    pub periods: Vec<PeriodReport>,
    /// Files that have the keys or headers of messages, whose values are in others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// Columns of the records, and fields of structs, that are not stored.
    pub dropped_columns: Vec<String>,
    /// Values of the records that were rounded, or became null or the default, as the contract has it, by column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, ColumnLosses>,
    /// Columns of JSON and CSV whose values are of several types, and that are text for that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<TypeConflict>,
    /// Columns that the table did not have before.
    pub added_columns: Vec<String>,
    /// Columns whose type became wider, which rewrites all periods.
    pub widened_columns: Vec<String>,
    /// Live files that were kept because somebody else changed them since: the run ended with exceptions.
    pub exceptions: Vec<String>,
}

impl PeriodTableReport {
    pub(crate) fn new(as_of: Instant, current: &Period, version: u64) -> Self {
        let (as_of, current) = (as_of.to_string(), current.to_string());
        Self { outcome: "unchanged", version, as_of, current, ..Self::default() }
    }

    /// Takes in what a commit did.
    pub(crate) fn take(&mut self, merged: MergeReport) {
        if merged.outcome != "unchanged" {
            self.outcome = merged.outcome;
            self.commits += u64::from(merged.outcome == "committed");
        }
        self.version = self.version.max(merged.version);
        self.other_tables += merged.other_tables;
        self.verdicts.add(&merged.verdicts);
        merged.losses.into_iter().for_each(|(column, losses)| self.losses.entry(column).or_default().add(&losses));
        self.conflicts.extend(merged.conflicts);
        self.passed_over.extend(merged.passed_over);
        for period_state in merged.periods {
            match self.periods.iter_mut().find(|p| p.period == period_state.period) {
                // A period that an earlier commit of the run made or changed, and that this one begins with.
                Some(_) if !period_state.is_touched() => {}
                Some(known) => known.clone_from(&period_state),
                None => self.periods.push(period_state),
            }
        }
        for (all, own) in [
            (&mut self.dropped_columns, merged.dropped_columns),
            (&mut self.added_columns, merged.added_columns),
            (&mut self.widened_columns, merged.widened_columns),
            (&mut self.exceptions, merged.exceptions),
        ] {
            own.into_iter().for_each(|one| {
                if !all.contains(&one) {
                    all.push(one);
                }
            });
        }
    }
}
