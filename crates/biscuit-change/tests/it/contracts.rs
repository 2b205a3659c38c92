//! A contract determines the stored type, also of records with an embedded schema.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Decimal128Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use biscuit_change::{BadRows, ChangeRecords, DebeziumOptions, DebeziumReader, KeyChangeKind, RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_schema::Contract;

/// Reads records with an embedded schema in which `field` declares the column `v`.
fn envelopes(field: &str, values: &[&str], contract: &str, bad_rows: BadRows) -> Result<ChangeRecords> {
    let schema = format!(
        r#""schema":{{"type":"struct","fields":[{{"field":"after","type":"struct","fields":[{{"field":"id","type":"int64"}},{field}]}}]}}"#
    );
    let line = |(i, value): (usize, &&str)| {
        format!(
            r#"{{{schema},"payload":{{"op":"c","before":null,"after":{{"id":{i},"v":{value}}},"source":{{"connector":"postgresql","table":"t","lsn":{i}}}}}}}"#
        )
    };
    let lines: Vec<String> = values.iter().enumerate().map(line).collect();
    let mut options = DebeziumOptions::default().with_bad_rows(bad_rows).with_key(["id"]);
    if !contract.is_empty() {
        options = options.with_contract(Contract::from_toml(contract).expect("the contract is valid"));
    }
    let mut reader = DebeziumReader::new(options);
    reader.read("a.jsonl", &lines.join("\n").into_bytes().into())?;
    reader.finish()
}

fn typed(t: &str, more: &str) -> String {
    format!("[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'v'\ntype = '{t}'\n{more}")
}

fn values(changes: &ChangeRecords) -> Vec<String> {
    let column = changes.batches[0].rows.column_by_name("v").expect("the column exists");
    (0..column.len()).map(|row| array_value_to_string(column, row).expect("the value can be shown")).collect()
}

const TEXT: &str = r#"{"field":"v","type":"string","optional":true}"#;
const NANOS: &str = r#"{"field":"v","type":"int64","name":"io.debezium.time.NanoTimestamp","optional":true}"#;
const MICRO_TIME: &str = r#"{"field":"v","type":"int64","name":"io.debezium.time.MicroTime","optional":true}"#;
const DATE: &str = r#"{"field":"v","type":"int32","name":"io.debezium.time.Date","optional":true}"#;

#[test]
fn text_with_an_embedded_schema_is_converted_to_the_contract_type() {
    let changes = envelopes(TEXT, &["\"12.50\"", "null"], &typed("decimal(10,2)", ""), BadRows::Fail)
        .expect("the decimals are read");
    let column = changes.batches[0].rows.column_by_name("v").expect("the column exists");
    assert_eq!(column.as_primitive::<Decimal128Type>().value(0), 1250);
    let e =
        envelopes(TEXT, &["\"12.50\"", "\"99999999999.99\""], &typed("decimal(10,2)", ""), BadRows::Fail).unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("Overflow", Some("v"), Some(2)));
    // Only the invalid records are quarantined.
    let aside = envelopes(TEXT, &["\"x\"", "\"1\"", "\"y\""], &typed("int", ""), BadRows::Quarantine)
        .expect("one record is read");
    assert_eq!((values(&aside), aside.refused.len(), aside.refused[1].row), (vec!["1".to_owned()], 2, 3));
    let time = envelopes(TEXT, &["\"2024-02-29T12:00:00Z\""], &typed("timestamp", ""), BadRows::Fail)
        .expect("the time is read");
    assert_eq!(values(&time), ["2024-02-29T12:00:00"]);
    let date = envelopes(DATE, &["19782"], &typed("string", ""), BadRows::Fail).expect("the text is read");
    assert_eq!(values(&date), ["2024-02-29"]);
}

