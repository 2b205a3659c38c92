//! Boundary values of every type: every reader and format stores the same value or refuses it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::display::array_value_to_string;
use biscuit_change::{ChangeRecords, DebeziumOptions, DebeziumReader, DmsOptions, DmsReader, RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_schema::Contract;
use biscuit_testkit::internal::{BoundaryValue, boundaries};

fn contract(of: &BoundaryValue) -> Contract {
    let text = format!(
        "key = ['id']\norder = ['seq']\n[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'seq'\ntype = 'bigint'\n[[columns]]\nname = 'v'\ntype = '{}'\n",
        of.column_type
    );
    Contract::from_toml(&text).expect("the contract is valid")
}

fn rows(of: &BoundaryValue, file: &str, bytes: Vec<u8>) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(RowsOptions::default().with_contract(contract(of)));
    reader.read(file, bytes.into())?;
    reader.finish()
}

fn json(of: &BoundaryValue) -> Result<ChangeRecords> {
    let text = serde_json::Value::from(of.text);
    rows(of, "a.jsonl", format!("{{\"id\":1,\"seq\":1,\"v\":{text}}}\n").into_bytes())
}

fn csv(of: &BoundaryValue) -> Result<ChangeRecords> {
    rows(of, "a.csv", format!("id,seq,v\n1,1,\"{}\"\n", of.text).into_bytes())
}

fn parquet_of(of: &BoundaryValue) -> Vec<u8> {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![of.text]));
    let batch = RecordBatch::try_from_iter([("id", one.clone()), ("seq", one), ("v", text)])
        .expect("the columns have equal lengths");
    let mut writer = parquet::arrow::ArrowWriter::try_new(vec![], batch.schema(), None).expect("the writer is created");
    writer.write(&batch).expect("the rows are written");
    writer.into_inner().expect("the file is finished")
}

fn parquet(of: &BoundaryValue) -> Result<ChangeRecords> {
    rows(of, "a.parquet", parquet_of(of))
}

fn dms(of: &BoundaryValue, file: &str, bytes: Vec<u8>) -> Result<ChangeRecords> {
    let mut reader = DmsReader::new(DmsOptions::default().with_contract(contract(of)).with_null("(none)"));
    reader.read(file, bytes.into())?;
    reader.finish()
}

fn dms_csv(of: &BoundaryValue) -> Result<ChangeRecords> {
    dms(of, "s/t/LOAD00000001.csv", format!("id,seq,v\n1,1,\"{}\"\n", of.text).into_bytes())
}

fn dms_parquet(of: &BoundaryValue) -> Result<ChangeRecords> {
    dms(of, "s/t/LOAD00000001.parquet", parquet_of(of))
}

/// Reads an envelope with a schema in which the column is text, as with `decimal.handling.mode=string`.
fn debezium(of: &BoundaryValue) -> Result<ChangeRecords> {
    let text = serde_json::Value::from(of.text);
    let line = format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"field":"after","type":"struct","fields":[{{"field":"id","type":"int64"}},{{"field":"v","type":"string","optional":true}}]}}]}},"payload":{{"op":"c","before":null,"after":{{"id":1,"v":{text}}},"source":{{"connector":"postgresql","table":"t","lsn":1}}}}}}"#
    );
    let mut contract = contract(of);
    contract.order.clear();
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract));
    reader.read("a.jsonl", &line.into_bytes().into())?;
    reader.finish()
}

type Reader = fn(&BoundaryValue) -> Result<ChangeRecords>;

#[test]
fn every_reader_stores_the_same_value_or_refuses_it() {
    let readers: [(&str, Reader); 6] = [
        ("JSON", json),
        ("CSV", csv),
        ("Parquet", parquet),
        ("DMS, CSV", dms_csv),
        ("DMS, Parquet", dms_parquet),
        ("Debezium", debezium),
    ];
    for of in boundaries() {
        for (name, read) in readers {
            let read = read(&of);
            match (&read, of.stored) {
                (Ok(changes), Some(stored)) => {
                    let column = changes.batches[0].rows.column_by_name("v").expect("the column exists");
                    assert_eq!(column.data_type(), contract(&of).columns[2].column_type.arrow(), "{name}: {of:?}");
                    assert_eq!(
                        array_value_to_string(column, 0).expect("the value can be shown"),
                        stored,
                        "{name}: {of:?}"
                    );
                    assert!(changes.losses.is_empty(), "{name}: {of:?}");
                }
                (Err(e), None) => {
                    assert_eq!(
                        (e.column(), e.row().is_some(), e.file().is_some()),
                        (Some("v"), true, true),
                        "{name}: {of:?}: {e}"
                    );
                }
                _ => panic!("{name}: {of:?} was {:?}", read.map(|changes| changes.batches[0].rows.clone())),
            }
        }
    }
}

#[test]
fn json_number_is_coerced_like_its_text() {
    for of in boundaries() {
        let is_number = of.text.starts_with(['-', '0', '1', '2', '3', '5', '8', '9'])
            && serde_json::from_str::<serde_json::Number>(of.text).is_ok();
        if !is_number {
            continue;
        }
        let read = rows(&of, "a.jsonl", format!("{{\"id\":1,\"seq\":1,\"v\":{}}}\n", of.text).into_bytes());
        assert_eq!(read.is_ok(), of.stored.is_some(), "{of:?}");
    }
}

#[test]
fn nulls_and_empty_cells_are_null() {
    for of in boundaries() {
        let null =
            rows(&of, "a.jsonl", b"{\"id\":1,\"seq\":1,\"v\":null}\n".to_vec()).expect("null is valid for every type");
        assert!(null.batches[0].rows.column_by_name("v").expect("the column exists").is_null(0), "{of:?}");
        let empty = rows(&of, "a.csv", b"id,seq,v\n1,1,\n".to_vec()).expect("an empty cell is null");
        assert!(empty.batches[0].rows.column_by_name("v").expect("the column exists").is_null(0), "{of:?}");
        let text = rows(&of, "a.jsonl", b"{\"id\":1,\"seq\":1,\"v\":\"\"}\n".to_vec());
        assert_eq!(text.is_ok(), of.column_type == "string", "{of:?}");
    }
}
