//! The detectors, each in a file of its own, and what they have in common.

mod aws;
mod context;
mod credit_card;
mod dates;
mod email;
mod iban;
mod ip;
mod mac;
mod names;
mod phone;
mod uk_licence;
mod url;
mod us_itin;
mod us_license;
mod us_passport;
mod us_ssn;

use std::ops::Range;

use regex::Regex;

pub use aws::Aws;
pub use credit_card::CreditCard;
pub use dates::Dates;
pub use email::Email;
pub use iban::Iban;
pub use ip::Ip;
pub use mac::Mac;
pub use names::Names;
pub use phone::Phone;
pub use uk_licence::UkDrivingLicence;
pub use url::Url;
pub use us_itin::UsItin;
pub use us_license::UsDriverLicense;
pub use us_passport::UsPassport;
pub use us_ssn::UsSsn;

/// Implements `Detector` by a function of one text and what the words around say.
macro_rules! detects_by {
    ($detector:ty, $find:expr) => {
        #[async_trait::async_trait]
        impl crate::detector::Detector for $detector {
            async fn detect(
                &self,
                column: &crate::detector::Column<'_>,
            ) -> biscuit_core::Result<Vec<Vec<crate::hit::Hit>>> {
                let find: fn(&$detector, &str, &crate::find::context::Context<'_>) -> Vec<crate::hit::Hit> = $find;
                let one = |text: &&str| find(self, text, &crate::find::context::Context::new(column.name, text));
                Ok(column.texts.iter().map(one).collect())
            }
        }
    };
}
pub(crate) use detects_by;

/// A regular expression of this crate.
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns of this crate are right")
}

/// The places at which a pattern matches and `accept` says what it is; where it does not, the search goes on one character further.
fn matches<T>(regex: &Regex, text: &str, mut accept: impl FnMut(Range<usize>) -> Option<T>) -> Vec<T> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(found) = regex.find_at(text, at) {
        match accept(found.range()) {
            Some(hit) => {
                out.push(hit);
                at = found.end().max(at + 1);
            }
            None => at = found.start() + text[found.start()..].chars().next().map_or(1, char::len_utf8),
        }
        if at > text.len() {
            break;
        }
    }
    out
}

/// The character before a place.
fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

/// The character behind a place.
fn after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

/// Whether neither a letter nor a digit nor an underscore adjoins a place.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !in_word(before(text, range.start)) && !in_word(after(text, range.end))
}

/// Whether a number is a whole one: no letter or digit adjoins it, and it is not a part of a decimal.
fn is_whole_number(text: &str, range: &Range<usize>) -> bool {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let (from, to) = (&text[..range.start], &text[range.end..]);
    let fraction_of = from.ends_with(['.', ',']) && digit(before(from, from.len().saturating_sub(1)));
    let has_fraction = to.starts_with(['.', ',']) && digit(to.chars().nth(1));
    stands_alone(text, range) && !fraction_of && !has_fraction
}

/// The digits of a text, as numbers.
fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}
