use std::sync::LazyLock;

use regex::Regex;

use crate::entity::EntityType;
use crate::find::{detects_by, matches_of_words, regex, stands_alone};
use crate::hit::{Likelihood, PiiHit};

/// International bank account numbers (ISO 13616): in capital letters and digits, with single spaces or hyphens between or none, in the length of
/// their country (SWIFT's IBAN registry), whose remainder by 97 is 1 (ISO/IEC 7064).
#[derive(Debug, Clone, Copy, Default)]
pub struct IbanDetector;

detects_by!(IbanDetector, |_, text, _| {
    static START: LazyLock<Regex> = LazyLock::new(|| regex("[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]"));
    matches_of_words(&START, text, |start| {
        let end = end(text, start.start)?;
        let range = start.start..end;
        let fits = stands_alone(text, &range) && remainder(&text[range.clone()]) == 1;
        fits.then(|| PiiHit::new(EntityType::IBAN_CODE, range, Likelihood::Certain))
    })
});

/// Where the number that begins here ends, by the length that its country has.
fn end(text: &str, start: usize) -> Option<usize> {
    let length = length(&text[start..start + 2])?;
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

fn remainder(text: &str) -> u32 {
    let plain: Vec<u32> = text.chars().filter_map(|c| c.to_digit(36)).collect();
    let (head, rest) = plain.split_at(4);
    let add = |sum: u32, value: &u32| if *value < 10 { (sum * 10 + value) % 97 } else { (sum * 100 + value) % 97 };
    rest.iter().chain(head).fold(0, add)
}

/// Letters and digits of the numbers of a country.
fn length(country: &str) -> Option<usize> {
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
