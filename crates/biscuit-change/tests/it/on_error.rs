//! `on_error` and `default` of a contract apply in every reader and format.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::display::array_value_to_string;
use biscuit_change::{ChangeRecords, DebeziumOptions, DebeziumReader, DmsOptions, DmsReader, RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_schema::Contract;
use parquet::arrow::ArrowWriter;

fn contract(v: &str) -> Contract {
    let text = format!(
        "key = ['id']\n[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'v'\ntype = 'int'\n{v}\n[[columns]]\nname = 'w'\ntype = 'int'\n"
    );
    Contract::from_toml(&text).expect("the contract is valid")
}

fn parquet(rows: &[(i64, Option<&str>, Option<&str>)]) -> Vec<u8> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    let v: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1)));
    let w: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.2)));
    let batch = RecordBatch::try_from_iter([("id", ids), ("v", v), ("w", w)]).expect("the columns have equal lengths");
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), None).expect("the writer is created");
    writer.write(&batch).expect("the rows are written");
    writer.into_inner().expect("the file is finished")
}

/// Reads the same rows with each reader and format.
fn read(contract: &Contract, rows: &[(i64, Option<&str>, Option<&str>)]) -> Vec<(&'static str, Result<ChangeRecords>)> {
    let of_rows = |file: &str, bytes: Vec<u8>| {
        let mut reader = RowsReader::new(RowsOptions::default().with_contract(contract.clone()));
        reader.read(file, bytes.into())?;
        reader.finish()
    };
    let of_dms = |file: &str, bytes: Vec<u8>| {
        let mut reader = DmsReader::new(DmsOptions::default().with_contract(contract.clone()));
        reader.read(file, bytes.into())?;
        reader.finish()
    };
    let quoted = |v: Option<&str>| v.map_or("null".to_owned(), |v| format!("\"{v}\""));
    let json = |(id, v, w): &(i64, Option<&str>, Option<&str>)| {
        format!("{{\"id\":{id},\"v\":{},\"w\":{}}}", quoted(*v), quoted(*w))
    };
    let csv = |(id, v, w): &(i64, Option<&str>, Option<&str>)| {
        format!("{id},{},{}\n", v.unwrap_or_default(), w.unwrap_or_default())
    };
    let lines: String = rows.iter().map(|r| json(r) + "\n").collect();
    let cells: String = rows.iter().map(csv).collect();
    let dms: String = rows.iter().map(|r| format!("I,{}", csv(r))).collect();
    let envelope = |r: &(i64, Option<&str>, Option<&str>)| {
        format!(
            "{{\"op\":\"c\",\"before\":null,\"after\":{},\"source\":{{\"connector\":\"postgresql\",\"table\":\"t\",\"lsn\":{}}}}}\n",
            json(r),
            r.0
        )
    };
    let envelopes: String = rows.iter().map(envelope).collect();
    let fields = ["id:int64", "v:string", "w:string"].map(|field| {
        let (name, t) = field.split_once(':').expect("the field has a name and a type");
        format!("{{\"field\":\"{name}\",\"type\":\"{t}\",\"optional\":true}}")
    });
    let schema = format!(
        "{{\"type\":\"struct\",\"fields\":[{{\"field\":\"after\",\"type\":\"struct\",\"fields\":[{}]}}]}}",
        fields.join(",")
    );
    let embedded: String =
        rows.iter().map(|r| format!("{{\"schema\":{schema},\"payload\":{}}}\n", envelope(r).trim_end())).collect();
    let of_debezium = |text: String| {
        let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract.clone()));
        reader.read("a.jsonl", &text.into_bytes().into())?;
        reader.finish()
    };
    vec![
        ("json", of_rows("a.jsonl", lines.into_bytes())),
        ("csv", of_rows("a.csv", format!("id,v,w\n{cells}").into_bytes())),
        ("parquet", of_rows("a.parquet", parquet(rows))),
        ("dms csv", of_dms("s/t/20240229-120000000.csv", format!("Op,id,v,w\n{dms}").into_bytes())),
        ("dms parquet", of_dms("s/t/20240229-120000000.parquet", parquet(rows))),
        ("debezium", of_debezium(envelopes)),
        ("debezium with a schema", of_debezium(embedded)),
    ]
}

