use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{compile_regex, detects_by, matches_of_words, stands_alone};

/// Detects numbers of driving licences of Great Britain (DVLA). They consist of five letters of the surname, filled
/// up with nines; year, month and day of birth, with 50 added to the month for women; two initials; a digit; two
/// letters.
#[derive(Debug, Clone, Copy, Default)]
pub struct UkDrivingLicenceDetector;

detects_by!(UkDrivingLicenceDetector, |_, text, _| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        let name = "(?:[A-Z]{5}|[A-Z]{4}9|[A-Z]{3}99|[A-Z]{2}999|[A-Z]9999)";
        let born = "[0-9](?:[05][1-9]|[16][0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]";
        compile_regex(&format!("{name}{born}[A-Z9]{{2}}[0-9][A-Z]{{2}}"))
    });
    matches_of_words(&FORM, text, |range| {
        stands_alone(text, &range).then(|| PiiHit::new(EntityType::UK_DRIVING_LICENCE, range, Likelihood::Likely))
    })
});
