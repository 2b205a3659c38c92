use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::detect::steps::steps;
use crate::find::{
    character_after, character_before, compile_regex, detects_by, matches_from, matches_of_words, stands_alone,
};

/// Detects keys of AWS. Ids are recognized by the prefixes of IAM (IAM user guide, "Understanding unique ID
/// prefixes"), secrets as 40 characters of base64 near words such as `secret key`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsKeyDetector;

const WORDS: [&str; 8] = [
    "aws secret access key",
    "secret access key",
    "secret key",
    "aws secret",
    "secretaccesskey",
    "aws",
    "secret",
    "credentials",
];

detects_by!(AwsKeyDetector, |_, text, context| {
    static ID: LazyLock<Regex> =
        LazyLock::new(|| compile_regex("(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AIPA|ANPA|ANVA|APKA|AROA|ASCA)[A-Z2-7]{16}"));
    static SECRET: LazyLock<Regex> = LazyLock::new(|| compile_regex("[A-Za-z0-9/+]{40}"));
    let mut hits = matches_of_words(&ID, text, |range| {
        stands_alone(text, &range).then(|| PiiHit::new(EntityType::AWS_ACCESS_KEY, range, Likelihood::Likely))
    });
    hits.extend(matches_from(&SECRET, text, |range| {
        let own = &text[range.clone()];
        let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '='));
        let alone = !goes_on(character_after(text, range.end))
            && (!goes_on(character_before(text, range.start)) || text[..range.start].ends_with('='));
        // A SHA-1 digest has 40 hexadecimal digits, but only letters of one case.
        let mixed = [char::is_ascii_uppercase as fn(&char) -> bool, char::is_ascii_lowercase, char::is_ascii_digit];
        let mixed = mixed.iter().all(|kind| own.chars().any(|c| kind(&c)));
        if alone && mixed && context.mentions(&range, &WORDS) {
            return Ok(PiiHit::new(EntityType::AWS_SECRET_KEY, range, Likelihood::Likely));
        }
        // No secret can begin inside of this run, since a character of base64 would be before it. The search
        // continues after the run, which keeps the time linear.
        let rest = &text[range.start..];
        let run = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '+'))).unwrap_or(rest.len());
        steps(run);
        Err(range.start + run)
    }));
    hits
});
