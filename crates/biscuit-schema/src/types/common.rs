//! Common types of two columns without loss, and the forms in which types are stored and written.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

/// Returns the type that holds every value of both types without loss, in the plain form that each engine reads;
/// `None` if there is no such type.
///
/// - Integers widen to integers, and to decimals with sufficient digits.
/// - Decimals widen to decimals with sufficient digits on both sides of the point.
/// - Float widens to double. An integer widens to a float type only if that type holds all its values exactly.
/// - Of two time units the finer one is used. Timestamps with a time zone have a common type only with each other.
/// - Null has a common type with each type.
/// - Lists, structs and maps are compared part by part, and structs by field name.
pub fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as D;
    let (a, b) = (plain_type(a), plain_type(b));
    if a == b {
        return Some(a);
    }
    match (&a, &b) {
        (D::Null, other) | (other, D::Null) => Some(other.clone()),
        (D::Float32, D::Float64) | (D::Float64, D::Float32) => Some(D::Float64),
        (D::Float32 | D::Float64, _) if integer_bits(&b).is_some() => integer_in_float(&a, &b),
        (_, D::Float32 | D::Float64) if integer_bits(&a).is_some() => integer_in_float(&b, &a),
        (D::Time32(_) | D::Time64(_), D::Time32(_) | D::Time64(_)) => {
            let nanos = [&a, &b].contains(&&D::Time64(TimeUnit::Nanosecond));
            Some(D::Time64(if nanos { TimeUnit::Nanosecond } else { TimeUnit::Microsecond }))
        }
        (D::Timestamp(x, zx), D::Timestamp(y, zy)) if zx.is_some() == zy.is_some() => {
            Some(D::Timestamp(finer_unit(*x, *y), zx.as_ref().map(|_| "UTC".into())))
        }
        (D::List(x), D::List(y)) => Some(D::List(Arc::new(common_field(x, y, x.name())?))),
        (D::Struct(x), D::Struct(y)) => common_struct(x, y),
        (D::Map(x, sorted), D::Map(y, _)) => Some(D::Map(Arc::new(common_field(x, y, x.name())?), *sorted)),
        _ => common_number(&a, &b),
    }
}

