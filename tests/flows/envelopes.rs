//! Compares envelopes in Avro and Parquet files with the same envelopes in lines of JSON. The files of
//! tests/data/envelopes contain the same records of the capture: as JSON with embedded schemas, and as Avro with the
//! schema that the converter of Confluent makes of them.

use biscuit_change::{BadRows, ChangeRecords, DebeziumOptions, DebeziumReader, RowsOptions, RowsReader};
use biscuit_testkit::assert_rows_eq;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

fn data(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/envelopes").join(name);
    std::fs::read(path).expect("the example is part of the project")
}

fn read(name: &str, bytes: Vec<u8>) -> ChangeRecords {
    let key = if name.starts_with("orders") { vec!["customer_id", "order_no"] } else { vec!["id"] };
    let mut reader = DebeziumReader::new(DebeziumOptions::default().with_key(key));
    reader.read(name, &bytes.into()).unwrap_or_else(|e| panic!("{name}: {e}"));
    reader.finish().expect("the records are readable")
}

/// Returns all records in one batch, without the metadata that only JSON has: the precision of decimals without one.
fn rows(changes: &ChangeRecords) -> RecordBatch {
    let batches: Vec<RecordBatch> = changes.batches.iter().map(|b| b.rows.clone()).collect();
    concat_batches(&batches[0].schema(), &batches).expect("the batches have one schema")
}

/// Returns the same envelopes as Parquet: the columns of the Avro file. Parquet does not store the meaning of the
/// columns, so the Avro schema is in the metadata of the file.
fn as_parquet(name: &str) -> Vec<u8> {
    let mut reader = RowsReader::new(RowsOptions::default().with_op("no such column"));
    reader.read(name, data(name).into()).expect("the file is read");
    let changes = reader.finish().expect("the rows are written");
    let schema = changes.batches[0].rows.schema();
    let avro = schema.metadata().get("avro.schema").expect("the file has an Avro schema").clone();
    let metadata = vec![KeyValue::new("parquet.avro.schema".to_owned(), avro)];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, schema, Some(properties)).expect("the writer is created");
    for batch in &changes.batches {
        writer.write(&batch.rows).expect("the rows are written");
    }
    writer.close().expect("the file is closed");
    out
}

#[test]
fn avro_and_parquet_give_the_same_records_as_json() {
    for table in ["customer", "orders"] {
        let json = read(&format!("{table}.jsonl.gz"), data(&format!("{table}.jsonl.gz")));
        let avro = read(&format!("{table}.avro"), data(&format!("{table}.avro")));
        let parquet = read(&format!("{table}.parquet"), as_parquet(&format!("{table}.avro")));
        for other in [&avro, &parquet] {
            assert_eq!((other.len(), &other.order), (json.len(), &json.order));
            assert_rows_eq!(rows(other), rows(&json));
            let ops = |c: &ChangeRecords| c.batches.iter().flat_map(|b| b.ops.clone()).collect::<Vec<_>>();
            assert_eq!(ops(other), ops(&json));
            let absent = |c: &ChangeRecords| {
                let missing = |b: &biscuit_change::ChangeBatch| {
                    b.present.iter().flatten().map(|g| g.len() - g.count_set_bits()).sum::<usize>()
                };
                c.batches.iter().map(missing).sum::<usize>()
            };
            assert_eq!(absent(other), absent(&json));
        }
    }
}

#[test]
fn invalid_envelope_of_avro_is_quarantined_as_a_file_with_one_row() {
    let avro = data("orders.avro");
    let options =
        || DebeziumOptions::default().with_key(["customer_id", "no_such_key"]).with_bad_rows(BadRows::Quarantine);
    let contract = r#"{"key":["customer_id"],"columns":[{"name":"customer_id","type":"bigint"},{"name":"order_no","type":"int"},{"name":"note","type":"string","nullable":false}]}"#;
    let contract = biscuit_schema::Contract::from_json(contract).expect("the contract is valid");
    let mut reader = DebeziumReader::new(options().with_contract(contract.clone()));
    reader.read("orders.avro", &avro.into()).expect("the file is read");
    let changes = reader.finish().expect("the records are readable");
    assert!(!changes.refused.is_empty() && !changes.is_empty());
    let first = changes.refused[0].clone();
    assert_eq!((first.code.as_str(), first.column.as_deref()), ("NullNotAllowed", Some("note")));
    let mut again = DebeziumReader::new(options().with_contract(contract));
    again.read_record(&first.file, first.row, &first.raw.clone().into()).expect("the record is read");
    let again = again.finish().expect("the records are readable");
    assert_eq!((again.refused[0].row, &again.refused[0].code), (first.row, &first.code));
}

#[test]
fn plain_rows_are_read_from_avro() {
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
    reader.read("orders.avro", data("orders.avro").into()).expect("the file is read");
    let changes = reader.finish().expect("the records are readable");
    assert!(changes.len() > 50 && changes.batches[0].rows.column_by_name("after").is_some());
}
