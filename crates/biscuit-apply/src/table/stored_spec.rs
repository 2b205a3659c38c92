//! The specification of merges in the properties of the journal: key, order and rank of operations.

use std::collections::BTreeMap;

use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_merge::MergeSpec;
use serde_json::{Value, json};

use crate::codes;

/// Name of the property with the specification.
pub(crate) const SPEC: &str = "merge";
/// Field of the specification with the period column of a table of periodic snapshots.
const PERIOD_COLUMN: &str = "period_column";

/// Returns the property that stores a specification.
pub(crate) fn spec_property(spec: &MergeSpec, period_column: Option<&String>) -> Value {
    let mut made = json!({"key": spec.key, "order": spec.order, "op_rank": spec.op_rank});
    if let Some(column) = period_column {
        made[PERIOD_COLUMN] = json!(column);
    }
    made
}

/// Refuses a specification that differs from the one of earlier merges: stored orders and key metadata would have
/// another meaning.
pub(crate) fn check_drift(
    properties: &BTreeMap<String, Value>,
    spec: &MergeSpec,
    period_column: Option<&String>,
) -> Result<()> {
    let Some(made) = properties.get(SPEC) else { return Ok(()) };
    match (made.get(PERIOD_COLUMN).and_then(Value::as_str), period_column) {
        (Some(then), Some(now)) if then == now => {}
        (None, None) => {}
        (Some(then), None) => {
            let message =
                format!("this table has periodic snapshots by `{then}`; merge into it with `biscuit snapshot`");
            return Err(Error::new(codes::SPEC_DRIFT, message));
        }
        (then, Some(now)) => {
            let then = then
                .map_or("has no periodic snapshots".to_owned(), |then| format!("has periodic snapshots by `{then}`"));
            let message = format!("this table {then}, and this run merges into periodic snapshots by `{now}`");
            return Err(Error::new(codes::SPEC_DRIFT, message));
        }
    }
    for (what, now) in [("key", &spec.key), ("order", &spec.order), ("op_rank", &spec.op_rank)] {
        let then = made.get(what).cloned().unwrap_or(Value::Null);
        if then != json!(now) {
            let message = format!(
                "the {what} of this table is {then}, and this run has {}; use the {what} of the table",
                json!(now)
            );
            return Err(Error::new(codes::SPEC_DRIFT, message));
        }
    }
    Ok(())
}

/// Returns the key and order columns of the merges of a table; `None` if the table was never merged into.
///
/// # Errors
/// The errors of the journal.
pub async fn merged_by(dataset: &Dataset) -> Result<Option<(Vec<String>, Vec<String>)>> {
    let spec = stored_spec(&dataset.journal().head().await?.properties)?;
    Ok(spec.map(|spec| (spec.key, spec.order)))
}

/// Returns the specification of the merges of a table from the properties of its head: key, order and ranks of
/// operations, and defaults for everything else. Returns `None` if the table was never merged into.
///
/// # Errors
/// `Diverged` if the property cannot be read.
pub fn stored_spec(properties: &BTreeMap<String, Value>) -> Result<Option<MergeSpec>> {
    let Some(made) = properties.get(SPEC) else { return Ok(None) };
    let columns = |what: &str| -> Vec<String> {
        let names = made.get(what).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let damaged = |e: Error| {
        Error::new(biscuit_journal::codes::DIVERGED, "the merge specification in the journal cannot be read")
            .with_source(e)
    };
    let spec = MergeSpec::new(columns("key"), columns("order")).map_err(damaged)?;
    Ok(Some(spec.with_op_rank(columns("op_rank"))))
}

/// Returns the period column of a table of periodic snapshots.
pub(crate) fn period_column_of(properties: &BTreeMap<String, Value>) -> Option<&str> {
    properties.get(SPEC)?.get(PERIOD_COLUMN)?.as_str()
}
