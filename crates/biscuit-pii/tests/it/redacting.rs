//! Redaction and classification of columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, LargeStringArray, ListBuilder, ListViewArray,
    RecordBatch, RunArray, StringArray, StringBuilder, StringViewArray, StructArray, UnionArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, UnionFields};
use async_trait::async_trait;
use biscuit_core::Result;
use biscuit_pii::detectors::default_detectors;
use biscuit_pii::internal::without_overlaps;
use biscuit_pii::{ColumnTexts, Detector, EntityType, HashKey, HitAction, Likelihood, PiiHit, Redactor, classify};

fn column(texts: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

async fn one(redactor: &Redactor, text: &str) -> String {
    let redacted = redactor.redact("", &column(&[Some(text)])).await.expect("the column is redacted");
    redacted.column.as_string::<i32>().value(0).to_owned()
}

#[tokio::test]
async fn null_and_empty_texts_remain_and_are_not_searched() {
    #[derive(Debug)]
    struct Asked;
    #[async_trait]
    impl Detector for Asked {
        async fn detect(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>> {
            assert!(column.texts.is_empty(), "detectors get no null and no empty text");
            Ok(vec![])
        }
    }
    let nothing = column(&[None, Some(""), None]);
    let redacted = Redactor::new(vec![Arc::new(Asked)]).redact("x", &nothing).await.unwrap();
    assert_eq!((&redacted.column, redacted.counts.len()), (&nothing, 0));
}

#[tokio::test]
async fn overlapping_hits_are_merged_in_texts_with_multibyte_characters() {
    let text = "🍪é https://x.example/?to=josé@example.com&n=ﷺ and 4111 1111 1111 1111 🍪";
    assert_eq!(one(&Redactor::defaults(), text).await, "🍪é <URL> and <CREDIT_CARD> 🍪");
    // A hit with the action `Keep` does not hide the hits that it overlaps.
    let keeps = Redactor::defaults().with_action(EntityType::URL, HitAction::Keep);
    assert_eq!(one(&keeps, "https://x.example/?to=a@example.com&x").await, "https://x.example/?to=<EMAIL_ADDRESS>&x");
    let hits = [
        PiiHit::new(EntityType::EMAIL_ADDRESS, 4..12, Likelihood::Certain),
        PiiHit::new(EntityType::URL, 0..6, Likelihood::Likely),
        PiiHit::new(EntityType::PHONE_NUMBER, 12..14, Likelihood::Likely),
    ];
    let want = [
        PiiHit::new(EntityType::EMAIL_ADDRESS, 0..12, Likelihood::Certain),
        PiiHit::new(EntityType::PHONE_NUMBER, 12..14, Likelihood::Likely),
    ];
    assert_eq!(without_overlaps(hits.to_vec()), want);
}

#[tokio::test]
async fn hashes_are_keyed_and_join() {
    let key = |byte| HashKey::new(vec![byte; 32], "email").unwrap();
    let hashing = |byte| Redactor::defaults().with_otherwise(HitAction::hash(key(byte)));
    let (a, b) = (one(&hashing(1), "a@example.com wrote").await, one(&hashing(1), "to a@example.com").await);
    let hash = a.strip_suffix(" wrote").unwrap();
    assert_eq!(format!("to {hash}"), b);
    assert!(hash.starts_with("<EMAIL_ADDRESS:") && hash.len() == "<EMAIL_ADDRESS:>".len() + 32, "{hash}");
    assert_ne!(one(&hashing(2), "a@example.com wrote").await, a);
}

#[tokio::test]
async fn texts_of_every_type_and_nesting_are_redacted_and_keep_their_type() {
    let redactor = Redactor::defaults();
    let texts = ["a@example.com", "x"];
    let dictionary = DictionaryArray::<Int32Type>::new(
        Int32Array::from(vec![Some(0), None, Some(1), Some(0)]),
        Arc::new(StringArray::from(texts.to_vec())),
    );
    let mut list = ListBuilder::new(StringBuilder::new());
    list.append_value(texts.map(Some));
    list.append_null();
    let field = Arc::new(Field::new("mail", DataType::Utf8, true));
    let of_struct = StructArray::from(vec![(field, column(&texts.map(Some)))]);
    let columns: Vec<(ArrayRef, u64)> = vec![
        (Arc::new(LargeStringArray::from(texts.to_vec())), 1),
        (Arc::new(StringViewArray::from(texts.to_vec())), 1),
        (Arc::new(dictionary), 2),
        (Arc::new(list.finish()), 1),
        (Arc::new(of_struct), 1),
    ];
    for (column, count) in columns {
        let redacted = redactor.redact("mail", &column).await.unwrap();
        let (new, kind) = (redacted.column, column.data_type());
        assert_eq!((new.data_type(), new.len(), new.nulls()), (kind, column.len(), column.nulls()));
        assert_eq!(redacted.counts[&EntityType::EMAIL_ADDRESS], count, "{kind}");
        let printed = format!("{new:?}");
        assert!(printed.contains("<EMAIL_ADDRESS>") && !printed.contains("a@example.com"), "{printed}");
    }
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![4_111_111_111_111_111]));
    assert_eq!(&redactor.redact("card", &numbers).await.unwrap().column, &numbers);
}

