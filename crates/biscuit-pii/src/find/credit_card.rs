use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{compile_regex, detects_by, digits, is_whole_number, matches_of_words};

/// Detects numbers of payment cards: prefix and length of an issuer (ISO/IEC 7812-1) with a valid Luhn check digit.
/// Digits are contiguous, or in the usual groups with spaces or hyphens between them.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreditCardDetector;

detects_by!(CreditCardDetector, |_, text, _| {
    static FORMS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
        let grouped = |s: &str| {
            // Four groups of four, with three more digits for Visa and Maestro; American Express; Diners Club.
            format!(
                r"[0-9]{{4}}{s}(?:[0-9]{{4}}{s}[0-9]{{4}}{s}[0-9]{{4}}(?:{s}[0-9]{{3}})?|[0-9]{{6}}{s}[0-9]{{4,5}})"
            )
        };
        [compile_regex("[0-9]{12,19}"), compile_regex(&grouped(" ")), compile_regex(&grouped("-"))]
    });
    let card = |range: std::ops::Range<usize>| {
        let fits = is_whole_number(text, &range) && {
            let digits = digits(&text[range.clone()]);
            is_issued(&digits) && passes_luhn(&digits)
        };
        fits.then(|| PiiHit::new(EntityType::CREDIT_CARD, range, Likelihood::Certain))
    };
    FORMS.iter().flat_map(|form| matches_of_words(form, text, card)).collect()
});

/// Returns whether an issuer has cards with this prefix and length.
fn is_issued(digits: &[u32]) -> bool {
    let prefix = |n: usize| digits[..n].iter().fold(0, |all, d| all * 10 + d);
    let (one, two, three, four) = (prefix(1), prefix(2), prefix(3), prefix(4));
    match digits.len() {
        12 => matches!(two, 50 | 56..=69),
        13 => one == 4 || matches!(two, 50 | 56..=69),
        14 => matches!(three, 300..=305 | 309) || matches!(two, 36 | 38 | 39),
        15 => matches!(two, 34 | 37) || matches!(four, 2014 | 2149) || matches!(two, 50 | 56..=69),
        16 => {
            // Visa, Mastercard, the ranges of Discover, UnionPay and Maestro, JCB, Diners Club, Mir.
            one == 4
                || matches!(two, 50..=69)
                || matches!(four, 2221..=2720 | 3528..=3589 | 2200..=2204)
                || matches!(three, 300..=305 | 309)
                || matches!(two, 36 | 38 | 39)
        }
        17 | 18 => matches!(two, 50 | 56..=69),
        19 => one == 4 || matches!(two, 36 | 38 | 39 | 50 | 56..=69) || matches!(four, 3528..=3589),
        _ => false,
    }
}

/// Luhn algorithm (ISO/IEC 7812-1, annex B): every second digit from the right is doubled, the digits of the results
/// are added, and the sum is a multiple of 10.
fn passes_luhn(digits: &[u32]) -> bool {
    let value = |(at, digit): (usize, &u32)| match at % 2 {
        0 => *digit,
        _ => digit * 2 / 10 + digit * 2 % 10,
    };
    digits.iter().rev().enumerate().map(value).sum::<u32>() % 10 == 0
}
