use std::sync::Arc;

use biscuit_core::{Error, Result};
use bytes::Bytes;
use encoding_rs::Encoding;

use crate::csv::dialect::without_packing;
use crate::files::decompress::unpack;
use crate::files::encoding::{TextEncoding, Utf8Text};
use crate::json::scan::{JsonLayout, JsonValues};

/// The text of a file, unpacked if it begins as gzip, zstd or bzip2 does, in UTF-8 and without a byte order mark.
///
/// # Errors
/// `EmptyFile`, `NotUtf8`, `TooLarge`, and for packed text that ends too early or is damaged `TruncatedInput`.
pub(crate) fn text_of(
    file: &str,
    bytes: &Bytes,
    max_decompressed: Option<u64>,
    encoding: Option<TextEncoding>,
) -> Result<String> {
    if bytes.is_empty() {
        return Err(empty(file));
    }
    let raw = unpack(file, bytes, max_decompressed)?;
    let raw = match Encoding::for_bom(&raw).is_some() || encoding.is_some() {
        true => read_all(file, Utf8Text::new(file, raw.as_slice(), encoding))?,
        false => raw,
    };
    String::from_utf8(raw).map_err(|e| {
        let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
        let line = bytes[..at].iter().filter(|b| **b == b'\n').count();
        let message = format!(
            "the text is not UTF-8: byte {} is {:#04x}; if it is of another encoding, name it (`encoding` of the source or `--encoding`)",
            at + 1,
            bytes[at]
        );
        Error::data("NotUtf8", message).at(file, line as u64 + 1)
    })
}

/// The text of a file of JSON values: each is a line.
///
/// # Errors
/// Those of [`text_of`]; `InvalidJson` and `TruncatedInput` for values that are not lines, and of which one does not end.
pub(crate) fn json_text(
    file: &str,
    bytes: &Bytes,
    max_decompressed: Option<u64>,
    encoding: Option<TextEncoding>,
) -> Result<String> {
    let text = text_of(file, bytes, max_decompressed, encoding)?;
    if JsonLayout::of(text.as_bytes(), true) == JsonLayout::Lines {
        return Ok(text);
    }
    let lines = read_all(file, JsonValues::new(file, text.as_bytes()))?;
    String::from_utf8(lines).map_err(|e| Error::internal("values of text are text").with_source(e))
}

fn read_all(file: &str, mut text: impl std::io::Read) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    match text.read_to_end(&mut all) {
        Ok(_) => Ok(all),
        Err(e) => Err(e.downcast::<Error>().unwrap_or_else(|e| crate::files::decompress::unpacking_failed(file, e))),
    }
}

/// Whether a file has the keys or the headers of messages whose values are in another one, as Kafka's sinks for S3 write them:
/// `topic+0+0000000000.keys.json`.
pub(crate) fn is_beside_values(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let mut parts = without_packing(name).rsplit('.');
    let (_, what) = (parts.next(), parts.next());
    matches!(what, Some("keys" | "headers")) && parts.next().is_some()
}

pub(crate) fn empty(file: &str) -> Error {
    Error::data("EmptyFile", "the file has no bytes").in_file(file)
}

/// Why a value is none of its column's type: the code of the error, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidValue {
    code: &'static str,
    reason: String,
}

impl InvalidValue {
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// It is beyond a limit.
    pub(crate) fn overflow(reason: impl Into<String>) -> Self {
        Self { code: "Overflow", reason: reason.into() }
    }

    /// It would be another value.
    pub(crate) fn precision_loss(reason: impl Into<String>) -> Self {
        Self { code: "PrecisionLoss", reason: reason.into() }
    }

    /// It takes more room than there may be.
    pub(crate) fn too_large(reason: impl Into<String>) -> Self {
        Self { code: "TooLarge", reason: reason.into() }
    }
}

impl From<String> for InvalidValue {
    fn from(reason: String) -> Self {
        Self { code: "WrongType", reason }
    }
}

impl From<&str> for InvalidValue {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// A value that its column's type does not hold.
pub(crate) fn wrong_type(column: &str, why: impl Into<InvalidValue>, file: &Arc<str>, row: u64) -> Error {
    let InvalidValue { code, reason } = why.into();
    Error::data(code, format!("column `{column}`: {reason}")).with_column(column).at(file, row)
}
