//! The detectors beside labelled texts: the project's own, and the test cases of Presidio, which are not part of this
//! project (`BISCUIT_CASES` is the folder of `pii-detect.jsonl`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use biscuit_pii::detectors::{
    CreditCardDetector, DateDetector, EmailDetector, IbanDetector, IpDetector, MacDetector, PhoneDetector,
    UkDrivingLicenceDetector, UrlDetector, UsDriverLicenseDetector, UsItinDetector, UsPassportDetector, UsSsnDetector,
};
use biscuit_pii::{ColumnTexts, Detector, PiiHit};
use serde_json::Value;

fn detector(entity: &str) -> Option<Box<dyn Detector>> {
    Some(match entity {
        "CREDIT_CARD" => Box::new(CreditCardDetector),
        "IBAN_CODE" => Box::new(IbanDetector),
        "US_SSN" => Box::new(UsSsnDetector),
        "US_ITIN" => Box::new(UsItinDetector),
        "EMAIL_ADDRESS" => Box::new(EmailDetector),
        "IP_ADDRESS" => Box::new(IpDetector),
        "MAC_ADDRESS" => Box::new(MacDetector),
        "URL" => Box::new(UrlDetector),
        "DATE_TIME" => Box::new(DateDetector),
        "US_PASSPORT" => Box::new(UsPassportDetector),
        "US_DRIVER_LICENSE" => Box::new(UsDriverLicenseDetector),
        "UK_DRIVING_LICENCE" => Box::new(UkDrivingLicenceDetector),
        "PHONE_NUMBER" => Box::new(PhoneDetector::defaults()),
        "PH_MOBILE_NUMBER" => Box::new(PhoneDetector::new(["PH"]).expect("the region is valid")),
        "TR_PHONE_NUMBER" => Box::new(PhoneDetector::new(["TR"]).expect("the region is valid")),
        _ => return None,
    })
}

/// Returns the spans of hits in characters.
fn spans(text: &str, hits: &[PiiHit]) -> Vec<(usize, usize)> {
    let at = |byte: usize| text[..byte].chars().count();
    let mut spans: Vec<_> = hits.iter().map(|hit| (at(hit.range.start), at(hit.range.end))).collect();
    spans.sort_unstable();
    spans
}

#[derive(Default)]
struct Score {
    spans: usize,
    found: usize,
    negatives: usize,
    hit: usize,
}

/// The project's own labelled texts: for each entity some that contain it, with the characters from and to, and some
/// that only look as if they did.
#[tokio::test]
async fn detectors_find_the_labelled_spans_and_nothing_else() {
    let mut wrong = Vec::new();
    for line in include_str!("../data/detect.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect("a case is JSON");
        let (entity, text) = (
            case["entity"].as_str().expect("the value is a name"),
            case["text"].as_str().expect("the value is a text"),
        );
        let detector = detector(entity).unwrap_or_else(|| panic!("no detector for {entity}"));
        let hits =
            detector.detect(&ColumnTexts { name: "", texts: &[text] }).await.expect("the detection succeeds").remove(0);
        let want: Vec<(usize, usize)> =
            serde_json::from_value(case["found"].clone()).expect("the values are pairs of numbers");
        let found = spans(text, &hits);
        if found != want {
            wrong.push(format!("{entity} {text:?}: {found:?} instead of {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
#[ignore = "needs the cases of Presidio: BISCUIT_CASES"]
async fn detectors_find_at_least_95_percent_of_presidio_spans_with_2_percent_false() {
    let folder = std::env::var_os("BISCUIT_CASES").expect("BISCUIT_CASES is the folder of pii-detect.jsonl");
    let cases = std::fs::read_to_string(PathBuf::from(folder).join("pii-detect.jsonl")).expect("the cases can be read");
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).expect("a case is JSON");
        let entity = case["entities"][0].as_str().expect("the value is a name").to_owned();
        let Some(detector) = detector(&entity) else { continue };
        let text = case["text"].as_str().expect("the value is a text");
        let hits =
            detector.detect(&ColumnTexts { name: "", texts: &[text] }).await.expect("the detection succeeds").remove(0);
        let number =
            |v: &Value| usize::try_from(v.as_u64().expect("the value is a number")).expect("the number is small");
        let found = case["found"].as_array().expect("the value is a list");
        let want: Vec<_> = found.iter().map(|f| (number(&f[1]), number(&f[2]))).collect();
        let spans = spans(text, &hits);
        let score = scores.entry(entity.clone()).or_default();
        score.spans += want.len();
        score.found += want.iter().filter(|span| spans.contains(span)).count();
        if want.is_empty() {
            score.negatives += 1;
            score.hit += usize::from(!spans.is_empty());
        }
        if spans != want {
            println!("{entity} {text:?}: {spans:?} instead of {want:?}");
        }
    }
    println!("{:<20} {:>9} {:>10}", "entity", "found", "false");
    let mut all = Score::default();
    for (entity, s) in &scores {
        println!("{entity:<20} {:>4} of {:<4} {:>3} of {:<4}", s.found, s.spans, s.hit, s.negatives);
        all.spans += s.spans;
        all.found += s.found;
        all.negatives += s.negatives;
        all.hit += s.hit;
    }
    println!("{:<20} {:>4} of {:<4} {:>3} of {:<4}", "all", all.found, all.spans, all.hit, all.negatives);
    assert!(all.found * 100 >= all.spans * 95, "{} of {} were found", all.found, all.spans);
    assert!(all.hit * 100 <= all.negatives * 2, "{} of {} were hit", all.hit, all.negatives);
}
