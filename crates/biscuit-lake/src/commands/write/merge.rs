//! `biscuit merge`: merges change files into one table, or with `--table '*'` each source table into its own target.

use biscuit_apply::report::MergeReport;
use biscuit_apply::{BufferedChanges, ChangeFiles, MergeInput, MergeRun};
use biscuit_core::{Error, Result};
use serde_json::json;

use crate::args::bookmark::{ChosenInputs, InputReading};
use crate::args::merge::{MergeArgs, MergeCommand};
use crate::args::merge_options::run_mode;
use crate::codes;
use crate::commands::write::merge_tables::all_tables;
use crate::commands::write::merge_target::{DeclaredMerge, MergeTarget, check_inputs, listed_files};
use crate::environment::context::CommandContext;
use crate::render::merge::{empty_output, render_report};
use crate::render::output::CommandOutput;

pub(crate) async fn run(command: &MergeCommand, context: &CommandContext) -> Result<CommandOutput> {
    let args = &command.merge;
    if args.table.as_deref() == Some("*") {
        if command.bookmark.bookmark.is_some() {
            let message =
                "--bookmark needs one table, since each table has its own bookmark; name the table with --table";
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        if args.delete_missing {
            let message = "--delete-missing needs one table; name the table with --table";
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        return all_tables(command, context).await;
    }
    check_inputs(&command.changes, &args.target, context).await?;
    let table = MergeTarget::open(args, context).await?;
    let reading = InputReading { format: json!({"format": args.format.name()}), allow_empty: args.allow_empty };
    let mut chosen = command.bookmark.choose_inputs(&command.changes, reading, &table.dataset, context).await?;
    // With `--allow-missing` the merge is tried again without a file that was deleted meanwhile.
    loop {
        let done = one_table(command, &table, chosen.as_ref(), context).await;
        if let (Err(e), Some(chosen)) = (&done, &mut chosen)
            && chosen.remove_missing(e)
        {
            continue;
        }
        let (report, ignored, other_tables) = done?;
        let others = report.as_ref().map_or(other_tables, |report| report.remarks.other_tables);
        let has_records = report.as_ref().is_some_and(|report| report.records > 0);
        // With a bookmark it is normal that all new files belong to other tables.
        if chosen.is_none() && !has_records {
            check_table(args, others)?;
        }
        let answer = match report {
            Some(report) => render_report(&report, context.seconds()),
            None => empty_output(ignored, other_tables),
        };
        return Ok(match (answer, &chosen) {
            (CommandOutput::Report { mut json, mut text, exit }, Some(chosen)) => {
                chosen.add_to_report(&mut json, &mut text);
                CommandOutput::Report { json, text, exit }
            }
            (answer, _) => answer,
        });
    }
}

/// Checks that the table of `--table` has records. `others` is the number of records or files of other tables.
///
/// # Errors
/// `UnknownTable`.
pub(crate) fn check_table(args: &MergeArgs, others: u64) -> Result<()> {
    match &args.table {
        Some(table) if others > 0 && !args.allow_empty => {
            let message = format!(
                "no record belongs to the table `{table}`; {others} records or files belong to other tables. Check the name, or use --allow-empty"
            );
            Err(Error::new(biscuit_schema::codes::UNKNOWN_TABLE, message))
        }
        _ => Ok(()),
    }
}

/// Merges the files, or those that a bookmark has chosen.
///
/// Returns the report if there was something to merge, and the numbers of ignored records and of records of other
/// tables.
async fn one_table(
    command: &MergeCommand,
    table: &MergeTarget,
    chosen: Option<&ChosenInputs>,
    context: &CommandContext,
) -> Result<(Option<MergeReport>, u64, u64)> {
    let args = &command.merge;
    let files = match chosen {
        Some(chosen) => ChangeFiles::found(chosen.files()?, table.format.clone()),
        None => listed_files(&command.changes, table.format.clone(), args, context),
    };
    // If key and order are known from the first records, the others are divided by key while they are read. Otherwise, and
    // to find the rows without a record, all records are read first.
    let (key, order) = files.key_and_order().await?;
    let declared = DeclaredMerge { key: &key, order: &order, is_empty: true };
    if !args.delete_missing
        && let Some(merge) = table.prepare_merge(args, declared)?
    {
        let run = on_version(merge.input(files), table, chosen)?;
        return Ok((Some(run.run(run_mode(args)).await?), 0, 0));
    }
    let mut changes = table.buffer(args);
    let rest = files.each_batch(&mut changes).await?;
    let (ignored, other_tables) = (rest.ignored, rest.other_tables);
    changes.add_records(rest)?;
    tracing::info!(records = changes.len(), "read all changes");
    let Some(merge) = table.prepare_merge(args, DeclaredMerge::from_records(&changes))? else {
        return Ok((None, ignored, other_tables));
    };
    if args.delete_missing {
        check_whole(&changes)?;
        // A row without a record gets a delete, so that the guards and the report see it like any other delete.
        merge.add_deletes_of_missing(&mut changes).await?;
    }
    let run = on_version(merge.input(changes), table, chosen)?;
    Ok((Some(run.run(run_mode(args)).await?), ignored, other_tables))
}

/// Lets a run commit the bookmark of its input, on top of the table version in which the bookmark was read. Without a
/// bookmark, it is the version that was observed when the table was opened, if the input is read soon after that.
fn on_version<'a>(run: MergeRun<'a>, table: &MergeTarget, chosen: Option<&ChosenInputs>) -> Result<MergeRun<'a>> {
    match chosen {
        Some(chosen) => Ok(run.on(chosen.snapshot.clone()).with_extras(chosen.commit_extras()?)),
        None => Ok(table.on_observed(run)),
    }
}

/// Checks that the records can stand for the whole table: some exist, and none is invalid.
///
/// Otherwise `--delete-missing` would delete rows whose record is invalid or was not read.
///
/// # Errors
/// `NotWhole`.
fn check_whole(changes: &BufferedChanges) -> Result<()> {
    if changes.rest().refused.is_empty() && !changes.is_empty() {
        return Ok(());
    }
    let message = "--delete-missing needs files with records, all of them valid; nothing was changed";
    Err(Error::new(codes::NOT_WHOLE, message))
}

/// Merges the quarantined records of a table again.
pub(crate) async fn retry_quarantined(args: &MergeArgs, context: &CommandContext) -> Result<CommandOutput> {
    let table = MergeTarget::open(args, context).await?;
    let Some(merge) = table.prepare_merge(args, DeclaredMerge::NOTHING)? else {
        return Ok(empty_output(0, 0));
    };
    let report = merge.input(MergeInput::Quarantined(table.format)).run(run_mode(args)).await?;
    Ok(render_report(&report, context.seconds()))
}
