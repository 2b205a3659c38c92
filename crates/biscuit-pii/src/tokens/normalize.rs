use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// Normalization step: values that are equal after all steps get the same token. Detokenization returns the value in
/// the spelling that came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ValueNormalization {
    /// Removes white space at both ends.
    Trim,
    /// Converts letters to lower case, as Unicode defines it.
    Lowercase,
    /// Converts to the Unicode normalization form NFC, so that the encoding of accents makes no difference.
    Nfc,
    /// Removes everything except digits: `123-45-6789` becomes `123456789`.
    DigitsOnly,
}

/// Applies normalization steps to a value.
pub(crate) fn normalize(value: &str, steps: &[ValueNormalization]) -> String {
    steps.iter().fold(value.to_owned(), |value, step| match step {
        ValueNormalization::Trim => value.trim().to_owned(),
        ValueNormalization::Lowercase => value.to_lowercase(),
        ValueNormalization::Nfc => value.nfc().collect(),
        ValueNormalization::DigitsOnly => value.chars().filter(char::is_ascii_digit).collect(),
    })
}
