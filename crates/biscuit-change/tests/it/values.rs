//! Values and log positions that a reader stores unchanged or refuses.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, Time64MicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use biscuit_change::internal::FileRows;
use biscuit_change::{
    ChangeRecords, CsvDialect, DebeziumOptions, DebeziumReader, DmsOptions, DmsReader, RowsOptions, RowsReader,
    TextEncoding,
};
use biscuit_core::Result;
use biscuit_schema::Contract;

fn envelope(value: &str, source: &str) -> String {
    envelope_of(r#"{"field":"v","type":"string","optional":true}"#, value, "r", source)
}

fn envelope_of(field: &str, value: &str, op: &str, source: &str) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"field":"after","type":"struct","fields":[{{"field":"id","type":"int64"}},{field}]}}]}},"payload":{{"op":"{op}","before":null,"after":{{"id":1,"v":{value}}},"source":{source}}}}}"#
    )
}

fn debezium(lines: &[String], table: Option<&str>) -> Result<ChangeRecords> {
    let mut options = DebeziumOptions::default().with_key(["id"]);
    options.table = table.map(str::to_owned);
    let mut reader = DebeziumReader::new(options);
    reader.read("a.jsonl", &lines.join("\n").into_bytes().into())?;
    reader.finish()
}

#[test]
fn snapshot_rows_without_a_position_are_older_than_changes_with_one() {
    let source =
        r#"{"connector":"postgresql","db":"app","schema":"s","table":"t","snapshot":"incremental","lsn":null}"#;
    let changes = debezium(&[envelope("\"a\"", source)], None).expect("the file is read");
    let lsn =
        changes.batches[0].rows.column_by_name("__lsn").expect("the order column exists").as_primitive::<Int64Type>();
    assert_eq!(lsn.value(0), 0);
    let source = r#"{"connector":"sqlserver","db":"erp","schema":"dbo","table":"t","snapshot":"first","commit_lsn":"00000025:00000448:0003","change_lsn":null,"event_serial_no":null}"#;
    let changes = debezium(&[envelope("\"a\"", source)], None).expect("the file is read");
    let rows = &changes.batches[0].rows;
    let decimal = |name: &str| {
        rows.column_by_name(name).expect("the order column exists").as_primitive::<Decimal128Type>().value(0)
    };
    assert!(decimal("__commit_lsn") > 0 && decimal("__change_lsn") == 0);
    // Only snapshot rows may lack a position: in a change it remains null, which a merge refuses.
    let source = source.replace("\"first\"", "\"false\"");
    let changes = debezium(&[envelope("\"a\"", &source)], None).expect("the reader accepts it");
    assert!(changes.batches[0].rows.column_by_name("__change_lsn").expect("the order column exists").is_null(0));
}

#[test]
fn tables_of_the_same_name_in_two_databases_are_different() {
    let of = |db: &str| {
        envelope("\"a\"", &format!(r#"{{"connector":"postgresql","db":"{db}","schema":"s","table":"t","lsn":1}}"#))
    };
    let lines = [of("eu"), of("us")];
    let e = debezium(&lines, None).map(drop).unwrap_err();
    assert!(e.code() == "SeveralTables" && e.message().contains("eu.s.t, us.s.t"), "{e}");
    let chosen = debezium(&lines, Some("us.s.t")).expect("one record is read");
    assert_eq!((chosen.len(), chosen.other_tables), (1, 1));
    assert!(debezium(&lines, Some("s.t")).is_err(), "the name matches both tables");
}

#[test]
fn times_outside_of_a_day_are_refused() {
    let source = r#"{"connector":"mysql","db":"s","table":"t","file":"b.1","pos":1,"row":0}"#;
    let micros = r#"{"field":"v","type":"int64","name":"io.debezium.time.MicroTime"}"#;
    for (value, fits) in
        [("0", true), ("86399999999", true), ("86400000000", false), ("-1", false), ("3020399000000", false)]
    {
        let read = debezium(&[envelope_of(micros, value, "c", source)], None);
        assert_eq!(
            read.map(drop).map_err(|e| (e.code(), e.row(), e.column().map(str::to_owned))),
            if fits { Ok(()) } else { Err(("Overflow", Some(1), Some("v".to_owned()))) },
            "{value}"
        );
    }
    let times: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![1, 86_400_000_000]));
    let e = parquet(&[("t", times)]).find_map(Result::err).expect("the time is refused");
    assert_eq!((e.code(), e.column(), e.file()), ("Overflow", Some("t"), Some("a.parquet")));
}

fn parquet(columns: &[(&str, ArrayRef)]) -> FileRows {
    let batch = RecordBatch::try_from_iter(columns.iter().cloned()).expect("the columns have equal lengths");
    let mut writer = parquet::arrow::ArrowWriter::try_new(vec![], batch.schema(), None).expect("the writer is created");
    writer.write(&batch).expect("the rows are written");
    FileRows::open(&"a.parquet".into(), writer.into_inner().expect("the file is finished").into(), None)
        .expect("the file is finished")
}

