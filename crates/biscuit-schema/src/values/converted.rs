//! Result of the conversion of a column, and the parts that all conversions share.

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use biscuit_core::Error;

use crate::codes;
use crate::type_name;
use crate::values::fault::ValueFault;

/// Column after its conversion. A value that could not be converted is null.
pub(crate) struct ConvertedColumn {
    pub(crate) array: ArrayRef,
    /// Rows with a fault, ascending. A nested value has an entry for each part that failed.
    pub(crate) faults: Vec<(usize, ValueFault)>,
    /// Number of values that were rounded.
    pub(crate) rounded: u64,
    /// Struct fields of the input that the type does not have.
    pub(crate) dropped: Vec<String>,
    /// Struct fields of the type that the input does not have.
    pub(crate) missing: Vec<String>,
}

impl ConvertedColumn {
    pub(crate) fn without_faults(array: ArrayRef) -> Self {
        Self { array, faults: vec![], rounded: 0, dropped: vec![], missing: vec![] }
    }
}

/// Returns the error for a pair of types that has no conversion, whatever the values are.
pub(crate) fn no_coercion(column: &str, from: &DataType, to: &DataType) -> Error {
    let name = |t: &DataType| type_name(&crate::types::common::plain_type(t)).unwrap_or_else(|| t.to_string());
    let message = format!("column `{column}` is {} and cannot be converted to {}", name(from), name(to));
    Error::new(codes::NO_COERCION, message).with_column(column)
}

/// Returns the nulls of a column together with the rows of the faults.
pub(crate) fn combine_nulls(
    len: usize,
    nulls: Option<&NullBuffer>,
    faults: &[(usize, ValueFault)],
) -> Option<NullBuffer> {
    if faults.is_empty() {
        return nulls.cloned();
    }
    let mut valid: Vec<bool> = nulls.map_or_else(|| vec![true; len], |n| n.iter().collect());
    faults.iter().for_each(|(i, _)| valid[*i] = false);
    Some(NullBuffer::from(valid))
}
