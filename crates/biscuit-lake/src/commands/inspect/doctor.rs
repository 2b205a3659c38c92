//! `biscuit doctor`: tests what a store can do, and prints the IAM policies of commands.

use std::fmt::Write;

use biscuit_aws::{iam_policies, split_s3_url};
use biscuit_core::{Error, ErrorKind, Result, SystemClock};
use biscuit_journal::JournalOptions;
use biscuit_maintain::check_store;
use biscuit_maintain::report::{StoreCheck, StoreVerdict};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::environment::stores::delete_place;
use crate::render::output::{CommandOutput, exit_code};

/// Options of `biscuit doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print the IAM policy that this command needs for the table, such as `merge` or `purge`; `all` for every
    /// command
    #[arg(long, value_name = "COMMAND")]
    pub(crate) policy: Option<String>,
}

pub(crate) async fn run(args: &DoctorArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open(&args.table, JournalOptions::default()).await?;
    let (root, state) = (dataset.journal().table().to_string(), dataset.journal().state_root().to_string());
    let s3 = split_s3_url(&args.table.url);
    let policies = s3.map(|(bucket, _)| iam_policies(bucket, &root, &state)).unwrap_or_default();
    if let Some(command) = &args.policy {
        return show_policy(command, &policies);
    }
    let place = delete_place(&context.stores, &args.table.url).await?;
    let report = check_store(dataset.journal(), &place, &SystemClock).await?;
    let (checks, outcome) = (&report.checks, report.verdict.to_string());
    let mut text = text_of(checks);
    let _ = writeln!(text, "\n{outcome}");
    if !policies.is_empty() {
        text.push_str("use `--policy COMMAND` to print the IAM policy of a command\n");
    }
    let exit = match report.verdict {
        StoreVerdict::Unusable => {
            let errors = report.errors.iter().chain([&ErrorKind::Denied]);
            errors.map(|kind| exit_code(*kind)).max().unwrap_or_default()
        }
        _ => 0,
    };
    let json = json!({
        "outcome": outcome, "checks": checks, "clock_difference_seconds": report.clock_difference_seconds,
        "policies": Value::Object(policies),
    });
    Ok(CommandOutput::Report { json, text, exit })
}

/// Renders the results as a table of text.
fn text_of(checks: &[StoreCheck]) -> String {
    let mut text = format!("{:<24}  {:<4}  required for\n", "capability", "");
    for check in checks {
        let _ = writeln!(text, "{:<24}  {:<4}  {}", check.check, if check.ok { "yes" } else { "NO" }, check.needed_for);
        check.details.iter().for_each(|how| text.push_str(&format!("{:<32}({how})\n", "")));
    }
    text
}

/// Returns the IAM policy of a command, or of all commands.
fn show_policy(command: &str, policies: &Map<String, Value>) -> Result<CommandOutput> {
    let wanted: Map<String, Value> = policies
        .iter()
        .filter(|(name, _)| command == "all" || *name == command)
        .map(|(n, p)| (n.clone(), p.clone()))
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = policies.keys().map(String::as_str).collect();
        let message = match names.is_empty() {
            true => "IAM policies need a table on S3".to_owned(),
            false => format!("unknown command `{command}`; use one of {}", names.join(", ")),
        };
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    let json = match (command, wanted.values().next()) {
        (name, Some(policy)) if name != "all" => policy.clone(),
        _ => Value::Object(wanted),
    };
    let text = format!("{json:#}\n");
    Ok(CommandOutput::Report { json: json!({ "policy": json }), text, exit: 0 })
}
