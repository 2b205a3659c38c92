use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// What of a value does not matter: values that are the same after these steps get the same token. What is detokenized is the value as it came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ValueNormalization {
    /// White space around it.
    Trim,
    /// The case of letters, by Unicode's lower case.
    Lowercase,
    /// How accents are written: Unicode's form NFC.
    Nfc,
    /// All but digits: `123-45-6789` is `123456789`.
    DigitsOnly,
}

/// A value after these steps.
pub(crate) fn normalized(value: &str, steps: &[ValueNormalization]) -> String {
    steps.iter().fold(value.to_owned(), |value, step| match step {
        ValueNormalization::Trim => value.trim().to_owned(),
        ValueNormalization::Lowercase => value.to_lowercase(),
        ValueNormalization::Nfc => value.nfc().collect(),
        ValueNormalization::DigitsOnly => value.chars().filter(char::is_ascii_digit).collect(),
    })
}