#[tokio::test]
async fn rare_nested_types_and_unreferenced_dictionary_values_are_redacted() {
    let texts: ArrayRef = column(&[Some("a@example.com"), Some("kept")]);
    let ends = Int32Array::from(vec![1, 3]);
    let run_ends: ArrayRef = Arc::new(RunArray::<Int32Type>::try_new(&ends, &texts).expect("the runs are valid"));
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let views: ArrayRef = Arc::new(ListViewArray::new(item, vec![0, 1].into(), vec![1, 1].into(), texts.clone(), None));
    let fields = UnionFields::try_new([0], [Field::new("t", DataType::Utf8, true)]).expect("the fields are valid");
    let union: ArrayRef = Arc::new(
        UnionArray::try_new(fields, vec![0, 0].into(), None, vec![texts.clone()]).expect("the union is valid"),
    );
    for column in [run_ends, views, union] {
        let new = Redactor::defaults().redact("mail", &column).await.unwrap().column;
        assert_eq!((new.data_type(), new.len()), (column.data_type(), column.len()));
        let printed = format!("{new:?}");
        assert!(
            printed.contains("<EMAIL_ADDRESS>") && printed.contains("kept") && !printed.contains("a@example.com"),
            "{printed}"
        );
    }
    let unused: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(vec![1]), texts));
    let redacted = Redactor::defaults().redact("mail", &unused).await.unwrap();
    assert!(!format!("{:?}", redacted.column).contains("a@example.com"));
    assert!(redacted.counts.is_empty(), "{:?}", redacted.counts);
}

#[tokio::test]
async fn possible_hits_remain_unless_the_minimum_is_lowered() {
    let text = "536904399 and 12";
    assert_eq!(one(&Redactor::defaults(), text).await, text);
    let lowered = Redactor::defaults().with_min_likelihood(Likelihood::Possible);
    assert_eq!(
        one(&lowered, text).await,
        "<US_DRIVER_LICENSE> and 12",
        "among equally long and likely hits the first by name wins"
    );
    let redacted = Redactor::defaults().redact("ssn", &column(&[Some(text)])).await.unwrap();
    assert_eq!(redacted.column.as_string::<i32>().value(0), "<US_SSN> and 12");
}

#[tokio::test]
async fn invalid_ranges_of_a_detector_are_an_error() {
    #[derive(Debug)]
    struct Wrong(std::ops::Range<usize>);
    #[async_trait]
    impl Detector for Wrong {
        async fn detect(&self, column: &ColumnTexts<'_>) -> Result<Vec<Vec<PiiHit>>> {
            let hit = PiiHit::new(EntityType::new("ADDRESS"), self.0.clone(), Likelihood::Certain);
            Ok(column.texts.iter().map(|_| vec![hit.clone()]).collect())
        }
    }
    for range in [0..9, 1..2, 1..1] {
        let e =
            Redactor::new(vec![Arc::new(Wrong(range.clone()))]).redact("at", &column(&[Some("é")])).await.unwrap_err();
        assert_eq!((e.code(), e.column()), ("InvalidHit", Some("at")), "{range:?}");
        assert!(!e.to_string().contains('é'), "{e}");
    }
    let own = Redactor::new(vec![Arc::new(Wrong(0..2))]);
    assert_eq!(one(&own, "é!").await, "<ADDRESS>!");
}

#[tokio::test]
async fn columns_are_classified_by_their_content() {
    let mails = column(&[Some("a@example.com"), Some(" b@example.org "), None, Some("")]);
    let notes = column(&[Some("call a@example.com"), Some("ok"), Some("ok"), Some("536-90-4399")]);
    let field = Arc::new(Field::new("mail", DataType::Utf8, true));
    let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, mails.clone())]));
    // Numbers are searched in their text form.
    let cards: ArrayRef =
        Arc::new(arrow::array::Int64Array::from(vec![Some(4_111_111_111_111_111), Some(7), None, None]));
    let sample = RecordBatch::try_from_iter([("note", notes), ("contact", nested), ("card", cards)]).unwrap();
    let classes =
        classify(&[sample.clone(), sample.slice(3, 1)], &default_detectors(), Likelihood::Likely).await.unwrap();
    let found: Vec<_> =
        classes.iter().map(|c| (c.column.as_str(), c.entity.name(), c.texts, c.whole, c.inside)).collect();
    let want = [
        ("note", "EMAIL_ADDRESS", 5, 0, 1),
        ("note", "US_SSN", 5, 2, 2),
        ("contact.mail", "EMAIL_ADDRESS", 2, 2, 2),
        ("card", "CREDIT_CARD", 2, 1, 1),
    ];
    assert_eq!(found.iter().collect::<std::collections::BTreeSet<_>>(), want.iter().collect());
}
