//! Text of a file: decompressed, decoded to UTF-8, one JSON value per line; and the errors of single values.

use std::sync::Arc;

use biscuit_core::{Error, ErrorCode, Result};
use biscuit_schema::codes::{OVERFLOW, PRECISION_LOSS, TOO_LARGE, WRONG_TYPE};
use bytes::Bytes;
use encoding_rs::Encoding;

use crate::codes;
use crate::csv::dialect::without_packing;
use crate::files::decompress::decompress;
use crate::files::encoding::{TextEncoding, Utf8Text};
use crate::json::scan::{JsonLayout, JsonValues};

/// Returns the text of a file in UTF-8 without a byte order mark. Gzip, zstd and bzip2 are recognized by their first
/// bytes and decompressed.
///
/// # Errors
/// `EmptyFile`, `InvalidText`, `TooLarge`, and `TruncatedInput` for compressed text that is truncated or
/// damaged.
pub(crate) fn text_of(
    file: &str,
    bytes: &Bytes,
    max_decompressed: Option<u64>,
    encoding: Option<TextEncoding>,
) -> Result<String> {
    if bytes.is_empty() {
        return Err(empty_file(file));
    }
    let raw = decompress(file, bytes, max_decompressed)?;
    // Most files are UTF-8 without a mark and need no copy.
    let raw = match Encoding::for_bom(&raw).is_some() || encoding.is_some() {
        true => read_all(file, Utf8Text::new(file, raw.as_slice(), encoding))?,
        false => raw,
    };
    String::from_utf8(raw).map_err(|e| {
        let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
        let line = bytes[..at].iter().filter(|b| **b == b'\n').count();
        let message = format!(
            "the text is not UTF-8: byte {} is {:#04x}; if the file has another encoding, set it (`encoding` of the source, or `--encoding`)",
            at + 1,
            bytes[at]
        );
        Error::new(codes::INVALID_TEXT, message).at(file, line as u64 + 1)
    })
}

/// Returns the text of a JSON file with one value per line, whatever the layout of the file is.
///
/// # Errors
/// The errors of [`text_of`]; `InvalidJson` and `TruncatedInput` for text with another layout than lines that
/// contains an invalid or unclosed value.
pub(crate) fn json_text(
    file: &str,
    bytes: &Bytes,
    max_decompressed: Option<u64>,
    encoding: Option<TextEncoding>,
) -> Result<String> {
    let text = text_of(file, bytes, max_decompressed, encoding)?;
    if JsonLayout::of_text(text.as_bytes()) == JsonLayout::Lines {
        return Ok(text);
    }
    let lines = read_all(file, JsonValues::new(file, text.as_bytes()))?;
    String::from_utf8(lines).map_err(|e| Error::internal("JSON values of UTF-8 text are not UTF-8").with_source(e))
}

fn read_all(file: &str, mut text: impl std::io::Read) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    match text.read_to_end(&mut all) {
        Ok(_) => Ok(all),
        Err(e) => Err(e.downcast::<Error>().unwrap_or_else(|e| crate::files::decompress::decompression_error(file, e))),
    }
}

/// Returns whether a file contains the keys or headers of messages whose values are in another file. Kafka's sinks
/// for S3 write such files: `topic+0+0000000000.keys.json`.
pub(crate) fn is_key_or_header_file(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let mut parts = without_packing(name).rsplit('.');
    let (_, what) = (parts.next(), parts.next());
    matches!(what, Some("keys" | "headers")) && parts.next().is_some()
}

pub(crate) fn empty_file(file: &str) -> Error {
    Error::new(codes::EMPTY_FILE, "the file is empty").in_file(file)
}

/// Reason why a value is invalid for the type of its column, with the code of the error. The reason never contains
/// the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidValue {
    code: ErrorCode,
    reason: String,
}

impl InvalidValue {
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    /// The value is beyond the range of the type or beyond a limit.
    pub(crate) fn overflow(reason: impl Into<String>) -> Self {
        Self { code: OVERFLOW, reason: reason.into() }
    }

    /// The type could only hold a different value.
    pub(crate) fn precision_loss(reason: impl Into<String>) -> Self {
        Self { code: PRECISION_LOSS, reason: reason.into() }
    }

    /// The value takes more memory than allowed.
    pub(crate) fn too_large(reason: impl Into<String>) -> Self {
        Self { code: TOO_LARGE, reason: reason.into() }
    }
}

impl From<String> for InvalidValue {
    fn from(reason: String) -> Self {
        Self { code: WRONG_TYPE, reason }
    }
}

impl From<&str> for InvalidValue {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// Creates the error for an invalid value of a column.
pub(crate) fn wrong_type(column: &str, invalid: impl Into<InvalidValue>, file: &Arc<str>, row: u64) -> Error {
    let InvalidValue { code, reason } = invalid.into();
    let message = format!("column `{column}`: {reason}");
    Error::new(code, message).with_column(column).at(file, row)
}
