use arrow::datatypes::{DataType, Field};
use biscuit_schema::common_type;

use crate::json;

/// The type of a JSON value by what it looks like; text stays text, whatever is in it.
pub(crate) fn infer_json(raw: &str) -> DataType {
    match raw.as_bytes().first() {
        Some(b'n') => DataType::Null,
        Some(b't' | b'f') => DataType::Boolean,
        Some(b'"') => DataType::Utf8,
        Some(b'[') => {
            let items = json::items(raw).unwrap_or_default();
            let item = items.iter().try_fold(DataType::Null, |t, i| widen(&t, &infer_json(i.get())));
            // Lists of values that have no common type keep their JSON text.
            item.map_or(DataType::Utf8, |t| DataType::List(Field::new("element", known(t), true).into()))
        }
        Some(b'{') => {
            let object = json::object(raw).unwrap_or_default();
            let fields = object.0.iter().map(|(n, v)| Field::new(n, known(infer_json(v.get())), true));
            if object.0.is_empty() { DataType::Utf8 } else { DataType::Struct(fields.collect()) }
        }
        _ if raw.contains(['.', 'e', 'E']) => DataType::Float64,
        _ if raw.parse::<i64>().is_ok() => DataType::Int64,
        _ => DataType::Decimal128(38, 0),
    }
}

/// The type of a text in a CSV file. A number with a leading zero, as a postal code has, is text.
pub(crate) fn infer_csv(text: &str) -> DataType {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let number = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    match text {
        "true" | "false" => DataType::Boolean,
        _ if padded || digits.is_empty() || !number => DataType::Utf8,
        _ if text.parse::<i64>().is_ok() => DataType::Int64,
        _ if text.parse::<f64>().is_ok_and(f64::is_finite) && text.contains(['.', 'e', 'E']) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// The type for values of both: whole numbers among others are doubles, for which each value is checked later.
pub(crate) fn widen(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
        _ => common_type(a, b),
    }
}

/// A type for a column that was null everywhere: text.
pub(crate) fn known(t: DataType) -> DataType {
    if t == DataType::Null { DataType::Utf8 } else { t }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_values_have_the_type_they_look_like() {
        assert_eq!(infer_json("12"), DataType::Int64);
        assert_eq!(infer_json("12.0"), DataType::Float64);
        assert_eq!(infer_json("99999999999999999999"), DataType::Decimal128(38, 0));
        assert_eq!(infer_json("\"12\""), DataType::Utf8);
        assert_eq!(infer_json("[1, null]"), DataType::List(Field::new("element", DataType::Int64, true).into()));
        assert_eq!(infer_json("[1, \"a\"]"), DataType::Utf8);
    }

    #[test]
    fn postal_codes_stay_text() {
        assert_eq!(infer_csv("01234"), DataType::Utf8);
        assert_eq!(infer_csv("-5"), DataType::Int64);
        assert_eq!(infer_csv("0.5"), DataType::Float64);
        assert_eq!(infer_csv("1-2"), DataType::Utf8);
        assert_eq!(infer_csv("NaN"), DataType::Utf8);
    }
}
