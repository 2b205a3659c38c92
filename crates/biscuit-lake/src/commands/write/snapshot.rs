//! `biscuit snapshot`: merges change files into a table with one full copy per period.
//!
//! Options that the table already has, such as granularity and key, need not be given again.

use std::fmt::Write;

use biscuit_apply::report::PeriodReport;
use biscuit_apply::{BufferedChanges, ChangeFiles};
use biscuit_core::{Clock, Error, Instant, Outcome, Result, SystemClock};
use biscuit_partition::report::PeriodTableReport;
use biscuit_partition::{BeforeFirstPeriod, PeriodBasis, PeriodCalendar, PeriodPlan, PeriodTable};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::args::bookmark::{BookmarkArgs, ChosenInputs, InputReading};
use crate::args::merge::MergeArgs;
use crate::args::merge_options::run_mode;
use crate::commands::write::merge::check_table;
use crate::commands::write::merge_target::{DeclaredMerge, MergeTarget, check_inputs, listed_files};
use crate::environment::context::CommandContext;
use crate::render::output::{AGAIN, CommandOutput};
use crate::render::remarks::{render_counts, render_remarks};

/// Values of `--by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ByName {
    /// From the current period on, which contains `--as-of`
    Ingestion,
    /// From the period on that contains the time in `--effective-column`
    Effective,
}

/// Values of `--before-first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BeforeFirstName {
    /// Apply the records from the first period on
    Clamp,
    /// Stop the run, or quarantine the records with `--bad-rows quarantine`
    Error,
    /// Add the earlier periods to the table
    Extend,
}

/// Options of `biscuit snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotCommand {
    /// Read change files from these paths or URLs of files, folders or globs; without them, only open periods up to
    /// now
    #[arg(long, num_args = 1.., value_name = "PATH_OR_URL")]
    changes: Vec<String>,

    /// Choose the period from which on a record applies [default: as in the table]
    #[arg(long, value_enum)]
    by: Option<ByName>,

    /// Take the effective time of a record from this column: a date, a timestamp, or either as text
    #[arg(long, value_name = "COLUMN")]
    effective_column: Option<String>,

    /// Set the length of periods: hour, day, week, week:sunday, month, quarter, year, 14d, 14d@2024-01-05 [default:
    /// as in the table]
    #[arg(long)]
    granularity: Option<String>,

    /// Begin periods in this time zone, such as America/New_York [default: as in the table, or UTC]
    #[arg(long)]
    zone: Option<String>,

    /// Run for this scheduled instant, which the current period contains; give the same one to a retry [default: now]
    #[arg(long, value_name = "INSTANT")]
    as_of: Option<String>,

    /// Choose what happens to records that take effect before the first period
    #[arg(long, value_enum, default_value = "error")]
    before_first: BeforeFirstName,

    /// Retract an earlier record of the key: this column of a record has the effective time of a record that was
    /// dated wrongly, which is removed from the periods in between
    #[arg(long, value_name = "COLUMN")]
    retracts: Option<String>,

    /// Begin a new table with this period, such as 2024-01 [default: period of the earliest record]
    #[arg(long, value_name = "PERIOD")]
    first: Option<String>,

    /// Name the period column [default: as in the table, or period]
    #[arg(long, value_name = "COLUMN")]
    period_column: Option<String>,

    /// Stop if the run would add more than this number of periods
    #[arg(long, default_value = "1000", value_name = "PERIODS")]
    max_new_periods: usize,

    /// On a local disk, store equal files of several periods once, with hard links
    #[arg(long)]
    hard_links: bool,

    #[command(flatten)]
    merge: MergeArgs,

    #[command(flatten)]
    bookmark: BookmarkArgs,
}

