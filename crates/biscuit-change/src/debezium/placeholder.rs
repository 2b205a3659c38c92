use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use biscuit_core::{Error, Result};

use crate::values::text_value::TextValue;

/// What Debezium writes for a value that the database did not send, because it did not change, unless its connector is told
/// otherwise (`unavailable.value.placeholder`).
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// The placeholder of a connector, in every form in which it comes.
#[derive(Debug, Clone)]
pub(crate) struct UnchangedPlaceholder {
    bytes: Vec<u8>,
    text: Option<String>,
    /// Its JSON texts: as text, as base64 of both kinds and as hexadecimal digits.
    raws: Vec<String>,
    encoded: Vec<String>,
}

impl UnchangedPlaceholder {
    /// Of a setting: a text, or `hex:` and the bytes as hexadecimal digits; nothing is a placeholder if it is empty.
    ///
    /// # Errors
    /// `InvalidPlaceholder` for digits that are none.
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
            Error::usage("InvalidPlaceholder", "the placeholder is a text, or `hex:` and hexadecimal digits")
        })?;
        let text = String::from_utf8(bytes.clone()).ok();
        let hex = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let encoded = vec![STANDARD.encode(&bytes), URL_SAFE.encode(&bytes), hex];
        let json = |t: &String| serde_json::Value::String(t.clone()).to_string();
        let raws = text.iter().chain(&encoded).map(json).collect();
        Ok(Self { bytes, text, raws, encoded })
    }

    /// A quick look at a value's JSON text, before anything is decoded: whether it may be the placeholder.
    pub(crate) fn may_be(&self, raw: &str) -> bool {
        match raw.as_bytes().first() {
            Some(b'"') => self.raws.iter().any(|r| r == raw),
            // A list of the text alone, or of its bytes as numbers.
            Some(b'[') if !self.bytes.is_empty() => raw.len() <= 8 * self.bytes.len() + 16,
            _ => false,
        }
    }

    /// Whether a value of a stored type is the placeholder: the text, its bytes, these encoded where bytes came as text, or
    /// a list of the text alone or of its bytes.
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

    /// The rows of an array whose value is the placeholder.
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
    fn it_comes_as_text_as_bytes_and_in_lists() {
        let p = UnchangedPlaceholder::new(None).unwrap();
        assert!(
            p.may_be("\"__debezium_unavailable_value\"") && p.may_be("\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"")
        );
        assert!(!p.may_be("\"__debezium_unavailable_valu\"") && !p.may_be("95"));
        assert!(p.is(&TextValue::List(vec![TextValue::Text(PLACEHOLDER.into())])));
        assert!(p.is(&TextValue::List(PLACEHOLDER.bytes().map(|b| TextValue::Int(b.into())).collect())));
    }

    #[test]
    fn a_connector_may_have_its_own_and_may_write_it_as_digits() {
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
