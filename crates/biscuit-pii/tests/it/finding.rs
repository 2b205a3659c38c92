//! Detectors: which texts are hits, and with which likelihood.

use biscuit_pii::detectors::{
    AwsKeyDetector, CreditCardDetector, DateDetector, EmailDetector, IbanDetector, IpDetector, NameDetector,
    PhoneDetector, UrlDetector, UsDriverLicenseDetector, UsItinDetector, UsPassportDetector, UsSsnDetector,
};
use biscuit_pii::{ColumnTexts, Detector, EntityType, Likelihood, Redactor};
use proptest::prelude::*;

async fn found(detector: &dyn Detector, column: &str, text: &str) -> Vec<(String, Likelihood)> {
    let hits =
        detector.detect(&ColumnTexts { name: column, texts: &[text] }).await.expect("the detection succeeds").remove(0);
    hits.into_iter().map(|hit| (text[hit.range].to_owned(), hit.likelihood)).collect()
}

async fn texts(detector: &dyn Detector, text: &str) -> Vec<String> {
    found(detector, "", text).await.into_iter().map(|(text, _)| text).collect()
}

use Likelihood::{Certain, Likely, Possible};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn hits_are_inside_of_their_text_and_independent_of_other_texts(
        text in r"([0-9]{1,5}|[A-Za-z]{1,4}|[ .,:;/@%+()_-]|é|ß|🍪|::|ssn|born|\PC){0,24}",
        other in r"[0-9:@. a-z]{0,20}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the runtime starts");
        let redactor = Redactor::defaults().with_min_likelihood(Possible);
        let hits = |texts: &[&str]| runtime.block_on(redactor.find_hits(&ColumnTexts { name: "", texts }));
        // A hit that begins or ends inside of a character would be an error.
        let alone = hits(&[&text]).expect("the detection succeeds");
        let beside = hits(&[&other, &text]).expect("the detection succeeds");
        prop_assert_eq!(&alone[0], &beside[1]);
        prop_assert!(alone[0].windows(2).all(|w| w[0].range.end <= w[1].range.start));
    }
}

#[tokio::test]
async fn card_needs_check_digit_issuer_and_usual_grouping() {
    for card in [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "378282246310005",
        "3782 822463 10005",
        "5105105105105100",
        "2223003122003222",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "4222222222222",
    ] {
        assert_eq!(found(&CreditCardDetector, "", &format!("é {card}.")).await, [(card.to_owned(), Certain)], "{card}");
    }
    for other in [
        "4111 1111 1111 1112",
        "4111 1111-1111 1111",
        "94111111111111111",
        "4111111111111111.5",
        "0.4111111111111111",
        "A4111111111111111",
        "0000000000000000",
        "1234567812345670",
    ] {
        assert_eq!(texts(&CreditCardDetector, other).await, [] as [&str; 0], "{other}");
    }
    // A preceding number that is not a card does not hide the card.
    assert_eq!(texts(&CreditCardDetector, "12 4111111111111111 99").await, ["4111111111111111"]);
}

#[tokio::test]
async fn iban_has_the_length_of_its_country() {
    let own = "GB29 NWBK 6016 1331 9268 19";
    assert_eq!(texts(&IbanDetector, &format!("to {own} GBP 300")).await, [own]);
    assert_eq!(texts(&IbanDetector, "DE89370400440532013000").await, ["DE89370400440532013000"]);
    for other in
        ["DE89370400440532013001", "DE8937040044053201300", "XX89370400440532013000", "DE893704004405320130001"]
    {
        assert_eq!(texts(&IbanDetector, other).await, [] as [&str; 0], "{other}");
    }
}

