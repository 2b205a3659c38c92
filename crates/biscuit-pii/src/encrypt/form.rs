//! Conversion between columns of values, their bytes, and the binary or text form in which encrypted values are
//! stored.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::DataType;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::codes;

/// Form in which encrypted values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EncryptedForm {
    /// Bytes in a binary column.
    #[default]
    Binary,
    /// base64url without padding (RFC 4648) in a text column, for CSV and JSON. It is one third larger.
    Text,
}

/// Returns the values of a column as bytes: UTF-8 for text, and for numbers, dates and similar values the UTF-8 of
/// the text that they are cast to.
///
/// # Errors
/// `NotText` for a column whose values have no text form.
pub(crate) fn as_bytes(column: &str, values: &ArrayRef) -> Result<ArrayRef> {
    let text = match values.data_type() {
        DataType::Dictionary(_, of) => return as_bytes(column, &cast_column(column, values, of)?),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => values.clone(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => values.clone(),
        DataType::FixedSizeBinary(_) => return cast_column(column, values, &DataType::LargeBinary),
        kind if kind.is_nested() => {
            let message = format!("column `{column}` has type {kind}; name its text fields by path");
            return Err(Error::new(biscuit_core::codes::NOT_TEXT, message).with_column(column));
        }
        _ => cast_column(column, values, &DataType::LargeUtf8)?,
    };
    cast_column(column, &text, &DataType::LargeBinary)
}

fn cast_column(column: &str, values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast(values, to).map_err(|e| {
        let message = format!("column `{column}` has type {}, which has no text form", values.data_type());
        Error::new(biscuit_core::codes::NOT_TEXT, message).with_column(column).with_source(e)
    })
}

/// Builder of a binary column. Values are appended to one buffer, without an allocation for each value.
#[derive(Debug)]
pub(crate) struct EncodedValues {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl EncodedValues {
    /// Reserves memory for `values` values with `bytes` bytes in total.
    ///
    /// # Errors
    /// `TooManyBytes` for more than 2 GiB, the maximum of an Arrow array with 32-bit offsets.
    pub(crate) fn with_capacity(column: &str, values: usize, bytes: usize) -> Result<Self> {
        if i32::try_from(bytes).is_err() {
            let message = format!("column `{column}` would have {bytes} bytes in one batch; use batches of fewer rows");
            return Err(Error::new(codes::TOO_MANY_BYTES, message).with_column(column));
        }
        let mut ends = Vec::with_capacity(values + 1);
        ends.push(0);
        Ok(Self { ends, bytes: Vec::with_capacity(bytes) })
    }

    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends a value, which consists of the bytes since the end of the last one. Without new bytes it is empty, or
    /// null.
    pub(crate) fn end_value(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }

    /// Returns the column.
    pub(crate) fn finish(self, nulls: Option<NullBuffer>) -> Result<BinaryArray> {
        let made = BinaryArray::try_new(OffsetBuffer::new(ScalarBuffer::from(self.ends)), self.bytes.into(), nulls);
        made.map_err(|e| Error::internal("cannot build a column of encrypted values").with_source(e))
    }
}

impl EncryptedForm {
    /// Returns the column in this form. As text it has the text type of the original values.
    pub(crate) fn to_column(self, column: &str, sealed: BinaryArray, was: &DataType) -> Result<ArrayRef> {
        if self == Self::Binary {
            return Ok(Arc::new(sealed));
        }
        let text = |value: Option<&[u8]>| value.map(|value| BASE64_URL_SAFE_NO_PAD.encode(value));
        let texts: ArrayRef = Arc::new(sealed.iter().map(text).collect::<StringArray>());
        match was {
            DataType::LargeUtf8 | DataType::Utf8View => cast_column(column, &texts, was),
            _ => Ok(texts),
        }
    }

    /// Returns the bytes of a column in either form.
    ///
    /// # Errors
    /// `CannotDecrypt` for a text that is not base64url, and for a column that is neither binary nor text.
    pub(crate) fn from_column(column: &str, stored: &ArrayRef) -> Result<ArrayRef> {
        match stored.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                cast_column(column, stored, &DataType::LargeBinary)
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let texts = cast_column(column, stored, &DataType::LargeUtf8)?;
                let mut made =
                    EncodedValues::with_capacity(column, texts.len(), texts.as_string::<i64>().values().len())?;
                for (row, text) in texts.as_string::<i64>().iter().enumerate() {
                    let decoded = BASE64_URL_SAFE_NO_PAD.decode_vec(text.unwrap_or_default(), made.bytes());
                    decoded.map_err(|_| cannot_decrypt(column, row, "is not base64url"))?;
                    made.end_value();
                }
                cast_column(
                    column,
                    &(Arc::new(made.finish(texts.nulls().cloned())?) as ArrayRef),
                    &DataType::LargeBinary,
                )
            }
            DataType::Dictionary(_, of) => Self::from_column(column, &cast_column(column, stored, of)?),
            other => {
                let message = format!("column `{column}` has type {other}; encrypted values are binary or text");
                Err(Error::new(biscuit_core::codes::NOT_TEXT, message).with_column(column))
            }
        }
    }
}

/// Converts decrypted bytes to a column of type `to`.
///
/// # Errors
/// `CannotDecrypt` with the row of a value that is not UTF-8; without the row for a value that is not of type `to`.
pub(crate) fn decrypted_column(column: &str, bytes: BinaryArray, to: &DataType) -> Result<ArrayRef> {
    let bytes: ArrayRef = Arc::new(bytes);
    if matches!(to, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)) {
        return cast_column(column, &bytes, to);
    }
    for (row, value) in bytes.as_binary::<i32>().iter().enumerate() {
        if value.is_some_and(|value| std::str::from_utf8(value).is_err()) {
            return Err(cannot_decrypt(column, row, "is not UTF-8"));
        }
    }
    let text = cast_column(column, &bytes, &DataType::Utf8)?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, to, &strict).map_err(|_| {
        // The cause is dropped on purpose: it quotes the value.
        let message = format!("column `{column}` was decrypted, but a value in it cannot be converted to {to}");
        Error::new(codes::CANNOT_DECRYPT, message).with_column(column)
    })
}

pub(crate) fn cannot_decrypt(column: &str, row: usize, reason: &str) -> Error {
    in_row(Error::new(codes::CANNOT_DECRYPT, format!("column `{column}`: the value {reason}")), column, row)
}

/// Place of errors, since this crate does not know the file of the rows. A caller that knows it replaces the place
/// ([`Error::relocated`]).
const BATCH: &str = "the batch";

/// Adds the column and the row in the batch to an error.
pub(crate) fn in_row(e: Error, column: &str, row: usize) -> Error {
    e.with_column(column).at(BATCH, row as u64 + 1)
}
