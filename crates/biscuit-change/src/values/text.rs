//! Errors of files and of single values.

use std::sync::Arc;

use biscuit_core::{Error, ErrorCode};
use biscuit_schema::codes::{OVERFLOW, PRECISION_LOSS, TOO_LARGE, WRONG_TYPE};

use crate::codes;
use crate::csv::dialect::without_packing;

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

/// Creates the error for a record with two fields for one column, such as its name in two letter cases.
pub(crate) fn two_fields(column: &str) -> Error {
    let message = format!("two fields of the record belong to column `{column}`");
    Error::new(biscuit_schema::codes::DUPLICATE_COLUMN, message).with_column(column)
}

/// Creates the error for an invalid value of a column.
pub(crate) fn wrong_type(column: &str, invalid: impl Into<InvalidValue>, file: &Arc<str>, row: u64) -> Error {
    let InvalidValue { code, reason } = invalid.into();
    let message = format!("column `{column}`: {reason}");
    Error::new(code, message).with_column(column).at(file, row)
}
