use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What happens to a value that does not become the column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnError {
    /// It stops the run.
    #[default]
    Fail,
    /// It becomes null, and is counted.
    Null,
    /// Its row is put aside with the reason.
    Quarantine,
}

/// What happens to columns that a contract does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExtraColumns {
    /// They are left out, and named in the report.
    #[default]
    Drop,
    /// They are kept behind the others, as they are.
    Keep,
    /// They stop the run.
    Refuse,
}

/// What a whole number means as a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EpochUnit {
    /// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size: each of them is then a time from March 1973 to
    /// November 5138; smaller numbers are an error.
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

/// What happens to digits that a decimal has no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DecimalRounding {
    /// They are an error.
    #[default]
    Fail,
    /// The nearest number that has a place is taken, of two the one further from zero, and it is counted.
    HalfUp,
}

/// How text formats write the values of binary columns. Readers set it by the format of a file; contracts do not contain it.
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
    /// Decodes a text; returns `None` if it is not in this form.
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

/// How values of other types become a column's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadingRules {
    /// What happens to a value that does not. Default: as the contract has it.
    pub on_error: Option<OnError>,
    /// The value, as text, where the column is missing or null. Default: null.
    pub default: Option<String>,
    /// Other names that the column has in the input.
    pub renamed_from: Vec<String>,
    /// Forms of dates and times besides those of ISO 8601, as `strftime` has them: `%d/%m/%Y`.
    pub formats: Vec<String>,
    /// What whole numbers mean as times.
    pub epoch: EpochUnit,
    /// What happens to digits that there is no place for.
    pub rounding: DecimalRounding,
    /// How text is decoded in a binary column.
    #[serde(skip)]
    pub bytes_in_text: BytesInText,
}
