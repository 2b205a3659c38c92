use std::sync::LazyLock;

use regex::Regex;

use crate::entity::Entity;
use crate::find::{before, detects_by, matches, regex};
use crate::hit::{Hit, Likelihood};

/// URLs of `http`, `https` and `ftp`, and names of hosts without a scheme, of usual top-level domains. A name of two letters at its end is a
/// country's or that of a kind of file, so that it takes a `www.` or a path to be likely.
#[derive(Debug, Clone, Copy, Default)]
pub struct Url;

/// Generic top-level domains of which names are written without a scheme.
const USUAL: [&str; 24] = [
    "com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "app", "dev", "cloud", "online", "shop",
    "site", "store", "tech", "xyz", "museum", "jobs", "mobi", "travel", "arpa",
];

detects_by!(Url, |_, text, _| {
    static WITH_SCHEME: LazyLock<Regex> =
        LazyLock::new(|| regex(r#"(?i:https?|ftp)://[^\s<>"'`\\^{|}]*[^\s<>"'`\\^{|}.,;:!?)\]]"#));
    static HOST: LazyLock<Regex> = LazyLock::new(|| {
        let label = r"[\p{L}\p{N}](?:[\p{L}\p{N}-]{0,61}[\p{L}\p{N}])?";
        let path = r#"(?:/(?:[^\s<>"'`\\^{|}]*[^\s<>"'`\\^{|}.,;:!?)\]])?)"#;
        regex(&format!(r"(?:{label}\.)+[A-Za-z]{{2,24}}(?::[0-9]{{1,5}})?{path}?"))
    });
    let alone = |at: usize| !before(text, at).is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut hits = matches(&WITH_SCHEME, text, |range| {
        alone(range.start).then(|| Hit::new(Entity::URL, range, Likelihood::Likely))
    });
    let taken: Vec<_> = hits.iter().map(|hit| hit.range.clone()).collect();
    let host = |range: std::ops::Range<usize>| {
        let own = &text[range.clone()];
        let end = own.find(['/', ':']).unwrap_or(own.len());
        let (name, path) = (own[..end].to_lowercase(), end < own.len());
        let top = name.rsplit('.').next().unwrap_or_default();
        let www = name.starts_with("www.") && name.matches('.').count() > 1;
        let likelihood = match (USUAL.contains(&top), top.len() == 2) {
            (true, _) => Likelihood::Likely,
            (false, true) if www || path => Likelihood::Likely,
            (false, true) => Likelihood::Possible,
            (false, false) if www => Likelihood::Likely,
            _ => return None,
        };
        let part = before(text, range.start).is_some_and(|c| c == '@' || c == '.' || c == '-');
        let rest = &text[range.end..];
        let goes_on = rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '@');
        let inside = taken.iter().any(|t| t.start < range.end && range.start < t.end);
        (alone(range.start) && !part && !goes_on && !inside).then(|| Hit::new(Entity::URL, range, likelihood))
    };
    hits.extend(matches(&HOST, text, host));
    hits.sort_by_key(|hit| hit.range.start);
    hits
});
