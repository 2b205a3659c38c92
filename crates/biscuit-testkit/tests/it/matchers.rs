//! The matchers see every difference, and nothing else.

use std::sync::Arc;

use biscuit_testkit::{RowOrdering, assert_rows_eq, assert_rows_snapshot, diff_rows, diff_rows_with, json_rows, table};
use datafusion::arrow::array::{ArrayRef, Float64Array, RecordBatch};

fn floats(values: &[f64]) -> RecordBatch {
    RecordBatch::try_from_iter([("f", Arc::new(Float64Array::from(values.to_vec())) as ArrayRef)])
        .expect("the batch is valid")
}

#[test]
fn types_matter_even_if_values_look_alike() {
    let diff = diff_rows(&[table("a:int\n1")], &[table("a:bigint\n1")]).expect("the rows differ");
    assert_eq!(diff, "-column a: int\n+column a: bigint\n");
    assert!(diff_rows(&[table("a:int\n1")], &[table("a:boolean\ntrue")]).is_some());
    assert!(diff_rows(&[table("a:int\n1")], &[table("b:int\n1")]).is_some());
}

#[test]
fn rows_are_compared_in_any_order_by_default() {
    let (a, b) = (table("a:int\n1\n2"), table("a:int\n2\n1"));
    assert_eq!(diff_rows(std::slice::from_ref(&a), std::slice::from_ref(&b)), None);
    assert_eq!(diff_rows_with(&[a], &[b], RowOrdering::SameOrder).as_deref(), Some("-0: 1\n+0: 2\n-1: 2\n+1: 1\n"));
    assert_eq!(diff_rows(&[table("a:int\n1\n1")], &[table("a:int\n1")]).as_deref(), Some("-1\n"));
}

#[test]
fn nan_equals_nan_and_zeros_have_signs() {
    assert_eq!(diff_rows(&[floats(&[f64::NAN])], &[floats(&[f64::NAN])]), None);
    assert!(diff_rows(&[floats(&[0.0])], &[floats(&[-0.0])]).is_some());
    assert!(diff_rows(&[floats(&[0.1 + 0.2])], &[floats(&[0.3])]).is_some());
}

#[test]
fn null_differs_from_an_empty_text_and_from_the_text_null() {
    let null = table("a:string | b:int\nnull | 1");
    let empty = table("a:string | b:int\n\"\" | 1");
    assert!(diff_rows(std::slice::from_ref(&null), &[empty]).is_some());
    assert!(diff_rows(&[null], &[json_rows(r#"{"a":"null","b":1}"#)]).is_some());
}

#[test]
fn nested_values_are_compared_by_name_and_value() {
    let a = json_rows(r#"{"s":{"x":1,"y":2},"l":[1,2]}"#);
    assert_eq!(diff_rows(std::slice::from_ref(&a), std::slice::from_ref(&a)), None);
    assert!(diff_rows(std::slice::from_ref(&a), &[json_rows(r#"{"s":{"x":1,"z":2},"l":[1,2]}"#)]).is_some());
    assert!(diff_rows(&[a], &[json_rows(r#"{"s":{"x":1,"y":2},"l":[2,1]}"#)]).is_some());
}

#[test]
#[should_panic(expected = "-2 | b")]
fn failed_assertion_shows_the_rows() {
    assert_rows_eq!(table("id:int | v:string\n1 | a\n2 | b"), table("id:int | v:string\n1 | a"));
}

#[test]
#[should_panic(expected = "has 1 cells, but the header has 2")]
fn row_with_missing_cells_is_refused() {
    table("a:int | b:int\n1");
}

#[test]
fn snapshots_are_sorted_and_typed() {
    assert_rows_snapshot!(table("id:int | v:string\n10 | null\n9 | a\n9 | \"\""), @r#"
    id:int | v:string
    9      | ""
    9      | a
    10     | null
    "#);
}
