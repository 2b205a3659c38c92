//! Encryption with keys of columns and of subjects, and as messages.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    LargeStringArray, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Int32Type};
use biscuit_pii::encrypt::{EncryptedForm, EnvelopeEncryptor, SubjectKeys, ValueEncryptor};
use biscuit_pii::keys::{KeyBytes, KeyCache, KeyContext, KeyLimits, RootKeys};
use biscuit_pii::tokens::MemoryStore;
use proptest::prelude::*;

use crate::keys::{Counted, SetClock};

fn roots(current: u16, versions: u16) -> RootKeys {
    RootKeys::new(current, (1..=versions).map(|v| (v, KeyBytes::new([v as u8; 32]))).collect::<BTreeMap<_, _>>())
        .expect("the keys are good")
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn some() -> ArrayRef {
    texts(&[Some("josé@example.com"), None, Some(""), Some("a@b.c"), Some("a@b.c")])
}

fn block_on<T>(of: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts").block_on(of)
}

#[tokio::test]
async fn values_are_restored_and_null_and_empty_texts_remain() {
    for form in [EncryptedForm::Binary, EncryptedForm::Text] {
        let cells = ValueEncryptor::new(roots(1, 1), "customer").with_form(form);
        let sealed = cells.encrypt("email", &some()).unwrap();
        assert_eq!((sealed.len(), sealed.null_count(), sealed.is_null(1)), (5, 1, true));
        let bytes = cast(&sealed, &DataType::LargeBinary).unwrap();
        let bytes = bytes.as_binary::<i64>();
        assert!(bytes.value(2).is_empty());
        assert_ne!(bytes.value(3), bytes.value(4), "equal values have different ciphertexts");
        if form == EncryptedForm::Binary {
            assert_eq!(bytes.value(3).len(), "a@b.c".len() + 39);
        }
        let back = cells.decrypt("email", &sealed, &DataType::Utf8).await.unwrap();
        assert_eq!((&back.column, back.forgotten), (&some(), 0));
    }
}

#[tokio::test]
async fn columns_of_every_flat_type_are_restored_with_their_type() {
    let cells = ValueEncryptor::new(roots(1, 1), "t");
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a"), Some("b")].into_iter().collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(LargeStringArray::from(vec![Some("é"), None])),
        Arc::new(StringViewArray::from(vec![Some("a text that is longer than twelve bytes"), None])),
        Arc::new(BinaryArray::from(vec![Some(&b"\xff\x00"[..]), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
        Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), None, Some(f64::NEG_INFINITY), Some(1e300)])),
        Arc::new(Date32Array::from(vec![Some(-719_162), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_456), None]).with_timezone("UTC")),
        Arc::new(Decimal128Array::from(vec![Some(-12345), None]).with_precision_and_scale(20, 4).unwrap()),
        cast(&(Arc::new(dictionary) as ArrayRef), &DataType::Utf8).unwrap(),
    ];
    for column in columns {
        let sealed = cells.encrypt("c", &column).unwrap();
        let back = cells.decrypt("c", &sealed, column.data_type()).await.unwrap();
        assert_eq!(&back.column, &column, "{}", column.data_type());
    }
    let nested: ArrayRef = Arc::new(arrow::array::StructArray::new_empty_fields(1, None));
    let e = cells.encrypt("c", &nested).unwrap_err();
    assert_eq!((e.code(), e.column()), ("NotText", Some("c")));
}

