use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::DataType;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How encrypted values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EncryptedForm {
    /// Their bytes, in a binary column.
    #[default]
    Binary,
    /// base64url without padding (RFC 4648), in a column of text: a third larger, and for CSV and JSON.
    Text,
}

/// The values of a column as bytes: text is its UTF-8, numbers, dates and the like are the text that they are cast to.
///
/// # Errors
/// `CannotEncrypt` for a column whose values have no text.
pub(crate) fn as_bytes(column: &str, values: &ArrayRef) -> Result<ArrayRef> {
    let text = match values.data_type() {
        DataType::Dictionary(_, of) => return as_bytes(column, &casted(column, values, of)?),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => values.clone(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => values.clone(),
        DataType::FixedSizeBinary(_) => return casted(column, values, &DataType::LargeBinary),
        kind if kind.is_nested() => {
            let message = format!("column `{column}` is a {kind}; name the texts in it by their paths");
            return Err(Error::usage("CannotEncrypt", message).with_column(column));
        }
        _ => casted(column, values, &DataType::LargeUtf8)?,
    };
    casted(column, &text, &DataType::LargeBinary)
}

fn casted(column: &str, values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast(values, to).map_err(|e| {
        let message = format!("column `{column}` is a {}, which has no text", values.data_type());
        Error::usage("CannotEncrypt", message).with_column(column).with_source(e)
    })
}

/// Values that were made one behind the other.
#[derive(Debug)]
pub(crate) struct EncodedValues {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl EncodedValues {
    /// Room for so many values of so many bytes in all.
    ///
    /// # Errors
    /// `TooManyBytes` above 2 GiB, the most that an Arrow array of this kind holds.
    pub(crate) fn with_capacity(column: &str, values: usize, bytes: usize) -> Result<Self> {
        if i32::try_from(bytes).is_err() {
            let message = format!("column `{column}` would have {bytes} bytes in one batch; take fewer rows at once");
            return Err(Error::usage("TooManyBytes", message).with_column(column));
        }
        let mut ends = Vec::with_capacity(values + 1);
        ends.push(0);
        Ok(Self { ends, bytes: Vec::with_capacity(bytes) })
    }

    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was appended since the last end is a value; nothing is an empty one, or null.
    pub(crate) fn end(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }

    /// The column.
    pub(crate) fn finish(self, nulls: Option<NullBuffer>) -> Result<BinaryArray> {
        let made = BinaryArray::try_new(OffsetBuffer::new(ScalarBuffer::from(self.ends)), self.bytes.into(), nulls);
        made.map_err(|e| Error::internal("a column could not be put together").with_source(e))
    }
}

impl EncryptedForm {
    /// The column in this form. Text keeps the kind of text that the values were.
    pub(crate) fn store(self, column: &str, sealed: BinaryArray, was: &DataType) -> Result<ArrayRef> {
        if self == Self::Binary {
            return Ok(Arc::new(sealed));
        }
        let text = |value: Option<&[u8]>| value.map(|value| BASE64_URL_SAFE_NO_PAD.encode(value));
        let texts: ArrayRef = Arc::new(sealed.iter().map(text).collect::<StringArray>());
        match was {
            DataType::LargeUtf8 | DataType::Utf8View => casted(column, &texts, was),
            _ => Ok(texts),
        }
    }

    /// The bytes of a column in either form.
    ///
    /// # Errors
    /// `CannotDecrypt` for a text that is not base64url, and for a column of another kind.
    pub(crate) fn load(column: &str, stored: &ArrayRef) -> Result<ArrayRef> {
        match stored.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                casted(column, stored, &DataType::LargeBinary)
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let texts = casted(column, stored, &DataType::LargeUtf8)?;
                let mut made =
                    EncodedValues::with_capacity(column, texts.len(), texts.as_string::<i64>().values().len())?;
                for (row, text) in texts.as_string::<i64>().iter().enumerate() {
                    let decoded = BASE64_URL_SAFE_NO_PAD.decode_vec(text.unwrap_or_default(), made.bytes());
                    decoded.map_err(|_| cannot_decrypt(column, row, "is not base64url"))?;
                    made.end();
                }
                casted(column, &(Arc::new(made.finish(texts.nulls().cloned())?) as ArrayRef), &DataType::LargeBinary)
            }
            DataType::Dictionary(_, of) => Self::load(column, &casted(column, stored, of)?),
            other => {
                let message = format!("column `{column}` is a {other}; encrypted values are binary or text");
                Err(Error::usage("CannotDecrypt", message).with_column(column))
            }
        }
    }
}

/// Opened values as a column of another kind.
///
/// # Errors
/// `CannotDecrypt` with the row of a value that is not of that kind.
pub(crate) fn opened(column: &str, bytes: BinaryArray, to: &DataType) -> Result<ArrayRef> {
    let bytes: ArrayRef = Arc::new(bytes);
    if matches!(to, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)) {
        return casted(column, &bytes, to);
    }
    for (row, value) in bytes.as_binary::<i32>().iter().enumerate() {
        if value.is_some_and(|value| std::str::from_utf8(value).is_err()) {
            return Err(cannot_decrypt(column, row, "is bytes and no text"));
        }
    }
    let text = casted(column, &bytes, &DataType::Utf8)?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, to, &strict).map_err(|_| {
        // The cause quotes the value.
        let message = format!("column `{column}` was opened, and a value in it is no {to}");
        Error::data("CannotDecrypt", message).with_column(column)
    })
}

pub(crate) fn cannot_decrypt(column: &str, row: usize, reason: &str) -> Error {
    in_row(Error::data("CannotDecrypt", format!("column `{column}`: the value {reason}")), column, row)
}

/// What errors call the rows that they were given; whoever knows the file says that in its place ([`Error::moved_to`]).
const BATCH: &str = "the batch";

/// The error with its column, and its row in the batch.
pub(crate) fn in_row(e: Error, column: &str, row: usize) -> Error {
    e.with_column(column).at(BATCH, row as u64 + 1)
}
