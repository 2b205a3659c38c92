//! Parts of text reports that merges, snapshots and jobs share.

use std::collections::BTreeMap;

use biscuit_apply::report::MergeRemarks;
use biscuit_schema::coercion::ColumnLosses;

/// Renders the last lines of the text report of a merge or a snapshot: skipped input, changed columns, lost values,
/// quarantine and exceptions.
pub(crate) fn render_remarks(of: &MergeRemarks, quarantined: u64) -> String {
    let mut out = String::new();
    if of.other_tables > 0 {
        out.push_str(&format!("  skipped     {} records or files of other tables\n", of.other_tables));
    }
    for file in &of.passed_over {
        out.push_str(&format!("  skipped     {file}: it has keys or headers of messages only\n"));
    }
    let columns = [("added", &of.added_columns), ("widened", &of.widened_columns), ("not stored", &of.dropped_columns)];
    for (what, names) in columns.iter().filter(|(_, names)| !names.is_empty()) {
        out.push_str(&format!("  columns     {what} {}\n", names.join(", ")));
    }
    for (column, losses) in &of.losses {
        out.push_str(&format!("  lost        {column}: {}\n", render_losses(losses)));
    }
    for conflict in &of.conflicts {
        out.push_str(&format!("  types       {conflict}\n"));
    }
    if quarantined > 0 {
        out.push_str("  use `biscuit quarantine list` to list the quarantined records\n");
    }
    of.exceptions.iter().for_each(|e| out.push_str(&format!("  exception   {e}\n")));
    out
}

/// Renders how many values of a column were lost, and how.
pub(crate) fn render_losses(losses: &ColumnLosses) -> String {
    let by_code = |what: &str, counts: &BTreeMap<&'static str, u64>| {
        let codes: Vec<String> = counts.iter().map(|(code, n)| format!("{code} {n}")).collect();
        (!codes.is_empty()).then(|| format!("{} {what} ({})", counts.values().sum::<u64>(), codes.join(", ")))
    };
    let counted = |what: &str, n: u64| (n > 0).then(|| format!("{n} {what}"));
    let all = [
        by_code("became null", &losses.nulled),
        by_code("quarantined", &losses.refused),
        counted("rounded", losses.rounded),
        counted("replaced by the default", losses.defaulted),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Renders the numbers of a JSON object that are not 0, with their names, such as `inserted 1, pending 2`.
pub(crate) fn render_counts(value: serde_json::Value) -> String {
    let serde_json::Value::Object(object) = value else { return String::new() };
    let shown = object.iter().filter(|(_, n)| n.as_u64() != Some(0)).map(|(k, n)| format!("{k} {n}"));
    shown.collect::<Vec<_>>().join(", ").replace('_', " ")
}
