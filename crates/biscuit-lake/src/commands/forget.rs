//! `biscuit forget`: deletes the keys of subjects, the stored values of their tokens, and their rows.
//!
//! The order matters: token values are deleted first, since the rows that contain the tokens are gone after the
//! erasure. A run that fails in between can be repeated.

use std::collections::BTreeSet;

use biscuit_apply::readmit;
use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_job::put_aside_of;
use biscuit_journal::JournalOptions;
use biscuit_partition::{ErasureSubjects, NotCovered, forget};
use biscuit_pii::{PiiContext, Protector, SubjectKeys};
use biscuit_rewrite::{RunMode, SubjectRows};
use clap::Args;
use serde_json::{Value, json};

use crate::commands::pii::{OpenPolicy, of_url};
use crate::environment::context::CommandContext;
use crate::environment::stores::on_s3;
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
    let json = json!({"subjects": args.subject.len()});
    let mut summary = ForgetSummary { json, text: String::new(), found: false, exceptions: false };
    let open = match &args.policy {
        Some(path) => {
            let table = args.erase_from.as_deref().unwrap_or_default();
            Some(OpenPolicy::open(path, table, args.contract.as_deref(), context).await?)
        }
        None => None,
    };
    if let Some(table) = args.erase_from.as_ref().filter(|_| args.readmit) {
        return readmitted(args, table, open.as_ref(), context).await;
    }
    if let Some(table) = &args.erase_from {
        forget_rows(args, table, open.as_ref(), &mut summary, context).await?;
    }
    if let Some(open) = open.as_ref().filter(|open| open.policy.subject.is_some()) {
        let (Some(store), Some(roots)) = (open.means.store.clone(), open.means.roots.clone()) else {
            return Err(Error::usage(
                "NoStore",
                "the policy has no `store` or no `keys`, and so no keys of subjects; add both, or use --erase-from",
            ));
        };
        let subjects = SubjectKeys::new(store, roots);
        for subject in args.subject.iter().filter(|_| !args.dry_run) {
            subjects.forget(subject).await?;
        }
        let (count, what) = (args.subject.len(), if args.dry_run { "would be" } else { "are" });
        summary.text.push_str(&format!(
            "the keys of {count} subjects {what} deleted, which makes their values unreadable in every table and copy\n"
        ));
        summary.found = true;
        summary.json["keys_deleted"] = json!(if args.dry_run { 0 } else { count });
    }
    let ForgetSummary { mut json, text, found, exceptions } = summary;
    if text.is_empty() {
        let message = "nothing to forget: the policy has no `subject`, and --erase-from is not given";
        return Err(Error::usage("NothingToForget", message));
    }
    json["outcome"] = Value::from(match (args.dry_run, found) {
        (true, _) => "planned",
        (false, true) => "done",
        (false, false) => "nothing found",
    });
    Ok(CommandOutput::Report { json, text, exit: if exceptions { AGAIN } else { 0 } })
}

/// Parts of the report, collected step by step.
struct ForgetSummary {
    json: Value,
    text: String,
    /// Whether anything of the subjects was found.
    found: bool,
    /// Whether something is left for another run.
    exceptions: bool,
}

/// Erases the rows of subjects from a table.
///
/// The stored values of their tokens are deleted first, since the tokens cannot be found after the erasure.
async fn forget_rows(
    args: &ForgetArgs,
    table: &str,
    open: Option<&OpenPolicy>,
    summary: &mut ForgetSummary,
    context: &CommandContext,
) -> Result<()> {
    let column = args.column.as_deref().unwrap_or_default();
    let dataset = opened(table, open, context).await?;
    let protector = open.map(|open| open.protector(&open.table)).transpose()?;
    let values = stored_values(args, protector.as_ref()).await?;
    let rows_of = ErasureSubjects::new(column, &values);
    if let Some(protector) = &protector {
        for tokens in &args.tokens {
            let mut of = BTreeSet::new();
            let rows_of = &rows_of;
            let found =
                |snapshot: TableVersion| async move { SubjectRows::of(&snapshot, rows_of).await?.read(None).await };
            for rows in dataset.read(found).await? {
                of.extend(protector.tokens_of(&rows, tokens)?);
            }
            let of: Vec<&str> = of.iter().map(String::as_str).collect();
            let count = if args.dry_run { of.len() as u64 } else { protector.forget_tokens(tokens, &of).await? };
            summary.found |= count > 0;
            summary.json["tokens"][tokens] = json!(count);
            summary.text.push_str(&format!("{tokens}: the values of {count} tokens are deleted\n"));
        }
    }
    if !args.keep_rows {
        erase_rows(args, &dataset, &rows_of, open, summary).await?;
    }
    // The tokens of the subjects themselves are deleted last: up to here they identify the rows.
    if let Some(protector) = protector.filter(|protector| !args.dry_run && protector.keeps_values(column)) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        protector.forget_tokens(column, &values).await?;
    }
    Ok(())
}

