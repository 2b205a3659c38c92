use std::sync::LazyLock;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use base64::Engine;

use crate::cell::Cell;

/// What Debezium writes for a value that the database did not send, because it did not change.
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

static AS_BASE64: LazyLock<String> = LazyLock::new(|| base64::engine::general_purpose::STANDARD.encode(PLACEHOLDER));

/// Whether a value of a stored type is the placeholder: the text, its bytes, its base64 where bytes came as text, or a
/// list of the text alone or of its bytes.
pub(crate) fn is_placeholder(cell: &Cell) -> bool {
    match cell {
        Cell::Text(t) => t == PLACEHOLDER || *t == *AS_BASE64,
        Cell::Bytes(b) => b == PLACEHOLDER.as_bytes(),
        Cell::List(items) => match items.as_slice() {
            [Cell::Text(t)] => t == PLACEHOLDER,
            items => {
                items.len() == PLACEHOLDER.len()
                    && items
                        .iter()
                        .zip(PLACEHOLDER.bytes())
                        .all(|(c, b)| matches!(c, Cell::Int(i) if *i == i64::from(b)))
            }
        },
        _ => false,
    }
}

/// The rows of an array whose value is the placeholder.
pub(crate) fn placeholder_rows(array: &dyn Array) -> Vec<usize> {
    let is = |row: &usize| array.is_valid(*row);
    let rows = 0..array.len();
    match array.data_type() {
        DataType::Utf8 => rows.filter(is).filter(|&r| array.as_string::<i32>().value(r) == PLACEHOLDER).collect(),
        DataType::LargeUtf8 => rows.filter(is).filter(|&r| array.as_string::<i64>().value(r) == PLACEHOLDER).collect(),
        DataType::Utf8View => rows.filter(is).filter(|&r| array.as_string_view().value(r) == PLACEHOLDER).collect(),
        DataType::Binary => {
            rows.filter(is).filter(|&r| array.as_binary::<i32>().value(r) == PLACEHOLDER.as_bytes()).collect()
        }
        _ => vec![],
    }
}