#[test]
fn nanoseconds_are_written_only_if_the_contract_declares_them() {
    let (whole, finer) = ("1709208000123456000", "1709208000123456700");
    for (contract, unit) in [
        (String::new(), TimeUnit::Microsecond),
        (typed("timestamp", ""), TimeUnit::Microsecond),
        (typed("timestamp(9)", ""), TimeUnit::Nanosecond),
    ] {
        let changes = envelopes(NANOS, &[whole], &contract, BadRows::Fail).expect("the time is read");
        let column = changes.batches[0].rows.column_by_name("v").expect("the column exists");
        assert_eq!(column.data_type(), &DataType::Timestamp(unit, None));
        let fine = envelopes(NANOS, &[finer], &contract, BadRows::Fail).map(drop).map_err(|e| (e.code(), e.row()));
        assert_eq!(
            fine,
            if unit == TimeUnit::Nanosecond { Ok(()) } else { Err(("PrecisionLoss", Some(1))) },
            "{contract}"
        );
    }
    let rounded = envelopes(NANOS, &[whole, finer], &typed("timestamp", "rounding = 'half-up'\n"), BadRows::Fail)
        .expect("the value is rounded");
    let column = rounded.batches[0].rows.column_by_name("v").expect("the column exists");
    assert_eq!(
        column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
        [1_709_208_000_123_456, 1_709_208_000_123_457]
    );
    assert_eq!(rounded.losses["v"].rounded, 1);
}

#[test]
fn times_outside_of_a_day_are_numbers_or_text_as_the_contract_declares() {
    let times = ["3020399000000", "-3600500000", "86400000000", "0"];
    let e = envelopes(MICRO_TIME, &times, &typed("time", ""), BadRows::Fail).unwrap_err();
    assert_eq!((e.code(), e.row()), ("Overflow", Some(1)));
    let numbers = envelopes(MICRO_TIME, &times, &typed("bigint", ""), BadRows::Fail).expect("the numbers are read");
    assert_eq!(values(&numbers), times);
    let texts = envelopes(MICRO_TIME, &times, &typed("string", ""), BadRows::Fail).expect("the texts are read");
    assert_eq!(values(&texts), ["838:59:59", "-01:00:00.5", "24:00:00", "00:00:00"]);
}