pub(crate) async fn run(command: &SnapshotCommand, context: &CommandContext) -> Result<CommandOutput> {
    let args = &command.merge;
    if args.table.as_deref() == Some("*") {
        return Err(Error::new(
            biscuit_core::codes::INVALID_ARGUMENTS,
            "--table '*' works with `biscuit merge` only; name one table",
        ));
    }
    check_inputs(&command.changes, &args.target, context).await?;
    let table = MergeTarget::open_with(args, command.hard_links, context).await?;
    let known = match PeriodTable::open(table.dataset.clone()).await {
        Ok(known) => Some(known.layout().clone()),
        Err(e) if e.is(biscuit_partition::codes::NO_PERIODS) => None,
        Err(e) => return Err(e),
    };
    let periods = command.period_plan(known)?;
    let as_of: Instant = match &command.as_of {
        Some(text) => periods.calendar.read(text)?,
        None => SystemClock.now(),
    };
    let reading = InputReading { format: json!({"format": args.format.name()}), allow_empty: args.allow_empty };
    let mut chosen = command.bookmark.choose_inputs(&command.changes, reading, &table.dataset, context).await?;
    // With `--allow-missing` the input is read again without a file that was deleted meanwhile.
    let changes = loop {
        let read = read(command, &table, chosen.as_ref(), context).await;
        match (&read, &mut chosen) {
            (Err(e), Some(chosen)) => {
                if !chosen.remove_missing(e) {
                    break read?;
                }
            }
            _ => break read?,
        }
    };
    tracing::info!(records = changes.len(), "read all changes");
    if chosen.is_none() && changes.is_empty() {
        check_table(args, changes.rest().other_tables)?;
    }
    let Some((spec, options)) = table.spec_and_options(args, DeclaredMerge::from_records(&changes))? else {
        let json = json!({"outcome": Outcome::Unchanged, "records": changes.rest().ignored});
        let text = "unchanged: no change records, and the table has no periods yet\n".to_owned();
        return Ok(CommandOutput::Report { json, text, exit: 0 });
    };
    let snapshots = PeriodTable::new(table.dataset.clone(), spec, options, periods)?;
    let report = match &chosen {
        None => snapshots.run(changes, as_of, run_mode(args)).await?,
        Some(chosen) => {
            let (on, extras) = (chosen.snapshot.clone(), chosen.commit_extras()?);
            snapshots.run_on(on, changes, as_of, run_mode(args), extras).await?
        }
    };
    let exit = if report.remarks.exceptions.is_empty() { 0 } else { AGAIN };
    let (mut json, mut text) = (json!(report), report_as_text(&report, context.seconds()));
    chosen.iter().for_each(|chosen| chosen.add_to_report(&mut json, &mut text));
    Ok(CommandOutput::Report { json, text, exit })
}

/// Reads the change files, or those that a bookmark has chosen.
async fn read(
    command: &SnapshotCommand,
    table: &MergeTarget,
    chosen: Option<&ChosenInputs>,
    context: &CommandContext,
) -> Result<BufferedChanges> {
    let (format, mut changes) = (table.format.clone(), table.buffer(&command.merge));
    let files = match chosen {
        Some(chosen) => ChangeFiles::found(chosen.files()?, format),
        None if command.changes.is_empty() => return Ok(changes),
        None => listed_files(&command.changes, format, &command.merge, context),
    };
    let rest = files.each_batch(&mut changes).await?;
    changes.add_records(rest)?;
    Ok(changes)
}