/// Opens the table, with the keys of the policy if there is one.
async fn opened(table: &str, open: Option<&OpenPolicy>, context: &CommandContext) -> Result<Dataset> {
    match open {
        Some(open) => open.dataset(table, context).await,
        None => context.open(&of_url(table), JournalOptions::default()).await,
    }
}

/// Returns the subjects as the column stores them: as tokens if the policy tokenizes the column.
async fn stored_values(args: &ForgetArgs, protector: Option<&Protector>) -> Result<Vec<String>> {
    let column = args.column.as_deref().unwrap_or_default();
    match protector.filter(|protector| protector.changes(column)) {
        Some(protector) => protector.tokens_for(column, &args.subject).await,
        None => Ok(args.subject.clone()),
    }
}

/// Erases the rows of subjects, and their entries in the state of the table, in one commit.
async fn erase_rows(
    args: &ForgetArgs,
    dataset: &Dataset,
    rows_of: &ErasureSubjects,
    open: Option<&OpenPolicy>,
    summary: &mut ForgetSummary,
) -> Result<()> {
    let mode = if args.dry_run { RunMode::DryRun } else { RunMode::Commit };
    // `observe` recovers the table first, which writes. A dry run has to use `view`.
    let snapshot = if args.dry_run { dataset.view().await? } else { dataset.observe().await? };
    let none = PiiContext::new();
    let sealed_by = open.map_or((&none, ""), |open| (&open.means, open.table.as_str()));
    let aside = put_aside_of(dataset, sealed_by, rows_of.column(), &args.subject).await?;
    let mut report = forget(snapshot, rows_of, &aside.theirs, mode).await?;
    if aside.unknown > 0 {
        let message = format!(
            "the subject of {} quarantined records is unknown, since they are not JSON or cannot be decrypted; inspect them with `biscuit quarantine show`, and merge those that are valid by now with `biscuit quarantine retry`",
            aside.unknown
        );
        report.not_covered.push(NotCovered::new("Quarantine", message));
    }
    if on_s3(&dataset.location().to_string()).is_some() {
        let message = "in a bucket with versioning, earlier versions of deleted objects still contain the rows; delete them with `biscuit purge --versions` or a lifecycle rule";
        report.not_covered.push(NotCovered::new("ObjectVersions", message));
    }
    let erased = &report.erased;
    summary.text.push_str(&format!(
        "{}: {} of {} rows erased from {} files\n",
        erased.outcome, erased.erased, erased.rows, erased.files
    ));
    for (count, what) in [
        (erased.retained_files, "retained files deleted"),
        (report.pending, "pending records erased"),
        (report.retracted, "retracted records erased"),
        (report.keys, "keys erased from the key metadata"),
        (report.forgotten, "keys forgotten; their records are refused from now on"),
    ] {
        if count > 0 {
            summary.text.push_str(&format!("  {count} {what}\n"));
        }
    }
    let (count, unknown) = (report.quarantined, aside.unknown);
    if count > 0 || unknown > 0 {
        summary.text.push_str(&format!(
            "quarantine: {count} records discarded; the subject of {unknown} records is unknown, since they are not JSON or cannot be decrypted\n"
        ));
    }
    erased.exceptions.iter().for_each(|e| summary.text.push_str(&format!("  exception   {e}\n")));
    for place in &report.not_covered {
        summary.text.push_str(&format!("  not covered {}: {}\n", place.code, place.message));
    }
    let counts = [erased.erased, erased.retained_files, report.pending, report.retracted, report.keys, count];
    summary.found |= counts.iter().any(|count| *count > 0);
    summary.exceptions |= !erased.exceptions.is_empty();
    summary.json["quarantine"] = json!({"discarded": count, "unknown": unknown});
    summary.json["erased"] = json!(report);
    Ok(())
}

/// Readmits subjects: their records change the table again.
async fn readmitted(
    args: &ForgetArgs,
    table: &str,
    open: Option<&OpenPolicy>,
    context: &CommandContext,
) -> Result<CommandOutput> {
    let protector = open.map(|open| open.protector(&open.table)).transpose()?;
    let values = stored_values(args, protector.as_ref()).await?;
    let dataset = opened(table, open, context).await?;
    let count = readmit(&dataset, args.column.as_deref().unwrap_or_default(), &values).await?;
    let text = format!("{count} subjects readmitted; their records change the table again\n");
    let json = json!({"outcome": "done", "subjects": args.subject.len(), "readmitted": count});
    Ok(CommandOutput::Report { json, text, exit: 0 })
}
