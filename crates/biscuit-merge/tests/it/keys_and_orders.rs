//! Which values are one key, and which order is newer, for the types that keys and orders have.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Date32Array, Decimal128Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, UInt64Array,
};
use biscuit_merge::{ChangeColumns, MergeSpec, ReductionReport, merge_and_retain_last};
use serde_json::json;

use crate::rows::{batch, objects};

fn array(array: impl arrow::array::Array + 'static) -> ArrayRef {
    Arc::new(array)
}

fn texts(values: &[&str]) -> ArrayRef {
    array(StringArray::from(values.to_vec()))
}

/// Merges rows with the columns `id`, `seq` and `v`.
fn merge(current: [ArrayRef; 3], changes: [ArrayRef; 3]) -> (RecordBatch, ReductionReport) {
    let rows = |columns: [ArrayRef; 3]| RecordBatch::try_from_iter(["id", "seq", "v"].into_iter().zip(columns));
    let (current, changes) = (rows(current).expect("current rows"), rows(changes).expect("changes"));
    let spec = MergeSpec::new(["id"], ["seq"]).expect("the specification is valid");
    let (mut rows, report) =
        merge_and_retain_last(&[current], &[changes], &spec, &ChangeColumns::default()).expect("the merge succeeds");
    (rows.remove(0), report)
}

/// Merges one change into one row. Returns whether the change found the row.
fn is_one_key(stored: ArrayRef, changed: ArrayRef) -> bool {
    let one = || array(Int64Array::from(vec![1]));
    let two = array(Int64Array::from(vec![2]));
    let (rows, report) = merge([stored, one(), texts(&["a"])], [changed, two, texts(&["b"])]);
    assert_eq!(report.rows.updated + report.rows.inserted, 1);
    rows.num_rows() == 1
}

/// Merges one change with the order `change` into a row with the order `stored`. Returns whether the change is newer.
fn is_newer(change: ArrayRef, stored: ArrayRef) -> bool {
    let one = || array(Int64Array::from(vec![1]));
    let (_, report) = merge([one(), stored, texts(&["a"])], [one(), change, texts(&["b"])]);
    assert_eq!(report.verdicts.updated + report.verdicts.late, 1, "the orders are not equal");
    report.verdicts.updated == 1
}

#[test]
fn equal_numbers_of_different_types_are_one_key() {
    let decimal = |unscaled: i128, scale: i8| {
        let decimal = Decimal128Array::from(vec![unscaled]).with_precision_and_scale(20, scale);
        array(decimal.expect("the decimal is valid"))
    };
    let seven: [ArrayRef; 4] = [
        array(Int16Array::from(vec![7])),
        array(Int32Array::from(vec![7])),
        array(Int64Array::from(vec![7])),
        decimal(7, 0),
    ];
    for stored in &seven {
        for changed in &seven {
            assert!(is_one_key(stored.clone(), changed.clone()), "{stored:?} and {changed:?}");
        }
    }
    assert!(is_one_key(decimal(70, 1), decimal(700, 2)));
    assert!(!is_one_key(decimal(70, 1), decimal(701, 2)));
    let great = u64::MAX;
    assert!(is_one_key(array(UInt64Array::from(vec![great])), decimal(i128::from(great), 0)));
    assert!(!is_one_key(array(UInt64Array::from(vec![great])), array(UInt64Array::from(vec![great - 1]))));
}

#[test]
fn texts_and_bytes_of_a_key_are_compared_exactly() {
    assert!(is_one_key(texts(&["a\0b"]), texts(&["a\0b"])));
    for (stored, changed) in [("a", "A"), ("a", "a "), ("a", "a\0"), ("7", "07"), ("", "\0")] {
        assert!(!is_one_key(texts(&[stored]), texts(&[changed])), "{stored:?} and {changed:?}");
    }
    let bytes = |value: &[u8]| array(BinaryArray::from(vec![value]));
    assert!(is_one_key(bytes(b"\xff\x00"), bytes(b"\xff\x00")));
    assert!(!is_one_key(bytes(b"\xff\x00"), bytes(b"\xff")));
}

