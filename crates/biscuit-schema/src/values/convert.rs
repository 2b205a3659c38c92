//! Conversion of columns to another type, value by value, with the list of the values that cannot be converted.
//!
//! Each pair of types is either exact or reports a fault for a value: nothing wraps, rounds or becomes null silently.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, PrimitiveArray, StringArray, StringBuilder,
    new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use biscuit_core::Result;

use crate::values::builders::{
    build_booleans, build_decimals, build_texts, build_timestamps, check_precision, convert_each, day_times, nanos_of,
    narrow_integer,
};
use crate::values::converted::{ConvertedColumn, no_coercion};
use crate::values::fault::ValueFault;
use crate::values::nested;
use crate::values::reading_rules::{BytesInText, DecimalRounding, EpochUnit, ReadingRules};
use crate::values::scalar::{self, DAY_NANOS, DecimalDigits};

/// Converts a column to another type, and reports maps that have a key twice. Messages name the column by `column`.
pub(crate) fn convert_whole(
    column: &str,
    array: &ArrayRef,
    to: &DataType,
    reading: &ReadingRules,
) -> Result<ConvertedColumn> {
    let mut made = convert(column, array, to, reading)?;
    let twice = nested::duplicate_keys(&made.array)?;
    if !twice.is_empty() {
        made.faults.extend(twice.into_iter().map(|row| (row, ValueFault::DuplicateKey)));
        made.faults.sort_by_key(|(row, _)| *row);
    }
    Ok(made)
}

/// Converts a column to another type. Types with several Arrow representations are first converted to the plain one.
pub(crate) fn convert(
    column: &str,
    array: &ArrayRef,
    to: &DataType,
    reading: &ReadingRules,
) -> Result<ConvertedColumn> {
    use DataType as D;
    let from = array.data_type();
    if from == to {
        return Ok(ConvertedColumn::without_faults(array.clone()));
    }
    let failed = || no_coercion(column, from, to);
    let plain = |t: &DataType| arrow::compute::cast(array, t).map_err(|e| failed().with_source(e));
    let part = |column: &str, array: &ArrayRef, to: &DataType| convert(column, array, to, reading);
    match (from, to) {
        (D::Null, _) => Ok(ConvertedColumn::without_faults(new_null_array(to, array.len()))),
        (D::LargeUtf8 | D::Utf8View, _) => convert(column, &plain(&D::Utf8)?, to, reading),
        (D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_), _) => {
            convert(column, &plain(&D::Binary)?, to, reading)
        }
        (D::Dictionary(_, value), _) => convert(column, &plain(value)?, to, reading),
        (D::Date64, _) => convert(column, &plain(&D::Timestamp(TimeUnit::Millisecond, None))?, to, reading),
        (D::Utf8, _) => convert_text(array.as_string(), to, reading).ok_or_else(failed),
        (D::Boolean, _) => convert_booleans(array.as_boolean(), to).ok_or_else(failed),
        (D::Binary, D::Utf8) => Ok(text_of_bytes(array.as_binary())),
        (D::Date32, _) => convert_dates(array.as_primitive(), to).ok_or_else(failed),
        (D::Timestamp(unit, _), _) => convert_timestamps(array, *unit, to, reading).ok_or_else(failed),
        (D::Time32(unit) | D::Time64(unit), _) => times_of_day(array, *unit, to, reading).ok_or_else(failed),
        (D::Float16, _) => convert(column, &plain(&D::Float32)?, to, reading),
        (D::Float32 | D::Float64, _) => {
            let doubles = plain(&D::Float64)?;
            convert_floats(doubles.as_primitive(), from == &D::Float32, to, reading).ok_or_else(failed)
        }
        (D::Decimal32(p, s) | D::Decimal64(p, s), _) => convert(column, &plain(&D::Decimal128(*p, *s))?, to, reading),
        (D::Decimal256(_, s), _) => convert_wide_decimals(column, array, &plain(&D::Decimal128(38, *s))?, to, reading),
        (D::Decimal128(_, s), _) => {
            let (values, scale) = (array.as_primitive::<Decimal128Type>(), i32::from(*s));
            convert_numbers(
                array.len(),
                array.nulls(),
                &|i| DecimalDigits { value: values.value(i), scale },
                to,
                reading,
            )
            .ok_or_else(failed)
        }
        (t, _) if t.is_integer() => convert_integers(array, to, reading).ok_or_else(failed),
        (D::LargeList(_) | D::FixedSizeList(..) | D::ListView(_) | D::LargeListView(_), D::List(_)) => {
            let (D::LargeList(item) | D::FixedSizeList(item, _) | D::ListView(item) | D::LargeListView(item)) = from
            else {
                return Err(failed());
            };
            convert(column, &plain(&D::List(item.clone()))?, to, reading)
        }
        (D::List(_), D::List(item)) => nested::list(column, array.as_list(), item, &part),
        (D::Struct(_), D::Struct(fields)) => nested::convert_struct(column, array.as_struct(), fields, &part),
        (D::Map(..), D::Map(entry, sorted)) => nested::convert_map(column, array.as_map(), entry, *sorted, &part),
        _ => Err(failed()),
    }
}