#[tokio::test]
async fn value_is_decrypted_only_unchanged_and_in_its_table_and_column() {
    let cells = ValueEncryptor::new(roots(1, 1), "customer");
    let sealed = cells.encrypt("email", &texts(&[Some("a@b.c"), Some("d@e.f")])).unwrap();
    let e = cells.decrypt("login", &sealed, &DataType::Utf8).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        "CannotDecrypt: column `login`: the value does not belong to column `login` of table `customer`, or was changed (the batch, row 1)"
    );
    let other = ValueEncryptor::new(roots(1, 1), "supplier");
    assert_eq!(other.decrypt("email", &sealed, &DataType::Utf8).await.unwrap_err().code(), "CannotDecrypt");
    let other = ValueEncryptor::new(RootKeys::in_memory().unwrap(), "customer");
    assert_eq!(other.decrypt("email", &sealed, &DataType::Utf8).await.unwrap_err().code(), "CannotDecrypt");
    // Rows may be sorted, filtered and mixed.
    let swapped = arrow::compute::take(&sealed, &arrow::array::UInt32Array::from(vec![1, 0, 1]), None).unwrap();
    let back = cells.decrypt("email", &swapped, &DataType::Utf8).await.unwrap().column;
    assert_eq!(&back, &texts(&[Some("d@e.f"), Some("a@b.c"), Some("d@e.f")]));
    let whole = sealed.as_binary::<i32>().value(1).to_vec();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        let column: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&whole[..]), None, Some(&damaged)]));
        let e = cells.decrypt("email", &column, &DataType::Utf8).await.unwrap_err();
        // A changed version has no key; every other change makes decryption fail.
        assert!(["CannotDecrypt", "UnknownKeyVersion", "NoSubjects"].contains(&e.code()), "byte {at}: {e}");
        if e.code() == "CannotDecrypt" {
            assert!(e.message().contains("row 3"), "{e}");
        }
    }
    for length in 0..whole.len() {
        let column: ArrayRef = Arc::new(BinaryArray::from(vec![&whole[..length]]));
        let opened = cells.decrypt("email", &column, &DataType::Utf8).await;
        assert_eq!(opened.is_ok(), length == 0, "a cell that was cut to {length} bytes");
    }
    let e = cells.decrypt("email", &some(), &DataType::Utf8).await.unwrap_err();
    assert_eq!(
        e.message(),
        "column `email`: the value is not base64url (the batch, row 1)",
        "the message contains no value"
    );
}

#[tokio::test]
async fn after_rotation_new_rows_use_the_new_key_and_old_rows_are_readable() {
    let old = ValueEncryptor::new(roots(1, 1), "t").encrypt("c", &some()).unwrap();
    let cells = ValueEncryptor::new(roots(2, 2), "t");
    let new = cells.encrypt("c", &some()).unwrap();
    let version = |column: &ArrayRef| u16::from_be_bytes(column.as_binary::<i32>().value(0)[1..3].try_into().unwrap());
    assert_eq!((version(&old), version(&new)), (1, 2));
    let both = concat(&[&old, &new]).unwrap();
    let back = cells.decrypt("c", &both, &DataType::Utf8).await.unwrap().column;
    assert_eq!(&back, &concat(&[&some(), &some()]).unwrap());
    let without = ValueEncryptor::new(roots(1, 1), "t").decrypt("c", &new, &DataType::Utf8).await.unwrap_err();
    assert_eq!(without.to_string(), "UnknownKeyVersion: there is no root key 2; the versions are 1");
}

/// Returns salt and counter of each cell.
fn nonces(column: &ArrayRef) -> Vec<(Vec<u8>, u32)> {
    let cells = column.as_binary::<i32>().iter().flatten().filter(|cell| !cell.is_empty());
    cells
        .map(|cell| (cell[3..19].to_vec(), u32::from_be_bytes(cell[19..23].try_into().expect("there are four bytes"))))
        .collect()
}

