use std::io::Read;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use bytes::Bytes;

/// The text of a file, unpacked if it begins as gzip does.
///
/// # Errors
/// `EmptyFile`, `TruncatedInput` for gzip that ends too early or is damaged, `NotUtf8`.
pub(crate) fn text_of(file: &str, bytes: &Bytes) -> Result<String> {
    if bytes.is_empty() {
        return Err(empty(file));
    }
    let raw = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut out = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_ref()).read_to_end(&mut out).map_err(|e| {
            Error::data("TruncatedInput", "the gzip data ends too early or is damaged").in_file(file).with_source(e)
        })?;
        out
    } else {
        bytes.to_vec()
    };
    let text = String::from_utf8(raw).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Error::data("NotUtf8", "the text is not UTF-8").at(file, line as u64 + 1)
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

pub(crate) fn empty(file: &str) -> Error {
    Error::data("EmptyFile", "the file has no bytes").in_file(file)
}

/// A value that its column's type does not hold.
pub(crate) fn wrong_type(column: &str, why: &str, file: &Arc<str>, row: u64) -> Error {
    Error::data("WrongType", format!("column `{column}`: {why}")).with_column(column).at(file, row)
}
