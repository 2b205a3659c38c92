//! Rules of a contract for values of other types than the column: errors, formats of times, units, rounding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Treatment of a value that cannot be converted to the type of the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnError {
    /// The run stops.
    #[default]
    Fail,
    /// The value becomes null and is counted.
    Null,
    /// The row is quarantined with the reason.
    Quarantine,
}

/// Treatment of columns that are not in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExtraColumns {
    /// The columns are dropped and named in the report.
    #[default]
    Drop,
    /// The columns are kept unchanged after the columns of the contract.
    Keep,
    /// The run stops.
    Refuse,
}

/// Unit of a whole number that represents a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EpochUnit {
    /// Seconds, milliseconds, microseconds or nanoseconds since 1970, by the size of the number. Each number then
    /// represents a time from March 1973 to November 5138. Smaller numbers are an error.
    #[default]
    Auto,
    /// Days since 1970.
    Days,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970.
    Nanos,
}

/// Treatment of digits that the type of a number cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DecimalRounding {
    /// The digits are an error.
    #[default]
    Fail,
    /// The number is rounded to the nearest one that fits, half away from zero, and is counted.
    HalfUp,
}

/// Encoding of binary values in text formats. Readers set it by the format of a file; it is not part of a contract
/// file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum BytesInText {
    /// The UTF-8 bytes of the text: for Parquet and Avro, which have a binary type.
    #[default]
    Own,
    /// Base64: for JSON.
    Base64,
    /// Hexadecimal digits, or else base64: for CSV.
    HexOrBase64,
}

impl BytesInText {
    /// Decodes a text. Returns `None` if the text does not have this encoding.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        let base64 = || STANDARD.decode(text).ok();
        match self {
            Self::Own => Some(text.as_bytes().to_vec()),
            Self::Base64 => base64(),
            Self::HexOrBase64 => hex_bytes(text).or_else(base64),
        }
    }
}

/// Decodes pairs of hexadecimal digits; returns `None` for any other text.
pub fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|d| d[0] * 16 + d[1]).collect())
}

/// Returns bytes as pairs of hexadecimal digits in lower case.
pub fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Rules for the conversion of values to the type of a column.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, AsArray, StringArray};
/// use arrow::datatypes::Date32Type;
/// use biscuit_schema::{ColumnType, ContractColumn, DecimalRounding, ReadingRules, coerce_column};
/// use biscuit_schema::internal::iso_date;
///
/// let reading = ReadingRules::default().with_formats(["%d/%m/%Y"]);
/// let column = ContractColumn::new("day", ColumnType::parse("date")?).with_reading(reading);
/// let texts: ArrayRef = Arc::new(StringArray::from(vec!["29/02/2024"]));
/// let days = coerce_column(&column, &texts)?.array;
/// assert_eq!(Some(days.as_primitive::<Date32Type>().value(0)), iso_date("2024-02-29"));
///
/// // Digits that the type does not hold are an error, unless they are rounded.
/// let rounding = ReadingRules::default().with_rounding(DecimalRounding::HalfUp);
/// let column = ContractColumn::new("amount", ColumnType::parse("decimal(5,2)")?).with_reading(rounding);
/// let texts: ArrayRef = Arc::new(StringArray::from(vec!["1.005"]));
/// assert_eq!(coerce_column(&column, &texts)?.rounded, 1);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[must_use]
pub struct ReadingRules {
    /// Treatment of a value that cannot be converted. Default: the `on_error` of the contract.
    pub on_error: Option<OnError>,
    /// Value, as text, that is used if the column is missing or null. Default: null.
    pub default: Option<String>,
    /// Other names of the column in the input. Default: none.
    pub renamed_from: Vec<String>,
    /// Formats of dates and times in addition to ISO 8601, in the syntax of `strftime`, such as `%d/%m/%Y`. Default:
    /// none.
    pub formats: Vec<String>,
    /// Unit of whole numbers that represent times. Default: determined by size.
    pub epoch: EpochUnit,
    /// Treatment of digits that the type cannot hold. Default: an error.
    pub rounding: DecimalRounding,
    /// Encoding of text in a binary column. Default: the UTF-8 bytes of the text.
    #[serde(skip)]
    pub bytes_in_text: BytesInText,
}

impl ReadingRules {
    /// Sets the treatment of a value that cannot be converted. Default: the `on_error` of the contract.
    pub fn with_on_error(mut self, on_error: OnError) -> Self {
        self.on_error = Some(on_error);
        self
    }

    /// Sets the value, as text, that is used if the column is missing or null. Default: null.
    pub fn with_default(mut self, default: impl Into<String>) -> Self {
        self.default = Some(default.into());
        self
    }

    /// Sets other names of the column in the input. Default: none.
    pub fn with_renamed_from<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.renamed_from = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets formats of dates and times in addition to ISO 8601, in the syntax of `strftime`. Default: none.
    pub fn with_formats<S: Into<String>>(mut self, formats: impl IntoIterator<Item = S>) -> Self {
        self.formats = formats.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the unit of whole numbers that represent times. Default: determined by size.
    pub fn with_epoch(mut self, epoch: EpochUnit) -> Self {
        self.epoch = epoch;
        self
    }

    /// Sets the treatment of digits that the type cannot hold. Default: an error.
    pub fn with_rounding(mut self, rounding: DecimalRounding) -> Self {
        self.rounding = rounding;
        self
    }
}
