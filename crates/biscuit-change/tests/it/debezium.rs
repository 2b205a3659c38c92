//! All encodings that the options of Debezium produce, with embedded and with declared types.

use arrow::array::AsArray;
use biscuit_change::{ChangeOp, ChangeRecords, DebeziumOptions, DebeziumReader, KeyChangeKind};
use biscuit_core::Result;
use biscuit_schema::Contract;
use biscuit_testkit::{assert_rows_eq, json_rows, table};

const SOURCE: &str = r#""source":{"schema":"s","table":"t","lsn":7}"#;

fn read_with(options: DebeziumOptions, lines: &str) -> Result<ChangeRecords> {
    let mut reader = DebeziumReader::new(options);
    reader.read("e.jsonl", &lines.to_owned().into_bytes().into())?;
    reader.finish()
}

/// Reads one row whose column `v` is declared with type `t`, from a connector with these settings.
fn declared(t: &str, settings: &str, value: &str) -> Result<ChangeRecords> {
    let contract = format!(
        r#"{{"key":["id"],"debezium":{{{settings}}},"columns":[{{"name":"id","type":"int"}},{{"name":"v","type":"{t}"}}]}}"#
    );
    let contract = Contract::from_json(&contract).expect("the contract is valid");
    let line = format!(r#"{{"op":"r","after":{{"id":1,"v":{value}}},{SOURCE}}}"#);
    read_with(DebeziumOptions::default().with_contract(contract), &line)
}

#[test]
fn declared_types_follow_the_connectors_settings() {
    for (t, settings, value, want) in [
        ("decimal(12,2)", "", r#""BA1Prg==""#, "v:decimal(12,2)\n679812.30"),
        ("decimal(12,2)", r#""decimal.handling.mode":"string""#, r#""12.3""#, "v:decimal(12,2)\n12.30"),
        ("decimal(12,2)", r#""decimal.handling.mode":"double""#, "12.3", "v:decimal(12,2)\n12.30"),
        ("numeric", "", r#"{"scale":1,"value":"fQ=="}"#, "v:string\n12.5"),
        ("numeric", r#""decimal.handling.mode":"string""#, r#""12.50""#, "v:string\n12.50"),
        ("date", "", "19782", "v:date\n2024-02-29"),
        ("date", r#""time.precision.mode":"isostring""#, r#""2024-02-29""#, "v:date\n2024-02-29"),
        ("time", "", "37800000001", "v:time\n10:30:00.000001"),
        ("time(3)", "", "37800001", "v:time\n10:30:00.001"),
        ("time(3)", r#""time.precision.mode":"adaptive_time_microseconds""#, "37800000001", "v:time\n10:30:00.000001"),
        ("timestamp", "", "1709208000000001", "v:timestamp\n2024-02-29T12:00:00.000001"),
        ("timestamp(3)", "", "1709208000001", "v:timestamp\n2024-02-29T12:00:00.001"),
        ("timestamp(9)", "", "1709208000000000001", "v:timestamp(9)\n2024-02-29T12:00:00.000000001"),
        ("timestamp", r#""time.precision.mode":"connect""#, "1709208000001", "v:timestamp\n2024-02-29T12:00:00.001"),
        ("timestamptz", "", r#""2024-02-29T13:00:00+01:00""#, "v:timestamptz\n2024-02-29T12:00:00Z"),
        ("bit(3)", "", r#""Bg==""#, "v:string\n110"),
        ("interval", "", "86400000000", "v:bigint\n86400000000"),
        ("interval", r#""interval.handling.mode":"string""#, r#""P1D""#, "v:string\nP1D"),
        ("real", "", r#""NaN""#, "v:float\nNaN"),
        ("text[]", "", r#"["a",null]"#, ""),
    ] {
        let changes = declared(t, settings, value).unwrap_or_else(|e| panic!("{t} {settings}: {e}"));
        let got = changes.batches[0].rows.project(&[1]).expect("column v exists");
        if want.is_empty() {
            assert_rows_eq!(got, json_rows(r#"{"v":["a",null]}"#));
        } else {
            assert_rows_eq!(got, table(want));
        }
    }
    for (mode, value) in [("bytes", "AP8="), ("base64", "AP8="), ("base64-url-safe", "AP8="), ("hex", "00ff")] {
        let settings = format!(r#""binary.handling.mode":"{mode}""#);
        let changes = declared("bytea", &settings, &format!("\"{value}\"")).expect(mode);
        assert_eq!(changes.batches[0].rows.column(1).as_binary::<i32>().value(0), [0, 255]);
    }
}

#[test]
fn value_that_does_not_fit_its_column_is_reported_with_its_line() {
    for (t, value, code) in [
        ("int", "3000000000", "Overflow"),
        ("decimal(12,2)", r#""!!""#, "WrongType"),
        ("timestamp(3)", r#""noon""#, "WrongType"),
        ("boolean", r#""maybe""#, "NotABoolean"),
    ] {
        let e = declared(t, "", value).unwrap_err();
        let said = e.message().contains("column `v`") && e.message().contains("(e.jsonl, row 1)");
        assert!(e.code() == code && said, "{e}");
    }
}

#[test]
fn headers_may_be_an_object_or_a_list_with_or_without_schemas() {
    let contract = r#"{"columns":[{"name":"id","type":"int"},{"name":"v","type":"string"}]}"#;
    for headers in [
        r#"{"__debezium.newkey":{"id":9}}"#,
        r#"{"__debezium.newkey":{"schema":{},"payload":{"id":9}}}"#,
        r#"[{"key":"__debezium.newkey","value":{"id":9}}]"#,
    ] {
        let line = format!(
            r#"{{"key":{{"id":1}},"headers":{headers},"value":{{"op":"d","before":{{"id":1,"v":""}},"after":null,{SOURCE}}}}}"#
        );
        let contract = Contract::from_json(contract).expect("the contract is valid");
        let changes = read_with(DebeziumOptions::default().with_contract(contract), &line).expect("the record is read");
        let batch = &changes.batches[0];
        assert_eq!(
            (batch.ops.as_slice(), batch.key_changes[0].kind),
            ([ChangeOp::Delete].as_slice(), KeyChangeKind::To)
        );
        assert_rows_eq!(batch.key_changes[0].key, table("id:int\n9"));
        assert_rows_eq!(batch.rows, table("id:int | v:string | __lsn:bigint\n1 | null | 7"));
    }
}

#[test]
fn records_that_are_not_changes_are_counted_as_ignored() {
    let lines = format!(
        "null\n{}\n{}\n{}\n{}\n",
        r#"{"key":{"id":1},"headers":{},"value":null}"#,
        r#"{"topic":"x.transaction","key":{"id":"1"},"headers":{},"value":{"status":"BEGIN","id":"1","event_count":null}}"#,
        r#"{"topic":"hb","key":{},"headers":{},"value":{"ts_ms":5}}"#,
        r#"{"topic":"cdc.message","key":null,"headers":{},"value":{"op":"m","source":{"lsn":1},"message":{}}}"#,
    );
    let changes = read_with(DebeziumOptions::default(), &lines).expect("the file is read");
    assert_eq!((changes.ignored, changes.len()), (5, 0));
    let e = read_with(DebeziumOptions::default(), r#"{"something":"else"}"#).unwrap_err();
    assert_eq!(e.code(), "NotAnEnvelope");
}

#[test]
fn stored_order_column_must_not_have_the_name_of_a_table_column() {
    let contract = r#"{"key":["id"],"columns":[{"name":"id","type":"int"},{"name":"__lsn","type":"int"}]}"#;
    let line = format!(r#"{{"op":"r","after":{{"id":1,"__lsn":2}},{SOURCE}}}"#);
    let options =
        || DebeziumOptions::default().with_contract(Contract::from_json(contract).expect("the contract is valid"));
    assert_eq!(read_with(options(), &line).unwrap_err().code(), "ColumnClash");
    let renamed = read_with(options().with_order_as(["_order"]), &line).expect("the order has another name");
    assert_eq!(renamed.order, ["_order"]);
}

#[test]
fn columns_that_the_contract_omits_are_reported() {
    let contract = r#"{"key":["id"],"columns":[{"name":"id","type":"int"}]}"#;
    let line = format!(r#"{{"op":"r","after":{{"id":1,"secret":"x"}},{SOURCE}}}"#);
    let options =
        DebeziumOptions::default().with_contract(Contract::from_json(contract).expect("the contract is valid"));
    assert_eq!(read_with(options, &line).expect("the record is read").dropped_columns, ["secret"]);
}

fn mysql(file: &str, pos: u64, row: u64, id: u64, v: &str) -> String {
    let schema = r#"{"type":"struct","fields":[{"field":"after","type":"struct","fields":[{"field":"id","type":"int64"},{"field":"v","type":"string"}]}]}"#;
    let source = format!(r#"{{"connector":"mysql","db":"shop","table":"t","file":"{file}","pos":{pos},"row":{row}}}"#);
    format!(
        r#"{{"key":{{"id":{id}}},"value":{{"schema":{schema},"payload":{{"op":"c","after":{{"id":{id},"v":"{v}"}},"source":{source}}}}}}}"#
    )
}

#[test]
fn mysql_is_ordered_by_file_position_and_row() {
    let lines = [mysql("mysql-bin.999999", 900, 0, 1, "a"), mysql("mysql-bin.1000000", 4, 1, 1, "b")];
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_table("shop.t"));
    reader.read("e.jsonl", &lines.join("\n").into_bytes().into()).expect("the lines are read");
    let changes = reader.finish().expect("the records are read");
    assert_eq!(changes.order, ["__file", "__pos", "__row"]);
    let want = biscuit_testkit::table(
        "id:bigint | v:string | __file:bigint | __pos:bigint | __row:bigint
         1 | a | 999999 | 900 | 0
         1 | b | 1000000 | 4 | 1",
    );
    biscuit_testkit::assert_rows_eq!(changes.batches[0].rows, want);
}

fn flat(lines: &str, options: DebeziumOptions) -> biscuit_core::Result<biscuit_change::ChangeRecords> {
    let contract = r#"{"key":["id"],"columns":[{"name":"id","type":"bigint"},{"name":"v","type":"string"},{"name":"b","type":"binary"}]}"#;
    let contract = biscuit_schema::Contract::from_json(contract).expect("the contract is valid");
    let mut reader = DebeziumReader::new(options.with_contract(contract));
    reader.read("e.jsonl", &lines.to_owned().into_bytes().into())?;
    reader.finish()
}

#[test]
fn flattened_records_have_their_operation_in_a_column() {
    let lines = r#"{"id":1,"v":"a","__op":"c","__lsn":5,"__table":"t","__deleted":"false"}
{"id":1,"v":"","__op":"d","__lsn":6,"__table":"t","__deleted":"true"}
{"id":2,"v":"__debezium_unavailable_value","__op":"u","__lsn":7,"__table":"t","__deleted":"false"}
null
"#;
    let changes = flat(lines, DebeziumOptions::default().with_table("public.t")).expect("the records are read");
    assert_eq!((changes.order.as_slice(), changes.ignored), (["__lsn".to_owned()].as_slice(), 1));
    let batch = &changes.batches[0];
    assert_eq!(
        batch.ops,
        [biscuit_change::ChangeOp::Upsert, biscuit_change::ChangeOp::Delete, biscuit_change::ChangeOp::Upsert]
    );
    let present = batch.present[1].as_ref().expect("one value is unchanged");
    assert_eq!(present.iter().collect::<Vec<_>>(), [true, true, false]);
    assert!(changes.dropped_columns.is_empty(), "{:?}", changes.dropped_columns);
    let ambiguous = lines.replace("\"__op\":\"u\"", "\"__op\":\"c\"");
    assert_eq!(flat(&ambiguous, DebeziumOptions::default()).unwrap_err().code(), "AmbiguousPlaceholder");
}

#[test]
fn custom_placeholders_of_connectors_are_recognized() {
    let line = |v: &str, b: &str| format!("{{\"id\":1,\"v\":{v},\"b\":{b},\"__op\":\"u\",\"__lsn\":5}}\n");
    let missing = |lines: &str, placeholder: &str| {
        let changes =
            flat(lines, DebeziumOptions::default().with_placeholder(placeholder)).expect("the records are read");
        changes.batches[0].present.iter().map(Option::is_some).collect::<Vec<_>>()
    };
    assert_eq!(missing(&line("\"n/a\"", "\"bi9h\""), "n/a"), [false, true, true, false]);
    assert_eq!(missing(&line("\"x\"", "\"AP8=\""), "hex:00ff"), [false, false, true, false]);
    assert_eq!(missing(&line("\"__debezium_unavailable_value\"", "null"), "n/a"), [false; 4]);
    let e = flat(&line("\"x\"", "null"), DebeziumOptions::default().with_placeholder("hex:xyz")).unwrap_err();
    assert_eq!(e.code(), "InvalidPlaceholder");
}
