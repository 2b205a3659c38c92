//! Placeholder that Debezium writes for unchanged values, in all encodings in which it occurs.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use biscuit_core::{Error, Result};

use crate::values::text_value::TextValue;

/// Default placeholder of Debezium for an unchanged value, which the database did not send. The connector option
/// `unavailable.value.placeholder` changes it.
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// Placeholder of a connector in every encoding. Empty `bytes` mean that there is no placeholder.
#[derive(Debug, Clone)]
pub(crate) struct UnchangedPlaceholder {
    bytes: Vec<u8>,
    /// Placeholder as text, if its bytes are UTF-8.
    text: Option<String>,
    /// Placeholder as JSON: as text, as base64 with both alphabets, and as hexadecimal digits.
    raws: Vec<String>,
    /// Placeholder as base64 with both alphabets, and as hexadecimal digits.
    encoded: Vec<String>,
}

impl UnchangedPlaceholder {
    /// Parses a setting: a text, or `hex:` and the bytes as hexadecimal digits. Empty text means that no value is the
    /// placeholder.
    ///
    /// # Errors
    /// `InvalidPlaceholder` for invalid hexadecimal digits.
    pub(crate) fn new(setting: Option<&str>) -> Result<Self> {
        let setting = setting.unwrap_or(PLACEHOLDER);
        if setting.is_empty() {
            return Ok(Self { bytes: vec![], text: None, raws: vec![], encoded: vec![] });
        }
        let bytes = match setting.strip_prefix("hex:") {
            Some(digits) => biscuit_schema::hex_bytes(digits),
            None => Some(setting.as_bytes().to_vec()),
        };
        let bytes = bytes.filter(|b| !b.is_empty()).ok_or_else(|| {
            Error::usage("InvalidPlaceholder", "the placeholder after `hex:` is not a sequence of hexadecimal digits; use a text, or `hex:` and an even number of digits")
        })?;
        let text = String::from_utf8(bytes.clone()).ok();
        let hex = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let encoded = vec![STANDARD.encode(&bytes), URL_SAFE.encode(&bytes), hex];
        let json = |t: &String| serde_json::Value::String(t.clone()).to_string();
        let raws = text.iter().chain(&encoded).map(json).collect();
        Ok(Self { bytes, text, raws, encoded })
    }

    /// Returns whether the JSON text of a value may be the placeholder. A cheap test before decoding;
    /// [`is`](Self::is) decides.
    pub(crate) fn may_be(&self, raw: &str) -> bool {
        match raw.as_bytes().first() {
            Some(b'"') => self.raws.iter().any(|r| r == raw),
            // A list with the text as its only item, or of the bytes as numbers (at most `-128, ` with spaces for
            // each).
            Some(b'[') if !self.bytes.is_empty() => raw.len() <= 8 * self.bytes.len() + 16,
            _ => false,
        }
    }

    /// Returns whether a decoded value is the placeholder: the text, the bytes, the bytes encoded as text, a list
    /// with the text as its only item, or a list of the bytes.
    pub(crate) fn is(&self, cell: &TextValue) -> bool {
        match cell {
            TextValue::Text(t) => self.text.as_ref() == Some(t) || self.encoded.contains(t),
            TextValue::Bytes(b) => !b.is_empty() && *b == self.bytes,
            TextValue::List(items) => match items.as_slice() {
                [TextValue::Text(t)] => self.text.as_ref() == Some(t),
                items => {
                    let byte = |(c, b): (&TextValue, &u8)| matches!(c, TextValue::Int(i) if *i == i64::from(*b));
                    !items.is_empty() && items.len() == self.bytes.len() && items.iter().zip(&self.bytes).all(byte)
                }
            },
            _ => false,
        }
    }

    /// Returns the rows of an array whose value is the placeholder, in ascending order.
    pub(crate) fn rows(&self, array: &dyn Array) -> Vec<usize> {
        if self.bytes.is_empty() {
            return vec![];
        }
        match array.data_type() {
            DataType::Utf8 => self.text_rows(array.as_string::<i32>().iter()),
            DataType::LargeUtf8 => self.text_rows(array.as_string::<i64>().iter()),
            DataType::Utf8View => self.text_rows(array.as_string_view().iter()),
            DataType::Binary => rows_of(array.as_binary::<i32>().iter(), self.bytes.as_slice()),
            DataType::LargeBinary => rows_of(array.as_binary::<i64>().iter(), self.bytes.as_slice()),
            DataType::BinaryView => rows_of(array.as_binary_view().iter(), self.bytes.as_slice()),
            // A list whose only item is the placeholder.
            DataType::List(item) if *item.data_type() == DataType::Utf8 => {
                let list = array.as_list::<i32>();
                let alone = |row: usize| {
                    let items = list.is_valid(row).then(|| list.value(row)).filter(|items| items.len() == 1);
                    items.is_some_and(|items| !self.rows(&items).is_empty())
                };
                (0..list.len()).filter(|row| alone(*row)).collect()
            }
            _ => vec![],
        }
    }

    fn text_rows<'a>(&self, values: impl Iterator<Item = Option<&'a str>>) -> Vec<usize> {
        self.text.as_deref().map_or_else(Vec::new, |text| rows_of(values, text))
    }
}

fn rows_of<'a, T: PartialEq + ?Sized + 'a>(values: impl Iterator<Item = Option<&'a T>>, wanted: &T) -> Vec<usize> {
    values.enumerate().filter(|(_, v)| v.is_some_and(|v| v == wanted)).map(|(row, _)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholder_is_recognized_as_text_bytes_and_list() {
        let p = UnchangedPlaceholder::new(None).unwrap();
        assert!(
            p.may_be("\"__debezium_unavailable_value\"") && p.may_be("\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"")
        );
        assert!(!p.may_be("\"__debezium_unavailable_valu\"") && !p.may_be("95"));
        assert!(p.is(&TextValue::List(vec![TextValue::Text(PLACEHOLDER.into())])));
        assert!(p.is(&TextValue::List(PLACEHOLDER.bytes().map(|b| TextValue::Int(b.into())).collect())));
    }

    #[test]
    fn custom_and_hexadecimal_placeholders_are_recognized() {
        let custom = UnchangedPlaceholder::new(Some("n/a")).unwrap();
        assert!(custom.may_be("\"n/a\"") && !custom.may_be("\"__debezium_unavailable_value\""));
        let hex = UnchangedPlaceholder::new(Some("hex:00ff")).unwrap();
        assert!(hex.is(&TextValue::Bytes(vec![0, 255])) && hex.may_be("\"AP8=\"") && hex.may_be("\"00ff\""));
        assert!(!hex.is(&TextValue::Text("00fe".into())));
        assert!(!UnchangedPlaceholder::new(Some("")).unwrap().is(&TextValue::Text(String::new())));
        for bad in ["hex:", "hex:0g", "hex:0"] {
            assert_eq!(UnchangedPlaceholder::new(Some(bad)).unwrap_err().code(), "InvalidPlaceholder", "{bad}");
        }
    }
}
