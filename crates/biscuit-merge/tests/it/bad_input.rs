//! Invalid input: the code of the error, and a message that names the column and the row.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::Error;
use biscuit_merge::internal::{ChangeSet, RawSource, TargetRows, raw_row_changes};
use biscuit_merge::{BadRows, ChangeColumns, MergeSpec, OpMap, merge_and_retain_last};
use serde_json::{Value, json};

use crate::rows::batch;

fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("the specification is valid")
}

/// Merges changes into the row `{"id": 1, "seq": 1, "v": "a"}`, and returns the error.
fn refused_with(changes: &RecordBatch, spec: &MergeSpec, columns: &ChangeColumns) -> Error {
    let current = batch(&[json!({"id": 1, "seq": 1, "v": "a"})]);
    merge_and_retain_last(&[current], std::slice::from_ref(changes), spec, columns).expect_err("the input is invalid")
}

fn refused(changes: &[Value]) -> Error {
    refused_with(&batch(changes), &spec(), &ChangeColumns::default().with_op("op"))
}

#[test]
fn errors_of_records_name_column_and_row() {
    let good = json!({"id": 1, "seq": 2, "v": "b", "op": "u"});
    for (bad, want) in [
        (json!({"id": null, "seq": 2, "op": "u"}), "NullKey: key column `id` is null (the changes, row 2)"),
        (json!({"id": 1, "seq": null, "op": "u"}), "NullOrder: order column `seq` is null (the changes, row 2)"),
        (json!({"id": null, "seq": 2, "op": "d"}), "NullKey: key column `id` is null (the changes, row 2)"),
        (json!({"id": null, "seq": null, "op": "t"}), "NullOrder: order column `seq` is null (the changes, row 2)"),
        (json!({"id": 1, "seq": 2, "op": "x"}), "UnknownOp: column `op` contains an unknown operation code"),
        (json!({"id": 1, "seq": 2, "v": "c", "op": "u"}), "AmbiguousOrder: two records of one key have the same order"),
        (
            json!({"id": 1, "seq": 2, "v": "__debezium_unavailable_value", "op": "c"}),
            "AmbiguousPlaceholder: column `v` of a create contains the placeholder",
        ),
    ] {
        let e = refused(&[good.clone(), bad]).to_string();
        assert!(e.starts_with(want) && e.contains("(the changes, row 2)"), "{e}\nnot\n{want}");
    }
}

#[test]
fn rows_are_counted_through_all_batches() {
    let good = |id: i64| json!({"id": id, "seq": 2, "v": "b"});
    let changes = [vec![good(1), good(2)], vec![good(3), json!({"id": null, "seq": 2, "v": "b"})]];
    let changes = changes.map(|rows| batch(&rows));
    let e = merge_and_retain_last(&[], &changes, &spec(), &ChangeColumns::default()).expect_err("a key is null");
    assert_eq!(e.to_string(), "NullKey: key column `id` is null (the changes, row 4)");
}

#[test]
fn columns_of_the_key_and_the_order_must_exist() {
    for (record, want) in [
        (json!({"seq": 2, "v": "b"}), "MissingColumn: `the changes` has no column `id`; its columns are seq, v"),
        (json!({"id": 1, "v": "b"}), "MissingColumn: `the changes` has no column `seq`; its columns are id, v"),
    ] {
        assert_eq!(refused(&[record]).to_string(), want);
    }
    let current = batch(&[json!({"seq": 1, "v": "a"})]);
    let changes = batch(&[json!({"id": 1, "seq": 2, "v": "b"})]);
    let e =
        merge_and_retain_last(&[current], &[changes], &spec(), &ChangeColumns::default()).expect_err("there is no key");
    assert_eq!(e.code(), "MissingColumn");
}

#[test]
fn floats_cannot_be_keys_or_orders() {
    let one = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let float = || Arc::new(Float64Array::from(vec![1.0])) as ArrayRef;
    for (id, seq, code) in [(float(), one(), "KeyType"), (one(), float(), "OrderType")] {
        let changes = RecordBatch::try_from_iter([("id", id), ("seq", seq)]).expect("the columns are valid");
        let e = merge_and_retain_last(&[], &[changes], &spec(), &ChangeColumns::default())
            .expect_err("the order is a float");
        assert_eq!(e.code(), code);
    }
}