#[test]
fn text_columns_keep_values_that_no_other_type_can_hold() {
    // 10^40 + 0.5 as decimal(65,1) of MySQL.
    const WIDE: &str = r#"{"field":"v","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"1","connect.decimal.precision":"65"},"optional":true}"#;
    let value = ["\"ASXS+ln2HU0uNdmgAAAAAAAF\""];
    assert_eq!(envelopes(WIDE, &value, "", BadRows::Fail).unwrap_err().code(), "Overflow");
    let text = envelopes(WIDE, &value, &typed("string", ""), BadRows::Fail).expect("the text is read");
    assert_eq!(values(&text).len(), 1);
    assert!(values(&text)[0].ends_with(".5") && values(&text)[0].len() > 40, "{:?}", values(&text));
    // Also inside of lists and structs.
    let micro = r#""type":"int64","name":"io.debezium.time.MicroTime","optional":true"#;
    let list = format!(r#"{{"field":"v","type":"array","items":{{{micro}}},"optional":true}}"#);
    let of = |t: &str, field: &str, value: &str| envelopes(field, &[value], &typed(t, ""), BadRows::Fail);
    assert_eq!(of("array<time>", &list, "[90000000000]").unwrap_err().code(), "Overflow");
    assert_eq!(
        values(&of("array<string>", &list, "[90000000000,-1000000]").expect("the list is read")),
        ["[25:00:00, -00:00:01]"]
    );
    let nested = format!(r#"{{"field":"v","type":"struct","fields":[{{"field":"t",{micro}}}],"optional":true}}"#);
    let text = of("struct<t:string>", &nested, "{\"t\":90000000000}").expect("the struct is read");
    assert_eq!(values(&text), ["{t: 25:00:00}"]);
}

/// Reads records without an embedded schema.
fn declared(contract: &str, lines: &[&str]) -> Result<ChangeRecords> {
    let envelope = |(lsn, line): (usize, &&str)| {
        format!(r#"{{{line},"source":{{"connector":"postgresql","table":"t","lsn":{lsn}}}}}"#)
    };
    let lines: Vec<String> = lines.iter().enumerate().map(envelope).collect();
    let options =
        DebeziumOptions::default().with_contract(Contract::from_toml(contract).expect("the contract is valid"));
    let mut reader = DebeziumReader::new(options.with_key(["id"]));
    reader.read("a.jsonl", &lines.join("\n").into_bytes().into())?;
    reader.finish()
}

#[test]
fn records_without_a_schema_are_coerced_like_rows() {
    let of = |t: &str, more: &str, v: &str| {
        declared(&typed(t, more), &[&format!(r#""op":"c","before":null,"after":{{"id":1,"v":{v}}}"#)])
    };
    for (t, v, code) in [
        ("double", "9007199254740993", "PrecisionLoss"),
        ("float", "16777217", "PrecisionLoss"),
        ("double", "1e-400", "Overflow"),
        ("int", "2.5", "PrecisionLoss"),
    ] {
        let read = of(t, "", v).map(|changes| values(&changes));
        assert!(read.as_ref().is_err_and(|e| e.column() == Some("v") && e.row() == Some(1)), "{t} {v}: {read:?}");
        let code_of = read.map(drop).unwrap_err();
        assert!([code, "Unparseable", "PrecisionLoss"].contains(&code_of.code()), "{t} {v}: {code_of}");
    }
    let half =
        of("decimal(10,2)", "rounding = 'half-up'\n[debezium]\n'decimal.handling.mode' = 'string'\n", "\"1.005\"")
            .expect("the value is rounded");
    assert_eq!((values(&half), half.losses["v"].rounded), (vec!["1.01".to_owned()], 1));
    assert_eq!(values(&of("string", "", "5").expect("the text is read")), ["5"]);
    // `epoch` of the contract applies to numbers; inside of nested types no unit is guessed.
    let seconds = of("timestamp", "epoch = 'seconds'\n", "1709164800").expect("the time is read");
    assert_eq!(values(&seconds), ["2024-02-29T00:00:00"]);
    for (t, v) in [("struct<t:timestamp>", "{\"t\":2678400000000}"), ("array<decimal(12,2)>", "[\"010100\"]")] {
        let read = of(t, "", v).map(|changes| values(&changes));
        assert!(read.as_ref().map_or(true, |values| values == &["[10100.00]"]), "{t}: {read:?}");
    }
    assert_eq!(values(&of("struct<city:string>", "", r#"{"City":"X"}"#).expect("the struct is read")), ["{city: X}"]);
}

#[test]
fn columns_and_keys_get_the_names_of_the_contract() {
    let contract = typed("string", "renamed_from = ['title']\n");
    let lines =
        [r#""op":"c","before":null,"after":{"ID":1,"title":"x"}"#, r#""op":"d","before":{"ID":1},"after":null"#];
    let changes = declared(&contract, &lines).expect("the changes are read");
    let ids = changes.batches[0].rows.column_by_name("id").expect("the key column exists");
    assert_eq!((values(&changes)[0].as_str(), ids.null_count(), changes.dropped_columns.len()), ("x", 0, 0));
    // The same records with an embedded schema.
    let schema = r#""schema":{"type":"struct","fields":[{"field":"after","type":"struct","fields":[{"field":"ID","type":"int64"},{"field":"title","type":"string","optional":true}]}]}"#;
    let embedded: Vec<String> = lines
        .iter()
        .map(|line| {
            format!(r#"{{{schema},"payload":{{{line},"source":{{"connector":"postgresql","table":"t","lsn":1}}}}}}"#)
        })
        .collect();
    let options =
        DebeziumOptions::default().with_contract(Contract::from_toml(&contract).expect("the contract is valid"));
    let mut reader = DebeziumReader::new(options.with_key(["id"]));
    reader.read("a.jsonl", &embedded.join("\n").into_bytes().into()).expect("the file is read");
    let changes = reader.finish().expect("the changes are read");
    let ids = changes.batches[0].rows.column_by_name("id").expect("the key column exists");
    assert_eq!((values(&changes)[0].as_str(), ids.null_count(), ids.len()), ("x", 0, 2));
    let both = r#""op":"c","before":null,"after":{"id":1,"title":"x","V":"y"}"#;
    assert_eq!(declared(&contract, &[both]).unwrap_err().code(), "DuplicateColumn");
}

#[test]
fn duplicate_name_is_refused_at_any_depth() {
    for line in
        ["{\"id\":1,\"v\":1,\"v\":2}", "{\"id\":1,\"v\":{\"k\":1,\"k\":2}}", "{\"id\":1,\"v\":[{\"k\":1,\"k\":2}]}"]
    {
        let e = rows("", "a.jsonl", line).unwrap_err();
        assert_eq!((e.code(), e.row()), ("DuplicateColumn", Some(1)), "{line}");
    }
}

#[test]
fn binary_text_with_a_schema_is_decoded_by_the_connectors_setting() {
    for (mode, value) in [("hex", "\"fffe\""), ("base64", "\"//4=\""), ("base64-url-safe", "\"__4=\"")] {
        let contract = typed("binary", &format!("[debezium]\n'binary.handling.mode' = '{mode}'\n"));
        let changes = envelopes(TEXT, &[value], &contract, BadRows::Fail).expect(mode);
        assert_eq!(
            changes.batches[0].rows.column_by_name("v").expect("column v exists").as_binary::<i32>().value(0),
            [255, 254]
        );
    }
    const DOUBLE: &str = r#"{"field":"v","type":"double","optional":true}"#;
    let e = envelopes(DOUBLE, &["9007199254740993"], "", BadRows::Fail).unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("PrecisionLoss", Some("v"), Some(1)));
}

#[test]
fn both_keys_of_a_key_change_get_the_types_of_the_contract() {
    let schema = r#""schema":{"type":"struct","fields":[{"field":"after","type":"struct","fields":[{"field":"id","type":"string"}]}]}"#;
    let line = |key: &str, value: &str, headers: &str| {
        format!(r#"{{"key":{{"id":"{key}"}},"headers":{{{headers}}},"value":{{{schema},"payload":{value}}}}}"#)
    };
    let source = r#""source":{"connector":"postgresql","table":"t","lsn":2}"#;
    let delete = line(
        "1",
        &format!(r#"{{"op":"d","before":{{"id":"1"}},"after":null,{source}}}"#),
        r#""__debezium.newkey":{"id":"2"}"#,
    );
    let create = line(
        "2",
        &format!(r#"{{"op":"c","before":null,"after":{{"id":"2"}},{source}}}"#),
        r#""__debezium.oldkey":{"id":"1"}"#,
    );
    let contract = Contract::from_toml("key = ['id']\n[[columns]]\nname = 'id'\ntype = 'bigint'\n")
        .expect("the contract is valid");
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract));
    reader.read("a.jsonl", &format!("{delete}\n{create}\n").into_bytes().into()).expect("the file is read");
    let changes = reader.finish().expect("the changes are read");
    let key_changes = &changes.batches[0].key_changes;
    let shown: Vec<_> = key_changes
        .iter()
        .map(|m| {
            (
                m.kind,
                m.key.column(0).data_type().clone(),
                array_value_to_string(m.key.column(0), 0).expect("the key can be shown"),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [(KeyChangeKind::To, DataType::Int64, "2".to_owned()), (KeyChangeKind::From, DataType::Int64, "1".to_owned())]
    );
}

fn rows(contract: &str, file: &str, text: &str) -> Result<ChangeRecords> {
    let mut options = RowsOptions::default();
    if !contract.is_empty() {
        options = options.with_contract(Contract::from_toml(contract).expect("the contract is valid"));
    }
    let mut reader = RowsReader::new(options);
    reader.read(file, text.to_owned().into_bytes().into())?;
    reader.finish()
}

#[test]
fn values_of_rows_are_coerced_as_in_jobs() {
    let day = typed("date", "formats = ['%d/%m/%Y']\n");
    for (file, text) in [("a.csv", "id,v\n1,29/02/2024\n"), ("a.jsonl", "{\"id\":1,\"v\":\"29/02/2024\"}\n")] {
        assert_eq!(values(&rows(&day, file, text).expect("the date is read")), ["2024-02-29"], "{file}");
    }
    let epoch = typed("timestamp", "epoch = 'seconds'\n");
    for (file, text) in [("a.csv", "id,v\n1,86400\n"), ("a.jsonl", "{\"id\":1,\"v\":86400}\n")] {
        assert_eq!(values(&rows(&epoch, file, text).expect("the time is read")), ["1970-01-02T00:00:00"], "{file}");
    }
    // Column names match the contract in any letter case, with spaces around them, and as former names.
    let former = typed("int", "renamed_from = ['old']\n");
    for (file, text) in
        [("a.csv", " ID , V \n1,7\n"), ("a.csv", "id,old\n1,7\n"), ("a.jsonl", "{\"Id\":1,\"OLD\":7}\n")]
    {
        let changes = rows(&former, file, text).expect("the rows are read");
        assert_eq!((values(&changes), changes.dropped_columns.len()), (vec!["7".to_owned()], 0), "{text}");
    }
    // Fields of structs that the contract does not have are reported.
    let nested = typed("struct<a:int>", "");
    let changes = rows(&nested, "a.jsonl", "{\"id\":1,\"v\":{\"a\":1,\"b\":2}}\n").expect("the rows are read");
    assert_eq!(changes.dropped_columns, ["v.b"]);
}

#[test]
fn types_of_rows_are_inferred_as_in_jobs() {
    let changes = rows(
        "",
        "a.csv",
        "id,phone,zip,big,day,mixed\n1,+49151,007,99999999999999999999,2024-02-29,5\n2,+49152,008,1,2024-03-01,x\n",
    )
    .expect("the rows are read");
    let schema = changes.batches[0].rows.schema();
    let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
    let text = DataType::Utf8;
    // Dates and times remain text, because a later run may contain them in another format.
    assert_eq!(types, [DataType::Int64, text.clone(), text.clone(), text.clone(), text.clone(), text]);
    assert_eq!(
        changes.conflicts[0].to_string(),
        "`mixed` is bigint at a.csv, row 2, and string at a.csv, row 3: the column is text"
    );
    let json = rows("", "a.jsonl", "{\"v\":5}\n{\"v\":\"x\"}\n{\"v\":{\"a\":1}}\n").expect("the rows are read");
    assert_eq!(
        (values(&json), json.conflicts.len()),
        (vec!["5".to_owned(), "x".to_owned(), "{\"a\":1}".to_owned()], 1)
    );
    let wide = rows("", "a.jsonl", "{\"v\":18446744073709551616}\n").expect("the rows are read");
    assert_eq!(values(&wide), ["18446744073709551616"]);
}

#[test]
fn list_that_cannot_be_decoded_is_not_taken_for_the_placeholder() {
    const INTS: &str = r#"{"field":"v","type":"array","items":{"type":"int32","optional":true},"optional":true}"#;
    for (value, fits) in [("[1,2]", true), ("[1,null,2147483648]", false), ("[1,\"x\"]", false), ("[1,2.5]", false)] {
        let read = envelopes(INTS, &[value], "", BadRows::Fail)
            .map(drop)
            .map_err(|e| (e.column().map(str::to_owned), e.row()));
        assert_eq!(read, if fits { Ok(()) } else { Err((Some("v".to_owned()), Some(1))) }, "{value}");
    }
}

#[test]
fn times_with_a_zone_keep_all_digits_that_the_contract_allows() {
    const ZONED: &str = r#"{"field":"v","type":"string","name":"io.debezium.time.ZonedTimestamp","optional":true}"#;
    let value = ["\"2024-02-29T12:00:00.1234567Z\""];
    assert!(envelopes(ZONED, &value, "", BadRows::Fail).is_err());
    let nanos = envelopes(ZONED, &value, &typed("timestamptz(9)", ""), BadRows::Fail).expect("the time is read");
    assert_eq!(values(&nanos), ["2024-02-29T12:00:00.123456700Z"]);
    let text = envelopes(ZONED, &value, &typed("string", ""), BadRows::Fail).expect("the text is read");
    assert_eq!(values(&text), ["2024-02-29T12:00:00.1234567Z"]);
}

#[test]
fn map_with_a_duplicate_key_is_refused() {
    let contract = typed("map<int,string>", "");
    let e = rows(&contract, "a.jsonl", "{\"id\":1,\"v\":{\"1\":\"a\"}}\n{\"id\":2,\"v\":{\"1\":\"a\",\"01\":\"b\"}}\n")
        .unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("DuplicateKey", Some("v"), Some(2)));
    let e =
        rows(&typed("map<string,string>", ""), "a.jsonl", "{\"id\":1,\"v\":{\"a\":\"x\",\"a\":\"y\"}}\n").unwrap_err();
    assert_eq!((e.code(), e.row()), ("DuplicateColumn", Some(1)), "duplicate names in JSON are refused for every type");
}

#[test]
fn extra_columns_are_dropped_kept_or_refused() {
    let contract = |extra: &str| format!("extra = '{extra}'\n{}", typed("int", ""));
    let text = "{\"id\":1,\"v\":2,\"more\":3}\n";
    let names = |changes: &ChangeRecords| {
        changes.batches[0].rows.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>()
    };
    let dropped = rows(&contract("drop"), "a.jsonl", text).expect("the rows are read");
    assert_eq!(
        (names(&dropped), dropped.dropped_columns),
        (vec!["id".to_owned(), "v".to_owned()], vec!["more".to_owned()])
    );
    assert_eq!(names(&rows(&contract("keep"), "a.jsonl", text).expect("the rows are read")), ["id", "v", "more"]);
    let e = rows(&contract("refuse"), "a.jsonl", text).unwrap_err();
    assert_eq!((e.code(), e.column()), ("ExtraColumns", Some("more")));
}