/// Converts decimals of up to 76 digits. `narrow` is the column after a cast to 38 digits, which makes longer values
/// null: a value that is null only after the cast has overflowed.
fn convert_wide_decimals(
    column: &str,
    array: &ArrayRef,
    narrow: &ArrayRef,
    to: &DataType,
    reading: &ReadingRules,
) -> Result<ConvertedColumn> {
    let made = convert(column, narrow, to, reading)?;
    let overflowed = (0..array.len()).filter(|i| array.is_valid(*i) && narrow.is_null(*i));
    let mut faults: Vec<_> = overflowed.map(|i| (i, ValueFault::Overflow)).collect();
    faults.extend(&made.faults);
    faults.sort_by_key(|(row, _)| *row);
    Ok(ConvertedColumn { faults, ..made })
}

/// Expands `$make!` for the Arrow integer type of `$to`, and `$otherwise` for other types.
macro_rules! integer {
    ($to:expr, $make:ident, $otherwise:expr) => {
        match $to {
            DataType::Int8 => Some($make!(Int8Type)),
            DataType::Int16 => Some($make!(Int16Type)),
            DataType::Int32 => Some($make!(Int32Type)),
            DataType::Int64 => Some($make!(Int64Type)),
            DataType::UInt8 => Some($make!(UInt8Type)),
            DataType::UInt16 => Some($make!(UInt16Type)),
            DataType::UInt32 => Some($make!(UInt32Type)),
            DataType::UInt64 => Some($make!(UInt64Type)),
            _ => $otherwise,
        }
    };
}

fn convert_text(from: &StringArray, to: &DataType, reading: &ReadingRules) -> Option<ConvertedColumn> {
    use DataType as D;
    let (len, nulls) = (from.len(), from.nulls());
    macro_rules! whole {
        ($t:ty) => {
            convert_each::<$t>(len, nulls, |i| {
                let (v, rounded) = scalar::parse_whole(from.value(i), reading.rounding)?;
                narrow_integer(v).map(|(v, _)| (v, rounded))
            })
        };
    }
    match to {
        D::Boolean => Some(build_booleans(len, nulls, |i| scalar::parse_boolean(from.value(i)))),
        D::Float32 => Some(convert_each::<Float32Type>(len, nulls, |i| {
            let (v, rounded) = scalar::parse_float(from.value(i))?;
            to_single(v).map(|(v, again)| (v, rounded || again))
        })),
        D::Float64 => Some(convert_each::<Float64Type>(len, nulls, |i| scalar::parse_float(from.value(i)))),
        D::Decimal128(p, s) => {
            let value = |i: usize| {
                check_precision(DecimalDigits::parse(from.value(i))?.at_scale((*s).into(), reading.rounding)?, *p)
            };
            build_decimals(convert_each::<Decimal128Type>(len, nulls, value), *p, *s)
        }
        D::Date32 => {
            Some(convert_each::<Date32Type>(len, nulls, |i| Ok((scalar::parse_date(from.value(i), reading)?, false))))
        }
        D::Timestamp(unit, zone) => {
            let nanos = |i: usize| scalar::parse_timestamp(from.value(i), reading);
            Some(build_timestamps(len, nulls, *unit, zone.as_ref(), reading.rounding, nanos))
        }
        D::Time64(unit) => day_times(len, nulls, *unit, reading.rounding, |i| scalar::time_of_day(from.value(i))),
        D::Binary => Some(bytes_of_text(from, reading.bytes_in_text)),
        _ => integer!(to, whole, None),
    }
}

