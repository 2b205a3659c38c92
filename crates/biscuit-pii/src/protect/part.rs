//! Access to parts of columns by path, such as `address.street`. A path leads into structs, and through lists and the
//! values of maps to the structs in them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StructArray, make_array};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema};
use biscuit_core::{Error, Result};

fn arrow_error(e: arrow::error::ArrowError) -> Error {
    Error::internal("cannot build the treated rows").with_source(e)
}

fn missing_path(path: &str, there: &Fields) -> Error {
    let names: Vec<&str> = there.iter().map(|field| field.name().as_str()).collect();
    Error::new(
        biscuit_core::codes::UNKNOWN_COLUMN,
        format!("there is no column `{path}`; the columns are {}", names.join(", ")),
    )
    .with_column(path)
}

/// Returns the items of a list or the values of a map, without their grouping into rows.
fn list_items(array: &ArrayRef) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            Some(make_array(array.to_data().child_data()[0].clone()))
        }
        DataType::Map(..) => Some(array.as_map().values().clone()),
        _ => None,
    }
}

/// Returns the values at a path. For a path through lists or maps these are the values of all rows in sequence, so
/// that their number differs from the number of rows.
///
/// # Errors
/// `UnknownColumn`.
pub(crate) fn values_at(rows: &RecordBatch, path: &str) -> Result<ArrayRef> {
    let fields = rows.schema_ref().fields();
    let mut steps = path.split('.');
    let at = steps.next().and_then(|name| fields.find(name));
    let (at, _) = at.ok_or_else(|| missing_path(path, fields))?;
    let mut array = rows.column(at).clone();
    for step in steps {
        while let Some(inside) = list_items(&array) {
            array = inside;
        }
        let DataType::Struct(fields) = array.data_type() else {
            return Err(missing_path(path, fields));
        };
        let (at, _) = fields.find(step).ok_or_else(|| missing_path(path, fields))?;
        array = array.as_struct().column(at).clone();
    }
    Ok(array)
}

/// Returns whether a path has exactly one value in each row, which means that it does not go through a list or a map.
pub(crate) fn is_one_a_row(schema: &Schema, path: &str) -> bool {
    let mut fields = schema.fields().clone();
    let mut steps = path.split('.').peekable();
    while let Some(step) = steps.next() {
        let Some((_, field)) = fields.find(step) else { return false };
        match field.data_type() {
            DataType::Struct(inside) => fields = inside.clone(),
            _ => return steps.peek().is_none(),
        }
    }
    true
}

/// Nullability of a column whose values are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NullRule {
    AsBefore,
    Allowed,
}

/// Replaces the values at a path. `new` has as many values as [`values_at`] returned; its type may be another one.
pub(crate) fn with_part(rows: &RecordBatch, path: &str, new: ArrayRef, nulls: NullRule) -> Result<RecordBatch> {
    let steps: Vec<&str> = path.split('.').collect();
    let schema = rows.schema_ref();
    let (at, field) = schema.fields().find(steps[0]).ok_or_else(|| missing_path(path, schema.fields()))?;
    let (field, column) = replace_at(field, rows.column(at), &steps[1..], new, nulls)?;
    let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    (fields[at], columns[at]) = (field, column);
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(arrow_error)
}

fn of_type(field: &FieldRef, kind: DataType) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(kind))
}

/// Rebuilds `array` with `new` at the path `steps`. Only data types and the innermost values change: null buffers,
/// offsets and the other fields of structs remain.
fn replace_at(
    field: &FieldRef,
    array: &ArrayRef,
    steps: &[&str],
    new: ArrayRef,
    nulls: NullRule,
) -> Result<(FieldRef, ArrayRef)> {
    let Some(step) = steps.first() else {
        let nullable = field.is_nullable() || nulls == NullRule::Allowed;
        let field = field.as_ref().clone().with_data_type(new.data_type().clone()).with_nullable(nullable);
        return Ok((Arc::new(field), new));
    };
    let internal = || Error::internal("a path that was found is there");
    let made = match array.data_type() {
        DataType::Struct(fields) => {
            let of = array.as_struct();
            let (at, inner) = fields.find(step).ok_or_else(internal)?;
            let (inner, column) = replace_at(inner, of.column(at), &steps[1..], new, nulls)?;
            let mut fields: Vec<FieldRef> = fields.iter().cloned().collect();
            let mut columns = of.columns().to_vec();
            (fields[at], columns[at]) = (inner, column);
            let made = StructArray::try_new_with_length(fields.into(), columns, of.nulls().cloned(), of.len());
            Arc::new(made.map_err(arrow_error)?) as ArrayRef
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let data = array.to_data();
            let (item, values) = replace_at(item, &make_array(data.child_data()[0].clone()), steps, new, nulls)?;
            let kind = match array.data_type() {
                DataType::List(_) => DataType::List(item),
                DataType::LargeList(_) => DataType::LargeList(item),
                DataType::FixedSizeList(_, size) => DataType::FixedSizeList(item, *size),
                _ => return Err(internal()),
            };
            let made = data.into_builder().data_type(kind).child_data(vec![values.to_data()]).build();
            make_array(made.map_err(arrow_error)?)
        }
        DataType::Map(entries, sorted) => {
            let map = array.as_map();
            let DataType::Struct(fields) = entries.data_type() else { return Err(internal()) };
            let (value, values) = replace_at(&fields[1], map.values(), steps, new, nulls)?;
            let fields = Fields::from(vec![fields[0].clone(), value]);
            let entries = of_type(entries, DataType::Struct(fields.clone()));
            let structs = StructArray::try_new(fields, vec![map.keys().clone(), values], None).map_err(arrow_error)?;
            let data = array.to_data().into_builder().data_type(DataType::Map(entries, *sorted));
            make_array(data.child_data(vec![structs.to_data()]).build().map_err(arrow_error)?)
        }
        _ => return Err(internal()),
    };
    Ok((of_type(field, made.data_type().clone()), made))
}
