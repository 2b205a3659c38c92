use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Int64Type};

use crate::values::builders::nanos_of;
use crate::values::scalar::DAY_NANOS;

/// Finds values that a file can contain although its type excludes them, so that readers refuse them or read other
/// values. Returns the number of such values and a description, or `None` if there are none.
///
/// ```
/// use arrow::array::{ArrayRef, Time64MicrosecondArray};
/// use biscuit_schema::internal::impossible_values;
/// use std::sync::Arc;
///
/// let times: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999, 86_400_000_000, -1]));
/// assert_eq!(impossible_values(&times), Some((2, "times that are not within a day")));
/// ```
pub fn impossible_values(values: &ArrayRef) -> Option<(u64, &'static str)> {
    let found = |count: usize, what| (count > 0).then_some((count as u64, what));
    match values.data_type() {
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let day = DAY_NANOS / nanos_of(*unit);
            let ticks = cast(values, &DataType::Int64).ok()?;
            let is_outside = |t: &i64| !(0..day).contains(&i128::from(*t));
            let outside = ticks.as_primitive::<Int64Type>().iter().flatten().filter(is_outside).count();
            found(outside, "times that are not within a day")
        }
        DataType::Decimal128(precision, scale) => {
            let is_long = |v: &i128| Decimal128Type::validate_decimal_precision(*v, *precision, *scale).is_err();
            let long = values.as_primitive::<Decimal128Type>().iter().flatten().filter(is_long).count();
            found(long, "decimals with more digits than their type")
        }
        DataType::List(_) => impossible_values(values.as_list::<i32>().values()),
        DataType::Struct(_) => values.as_struct().columns().iter().find_map(impossible_values),
        DataType::Map(..) => values.as_map().entries().columns().iter().find_map(impossible_values),
        _ => None,
    }
}
