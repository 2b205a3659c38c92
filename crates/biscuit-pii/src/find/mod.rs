//! The detectors, one in each file, and their common parts.
//!
//! A detector searches with a regular expression, and then checks each match by code: check digits, prefixes,
//! neighbouring characters, words around it. The time of every detector is linear in the length of the text, see
//! [`matches_from`].
#![expect(clippy::exhaustive_structs, reason = "detectors are values without fields")]

mod aws;
mod context;
mod credit_card;
mod dates;
mod email;
mod iban;
mod ip;
mod mac;
mod names;
mod national;
mod phone;
mod url;

use std::ops::Range;

use regex::Regex;

use crate::detect::steps::steps;

pub use aws::AwsKeyDetector;
pub use credit_card::CreditCardDetector;
pub use dates::DateDetector;
pub use email::EmailDetector;
pub use iban::IbanDetector;
pub use ip::IpDetector;
pub use mac::MacDetector;
pub use names::NameDetector;
pub use national::uk_licence::UkDrivingLicenceDetector;
pub use national::us_itin::UsItinDetector;
pub use national::us_license::UsDriverLicenseDetector;
pub use national::us_passport::UsPassportDetector;
pub use national::us_ssn::UsSsnDetector;
pub use phone::PhoneDetector;
pub use url::UrlDetector;

/// Implements `Detector` with a function that receives the detector, one text and the context of its hits.
macro_rules! detects_by {
    ($detector:ty, $find:expr) => {
        #[async_trait::async_trait]
        impl crate::detect::detector::Detector for $detector {
            async fn detect(
                &self,
                column: &crate::detect::detector::ColumnTexts<'_>,
            ) -> biscuit_core::Result<Vec<Vec<crate::detect::hit::PiiHit>>> {
                let find: fn(
                    &$detector,
                    &str,
                    &crate::find::context::HitContext<'_>,
                ) -> Vec<crate::detect::hit::PiiHit> = $find;
                let name = crate::find::context::normalize_words(column.name);
                let one = |text: &&str| find(self, text, &crate::find::context::HitContext::new(&name, text));
                Ok(column.texts.iter().map(one).collect())
            }
        }
    };
}
pub(crate) use detects_by;

/// Compiles a pattern of this crate.
fn compile_regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns of this crate are valid")
}

/// Finds the matches of a pattern that `accept` turns into hits. For a match that is not a hit, `accept` returns the
/// position at which the search continues; it has to be after the beginning of the match.
///
/// Time is linear in the length of the text only if each byte is in a bounded number of rejected matches. Therefore
/// either the matches of the pattern have a bounded length, or `accept` skips the part of a rejected match in which
/// no other match can begin.
fn matches_from<T>(
    regex: &Regex,
    text: &str,
    mut accept: impl FnMut(Range<usize>) -> std::result::Result<T, usize>,
) -> Vec<T> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(found) = regex.find_at(text, at) {
        steps(found.len());
        at = match accept(found.range()) {
            Ok(hit) => {
                out.push(hit);
                found.end().max(at + 1)
            }
            Err(next) => next,
        };
        if at > text.len() {
            break;
        }
    }
    out
}

/// Finds the matches of a pattern that `accept` turns into hits. The matches must have a bounded length, since the
/// search continues one character after the beginning of a rejected match.
fn find_matches<T>(regex: &Regex, text: &str, mut accept: impl FnMut(Range<usize>) -> Option<T>) -> Vec<T> {
    matches_from(regex, text, |range| accept(range.clone()).ok_or_else(|| next_character(text, range.start)))
}

/// Like [`find_matches`], for hits that [stand alone](stands_alone): after a rejected match the search continues at the
/// end of the word, since no other match can begin inside of it.
fn matches_of_words<T>(regex: &Regex, text: &str, mut accept: impl FnMut(Range<usize>) -> Option<T>) -> Vec<T> {
    matches_from(regex, text, |range| {
        accept(range.clone()).ok_or_else(|| {
            let word = &text[range.start..];
            let end = word.find(|c: char| !is_in_word(c)).unwrap_or(word.len());
            steps(end);
            (range.start + end).max(next_character(text, range.start))
        })
    })
}

fn next_character(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}

/// Returns whether a range overlaps one of `taken`, which are sorted and do not overlap one another. Binary search.
fn overlaps_any(taken: &[Range<usize>], range: &Range<usize>) -> bool {
    let first = taken.partition_point(|taken| taken.end <= range.start);
    taken.get(first).is_some_and(|taken| taken.start < range.end)
}

/// Returns the character before a position.
fn character_before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

/// Returns the character after a position.
fn character_after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns whether no letter, digit or underscore is next to a range.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let in_word = |c: Option<char>| c.is_some_and(is_in_word);
    !in_word(character_before(text, range.start)) && !in_word(character_after(text, range.end))
}

/// Returns whether a number is a whole number: no letter or digit is next to it, and it is not a part of a decimal
/// number.
fn is_whole_number(text: &str, range: &Range<usize>) -> bool {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let (from, to) = (&text[..range.start], &text[range.end..]);
    let fraction_of = from.ends_with(['.', ',']) && digit(character_before(from, from.len().saturating_sub(1)));
    let has_fraction = to.starts_with(['.', ',']) && digit(to.chars().nth(1));
    stands_alone(text, range) && !fraction_of && !has_fraction
}

/// Returns the digits of a text as numbers.
fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

#[cfg(test)]
mod tests {
    use crate::detect::default_detectors::default_detectors;
    use crate::detect::detector::ColumnTexts;
    use crate::detect::steps::STEPS;

    /// Texts that make detectors backtrack: a beginning, a part that is repeated, and an end.
    const ADVERSARIES: [(&str, &str, &str); 30] = [
        ("", "a:", ""),
        ("", "ab:", "::1z"),
        ("", ":", "."),
        ("::1", ".", ""),
        ("", "a", "@bb.cc-"),
        ("a@", "bb.", "cc-"),
        ("", "a@bb.cc_", ""),
        ("", "a.", "@"),
        ("", "abc.", "abc"),
        ("", "abc.zzz/", ""),
        ("", "xhttp://", ""),
        ("", "http://....", ""),
        ("", "a.com/", "-"),
        ("", "a.com ", ""),
        ("", "James ", ""),
        ("", "A. ", ""),
        ("James ", "O'", ""),
        ("", "2024-01-01 ", ""),
        ("", "1 jan ", ""),
        ("1 jan", " ", "2024"),
        ("", "1", ""),
        ("", "1 ", ""),
        ("", "+1 2 ", ""),
        ("", "(2", ""),
        ("", "A", "1"),
        ("", "aB3/", "="),
        ("", "DE89 ", ""),
        ("", "1.1.1.1/", ""),
        ("", "10.0.0.1 ", ""),
        ("", "00:", ""),
    ];

    #[tokio::test]
    async fn work_of_detectors_grows_linearly_with_the_text() {
        for (first, part, last) in ADVERSARIES {
            for detector in default_detectors() {
                let looked_at = async |bytes: usize| {
                    let text = format!("{first}{}{last}", part.repeat(bytes / part.len()));
                    STEPS.set(0);
                    detector.detect(&ColumnTexts { name: "c", texts: &[&text] }).await.expect("the detection succeeds");
                    STEPS.get()
                };
                let (short, long) = (looked_at(2_000).await, looked_at(8_000).await);
                // Four times the text: quadratic work would be 16 times as much.
                assert!(long <= 5 * short + 1_000, "{detector:?}, {part:?}: {short} and {long}");
                assert!(long <= 8_000 * 400, "{detector:?}, {part:?}: {long}");
            }
        }
    }
}
