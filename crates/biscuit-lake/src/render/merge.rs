//! The answer of a merge.

use std::fmt::Write;

use biscuit_apply::report::MergeReport;
use biscuit_core::Outcome;
use serde_json::json;

use crate::render::output::{AGAIN, CommandOutput};
use crate::render::remarks::{render_counts, render_remarks};

/// Returns the answer of a merge.
pub(crate) fn render_report(report: &MergeReport, seconds: f64) -> CommandOutput {
    let exit = if report.remarks.exceptions.is_empty() { 0 } else { AGAIN };
    CommandOutput::Report { json: json!(report), text: report_as_text(report, seconds), exit }
}

/// Returns the answer of a merge without records.
pub(crate) fn empty_output(ignored: u64, other_tables: u64) -> CommandOutput {
    let json = json!({"outcome": Outcome::Unchanged, "records": ignored, "other_tables": other_tables});
    CommandOutput::Report { json, text: "unchanged: no change records of this table\n".to_owned(), exit: 0 }
}

/// Renders the report as text.
pub(crate) fn report_as_text(report: &MergeReport, seconds: f64) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line(format!("{}: version {}, {} records in {seconds:.2} s", report.outcome, report.version, report.records));
    line(format!("  records     {}", render_counts(json!(report.verdicts))));
    let (late, ignored) = (report.verdicts.late, report.verdicts.ignored);
    if late > 0 && late + ignored == report.records {
        line(format!(
            "  LATE        all {late} records are older than the stored rows of their keys and change nothing; use --reload to apply a new full load"
        ));
    }
    line(format!("  rows        {}", render_counts(json!(report.rows))));
    line(format!("  files       {}", render_counts(json!(report.files))));
    let p = &report.partitions;
    for (what, names) in [("added", &p.added), ("changed", &p.changed), ("emptied", &p.emptied)] {
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
        if !names.is_empty() {
            line(format!("  partitions  {what} {}", names.join(", ")));
        }
    }
    out.push_str(&render_remarks(&report.remarks, report.verdicts.quarantined));
    out
}