impl SnapshotCommand {
    /// Returns the plan of the periods: from the options, and otherwise from the table.
    ///
    /// # Errors
    /// `InvalidArguments` if neither has the granularity or the basis of periods.
    fn period_plan(&self, known: Option<PeriodPlan>) -> Result<PeriodPlan> {
        let missing = |option: &str| {
            let message = format!("the table has no periods yet; add {option}");
            Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message)
        };
        let granularity = match (&self.granularity, &known) {
            (Some(text), _) => text.parse()?,
            (None, Some(known)) => known.calendar.granularity(),
            (None, None) => return Err(missing("--granularity")),
        };
        let zone = self.zone.as_deref().or(known.as_ref().map(|k| k.calendar.zone())).unwrap_or("UTC");
        let calendar = PeriodCalendar::new(granularity, zone)?;
        // An option wins over the table; `--effective-column` alone implies `--by effective`.
        let by = match (self.by, &self.effective_column, known.as_ref().map(|k| &k.by)) {
            (Some(ByName::Ingestion), Some(_), _) => {
                let message = "--effective-column needs --by effective";
                return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
            }
            (Some(ByName::Ingestion), None, _) => PeriodBasis::Ingestion,
            (_, Some(column), _) => PeriodBasis::Effective(column.clone()),
            (Some(ByName::Effective), None, Some(PeriodBasis::Effective(column))) => {
                PeriodBasis::Effective(column.clone())
            }
            (Some(ByName::Effective), None, _) => return Err(missing("--effective-column")),
            (None, None, Some(by)) => by.clone(),
            (None, None, None) => return Err(missing("--by ingestion or --by effective")),
        };
        let retracts = self.retracts.clone().or(known.as_ref().and_then(|k| k.retracts.clone()));
        let column = self.period_column.clone().or(known.map(|k| k.column));
        let before_first = match self.before_first {
            BeforeFirstName::Clamp => BeforeFirstPeriod::Clamp,
            BeforeFirstName::Error => BeforeFirstPeriod::Error,
            BeforeFirstName::Extend => BeforeFirstPeriod::Extend,
        };
        let first = self.first.as_ref().map(|text| calendar.parse(text)).transpose()?;
        let mut periods =
            PeriodPlan::new(calendar, by).with_before_first(before_first).with_max_new_periods(self.max_new_periods);
        (periods.first, periods.retracts) = (first, retracts);
        Ok(match column {
            Some(column) => periods.with_column(column),
            None => periods,
        })
    }
}

/// Renders the report as text.
fn report_as_text(report: &PeriodTableReport, seconds: f64) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line(format!(
        "{}: version {}, {} records as of {}, current period {}, in {seconds:.2} s",
        report.outcome, report.version, report.records, report.as_of, report.current
    ));
    line(format!("  records     {}", render_counts(json!(report.verdicts))));
    if report.opened > 0 {
        line(format!("  opened      {} that were pending", count_with_noun(report.opened, "record")));
    }
    if report.pending > 0 {
        line(format!("  pending     {} for periods that are not open yet", count_with_noun(report.pending, "record")));
    }
    let touched: Vec<&PeriodReport> = report.periods.iter().filter(|p| p.is_touched()).collect();
    let width = touched.iter().map(|p| p.period.len()).max().unwrap_or(0).max(10);
    for p in &touched {
        line(format!("  {:<width$}  {}", p.period, describe_change(p)));
    }
    let untouched = report.periods.len() - touched.len();
    if untouched > 0 {
        line(format!("  {} more, unchanged", count_with_noun(untouched as u64, "period")));
    }
    out.push_str(&render_remarks(&report.remarks, report.verdicts.quarantined));
    out
}

/// Renders a number with its noun in the singular or plural.
fn count_with_noun(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Renders how a period changes, and why.
fn describe_change(p: &PeriodReport) -> String {
    let own = p.keys - p.carried;
    let mut reason = Vec::new();
    if p.is_new {
        reason.push("new".to_owned());
    }
    if own > 0 {
        reason.push(format!("{} with records in this period", count_with_noun(own, "key")));
    }
    if p.carried > 0 {
        reason.push(format!("{} carried from earlier periods", count_with_noun(p.carried, "key")));
    }
    let rows = match (p.before == p.after, p.inserted + p.updated + p.deleted) {
        (_, 0) => format!("{} rows, unchanged", p.after),
        (true, _) => format!("{} rows", p.after),
        (false, _) => format!("{} to {} rows", p.before, p.after),
    };
    let changes = render_counts(json!({"inserted": p.inserted, "updated": p.updated, "deleted": p.deleted}));
    let parts = [reason.join(", "), rows, changes, render_counts(json!(p.files))];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}
