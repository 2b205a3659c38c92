//! Conversion of responses of Comprehend to hits.

use biscuit_pii::{ColumnTexts, Detector, EntityType, Likelihood, Redactor};
use biscuit_pii_aws::ComprehendDetector;
use serde_json::json;

use crate::fake::Service;

/// Finds the word `Éva`, with offsets in characters.
fn finds_eva() -> Service {
    Service::new(|_, body| {
        let text = body["Text"].as_str().unwrap_or_default();
        if text.len() > 100_000 {
            return (400, json!({"__type": "TextSizeLimitExceededException", "message": "too long"}));
        }
        let at = |byte: usize| text[..byte].chars().count();
        let found: Vec<_> = text
            .match_indices("Éva")
            .map(|(byte, _)| json!({"Type": "NAME", "Score": 0.99, "BeginOffset": at(byte), "EndOffset": at(byte) + 3}))
            .collect();
        (200, json!({"Entities": found}))
    })
}

#[tokio::test]
async fn character_offsets_become_byte_ranges() {
    let service = finds_eva();
    let detector = ComprehendDetector::new(service.comprehend(), "en").unwrap();
    let texts = ["日本 Éva, and Éva", "", "nobody"];
    let hits = detector.detect(&ColumnTexts { name: "bio", texts: &texts }).await.unwrap();
    let found: Vec<Vec<&str>> =
        hits.iter().zip(texts).map(|(hits, text)| hits.iter().map(|hit| &text[hit.range.clone()]).collect()).collect();
    assert_eq!(found, [vec!["Éva", "Éva"], vec![], vec![]]);
    assert_eq!(hits[0][0].entity, EntityType::PERSON_NAME);
    assert_eq!(service.asked().len(), 2, "an empty text is not sent");
    assert_eq!(service.asked()[0].1["LanguageCode"], "en");
}

#[tokio::test]
async fn long_text_is_sent_in_parts_without_losing_hits() {
    let service = finds_eva();
    let detector = ComprehendDetector::new(service.comprehend(), "es").unwrap();
    let text = "é Éva ".repeat(40_000);
    let hits = detector.detect(&ColumnTexts { name: "bio", texts: &[&text] }).await.unwrap();
    assert_eq!(hits[0].len(), 40_000);
    assert!(hits[0].iter().all(|hit| &text[hit.range.clone()] == "Éva"));
    let unbroken = "é".repeat(120_000);
    assert_eq!(detector.detect(&ColumnTexts { name: "bio", texts: &[&unbroken] }).await.unwrap(), [vec![]]);
}

#[tokio::test]
async fn scores_become_likelihoods_and_unknown_types_keep_their_names() {
    let service = Service::new(|_, _| {
        let found = |kind: &str, score: f64, begin: u32| json!({"Type": kind, "Score": score, "BeginOffset": begin, "EndOffset": begin + 1});
        // The offsets of the last one are outside of the text.
        (200, json!({"Entities": [found("PIN", 0.5, 0), found("SSN", 0.9, 1), found("ADDRESS", 0.9, 700)]}))
    });
    let detector = ComprehendDetector::new(service.comprehend(), "en").unwrap();
    let hits = detector.detect(&ColumnTexts { name: "c", texts: &["ab"] }).await.unwrap().remove(0);
    let got: Vec<(&str, Likelihood)> = hits.iter().map(|hit| (hit.entity.name(), hit.likelihood)).collect();
    assert_eq!(got, [("PIN", Likelihood::Possible), ("US_SSN", Likelihood::Likely)]);
    let texts: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::StringArray::from(vec!["ab"]));
    let redacted = Redactor::new(vec![std::sync::Arc::new(detector)]).redact("c", &texts).await.unwrap();
    assert_eq!(redacted.counts.into_iter().collect::<Vec<_>>(), [(EntityType::US_SSN, 1)]);
}

#[tokio::test]
async fn error_contains_the_column_but_no_text() {
    let service = Service::new(|_, _| (400, json!({"__type": "InvalidRequestException", "message": "no"})));
    let detector = ComprehendDetector::new(service.comprehend(), "en").unwrap();
    let e = detector.detect(&ColumnTexts { name: "bio", texts: &["a secret"] }).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        "Refused: cannot detect personal data of column `bio` with Comprehend: InvalidRequestException: no"
    );
    assert_eq!(ComprehendDetector::new(service.comprehend(), "de").unwrap_err().code(), "UnknownLanguage");
}
