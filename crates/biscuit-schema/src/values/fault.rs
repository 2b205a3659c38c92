use biscuit_core::ErrorCode;
use serde::Serialize;

use crate::codes;

/// Reason for which a value cannot be converted to the type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum ValueFault {
    /// The text does not represent a value of the type.
    Unparseable,
    /// The value is outside of the range of the type.
    Overflow,
    /// The value has digits, or a time of day, that the type does not hold.
    PrecisionLoss,
    /// The text is not an existing date, or does not have a known format.
    BadDate,
    /// The text is not an existing time, or does not have a known format.
    BadTime,
    /// The whole number is too small to determine its unit since 1970.
    BadEpoch,
    /// The number is neither 0 (false) nor 1 (true).
    NotABoolean,
    /// The value is NaN.
    NotANumber,
    /// The map has a key twice, before or after the conversion of its keys to the type of the column.
    DuplicateKey,
    /// The value is null, or became null, in a column that is not nullable.
    NullNotAllowed,
}

impl ValueFault {
    /// Returns the code of the error.
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::Unparseable => codes::UNPARSEABLE,
            Self::Overflow => codes::OVERFLOW,
            Self::PrecisionLoss => codes::PRECISION_LOSS,
            Self::BadDate => codes::BAD_DATE,
            Self::BadTime => codes::BAD_TIME,
            Self::BadEpoch => codes::BAD_EPOCH,
            Self::NotABoolean => codes::NOT_A_BOOLEAN,
            Self::NotANumber => codes::NOT_A_NUMBER,
            Self::DuplicateKey => codes::DUPLICATE_KEY,
            Self::NullNotAllowed => codes::NULL_NOT_ALLOWED,
        }
    }

    /// Returns the reason as a predicate for messages: "a value of column `id` (int)", then the reason.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Unparseable => "is not of that type",
            Self::Overflow => "is outside of the range of that type",
            Self::PrecisionLoss => {
                "has digits, or a time of day, that the type does not hold; declare a type that holds them in the contract (such as `timestamp(9)`, or more decimal places), or `rounding = 'half-up'`"
            }
            Self::BadDate => "is not a date; use the format YYYY-MM-DD or declare its format in `formats`",
            Self::BadTime => "is not a time; use the format YYYY-MM-DDTHH:MM:SS or declare its format in `formats`",
            Self::BadEpoch => "is a number that is too small to determine its unit; declare the unit in `epoch`",
            Self::NotABoolean => "is neither true nor false",
            Self::NotANumber => "is not a number",
            Self::DuplicateKey => "has a key twice, which readers of maps do not accept",
            Self::NullNotAllowed => "is null, but the column is not nullable",
        }
    }
}
