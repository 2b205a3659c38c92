use serde::Serialize;

/// Why a value does not become one of a column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub enum ValueFault {
    /// It is text that says no value of the type.
    Unparseable,
    /// It is too large, or too small, for the type.
    Overflow,
    /// It has digits, or a time of day, that the type has no place for.
    PrecisionLoss,
    /// It is no date there is, or not written as one.
    BadDate,
    /// It is no time there is, or not written as one.
    BadTime,
    /// It is a whole number too small to tell what it counts since 1970.
    BadEpoch,
    /// It is a number other than 0 and 1, which are false and true.
    NotABoolean,
    /// It is no number: NaN.
    NotANumber,
    /// It is a map that has a key twice, or has it when its keys are of the column's type.
    DuplicateKey,
    /// It is null, or became null, in a column that cannot be.
    NullNotAllowed,
}

impl ValueFault {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unparseable => "Unparseable",
            Self::Overflow => "Overflow",
            Self::PrecisionLoss => "PrecisionLoss",
            Self::BadDate => "BadDate",
            Self::BadTime => "BadTime",
            Self::BadEpoch => "BadEpoch",
            Self::NotABoolean => "NotABoolean",
            Self::NotANumber => "NotANumber",
            Self::DuplicateKey => "DuplicateKey",
            Self::NullNotAllowed => "NullNotAllowed",
        }
    }

    /// The reason as messages say it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unparseable => "is not of that type",
            Self::Overflow => "does not fit in it",
            Self::PrecisionLoss => {
                "has digits, or a time of day, that it has no place for; a contract may declare a type that has (such as `timestamp(9)`, or more decimal places), or `rounding = 'half-up'`"
            }
            Self::BadDate => "is no date; write YYYY-MM-DD or name its form in `formats`",
            Self::BadTime => "is no time; write YYYY-MM-DDTHH:MM:SS or name its form in `formats`",
            Self::BadEpoch => "is a number that does not say what it counts; name it in `epoch`",
            Self::NotABoolean => "is neither true nor false",
            Self::NotANumber => "is not a number",
            Self::DuplicateKey => "has a key twice, which no reader of maps takes",
            Self::NullNotAllowed => "is null, which the column cannot be",
        }
    }
}
