//! Aligns rows with a schema: casts without loss, adds missing columns, leaves out other columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use biscuit_core::{Error, Result};

use crate::codes;
use crate::types::column_type::type_name;

/// Casts an array. A value that does not fit is an error, never a silent null.
pub fn cast_exactly(array: &ArrayRef, to: &DataType, column: &str, place: &str) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|e| {
        let name = type_name(to).unwrap_or_else(|| to.to_string());
        Error::new(codes::WRONG_TYPE, format!("column `{column}` of {place} cannot be read as {name}")).with_source(e)
    })
}

/// Converts rows to the columns and types of `target`, matched by name. Missing columns become null; columns that
/// `target` does not have are left out. `place` names the rows in messages.
///
/// # Errors
/// `WrongType` if a value does not fit.
pub fn conform(batch: &RecordBatch, target: &SchemaRef, place: &str) -> Result<RecordBatch> {
    align(batch, &[], target, place)
}

/// Converts rows like [`conform`]. `constants` are columns with the same value in every row, such as the partition
/// columns of a path.
pub fn align(
    batch: &RecordBatch,
    constants: &[(String, Option<String>)],
    target: &SchemaRef,
    place: &str,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let column = |f: &FieldRef| -> Result<ArrayRef> {
        if let Some(array) = batch.column_by_name(f.name()) {
            return cast_exactly(array, f.data_type(), f.name(), place);
        }
        match constants.iter().find(|(name, _)| name == f.name()) {
            Some((_, Some(value))) => {
                let one: ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
                let one = cast_exactly(&one, f.data_type(), f.name(), place)?;
                let zeros = UInt32Array::from(vec![0; rows]);
                take(&one, &zeros, None)
                    .map_err(|e| Error::internal("a constant column could not be built").with_source(e))
            }
            _ => Ok(new_null_array(f.data_type(), rows)),
        }
    };
    let columns = target.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let nullable = Arc::new(Schema::new(
        target.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
    ));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(nullable, columns, &options)
        .map_err(|e| Error::internal(format!("the columns of {place} do not make a batch")).with_source(e))
}
