//! Operation codes of the common tools, delete flags, and records that are not changes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use biscuit_change::{
    ChangeOp, ChangeRecords, DebeziumOptions, DebeziumReader, DmsOptions, DmsReader, OpMap, RowsOptions, RowsReader,
};
use biscuit_core::Result;
use biscuit_schema::Contract;

fn read(options: RowsOptions, text: &str) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(options);
    reader.read("a.jsonl", text.to_owned().into_bytes().into())?;
    reader.finish()
}

fn ops(options: RowsOptions, codes: &[&str]) -> Result<(Vec<ChangeOp>, u64)> {
    let lines: Vec<String> = codes.iter().map(|code| format!("{{\"id\":1,\"op\":{code}}}")).collect();
    let changes = read(options.with_op("op"), &lines.join("\n"))?;
    Ok((changes.batches.iter().flat_map(|b| b.ops.clone()).collect(), changes.ignored))
}

#[test]
fn codes_of_the_common_tools_are_known() {
    let words = [
        "\"insert\"",
        "\"update_preimage\"",
        "\"update_postimage\"",
        "\"DELETE\"",
        "\"upsert\"",
        "\"truncate\"",
        "\"B\"",
    ];
    let (found, ignored) = ops(RowsOptions::default(), &words).expect("the codes are known");
    assert_eq!(
        (found, ignored),
        (vec![ChangeOp::Upsert, ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Truncate], 2)
    );
    // The codes of SQL Server are numbers.
    assert_eq!(
        ops(RowsOptions::default(), &["1", "2", "3", "4"]).expect("the codes are known"),
        (vec![ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Upsert], 1)
    );
    let codes: ArrayRef = Arc::new(Int32Array::from(vec![2, 1]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("op", codes)]).expect("the columns have equal lengths");
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
    reader.read_batch(&"a.parquet".into(), batch, 1).expect("the rows are read");
    assert_eq!(reader.finish().expect("the changes are read").batches[0].ops, [ChangeOp::Upsert, ChangeOp::Delete]);
}

#[test]
fn other_codes_are_defined_by_an_op_map() {
    let e = ops(RowsOptions::default(), &["\"zap\""]).unwrap_err();
    assert_eq!((e.code(), e.row()), ("UnknownOp", Some(1)));
    assert!(e.message().contains("update_postimage") && e.message().contains("--op-map"), "{e}");
    let map = OpMap::parse(["zap=delete", "new=upsert", "old=ignore", "u=delete"]).expect("the map is valid");
    let options = RowsOptions::default().with_op_map(map);
    let (found, ignored) =
        ops(options, &["\"ZAP\"", "\"new\"", "\"old\"", "\"u\"", "\"i\""]).expect("the codes are defined");
    assert_eq!((found, ignored), (vec![ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Upsert], 1));
    for bad in ["zap", "zap=gone", "=delete"] {
        assert_eq!(OpMap::parse([bad]).unwrap_err().code(), "InvalidOpMap", "{bad}");
    }
}

#[test]
fn the_time_of_a_delete_is_a_delete_flag() {
    let lines = "{\"id\":1,\"gone\":\"2024-02-29T12:00:00Z\"}\n{\"id\":2,\"gone\":null}\n{\"id\":3,\"gone\":\"\"}\n";
    let changes = read(RowsOptions::default().with_delete_column("gone"), lines);
    // Text in the format of a time is a time.
    let ops: Vec<ChangeOp> = changes.expect("the rows are read").batches.iter().flat_map(|b| b.ops.clone()).collect();
    assert_eq!(ops, [ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Upsert]);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("gone", times)]).expect("the columns have equal lengths");
    let mut reader = RowsReader::new(RowsOptions::default().with_delete_column("gone"));
    reader.read_batch(&"a.parquet".into(), batch, 1).expect("the rows are read");
    assert_eq!(reader.finish().expect("the changes are read").batches[0].ops, [ChangeOp::Delete, ChangeOp::Upsert]);
}

