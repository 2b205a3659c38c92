//! Operation codes of the common tools, delete flags, and what is no change.

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
    let (found, ignored) = ops(RowsOptions::default(), &words).expect("they are known");
    assert_eq!(
        (found, ignored),
        (vec![ChangeOp::Upsert, ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Truncate], 2)
    );
    // Numbers of SQL Server, as numbers.
    assert_eq!(
        ops(RowsOptions::default(), &["1", "2", "3", "4"]).expect("they are known"),
        (vec![ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Upsert], 1)
    );
    let codes: ArrayRef = Arc::new(Int32Array::from(vec![2, 1]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("op", codes)]).expect("a batch");
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
    reader.read_batch(&"a.parquet".into(), batch, 1).expect("rows");
    assert_eq!(reader.finish().expect("changes").batches[0].ops, [ChangeOp::Upsert, ChangeOp::Delete]);
}

#[test]
fn other_codes_are_named() {
    let e = ops(RowsOptions::default(), &["\"zap\""]).unwrap_err();
    assert_eq!((e.code(), e.row()), ("UnknownOp", Some(1)));
    assert!(e.message().contains("update_postimage") && e.message().contains("--op-map"), "{e}");
    let map = OpMap::parse(["zap=delete", "new=upsert", "old=ignore", "u=delete"]).expect("a map");
    let options = RowsOptions::default().with_op_map(map);
    let (found, ignored) = ops(options, &["\"ZAP\"", "\"new\"", "\"old\"", "\"u\"", "\"i\""]).expect("they are named");
    assert_eq!((found, ignored), (vec![ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Upsert], 1));
    for bad in ["zap", "zap=gone", "=delete"] {
        assert_eq!(OpMap::parse([bad]).unwrap_err().code(), "InvalidOpMap", "{bad}");
    }
}

#[test]
fn the_time_of_a_delete_is_a_delete_flag() {
    let lines = "{\"id\":1,\"gone\":\"2024-02-29T12:00:00Z\"}\n{\"id\":2,\"gone\":null}\n{\"id\":3,\"gone\":\"\"}\n";
    let changes = read(RowsOptions::default().with_delete_column("gone"), lines);
    // Texts that are all times are times.
    let ops: Vec<ChangeOp> = changes.expect("rows").batches.iter().flat_map(|b| b.ops.clone()).collect();
    assert_eq!(ops, [ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Upsert]);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("gone", times)]).expect("a batch");
    let mut reader = RowsReader::new(RowsOptions::default().with_delete_column("gone"));
    reader.read_batch(&"a.parquet".into(), batch, 1).expect("rows");
    assert_eq!(reader.finish().expect("changes").batches[0].ops, [ChangeOp::Delete, ChangeOp::Upsert]);
}

fn dms(options: DmsOptions, file: &str, text: &str) -> Result<ChangeRecords> {
    let contract =
        "key = ['id']\n[[columns]]\nname = 'id'\ntype = 'int'\n[[columns]]\nname = 'item'\ntype = 'string'\n";
    let contract = Contract::from_toml(contract).expect("a contract");
    let mut reader = DmsReader::new(options.with_contract(contract));
    reader.read(file, text.to_owned().into_bytes().into())?;
    reader.finish()
}

#[test]
fn the_key_before_an_update_is_found_by_any_spelling() {
    let change = "s/t/20240506-130501123.csv";
    for header in ["Op,id,item,BI_id", "Op,ID,ITEM,BI_ID", "op,Id,Item,bi_Id"] {
        let changes = dms(DmsOptions::default(), change, &format!("{header}\nU,2,cup,1\n")).expect(header);
        assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert, ChangeOp::Delete], "{header}");
        assert!(changes.dropped_columns.is_empty() && changes.batches[0].key_changes.len() == 2, "{header}");
        // A file of inserts alone.
        dms(DmsOptions::default(), change, &format!("{header}\nI,2,cup,NULL\n")).expect(header);
    }
}

#[test]
fn a_task_that_writes_inserts_only_has_no_codes() {
    let change = "s/t/20240506-130501123.csv";
    let changes = dms(DmsOptions::default(), change, "1,cup\n2,mug\n").expect("inserts");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert, ChangeOp::Upsert]);
    let changes = dms(DmsOptions::default(), change, "D,1,cup\n").expect("a delete");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Delete]);
    let stamped = DmsOptions::default().with_timestamp_column("ts");
    let changes = dms(stamped.clone(), change, "2024-05-06 13:05:01.000000,1,cup\n").expect("an insert with its time");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Upsert]);
    let changes = dms(stamped, change, "D,2024-05-06 13:05:01.000000,1,cup\n").expect("a delete with its time");
    assert_eq!(changes.batches[0].ops, [ChangeOp::Delete]);
}

#[test]
fn a_file_that_does_not_go_with_the_settings_says_which_may_be_missing() {
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
fn what_debezium_writes_besides_changes_is_passed_over_and_counted() {
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
    let contract = Contract::from_toml("key = ['id']\n[[columns]]\nname = 'id'\ntype = 'int'\n").expect("a contract");
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract));
    let text = format!("{change}\n{}\n", others.join("\n"));
    reader.read("topic+0+0000000000.json", &text.into_bytes().into()).expect("it is read");
    for beside in ["topic+0+0000000000.keys.json", "a/topic+0+0000000000.headers.json.gz"] {
        reader.read(beside, &b"{\"id\":1}".to_vec().into()).expect("it is passed over");
    }
    let changes = reader.finish().expect("changes");
    assert_eq!((changes.len(), changes.ignored, changes.passed_over.len()), (1, others.len() as u64, 2));
}
