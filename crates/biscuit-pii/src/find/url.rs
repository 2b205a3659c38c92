//! Detection of URLs and of host names without a scheme.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::detect::steps::steps;
use crate::find::{character_before, compile_regex, detects_by, is_in_word, matches_from, overlaps_any};

/// Detects URLs of `http`, `https` and `ftp`, and host names without a scheme that have a common top-level domain. A
/// last label of two letters may be a country or a file extension, so such a name is `Likely` only with `www.`, a
/// port or a path.
#[derive(Debug, Clone, Copy, Default)]
pub struct UrlDetector;

/// Generic top-level domains of host names that are written without a scheme.
const USUAL: [&str; 24] = [
    "com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "app", "dev", "cloud", "online", "shop",
    "site", "store", "tech", "xyz", "museum", "jobs", "mobi", "travel", "arpa",
];

// The parts of unbounded length, the rest of a URL and a path, are not in the patterns. They are read only after what
// precedes them is a hit, which keeps the time linear.
detects_by!(UrlDetector, |_, text, _| {
    static SCHEME: LazyLock<Regex> = LazyLock::new(|| compile_regex("(?i:https?|ftp)://"));
    static HOST: LazyLock<Regex> = LazyLock::new(|| {
        let label = r"[\p{L}\p{N}](?:[\p{L}\p{N}-]{0,61}[\p{L}\p{N}])?";
        compile_regex(&format!(r"(?:{label}\.)+[A-Za-z]{{2,24}}"))
    });
    let mut end = 0;
    let mut hits = matches_from(&SCHEME, text, |scheme| {
        if scheme.start < end || !is_alone(text, scheme.start) {
            return Err(scheme.end);
        }
        end = run_end(text, scheme.end);
        if end == scheme.end {
            return Err(end);
        }
        Ok(PiiHit::new(EntityType::URL, scheme.start..end, Likelihood::Likely))
    });
    let taken: Vec<_> = hits.iter().map(|hit| hit.range.clone()).collect();
    let mut end = 0;
    hits.extend(matches_from(&HOST, text, |host| {
        // A match that begins later in the same name has a letter, a point or a hyphen before it, and is not a hit
        // either.
        let next = host.end;
        if host.start < end {
            return Err(next);
        }
        let hit = of_host(text, host).filter(|hit| !overlaps_any(&taken, &hit.range)).ok_or(next)?;
        end = hit.range.end;
        Ok(hit)
    }));
    hits.sort_by_key(|hit| hit.range.start);
    hits
});

/// Returns whether no letter, digit or underscore is before a position.
fn is_alone(text: &str, at: usize) -> bool {
    !character_before(text, at).is_some_and(is_in_word)
}

/// Returns the end of the text that continues without white space or quote, without punctuation at its end.
fn run_end(text: &str, from: usize) -> usize {
    let ends = |c: char| c.is_whitespace() || "<>\"'`\\^{|}".contains(c);
    let run = &text[from..];
    let run = &run[..run.find(ends).unwrap_or(run.len())];
    steps(run.len());
    from + run.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']']).len()
}

/// Returns the hit of a host name, extended by port and path, if it is likely enough to be a host.
fn of_host(text: &str, host: Range<usize>) -> Option<PiiHit> {
    let part = character_before(text, host.start).is_some_and(|c| c == '@' || c == '.' || c == '-');
    if part || !is_alone(text, host.start) {
        return None;
    }
    let name = &text[host.clone()];
    let mut end = host.end + port_length(&text[host.end..]);
    let has_path = text[end..].starts_with('/');
    let goes_on = |c: char| is_in_word(c) || c == '-' || c == '@';
    if text[end..].starts_with(goes_on) {
        return None;
    }
    let top = name.rsplit('.').next().unwrap_or_default();
    let is_www = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("www.")) && name[4..].contains('.');
    let is_more = has_path || end > host.end;
    let likelihood = match (USUAL.iter().any(|domain| top.eq_ignore_ascii_case(domain)), top.len() == 2) {
        (true, _) => Likelihood::Likely,
        (false, true) if is_www || is_more => Likelihood::Likely,
        (false, true) => Likelihood::Possible,
        (false, false) if is_www => Likelihood::Likely,
        _ => return None,
    };
    if has_path {
        end = run_end(text, end + 1);
    }
    Some(PiiHit::new(EntityType::URL, host.start..end, likelihood))
}

/// Returns the length of a port with its colon at the beginning of a text, or 0.
fn port_length(text: &str) -> usize {
    let Some(rest) = text.strip_prefix(':') else { return 0 };
    let digits = rest.bytes().take(5).take_while(u8::is_ascii_digit).count();
    if digits == 0 { 0 } else { digits + 1 }
}
