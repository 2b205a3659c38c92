//! Files that are read in parts, as on several cores, give the same records as files that are read as a whole.

use std::sync::Arc;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use biscuit_change::internal::{ChunkReader, TextChunks};
use biscuit_change::{
    BadRows, ChangeBatch, ChangeRecords, DebeziumOptions, DebeziumReader, DmsOptions, DmsReader, RowsOptions,
    RowsReader,
};
use biscuit_core::Result;
use biscuit_schema::Contract;

/// Number of parts that are read before the first of them is added.
const AHEAD: usize = 3;

/// Reads files in chunks of `size` bytes.
fn in_parts<R: ChunkReader>(mut reader: R, files: &[(&str, String)], size: usize) -> Result<R> {
    if reader.needs_types()
        && let Some(mut learner) = reader.new_part()
    {
        each_chunk(&mut learner, files, size, R::learn_types)?;
        reader.end_types(learner);
    }
    each_chunk(&mut reader, files, size, R::read_chunk)?;
    Ok(reader)
}

fn each_chunk<R: ChunkReader>(
    reader: &mut R,
    files: &[(&str, String)],
    size: usize,
    read: fn(&mut R, biscuit_change::internal::TextChunk) -> Result<()>,
) -> Result<()> {
    let mut parts = Vec::new();
    for (file, text) in files {
        let Some(form) = reader.text_form(file)? else { continue };
        let name: Arc<str> = (*file).into();
        let chunks = TextChunks::open(&name, text.as_bytes(), text.len() as u64, form.separation, &form.settings)?;
        let mut chunks = chunks.with_chunk_size(size);
        while let Some(chunk) = chunks.next_chunk()? {
            match reader.new_part() {
                Some(mut part) => parts.push(read(&mut part, chunk).map(|()| part)),
                None => read(reader, chunk)?,
            }
            if parts.len() == AHEAD {
                parts.drain(..).try_for_each(|part| reader.add_part(part?))?;
            }
        }
    }
    parts.drain(..).try_for_each(|part| reader.add_part(part?))
}

/// Describes each record of a batch: its origin, operation and values.
fn describe_batch(batch: &ChangeBatch) -> Vec<String> {
    let schema = batch.rows.schema();
    let mut columns: Vec<usize> = (0..schema.fields().len()).collect();
    columns.sort_by_key(|column| schema.field(*column).name().clone());
    let describe = |row: usize| {
        let value = |column: &usize| {
            let array = batch.rows.column(*column);
            let is_present = batch.present[*column].as_ref().is_none_or(|present| present.value(row));
            // A column without a value may be absent in one of the parts.
            let value = match (is_present, array.is_null(row) || array.logical_nulls().is_some_and(|n| n.is_null(row)))
            {
                (false, _) => "unchanged".to_owned(),
                (true, true) => return None,
                (true, false) => array_value_to_string(array, row).expect("the value has a text"),
            };
            Some(format!("{}={value}", schema.field(*column).name()))
        };
        let values: Vec<String> = columns.iter().filter_map(value).collect();
        let raw = batch.raw.as_ref().map(|raw| raw.0.get(row).expect("the record has its raw form"));
        let raw = raw.map(|raw| String::from_utf8_lossy(&raw).into_owned());
        let keys = batch.key_changes.iter().filter(|change| change.row == row);
        let keys: Vec<String> = keys.map(|change| format!("{:?} {:?}", change.kind, change.key.columns())).collect();
        let origin = format!("{} {} rank {}", batch.file, batch.places[row], batch.rank);
        format!("{origin}: {:?} {:?} {values:?} {keys:?} {raw:?}", batch.ops[row], batch.operation_code(row))
    };
    (0..batch.ops.len()).map(describe).collect()
}

fn describe(changes: Result<ChangeRecords>) -> String {
    match changes {
        Err(e) => format!("{e}"),
        Ok(mut changes) => {
            // The records themselves, apart from how they are divided into batches; columns in any order.
            let records: Vec<String> = std::mem::take(&mut changes.batches).iter().flat_map(describe_batch).collect();
            changes.dropped_columns.sort();
            let mut conflicts: Vec<String> = changes.conflicts.iter().map(|conflict| format!("{conflict:?}")).collect();
            conflicts.sort();
            changes.conflicts.clear();
            format!("{}\n{conflicts:?}\n{changes:#?}", records.join("\n"))
        }
    }
}