#[test]
fn parts_of_a_composite_key_are_not_run_together() {
    let spec = MergeSpec::new(["a", "b"], ["seq"]).expect("the specification is valid");
    let current = batch(&[json!({"a": "x", "b": "yz", "seq": 1, "v": "old"})]);
    let changes = [
        json!({"a": "xy", "b": "z", "seq": 2, "v": "1"}),
        json!({"a": "", "b": "xyz", "seq": 2, "v": "2"}),
        json!({"a": "x", "b": "yz", "seq": 2, "v": "3"}),
    ];
    let (rows, report) = merge_and_retain_last(&[current], &[batch(&changes)], &spec, &ChangeColumns::default())
        .expect("the merge succeeds");
    let sorted = [&changes[2], &changes[1], &changes[0]].map(Clone::clone);
    assert_eq!(objects(&rows), sorted, "the updated row, then the new rows by their key");
    assert_eq!((report.verdicts.updated, report.verdicts.inserted), (1, 2));
}

#[test]
fn order_columns_are_compared_one_after_the_other() {
    let spec = MergeSpec::new(["id"], ["file", "position"]).expect("the specification is valid");
    let records = [
        json!({"id": 1, "file": 2, "position": 9, "v": "older"}),
        json!({"id": 1, "file": 10, "position": 1, "v": "newest"}),
        json!({"id": 1, "file": 9, "position": 100, "v": "older"}),
    ];
    let (rows, _) =
        merge_and_retain_last(&[], &[batch(&records)], &spec, &ChangeColumns::default()).expect("the merge succeeds");
    assert_eq!(objects(&rows), [records[1].clone()]);
}

#[test]
fn numbers_are_ordered_by_value() {
    let number = |n: i64| array(Int64Array::from(vec![n]));
    for (newer, older) in [(10, 9), (0, -1), (-9, -10), (i64::MAX, i64::MIN), (1_000, 999)] {
        assert!(is_newer(number(newer), number(older)), "{newer} is newer than {older}");
        assert!(!is_newer(number(older), number(newer)), "{older} is older than {newer}");
    }
}

#[test]
fn instants_are_ordered_in_all_their_types() {
    let micros = |n: i64| array(TimestampMicrosecondArray::from(vec![n]));
    let millis = |n: i64| array(TimestampMillisecondArray::from(vec![n]));
    assert!(is_newer(micros(1_000_001), millis(1_000)));
    assert!(!is_newer(millis(1_000), micros(1_000_001)));
    assert!(is_newer(micros(0), micros(-1)));
    let days = |n: i32| array(Date32Array::from(vec![n]));
    assert!(is_newer(days(0), days(-1)) && !is_newer(days(19_000), days(19_001)));
}

#[test]
fn instants_as_text_are_ordered_by_their_time() {
    for (newer, older) in [
        ("2024-01-01T00:30:00Z", "2024-01-01T01:00:00+01:00"),
        ("2024-01-01 00:00:00.000001", "2024-01-01 00:00:00"),
        ("2024-01-01T00:00:00.1", "2024-01-01T00:00:00.09"),
    ] {
        assert!(is_newer(texts(&[newer]), texts(&[older])), "{newer} is newer than {older}");
        assert!(!is_newer(texts(&[older]), texts(&[newer])), "{older} is older than {newer}");
    }
}

#[test]
fn log_sequence_numbers_are_ordered_as_numbers() {
    for (newer, older) in [("16/0", "9/FFFFFFFF"), ("0/10", "0/F"), ("A/0", "9/FFFFFFFF")] {
        assert!(is_newer(texts(&[newer]), texts(&[older])), "{newer} is newer than {older}");
        assert!(!is_newer(texts(&[older]), texts(&[newer])), "{older} is older than {newer}");
    }
}
