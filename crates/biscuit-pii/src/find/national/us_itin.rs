use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{compile_regex, detects_by, is_whole_number, matches_of_words};

/// Detects individual taxpayer identification numbers of the United States: nine digits that begin with 9, and whose
/// fourth and fifth digits are 50 to 65, 70 to 88, 90 to 92 or 94 to 99 (Internal Revenue Service, publication 4757).
/// Without separators they are `Likely` only near certain words.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsItinDetector;

const WORDS: [&str; 6] = ["itin", "tax id", "taxpayer", "tax identification", "tin", "individual taxpayer"];

detects_by!(UsItinDetector, |_, text, context| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        let group = "(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])";
        compile_regex(&format!("9[0-9]{{2}}(?:-{group}-| {group} |{group})[0-9]{{4}}"))
    });
    matches_of_words(&FORM, text, |range| {
        if !is_whole_number(text, &range) {
            return None;
        }
        let likely = range.len() > 9 || context.mentions(&range, &WORDS);
        let likelihood = if likely { Likelihood::Likely } else { Likelihood::Possible };
        Some(PiiHit::new(EntityType::US_ITIN, range, likelihood))
    })
});
