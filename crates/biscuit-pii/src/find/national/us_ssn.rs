use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{compile_regex, detects_by, is_whole_number, matches_of_words};

/// Detects social security numbers of the United States whose area, group and serial are in use (Social Security
/// Administration, "Social Security Number Randomization"). Nine digits without separators are `Likely` only near
/// certain words.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsSsnDetector;

const WORDS: [&str; 6] = ["ssn", "ssns", "ss", "social security", "social security number", "social"];

detects_by!(UsSsnDetector, |_, text, context| {
    static FORM: LazyLock<Regex> =
        LazyLock::new(|| compile_regex("[0-9]{3}(?:-[0-9]{2}-|[.][0-9]{2}[.]| [0-9]{2} |[0-9]{2})[0-9]{4}"));
    matches_of_words(&FORM, text, |range| {
        if !is_whole_number(text, &range) {
            return None;
        }
        let number: String = text[range.clone()].chars().filter(char::is_ascii_digit).collect();
        if !is_given_out(&number) {
            return None;
        }
        let likely = range.len() > 9 || context.mentions(&range, &WORDS);
        let likelihood = if likely { Likelihood::Likely } else { Likelihood::Possible };
        Some(PiiHit::new(EntityType::US_SSN, range, likelihood))
    })
});

/// Returns whether a number of nine digits can have been issued.
fn is_given_out(number: &str) -> bool {
    let (area, rest) = number.split_at(3);
    let (group, serial) = rest.split_at(2);
    // Well-known numbers from advertisements and examples.
    let famous = ["078051120", "219099999", "123456789"].contains(&number) || number.starts_with("98765432");
    area != "000" && area != "666" && !area.starts_with('9') && group != "00" && serial != "0000" && !famous
}