/// Returns the nearest float, and whether its shortest digits differ from those of the double. A whole number must
/// have the same digits.
fn to_single(v: f64) -> Result<(f32, bool), ValueFault> {
    let narrow = v as f32;
    if !v.is_finite() || f64::from(narrow) == v {
        return Ok((narrow, false));
    }
    let other_digits = narrow.to_string().parse::<f64>() != Ok(v);
    match narrow {
        n if n.is_infinite() => Err(ValueFault::Overflow),
        0.0 => Err(ValueFault::PrecisionLoss),
        _ if other_digits && v.fract() == 0.0 => Err(ValueFault::PrecisionLoss),
        n => Ok((n, other_digits)),
    }
}

fn convert_booleans(from: &BooleanArray, to: &DataType) -> Option<ConvertedColumn> {
    let (len, nulls) = (from.len(), from.nulls());
    macro_rules! whole {
        ($t:ty) => {
            convert_each::<$t>(len, nulls, |i| narrow_integer(i128::from(from.value(i))))
        };
    }
    match to {
        DataType::Utf8 => Some(build_texts(len, nulls, |i| from.value(i).to_string())),
        _ => integer!(to, whole, None),
    }
}

fn bytes_of_text(from: &StringArray, form: BytesInText) -> ConvertedColumn {
    if form == BytesInText::Own {
        return ConvertedColumn::without_faults(Arc::new(BinaryArray::from(from.clone())));
    }
    let (mut bytes, mut faults) = (BinaryBuilder::new(), vec![]);
    for (row, text) in from.iter().enumerate() {
        match text.map(|text| form.decode(text)) {
            Some(None) => {
                faults.push((row, ValueFault::Unparseable));
                bytes.append_null();
            }
            value => bytes.append_option(value.flatten()),
        }
    }
    ConvertedColumn { faults, ..ConvertedColumn::without_faults(Arc::new(bytes.finish())) }
}

fn text_of_bytes(from: &BinaryArray) -> ConvertedColumn {
    let (mut texts, mut faults) = (StringBuilder::new(), Vec::new());
    for i in 0..from.len() {
        match (from.is_null(i), std::str::from_utf8(from.value(i))) {
            (true, _) => texts.append_null(),
            (_, Ok(text)) => texts.append_value(text),
            (_, Err(_)) => {
                texts.append_null();
                faults.push((i, ValueFault::Unparseable));
            }
        }
    }
    ConvertedColumn { faults, ..ConvertedColumn::without_faults(Arc::new(texts.finish())) }
}

/// From dates.
fn convert_dates(from: &PrimitiveArray<Date32Type>, to: &DataType) -> Option<ConvertedColumn> {
    let (len, nulls) = (from.len(), from.nulls());
    match to {
        DataType::Timestamp(unit, zone) => {
            let nanos = |i: usize| Ok(i128::from(from.value(i)) * DAY_NANOS);
            Some(build_timestamps(len, nulls, *unit, zone.as_ref(), DecimalRounding::Fail, nanos))
        }
        DataType::Utf8 => Some(ConvertedColumn::without_faults(arrow::compute::cast(from, to).ok()?)),
        _ => None,
    }
}

