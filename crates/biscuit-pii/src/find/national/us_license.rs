use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{compile_regex, detects_by, is_whole_number, matches_of_words};

/// Detects numbers of driver licenses of the states of the United States: one or two letters followed by 5 to 13
/// digits, or 6 to 14 digits (AAMVA's list of formats). The format is common, so they are `Likely` only near certain
/// words.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsDriverLicenseDetector;

const WORDS: [&str; 10] = [
    "driver license",
    "drivers license",
    "driver licence",
    "driving license",
    "driving licence",
    "drivers lic",
    "license number",
    "license",
    "dl",
    "dln",
];

detects_by!(UsDriverLicenseDetector, |_, text, context| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| compile_regex("[A-Z]{1,2}[0-9]{5,13}|[0-9]{6,14}"));
    matches_of_words(&FORM, text, |range| {
        if !is_whole_number(text, &range) {
            return None;
        }
        let likely = context.mentions(&range, &WORDS);
        let likelihood = if likely { Likelihood::Likely } else { Likelihood::Possible };
        Some(PiiHit::new(EntityType::US_DRIVER_LICENSE, range, likelihood))
    })
});
