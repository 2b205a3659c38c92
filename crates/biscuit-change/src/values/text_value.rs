//! Values between JSON text and Arrow arrays, and the conversion of a column of such values to an array.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, ListArray, MapArray, NullArray,
    StringArray, StructArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};

use crate::values::text::InvalidValue;

/// Value that was decoded from text and is not in an array yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TextValue {
    Null,
    Bool(bool),
    /// Integer, or a number of days, microseconds or nanoseconds, depending on the type of the column.
    Int(i64),
    Float(f64),
    /// Unscaled decimal; the column has the scale.
    Decimal(i128),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<TextValue>),
    /// Fields in the order of the type of the column.
    Struct(Vec<TextValue>),
    Map(Vec<(TextValue, TextValue)>),
}

/// Converts cells to an array. Every cell was decoded for this type; a cell that does not fit is an error.
pub(crate) fn to_array(t: &DataType, cells: &[TextValue]) -> Result<ArrayRef, InvalidValue> {
    Ok(match t {
        DataType::Null => Arc::new(NullArray::new(cells.len())),
        DataType::Boolean => Arc::new(
            collect_values(cells, |c| if let TextValue::Bool(b) = c { Some(*b) } else { None }, t)?
                .into_iter()
                .collect::<BooleanArray>(),
        ),
        DataType::Float32 => Arc::new(
            collect_values(cells, to_float, t)?.into_iter().map(|f| f.map(|f| f as f32)).collect::<Float32Array>(),
        ),
        DataType::Float64 => Arc::new(collect_values(cells, to_float, t)?.into_iter().collect::<Float64Array>()),
        DataType::Decimal128(p, s) => {
            let values = collect_values(cells, |c| if let TextValue::Decimal(d) = c { Some(*d) } else { None }, t)?;
            let array = values.into_iter().collect::<Decimal128Array>();
            let array = array.with_precision_and_scale(*p, *s).map_err(|e| InvalidValue::from(e.to_string()))?;
            // Arrow accepts any number here. For a number with too many digits, Parquet would store only the lower
            // bytes.
            let fits = array.validate_decimal_precision(*p);
            fits.map_err(|_| InvalidValue::overflow(format!("a value has more digits than {t}")))?;
            Arc::new(array)
        }
        // Arrays of texts and bytes have offsets of 31 bits.
        DataType::Utf8 | DataType::Binary if text_bytes(cells) > i32::MAX as usize => {
            return Err(InvalidValue::too_large("the values of one batch have more than 2^31 bytes"));
        }
        DataType::Utf8 => Arc::new(
            collect_values(cells, |c| if let TextValue::Text(t) = c { Some(t.as_str()) } else { None }, t)?
                .into_iter()
                .collect::<StringArray>(),
        ),
        DataType::Binary => Arc::new(
            collect_values(cells, |c| if let TextValue::Bytes(b) = c { Some(b.as_slice()) } else { None }, t)?
                .into_iter()
                .collect::<BinaryArray>(),
        ),
        DataType::List(item) => list(item, cells)?,
        DataType::Struct(fields) => build_structs(fields, cells)?,
        DataType::Map(entry, _) => build_map(entry, cells)?,
        DataType::UInt64 => {
            let value = |c: &TextValue| match c {
                TextValue::Int(i) => u64::try_from(*i).ok(),
                TextValue::Decimal(d) => u64::try_from(*d).ok(),
                _ => None,
            };
            Arc::new(collect_values(cells, value, t)?.into_iter().collect::<UInt64Array>())
        }
        _ => build_integers(t, cells)?,
    })
}

/// Returns the number of bytes of all texts and byte strings.
fn text_bytes(cells: &[TextValue]) -> usize {
    let of = |c: &TextValue| match c {
        TextValue::Text(t) => t.len(),
        TextValue::Bytes(b) => b.len(),
        _ => 0,
    };
    cells.iter().map(of).sum()
}

/// Extracts the values of one variant; null remains null, and another variant is an error.
fn collect_values<'a, T>(
    cells: &'a [TextValue],
    get: impl Fn(&'a TextValue) -> Option<T>,
    t: &DataType,
) -> Result<Vec<Option<T>>, InvalidValue> {
    let one = |c: &'a TextValue| match c {
        TextValue::Null => Ok(None),
        c => get(c).map(Some).ok_or_else(|| InvalidValue::from(format!("a value is not {t}"))),
    };
    cells.iter().map(one).collect()
}

fn to_float(c: &TextValue) -> Option<f64> {
    match c {
        TextValue::Float(f) => Some(*f),
        // Only inferred columns contain both. A whole number that a double cannot represent exactly is refused.
        TextValue::Int(i) => Some(*i as f64).filter(|f| *f as i128 == i128::from(*i)),
        _ => None,
    }
}

