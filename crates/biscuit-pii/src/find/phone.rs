use std::cell::Cell;
use std::ops::Range;
use std::sync::LazyLock;

use biscuit_core::{Error, Result};
use phonenumber::country::Id;
use regex::Regex;

use crate::entity::EntityType;
use crate::find::{after, before, detects_by, matches, regex, steps};
use crate::hit::{Likelihood, PiiHit};

/// Phone numbers that the numbering plans of libphonenumber have: with a country code, and without one as they are written in some regions.
///
/// A look into the plans takes some microseconds and up to a millisecond. After 5,000 in one text that found no number, what has the form of one
/// and 7 to 15 digits is taken for one: likely, and unchecked.
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

/// Looks into the numbering plans, for each text, that may find no number.
const MOST_LOOKS: u32 = 5_000;

/// Digits of a number, where the plans are not asked: E.164 has at most 15, and local numbers seldom less than 7.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

impl PhoneDetector {
    /// Numbers with a country code, and those of these regions, by ISO 3166-1 codes of two letters.
    ///
    /// # Errors
    /// `UnknownRegion`.
    pub fn new<'a>(regions: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let region = |name: &str| {
            let unknown =
                || Error::usage("UnknownRegion", format!("`{name}` is no region with phone numbers, as `US` is"));
            name.parse::<Id>().map_err(|_| unknown())
        };
        Ok(Self { regions: regions.into_iter().map(region).collect::<Result<_>>()? })
    }

    /// Numbers with a country code, and those of the United States.
    pub fn defaults() -> Self {
        Self { regions: vec![Id::US] }
    }

    fn likelihood(&self, text: &str, message: impl FnOnce() -> bool) -> Option<Likelihood> {
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
        // Ten digits in one may be anything.
        let written = text.contains(['(', ' ', '-', '.']);
        Some(if written || message() { Likelihood::Likely } else { Likelihood::Possible })
    }
}

detects_by!(PhoneDetector, |phone, text, context| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| regex(r"(?:\+|\()?[0-9](?:[ .\-/]?[()]?[ .\-]?[0-9]){5,16}"));
    static DATE: LazyLock<Regex> = LazyLock::new(|| regex("^[0-9]{4}[-/.][0-9]{2}[-/.][0-9]{2}"));
    let looks = Cell::new(0);
    let number = |range: Range<usize>| {
        let from = before(text, range.start);
        let fits = !from.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '/' | '('));
        if !fits || DATE.is_match(&text[range.clone()]) {
            return None;
        }
        // Another number may stand behind a space: the longest beginning that is a number is one.
        let ends: Vec<usize> = text[range.clone()]
            .char_indices()
            .filter(|(_, c)| c.is_ascii_digit())
            .map(|(at, _)| range.start + at + 1)
            .collect();
        let ends_here = |end: &usize| {
            let goes_on = |c: char| c.is_alphanumeric() || c == '_';
            let fraction = text[*end..].starts_with(['.', ',', '-', '/'])
                && text[*end + 1..].starts_with(|c: char| c.is_ascii_digit());
            !after(text, *end).is_some_and(goes_on) && !fraction
        };
        (1..=ends.len()).rev().filter(|digits| ends_here(&ends[digits - 1])).find_map(|digits| {
            let whole = range.start..ends[digits - 1];
            if looks.get() >= MOST_LOOKS {
                let is_one = DIGITS.contains(&digits);
                return is_one.then(|| PiiHit::new(EntityType::PHONE_NUMBER, whole, Likelihood::Likely));
            }
            let message = || context.says(&whole, &WORDS);
            let likelihood = phone.likelihood(&text[whole.clone()], message);
            looks.set(looks.get() + u32::from(likelihood.is_none()));
            Some(PiiHit::new(EntityType::PHONE_NUMBER, whole, likelihood?))
        })
    };
    matches(&FORM, text, number)
});
