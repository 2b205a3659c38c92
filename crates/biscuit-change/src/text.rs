use std::sync::Arc;

use biscuit_core::{Error, Result};
use bytes::Bytes;

use crate::unpack::unpack;

/// The text of a file, unpacked if it begins as gzip or zstd does.
///
/// # Errors
/// `EmptyFile`, `NotUtf8`, `TooLarge`, and for packed text that ends too early or is damaged `TruncatedInput`.
pub(crate) fn text_of(file: &str, bytes: &Bytes, max_unpacked: Option<u64>) -> Result<String> {
    if bytes.is_empty() {
        return Err(empty(file));
    }
    let raw = unpack(file, bytes, max_unpacked)?;
    let text = String::from_utf8(raw).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Error::data("NotUtf8", "the text is not UTF-8").at(file, line as u64 + 1)
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

pub(crate) fn empty(file: &str) -> Error {
    Error::data("EmptyFile", "the file has no bytes").in_file(file)
}

/// Why a value is none of its column's type: the code of the error, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Why {
    code: &'static str,
    reason: String,
}

impl Why {
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// It is beyond a limit.
    pub(crate) fn overflow(reason: impl Into<String>) -> Self {
        Self { code: "Overflow", reason: reason.into() }
    }

    /// It takes more room than there may be.
    pub(crate) fn too_large(reason: impl Into<String>) -> Self {
        Self { code: "TooLarge", reason: reason.into() }
    }
}

impl From<String> for Why {
    fn from(reason: String) -> Self {
        Self { code: "WrongType", reason }
    }
}

impl From<&str> for Why {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// A value that its column's type does not hold.
pub(crate) fn wrong_type(column: &str, why: impl Into<Why>, file: &Arc<str>, row: u64) -> Error {
    let Why { code, reason } = why.into();
    Error::data(code, format!("column `{column}`: {reason}")).with_column(column).at(file, row)
}
