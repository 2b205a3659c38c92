use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{compile_regex, detects_by, is_whole_number, matches_of_words};

/// Detects numbers of passports of the United States: nine digits, or a letter and eight digits. The format is
/// common, so they are `Likely` only near certain words.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsPassportDetector;

const WORDS: [&str; 6] = ["passport", "passports", "passport number", "travel document", "passport no", "passeport"];

detects_by!(UsPassportDetector, |_, text, context| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| compile_regex("[A-Z][0-9]{8}|[0-9]{9}"));
    matches_of_words(&FORM, text, |range| {
        if !is_whole_number(text, &range) {
            return None;
        }
        let likely = context.mentions(&range, &WORDS);
        let likelihood = if likely { Likelihood::Likely } else { Likelihood::Possible };
        Some(PiiHit::new(EntityType::US_PASSPORT, range, likelihood))
    })
});