/// Compares reading as a whole with reading in chunks of many sizes. Returns the description of the result.
fn check<R: ChunkReader>(
    files: &[(&str, String)],
    new: impl Fn() -> R,
    read: impl Fn(&mut R, &str, String) -> Result<()>,
    finish: impl Fn(R) -> Result<ChangeRecords>,
) -> String {
    let whole = || {
        let mut reader = new();
        files.iter().try_for_each(|(file, text)| read(&mut reader, file, text.clone()))?;
        finish(reader)
    };
    let whole = describe(whole());
    let longest = files.iter().map(|(_, text)| text.len()).max().unwrap_or_default();
    for size in (1..60).chain((60..=longest + 1).step_by(97)) {
        let parts = describe(in_parts(new(), files, size).and_then(&finish));
        let lines = whole.lines().zip(parts.lines()).find(|(whole, parts)| whole != parts);
        assert_eq!(lines, None, "in chunks of {size} bytes");
        assert_eq!(parts.len(), whole.len(), "in chunks of {size} bytes");
    }
    whole
}

const CONTRACT: &str = "
    key = ['id']
    [[columns]]
    name = 'id'
    type = 'bigint'
    [[columns]]
    name = 'name'
    type = 'string'
    renamed_from = ['title']
    [[columns]]
    name = 'amount'
    type = 'decimal(8,2)'
    on_error = 'null'
    [[columns]]
    name = 'at'
    type = 'timestamp'
";

fn contract() -> Contract {
    Contract::from_toml(CONTRACT).expect("the contract is valid")
}

fn rows(files: &[(&str, String)], options: &RowsOptions) -> String {
    check(files, || RowsReader::new(options.clone()), |r, file, text| r.read(file, text.into()), RowsReader::finish)
}

