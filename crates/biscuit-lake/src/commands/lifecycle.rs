//! `biscuit lifecycle`: the rules by which S3 itself deletes objects of a table's bucket.

use std::fmt::Write;

use aws_sdk_s3::types::LifecycleRule;
use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_journal::{JournalOptions, default_state_root};
use biscuit_purge::{
    LifecycleDays, LifecyclePlan, ProtectedTable, S3Store, lifecycle_prefix, lifecycle_rules, plan_lifecycle,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::command::TableArgs;
use crate::environment::context::CommandContext;
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
            let (store, dataset) = open(table, context).await?;
            let current = store.lifecycle().await?;
            let plan = plan(&current, &dataset, LifecycleDays::default());
            let mut text = table_of(&current);
            text.push_str(&dangers(&plan));
            let rules: Vec<Value> = current.iter().map(rule_json).collect();
            Ok(CommandOutput::Report {
                json: json!({"rules": rules, "dangers": plan.dangers}),
                text,
                exit: exit(&plan),
            })
        }
        LifecycleCommand::Plan(args) | LifecycleCommand::Apply(args) => {
            let (store, dataset) = open(&args.table, context).await?;
            let current = store.lifecycle().await?;
            let plan = plan(&current, &dataset, args.days());
            let applies = matches!(command, LifecycleCommand::Apply(_)) && !plan.is_empty();
            // S3 replaces the rules as a whole. `plan.rules` therefore includes the rules of others, and `current` is
            // compared with the bucket again right before.
            if applies {
                store.put_lifecycle(&current, &plan).await?;
            }
            let outcome = match (plan.is_empty(), applies) {
                (true, _) => "unchanged",
                (false, true) => "applied",
                (false, false) => "planned",
            };
            let mut text = table_of(&plan.rules);
            let _ = writeln!(text, "{outcome}: {} rules added, {} changed", plan.added.len(), plan.changed.len());
            text.push_str(&dangers(&plan));
            let rules: Vec<Value> = plan.rules.iter().map(rule_json).collect();
            let json = json!({
                "outcome": outcome, "added": plan.added, "changed": plan.changed, "rules": rules, "dangers": plan.dangers,
            });
            Ok(CommandOutput::Report { json, text, exit: exit(&plan) })
        }
    }
}

async fn open(table: &TableArgs, context: &CommandContext) -> Result<(S3Store, Dataset)> {
    let place = context.stores.place(&table.url).await?;
    let Some(store) = place.s3 else {
        let message = format!("`{}` is not on S3; only buckets have lifecycle rules", table.url);
        return Err(Error::usage("NotOnS3", message));
    };
    Ok((store, context.open(table, JournalOptions::default()).await?))
}

/// Plans the rules for the table. The pointer in the default place is protected even if the state root is elsewhere.
fn plan(current: &[LifecycleRule], dataset: &Dataset, days: LifecycleDays) -> LifecyclePlan {
    let (root, state) = (dataset.journal().table().as_ref(), dataset.journal().state_root().as_ref());
    let pointer = default_state_root(dataset.journal().table()).to_string();
    let table = ProtectedTable { root: root.to_owned(), state: state.to_owned(), pointer, ..ProtectedTable::default() };
    plan_lifecycle(current, &lifecycle_rules(root, state, days), &table)
}

/// Returns the exit code. Other rules that endanger the table need attention.
fn exit(plan: &LifecyclePlan) -> u8 {
    if plan.dangers.is_empty() { 0 } else { AGAIN }
}

fn dangers(plan: &LifecyclePlan) -> String {
    plan.dangers.iter().map(|d| format!("  danger: {d}\n")).collect()
}

fn rule_json(rule: &LifecycleRule) -> Value {
    let expiration = rule.expiration();
    json!({
        "id": rule.id(),
        "prefix": lifecycle_prefix(rule),
        "status": rule.status().as_str(),
        "expire_days": expiration.and_then(|e| e.days()),
        "expire_date": expiration.and_then(|e| e.date()).map(ToString::to_string),
        "expire_delete_markers": expiration.and_then(|e| e.expired_object_delete_marker()),
        "noncurrent_days": rule.noncurrent_version_expiration().and_then(|n| n.noncurrent_days()),
        "abort_upload_days": rule.abort_incomplete_multipart_upload().and_then(|a| a.days_after_initiation()),
        "transitions": rule.transitions().iter().filter_map(|t| t.storage_class()).map(|c| c.as_str()).collect::<Vec<_>>(),
    })
}

/// Renders rules as a table of text.
fn table_of(rules: &[LifecycleRule]) -> String {
    if rules.is_empty() {
        return "the bucket has no lifecycle rules\n".to_owned();
    }
    let mut text = format!("{:<34}  {:<9}  {:<44}  effect\n", "rule", "status", "prefix");
    for rule in rules {
        let json = rule_json(rule);
        let day = |name: &str, what: &str| json[name].as_i64().map(|n| format!("{what} after {n} d"));
        let moves = json["transitions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let does: Vec<String> = day("expire_days", "expires objects")
            .into_iter()
            .chain(json["expire_date"].as_str().map(|date| format!("expires objects on {date}")))
            .chain(day("noncurrent_days", "deletes noncurrent versions"))
            .chain(day("abort_upload_days", "aborts unfinished uploads"))
            .chain(json["expire_delete_markers"].as_bool().filter(|m| *m).map(|_| "removes delete markers".to_owned()))
            .chain(moves.map(|class| format!("moves objects to {class}")))
            .collect();
        let (id, prefix) = (rule.id().unwrap_or(""), lifecycle_prefix(rule));
        let _ = writeln!(text, "{id:<34}  {:<9}  {prefix:<44}  {}", rule.status().as_str(), does.join(", "));
    }
    text
}
