//! Rows as JSON objects, so that cases are readable.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, NullArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use serde_json::{Map, Value};

/// Returns the rows as a batch. Columns are the union of the names of all rows; a column of numbers is `Int64`, of
/// texts `Utf8`, and one without values has the type `Null`, as in a file that does not say its types.
pub(crate) fn batch(rows: &[Value]) -> RecordBatch {
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.as_object().expect("a row is an object").keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return RecordBatch::new_empty(Arc::new(Schema::empty()));
    }
    let columns = names.into_iter().map(|name| (name, column(rows, name), true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("the columns have one length")
}

fn column(rows: &[Value], name: &str) -> ArrayRef {
    let cells = || rows.iter().map(|row| row.get(name).filter(|cell| !cell.is_null()));
    match cells().flatten().next() {
        None => Arc::new(NullArray::new(rows.len())),
        Some(Value::Number(_)) => {
            let number = |cell: &Value| cell.as_i64().expect("all values of a column have one type");
            Arc::new(cells().map(|cell| cell.map(number)).collect::<Int64Array>())
        }
        Some(_) => {
            let text = |cell: Option<&Value>| {
                cell.map(|c| c.as_str().expect("all values of a column have one type").to_owned())
            };
            Arc::new(cells().map(text).collect::<StringArray>())
        }
    }
}

/// Returns the rows of batches as JSON objects, in their order. Each object has all columns of its batch.
pub(crate) fn objects(batches: &[RecordBatch]) -> Vec<Value> {
    let object = |batch: &RecordBatch, row: usize| {
        let fields = batch.schema();
        let cells = fields.fields().iter().zip(batch.columns());
        cells.map(|(field, column)| (field.name().clone(), cell(column, row))).collect::<Map<String, Value>>().into()
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| object(batch, row)).collect::<Vec<_>>()).collect()
}

fn cell(column: &ArrayRef, row: usize) -> Value {
    match column.data_type() {
        _ if column.is_null(row) => Value::Null,
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        t => panic!("cells of type {t} are not used in these tests"),
    }
}