#[test]
fn lines_of_json_are_the_same_in_parts() {
    let lines = [
        r#"{"id":1,"op":"c","name":"a\"b","amount":1.25,"at":"2024-01-01T00:00:00","more":{"x":1}}"#,
        "",
        r#"{"op":"u","id":2,"ID_2":3,"title":"z","amount":"x"}"#,
        "null",
        r#"{"id":"3","op":"-U","name":null}"#,
        r#"{"id":4,"op":"d","gone":[1,2]}"#,
        r#" {"id" : 5 , "op" : "u", "name":"__debezium_unavailable_value"} "#,
    ];
    let bad = [r#"{"id":6,"id":7}"#, "{\"id\":", r#"{"id":"x","op":"c"}"#, r#"{"id":8,"name":"a","title":"b"}"#];
    let text = |lines: &[&str]| format!("{}\r\n", lines.join("\r\n"));
    let files = [("a.jsonl", text(&lines)), ("topic+0.keys.json", "x".to_owned()), ("b.jsonl", text(&lines[2..]))];
    let with_op = RowsOptions::default().with_op("op");
    let found = rows(&files, &with_op.clone().with_contract(contract()));
    assert!(found.contains("a.jsonl 7 rank 1: Upsert \"u\" [\"id=5\", \"name=unchanged\"]"), "{found}");
    assert!(found.contains("ignored: 4") && found.contains("\"topic+0.keys.json\""), "{found}");
    rows(&files, &with_op);

    let mixed: Vec<&str> = lines.iter().chain(&bad).chain(&lines).copied().collect();
    let files = [("a.jsonl", text(&mixed)), ("b.jsonl", text(&lines))];
    for options in [with_op.clone(), with_op.with_contract(contract())] {
        let stopped = rows(&files, &options);
        assert!(stopped.starts_with("DuplicateColumn") && stopped.contains("row 8"), "{stopped}");
        let found = rows(&files, &options.with_bad_rows(BadRows::Quarantine));
        assert!(found.contains("InvalidJson") && found.contains("row: 9"), "{found}");
    }
    // An array is converted to lines; the number of a value is its row.
    let array = format!("[{}]", lines[..1].iter().chain(&lines[4..]).copied().collect::<Vec<_>>().join(",\n"));
    rows(&[("a.json", array)], &RowsOptions::default().with_contract(contract()));
}

#[test]
fn records_of_csv_are_the_same_in_parts() {
    let text = "id,name,amount,at,Op\r\n1,\"a\nb\",1.5,2024-01-01 00:00:00,I\r\n\r\n2,\"\",x,,U\r\n3,5\" c,2.25,,D\r\n";
    let files = [("a.csv", text.to_owned()), ("b.csv", "Op,id\nU,4\nI,5\n".to_owned())];
    let options = RowsOptions::default().with_op("Op");
    let found = rows(&files, &options.clone().with_contract(contract()));
    assert!(found.contains("a.csv 6 rank 1: Delete \"d\" [\"amount=2.25\", \"id=3\", \"name=5\\\" c\"]"), "{found}");
    assert!(found.contains("\"Unparseable\": 1"), "{found}");
    rows(&files, &options);
    let bad = format!("{text}4,x\r\nnope,\"y\",1,,U\r\n5,z,1,,U\r\n");
    for options in [options.clone(), options.with_contract(contract())] {
        let files = [("a.csv", bad.clone())];
        let stopped = rows(&files, &options);
        assert!(stopped.starts_with("InvalidCsv") && stopped.contains("row 7"), "{stopped}");
        rows(&files, &options.with_bad_rows(BadRows::Quarantine));
    }
}

#[test]
fn files_of_dms_are_the_same_in_parts() {
    let read = |files: &[(&str, String)], options: &DmsOptions| {
        check(files, || DmsReader::new(options.clone()), |r, file, text| r.read(file, text.into()), DmsReader::finish)
    };
    let files = [
        ("shop/orders/LOAD00000001.csv", "1,a,1.5,2024-01-01 00:00:00\n2,\"b\n\",NULL,\n".to_owned()),
        ("shop/orders/20240506-130501123.csv", "U,2,c,3.5,\nI,3,d,x,\nD,1,,,\n".to_owned()),
        ("shop/lines/20240506-130501124.csv", "I,9,9,9,\n".to_owned()),
        (
            "CDC_TXN-20240506130501125.csv",
            "I,orders,shop,7,g,1,\nI,lines,shop,7,g,1,\nU,orders,shop,7,h,2,\n".to_owned(),
        ),
    ];
    let options = DmsOptions::default().with_contract(contract()).with_table("shop.orders");
    let found = read(&files, &options);
    assert!(found.contains("CDC_TXN-20240506130501125.csv 3 rank 1: Upsert \"u\""), "{found}");
    assert!(found.contains("other_tables: 2"), "{found}");
    read(&files, &DmsOptions::default().with_contract(contract()));
    let named = [
        ("s/t/LOAD1.csv", "id,v\n1,a\n2,007\n".to_owned()),
        ("s/t/20240506-130501123.csv", "Op,id,v\nU,2,5\n".to_owned()),
    ];
    read(&named, &DmsOptions::default().with_key(["id"]));
}

fn debezium(files: &[(&str, String)], options: &DebeziumOptions) -> String {
    let read = |reader: &mut DebeziumReader, file: &str, text: String| reader.read(file, &text.into());
    check(files, || DebeziumReader::new(options.clone()), read, DebeziumReader::finish)
}

#[test]
fn envelopes_are_the_same_in_parts() {
    let source = |table: &str, lsn: u64| {
        format!(r#"{{"connector":"postgresql","schema":"public","table":"{table}","lsn":{lsn},"snapshot":"false"}}"#)
    };
    let value = |op: &str, before: &str, after: &str, lsn| {
        format!(r#"{{"op":"{op}","before":{before},"after":{after},"source":{}}}"#, source("bill", lsn))
    };
    let keyed =
        |key: &str, headers: &str, value: &str| format!(r#"{{"key":{key},"headers":{headers},"value":{value}}}"#);
    let row = r#"{"id":1,"name":"a","amount":1.5,"at":1700000000000}"#;
    let lines = [
        "null".to_owned(),
        format!(r#"{{"op":"c","before":null,"after":{row},"source":{}}}"#, source("log", 1)),
        keyed(r#"{"id":1}"#, "{}", &value("c", "null", row, 2)),
        keyed(
            r#"{"id":1}"#,
            "{}",
            &value("u", "null", r#"{"id":1,"title":"__debezium_unavailable_value","x":[{"y":1}]}"#, 3),
        ),
        keyed(r#"{"id":1}"#, r#"{"__debezium.newkey":{"id":2}}"#, &value("d", r#"{"id":1}"#, "null", 4)),
        keyed(r#"{"id":1}"#, "{}", "null"),
        keyed(
            r#"{"id":2}"#,
            r#"[{"key":"__debezium.oldkey","value":{"id":1}}]"#,
            &value("c", "null", r#"{"ID":2}"#, 4),
        ),
        r#"{"status":"BEGIN","id":"5","ts_ms":1}"#.to_owned(),
        keyed("null", "{}", &value("t", "null", "null", 6)),
        keyed(r#"{"id":3}"#, "{}", &value("u", "null", r#"{"id":3,"amount":"x"}"#, 7)),
    ];
    let bad = [
        value("u", "null", "null", 8),
        value("x", "null", row, 9),
        r#"{"op":"u"}"#.to_owned(),
        value("u", "null", r#"{"id":"z"}"#, 9),
    ];
    let text = |lines: &[String]| format!("{}\n", lines.join("\n"));
    let options = DebeziumOptions::default().with_contract(contract()).with_table("public.bill");
    let files = [("a.jsonl", text(&lines)), ("b.jsonl", text(&lines[2..]))];
    let found = debezium(&files, &options);
    assert!(
        found.contains("Truncate \"t\"") && found.contains("\"name=unchanged\"") && found.contains("To ["),
        "{found}"
    );
    let mixed: Vec<String> = lines.iter().chain(&bad).chain(&lines).cloned().collect();
    let files = [("a.jsonl", text(&mixed))];
    let stopped = debezium(&files, &options);
    assert!(stopped.starts_with("MissingImage") && stopped.contains("row 11"), "{stopped}");
    let found = debezium(&files, &options.with_bad_rows(BadRows::Quarantine));
    assert!(found.contains("UnknownOp") && found.contains("row: 14"), "{found}");
    // Without a contract for the key: message keys with other columns are an error in any part.
    let no_key = Contract::from_toml(&CONTRACT.replace("key = ['id']", "")).expect("the contract is valid");
    let drifting = [lines[2].clone(), lines[3].clone(), keyed(r#"{"name":"a"}"#, "{}", &value("c", "null", row, 9))];
    let e = debezium(&[("a.jsonl", text(&drifting))], &DebeziumOptions::default().with_contract(no_key));
    assert!(e.starts_with("KeyDrift") && e.contains("row 3"), "{e}");
}

#[test]
fn envelopes_with_schemas_are_the_same_in_parts() {
    let schema = |t: &str| {
        let id = r#"{"type":"int64","field":"id"}"#;
        let row = format!(r#"{{"type":"struct","field":"after","fields":[{id},{{"type":"{t}","field":"v"}}]}}"#);
        format!(r#"{{"type":"struct","fields":[{row}]}}"#)
    };
    let line = |t: &str, id: u64, v: &str| {
        let source = format!(r#"{{"schema":"public","table":"t","lsn":{id}}}"#);
        let payload = format!(r#"{{"op":"c","before":null,"after":{{"id":{id},"v":{v}}},"source":{source}}}"#);
        let key = format!(r#"{{"schema":{{"type":"struct"}},"payload":{{"id":{id}}}}}"#);
        format!(r#"{{"key":{key},"value":{{"schema":{},"payload":{payload}}}}}"#, schema(t))
    };
    let lines =
        [line("string", 1, "\"a\""), line("string", 2, "null"), line("int32", 3, "7"), line("string", 4, "\"b\"")];
    let found = debezium(&[("a.jsonl", lines.join("\n"))], &DebeziumOptions::default());
    assert!(found.contains("[\"__lsn=3\", \"id=3\", \"v=7\"]") && found.contains("key: [\n        \"id\""), "{found}");
    let flat =
        |id: u64| format!(r#"{{"id":{id},"name":"n","__op":"u","__table":"t","__lsn":{id},"__deleted":"false"}}"#);
    let flat = [flat(1), flat(2).replace("false", "true"), flat(3)].join("\n");
    let found = debezium(&[("a.jsonl", flat)], &DebeziumOptions::default().with_contract(contract()));
    assert!(found.contains("Delete \"d\" [\"__lsn=2\", \"id=2\"]"), "{found}");
}

#[test]
fn documents_are_the_same_in_parts() {
    let contract = "key = ['id']\n[[columns]]\nname = 'id'\ntype = 'string'\nrenamed_from = ['_id']\n[[columns]]\nname = 'n'\ntype = 'bigint'";
    let contract = Contract::from_toml(contract).expect("the contract is valid");
    let line = |op: &str, id: &str, more: &str| {
        let source = r#"{"connector":"mongodb","db":"shop","collection":"t","ts_ms":1,"ord":1}"#;
        format!(r#"{{"key":{{"id":"\"{id}\""}},"value":{{"op":"{op}",{more}"source":{source}}}}}"#)
    };
    let document = |id: &str| format!(r#""after":"{{\"_id\":\"{id}\",\"n\":{{\"$numberLong\":\"7\"}},\"x\":1}}","#);
    let inside = r#""updateDescription":{"updatedFields":"{\"a.b\":1}"},"#;
    let lines = [
        line("c", "a", &document("a")),
        line("u", "b", inside),
        line("u", "a", r#""updateDescription":{"updatedFields":"{\"n\":8}"},"#),
        line("d", "b", ""),
        line("u", "c", inside),
        line("d", "a", ""),
    ];
    let options = DebeziumOptions::default().with_contract(contract);
    let e = debezium(&[("a.jsonl", lines.join("\n"))], &options);
    assert!(e.starts_with("MissingImage") && e.contains("row 5"), "{e}");
    let found = debezium(&[("a.jsonl", lines.join("\n"))], &options.clone().with_bad_rows(BadRows::Quarantine));
    assert!(found.contains("\"id=a\", \"n=7\"") && found.contains("ignored: 1"), "{found}");
    let known = [lines.as_slice(), &[line("u", "d", &document("d"))]].concat().join("\n");
    assert!(debezium(&[("a.jsonl", known)], &options).contains("ignored: 2"));
    let number = lines[0].replace(r#""\"a\"""#, "\"7\"");
    let e = debezium(&[("a.jsonl", [lines[0].clone(), number].join("\n"))], &options);
    assert!(e.starts_with("KeyDrift") && e.contains("row 2"), "{e}");
}
