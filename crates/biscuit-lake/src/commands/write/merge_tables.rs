//! `biscuit merge --table '*'`: merges each source table of the files into its own target.

use std::collections::HashMap;

use biscuit_apply::report::MergeReport;
use biscuit_apply::{BufferedChanges, ChangeFormat};
use biscuit_change::{RowsOptions, SourceTable, TablesReader};
use biscuit_core::{Error, ErrorKind, Outcome, Result};
use biscuit_dataset::PathTemplate;
use biscuit_journal::internal::fold_name;
use serde_json::json;

use crate::args::merge::{ChangeFormatName, MergeArgs, MergeCommand};
use crate::args::merge_options::{format_with, max_decompressed, max_record, merge_options, read_contract, run_mode};
use crate::commands::write::merge_target::{DeclaredMerge, MergeTarget, check_inputs, listed_files};
use crate::environment::context::CommandContext;
use crate::render::merge::report_as_text;
use crate::render::output::{AGAIN, CommandOutput, error_json, exit_code};

/// Merges every table of the files into its own target, reading the files once.
///
/// The error of one table does not stop the other tables. The exit code is that of the first error.
pub(crate) async fn all_tables(command: &MergeCommand, context: &CommandContext) -> Result<CommandOutput> {
    let args = &command.merge;
    if !PathTemplate::new(&args.target).has_placeholder("table") {
        let message = "with --table '*' the target needs `{table}`, such as 's3://bucket/lake/{schema}/{table}'";
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    let options = |args: &MergeArgs| {
        let contract = read_contract(args)?;
        format_with(args, contract.as_ref(), None)
    };
    let other = || Error::new(biscuit_core::codes::INVALID_ARGUMENTS, "--table '*' needs --format debezium or dms");
    let reader = match args.format {
        ChangeFormatName::Debezium => TablesReader::debezium(|table| match options(&args.of_table(table)?)? {
            ChangeFormat::Debezium(options) => Ok(options),
            _ => Err(other()),
        }),
        ChangeFormatName::Dms => TablesReader::dms(|table| match options(&args.of_table(table)?)? {
            ChangeFormat::Dms(options) => Ok(options),
            _ => Err(other()),
        }),
        ChangeFormatName::Rows => return Err(other()),
    };
    let reader = reader.with_max_decompressed(max_decompressed(args)).with_max_record(max_record(args));
    // The reader of tables decides the format; this one is not used.
    let read_as = ChangeFormat::Rows(RowsOptions::default());
    let files = listed_files(&command.changes, read_as, args, context);
    let (mut json, mut lines, mut exit, mut changed) = (Vec::new(), String::new(), 0, false);
    let tables = files.by_table(reader, &BufferedChanges::new(&merge_options(args, None))).await?;
    let targets = table_args(args, tables.iter().map(|(name, _)| name));
    for ((name, changes), target) in tables.into_iter().zip(targets) {
        let name = name.to_string();
        tracing::info!(table = name, "merging");
        let merged = match changes.and_then(|changes| Ok((changes, target?))) {
            Ok((changes, args)) => one_of_many(&args, &command.changes, changes, context).await,
            Err(e) => Err(e),
        };
        let mut entry = match merged {
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                exit = if exit == 0 { exit_code(e.kind()) } else { exit };
                lines.push_str(&format!("{name}\n  error       {e}\n"));
                error_json(&e, context.show_values)
            }
            Ok(None) => json!({"outcome": Outcome::Unchanged}),
            Ok(Some(report)) => {
                changed |= report.outcome != Outcome::Unchanged;
                exit = if report.remarks.exceptions.is_empty() { exit } else { AGAIN };
                lines.push_str(&format!("{name}\n{}", report_as_text(&report, context.seconds())));
                json!(report)
            }
        };
        entry["table"] = json!(name);
        json.push(entry);
    }
    let done = if args.dry_run { Outcome::Planned } else { Outcome::Committed };
    let outcome = if changed { done } else { Outcome::Unchanged };
    if json.is_empty() {
        lines.push_str("unchanged: no change records\n");
    }
    Ok(CommandOutput::Report { json: json!({"outcome": outcome, "tables": json}), text: lines, exit })
}

/// Returns the options of each table.
///
/// If several tables have one target, all of them are refused: their rows could not be told apart. Targets are
/// compared after folding letter case and Unicode forms, as some file systems do.
fn table_args<'a>(args: &MergeArgs, names: impl Iterator<Item = &'a SourceTable>) -> Vec<Result<MergeArgs>> {
    let of_each: Vec<Result<MergeArgs>> = names.map(|name| args.of_table(name)).collect();
    let mut counts: HashMap<String, u32> = HashMap::new();
    for args in of_each.iter().flatten() {
        *counts.entry(fold_name(&args.target)).or_default() += 1;
    }
    let alone = |args: MergeArgs| match counts.get(&fold_name(&args.target)) {
        Some(1) | None => Ok(args),
        Some(several) => {
            let message = format!(
                "{several} tables of the files have the target `{}`, ignoring letter case and Unicode forms; use `{{schema}}` and `{{table}}` in --target, or merge each table with --table and its own target",
                args.target
            );
            Err(Error::new(biscuit_change::codes::SEVERAL_TABLES, message))
        }
    };
    of_each.into_iter().map(|args| args.and_then(alone)).collect()
}

/// Merges the records of one of many tables into its target.
async fn one_of_many(
    args: &MergeArgs,
    places: &[String],
    changes: BufferedChanges,
    context: &CommandContext,
) -> Result<Option<MergeReport>> {
    check_inputs(places, &args.target, context).await?;
    let table = MergeTarget::open(args, context).await?;
    match table.prepare_merge(args, DeclaredMerge::from_records(&changes))? {
        Some(merge) => table.on_observed(merge.input(changes)).run(run_mode(args)).await.map(Some),
        None => Ok(None),
    }
}
