use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::entity::EntityType;
use crate::find::{before, detects_by, is_in_word, matches_from, overlaps, regex, steps};
use crate::hit::{Likelihood, PiiHit};

/// URLs of `http`, `https` and `ftp`, and names of hosts without a scheme, of usual top-level domains. A name of two letters at its end is a
/// country's or that of a kind of file, so that it takes a `www.` or a path to be likely.
#[derive(Debug, Clone, Copy, Default)]
pub struct UrlDetector;

/// Generic top-level domains of which names are written without a scheme.
const USUAL: [&str; 24] = [
    "com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "app", "dev", "cloud", "online", "shop",
    "site", "store", "tech", "xyz", "museum", "jobs", "mobi", "travel", "arpa",
];

// What may be long, the rest of a URL and a path, is no part of the patterns: it is looked at only where what is in front of it is a hit.
detects_by!(UrlDetector, |_, text, _| {
    static SCHEME: LazyLock<Regex> = LazyLock::new(|| regex("(?i:https?|ftp)://"));
    static HOST: LazyLock<Regex> = LazyLock::new(|| {
        let label = r"[\p{L}\p{N}](?:[\p{L}\p{N}-]{0,61}[\p{L}\p{N}])?";
        regex(&format!(r"(?:{label}\.)+[A-Za-z]{{2,24}}"))
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
        // What begins further inside of the name has letters, a point or a hyphen in front, and is no hit either.
        let next = host.end;
        if host.start < end {
            return Err(next);
        }
        let hit = of_host(text, host).filter(|hit| !overlaps(&taken, &hit.range)).ok_or(next)?;
        end = hit.range.end;
        Ok(hit)
    }));
    hits.sort_by_key(|hit| hit.range.start);
    hits
});

fn is_alone(text: &str, at: usize) -> bool {
    !before(text, at).is_some_and(is_in_word)
}

/// Where what is written on without a space or quote ends, without punctuation at its end.
fn run_end(text: &str, from: usize) -> usize {
    let ends = |c: char| c.is_whitespace() || "<>\"'`\\^{|}".contains(c);
    let run = &text[from..];
    let run = &run[..run.find(ends).unwrap_or(run.len())];
    steps(run.len());
    from + run.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']']).len()
}

/// A name of a host with the port and the path behind it, if that is likely to be one.
fn of_host(text: &str, host: Range<usize>) -> Option<PiiHit> {
    let part = before(text, host.start).is_some_and(|c| c == '@' || c == '.' || c == '-');
    if part || !is_alone(text, host.start) {
        return None;
    }
    let name = &text[host.clone()];
    let mut end = host.end + port(&text[host.end..]);
    let has_path = text[end..].starts_with('/');
    let goes_on = |c: char| is_in_word(c) || c == '-' || c == '@';
    if text[end..].starts_with(goes_on) {
        return None;
    }
    let top = name.rsplit('.').next().unwrap_or_default();
    let is_www = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("www.")) && name[4..].contains('.');
    let is_more = has_path || end > host.end;
    let likelihood = match (USUAL.iter().any(|defaults| top.eq_ignore_ascii_case(defaults)), top.len() == 2) {
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

/// The length of a port, with its colon, at the beginning of a text.
fn port(text: &str) -> usize {
    let Some(rest) = text.strip_prefix(':') else { return 0 };
    let digits = rest.bytes().take(5).take_while(u8::is_ascii_digit).count();
    if digits == 0 { 0 } else { digits + 1 }
}
