//! Detection of phone numbers with the numbering plans of libphonenumber, and a limit for the time that this takes.

use std::cell::Cell;
use std::ops::Range;
use std::sync::LazyLock;

use biscuit_core::{Error, Result};
use phonenumber::country::Id;
use regex::Regex;

use crate::codes;
use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::detect::steps::steps;
use crate::find::{character_after, character_before, compile_regex, detects_by, find_matches};

/// Detects phone numbers that are valid in the numbering plans of libphonenumber: with a country code, or without one
/// in the format of certain regions.
///
/// A check against the plans takes from a few microseconds up to a millisecond. After 5,000 checks in one text that
/// found no number, a match with 7 to 15 digits becomes a `Likely` hit without a check.
#[derive(Debug, Clone)]
pub struct PhoneDetector {
    regions: Vec<Id>,
}

const WORDS: [&str; 16] = [
    "phone",
    "telephone",
    "tel",
    "mobile",
    "cell",
    "cellphone",
    "fax",
    "call",
    "number",
    "contact",
    "whatsapp",
    "handy",
    "telefon",
    "phone number",
    "cep",
    "sms",
];

/// Maximum number of checks against the numbering plans, in one text, that find no number.
const MOST_LOOKS: u32 = 5_000;

/// Number of digits of a hit without a check: E.164 allows at most 15, and local numbers seldom have fewer than 7.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

impl PhoneDetector {
    /// Creates a detector for numbers with a country code, and for numbers without one in these regions. Regions are
    /// ISO 3166-1 codes of two letters.
    ///
    /// # Errors
    /// `UnknownRegion` for a code without a numbering plan.
    pub fn new<'a>(regions: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let region = |name: &str| {
            let unknown = || {
                Error::new(
                    codes::UNKNOWN_REGION,
                    format!("unknown phone region `{name}`; use an ISO 3166-1 code such as `US`"),
                )
            };
            name.parse::<Id>().map_err(|_| unknown())
        };
        Ok(Self { regions: regions.into_iter().map(region).collect::<Result<_>>()? })
    }

    /// Creates a detector for numbers with a country code, and for numbers of the United States without one.
    pub fn defaults() -> Self {
        Self { regions: vec![Id::US] }
    }

    fn likelihood(&self, text: &str, has_context: impl FnOnce() -> bool) -> Option<Likelihood> {
        let valid = |region| {
            steps(text.len());
            phonenumber::parse(region, text).is_ok_and(|number| number.is_valid())
        };
        if text.starts_with('+') {
            return valid(None).then_some(Likelihood::Certain);
        }
        if !self.regions.iter().any(|region| valid(Some(*region))) {
            return None;
        }
        // Ten digits without separators may be anything, so that words around them decide.
        let written = text.contains(['(', ' ', '-', '.']);
        Some(if written || has_context() { Likelihood::Likely } else { Likelihood::Possible })
    }
}

detects_by!(PhoneDetector, |phone, text, context| {
    static FORM: LazyLock<Regex> =
        LazyLock::new(|| compile_regex(r"(?:\+|\()?[0-9](?:[ .\-/]?[()]?[ .\-]?[0-9]){5,16}"));
    static DATE: LazyLock<Regex> = LazyLock::new(|| compile_regex("^[0-9]{4}[-/.][0-9]{2}[-/.][0-9]{2}"));
    let looks = Cell::new(0);
    let number = |range: Range<usize>| {
        let from = character_before(text, range.start);
        let fits = !from.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '/' | '('));
        if !fits || DATE.is_match(&text[range.clone()]) {
            return None;
        }
        // Another number may follow after a space, so the longest prefix of the match that is a number is taken.
        let ends: Vec<usize> = text[range.clone()]
            .char_indices()
            .filter(|(_, c)| c.is_ascii_digit())
            .map(|(at, _)| range.start + at + 1)
            .collect();
        let ends_here = |end: &usize| {
            let goes_on = |c: char| c.is_alphanumeric() || c == '_';
            let fraction = text[*end..].starts_with(['.', ',', '-', '/'])
                && text[*end + 1..].starts_with(|c: char| c.is_ascii_digit());
            !character_after(text, *end).is_some_and(goes_on) && !fraction
        };
        (1..=ends.len()).rev().filter(|digits| ends_here(&ends[digits - 1])).find_map(|digits| {
            let whole = range.start..ends[digits - 1];
            if looks.get() >= MOST_LOOKS {
                let is_one = DIGITS.contains(&digits);
                return is_one.then(|| PiiHit::new(EntityType::PHONE_NUMBER, whole, Likelihood::Likely));
            }
            let has_context = || context.mentions(&whole, &WORDS);
            let likelihood = phone.likelihood(&text[whole.clone()], has_context);
            looks.set(looks.get() + u32::from(likelihood.is_none()));
            Some(PiiHit::new(EntityType::PHONE_NUMBER, whole, likelihood?))
        })
    };
    find_matches(&FORM, text, number)
});