#[test]
fn types_without_a_common_type_are_refused() {
    for record in [json!({"id": "1", "seq": 2, "v": "b"}), json!({"id": 1, "seq": 2, "v": 7})] {
        assert_eq!(refused(&[record]).code(), "NoCommonType");
    }
}

#[test]
fn text_that_does_not_sort_by_value_cannot_be_an_order() {
    for text in ["10", "1.5", " 7 ", "12/31/2023", "31.12.2023 10:00"] {
        let record = json!({"id": 1, "seq": text});
        let e = merge_and_retain_last(&[], &[batch(std::slice::from_ref(&record))], &spec(), &ChangeColumns::default());
        assert_eq!(e.expect_err(text).code(), "TextOrder");
        let change = batch(&[json!({"id": 2, "seq": "2024-01-01"})]);
        let e = merge_and_retain_last(&[batch(&[record])], &[change], &spec(), &ChangeColumns::default());
        assert_eq!(e.expect_err(text).code(), "TextOrder", "in a stored row");
    }
}

#[test]
fn stored_rows_without_a_key_are_refused() {
    let current = batch(&[json!({"id": 1, "seq": 1}), json!({"id": null, "seq": 1})]);
    let changes = batch(&[json!({"id": 1, "seq": 2})]);
    let e =
        merge_and_retain_last(&[current], &[changes], &spec(), &ChangeColumns::default()).expect_err("a key is null");
    assert_eq!(e.to_string(), "NullKey: key column `id` is null in a stored row (the current rows, row 2)");
}

#[test]
fn names_of_columns_must_differ_in_more_than_letter_case() {
    let named = |names: [&str; 3]| {
        let fields = names.map(|name| Field::new(name, DataType::Int64, true)).to_vec();
        let column = || Arc::new(Int64Array::from(vec![2])) as ArrayRef;
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![column(), column(), column()])
            .expect("the columns are valid")
    };
    for (names, code) in [(["id", "seq", "id"], "DuplicateColumn"), (["id", "seq", "ID"], "ColumnCase")] {
        let e = refused_with(&named(names), &spec(), &ChangeColumns::default());
        assert_eq!(e.code(), code);
        let change = batch(&[json!({"id": 1, "seq": 2})]);
        let e = merge_and_retain_last(&[named(names)], &[change], &spec(), &ChangeColumns::default());
        assert_eq!(e.expect_err("the names of the current rows are refused").code(), code);
    }
    let e = refused(&[json!({"id": 1, "seq": 2, "V": "b"})]);
    assert_eq!(e.code(), "ColumnCase", "`v` of the current rows and `V` of the changes");
}

#[test]
fn operation_columns_and_delete_flags_have_a_type() {
    let one = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let two = || Arc::new(Int64Array::from(vec![2])) as ArrayRef;
    let changes = |column: ArrayRef| {
        RecordBatch::try_from_iter([("id", one()), ("seq", two()), ("x", column)]).expect("the columns are valid")
    };
    let op = ChangeColumns::default().with_op("x");
    let e = refused_with(&changes(Arc::new(BooleanArray::from(vec![true]))), &spec(), &op);
    assert_eq!(e.code(), "WrongType", "an operation code is not boolean");
    let flag = ChangeColumns::default().with_delete_column("x");
    let e = refused_with(&changes(Arc::new(Float64Array::from(vec![1.0]))), &spec(), &flag);
    assert_eq!(e.code(), "WrongType", "a delete flag is not a float");
    let e = refused_with(&batch(&[json!({"id": 1, "seq": 2, "x": "perhaps"})]), &spec(), &flag);
    assert_eq!((e.code(), e.column()), ("WrongType", Some("x")));
}

#[test]
fn rows_with_a_delete_flag_are_deleted() {
    let columns = ChangeColumns::default().with_delete_column("gone");
    for (flag, deleted) in [("true", true), ("N", false), ("2024-01-01T00:00:00Z", true), ("", false), ("1", true)] {
        let current = batch(&[json!({"id": 1, "seq": 1})]);
        let change = batch(&[json!({"id": 1, "seq": 2, "gone": flag})]);
        let (rows, report) = merge_and_retain_last(&[current], &[change], &spec(), &columns).expect("a flag");
        assert_eq!(
            (report.verdicts.deleted, rows[0].num_rows()),
            (u64::from(deleted), usize::from(!deleted)),
            "{flag}"
        );
        assert!(rows[0].column_by_name("gone").is_none(), "the flag is not stored");
    }
}

