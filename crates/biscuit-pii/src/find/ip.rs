use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::entity::Entity;
use crate::find::{after, before, detects_by, matches, regex};
use crate::hit::{Hit, Likelihood};

/// Addresses of the internet protocol: what the standard library reads as one, of version 6 with its zone, and with the length of a prefix
/// behind, if that is one. Two colons are an address as well, and mostly something else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ip;

detects_by!(Ip, |_, text, _| {
    static SIX: LazyLock<Regex> = LazyLock::new(|| regex("[0-9A-Fa-f:.]*::?[0-9A-Fa-f:.]*"));
    static FOUR: LazyLock<Regex> = LazyLock::new(|| regex("[0-9]{1,3}(?:[.][0-9]{1,3}){3}"));
    let mut hits = matches(&SIX, text, |range| six(text, range));
    let taken: Vec<Range<usize>> = hits.iter().map(|hit| hit.range.clone()).collect();
    let four = |range: Range<usize>| {
        let inside = taken.iter().any(|t| t.start < range.end && range.start < t.end);
        let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let from = before(text, range.start);
        let fits = !inside && !goes_on(from) && from != Some('.') && !goes_on(after(text, range.end));
        let fits = fits && text[range.clone()].parse::<Ipv4Addr>().is_ok();
        fits.then(|| Hit::new(Entity::IP_ADDRESS, with_prefix(text, range, 32), Likelihood::Likely))
    };
    hits.extend(matches(&FOUR, text, four));
    hits.sort_by_key(|hit| hit.range.start);
    hits
});

fn six(text: &str, mut range: Range<usize>) -> Option<Hit> {
    let own = &text[range.clone()];
    let plain = own.trim_end_matches('.');
    // A colon at the end is punctuation, unless it is one of two.
    let plain = if plain.ends_with(':') && !plain.ends_with("::") { plain.trim_end_matches(':') } else { plain };
    range.end = range.start + plain.len();
    let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    plain.parse::<Ipv6Addr>().ok()?;
    // A part of something longer that is no address.
    let mut from = text[..range.start].chars().rev();
    let is_part = from.next() == Some(':') && from.next().is_some_and(|c| c == ':' || c.is_ascii_hexdigit());
    if is_part || goes_on(before(text, range.start)) || goes_on(after(text, range.end)) {
        return None;
    }
    let likelihood = if plain == "::" { Likelihood::Possible } else { Likelihood::Likely };
    if let Some(zone) = text[range.end..].strip_prefix('%') {
        let length = zone.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(zone.len());
        range.end += if length > 0 { length + 1 } else { 0 };
    }
    Some(Hit::new(Entity::IP_ADDRESS, with_prefix(text, range, 128), likelihood))
}

/// The range with the length of a prefix behind, if one is there.
fn with_prefix(text: &str, range: Range<usize>, most: u32) -> Range<usize> {
    let Some(rest) = text[range.end..].strip_prefix('/') else { return range };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let goes_on = rest[digits..].starts_with(|c: char| c.is_alphanumeric());
    match rest[..digits].parse::<u32>() {
        Ok(length) if length <= most && digits <= 3 && !goes_on => range.start..range.end + 1 + digits,
        _ => range,
    }
}
