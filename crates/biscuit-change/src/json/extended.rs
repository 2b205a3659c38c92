//! Converts MongoDB Extended JSON to plain JSON, in all modes that Debezium writes: strict (version 1), canonical and
//! relaxed (version 2).

use arrow::temporal_conversions::timestamp_ms_to_datetime;
use serde_json::value::RawValue;

use crate::json::object::{self, JsonObject};
use crate::values::text::InvalidValue;

/// Replaces type wrappers such as `{"$numberLong": "7"}` by plain JSON.
///
/// Numbers become numbers, or text for `NaN` and infinities; identifiers become text; times become ISO 8601 text in
/// UTC; bytes become base64. Values without a plain form remain objects.
///
/// # Errors
/// Returns the reason why a value is invalid.
pub(crate) fn to_plain_json(raw: &str) -> Result<String, InvalidValue> {
    let mut out = String::with_capacity(raw.len());
    write_plain(raw, &mut out)?;
    Ok(out)
}

fn write_plain(raw: &str, out: &mut String) -> Result<(), InvalidValue> {
    if raw.starts_with('{') {
        let object = object::parse_object(raw).map_err(|_| "it is not valid JSON")?;
        return match unwrap_typed(&object)? {
            Some(value) => {
                out.push_str(&value);
                Ok(())
            }
            None => write_object(object.0.iter().map(|(name, value)| (name.as_str(), *value)), out),
        };
    }
    if raw.starts_with('[') {
        let items = object::parse_items(raw).ok_or("it is not valid JSON")?;
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            write_plain(item.get(), out)?;
        }
        out.push(']');
        return Ok(());
    }
    out.push_str(raw);
    Ok(())
}

fn write_object<'a>(
    fields: impl Iterator<Item = (&'a str, &'a RawValue)>,
    out: &mut String,
) -> Result<(), InvalidValue> {
    out.push('{');
    for (i, (name, value)) in fields.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&quote_json(name));
        out.push(':');
        write_plain(value.get(), out)?;
    }
    out.push('}');
    Ok(())
}

/// Returns a text as a JSON string.
pub(crate) fn quote_json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Unwraps a type wrapper; returns `None` for any other object.
///
/// A wrapper is recognized by its first field and the number of fields: a document may have a field `$oid` among
/// others.
fn unwrap_typed(object: &JsonObject<'_>) -> Result<Option<String>, InvalidValue> {
    let [(first, value), rest @ ..] = object.0.as_slice() else { return Ok(None) };
    let as_text = |value: &RawValue| object::parse_string(value.get()).map(|text| quote_json(&text));
    Ok(match (first.as_str(), rest) {
        ("$oid" | "$uuid" | "$symbol" | "$code", []) => as_text(value),
        ("$numberInt" | "$numberLong" | "$numberDouble" | "$numberDecimal", []) => number_as_json(value.get()),
        ("$date", []) => Some(date_as_json(value.get())?),
        ("$undefined", []) => Some("null".to_owned()),
        ("$timestamp" | "$regularExpression", []) => Some(to_plain_json(value.get())?),
        ("$binary", []) => {
            let inner = object::parse_object(value.get()).map_err(|_| "`$binary` does not contain an object")?;
            inner.get("base64").and_then(as_text)
        }
        ("$binary", [(kind, _)]) if kind == "$type" => as_text(value),
        ("$regex", [(options, flags)]) if options == "$options" => {
            let mut out = String::new();
            write_object([("pattern", *value), ("options", *flags)].into_iter(), &mut out)?;
            Some(out)
        }
        _ => None,
    })
}

/// Returns a JSON number, or a JSON string for `NaN` and infinities, which are not JSON numbers.
fn number_as_json(raw: &str) -> Option<String> {
    let Some(text) = object::parse_string(raw) else { return Some(raw.to_owned()) };
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(&text).is_ok_and(|raw| raw.get().len() == text.len());
    Some(if is_number { text } else { quote_json(&text) })
}

/// Converts a date, milliseconds since 1970 or ISO 8601 text, to ISO 8601 text.
fn date_as_json(raw: &str) -> Result<String, InvalidValue> {
    if let Some(text) = object::parse_string(raw) {
        return Ok(quote_json(&text));
    }
    let inner = object::parse_object(raw).ok();
    let millis = match inner.as_ref().and_then(|inner| inner.get("$numberLong")) {
        Some(long) => object::parse_string(long.get()).unwrap_or_else(|| long.get().to_owned()),
        None => raw.to_owned(),
    };
    let millis: i64 = millis.parse().map_err(|_| "the date is not a whole number of milliseconds")?;
    let time = timestamp_ms_to_datetime(millis)
        .ok_or_else(|| InvalidValue::overflow("the value is out of the range of dates"))?;
    Ok(quote_json(&format!("{}Z", time.format("%Y-%m-%dT%H:%M:%S%.3f"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_wrappers_of_all_three_modes_become_plain_json() {
        for (extended, want) in [
            (r#"{"$oid":"596e275826f08b2730779e1f"}"#, r#""596e275826f08b2730779e1f""#),
            (r#"{"$numberLong" : "9223372036854775807"}"#, "9223372036854775807"),
            (r#"{"$numberInt":"-7"}"#, "-7"),
            (r#"{"$numberDouble":"1.50"}"#, "1.50"),
            (r#"{"$numberDouble":"-Infinity"}"#, r#""-Infinity""#),
            (r#"{"$numberDecimal":"0.1234567890123456789012345678901234"}"#, "0.1234567890123456789012345678901234"),
            (r#"{"$numberDecimal":"1E+3"}"#, "1E+3"),
            (r#"{"$numberDecimal":"NaN"}"#, r#""NaN""#),
            (r#"{"$date":1565564094692}"#, r#""2019-08-11T22:54:54.692Z""#),
            (r#"{"$date":{"$numberLong":"-62135596800000"}}"#, r#""0001-01-01T00:00:00.000Z""#),
            (r#"{"$date":"2019-08-11T22:54:54.692Z"}"#, r#""2019-08-11T22:54:54.692Z""#),
            (r#"{"$binary":"a2Fma2E=","$type":"00"}"#, r#""a2Fma2E=""#),
            (r#"{"$binary":{"base64":"a2Fma2E=","subType":"00"}}"#, r#""a2Fma2E=""#),
            (r#"{"$timestamp":{"t":5,"i":1}}"#, r#"{"t":5,"i":1}"#),
            (r#"{"$regex":"^a","$options":"i"}"#, r#"{"pattern":"^a","options":"i"}"#),
            (r#"{"$undefined":true}"#, "null"),
            (r#"{"$minKey":1}"#, r#"{"$minKey":1}"#),
            (r#"{"a":[{"$numberInt":"1"},{"b\"":{"$oid":"0f"}}],"c":null}"#, r#"{"a":[1,{"b\"":"0f"}],"c":null}"#),
            ("{}", "{}"),
            ("[]", "[]"),
            (r#""plain""#, r#""plain""#),
        ] {
            assert_eq!(to_plain_json(extended).as_deref(), Ok(want), "{extended}");
        }
    }

    #[test]
    fn invalid_dates_are_refused() {
        assert_eq!(
            to_plain_json(r#"{"$date":{"$numberLong":"9223372036854775807"}}"#).map_err(|w| w.code().name()),
            Err("Overflow")
        );
        assert_eq!(to_plain_json(r#"{"$date":1.5}"#).map_err(|w| w.code().name()), Err("WrongType"));
    }
}