#[tokio::test]
async fn nine_digits_are_classified_by_nearby_words_or_the_column_name() {
    assert_eq!(found(&UsSsnDetector, "", "536904399").await, [("536904399".to_owned(), Possible)]);
    assert_eq!(found(&UsSsnDetector, "ssn", "536904399").await, [("536904399".to_owned(), Likely)]);
    assert_eq!(found(&UsSsnDetector, "customerSsn", "536904399").await, [("536904399".to_owned(), Likely)]);
    assert_eq!(found(&UsSsnDetector, "", "Social Security: 536904399").await, [("536904399".to_owned(), Likely)]);
    assert_eq!(found(&UsSsnDetector, "", "536-90-4399").await, [("536-90-4399".to_owned(), Likely)]);
    for other in
        ["000-90-4399", "666-90-4399", "936-90-4399", "536-00-4399", "536-90-0000", "536-90 4399", "078-05-1120"]
    {
        assert_eq!(texts(&UsSsnDetector, other).await, [] as [&str; 0], "{other}");
    }
    assert_eq!(found(&UsPassportDetector, "passport_no", "912803456").await, [("912803456".to_owned(), Likely)]);
    assert_eq!(found(&UsDriverLicenseDetector, "", "her license D1234567").await, [("D1234567".to_owned(), Likely)]);
    assert_eq!(found(&UsDriverLicenseDetector, "", "order 1234567").await, [("1234567".to_owned(), Possible)]);
    assert_eq!(texts(&UsItinDetector, "911-93-1234").await, [] as [&str; 0]);
}

#[tokio::test]
async fn addresses_are_separated_from_surrounding_punctuation() {
    assert_eq!(
        texts(&EmailDetector, "<josé.o'hara@bücher.example>, (a@b.co).").await,
        ["josé.o'hara@bücher.example", "a@b.co"]
    );
    assert_eq!(texts(&EmailDetector, "mail='a.b@c.org'").await, ["a.b@c.org"]);
    for other in ["a@b", "@b.com", "a@b.c0", "a@@b.com", "@biscuit/pkg"] {
        assert_eq!(texts(&EmailDetector, other).await, [] as [&str; 0], "{other}");
    }
    assert_eq!(texts(&UrlDetector, "(see https://x.example/a?b=c).").await, ["https://x.example/a?b=c"]);
    assert_eq!(found(&UrlDetector, "", "main.rs").await, [("main.rs".to_owned(), Possible)]);
    assert_eq!(texts(&UrlDetector, "report.parquet, a.b@c.com").await, [] as [&str; 0]);
    assert_eq!(texts(&IpDetector, "from 10.0.0.1:8080 to [::1]").await, ["10.0.0.1", "::1"]);
}

#[tokio::test]
async fn phone_numbers_have_to_be_in_a_numbering_plan() {
    let phone = PhoneDetector::defaults();
    assert_eq!(found(&phone, "", "+49 30 901820 is open").await, [("+49 30 901820".to_owned(), Certain)]);
    assert_eq!(found(&phone, "", "(415) 555-2671").await, [("(415) 555-2671".to_owned(), Likely)]);
    assert_eq!(found(&phone, "", "4155552671").await, [("4155552671".to_owned(), Possible)]);
    assert_eq!(found(&phone, "phone", "4155552671").await, [("4155552671".to_owned(), Likely)]);
    for other in ["+1 115 555 2671", "2024-02-29 12:00:00", "1.5555552671", "0000000000"] {
        assert_eq!(texts(&phone, other).await, [] as [&str; 0], "{other}");
    }
    assert_eq!(PhoneDetector::new(["XQ"]).unwrap_err().code(), "UnknownRegion");
    assert_eq!(texts(&PhoneDetector::new(["DE"]).unwrap(), "Tel. 030 901820").await, ["030 901820"]);
}

#[tokio::test]
async fn date_is_a_date_of_birth_near_words_for_birth() {
    let of = async |column: &str, text: &str| {
        let hits = DateDetector
            .detect(&ColumnTexts { name: column, texts: &[text] })
            .await
            .expect("the detection succeeds")
            .remove(0);
        hits.into_iter().map(|hit| (hit.entity, text[hit.range].to_owned())).collect::<Vec<_>>()
    };
    let birth = |text: &str| vec![(EntityType::DATE_OF_BIRTH, text.to_owned())];
    assert_eq!(of("", "born on 29 February 1984 in").await, birth("29 February 1984"));
    assert_eq!(of("date_of_birth", "1984-02-29").await, birth("1984-02-29"));
    assert_eq!(of("", "shipped 1984-02-29").await, [(EntityType::DATE, "1984-02-29".to_owned())]);
    for other in ["1984-13-01", "32.1.1984", "1/2/3/4", "10.0.0.1", "v1.2.2024.7"] {
        assert_eq!(of("", other).await, [], "{other}");
    }
}