fn dms(options: DmsOptions, file: &str, text: &str) -> Result<ChangeRecords> {
    let contract =
        "key = ['id']\n[[columns]]\nname = 'id'\ntype = 'int'\n[[columns]]\nname = 'item'\ntype = 'string'\n";
    let contract = Contract::from_toml(contract).expect("the contract is valid");
    let mut reader = DmsReader::new(options.with_contract(contract));
    reader.read(file, text.to_owned().into_bytes().into())?;
    reader.finish()
}

#[test]
fn key_before_an_update_is_found_in_any_letter_case() {
    let change = "s/t/20240506-130501123.csv";
    for header in ["Op,id,item,BI_id", "Op,ID,ITEM,BI_ID", "op,Id,Item,bi_Id"] {
        let changes = dms(DmsOptions::default(), change, &format!("{header}\nU,2,cup,1\n")).expect(header);
        assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert, ChangeOp::Delete], "{header}");
        assert!(changes.dropped_columns.is_empty() && changes.batches[0].key_changes.len() == 2, "{header}");
        // A file with inserts only has no values in the before image.
        dms(DmsOptions::default(), change, &format!("{header}\nI,2,cup,NULL\n")).expect(header);
    }
}

#[test]
fn files_of_an_inserts_only_task_have_no_operation_codes() {
    let change = "s/t/20240506-130501123.csv";
    let changes = dms(DmsOptions::default(), change, "1,cup\n2,mug\n").expect("the inserts are read");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert, ChangeOp::Upsert]);
    let changes = dms(DmsOptions::default(), change, "D,1,cup\n").expect("the delete is read");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Delete]);
    let stamped = DmsOptions::default().with_timestamp_column("ts");
    let changes =
        dms(stamped.clone(), change, "2024-05-06 13:05:01.000000,1,cup\n").expect("an insert with its time is read");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert]);
    let changes = dms(stamped, change, "D,2024-05-06 13:05:01.000000,1,cup\n").expect("a delete with its time is read");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Delete]);
}

#[test]
fn error_names_the_setting_that_may_be_missing() {
    let change = "s/t/20240506-130501123.csv";
    for (text, hint) in [
        ("I;1;cup\n", "--delimiter"),
        ("I,2024-05-06 13:05:01.000000,1,cup\n", "--timestamp-column"),
        ("1,cup,3,4\n", "--timestamp-column"),
    ] {
        let e = dms(DmsOptions::default(), change, text).unwrap_err();
        assert!(e.code() == "InvalidCsv" && e.message().contains(hint), "{text}: {e}");
    }
}

#[test]
fn debezium_records_that_are_not_changes_are_skipped_and_counted() {
    let change = r#"{"op":"c","before":null,"after":{"id":1},"source":{"connector":"postgresql","table":"t","lsn":1}}"#;
    let others = [
        r#"{"source":{"connector":"mysql"},"ts_ms":1,"databaseName":"s","ddl":"create table t (id int)","tableChanges":[]}"#,
        r#"{"source":{"connector":"sqlserver"},"ts_ms":1,"databaseName":"s","schemaName":"dbo","tableChanges":[{"type":"CREATE"}]}"#,
        r#"{"id":"4","aggregate_type":"Initial Snapshot","type":"COMPLETED","additional_data":{},"timestamp":1}"#,
        r#"{"id":"ad-hoc","type":"execute-snapshot","data":"{}"}"#,
        r#"{"status":"BEGIN","id":"571:1","event_count":null}"#,
        r#"{"ts_ms":1}"#,
        "null",
    ];
    let contract =
        Contract::from_toml("key = ['id']\n[[columns]]\nname = 'id'\ntype = 'int'\n").expect("the contract is valid");
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract));
    let text = format!("{change}\n{}\n", others.join("\n"));
    reader.read("topic+0+0000000000.json", &text.into_bytes().into()).expect("the file is read");
    for beside in ["topic+0+0000000000.keys.json", "a/topic+0+0000000000.headers.json.gz"] {
        reader.read(beside, &b"{\"id\":1}".to_vec().into()).expect("the file is skipped");
    }
    let changes = reader.finish().expect("the changes are read");
    assert_eq!((changes.len(), changes.ignored, changes.passed_over.len()), (1, others.len() as u64, 2));
}
