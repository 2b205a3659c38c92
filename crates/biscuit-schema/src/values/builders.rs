//! Builds columns of each type value by value, with the list of the values that do not fit.

use std::sync::Arc;

use arrow::array::{ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, StringBuilder};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    Decimal128Type, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use crate::values::converted::{ConvertedColumn, combine_nulls};
use crate::values::fault::ValueFault;
use crate::values::reading_rules::DecimalRounding;
use crate::values::scalar::{DAY_NANOS, DecimalDigits};

/// Converts each value by itself. A value that fails becomes null.
pub(super) fn convert_each<T: ArrowPrimitiveType>(
    len: usize,
    nulls: Option<&NullBuffer>,
    value: impl Fn(usize) -> Result<(T::Native, bool), ValueFault>,
) -> ConvertedColumn {
    // Null and failed rows get a placeholder, and the null buffer of the result covers it.
    let (mut values, mut faults, mut rounded) = (Vec::with_capacity(len), Vec::new(), 0);
    for i in 0..len {
        if nulls.is_some_and(|n| n.is_null(i)) {
            values.push(T::Native::default());
            continue;
        }
        match value(i) {
            Ok((v, was_rounded)) => {
                values.push(v);
                rounded += u64::from(was_rounded);
            }
            Err(fault) => {
                values.push(T::Native::default());
                faults.push((i, fault));
            }
        }
    }
    let array = PrimitiveArray::<T>::new(ScalarBuffer::from(values), combine_nulls(len, nulls, &faults));
    ConvertedColumn { faults, rounded, ..ConvertedColumn::without_faults(Arc::new(array)) }
}

/// Converts a whole number to a narrower type; never rounded, hence the `false`.
pub(super) fn narrow_integer<N: TryFrom<i128>>(v: i128) -> Result<(N, bool), ValueFault> {
    N::try_from(v).map(|v| (v, false)).map_err(|_| ValueFault::Overflow)
}

/// Converts nanoseconds to a unit. They are treated as a decimal number whose scale is that of the unit.
pub(super) fn nanos_in_unit(nanos: i128, unit: TimeUnit, rounding: DecimalRounding) -> Result<(i64, bool), ValueFault> {
    let scale = match unit {
        TimeUnit::Second => 9,
        TimeUnit::Millisecond => 6,
        TimeUnit::Microsecond => 3,
        TimeUnit::Nanosecond => 0,
    };
    let (value, rounded) = DecimalDigits { value: nanos, scale }.at_scale(0, rounding)?;
    narrow_integer(value).map(|(value, _)| (value, rounded))
}

/// Returns the number of nanoseconds in one unit.
pub(crate) fn nanos_of(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Builds timestamps of any unit and time zone from nanoseconds since 1970.
pub(super) fn build_timestamps(
    len: usize,
    nulls: Option<&NullBuffer>,
    unit: TimeUnit,
    zone: Option<&Arc<str>>,
    rounding: DecimalRounding,
    nanos: impl Fn(usize) -> Result<i128, ValueFault>,
) -> ConvertedColumn {
    let value = |i: usize| nanos_in_unit(nanos(i)?, unit, rounding);
    macro_rules! of {
        ($t:ty) => {{
            // The values are the same for all time zones, because Arrow stores instants in UTC.
            let made = convert_each::<$t>(len, nulls, value);
            let array = made.array.as_primitive::<$t>().clone().with_timezone_opt(zone.cloned());
            ConvertedColumn { array: Arc::new(array), ..made }
        }};
    }
    match unit {
        TimeUnit::Second => of!(TimestampSecondType),
        TimeUnit::Millisecond => of!(TimestampMillisecondType),
        TimeUnit::Microsecond => of!(TimestampMicrosecondType),
        TimeUnit::Nanosecond => of!(TimestampNanosecondType),
    }
}

/// Builds times of day from nanoseconds since midnight. A value before midnight, or from the next midnight on, is an
/// overflow. Arrow has times of day as 64 bits only in microseconds and nanoseconds.
pub(super) fn day_times(
    len: usize,
    nulls: Option<&NullBuffer>,
    unit: TimeUnit,
    rounding: DecimalRounding,
    nanos: impl Fn(usize) -> Result<i128, ValueFault>,
) -> Option<ConvertedColumn> {
    let value = |i: usize| {
        let within = |nanos: i128| (0..DAY_NANOS).contains(&nanos);
        let (value, rounded) = nanos_in_unit(nanos(i)?, unit, rounding)?;
        // The range is checked after rounding, which can reach the next midnight.
        if within(i128::from(value) * nanos_of(unit)) { Ok((value, rounded)) } else { Err(ValueFault::Overflow) }
    };
    match unit {
        TimeUnit::Microsecond => Some(convert_each::<Time64MicrosecondType>(len, nulls, value)),
        TimeUnit::Nanosecond => Some(convert_each::<Time64NanosecondType>(len, nulls, value)),
        TimeUnit::Second | TimeUnit::Millisecond => None,
    }
}

pub(super) fn build_decimals(made: ConvertedColumn, precision: u8, scale: i8) -> Option<ConvertedColumn> {
    let array = made.array.as_primitive::<Decimal128Type>().clone().with_precision_and_scale(precision, scale).ok()?;
    Some(ConvertedColumn { array: Arc::new(array), ..made })
}

/// Checks that a value has at most `precision` digits.
pub(super) fn check_precision(value: (i128, bool), precision: u8) -> Result<(i128, bool), ValueFault> {
    // 10^38 is within 128 bits, and no decimal has a higher precision.
    let maximum = 10i128.checked_pow(precision.into()).unwrap_or(i128::MAX);
    if value.0.unsigned_abs() < maximum.unsigned_abs() { Ok(value) } else { Err(ValueFault::Overflow) }
}

pub(super) fn build_booleans(
    len: usize,
    nulls: Option<&NullBuffer>,
    value: impl Fn(usize) -> Result<bool, ValueFault>,
) -> ConvertedColumn {
    let (mut values, mut faults) = (Vec::with_capacity(len), Vec::new());
    for i in 0..len {
        let v = if nulls.is_some_and(|n| n.is_null(i)) { Ok(false) } else { value(i) };
        values.push(v.unwrap_or_else(|fault| {
            faults.push((i, fault));
            false
        }));
    }
    let array = BooleanArray::new(values.into(), combine_nulls(len, nulls, &faults));
    ConvertedColumn { faults, ..ConvertedColumn::without_faults(Arc::new(array)) }
}

pub(super) fn build_texts(len: usize, nulls: Option<&NullBuffer>, value: impl Fn(usize) -> String) -> ConvertedColumn {
    let mut texts = StringBuilder::with_capacity(len, len * 8);
    for i in 0..len {
        match nulls.is_some_and(|n| n.is_null(i)) {
            true => texts.append_null(),
            false => texts.append_value(value(i)),
        }
    }
    ConvertedColumn::without_faults(Arc::new(texts.finish()))
}