#[test]
fn no_key_repeats_a_nonce_and_keys_change_with_age_bytes_and_messages() {
    let clock = Arc::new(SetClock::default());
    let limits = KeyLimits::default().with_messages(7).with_bytes(1000).with_age(Duration::from_secs(60));
    let cells = ValueEncryptor::new(roots(1, 1), "t").with_limits(limits).with_clock(clock.clone());
    let batch = |rows: usize, bytes: usize| -> ArrayRef { Arc::new(StringArray::from(vec!["x".repeat(bytes); rows])) };
    let mut all = vec![];
    let mut salts = |rows, bytes| {
        let made = nonces(&cells.encrypt("c", &batch(rows, bytes)).unwrap());
        let salts: HashSet<Vec<u8>> = made.iter().map(|(salt, _)| salt.clone()).collect();
        let before = all.len();
        all.extend(made);
        let known: HashSet<Vec<u8>> = all[..before].iter().map(|(salt, _): &(Vec<u8>, u32)| salt.clone()).collect();
        (salts.len(), salts.difference(&known).count())
    };
    assert_eq!(salts(3, 10), (1, 1));
    assert_eq!(salts(4, 10), (1, 0), "the same key, up to seven");
    assert_eq!(salts(1, 10), (1, 1), "an eighth message");
    assert_eq!(salts(1, 2000), (1, 1), "more than a thousand bytes");
    assert_eq!(salts(20, 1), (3, 3), "more than seven at once");
    assert_eq!(salts(1, 1), (1, 0));
    clock.forward(Duration::from_secs(60));
    assert_eq!(salts(1, 1), (1, 1), "a minute");
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    let other = nonces(&ValueEncryptor::new(roots(1, 1), "t").encrypt("c", &batch(1, 1)).unwrap());
    assert!(all.iter().all(|(salt, _)| *salt != other[0].0), "another process has other keys");
}

#[test]
fn values_encrypted_by_many_threads_have_different_nonces() {
    let cells = ValueEncryptor::new(roots(1, 1), "t").with_limits(KeyLimits::default().with_messages(1000));
    let made: Vec<(Vec<u8>, u32)> = std::thread::scope(|threads| {
        let work = || {
            (0..20)
                .flat_map(|n| nonces(&cells.encrypt("c", &texts(&vec![Some("x"); 7 + n])).unwrap()))
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..16).map(|_| threads.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().collect::<HashSet<_>>().len(), made.len());
}

#[tokio::test]
async fn forgotten_subject_is_unreadable_in_every_copy() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SetClock::default());
    let subjects = || Arc::new(SubjectKeys::new(store.clone(), roots(1, 1)).with_clock(clock.clone()));
    let cells = |table: &str| ValueEncryptor::new(roots(1, 1), table).with_subjects(subjects());
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1, 3]));
    let values = texts(&[Some("ann"), Some("ben"), Some("ann again"), None]);
    let january = cells("customer").encrypt_for("name", &values, &ids).await.unwrap();
    let february = cells("customer").encrypt_for("name", &values, &ids).await.unwrap();
    assert_eq!((january.forgotten, january.column.len()), (0, 4));
    assert_eq!(store.records().len(), 2, "a subject without values has no key");
    let kept = format!("{:?}", store.records());
    assert!(!kept.contains("subject:1:") && !kept.contains("ann"), "{kept}");
    let shown = async |sealed: &ArrayRef| {
        let back = cells("customer").decrypt("name", sealed, &DataType::Utf8).await.unwrap();
        (back.column, back.forgotten)
    };
    assert_eq!(shown(&january.column).await, (values.clone(), 0));

    subjects().forget("1").await.unwrap();
    let without = texts(&[None, Some("ben"), None, None]);
    for sealed in [&january.column, &february.column] {
        assert_eq!(shown(sealed).await, (without.clone(), 2));
    }
    let held = cells("customer");
    assert_eq!(held.decrypt("name", &january.column, &DataType::Utf8).await.unwrap().forgotten, 2);
    // Old input that is read again does not restore the subject.
    let again = held.encrypt_for("name", &values, &ids).await.unwrap();
    assert_eq!((again.forgotten, again.column.null_count()), (2, 3));
    assert!(subjects().is_forgotten("1").await.unwrap() && !subjects().is_forgotten("2").await.unwrap());
    // A subject that is readmitted has a new key, and its earlier values remain unreadable.
    subjects().readmit("1").await.unwrap();
    subjects().readmit("2").await.unwrap();
    let back = cells("customer").encrypt_for("name", &values, &ids).await.unwrap();
    assert_eq!(shown(&back.column).await, (values.clone(), 0));
    assert_eq!(shown(&january.column).await, (without, 2));

    // A wrong store is an error: nulls would be a loss of data.
    let elsewhere = Arc::new(SubjectKeys::new(Arc::new(MemoryStore::new()), roots(1, 1)));
    let e = ValueEncryptor::new(roots(1, 1), "customer")
        .with_subjects(elsewhere)
        .decrypt("name", &january.column, &DataType::Utf8)
        .await;
    assert_eq!(e.unwrap_err().code(), "UnknownSubject");
}