/// Returns a type in the form that Parquet files have without an embedded Arrow schema: no views, no large offsets,
/// no dictionaries, and UTC as the only time zone.
pub fn plain_type(t: &DataType) -> DataType {
    use DataType as D;
    let plain = |f: &FieldRef| Arc::new(f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    match t {
        D::LargeUtf8 | D::Utf8View => D::Utf8,
        D::LargeBinary | D::BinaryView => D::Binary,
        D::Date64 => D::Date32,
        D::Dictionary(_, value) => plain_type(value),
        D::RunEndEncoded(_, value) => plain_type(value.data_type()),
        D::Timestamp(unit, zone) => {
            let unit = if *unit == TimeUnit::Nanosecond { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
            D::Timestamp(unit, zone.as_ref().map(|_| "UTC".into()))
        }
        D::Time32(_) => D::Time64(TimeUnit::Microsecond),
        D::List(f) | D::LargeList(f) | D::ListView(f) | D::LargeListView(f) | D::FixedSizeList(f, _) => {
            D::List(plain(f))
        }
        D::Struct(fields) => D::Struct(fields.iter().map(plain).collect()),
        D::Map(f, sorted) => D::Map(plain(f), *sorted),
        other => other.clone(),
    }
}

/// Returns the type in which a column of this type is stored, so that each engine reads it: an unsigned integer
/// becomes the next wider integer, and a half float becomes a float. Returns `None` for types that no engine reads
/// from Parquet as they are: unions, intervals, durations, and decimals of more than 38 digits.
pub fn stored_type(t: &DataType) -> Option<DataType> {
    use DataType as D;
    let inside = |f: &FieldRef| Some(Arc::new(f.as_ref().clone().with_data_type(stored_type(f.data_type())?)));
    Some(match &plain_type(t) {
        D::UInt8 => D::Int16,
        D::UInt16 => D::Int32,
        D::UInt32 => D::Int64,
        D::UInt64 => D::Decimal128(20, 0),
        D::Float16 => D::Float32,
        D::Union(..) | D::Interval(_) | D::Duration(_) | D::Decimal256(..) => return None,
        D::List(item) => D::List(inside(item)?),
        D::Struct(fields) => D::Struct(fields.iter().map(inside).collect::<Option<Vec<_>>>()?.into()),
        D::Map(entries, sorted) => D::Map(inside(entries)?, *sorted),
        other => other.clone(),
    })
}

/// Returns the type in which values are written if nothing requests another one. Times have microseconds, because
/// Spark does not read files with nanoseconds. Bytes have no fixed size.
///
/// ```
/// use arrow::datatypes::{DataType, TimeUnit};
/// use biscuit_schema::internal::written_type;
///
/// let time = |unit| DataType::Timestamp(unit, None);
/// assert_eq!(written_type(&time(TimeUnit::Nanosecond)), time(TimeUnit::Microsecond));
/// ```
pub fn written_type(t: &DataType) -> DataType {
    use DataType as D;
    let inside = |f: &FieldRef| Arc::new(f.as_ref().clone().with_data_type(written_type(f.data_type())));
    match t {
        D::Timestamp(TimeUnit::Nanosecond, zone) => D::Timestamp(TimeUnit::Microsecond, zone.clone()),
        D::Time64(TimeUnit::Nanosecond) => D::Time64(TimeUnit::Microsecond),
        D::FixedSizeBinary(_) => D::Binary,
        D::List(item) => D::List(inside(item)),
        D::Struct(fields) => D::Struct(fields.iter().map(inside).collect()),
        D::Map(entries, sorted) => D::Map(inside(entries), *sorted),
        other => other.clone(),
    }
}

/// Returns the finer of two units, at least microseconds, since [`plain_type`] has no coarser unit.
fn finer_unit(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    if a == TimeUnit::Nanosecond || b == TimeUnit::Nanosecond { TimeUnit::Nanosecond } else { TimeUnit::Microsecond }
}

/// Returns the number of bits of an integer type, negative for signed types.
fn integer_bits(t: &DataType) -> Option<i32> {
    use DataType as D;
    Some(match t {
        D::Int8 => -8,
        D::Int16 => -16,
        D::Int32 => -32,
        D::Int64 => -64,
        D::UInt8 => 8,
        D::UInt16 => 16,
        D::UInt32 => 32,
        D::UInt64 => 64,
        _ => return None,
    })
}

/// Returns the float type that holds all integers of the type: a float has 24 bits of mantissa, a double 53.
fn integer_in_float(float: &DataType, integer: &DataType) -> Option<DataType> {
    let bits = integer_bits(integer)?.abs();
    match float {
        DataType::Float32 if bits <= 16 => Some(DataType::Float32),
        _ if bits <= 32 => Some(DataType::Float64),
        _ => None,
    }
}

fn common_number(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as D;
    if let (Some(x), Some(y)) = (integer_bits(a), integer_bits(b)) {
        // A signed type holds an unsigned type of `n` bits if it has at least `2 * n` bits. `u32` and `i32` become
        // `i64`; `u64` and `i8` need more than 64 bits and become a decimal of 20 digits.
        let (signed, wide) = (x < 0 || y < 0, x.abs().max(y.abs()));
        let unsigned_wide = x.max(y);
        return Some(match (signed, if signed && unsigned_wide >= wide { wide * 2 } else { wide }) {
            (true, 8) => D::Int8,
            (true, 16) => D::Int16,
            (true, 32) => D::Int32,
            (true, 64) => D::Int64,
            (true, _) => D::Decimal128(20, 0),
            (false, 8) => D::UInt8,
            (false, 16) => D::UInt16,
            (false, 32) => D::UInt32,
            (false, _) => D::UInt64,
        });
    }
    let (pa, sa) = decimal_parts(a)?;
    let (pb, sb) = decimal_parts(b)?;
    // The common decimal has the maximum of the digits before the point and the maximum of the digits after it.
    let scale = sa.max(sb);
    let precision = (pa - sa).max(pb - sb) + scale;
    match (precision, a, b) {
        (p @ ..=38, ..) => Some(D::Decimal128(p as u8, scale as i8)),
        (p @ ..=76, D::Decimal256(..), _) | (p @ ..=76, _, D::Decimal256(..)) => {
            Some(D::Decimal256(p as u8, scale as i8))
        }
        _ => None,
    }
}

/// Returns precision and scale of a decimal, or of the decimal that holds all values of an integer type.
fn decimal_parts(t: &DataType) -> Option<(i32, i32)> {
    use DataType as D;
    match t {
        D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) | D::Decimal256(p, s) => {
            Some((i32::from(*p), i32::from(*s)))
        }
        _ => Some((
            match integer_bits(t)?.abs() {
                8 => 3,
                16 => 5,
                32 => 10,
                _ => 20,
            },
            0,
        )),
    }
}

fn common_field(x: &Field, y: &Field, name: &str) -> Option<Field> {
    let t = common_type(x.data_type(), y.data_type())?;
    Some(Field::new(name, t, x.is_nullable() || y.is_nullable()))
}

// Fields are matched by name. A field that only one side has is nullable in the result.
fn common_struct(x: &Fields, y: &Fields) -> Option<DataType> {
    let mut fields = Vec::with_capacity(x.len());
    for f in x {
        fields.push(match y.iter().find(|g| g.name() == f.name()) {
            Some(g) => common_field(f, g, f.name())?,
            None => f.as_ref().clone().with_data_type(plain_type(f.data_type())).with_nullable(true),
        });
    }
    for g in y.iter().filter(|g| !x.iter().any(|f| f.name() == g.name())) {
        fields.push(g.as_ref().clone().with_data_type(plain_type(g.data_type())).with_nullable(true));
    }
    Some(DataType::Struct(fields.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType as D;

    #[test]
    fn integers_widen_to_types_that_hold_both() {
        assert_eq!(common_type(&D::Int16, &D::Int64), Some(D::Int64));
        assert_eq!(common_type(&D::UInt32, &D::Int32), Some(D::Int64));
        assert_eq!(common_type(&D::UInt8, &D::Int64), Some(D::Int64));
        assert_eq!(common_type(&D::UInt64, &D::Int8), Some(D::Decimal128(20, 0)));
        assert_eq!(common_type(&D::Int32, &D::Float64), Some(D::Float64));
        assert_eq!(common_type(&D::Int32, &D::Float32), Some(D::Float64));
        assert_eq!(common_type(&D::Int64, &D::Float64), None);
    }

    #[test]
    fn common_decimal_has_digits_for_both_sides() {
        assert_eq!(common_type(&D::Decimal128(12, 2), &D::Decimal128(10, 4)), Some(D::Decimal128(14, 4)));
        assert_eq!(common_type(&D::Decimal128(12, 2), &D::Int64), Some(D::Decimal128(22, 2)));
        assert_eq!(common_type(&D::Decimal128(38, 0), &D::Decimal128(38, 10)), None);
    }

    #[test]
    fn text_and_numbers_or_zoned_and_local_times_have_no_common_type() {
        assert_eq!(common_type(&D::Utf8, &D::Int32), None);
        let (naive, utc) =
            (D::Timestamp(TimeUnit::Millisecond, None), D::Timestamp(TimeUnit::Second, Some("+01:00".into())));
        assert_eq!(common_type(&naive, &utc), None);
        assert_eq!(common_type(&utc, &utc), Some(D::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))));
        assert_eq!(common_type(&D::Null, &D::Date32), Some(D::Date32));
    }

    #[test]
    fn struct_fields_are_matched_by_name() {
        let s = |f: Vec<(&str, D)>| D::Struct(f.into_iter().map(|(n, t)| Field::new(n, t, true)).collect());
        let a = s(vec![("a", D::Int32), ("b", D::Utf8)]);
        let b = s(vec![("b", D::LargeUtf8), ("a", D::Int64), ("c", D::Boolean)]);
        assert_eq!(common_type(&a, &b), Some(s(vec![("a", D::Int64), ("b", D::Utf8), ("c", D::Boolean)])));
    }
}
