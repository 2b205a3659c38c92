//! Journal properties of a table: its columns, the types of its partition columns, and its layer.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::TableHead;
use biscuit_schema::{ColumnType, type_name};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use crate::codes;
use crate::files::data_file::DataFile;

/// Names of journal properties: the types of partition columns, and all columns of the table for a table without
/// files.
pub(crate) const PARTITION_TYPES: &str = "partition_types";
pub(crate) const COLUMNS: &str = "columns";

/// Name of the journal property with the declared layer of a table, such as `raw`.
pub const LAYER: &str = "layer";

/// Refuses a change of a table that may only be appended to. `what` completes the message: "must not be `merged
/// into`".
///
/// # Errors
/// `RawLayer` if the table was declared raw.
pub fn refuse_raw(head: &TableHead, what: &str) -> Result<()> {
    if head.properties.get(LAYER).and_then(Value::as_str) != Some("raw") {
        return Ok(());
    }
    let message = format!("the table is declared raw: it can only be appended to, and must not be {what}");
    Err(Error::new(codes::RAW_LAYER, message))
}

/// Returns the value of the property with the types of partition columns.
pub(crate) fn partition_types(schema: &Schema, partition_by: &[String]) -> Result<Value> {
    let mut types = serde_json::Map::new();
    for name in partition_by {
        let at = biscuit_schema::internal::column_index(schema, name, "the rows to write")?;
        let t = biscuit_schema::internal::plain_type(schema.field(at).data_type());
        let text = type_name(&t).ok_or_else(|| {
            Error::new(codes::PARTITION_TYPE, format!("partition column `{name}` has the unsupported type {t}"))
        })?;
        types.insert(name.clone(), Value::String(text));
    }
    Ok(if types.is_empty() { Value::Null } else { Value::Object(types) })
}

/// Reads the columns from their property.
pub(crate) fn kept_columns(kept: Option<&Value>) -> Result<SchemaRef> {
    let mut fields = Vec::new();
    for column in kept.and_then(Value::as_array).into_iter().flatten() {
        let part = |i: usize| column.get(i).and_then(Value::as_str);
        if let (Some(name), Some(t)) = (part(0), part(1)) {
            fields.push(Field::new(name, ColumnType::parse(t)?.arrow().clone(), true));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Returns the partition columns of files with their types: the declared type, or else the type of all values.
pub(crate) fn partition_columns(files: &[DataFile], kept: Option<&Value>) -> Result<Vec<(String, DataType)>> {
    let Some(first) = files.first() else {
        let kept = kept.and_then(Value::as_object).into_iter().flatten();
        return kept
            .filter_map(|(name, t)| Some((name, t.as_str()?)))
            .map(|(name, t)| Ok((name.clone(), ColumnType::parse(t)?.arrow().clone())))
            .collect();
    };
    let names = |f: &DataFile| f.partition.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    let columns = names(first);
    if let Some(other) = files.iter().find(|f| names(f) != columns) {
        let message = format!("`{}` and `{}` are partitioned by different columns", first.path(), other.path());
        return Err(Error::new(codes::MIXED_PARTITIONING, message));
    }
    let column = |(i, name): (usize, String)| {
        let declared = kept.and_then(|k| k.get(&name)).and_then(Value::as_str);
        let t = match declared {
            Some(text) => ColumnType::parse(text)?.arrow().clone(),
            None => infer_partition_type(&files.iter().filter_map(|f| f.partition[i].1.as_deref()).collect::<Vec<_>>()),
        };
        Ok((name, t))
    };
    columns.into_iter().enumerate().map(column).collect()
}

/// Infers the type of a partition column: bigint or date if every value has the form in which that type is written,
/// else text.
fn infer_partition_type(values: &[&str]) -> DataType {
    let date = |v: &&str| v.len() == 10 && v.parse::<biscuit_core::Instant>().is_ok();
    if values.is_empty() {
        DataType::Utf8
    } else if values.iter().all(|v| v.parse::<i64>().is_ok_and(|n| n.to_string() == *v)) {
        DataType::Int64
    } else if values.iter().all(date) {
        DataType::Date32
    } else {
        DataType::Utf8
    }
}
