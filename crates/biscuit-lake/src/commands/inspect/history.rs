//! `biscuit history`: the versions of a table.

use biscuit_core::Result;
use biscuit_journal::record::{CommitRecord, PastVersion};
use serde_json::{Value, json};

use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

pub(crate) async fn run(args: &TableArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open_table(args).await?;
    let versions = dataset.journal().history().await?;
    let mut text = format!("{:>7}  {:<20}  {:<17}  {:<39}  {:<24}  state\n", "version", "time", "files", "rows", "run");
    let mut json = Vec::new();
    for version in &versions {
        text.push_str(&render_version(version));
        let record = &version.record;
        json.push(json!({
            "version": record.version,
            "at": version.at.to_string(),
            "finished": version.finished,
            "commit_id": record.commit_id,
            "run": record.run,
            "writer_id": record.writer_id,
            "published": record.publish.iter().map(|f| &f.path).collect::<Vec<_>>(),
            "removed": record.remove.iter().map(|f| &f.path).collect::<Vec<_>>(),
            "adopted": record.adopt.iter().map(|f| &f.path).collect::<Vec<_>>(),
            "report": record.report,
        }));
    }
    if versions.is_empty() {
        text = "the table has no version yet\n".to_owned();
    }
    Ok(CommandOutput::Report { json: json!({ "versions": json }), text, exit: 0 })
}

/// Renders a version as a line. Files are shown as `+published -removed =adopted`.
fn render_version(version: &PastVersion) -> String {
    let record = &version.record;
    let files = format!("+{} -{} ={}", record.publish.len(), record.remove.len(), record.adopt.len());
    let state = if version.finished { "finished" } else { "unfinished: run `biscuit recover`" };
    let at: String = version.at.to_string().chars().take(19).collect();
    // A run without an id is shown by its writer id, which is part of the names of its files.
    let run = record.run.as_deref().or(record.commit_id.as_deref()).unwrap_or(&record.writer_id);
    format!("{:>7}  {at:<20}  {files:<17}  {:<39}  {run:<24}  {state}\n", record.version, render_row_counts(record))
}

/// Renders how a version changed rows.
///
/// A merge reports `after (+inserted ~updated -deleted)`; so does a job that merges, under `merge`. Other jobs report
/// how many rows they wrote. Without a report the rows of the published files count.
fn render_row_counts(record: &CommitRecord) -> String {
    let report = &record.report;
    let erased = report["erased"]["rows"].as_u64().unwrap_or(0);
    let of_merge = |rows: &Value| {
        let n = |name: &str| rows[name].as_u64().unwrap_or(0);
        format!("{} (+{} ~{} -{})", n("after"), n("inserted"), n("updated"), n("deleted") + erased)
    };
    match (&report["rows"], &report["merge"]["rows"]) {
        (rows @ Value::Object(_), _) | (_, rows @ Value::Object(_)) => of_merge(rows),
        (Value::Number(written), _) => format!("{written} written"),
        _ => {
            let written: u64 = record.publish.iter().filter_map(|f| f.rows).sum();
            if written > 0 { format!("{written} written") } else { String::new() }
        }
    }
}
