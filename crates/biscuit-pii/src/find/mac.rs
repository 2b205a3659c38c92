use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::find::{character_after, character_before, compile_regex, detects_by, find_matches};

/// Detects MAC addresses (IEEE 802): six pairs of hexadecimal digits with colons or hyphens between them, or three
/// groups of four with dots. The broadcast address and the null address are not hits, since they belong to no device.
#[derive(Debug, Clone, Copy, Default)]
pub struct MacDetector;

detects_by!(MacDetector, |_, text, _| {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        let h = "[0-9A-Fa-f]";
        compile_regex(&format!("{h}{{2}}(?:(?::{h}{{2}}){{5}}|(?:-{h}{{2}}){{5}})|{h}{{4}}[.]{h}{{4}}[.]{h}{{4}}"))
    });
    find_matches(&FORM, text, |range| {
        let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, ':' | '-' | '_'));
        let digits: Vec<char> = text[range.clone()].chars().filter(char::is_ascii_hexdigit).collect();
        let unassigned = digits.iter().all(|c| *c == '0') || digits.iter().all(|c| c.eq_ignore_ascii_case(&'f'));
        let fits =
            !goes_on(character_before(text, range.start)) && !goes_on(character_after(text, range.end)) && !unassigned;
        fits.then(|| PiiHit::new(EntityType::MAC_ADDRESS, range, Likelihood::Likely))
    })
});