/// From timestamps.
fn convert_timestamps(
    array: &ArrayRef,
    unit: TimeUnit,
    to: &DataType,
    reading: &ReadingRules,
) -> Option<ConvertedColumn> {
    let per = nanos_of(unit);
    let ticks = arrow::compute::cast(array, &DataType::Int64).ok()?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let nanos = |i: usize| Ok(i128::from(ticks.value(i)) * per);
    match to {
        DataType::Timestamp(unit, zone) => {
            Some(build_timestamps(array.len(), array.nulls(), *unit, zone.as_ref(), reading.rounding, nanos))
        }
        DataType::Date32 => Some(convert_each::<Date32Type>(array.len(), array.nulls(), |i| {
            let nanos: i128 = nanos(i)?;
            if nanos.rem_euclid(DAY_NANOS) == 0 {
                narrow_integer(nanos.div_euclid(DAY_NANOS))
            } else {
                Err(ValueFault::PrecisionLoss)
            }
        })),
        DataType::Utf8 => Some(ConvertedColumn::without_faults(arrow::compute::cast(array, to).ok()?)),
        _ => None,
    }
}

/// From times of day.
fn times_of_day(array: &ArrayRef, unit: TimeUnit, to: &DataType, reading: &ReadingRules) -> Option<ConvertedColumn> {
    if *to == DataType::Utf8 {
        return Some(ConvertedColumn::without_faults(arrow::compute::cast(array, to).ok()?));
    }
    let ticks = arrow::compute::cast(array, &DataType::Int64).ok()?;
    let ticks = ticks.as_primitive::<Int64Type>();
    match to {
        DataType::Time64(to) => day_times(array.len(), array.nulls(), *to, reading.rounding, |i| {
            Ok(i128::from(ticks.value(i)) * nanos_of(unit))
        }),
        _ => None,
    }
}

fn convert_integers(array: &ArrayRef, to: &DataType, reading: &ReadingRules) -> Option<ConvertedColumn> {
    macro_rules! from {
        ($t:ty) => {{
            let values = array.as_primitive::<$t>();
            let digits = |i: usize| DecimalDigits { value: i128::from(values.value(i)), scale: 0 };
            convert_numbers(array.len(), array.nulls(), &digits, to, reading)
        }};
    }
    integer!(array.data_type(), from, None)?
}

/// From integers and decimals, as decimal digits.
fn convert_numbers(
    len: usize,
    nulls: Option<&NullBuffer>,
    value: &dyn Fn(usize) -> DecimalDigits,
    to: &DataType,
    reading: &ReadingRules,
) -> Option<ConvertedColumn> {
    use DataType as D;
    macro_rules! whole {
        ($t:ty) => {
            convert_each::<$t>(len, nulls, |i| {
                let (v, rounded) = value(i).at_scale(0, reading.rounding)?;
                narrow_integer(v).map(|(v, _)| (v, rounded))
            })
        };
    }
    match to {
        D::Boolean => Some(build_booleans(len, nulls, |i| match value(i).at_scale(0, DecimalRounding::Fail) {
            Ok((0, _)) => Ok(false),
            Ok((1, _)) => Ok(true),
            _ => Err(ValueFault::NotABoolean),
        })),
        D::Decimal128(p, s) => {
            let fit = |i: usize| check_precision(value(i).at_scale((*s).into(), reading.rounding)?, *p);
            build_decimals(convert_each::<Decimal128Type>(len, nulls, fit), *p, *s)
        }
        D::Float64 => Some(convert_each::<Float64Type>(len, nulls, |i| to_double(value(i)).map(|v| (v, false)))),
        D::Float32 => Some(convert_each::<Float32Type>(len, nulls, |i| {
            let v = to_double(value(i))?;
            // A whole number that a float does not hold would be a different number. A fraction may be the nearest
            // float.
            if value(i).scale == 0 && f64::from(v as f32) != v { Err(ValueFault::PrecisionLoss) } else { to_single(v) }
        })),
        D::Utf8 => Some(build_texts(len, nulls, |i| {
            let DecimalDigits { value, scale } = value(i);
            decimal_text(value, scale)
        })),
        D::Timestamp(unit, zone) => {
            let nanos = |i: usize| scalar::nanos_since_epoch(value(i), reading.epoch);
            Some(build_timestamps(len, nulls, *unit, zone.as_ref(), reading.rounding, nanos))
        }
        D::Date32 if reading.epoch == EpochUnit::Days => Some(convert_each::<Date32Type>(len, nulls, |i| {
            narrow_integer(value(i).at_scale(0, DecimalRounding::Fail)?.0)
        })),
        _ => integer!(to, whole, None),
    }
}

