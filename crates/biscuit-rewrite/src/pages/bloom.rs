use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use parquet::basic::Type;
use parquet::bloom_filter::Sbbf;

/// Adds the values of `column` to a filter. `physical` is the Parquet type of the column. Returns `false` if it is
/// not known how Parquet hashes this type; a column of nulls needs nothing.
pub(crate) fn insert(filter: &mut Sbbf, column: &ArrayRef, physical: Type) -> bool {
    let as_type = |t: &DataType| datafusion::arrow::compute::cast(column, t).ok();
    match (physical, column.data_type()) {
        (Type::INT32, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Date32) => {
            let Some(ints) = as_type(&DataType::Int32) else { return false };
            ints.as_primitive::<Int32Type>().iter().flatten().for_each(|v| filter.insert(&v));
        }
        (Type::INT64, DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_)) => {
            let Some(ints) = as_type(&DataType::Int64) else { return false };
            ints.as_primitive::<Int64Type>().iter().flatten().for_each(|v| filter.insert(&v));
        }
        (Type::FLOAT, DataType::Float32) => {
            column.as_primitive::<Float32Type>().iter().flatten().for_each(|v| filter.insert(&v));
        }
        (Type::DOUBLE, DataType::Float64) => {
            column.as_primitive::<Float64Type>().iter().flatten().for_each(|v| filter.insert(&v));
        }
        (Type::BYTE_ARRAY, DataType::Utf8) => {
            column.as_string::<i32>().iter().flatten().for_each(|v| filter.insert(v));
        }
        (Type::BYTE_ARRAY, DataType::Binary) => {
            column.as_binary::<i32>().iter().flatten().for_each(|v| filter.insert(v));
        }
        _ => return column.null_count() == column.len(),
    }
    true
}
