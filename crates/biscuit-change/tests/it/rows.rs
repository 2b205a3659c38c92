//! Plain rows: types, operations, delete flags and placeholders.

use biscuit_change::{ChangeOp, ChangeRecords, RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_testkit::{assert_rows_eq, table};

fn read(options: RowsOptions, files: &[(&str, &str)]) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(options);
    for (name, text) in files {
        reader.read(name, (*text).to_owned().into_bytes().into())?;
    }
    reader.finish()
}

#[test]
fn type_of_a_column_is_inferred_from_all_files() {
    let changes = read(RowsOptions::default(), &[("a.jsonl", r#"{"v":1}"#), ("b.jsonl", r#"{"v":1.5}"#)])
        .expect("the rows are read");
    assert_rows_eq!(changes.batches[0].rows, table("v:double\n1.0"));
    let changes = read(RowsOptions::default(), &[("a.csv", "v,zip\n1,01234\n"), ("b.csv", "v,zip\nx,5\n")])
        .expect("the rows are read");
    assert_rows_eq!(changes.batches[0].rows, table("v:string | zip:string\n1 | 01234"));
}

#[test]
fn expected_types_are_read_from_text() {
    let expected = table("id:int | at:timestamptz | paid:decimal(8,2) | day:date").schema();
    let options = || RowsOptions::default().with_expected(expected.clone());
    let want =
        table("id:int | at:timestamptz | paid:decimal(8,2) | day:date\n1 | 2024-02-29T11:00:00Z | 12.50 | 2024-02-29");
    let json = r#"{"id":1,"at":"2024-02-29T12:00:00+01:00","paid":12.5,"day":"2024-02-29"}"#;
    assert_rows_eq!(read(options(), &[("a.jsonl", json)]).expect("the rows are read").batches[0].rows, want);
    let csv = "id,at,paid,day\n1,2024-02-29T12:00:00+01:00,12.5,2024-02-29\n";
    assert_rows_eq!(read(options(), &[("a.csv", csv)]).expect("the rows are read").batches[0].rows, want);
    let e = read(options(), &[("a.jsonl", r#"{"id":1,"paid":12.555}"#)]).unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("PrecisionLoss", Some("paid"), Some(1)));
}

#[test]
fn operations_and_flags_are_read_and_not_stored() {
    let lines = "{\"id\":1,\"op\":\"I\"}\n{\"id\":2,\"op\":\"-U\"}\n{\"id\":3,\"op\":null}\n{\"id\":4,\"op\":\"D\"}\n{\"id\":5,\"op\":\"t\"}";
    let changes = read(RowsOptions::default().with_op("op"), &[("a.jsonl", lines)]).expect("the rows are read");
    let batch = &changes.batches[0];
    assert_eq!(batch.ops, [ChangeOp::Upsert, ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Truncate]);
    assert_eq!((changes.ignored, batch.places.as_slice()), (1, [1, 3, 4, 5].as_slice()));
    assert_rows_eq!(batch.rows, table("id:bigint\n1\n3\n4\n5"));
    let load = read(RowsOptions::default().with_op("op"), &[("load.jsonl", "{\"id\":1}")]).expect("the rows are read");
    assert_eq!((load.without_op, changes.without_op), (1, 0));
    let flags = "{\"id\":1,\"x\":\"Y\"}\n{\"id\":2,\"x\":\"false\"}\n{\"id\":3,\"x\":null}";
    let changes =
        read(RowsOptions::default().with_delete_column("x"), &[("a.jsonl", flags)]).expect("the rows are read");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Upsert]);
    let e =
        read(RowsOptions::default().with_delete_column("x"), &[("a.jsonl", "{\"id\":1,\"x\":\"maybe\"}")]).unwrap_err();
    assert_eq!(e.code(), "WrongType");
}

#[test]
fn placeholder_is_unchanged_in_updates_and_ambiguous_in_creates() {
    let line = |op: &str| format!(r#"{{"id":1,"v":"__debezium_unavailable_value","op":"{op}"}}"#);
    let options = || RowsOptions::default().with_op("op");
    let update = read(options(), &[("a.jsonl", &line("u"))]).expect("the rows are read");
    assert!(!update.batches[0].present[1].as_ref().expect("one value is unchanged").value(0));
    assert_eq!(read(options(), &[("a.jsonl", &line("r"))]).expect("the rows are read").batches[0].present[1], None);
    assert_eq!(read(options(), &[("a.jsonl", &line("c"))]).unwrap_err().code(), "AmbiguousPlaceholder");
}

#[test]
fn csv_column_without_values_is_kept() {
    let mut reader = RowsReader::new(RowsOptions::default());
    reader.read("a.csv", "a,b\n1,\n2,\n".as_bytes().to_vec().into()).expect("the file is read");
    let changes = reader.finish().expect("the rows are read");
    let rows = &changes.batches[0].rows;
    assert_eq!((rows.num_rows(), rows.num_columns(), rows.column(1).logical_null_count()), (2, 2, 2));
}

#[test]
fn numbers_keep_all_their_digits() {
    let expected = table("v:decimal(38,10)").schema();
    let options = RowsOptions::default().with_expected(expected);
    let line = r#"{"v":1234567890123456789012345678.0123456789}"#;
    let changes = read(options, &[("a.jsonl", line)]).expect("the rows are read");
    assert_rows_eq!(changes.batches[0].rows, table("v:decimal(38,10)\n1234567890123456789012345678.0123456789"));
}

#[test]
fn csv_rows_are_numbered_by_line_with_any_line_ending() {
    for text in ["id,v\n1,a\n2\n", "id,v\r\n1,a\r\n2\r\n", "id,v\n\n1\n"] {
        let e = read(RowsOptions::default(), &[("a.csv", text)]).unwrap_err();
        assert_eq!((e.code(), e.row()), ("InvalidCsv", Some(3)), "{text:?}");
    }
}
