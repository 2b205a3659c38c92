//! Checks for settings of sources and outputs that contradict each other.

use std::collections::BTreeMap;

use biscuit_core::Result;

use crate::spec::added_columns::AuditSpec;
use crate::spec::error::invalid_spec;
use crate::spec::output::{OutputMode, OutputSpec};
use crate::spec::source::SourceSpec;
use crate::spec::source_values::SourceFormat;

/// Checks that the settings of a source fit together.
pub(super) fn check_source(name: &str, source: &SourceSpec) -> Result<()> {
    let wrong = |what: &str| Err(invalid_spec(format!("source `{name}` {what}")));
    if source.places().is_empty() {
        return wrong("has no `url`");
    }
    if source.contract.is_some() && source.rules.is_some() {
        return wrong("has both `contract` and `rules`; a contract defines every type, so remove `rules`");
    }
    use SourceFormat::{Csv, Debezium, Dms, Json, Rows};
    // Setting, whether it is set, and the formats that it applies to.
    let formats: [(&str, bool, &[SourceFormat]); 9] = [
        ("op_map", !source.op_map.is_empty(), &[Rows, Dms]),
        ("table", source.table.is_some(), &[Debezium, Dms]),
        ("op", source.op.is_some(), &[Rows, Dms]),
        ("timestamp_column", source.timestamp_column.is_some(), &[Dms]),
        ("csv_null", source.csv_null.is_some(), &[Dms]),
        ("before_image", source.before_image.is_some(), &[Dms]),
        ("placeholder", source.placeholder.is_some(), &[Debezium, Rows]),
        ("max_decompressed", source.max_decompressed.is_some(), &[Debezium, Dms, Rows]),
        ("max_record", source.max_record.is_some(), &[Csv, Debezium, Dms, Json, Rows]),
    ];
    if let Some((what, ..)) = formats.iter().find(|(_, is_set, fits)| *is_set && !fits.contains(&source.format)) {
        return wrong(&format!("has `{what}`, which its format does not support"));
    }
    if source.rules.is_some() && source.format.is_changes() {
        return wrong("has `rules`, which change records do not support");
    }
    if let Err(e) = source.csv.dialect.check() {
        return wrong(&format!("has a CSV dialect that cannot be read: {}", e.message()));
    }
    source.op_map()?;
    source.allowed_lateness().map(drop)
}

/// Checks that the settings of an output fit together, and fit its sources. `all` are the sources of the job.
pub(super) fn check_output(name: &str, output: &OutputSpec, all: &BTreeMap<String, SourceSpec>) -> Result<()> {
    let wrong = |what: String| Err(invalid_spec(format!("output `{name}` {what}")));
    let sources = output.sources(all);
    if let Some(unknown) = sources.iter().find(|s| !all.contains_key(*s)) {
        return wrong(format!("reads `{unknown}`, which is not a source"));
    }
    if sources.is_empty() {
        return wrong("has no sources".to_owned());
    }
    let changes = sources.iter().any(|s| all[s].format.is_changes());
    let merges = matches!(output.mode, OutputMode::Merge | OutputMode::Snapshot);
    if changes && (sources.len() > 1 || output.sql.is_some() || !merges) {
        return wrong(
            "reads change records; these require the mode `merge` or `snapshot`, a single source and no query"
                .to_owned(),
        );
    }
    if sources.len() > 1 && output.sql.is_none() {
        return wrong("reads several sources without a query; add `sql`".to_owned());
    }
    // Setting, whether it is set, and whether it applies to the mode.
    let only = [
        ("granularity", output.granularity.is_some(), output.mode == OutputMode::Snapshot),
        ("effective_column", output.effective_column.is_some(), output.mode == OutputMode::Snapshot),
        ("key", !output.key.is_empty(), merges),
        ("order", !output.order.is_empty(), merges),
        ("op", output.op.is_some(), merges),
        ("op_rank", !output.op_rank.is_empty(), merges),
        ("ignore_null", !output.ignore_null.is_empty(), merges),
        ("drop_columns", !output.drop_columns.is_empty(), merges),
        ("max_deleted", output.max_deleted.is_some(), merges),
        ("new_server", output.new_server.is_some(), merges),
        ("zone", output.zone.is_some(), output.mode == OutputMode::Snapshot),
    ];
    if let Some((what, ..)) = only.iter().find(|(_, is_set, fits)| *is_set && !fits) {
        return wrong(format!("has `{what}`, which its mode does not support"));
    }
    if output.mode == OutputMode::Snapshot && output.granularity.is_none() {
        return wrong("has the mode `snapshot` without `granularity`".to_owned());
    }
    if changes && (!output.derive.is_empty() || output.audit != AuditSpec::default()) {
        return wrong("adds columns to change records; remove `derive` and `audit`".to_owned());
    }
    Ok(())
}