fn column(changes: &ChangeRecords, name: &str) -> Vec<String> {
    let of = |batch: &biscuit_change::ChangeBatch| {
        let column = batch.rows.column_by_name(name).expect("the column exists").clone();
        (0..column.len())
            .map(|row| array_value_to_string(&column, row).expect("the value can be shown"))
            .collect::<Vec<_>>()
    };
    changes.batches.iter().flat_map(of).collect()
}

const ROWS: [(i64, Option<&str>, Option<&str>); 4] =
    [(1, Some("1"), None), (2, Some("x"), None), (3, Some("3000000000"), None), (4, None, None)];

#[test]
fn invalid_values_become_null_and_are_counted() {
    let contract = contract("on_error = 'null'\ndefault = '7'");
    for (name, changes) in read(&contract, &ROWS) {
        let changes = changes.unwrap_or_else(|e| panic!("{name}: {e}"));
        // A missing value becomes the default, an invalid value becomes null.
        assert_eq!(column(&changes, "v"), ["1", "", "", "7"], "{name}");
        let losses = &changes.losses["v"];
        assert_eq!((losses.nulled.values().sum::<u64>(), losses.defaulted), (2, 1), "{name}: {losses:?}");
        assert!(changes.refused.is_empty() && !changes.losses.contains_key("w"), "{name}");
    }
}

#[test]
fn records_are_quarantined_for_columns_with_on_error_quarantine() {
    let contract = contract("on_error = 'quarantine'");
    for (name, changes) in read(&contract, &ROWS) {
        let changes = changes.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(column(&changes, "id"), ["1", "4"], "{name}");
        assert!(changes.refused.iter().all(|r| r.column.as_deref() == Some("v") && !r.raw.is_empty()), "{name}");
        assert_eq!(changes.refused.len(), 2, "{name}");
    }
    // An invalid value in another column is still an error.
    let other = [(1, None, Some("x")), (2, Some("x"), None)];
    for (name, changes) in read(&contract, &other) {
        let e = changes.map(drop).unwrap_err();
        assert_eq!((e.column(), e.row().is_some()), (Some("w"), true), "{name}: {e}");
    }
}

#[test]
fn unchanged_values_are_not_turned_into_null() {
    let contract = contract("on_error = 'null'");
    let line = r#"{"id":1,"v":"__debezium_unavailable_value","op":"u"}"#;
    let mut reader = RowsReader::new(RowsOptions::default().with_contract(contract).with_op("op"));
    let read = reader.read("a.jsonl", format!("{line}\n").into_bytes().into());
    let e = read.and_then(|()| reader.finish()).map(drop).unwrap_err();
    assert_eq!((e.code(), e.column(), e.row()), ("Unparseable", Some("v"), Some(1)), "{e}");
    let list = |t: &str| {
        let contract = format!(
            "on_error = 'null'\n[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'v'\ntype = '{t}'\n"
        );
        let contract = Contract::from_toml(&contract).expect("the contract is valid");
        let mut reader = RowsReader::new(RowsOptions::default().with_contract(contract).with_op("op"));
        let line = r#"{"id":1,"v":["__debezium_unavailable_value"],"op":"u"}"#;
        reader.read("a.jsonl", format!("{line}\n").into_bytes().into())?;
        reader.finish()
    };
    assert_eq!(list("array<int>").map(drop).unwrap_err().code(), "Unparseable");
    let texts = list("array<string>").expect("the value is unchanged");
    assert!(texts.batches[0].present[1].as_ref().is_some_and(|present| !present.value(0)));
}

#[test]
fn absent_column_gets_its_default() {
    let with = Contract::from_toml(
        "key = ['id']\n[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'kind'\ntype = 'string'\nnullable = false\ndefault = 'new'\n",
    )
    .expect("the contract is valid");
    for (file, text) in [("a.jsonl", "{\"id\":1}\n"), ("a.csv", "id\n1\n")] {
        let mut reader = RowsReader::new(RowsOptions::default().with_contract(with.clone()));
        reader.read(file, text.as_bytes().to_vec().into()).expect("the file is read");
        let changes = reader.finish().expect("the rows are read");
        assert_eq!((column(&changes, "kind"), changes.losses["kind"].defaulted), (vec!["new".to_owned()], 1), "{file}");
    }
    let mut reader = DmsReader::new(DmsOptions::default().with_contract(with));
    reader.read("s/t/LOAD00000001.csv", "Op,id\nI,1\n".as_bytes().to_vec().into()).expect("the file is read");
    let changes = reader.finish().expect("the rows are read");
    assert_eq!(column(&changes, "kind"), ["new"]);
}
