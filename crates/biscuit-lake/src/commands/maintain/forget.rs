//! `biscuit forget`: deletes the keys of subjects, the stored values of their tokens, and their rows.
//!
//! biscuit-maintain has the protocol, in which the order of the steps matters.

use biscuit_core::{Error, Outcome, Result};
use biscuit_journal::JournalOptions;
use biscuit_maintain::report::{DiscardedRecords, SubjectErasureReport};
use biscuit_maintain::{ErasureTable, SubjectErasure};
use biscuit_partition::report::ForgetReport;
use biscuit_rewrite::RunMode;
use clap::Args;
use serde_json::json;

use crate::codes;
use crate::commands::pii::{OpenPolicy, of_url};
use crate::environment::context::CommandContext;
use crate::render::output::{AGAIN, CommandOutput};

/// Options of `biscuit forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Forget these subjects, as the subject column had them before treatment
    #[arg(long, required = true, num_args = 1.., value_name = "SUBJECT")]
    subject: Vec<String>,

    /// Use this policy, whose store has the keys of the subjects
    #[arg(long, value_name = "FILE", required_unless_present = "erase_from")]
    policy: Option<String>,

    /// Delete the rows of the subjects from this table, by rewriting the files that contain them
    #[arg(long, value_name = "TABLE", requires = "column")]
    erase_from: Option<String>,

    /// Find the subjects in this column of the table; if the policy tokenizes it, by their tokens
    #[arg(long, value_name = "COLUMN")]
    column: Option<String>,

    /// First delete the stored values of these token columns; the tokens remain and still join
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS", requires = "erase_from", requires = "policy")]
    tokens: Vec<String>,

    /// Take the classes of columns from this contract, if the policy is not part of a job file
    #[arg(long, value_name = "FILE")]
    contract: Option<String>,

    /// Keep the rows, and only delete the stored values of their tokens
    #[arg(long, requires = "tokens")]
    keep_rows: bool,

    /// Readmit the subjects: records with their keys change the table again, including records of old input
    #[arg(long, requires = "erase_from", conflicts_with_all = ["tokens", "keep_rows", "dry_run"])]
    readmit: bool,

    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `biscuit forget`.
pub(crate) async fn run(args: &ForgetArgs, context: &CommandContext) -> Result<CommandOutput> {
    let open = match &args.policy {
        Some(path) => {
            let table = args.erase_from.as_deref().unwrap_or_default();
            Some(OpenPolicy::open(path, table, args.contract.as_deref(), context).await?)
        }
        None => None,
    };
    let mut erasure = SubjectErasure::new(&args.subject);
    if let Some(url) = &args.erase_from {
        erasure = erasure.with_table(open_table(args, url, open.as_ref(), context).await?);
    }
    if args.readmit {
        let count = erasure.readmit().await?;
        let text = format!("{count} subjects readmitted; their records change the table again\n");
        let json = json!({"outcome": Outcome::Done, "subjects": args.subject.len(), "readmitted": count});
        return Ok(CommandOutput::Report { json, text, exit: 0 });
    }
    let with_keys = open.as_ref().filter(|open| open.policy.subject.is_some());
    if args.erase_from.is_none() && with_keys.is_none() {
        let message = "nothing to forget: the policy has no `subject`, and --erase-from is not given";
        return Err(Error::new(codes::NOTHING_TO_FORGET, message));
    }
    if let Some(open) = with_keys {
        erasure = erasure.with_subject_keys(open.means.clone());
    }
    let mode = if args.dry_run { RunMode::DryRun } else { RunMode::Commit };
    let report = erasure.run(mode).await?;
    let exit = if report.has_exceptions() { AGAIN } else { 0 };
    Ok(CommandOutput::Report { text: text_of(&report, mode), json: json!(report), exit })
}

/// Opens the table of the erasure, with the keys of the policy if there is one.
async fn open_table(
    args: &ForgetArgs,
    url: &str,
    open: Option<&OpenPolicy>,
    context: &CommandContext,
) -> Result<ErasureTable> {
    let column = args.column.as_deref().unwrap_or_default();
    let table = match open {
        Some(open) => {
            let table = ErasureTable::new(open.open_dataset(url, context).await?, column);
            table.with_policy(open.protector(&open.table)?, open.means.clone(), &open.table)
        }
        None => ErasureTable::new(context.open(&of_url(url), JournalOptions::default()).await?, column),
    };
    let table = table.with_tokens(&args.tokens);
    Ok(if args.keep_rows { table.keeping_rows() } else { table })
}

/// Renders the report of an erasure.
fn text_of(report: &SubjectErasureReport, mode: RunMode) -> String {
    let mut text = String::new();
    for of in &report.tokens {
        text.push_str(&format!("{}: the values of {} tokens are deleted\n", of.column, of.tokens));
    }
    if let Some(erased) = &report.erased {
        text.push_str(&text_of_rows(erased, report.quarantine.unwrap_or_default()));
    }
    if report.keys_deleted.is_some() {
        let (count, what) = (report.subjects, if mode == RunMode::DryRun { "would be" } else { "are" });
        text.push_str(&format!(
            "the keys of {count} subjects {what} deleted, which makes their values unreadable in every table and copy\n"
        ));
    }
    text
}

/// Renders what was erased from a table.
fn text_of_rows(report: &ForgetReport, quarantine: DiscardedRecords) -> String {
    let erased = &report.erased;
    let mut text =
        format!("{}: {} of {} rows erased from {} files\n", erased.outcome, erased.erased, erased.rows, erased.files);
    for (count, what) in [
        (erased.retained_files, "retained files deleted"),
        (report.pending, "pending records erased"),
        (report.retracted, "retracted records erased"),
        (report.keys, "keys erased from the key metadata"),
        (report.forgotten, "keys forgotten; their records are refused from now on"),
    ] {
        if count > 0 {
            text.push_str(&format!("  {count} {what}\n"));
        }
    }
    let DiscardedRecords { discarded: count, unknown, .. } = quarantine;
    if count > 0 || unknown > 0 {
        text.push_str(&format!(
            "quarantine: {count} records discarded; the subject of {unknown} records is unknown, since they are not JSON or cannot be decrypted\n"
        ));
    }
    erased.exceptions.iter().for_each(|e| text.push_str(&format!("  exception   {e}\n")));
    for place in &report.not_covered {
        text.push_str(&format!("  not covered {}: {}\n", place.code, place.message));
    }
    text
}
