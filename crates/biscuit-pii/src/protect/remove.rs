//! Removal of columns, and of fields inside of nested columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StructArray, make_array};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema};
use biscuit_core::{Error, Result};

/// Removes columns by path. A path leads into structs, and through lists and the values of maps to the structs in
/// them: `address.street`, `orders.note`. A struct whose fields are all removed is removed as well. Nulls, types and
/// the order of the remaining columns do not change.
///
/// # Errors
/// `UnknownColumn` for a path that the rows do not have, so that a misspelt path is not ignored silently.
pub fn remove_columns<S: AsRef<str>>(rows: &RecordBatch, paths: &[S]) -> Result<RecordBatch> {
    let paths: Vec<Vec<&str>> = paths.iter().map(|path| path.as_ref().split('.').collect()).collect();
    let schema = rows.schema_ref();
    let kept = remaining_fields(schema.fields(), rows.columns(), &paths, &[])?;
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = kept.into_iter().unzip();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(arrow_error)
}

fn arrow_error(e: arrow::error::ArrowError) -> Error {
    Error::internal("cannot build the rows without the removed columns").with_source(e)
}

/// Returns the remaining fields with their columns. `inside` is the path of the struct that contains the fields.
fn remaining_fields(
    fields: &Fields,
    columns: &[ArrayRef],
    paths: &[Vec<&str>],
    inside: &[&str],
) -> Result<Vec<(FieldRef, ArrayRef)>> {
    let missing = |path: &[&str]| {
        let path = [inside, path].concat().join(".");
        let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
        let message = format!("there is no column `{path}` to remove; the columns are {}", names.join(", "));
        Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_column(path)
    };
    let is_missing = |path: &&Vec<&str>| fields.iter().all(|field| field.name() != path[0]);
    if let Some(path) = paths.iter().find(is_missing) {
        return Err(missing(path));
    }
    let mut kept = Vec::new();
    for (field, column) in fields.iter().zip(columns) {
        // The rest of each path below this field. An empty rest means that the field itself is removed.
        let own = paths.iter().filter(|path| path[0] == field.name());
        let rest: Vec<Vec<&str>> = own.map(|path| path[1..].to_vec()).collect();
        if rest.iter().any(Vec::is_empty) {
            continue;
        }
        if rest.is_empty() {
            kept.push((field.clone(), column.clone()));
            continue;
        }
        let at = [inside, &[field.name().as_str()]].concat();
        if let Some(column) = part_without(column, &rest, &at)? {
            let new = field.as_ref().clone().with_data_type(column.data_type().clone());
            kept.push((Arc::new(new), column));
        }
    }
    Ok(kept)
}

/// Removes the fields at `paths` from a nested column. Returns `None` if no field is left.
fn part_without(column: &ArrayRef, paths: &[Vec<&str>], at: &[&str]) -> Result<Option<ArrayRef>> {
    match column.data_type() {
        DataType::Struct(fields) => {
            let of = column.as_struct();
            let kept = remaining_fields(fields, of.columns(), paths, at)?;
            if kept.is_empty() {
                return Ok(None);
            }
            let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = kept.into_iter().unzip();
            let made = StructArray::try_new_with_length(fields.into(), columns, of.nulls().cloned(), of.len());
            Ok(Some(Arc::new(made.map_err(arrow_error)?)))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let data = column.to_data();
            let Some(items) = part_without(&make_array(data.child_data()[0].clone()), paths, at)? else {
                return Ok(None);
            };
            let item = Arc::new(item.as_ref().clone().with_data_type(items.data_type().clone()));
            let kind = match column.data_type() {
                DataType::List(_) => DataType::List(item),
                DataType::LargeList(_) => DataType::LargeList(item),
                DataType::FixedSizeList(_, size) => DataType::FixedSizeList(item, *size),
                other => other.clone(),
            };
            let made = data.into_builder().data_type(kind).child_data(vec![items.to_data()]).build();
            Ok(Some(make_array(made.map_err(arrow_error)?)))
        }
        DataType::Map(entries, sorted) => {
            let map = column.as_map();
            let Some(values) = part_without(map.values(), paths, at)? else { return Ok(None) };
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(Error::internal("the entries of a map are not structs"));
            };
            let value = fields[1].as_ref().clone().with_data_type(values.data_type().clone());
            let fields = Fields::from(vec![fields[0].clone(), Arc::new(value)]);
            let new =
                StructArray::try_new(fields.clone(), vec![map.keys().clone(), values], None).map_err(arrow_error)?;
            let entries = Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(fields)));
            let data = column.to_data().into_builder().data_type(DataType::Map(entries, *sorted));
            Ok(Some(make_array(data.child_data(vec![new.to_data()]).build().map_err(arrow_error)?)))
        }
        _ => {
            let message = format!("`{}` has no fields, so it does not contain `{}`", at.join("."), paths[0].join("."));
            Err(Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_column(at.join(".")))
        }
    }
}
