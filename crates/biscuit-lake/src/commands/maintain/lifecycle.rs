//! `biscuit lifecycle`: the rules by which S3 itself deletes objects of a table's bucket.

use std::fmt::Write;

use biscuit_core::Result;
use biscuit_journal::JournalOptions;
use biscuit_maintain::TableLifecycle;
use biscuit_maintain::report::LifecycleRuleSummary;
use biscuit_purge::lifecycle::LifecycleDays;
use biscuit_rewrite::RunMode;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::environment::stores::delete_place;
use crate::render::output::{AGAIN, CommandOutput};

/// Commands of `biscuit lifecycle`.
#[derive(Debug, Subcommand)]
pub(crate) enum LifecycleCommand {
    /// Print the rules of the table's bucket, and which of them endanger the table
    Show(TableArgs),
    /// Print the changes that `apply` would make
    Plan(LifecycleArgs),
    /// Add the rules that the table needs to the bucket; all other rules remain unchanged
    Apply(LifecycleArgs),
}

/// Options of `biscuit lifecycle plan` and `apply`.
#[derive(Debug, Args)]
pub(crate) struct LifecycleArgs {
    #[command(flatten)]
    table: TableArgs,

    /// Expire staged files after this number of days; a committed version that is unfinished for longer is lost
    #[arg(long, default_value_t = LifecycleDays::default().staging, value_parser = clap::value_parser!(i32).range(7..))]
    staging_days: i32,

    /// Delete noncurrent object versions after this number of days, in a bucket with versioning
    #[arg(long, default_value_t = LifecycleDays::default().noncurrent, value_parser = clap::value_parser!(i32).range(1..))]
    noncurrent_days: i32,

    /// Abort unfinished uploads after this number of days
    #[arg(long, default_value_t = LifecycleDays::default().uploads, value_parser = clap::value_parser!(i32).range(1..))]
    upload_days: i32,
}

impl LifecycleArgs {
    fn days(&self) -> LifecycleDays {
        let mut days = LifecycleDays::default();
        (days.staging, days.noncurrent, days.uploads) = (self.staging_days, self.noncurrent_days, self.upload_days);
        days
    }
}

pub(crate) async fn run(command: &LifecycleCommand, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        LifecycleCommand::Show(table) => {
            let lifecycle = read(table, LifecycleDays::default(), context).await?;
            let (rules, found) = (lifecycle.current(), lifecycle.dangers());
            let mut text = table_of(&rules);
            text.push_str(&render_dangers(found));
            Ok(CommandOutput::Report { json: json!({"rules": rules, "dangers": found}), text, exit: exit_code(found) })
        }
        LifecycleCommand::Plan(args) => change_rules(args, RunMode::DryRun, context).await,
        LifecycleCommand::Apply(args) => change_rules(args, RunMode::Commit, context).await,
    }
}

async fn change_rules(args: &LifecycleArgs, mode: RunMode, context: &CommandContext) -> Result<CommandOutput> {
    let report = read(&args.table, args.days(), context).await?.apply(mode).await?;
    let (outcome, added, changed) = (report.outcome, report.added.len(), report.changed.len());
    let mut text = table_of(&report.rules);
    let _ = writeln!(text, "{outcome}: {added} rules added, {changed} changed");
    text.push_str(&render_dangers(&report.dangers));
    Ok(CommandOutput::Report { json: json!(report), text, exit: exit_code(&report.dangers) })
}

async fn read(table: &TableArgs, days: LifecycleDays, context: &CommandContext) -> Result<TableLifecycle> {
    let place = delete_place(&context.stores, &table.url).await?;
    let dataset = context.open(table, JournalOptions::default()).await?;
    TableLifecycle::read(&place, dataset.journal(), days).await
}

/// Returns the exit code. Other rules that endanger the table need attention.
fn exit_code(dangers: &[String]) -> u8 {
    if dangers.is_empty() { 0 } else { AGAIN }
}

fn render_dangers(dangers: &[String]) -> String {
    dangers.iter().map(|d| format!("  danger: {d}\n")).collect()
}

/// Renders rules as a table of text.
fn table_of(rules: &[LifecycleRuleSummary]) -> String {
    if rules.is_empty() {
        return "the bucket has no lifecycle rules\n".to_owned();
    }
    let mut text = format!("{:<34}  {:<9}  {:<44}  effect\n", "rule", "status", "prefix");
    for rule in rules {
        let after = |days: Option<i32>, what: &str| days.map(|n| format!("{what} after {n} d"));
        let does: Vec<String> = after(rule.expire_days, "expires objects")
            .into_iter()
            .chain(rule.expire_date.as_ref().map(|date| format!("expires objects on {date}")))
            .chain(after(rule.noncurrent_days, "deletes noncurrent versions"))
            .chain(after(rule.abort_upload_days, "aborts unfinished uploads"))
            .chain(rule.expire_delete_markers.filter(|m| *m).map(|_| "removes delete markers".to_owned()))
            .chain(rule.transitions.iter().map(|class| format!("moves objects to {class}")))
            .collect();
        let (id, prefix) = (rule.id.as_deref().unwrap_or(""), &rule.prefix);
        let _ = writeln!(text, "{id:<34}  {:<9}  {prefix:<44}  {}", rule.status, does.join(", "));
    }
    text
}
