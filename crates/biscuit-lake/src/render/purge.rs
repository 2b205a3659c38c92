//! Renders the plans and the results of a purge.

use std::collections::BTreeMap;
use std::fmt::Write;

use biscuit_catalog::CatalogPartition;
use biscuit_core::{Error, Result};
use biscuit_purge::{DeleteCounts, ListedObject, PurgePlan};
use serde_json::{Value, json};

use crate::render::json_lines::JsonLinesOutput;
use crate::render::output::{AGAIN, CommandOutput, code};

/// Maximum number of objects that a dry run prints as text. The manifest has all of them.
const SHOWN: usize = 40;
/// Maximum number of objects that a dry run lists in JSON.
const NAMED: usize = 10_000;
/// Maximum number of failures, and of partitions, that are printed.
const FIRST: usize = 5;

/// Returns the answer of a dry run, or of a run with nothing to do, and writes the plans to the manifest.
pub(crate) fn planned(
    plans: &[PurgePlan],
    caveat: Option<&str>,
    manifest: &mut JsonLinesOutput,
    emptied: &[CatalogPartition],
) -> CommandOutput {
    let nothing = plans.iter().all(PurgePlan::is_empty);
    let (mut text, mut shown, mut more) = (String::new(), 0, 0_u64);
    let (mut delete, mut abort) = (Vec::new(), Vec::new());
    for plan in plans {
        for object in plan.deletes() {
            if shown < SHOWN {
                text.push_str(&row(&object));
                shown += 1;
            } else {
                more += 1;
            }
        }
        for upload in plan.uploads() {
            let begun = upload.begun.map(|t| t.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{begun:<20}  {:>14}  {:<12}  {}", "", "upload", upload.key);
        }
        for line in plan.json_lines() {
            let value: Value = serde_json::from_str(&line).expect("a line of a plan is JSON");
            match value["action"].as_str() {
                Some("delete") if delete.len() < NAMED => delete.push(value),
                Some("abort") => abort.push(value),
                _ => {}
            }
            manifest.line(line);
        }
    }
    if more > 0 {
        let _ = writeln!(text, "… and {more} more; use --manifest to list all of them");
    }
    let summary = sum(plans);
    if !nothing {
        let title = format!("{:<20}  {:>14}  {:<12}  {}\n", "modified", "bytes", "class", "key");
        text.insert_str(0, &title);
        text.push('\n');
    }
    let outcome = if nothing { "unchanged" } else { "planned" };
    let _ = writeln!(text, "{outcome}: {}", of(&summary));
    text.push_str(&kept_text(&summary));
    text.push_str(&catalog_text(emptied, "to drop"));
    let json = json!({
        "outcome": outcome, "plan": summary, "delete": delete, "abort": abort, "drop_partitions": values(emptied),
        "caveats": caveat.into_iter().collect::<Vec<_>>(),
    });
    CommandOutput::Report { json, text, exit: 0 }
}

/// Failures of a purge, collected for its report.
#[derive(Debug, Default)]
pub(crate) struct FailedDeletes {
    /// Highest exit code of the failures.
    exit: u8,
    /// Messages of the first failed deletes.
    first: Vec<String>,
    /// Failures other than deletes, such as those of the manifest and the catalog.
    exceptions: Vec<String>,
}

impl FailedDeletes {
    /// Records why an object was not deleted.
    pub(crate) fn add(&mut self, error: &Error) {
        self.exit = self.exit.max(code(error.kind()));
        if self.first.len() < FIRST {
            self.first.push(error.message().to_owned());
        }
    }

    /// Records a failure that happened after the deletes, so that the report of the deletes is still printed.
    pub(crate) fn note(&mut self, result: Result<()>) {
        if let Err(e) = result {
            self.exit = self.exit.max(code(e.kind()));
            self.exceptions.push(format!("{}: {}", e.code(), e.message()));
        }
    }
}

/// Returns the report of a purge.
///
/// `whole` is true if the plans cover everything in the folder, so that the emptied folders are known. `dropped` has
/// the partitions that were dropped from the catalog.
pub(crate) fn purged(
    plans: &[PurgePlan],
    done: &DeleteCounts,
    failed: &FailedDeletes,
    caveat: Option<&str>,
    whole: bool,
    dropped: &[CatalogPartition],
) -> CommandOutput {
    let summary = sum(plans);
    let nothing = plans.iter().all(PurgePlan::is_empty);
    let outcome = match (nothing, done.is_complete()) {
        (true, _) => "unchanged",
        (false, true) => "purged",
        (false, false) => "purged with exceptions",
    };
    let mut text = format!("{outcome}: {} objects deleted, {} bytes", done.deleted, done.bytes);
    for (n, what) in [(done.absent, "were already absent"), (done.aborted, "unfinished uploads aborted")] {
        if n > 0 {
            let _ = write!(text, ", {n} {what}");
        }
    }
    text.push('\n');
    done.kept.iter().for_each(|(reason, n)| text.push_str(&format!("  exception  {n} kept ({reason})\n")));
    done.failed.iter().for_each(|(code, n)| text.push_str(&format!("  exception  {n} not deleted: {code}\n")));
    failed.first.iter().for_each(|message| text.push_str(&format!("    {message}\n")));
    failed.exceptions.iter().for_each(|message| text.push_str(&format!("  exception  {message}\n")));
    text.push_str(&kept_text(&summary));
    text.push_str(&catalog_text(dropped, "dropped"));
    // A plan lists every object of the folder only if it is by age. Only then, and without failures, it is known
    // which folders are empty.
    let emptied: Vec<String> = match whole && done.is_complete() {
        true => plans.first().map(PurgePlan::emptied_folders).unwrap_or_default().into_iter().collect(),
        false => vec![],
    };
    let json = json!({
        "outcome": outcome, "plan": summary, "deleted": done.deleted, "bytes": done.bytes, "absent": done.absent,
        "aborted": done.aborted, "kept": done.kept, "failed": done.failed, "delete_batches": done.batches,
        "emptied_folders": emptied, "dropped_partitions": values(dropped), "exceptions": failed.exceptions, "caveats": caveat.into_iter().collect::<Vec<_>>(),
    });
    // An object that was kept or not deleted counts as an exception, even without a worse failure.
    let exit = if done.is_complete() { failed.exit } else { failed.exit.max(AGAIN) };
    CommandOutput::Report { json, text, exit }
}

/// Returns the sums of the plans.
fn sum(plans: &[PurgePlan]) -> Value {
    let (mut objects, mut bytes, mut uploads) = (0, 0_u64, 0);
    let mut kept = BTreeMap::<&str, u64>::new();
    for summary in plans.iter().map(PurgePlan::summary) {
        objects += summary.objects;
        bytes = bytes.saturating_add(summary.bytes);
        uploads += summary.uploads;
        summary.kept.into_iter().for_each(|(reason, n)| *kept.entry(reason).or_default() += n);
    }
    json!({"objects": objects, "bytes": bytes, "uploads": uploads, "kept": kept})
}

/// Renders the number of objects, bytes and uploads to delete.
fn of(summary: &Value) -> String {
    let n = |name: &str| summary[name].as_u64().unwrap_or(0);
    let uploads = match n("uploads") {
        0 => String::new(),
        uploads => format!(" and {uploads} unfinished uploads"),
    };
    format!("{} objects, {} bytes{uploads} to delete", n("objects"), n("bytes"))
}

fn kept_text(summary: &Value) -> String {
    let kept = summary["kept"].as_object().into_iter().flatten();
    kept.map(|(reason, n)| format!("  kept       {n} ({reason})\n")).collect()
}

fn values(partitions: &[CatalogPartition]) -> Vec<&[String]> {
    partitions.iter().map(|p| p.values.as_slice()).collect()
}

/// Renders the number of partitions and the first of them; empty without partitions.
fn catalog_text(partitions: &[CatalogPartition], what: &str) -> String {
    let first: Vec<String> = partitions.iter().take(FIRST).map(|p| p.values.join("/")).collect();
    let more = if partitions.len() > FIRST { ", …" } else { "" };
    match partitions.len() {
        0 => String::new(),
        n => format!("  catalog    {n} partitions {what}: {}{more}\n", first.join(", ")),
    }
}

/// Renders an object as a line of the plan.
fn row(object: &ListedObject) -> String {
    let modified = object.modified.map(|t| t.to_string()).unwrap_or_default();
    let modified = modified.get(..19).unwrap_or(&modified);
    let class = object.storage_class.as_deref().unwrap_or("");
    format!("{modified:<20}  {:>14}  {class:<12}  {object}\n", object.size)
}