/// Converts cells to a type that is stored as integers, by a cast from Int64 that fails if a value does not fit.
fn build_integers(t: &DataType, cells: &[TextValue]) -> Result<ArrayRef, InvalidValue> {
    let values = collect_values(cells, |c| if let TextValue::Int(i) = c { Some(*i) } else { None }, t)?;
    let base: ArrayRef = Arc::new(values.into_iter().collect::<arrow::array::Int64Array>());
    let strict = |a: &ArrayRef, t: &DataType| {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        // The error of the cast quotes the value and must not be shown.
        cast_with_options(a, t, &options).map_err(|_| InvalidValue::from(format!("a value does not fit {t}")))
    };
    match t {
        DataType::Date32 => strict(&strict(&base, &DataType::Int32)?, t),
        DataType::Timestamp(unit, zone) => {
            let naive = strict(&base, &DataType::Timestamp(*unit, None))?;
            // The integers are in UTC already: a cast would shift them, so only the name of the zone is attached.
            match zone {
                None => Ok(naive),
                Some(zone) => Ok(with_zone(&naive, *unit, zone.clone())),
            }
        }
        _ => strict(&base, t),
    }
}

fn with_zone(naive: &ArrayRef, unit: TimeUnit, zone: Arc<str>) -> ArrayRef {
    use arrow::array::AsArray;
    use arrow::datatypes::{TimestampMicrosecondType as Micros, TimestampNanosecondType as Nanos};
    match unit {
        TimeUnit::Nanosecond => Arc::new(naive.as_primitive::<Nanos>().clone().with_timezone(zone)),
        _ => Arc::new(naive.as_primitive::<Micros>().clone().with_timezone(zone)),
    }
}

fn list(item: &FieldRef, cells: &[TextValue]) -> Result<ArrayRef, InvalidValue> {
    let mut flat = Vec::new();
    let mut lengths = Vec::with_capacity(cells.len());
    for c in cells {
        let before = flat.len();
        match c {
            TextValue::Null => {}
            TextValue::List(items) => flat.extend(items.iter().cloned()),
            _ => return Err("a value is not a list".into()),
        }
        lengths.push(flat.len() - before);
    }
    let values = to_array(item.data_type(), &flat)?;
    if values.len() > i32::MAX as usize {
        return Err(InvalidValue::too_large("the lists of one batch have more than 2^31 items"));
    }
    Ok(Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), values, null_buffer(cells))))
}

fn build_structs(fields: &Fields, cells: &[TextValue]) -> Result<ArrayRef, InvalidValue> {
    let column = |i: usize| {
        let of = |c: &TextValue| match c {
            TextValue::Struct(values) => values[i].clone(),
            _ => TextValue::Null,
        };
        to_array(fields[i].data_type(), &cells.iter().map(of).collect::<Vec<_>>())
    };
    let columns = (0..fields.len()).map(column).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(
        StructArray::try_new(fields.clone(), columns, null_buffer(cells))
            .map_err(|e| InvalidValue::from(e.to_string()))?,
    ))
}

fn build_map(entry: &FieldRef, cells: &[TextValue]) -> Result<ArrayRef, InvalidValue> {
    let DataType::Struct(fields) = entry.data_type() else { return Err("the type of the map has no entries".into()) };
    let (mut keys, mut values, mut lengths) = (vec![], vec![], vec![]);
    for c in cells {
        let entries: &[(TextValue, TextValue)] = if let TextValue::Map(entries) = c { entries } else { &[] };
        lengths.push(entries.len());
        keys.extend(entries.iter().map(|(k, _)| k.clone()));
        values.extend(entries.iter().map(|(_, v)| v.clone()));
    }
    let columns = vec![to_array(fields[0].data_type(), &keys)?, to_array(fields[1].data_type(), &values)?];
    let entries = StructArray::try_new(fields.clone(), columns, None).map_err(|e| InvalidValue::from(e.to_string()))?;
    let map = MapArray::try_new(entry.clone(), OffsetBuffer::from_lengths(lengths), entries, null_buffer(cells), false);
    Ok(Arc::new(map.map_err(|e| InvalidValue::from(e.to_string()))?))
}

fn null_buffer(cells: &[TextValue]) -> Option<NullBuffer> {
    Some(NullBuffer::from_iter(cells.iter().map(|c| *c != TextValue::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_with_more_digits_than_its_type_is_refused() {
        let t = DataType::Decimal128(5, 2);
        assert!(to_array(&t, &[TextValue::Decimal(99_999), TextValue::Null]).is_ok());
        let reason = to_array(&t, &[TextValue::Decimal(100_000)]).unwrap_err();
        assert_eq!(reason, InvalidValue::overflow("a value has more digits than Decimal128(5, 2)"));
    }
}
