use std::ops::Range;
use std::sync::LazyLock;

use biscuit_core::{Error, Result};
use phonenumber::country::Id;
use regex::Regex;

use crate::entity::Entity;
use crate::find::{after, before, detects_by, matches, regex};
use crate::hit::{Hit, Likelihood};

/// Phone numbers that the numbering plans of libphonenumber have: with a country code, and without one as they are written in some regions.
#[derive(Debug, Clone)]
pub struct Phone {
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

impl Phone {
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
    pub fn usual() -> Self {
        Self { regions: vec![Id::US] }
    }

    fn likelihood(&self, text: &str, said: bool) -> Option<Likelihood> {
        let valid = |region| phonenumber::parse(region, text).is_ok_and(|number| number.is_valid());
        if text.starts_with('+') {
            return valid(None).then_some(Likelihood::Certain);
        }
        if !self.regions.iter().any(|region| valid(Some(*region))) {
            return None;
        }
        // Ten digits in one may be anything.
        let written = text.contains(['(', ' ', '-', '.']);
        Some(if said || written { Likelihood::Likely } else { Likelihood::Possible })
    }
}

detects_by!(Phone, |phone, text, context| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| regex(r"(?:\+|\()?[0-9](?:[ .\-/]?[()]?[ .\-]?[0-9]){5,16}"));
    static DATE: LazyLock<Regex> = LazyLock::new(|| regex("^[0-9]{4}[-/.][0-9]{2}[-/.][0-9]{2}"));
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
        ends.into_iter().rev().filter(ends_here).find_map(|end| {
            let whole = range.start..end;
            let likelihood = phone.likelihood(&text[whole.clone()], context.says(&whole, &WORDS))?;
            Some(Hit::new(Entity::PHONE_NUMBER, whole, likelihood))
        })
    };
    matches(&FORM, text, number)
});
