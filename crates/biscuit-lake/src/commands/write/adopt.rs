//! `biscuit adopt`: makes the files found in a folder part of its table.

use biscuit_apply::RunMode;
use biscuit_core::Result;
use serde_json::json;

use crate::args::table::AdoptArgs;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

pub(crate) async fn run(args: &AdoptArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open_table(&args.table).await?;
    let mode = if args.dry_run { RunMode::DryRun } else { RunMode::Commit };
    let report = biscuit_apply::adopt(&dataset, mode).await?;
    let mut text = format!("{}: version {}, {} rows\n", report.outcome, report.version, report.rows);
    for (what, names) in [("adopted", &report.adopted), ("missing", &report.missing)] {
        names.iter().for_each(|n| text.push_str(&format!("  {what}  {n}\n")));
    }
    if report.diverged {
        text.push_str("  run `biscuit verify` to check for duplicate keys\n");
    }
    Ok(CommandOutput::Report { json: json!(report), text, exit: 0 })
}