#[tokio::test]
async fn subject_key_is_cached_for_its_age_and_then_read_again() {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(SetClock::default()));
    let subjects = Arc::new(
        SubjectKeys::new(store.clone(), roots(1, 1)).with_clock(clock.clone()).with_age(Duration::from_secs(60)),
    );
    let cells = ValueEncryptor::new(roots(1, 1), "t").with_subjects(subjects);
    let ids = texts(&[Some("s")]);
    let sealed = cells.encrypt_for("c", &texts(&[Some("v")]), &ids).await.unwrap().column;
    SubjectKeys::new(store, roots(1, 1)).forget("s").await.unwrap();
    let forgotten = async || cells.decrypt("c", &sealed, &DataType::Utf8).await.unwrap().forgotten;
    assert_eq!(forgotten().await, 0, "another process has forgotten it");
    clock.forward(Duration::from_secs(60));
    assert_eq!(forgotten().await, 1);
}

#[tokio::test]
async fn subject_keys_survive_a_rotation_and_are_forgotten_in_all_versions() {
    let store = Arc::new(MemoryStore::new());
    let cells = |current, versions| {
        ValueEncryptor::new(roots(current, versions), "t")
            .with_subjects(Arc::new(SubjectKeys::new(store.clone(), roots(current, versions))))
    };
    let ids = texts(&[Some("s")]);
    let value = texts(&[Some("v")]);
    let old = cells(1, 1).encrypt_for("c", &value, &ids).await.unwrap().column;
    let new = cells(2, 2).encrypt_for("c", &value, &ids).await.unwrap().column;
    assert_eq!(store.records().len(), 1, "the subject has its key");
    let both = concat(&[&old, &new]).unwrap();
    assert_eq!(
        &cells(2, 2).decrypt("c", &both, &DataType::Utf8).await.unwrap().column,
        &texts(&[Some("v"), Some("v")])
    );
    SubjectKeys::new(store.clone(), roots(2, 2)).forget("s").await.unwrap();
    assert_eq!(cells(2, 2).decrypt("c", &both, &DataType::Utf8).await.unwrap().forgotten, 2);
    assert_eq!(cells(1, 2).encrypt_for("c", &value, &ids).await.unwrap().forgotten, 1);
}

#[tokio::test]
async fn value_without_subject_is_an_error_but_an_empty_value_needs_none() {
    let subjects = Arc::new(SubjectKeys::new(Arc::new(MemoryStore::new()), roots(1, 1)));
    let cells = ValueEncryptor::new(roots(1, 1), "t").with_subjects(subjects);
    let ids = texts(&[None, None, Some("s"), None]);
    let e = cells.encrypt_for("c", &texts(&[None, Some(""), Some("v"), Some("w")]), &ids).await.unwrap_err();
    assert_eq!(e.to_string(), "NullSubject: column `c`: the value has no subject (the batch, row 4)");
    let e = ValueEncryptor::new(roots(1, 1), "t").encrypt_for("c", &ids, &ids).await.unwrap_err();
    assert_eq!(e.code(), "NoSubjects");
}

