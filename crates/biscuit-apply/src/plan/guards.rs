//! Guards: limits beyond which a run stops and changes nothing. They need the outcome of the whole run.

use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result};
use biscuit_journal::CommitExtras;

use crate::codes;
use crate::merge_report::MergeReport;
use crate::periods::by_period::PeriodsInRun;
use crate::periods::period_state::PeriodBase;
use crate::plan::merge_plan::MergePlan;
use crate::state::quarantine::{QuarantineChange, QuarantineFile};
use crate::table::context::{TableContext, check_sealed};
use crate::table::truncate_marks::RunTruncates;

/// Counts the verdicts of truncates. A truncate is compared with the marks before the run and with the other
/// truncates that take effect in its period.
pub(crate) fn count_truncates(
    context: &TableContext,
    periods: &PeriodsInRun,
    truncates: &RunTruncates,
    plan: &MergePlan,
    report: &mut MergeReport,
) {
    let v = &mut report.verdicts;
    v.duplicate += truncates.records - truncates.own.len() as u64;
    for (period, order) in &truncates.own {
        let number = periods.all[*period as usize].number;
        let before = context.marks.iter().filter(|(n, _)| *n <= number).map(|(_, mark)| mark).max();
        let newest = truncates.newest(*period);
        match before {
            Some(before) if order == before => v.unchanged += 1,
            Some(before) if order < before => v.late += 1,
            _ if Some(order) != newest.as_ref() => v.superseded += 1,
            _ if plan.counts.deleted > 0 => v.deleted += 1,
            _ => v.unchanged += 1,
        }
    }
}

/// Returns the changes of the quarantine. Fails if too many records are invalid.
pub(crate) async fn quarantine_update(
    context: &TableContext,
    refused: Vec<RefusedRecord>,
    quarantine_change: QuarantineChange<'_>,
    of_records: u64,
    report: &mut MergeReport,
) -> Result<CommitExtras> {
    let all = refused.len();
    let refused = context.forgotten.without_refused(refused, &context.spec);
    report.verdicts.forgotten += (all - refused.len()) as u64;
    report.verdicts.quarantined = refused.len() as u64;
    let records = report.records.max(of_records);
    let percent = 100.0 * refused.len() as f64 / records.max(1) as f64;
    if percent > context.options.max_quarantined {
        let first = &refused[0];
        let message = format!(
            "{} of {} records cannot be used ({percent:.1} %), and at most {} % may be quarantined (`max_quarantined`); nothing was changed. The first is {}: {}",
            refused.len(),
            records,
            context.options.max_quarantined,
            first.code,
            first.message
        );
        return Err(Error::new(codes::TOO_MANY_QUARANTINED, message));
    }
    if !refused.is_empty() && context.options.parquet.encryption.is_some() {
        // Contracts can quarantine records without `--bad-rows quarantine`.
        check_sealed(&context.options)?;
    }
    let head = &context.snapshot.observed.head;
    if refused.is_empty() && matches!(quarantine_change, QuarantineChange::Add) {
        return Ok(CommitExtras::default());
    }
    let known = QuarantineFile::load(context.snapshot.journal(), head).await?;
    match quarantine_change {
        QuarantineChange::Add => known.add_records(refused, head.version + 1),
        QuarantineChange::Take(tried) => known.remove_retried(tried, &refused, head.version + 1),
    }
}

/// Fails if too many rows would be deleted. The limit applies to each period of its own; periods and tables of up
/// to 1,000 rows have no limit.
pub(crate) fn check_deletes(context: &TableContext, periods: &PeriodsInRun, plan: &MergePlan) -> Result<()> {
    let of_periods = periods.all.iter().filter(|_| periods.has_periods());
    let each = of_periods.map(|s| {
        let gone = match s.base {
            // A rebuilt period begins empty: rows that are not inserted again are deleted.
            PeriodBase::Rebuilt => s.rows.saturating_sub(s.report.inserted),
            _ => s.report.deleted,
        };
        (s.rows, gone, format!(" of `{}`", s.folder))
    });
    let whole = (!periods.has_periods()).then(|| (plan.counts.before, plan.counts.deleted, String::new()));
    for (before, deleted, place) in each.chain(whole) {
        let percent = 100.0 * deleted as f64 / before.max(1) as f64;
        if before <= 1000 || percent <= context.options.max_deleted {
            continue;
        }
        let message = format!(
            "{deleted} of {before} rows{place} would be deleted ({percent:.1} %), and at most {} % may be deleted (`max_deleted`); nothing was changed",
            context.options.max_deleted
        );
        return Err(Error::new(codes::TOO_MANY_DELETED, message));
    }
    Ok(())
}
