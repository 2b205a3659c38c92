//! Placeholder that Debezium writes for unchanged values, in all encodings in which it occurs.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use biscuit_core::{Error, Result};
use biscuit_schema::internal::{hex_bytes, hex_text};

use crate::codes;

/// Default placeholder of Debezium for an unchanged value, which the database did not send. The connector option
/// `unavailable.value.placeholder` changes it.
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// Placeholder of a connector in every encoding. Empty `bytes` mean that there is no placeholder.
#[derive(Debug, Clone)]
pub struct UnchangedPlaceholder {
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
    pub fn new(setting: Option<&str>) -> Result<Self> {
        let setting = setting.unwrap_or(PLACEHOLDER);
        if setting.is_empty() {
            return Ok(Self { bytes: vec![], text: None, raws: vec![], encoded: vec![] });
        }
        let bytes = match setting.strip_prefix("hex:") {
            Some(digits) => hex_bytes(digits),
            None => Some(setting.as_bytes().to_vec()),
        };
        let bytes = bytes.filter(|b| !b.is_empty()).ok_or_else(|| {
            Error::new(codes::INVALID_PLACEHOLDER, "the placeholder after `hex:` is not a sequence of hexadecimal digits; use a text, or `hex:` and an even number of digits")
        })?;
        let text = String::from_utf8(bytes.clone()).ok();
        let hex = hex_text(&bytes);
        let encoded = vec![STANDARD.encode(&bytes), URL_SAFE.encode(&bytes), hex];
        let json = |t: &String| serde_json::Value::String(t.clone()).to_string();
        let raws = text.iter().chain(&encoded).map(json).collect();
        Ok(Self { bytes, text, raws, encoded })
    }

    /// Returns whether the JSON text of a value may be the placeholder. A cheap test before decoding;
    /// decoding decides.
    pub fn may_match(&self, raw: &str) -> bool {
        match raw.as_bytes().first() {
            Some(b'"') => self.raws.iter().any(|r| r == raw),
            // A list with the text as its only item, or of the bytes as numbers (at most `-128, ` with spaces for
            // each).
            Some(b'[') if !self.bytes.is_empty() => raw.len() <= 8 * self.bytes.len() + 16,
            _ => false,
        }
    }

    /// Returns the bytes of the placeholder. Empty if no value is the placeholder.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether a text is the placeholder itself.
    pub fn is_text(&self, text: &str) -> bool {
        self.text.as_deref() == Some(text)
    }

    /// Returns whether a text is the placeholder as base64 or hexadecimal digits.
    pub fn is_encoded(&self, text: &str) -> bool {
        self.encoded.iter().any(|own| own == text)
    }

    /// Returns the rows of an array whose value is the placeholder, in ascending order.
    pub fn find_rows(&self, array: &dyn Array) -> Vec<usize> {
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
                    items.is_some_and(|items| !self.find_rows(&items).is_empty())
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
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, StringArray};

    use super::*;

    #[test]
    fn rows_with_the_placeholder_are_found_in_texts_and_bytes() {
        let p = UnchangedPlaceholder::new(None).unwrap();
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some(PLACEHOLDER), None]));
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![PLACEHOLDER.as_bytes(), b"a"]));
        assert_eq!((p.find_rows(&texts), p.find_rows(&bytes)), (vec![1], vec![0]));
        let none = UnchangedPlaceholder::new(Some("")).unwrap();
        assert_eq!(none.find_rows(&texts), Vec::<usize>::new());
    }
}