fn messages(provider: &Arc<Counted>, table: &str) -> EnvelopeEncryptor {
    let context = KeyContext::from([("table".into(), table.into()), ("ключ".into(), "é".into())]);
    EnvelopeEncryptor::new(KeyCache::new(provider.clone(), KeyLimits::default()), context)
}

#[tokio::test]
async fn messages_of_a_column_share_a_data_key_and_open_only_in_their_column() {
    let provider = Arc::new(Counted::new());
    let of = messages(&provider, "customer");
    let sealed = of.encrypt("email", &some()).await.unwrap();
    assert_eq!(provider.calls(), (1, 0), "one data key for all");
    assert_eq!(&of.decrypt("email", &sealed, &DataType::Utf8).await.unwrap(), &some());
    assert_eq!(provider.calls(), (1, 1));
    let e = of.decrypt("login", &sealed, &DataType::Utf8).await.unwrap_err();
    assert_eq!(
        e.message(),
        "column `login`: the value cannot be decrypted: the message has another `column` in its context (the batch, row 1)"
    );
    let e = messages(&provider, "supplier").decrypt("email", &sealed, &DataType::Utf8).await.unwrap_err();
    assert_eq!(e.code(), "CannotDecrypt");
    let none = texts(&[None, Some("")]);
    assert_eq!(messages(&provider, "t").encrypt("c", &none).await.unwrap().null_count(), 1);
    assert_eq!(provider.calls(), (1, 1), "no data key is created if there is nothing to encrypt");
}

#[tokio::test]
async fn message_of_any_length_opens_and_a_changed_message_does_not() {
    let provider = Arc::new(Counted::new());
    let of = messages(&provider, "t");
    for length in [0, 1, 100, 4095, 4096, 4097, 8192, 20_000] {
        let plain: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let sealed = of.seal(&plain).await.unwrap();
        assert_eq!(of.open(&sealed).await.unwrap().as_slice(), plain, "{length}");
        for at in [sealed.len() - 1, 0] {
            assert!(
                of.open(&[&sealed[..at], &sealed[at + 1..]].concat()).await.is_err(),
                "{length}, without byte {at}"
            );
        }
        assert!(of.open(&[&sealed[..], &[0]].concat()).await.is_err(), "bytes after the end");
    }
    let sealed = of.seal(b"a text").await.unwrap();
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert!(of.open(&damaged).await.is_err(), "byte {at}");
        assert!(of.open(&sealed[..at]).await.is_err(), "cut at {at}");
    }
    let other =
        EnvelopeEncryptor::new(KeyCache::new(Arc::new(Counted::new()), KeyLimits::default()), KeyContext::new());
    assert_eq!(other.open(&sealed).await.unwrap_err().code(), "CannotUnseal");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_texts_are_restored_from_cells_and_messages(values in proptest::collection::vec(proptest::option::of(".{0,40}"), 0..30)) {
        let column: ArrayRef = Arc::new(StringArray::from(values));
        let cells = ValueEncryptor::new(roots(1, 1), "t").with_form(EncryptedForm::Text);
        let sealed = cells.encrypt("c", &column).unwrap();
        prop_assert_eq!(&block_on(cells.decrypt("c", &sealed, &DataType::Utf8)).unwrap().column, &column);
        let of = messages(&Arc::new(Counted::new()), "t");
        let sealed = block_on(of.encrypt("c", &column)).unwrap();
        prop_assert_eq!(&block_on(of.decrypt("c", &sealed, &DataType::Utf8)).unwrap(), &column);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        let column: ArrayRef = Arc::new(BinaryArray::from(vec![&bytes[..]]));
        let subjects = Arc::new(SubjectKeys::new(Arc::new(MemoryStore::new()), roots(1, 1)));
        let cells = ValueEncryptor::new(roots(1, 1), "t").with_subjects(subjects);
        prop_assert!(block_on(cells.decrypt("c", &column, &DataType::Binary)).is_err());
        prop_assert!(block_on(messages(&Arc::new(Counted::new()), "t").open(&bytes)).is_err());
    }
}