#[tokio::test]
async fn aws_keys_are_distinguished_from_digests() {
    let (id, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    assert_eq!(texts(&AwsKeyDetector, id).await, [id]);
    assert_eq!(texts(&AwsKeyDetector, &format!("aws_secret_access_key={secret}")).await, [secret]);
    assert_eq!(texts(&AwsKeyDetector, secret).await, [] as [&str; 0]);
    assert_eq!(texts(&AwsKeyDetector, "secret da39a3ee5e6b4b0d3255bfef95601890afd80709").await, [] as [&str; 0]);
}

#[tokio::test]
async fn names_come_from_the_dictionaries() {
    let defaults = NameDetector::defaults();
    assert_eq!(
        found(&defaults, "", "Dear Mary J. O'Neil, Maria Garcia wrote").await[1],
        ("Maria Garcia".to_owned(), Likely)
    );
    assert_eq!(found(&defaults, "", "Mary Ann Smith").await, [("Mary Ann Smith".to_owned(), Likely)]);
    assert_eq!(found(&defaults, "", "John F. Kennedy").await, [("John F. Kennedy".to_owned(), Likely)]);
    assert_eq!(found(&defaults, "", "Mary had a lamb").await, [("Mary".to_owned(), Possible)]);
    assert_eq!(texts(&defaults, "mark the price").await, [] as [&str; 0]);
    let own = NameDetector::new(["Éva"], ["Kovács"]);
    assert_eq!(found(&own, "", "– Éva Kovács").await, [("Éva Kovács".to_owned(), Likely)]);
}

/// Long texts in which a match can begin everywhere. A unit test of the detectors counts that their work is linear;
/// with quadratic time this test would not end.
#[tokio::test]
async fn detectors_finish_adversarial_long_texts() {
    let parts = [
        "a:",
        "ab:",
        ":",
        "a@",
        "a@bb.cc_",
        "abc.",
        "abc.zzz/",
        "xhttp://",
        "http://.",
        "a.com/",
        "James ",
        "A. ",
        "2024-01-01 ",
        "1 jan ",
        "1",
        "1 ",
        "+1 2 ",
        "A1",
        "aB3/",
        "DE89 ",
    ];
    let texts: Vec<String> = parts.iter().map(|part| part.repeat(50_000 / part.len())).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let hits = Redactor::defaults()
        .with_min_likelihood(Possible)
        .find_hits(&ColumnTexts { name: "c", texts: &texts })
        .await
        .expect("the detection succeeds");
    assert_eq!(hits.len(), parts.len());
    assert_eq!(hits[12].len(), 4_545, "all of the dates");
}

#[tokio::test]
async fn hit_after_a_rejected_match_is_found() {
    assert_eq!(
        texts(&EmailDetector, "x ...ann@example.com and @ben@example.org").await,
        ["ann@example.com", "ben@example.org"]
    );
    assert_eq!(texts(&EmailDetector, "a@bb.cc_ann@example.com").await, ["bb.cc_ann@example.com"]);
    assert_eq!(texts(&IpDetector, "addr:fe80::1, 1:2:3:4:5:6:7:8:9:::, x::1.").await, ["fe80::1"]);
    assert_eq!(texts(&UrlDetector, "xhttp://a.example https://b.example").await, ["https://b.example"]);
    assert_eq!(
        texts(&UrlDetector, "foo.zzz/bar.com/x?y, a.b.https://c.example.").await,
        ["bar.com/x?y", "https://c.example"]
    );
    let names = found(&NameDetector::defaults(), "", "James Mary Robert, Linda Ann Smith James").await;
    let names: Vec<&str> = names.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(names, ["James", "Mary", "Robert", "Linda Ann Smith", "James"]);
}

#[tokio::test]
async fn after_5000_failed_checks_phone_numbers_are_found_by_format() {
    let numbers: Vec<String> = (0..6_000).map(|n| format!("{:010};", n)).collect();
    let text = format!("{}2125550100;", numbers.concat());
    let hits = found(&PhoneDetector::defaults(), "", &text).await;
    assert!(hits.len() > 500 && hits.len() < 4_000, "{}", hits.len());
    assert!(hits.iter().all(|(_, likelihood)| *likelihood == Likely));
}
