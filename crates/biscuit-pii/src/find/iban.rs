use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{compile_regex, detects_by, matches_of_words, stands_alone};

/// Detects international bank account numbers (ISO 13616): capital letters and digits, with single spaces or hyphens
/// between them or without. The length depends on the country (IBAN registry of SWIFT), and the remainder modulo 97
/// is 1 (ISO/IEC 7064).
#[derive(Debug, Clone, Copy, Default)]
pub struct IbanDetector;

detects_by!(IbanDetector, |_, text, _| {
    static START: LazyLock<Regex> = LazyLock::new(|| compile_regex("[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]"));
    matches_of_words(&START, text, |start| {
        let end = number_end(text, start.start)?;
        let range = start.start..end;
        let fits = stands_alone(text, &range) && remainder_97(&text[range.clone()]) == 1;
        fits.then(|| PiiHit::new(EntityType::IBAN_CODE, range, Likelihood::Certain))
    })
});

/// Returns the end of the number that begins at `start`, from the length for its country.
fn number_end(text: &str, start: usize) -> Option<usize> {
    let length = country_length(&text[start..start + 2])?;
    let (mut count, mut separated) = (0, false);
    for (at, c) in text[start..].char_indices() {
        match c {
            'A'..='Z' | '0'..='9' => {
                (count, separated) = (count + 1, false);
                if count == length {
                    return Some(start + at + 1);
                }
            }
            ' ' | '-' if !separated => separated = true,
            _ => return None,
        }
    }
    None
}

/// Returns the remainder modulo 97: country and check digits are moved to the end, and letters count as 10 to 35.
/// Reduced after each character, since the number has up to 60 digits.
fn remainder_97(text: &str) -> u32 {
    let plain: Vec<u32> = text.chars().filter_map(|c| c.to_digit(36)).collect();
    let (head, rest) = plain.split_at(4);
    let add = |sum: u32, value: &u32| if *value < 10 { (sum * 10 + value) % 97 } else { (sum * 100 + value) % 97 };
    rest.iter().chain(head).fold(0, add)
}

/// Returns the number of letters and digits in the account numbers of a country.
fn country_length(country: &str) -> Option<usize> {
    const LENGTHS: [(usize, &str); 18] = [
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FK FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HN HU LB NI PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (32, "LC"),
        (33, "RU"),
    ];
    let has = |(_, countries): &&(usize, &str)| countries.split(' ').any(|c| c == country);
    LENGTHS.iter().find(has).map(|(length, _)| *length)
}