#[test]
fn columns_are_read_in_types_that_can_be_stored() {
    let unsigned: ArrayRef = Arc::new(UInt32Array::from(vec![u32::MAX]));
    let rows = parquet(&[("n", unsigned)]).next().expect("the rows are read").expect("the rows are read");
    assert_eq!(rows.column(0).as_ref(), &Int64Array::from(vec![4_294_967_295]) as &dyn Array);
    // A union in Avro: a header with the schema, a sync marker, and one block with one record.
    let schema = r#"{"type":"record","name":"U","fields":[{"name":"v","type":["null","string","long"]}]}"#;
    let long = |n: usize| {
        vec![((n << 1) & 0x7f | if n > 63 { 0x80 } else { 0 }) as u8, (n >> 6) as u8][..if n > 63 { 2 } else { 1 }]
            .to_vec()
    };
    let text = |t: &str| [long(t.len()), t.as_bytes().to_vec()].concat();
    let mut file = [b"Obj\x01".to_vec(), long(1), text("avro.schema"), text(schema), vec![0], vec![7; 16]].concat();
    file.extend([long(1), long(3), long(1), text("x"), vec![7; 16]].concat());
    let read = FileRows::open(&"a.avro".into(), file.into(), None).and_then(|mut rows| rows.next().transpose());
    let e = read.map(drop).unwrap_err();
    assert_eq!((e.code(), e.file(), e.column()), ("UnsupportedType", Some("a.avro"), Some("v")), "{e}");
}

#[test]
fn dms_headers_match_the_contract_in_any_letter_case() {
    let contract =
        "key=[\"code\"]\n[[columns]]\nname=\"code\"\ntype=\"string\"\n[[columns]]\nname=\"name\"\ntype=\"string\"\n";
    let options = DmsOptions::default().with_contract(Contract::from_toml(contract).expect("the contract is valid"));
    let read = |text: &str| {
        let mut reader = DmsReader::new(options.clone());
        reader.read("APP/PEOPLE/LOAD00000001.csv", text.to_owned().into_bytes().into())?;
        reader.finish()
    };
    for header in ["CODE,NAME", "code,name", "Code, Name", "NAME,CODE"] {
        let row = if header.starts_with('N') { "Ann,A1" } else { "A1,Ann" };
        let changes = read(&format!("{header}\n{row}\n")).expect(header);
        let rows = &changes.batches[0].rows;
        let text =
            |name: &str| rows.column_by_name(name).expect("the column exists").as_string::<i32>().value(0).to_owned();
        assert_eq!((rows.num_rows(), text("code"), text("name")), (1, "A1".to_owned(), "Ann".to_owned()), "{header}");
    }
    assert_eq!(read("A1,Ann\n").expect("a file without a header is read").batches[0].rows.num_rows(), 1);
}

#[test]
fn csv_dialects_encodings_and_json_layouts_are_read() {
    let read = |name: &str, content: &[u8], options: RowsOptions| {
        let mut reader = RowsReader::new(options);
        reader.read(name, content.to_vec().into())?;
        reader.finish()
    };
    let text = |changes: &ChangeRecords| {
        changes.batches[0].rows.column_by_name("v").expect("column v exists").as_string::<i32>().value(0).to_owned()
    };
    let mut dialect = CsvDialect::default();
    (dialect.delimiter, dialect.escape) = (Some(b';'), Some(b'\\'));
    let changes =
        read("a.csv", b"id;v\n1;\"a \\\"b\\\"\"\n", RowsOptions::default().with_csv(dialect)).expect("the CSV is read");
    assert_eq!(text(&changes), "a \"b\"");
    let latin =
        RowsOptions::default().with_encoding(TextEncoding::from_label("latin1").expect("the encoding is known"));
    assert_eq!(text(&read("a.csv", b"id,v\n1,Zo\xeb\n", latin).expect("the CSV is read")), "Zo\u{eb}");
    let e = read("a.csv", b"id,v\n1,Zo\xeb\n", RowsOptions::default()).map(drop).unwrap_err();
    assert!(
        e.code() == "InvalidText" && e.row() == Some(2) && e.message().contains("byte 5 of the line is 0xeb"),
        "{e}"
    );
    let e = read("a.csv", b"id,v\n1,\"a\n2,b\n", RowsOptions::default()).map(drop).unwrap_err();
    assert_eq!((e.code(), e.row()), ("InvalidCsv", Some(2)));
    for content in [
        "[{\"id\":1,\"v\":\"x\"},\n{\"id\":2,\"v\":\"y\"}]",
        "{\"id\":1,\"v\":\"x\"}{\"id\":2,\"v\":\"y\"}",
        "{\n\"id\":1,\n\"v\":\"x\"}\n{\"id\":2,\"v\":\"y\"}",
    ] {
        let changes = read("a.json", content.as_bytes(), RowsOptions::default()).expect(content);
        assert_eq!((changes.len(), text(&changes)), (2, "x".to_owned()), "{content}");
        assert_eq!(changes.batches[0].rows.schema().field(0).data_type(), &DataType::Int64);
    }
}
