use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::detect::steps::steps;
use crate::find::{
    character_after, character_before, compile_regex, detects_by, find_matches, is_in_word, overlaps_any,
};

/// Detects IP addresses that the standard library parses, with zone (version 6) and prefix length if present. The
/// address `::` is only `Possible`, since two colons are mostly something else.
#[derive(Debug, Clone, Copy, Default)]
pub struct IpDetector;

/// Length of the longest IPv6 address in characters: six groups and an IPv4 address (RFC 4291, section 2.2).
const LONGEST: usize = 45;

detects_by!(IpDetector, |_, text, _| {
    static FOUR: LazyLock<Regex> = LazyLock::new(|| compile_regex("[0-9]{1,3}(?:[.][0-9]{1,3}){3}"));
    let mut hits: Vec<PiiHit> = address_runs(text).filter_map(|run| of_run(text, run)).collect();
    let taken: Vec<Range<usize>> = hits.iter().map(|hit| hit.range.clone()).collect();
    let four = |range: Range<usize>| {
        let inside = overlaps_any(&taken, &range);
        let goes_on = |c: Option<char>| c.is_some_and(is_in_word);
        let from = character_before(text, range.start);
        let fits = !inside && !goes_on(from) && from != Some('.') && !goes_on(character_after(text, range.end));
        let fits = fits && text[range.clone()].parse::<Ipv4Addr>().is_ok();
        fits.then(|| PiiHit::new(EntityType::IP_ADDRESS, with_prefix(text, range, 32), Likelihood::Likely))
    };
    hits.extend(find_matches(&FOUR, text, four));
    hits.sort_by_key(|hit| hit.range.start);
    hits
});

/// Returns the maximal runs of characters of IPv6 addresses that contain a colon.
fn address_runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_of_one = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + bytes[at..].iter().position(|b| is_of_one(*b))?;
            at = start + bytes[start..].iter().position(|b| !is_of_one(*b)).unwrap_or(bytes.len() - start);
            steps(at - start);
            if bytes[start..at].contains(&b':') {
                return Some(start..at);
            }
        }
    })
}

/// Returns the address at the end of a run. The run may have other text of the same characters before it, as in
/// `addr:`. At most 45 beginnings are tried, which bounds the time.
fn of_run(text: &str, run: Range<usize>) -> Option<PiiHit> {
    // Every address in a run ends at the end of the run, apart from punctuation.
    let own = text[run.clone()].trim_end_matches('.');
    let own = if own.ends_with(':') && !own.ends_with("::") { own.trim_end_matches(':') } else { own };
    let last = own.rfind(':')?;
    let end = run.start + own.len();
    (own.len().saturating_sub(LONGEST)..=last).find_map(|start| match_ipv6(text, run.start + start..end))
}

/// Returns the IPv6 address in a range, if it is one and not a part of something longer.
fn match_ipv6(text: &str, mut range: Range<usize>) -> Option<PiiHit> {
    let own = &text[range.clone()];
    let plain = own.trim_end_matches('.');
    // A single colon at the end is punctuation, two colons are a part of the address.
    let plain = if plain.ends_with(':') && !plain.ends_with("::") { plain.trim_end_matches(':') } else { plain };
    range.end = range.start + plain.len();
    steps(own.len().min(2 * LONGEST));
    let goes_on = |c: Option<char>| c.is_some_and(is_in_word);
    plain.parse::<Ipv6Addr>().ok()?;
    // The range is the end of something longer that is not an address.
    let mut from = text[..range.start].chars().rev();
    let is_part = from.next() == Some(':') && from.next().is_some_and(|c| c == ':' || c.is_ascii_hexdigit());
    if is_part || goes_on(character_before(text, range.start)) || goes_on(character_after(text, range.end)) {
        return None;
    }
    let likelihood = if plain == "::" { Likelihood::Possible } else { Likelihood::Likely };
    if let Some(zone) = text[range.end..].strip_prefix('%') {
        let length = zone.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(zone.len());
        range.end += if length > 0 { length + 1 } else { 0 };
    }
    Some(PiiHit::new(EntityType::IP_ADDRESS, with_prefix(text, range, 128), likelihood))
}

/// Extends a range by a prefix length, such as `/24`, if one follows and is valid.
fn with_prefix(text: &str, range: Range<usize>, maximum: u32) -> Range<usize> {
    let Some(rest) = text[range.end..].strip_prefix('/') else { return range };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let goes_on = rest[digits..].starts_with(|c: char| c.is_alphanumeric());
    match rest[..digits].parse::<u32>() {
        Ok(length) if length <= maximum && digits <= 3 && !goes_on => range.start..range.end + 1 + digits,
        _ => range,
    }
}