/// Returns the nearest double. A whole number must be exact.
fn to_double(number: DecimalDigits) -> Result<f64, ValueFault> {
    if number.scale <= 0 {
        let (whole, _) = number.at_scale(0, DecimalRounding::Fail)?;
        let v = whole as f64;
        return if v as i128 == whole { Ok(v) } else { Err(ValueFault::PrecisionLoss) };
    }
    format!("{}e-{}", number.value, number.scale).parse().map_err(|_| ValueFault::Overflow)
}

/// Returns the digits of a decimal number, with `scale` digits after the point.
fn decimal_text(value: i128, scale: i32) -> String {
    let Ok(places) = usize::try_from(scale) else {
        return format!("{value}{}", "0".repeat(scale.unsigned_abs() as usize));
    };
    // The digits are padded with zeros at the left, so that there is always one before the point: 5 with scale 2 is
    // `0.05`.
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let sign = if value < 0 { "-" } else { "" };
    if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn convert_floats(
    from: &PrimitiveArray<Float64Type>,
    was_single: bool,
    to: &DataType,
    reading: &ReadingRules,
) -> Option<ConvertedColumn> {
    use DataType as D;
    let (len, nulls) = (from.len(), from.nulls());
    // The shortest digits that read back as the same number, which are most likely the digits that were written: 0.1
    // is 0.1 and not 0.1000000000000000055. A number that was a float has the shortest digits of a float.
    let digits = |i: usize| {
        let v = from.value(i);
        match v {
            v if v.is_nan() => Err(ValueFault::NotANumber),
            v if v.is_infinite() => Err(ValueFault::Overflow),
            v if was_single => DecimalDigits::parse(&format!("{:e}", v as f32)),
            v => DecimalDigits::parse(&format!("{v:e}")),
        }
    };
    macro_rules! whole {
        ($t:ty) => {
            convert_each::<$t>(len, nulls, |i| {
                let (v, rounded) = digits(i)?.at_scale(0, reading.rounding)?;
                narrow_integer(v).map(|(v, _)| (v, rounded))
            })
        };
    }
    match to {
        D::Float64 => Some(ConvertedColumn::without_faults(Arc::new(from.clone()))),
        D::Float32 => Some(convert_each::<Float32Type>(len, nulls, |i| to_single(from.value(i)))),
        D::Decimal128(p, s) => {
            let value = |i: usize| check_precision(digits(i)?.at_scale((*s).into(), reading.rounding)?, *p);
            build_decimals(convert_each::<Decimal128Type>(len, nulls, value), *p, *s)
        }
        D::Timestamp(unit, zone) => {
            let nanos = |i: usize| scalar::nanos_since_epoch(digits(i)?, reading.epoch);
            Some(build_timestamps(len, nulls, *unit, zone.as_ref(), reading.rounding, nanos))
        }
        D::Boolean => Some(build_booleans(len, nulls, |i| match from.value(i) {
            0.0 => Ok(false),
            1.0 => Ok(true),
            _ => Err(ValueFault::NotABoolean),
        })),
        D::Utf8 => Some(ConvertedColumn::without_faults(arrow::compute::cast(from, to).ok()?)),
        _ => integer!(to, whole, None),
    }
}
