use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::detect::entity::EntityType;
use crate::detect::hit::{Likelihood, PiiHit};
use crate::detect::steps::steps;
use crate::find::{compile_regex, detects_by, overlaps_any, stands_alone};

/// Detects dates in common formats, and timestamps of ISO 8601. A date is `Possible`, since a date alone identifies
/// no person. It is a date of birth, and `Likely`, if words around it or the name of the column mark it so.
#[derive(Debug, Clone, Copy, Default)]
pub struct DateDetector;

const BIRTH: [&str; 9] =
    ["birth", "born", "birthday", "birthdate", "date of birth", "dob", "geboren", "geburtsdatum", "naissance"];

detects_by!(DateDetector, |_, text, context| {
    static FORMS: LazyLock<[Regex; 6]> = LazyLock::new(|| {
        let month = "(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)";
        let time = "(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)";
        [
            compile_regex(&format!("(?<y>[0-9]{{4}})-(?<m>[0-9]{{2}})-(?<d>[0-9]{{2}}){time}?")),
            compile_regex("(?<y>[0-9]{4})(?:/(?<m>[0-9]{1,2})/|[.](?<m2>[0-9]{1,2})[.])(?<d>[0-9]{1,2})"),
            compile_regex(
                "(?<a>[0-9]{1,2})(?:/(?<b>[0-9]{1,2})/|[.](?<b2>[0-9]{1,2})[.]|-(?<b3>[0-9]{1,2})-)(?<y>[0-9]{4}|[0-9]{2})",
            ),
            compile_regex("(?<m>[0-9]{1,2})[/-](?<y>[0-9]{4}|[0-9]{2})"),
            compile_regex(&format!("(?<d>[0-9]{{1,2}})[ -]{month}[ .,-]+(?<y>[0-9]{{4}}|[0-9]{{2}})")),
            compile_regex(&format!("{month}[ .]+(?<d>[0-9]{{1,2}})(?:st|nd|rd|th)?,? +(?<y>[0-9]{{4}})")),
        ]
    });
    let mut hits: Vec<PiiHit> = Vec::new();
    for form in FORMS.iter() {
        // Only hits of earlier forms can overlap: matches of one form do not overlap one another.
        let of_others: Vec<Range<usize>> = hits.iter().map(|hit| hit.range.clone()).collect();
        for found in form.captures_iter(text) {
            let whole = found.get(0).expect("group 0 is the whole match").range();
            steps(whole.len());
            let taken = overlaps_any(&of_others, &whole);
            let number_goes_on = text[whole.end..].starts_with(['/', '-'])
                && text[whole.end + 1..].starts_with(|c: char| c.is_ascii_digit());
            let number_began = text[..whole.start].ends_with(['/', '-', '.']);
            if taken || number_goes_on || number_began || !stands_alone(text, &whole) || !is_date(&found) {
                continue;
            }
            hits.push(match context.mentions(&whole, &BIRTH) {
                true => PiiHit::new(EntityType::DATE_OF_BIRTH, whole, Likelihood::Likely),
                false => PiiHit::new(EntityType::DATE, whole, Likelihood::Possible),
            });
        }
        hits.sort_by_key(|hit| hit.range.start);
    }
    hits
});

/// Returns whether month and day are in range. If their order is unknown, one of the two orders has to be valid.
fn is_date(found: &Captures<'_>) -> bool {
    let number =
        |names: &[&str]| names.iter().find_map(|n| found.name(n)).map(|m| m.as_str().parse::<u32>().unwrap_or(0));
    let month = |m: u32| (1..=12).contains(&m);
    let day = |d: u32| (1..=31).contains(&d);
    match (number(&["a"]), number(&["b", "b2", "b3"])) {
        (Some(a), Some(b)) => (month(a) && day(b)) || (day(a) && month(b)),
        _ => number(&["m", "m2"]).is_none_or(month) && number(&["d"]).is_none_or(day),
    }
}
