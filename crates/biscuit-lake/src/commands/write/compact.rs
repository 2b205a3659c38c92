//! `biscuit compact`: combines small files, and optionally sorts rows.

use biscuit_core::{Outcome, Result};
use biscuit_rewrite::{CompactOptions, RunMode, SortBy};
use clap::Args;
use serde_json::json;

use crate::args::parquet::{ParquetArgs, parse_bytes};
use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::process::memory::default_budget;
use crate::render::output::{AGAIN, CommandOutput};

/// Options of `biscuit compact`.
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Combine smaller files of a folder up to this size
    #[arg(long, default_value = "256MiB", value_parser = parse_bytes, value_name = "BYTES")]
    pub(crate) target_file_size: usize,

    /// Sort the rows of each folder by these columns; `-` before a column sorts in descending order
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "COLUMNS")]
    pub(crate) sort_by: Vec<String>,

    /// Limit the memory for row groups and sorting, such as `512MB`; beyond it rows are sorted on disk [default: half of
    /// the memory of the machine or container]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub(crate) memory: Option<usize>,

    #[command(flatten)]
    pub(crate) parquet: ParquetArgs,

    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) async fn run(args: &CompactArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open_table(&args.table).await?;
    let mut options = CompactOptions::default();
    options.target_size = args.target_file_size as u64;
    options.memory = args.memory.or_else(default_budget);
    options.parquet = args.parquet.options();
    options.sort_by = args.sort_by.iter().map(|c| sort_by(c)).collect();
    let mode = if args.dry_run { RunMode::DryRun } else { RunMode::Commit };
    let report = biscuit_rewrite::compact(&dataset, &options, mode).await?;
    let mut text = format!("{}: version {}, {} rows\n", report.outcome, report.version, report.rows);
    text.push_str(&format!("  files       {} of {} replaced", report.files_replaced, report.files_before));
    if report.outcome == Outcome::Committed {
        let (written, before, after) = (report.files_written, report.bytes_replaced, report.bytes_written);
        text.push_str(&format!(" by {written}, {before} bytes by {after}\n"));
        text.push_str(&format!("  row groups  {} copied, {} encoded", report.groups_copied, report.groups_encoded));
    }
    text.push('\n');
    report.exceptions.iter().for_each(|e| text.push_str(&format!("  exception   {e}\n")));
    let exit = if report.exceptions.is_empty() { 0 } else { AGAIN };
    Ok(CommandOutput::Report { json: json!(report), text, exit })
}

/// Parses a column of `--sort-by`.
fn sort_by(column: &str) -> SortBy {
    match column.strip_prefix('-') {
        Some(column) => SortBy::descending(column),
        None => SortBy::ascending(column),
    }
}
