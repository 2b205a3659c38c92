//! Renders the plans and the results of a purge.

use std::fmt::Write;

use biscuit_catalog::CatalogPartition;
use biscuit_core::{Error, Outcome, Result};
use biscuit_maintain::PlannedPurge;
use biscuit_maintain::report::{PurgeOutcome, PurgeTotals};
use biscuit_purge::ListedObject;
use serde_json::{Value, json};

use crate::render::json_lines::JsonLinesOutput;
use crate::render::output::{AGAIN, CommandOutput, exit_code};

/// Maximum number of objects that a dry run prints as text. The manifest has all of them.
const SHOWN: usize = 40;
/// Maximum number of objects that a dry run lists in JSON.
const NAMED: usize = 10_000;
/// Maximum number of failures, and of partitions, that are printed.
const FIRST: usize = 5;

/// Returns the answer of a dry run, or of a run with nothing to do, and writes the plans to the manifest.
pub(crate) fn render_planned(
    planned: &PlannedPurge,
    manifest: &mut JsonLinesOutput,
    emptied: &[CatalogPartition],
) -> CommandOutput {
    let nothing = planned.is_empty();
    let (mut text, mut shown, mut more) = (String::new(), 0, 0_u64);
    let (mut delete, mut abort) = (Vec::new(), Vec::new());
    for plan in planned.plans() {
        for object in plan.deletes() {
            if shown < SHOWN {
                text.push_str(&plan_line(&object));
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
            manifest.write_line(line);
        }
    }
    if more > 0 {
        let _ = writeln!(text, "… and {more} more; use --manifest to list all of them");
    }
    let totals = planned.totals();
    if !nothing {
        let title = format!("{:<20}  {:>14}  {:<12}  {}\n", "modified", "bytes", "class", "key");
        text.insert_str(0, &title);
        text.push('\n');
    }
    let outcome = if nothing { Outcome::Unchanged } else { Outcome::Planned };
    let _ = writeln!(text, "{outcome}: {}", render_totals(&totals));
    text.push_str(&render_kept(&totals));
    text.push_str(&catalog_text(emptied, "to drop"));
    let json = json!({
        "outcome": outcome, "plan": totals, "delete": delete, "abort": abort, "drop_partitions": partition_values(emptied),
        "caveats": planned.caveat().into_iter().collect::<Vec<_>>(),
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
    pub(crate) fn record_error(&mut self, error: &Error) {
        self.exit = self.exit.max(exit_code(error.kind()));
        if self.first.len() < FIRST {
            self.first.push(error.message().to_owned());
        }
    }

    /// Records a failure that happened after the deletes, so that the report of the deletes is still printed.
    pub(crate) fn record_result(&mut self, result: Result<()>) {
        if let Err(e) = result {
            self.exit = self.exit.max(exit_code(e.kind()));
            self.exceptions.push(format!("{}: {}", e.code(), e.message()));
        }
    }
}

/// Returns the report of a purge. `dropped` has the partitions that were dropped from the catalog.
pub(crate) fn render_purged(
    planned: &PlannedPurge,
    done: &PurgeOutcome,
    failed: &FailedDeletes,
    dropped: &[CatalogPartition],
) -> CommandOutput {
    let totals = planned.totals();
    let PurgeOutcome { outcome, counts, emptied_folders, .. } = done;
    let mut text = format!("{outcome}: {} objects deleted, {} bytes", counts.deleted, counts.bytes);
    for (n, what) in [(counts.absent, "were already absent"), (counts.aborted, "unfinished uploads aborted")] {
        if n > 0 {
            let _ = write!(text, ", {n} {what}");
        }
    }
    text.push('\n');
    counts.kept.iter().for_each(|(reason, n)| text.push_str(&format!("  exception  {n} kept ({reason})\n")));
    counts.failed.iter().for_each(|(code, n)| text.push_str(&format!("  exception  {n} not deleted: {code}\n")));
    failed.first.iter().for_each(|message| text.push_str(&format!("    {message}\n")));
    failed.exceptions.iter().for_each(|message| text.push_str(&format!("  exception  {message}\n")));
    text.push_str(&render_kept(&totals));
    text.push_str(&catalog_text(dropped, "dropped"));
    let json = json!({
        "outcome": outcome, "plan": totals, "deleted": counts.deleted, "bytes": counts.bytes, "absent": counts.absent,
        "aborted": counts.aborted, "kept": counts.kept, "failed": counts.failed, "delete_batches": counts.batches,
        "emptied_folders": emptied_folders, "dropped_partitions": partition_values(dropped), "exceptions": failed.exceptions, "caveats": planned.caveat().into_iter().collect::<Vec<_>>(),
    });
    // An object that was kept or not deleted counts as an exception, even without a worse failure.
    let exit = if counts.is_complete() { failed.exit } else { failed.exit.max(AGAIN) };
    CommandOutput::Report { json, text, exit }
}

/// Renders the number of objects, bytes and uploads to delete.
fn render_totals(totals: &PurgeTotals) -> String {
    let uploads = match totals.uploads {
        0 => String::new(),
        uploads => format!(" and {uploads} unfinished uploads"),
    };
    format!("{} objects, {} bytes{uploads} to delete", totals.objects, totals.bytes)
}

fn render_kept(totals: &PurgeTotals) -> String {
    totals.kept.iter().map(|(reason, n)| format!("  kept       {n} ({reason})\n")).collect()
}

fn partition_values(partitions: &[CatalogPartition]) -> Vec<&[String]> {
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
fn plan_line(object: &ListedObject) -> String {
    let modified = object.modified.map(|t| t.to_string()).unwrap_or_default();
    let modified = modified.get(..19).unwrap_or(&modified);
    let class = object.storage_class.as_deref().unwrap_or("");
    format!("{modified:<20}  {:>14}  {class:<12}  {object}\n", object.listed.size)
}
