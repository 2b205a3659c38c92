use std::collections::BTreeMap;

use biscuit_schema::{ColumnLosses, TypeConflict};

/// The parts that the text reports of a merge and of a snapshot end with.
#[derive(Debug)]
pub(crate) struct ReportRemarks<'a> {
    pub(crate) other_tables: u64,
    pub(crate) passed_over: &'a [String],
    pub(crate) added: &'a [String],
    pub(crate) widened: &'a [String],
    pub(crate) dropped: &'a [String],
    pub(crate) losses: &'a BTreeMap<String, ColumnLosses>,
    pub(crate) conflicts: &'a [TypeConflict],
    pub(crate) quarantined: u64,
    pub(crate) exceptions: &'a [String],
}

/// Records of other tables, columns that were added, widened and not stored, what was lost of values, the quarantine, exceptions.
pub(crate) fn remarks(of: &ReportRemarks<'_>) -> String {
    let &ReportRemarks { quarantined, exceptions, .. } = of;
    let mut out = String::new();
    if of.other_tables > 0 {
        out.push_str(&format!("  passed over {} of other tables\n", of.other_tables));
    }
    for file in of.passed_over {
        out.push_str(&format!("  passed over {file}: keys or headers of messages\n"));
    }
    for (what, names) in [("added", of.added), ("widened", of.widened), ("not stored", of.dropped)] {
        if !names.is_empty() {
            out.push_str(&format!("  columns     {what} {}\n", names.join(", ")));
        }
    }
    for (column, losses) in of.losses {
        out.push_str(&format!("  lost        {column}: {}\n", lost(losses)));
    }
    for conflict in of.conflicts {
        out.push_str(&format!("  types       {conflict}\n"));
    }
    if quarantined > 0 {
        out.push_str("  `biscuit quarantine list` shows what was put aside\n");
    }
    exceptions.iter().for_each(|e| out.push_str(&format!("  exception   {e}\n")));
    out
}

/// Counts of lost values of a column, in words.
pub(crate) fn lost(losses: &ColumnLosses) -> String {
    let by_code = |what: &str, counts: &BTreeMap<&'static str, u64>| {
        let codes: Vec<String> = counts.iter().map(|(code, n)| format!("{code} {n}")).collect();
        (!codes.is_empty()).then(|| format!("{} {what} ({})", counts.values().sum::<u64>(), codes.join(", ")))
    };
    let counted = |what: &str, n: u64| (n > 0).then(|| format!("{n} {what}"));
    let all = [
        by_code("became null", &losses.nulled),
        by_code("put aside", &losses.refused),
        counted("rounded", losses.rounded),
        counted("by default", losses.defaulted),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The numbers of an object that are not 0, with their names.
pub(crate) fn counts(value: serde_json::Value) -> String {
    let serde_json::Value::Object(object) = value else { return String::new() };
    let shown = object.iter().filter(|(_, n)| n.as_u64() != Some(0)).map(|(k, n)| format!("{k} {n}"));
    shown.collect::<Vec<_>>().join(", ").replace('_', " ")
}