#[test]
fn nulls_in_columns_that_must_not_be_null_are_refused() {
    let columns = ChangeColumns::default().with_op("op").with_not_null(["v"]);
    let update = |id: i64, v: Option<&str>| json!({"id": id, "seq": 2, "v": v, "op": "u"});
    let e = refused_with(&batch(&[update(2, Some("b")), update(1, None)]), &spec(), &columns);
    assert_eq!((e.code(), e.column()), ("NullNotAllowed", Some("v")));
    let delete = batch(&[json!({"id": 1, "seq": 2, "v": null, "op": "d"})]);
    let current = batch(&[json!({"id": 1, "seq": 1, "v": "a"})]);
    let (_, report) = merge_and_retain_last(&[current], &[delete], &spec(), &columns).expect("a delete has no values");
    assert_eq!(report.verdicts.deleted, 1);
}

#[test]
fn specifications_that_cannot_work_are_refused() {
    let none: [&str; 0] = [];
    for spec in [MergeSpec::new(none, ["seq"]), MergeSpec::new(["id"], none), MergeSpec::new(["id"], ["seq", "seq"])] {
        assert_eq!(spec.expect_err("the specification is refused").code(), "InvalidArguments");
    }
    let dropped = spec().with_drop_columns(["id"]);
    let e = refused_with(&batch(&[json!({"id": 1, "seq": 2})]), &dropped, &ChangeColumns::default());
    assert_eq!(e.code(), "InvalidArguments");
    let ranked = spec().with_op_rank(["i", "d"]);
    let columns = ChangeColumns::default().with_op("op");
    let e = refused_with(&batch(&[json!({"id": 1, "seq": 2, "op": "u"})]), &ranked, &columns);
    assert_eq!(e.code(), "UnknownOp", "a code that has no rank");
    for entries in [["X"], ["X=perhaps"], ["=delete"]] {
        assert_eq!(OpMap::parse(entries).expect_err("the map of operations is refused").code(), "InvalidOpMap");
    }
    let odd = ChangeColumns::default().with_placeholder("hex:abc");
    let e = refused_with(&batch(&[json!({"id": 1, "seq": 2})]), &spec(), &odd);
    assert_eq!(e.code(), "InvalidPlaceholder");
}

#[test]
fn invalid_records_are_quarantined_and_the_others_are_used() {
    let records = [
        json!({"id": 1, "seq": 2, "v": "b"}),
        json!({"id": null, "seq": 2, "v": "c"}),
        json!({"id": 3, "seq": null, "v": "d"}),
        json!({"id": 4, "seq": 2, "v": "e"}),
        json!({"id": 4, "seq": 2, "v": "f"}),
    ];
    let raws = RawSource::Each(records.iter().map(|record| record.to_string().into_bytes().into()).collect());
    let places = (1..=records.len() as u64).collect();
    let (changes, _) =
        raw_row_changes(&batch(&records), &"a.jsonl".into(), places, Some(raws), &ChangeColumns::default())
            .expect("change records");
    let (schema, mut tables) = (changes.rows.schema(), TargetRows::default());
    let set = ChangeSet::new(vec![changes], &spec(), &|_| vec![], BadRows::Quarantine, &schema, &mut tables)
        .expect("invalid records are quarantined");
    let mut refused: Vec<_> = set.refused.iter().map(|r| (r.row, r.code.as_str(), r.raw.clone())).collect();
    refused.sort();
    let raw = |at: usize| records[at].to_string().into_bytes();
    let want = [(2, "NullKey", 1), (3, "NullOrder", 2), (4, "AmbiguousOrder", 3), (5, "AmbiguousOrder", 4)];
    assert_eq!(refused, want.map(|(row, code, at)| (row, code, raw(at))));
    assert_eq!(set.records.len(), 1);
}

#[test]
fn column_without_any_value_is_null_in_every_row() {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let columns = [("id", ids.clone()), ("seq", ids), ("v", arrow::array::new_null_array(&DataType::Null, 1))];
    let fields: Vec<Field> = columns.iter().map(|(name, a)| Field::new(*name, a.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let changes = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("the columns have equal lengths");
    let e = refused_with(&changes, &spec(), &ChangeColumns::default().with_not_null(["v"]));
    let want = "NullNotAllowed: column `v` is null, and the contract declares it as not nullable (the changes, row 1)";
    assert_eq!(e.to_string(), want);
}
