//! A capture of the changes of a PostgreSQL database, and the rows that the database had at its checkpoints.
//!
//! The capture has events of Debezium, with and without embedded schemas, and files of AWS DMS. The tests merge it
//! and compare the result with the rows.

pub mod process;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_schema::Contract;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{concat_batches, is_null};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use object_store::memory::InMemory;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The README of the project, as a doctest of its example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The first steps, as a doctest of their example. `flows/documents.rs` runs the commands.
#[cfg(doctest)]
#[doc = include_str!("../../docs/start.md")]
pub struct Start;

/// Tables of the capture that have a key.
pub const TABLES: [&str; 9] = [
    "customer",
    "orders",
    "scratch",
    "edge",
    "reading",
    "checkpoint",
    "pgbench_accounts",
    "pgbench_tellers",
    "pgbench_branches",
];

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/capture").join(name)
}

/// Returns the lines of the capture in the order of the stream, with embedded schemas.
pub fn lines() -> Vec<String> {
    let file = std::fs::File::open(data("events.jsonl.gz")).expect("the capture is part of the project");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the capture is gzip");
    text.lines().map(str::to_owned).collect()
}

/// Returns a line without its embedded schemas. The text of every value remains.
pub fn without_schema(line: &str) -> String {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let mut line: Fields = serde_json::from_str(line).expect("the JSON is valid");
    for part in ["key", "value"] {
        let payload = serde_json::from_str::<Fields>(line[part].get()).ok().and_then(|mut f| f.remove("payload"));
        payload.map(|p| line.insert(part.to_owned(), p));
    }
    serde_json::to_string(&line).expect("fields are JSON")
}

/// Returns the number of lines up to each checkpoint. `seed` ends where the stream begins, the others end with their
/// marker.
pub fn checkpoints(lines: &[String]) -> Vec<(&'static str, usize)> {
    let envelopes: Vec<Value> = lines
        .iter()
        .map(|l| serde_json::from_str::<Value>(l).expect("the JSON is valid")["value"]["payload"].take())
        .collect();
    let stream = envelopes.iter().position(|v| v["op"] != "r").expect("the stream begins");
    let marker = |id: i64| {
        let is = |v: &Value| v["source"]["table"] == "checkpoint" && v["after"]["id"] == id;
        envelopes.iter().position(is).expect("the checkpoint is in the stream") + 1
    };
    vec![("seed", stream), ("1", marker(1)), ("2", marker(2)), ("3", marker(3))]
}

fn table_schema(checkpoint: &str, table: &str) -> Value {
    let text =
        std::fs::read_to_string(data(checkpoint).join("schema.json")).expect("the types are part of the project");
    serde_json::from_str::<Value>(&text).expect("the JSON is valid")[table].take()
}

/// Returns the columns of a table with their PostgreSQL types. `orders` has all columns that it had at any time.
fn columns_and_types(table: &str) -> Vec<(String, String)> {
    let mut columns: Vec<(String, String)> = Vec::new();
    for k in ["3", "seed"] {
        for column in table_schema(k, table)["columns"].as_array().into_iter().flatten() {
            let (name, t) = (
                column[0].as_str().expect("the value is a name"),
                column[1].as_str().expect("the value is the name of a type"),
            );
            // The type of an enum is named after the enum.
            let t = if t == "mood" { "string" } else { t };
            if !columns.iter().any(|(n, _)| n == name) {
                columns.push((name.to_owned(), t.to_owned()));
            }
        }
    }
    columns
}

/// Returns the PostgreSQL type of each column.
pub fn postgres_types(table: &str) -> BTreeMap<String, String> {
    columns_and_types(table).into_iter().collect()
}

/// Returns the contract of a table with its PostgreSQL types.
pub fn contract(table: &str) -> Contract {
    let columns: Vec<Value> = columns_and_types(table).iter().map(|(n, t)| json!({"name": n, "type": t})).collect();
    let key = table_schema("3", table)["key"].take();
    let contract = json!({"table": format!("public.{table}"), "key": key, "columns": columns});
    Contract::from_json(&contract.to_string()).expect("PostgreSQL's types are known")
}

/// Returns the rows that PostgreSQL had at a checkpoint.
pub fn truth(checkpoint: &str, table: &str) -> RecordBatch {
    let file = std::fs::File::open(data(checkpoint).join(format!("{table}.parquet")))
        .expect("the state is part of the project");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
        .expect("the file is valid Parquet");
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> =
        reader.build().expect("the reader is created").map(|b| b.expect("the rows are valid")).collect();
    concat_batches(&schema, &batches).expect("the batches have one schema")
}

/// Whether the stream does not represent a column in full. Intervals are microseconds in the stream, and edge cases
/// of times and arrays are texts in the rows of PostgreSQL.
fn is_lossy(table: &str, column: &str) -> bool {
    matches!((table, column), ("customer", "span") | ("edge", "d" | "ts" | "tstz" | "a" | "iv"))
}

/// Returns both sides in the columns that can be compared, in the order of `want`. Their types must be equal.
pub fn comparable(table: &str, checkpoint: &str, got: &RecordBatch, want: &RecordBatch) -> (RecordBatch, RecordBatch) {
    let (mut fields, mut left, mut right) = (Vec::new(), Vec::new(), Vec::new());
    for (i, field) in want.schema().fields().iter().enumerate() {
        let name = field.name();
        if is_lossy(table, name) {
            continue;
        }
        let mut column = got.column_by_name(name).unwrap_or_else(|| panic!("{table}: no column {name}")).clone();
        if table == "orders" && !matches!(checkpoint, "seed" | "1") {
            column = after_ddl(name, column, got);
        }
        let mut truth = want.column(i).clone();
        if *field.data_type() == DataType::Utf8
            && matches!((table, name.as_str()), ("customer", "ratio") | ("edge", "n"))
        {
            (column, truth) = (plain_numbers(&column), plain_numbers(&truth));
        }
        if (table, name.as_str()) == ("orders", "qty") && *column.data_type() == DataType::Int64 {
            // The column was widened during the stream, and the contract has the wider type from the beginning.
            truth = datafusion::arrow::compute::cast(&truth, &DataType::Int64).expect("the integer is wider");
        }
        let truth = list_names(&truth);
        let column = list_names(&column);
        assert_eq!(column.data_type(), truth.data_type(), "{table}.{name}");
        fields.push(Field::new(name, truth.data_type().clone(), true));
        left.push(column);
        right.push(truth);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = |columns| RecordBatch::try_new(schema.clone(), columns).expect("the columns have one length");
    (batch(left), batch(right))
}

/// Applies the DDL that is not in the stream: `note` was renamed to `remark`, and `discount` was added with a
/// default.
fn after_ddl(name: &str, column: ArrayRef, got: &RecordBatch) -> ArrayRef {
    let other: ArrayRef = match name {
        "remark" => got.column_by_name("note").expect("the column has its old name").clone(),
        "discount" => {
            let zeros = vec![0i128; got.num_rows()];
            let zeros = datafusion::arrow::array::Decimal128Array::from(zeros).with_precision_and_scale(5, 2);
            Arc::new(zeros.expect("the column is a decimal(5,2)"))
        }
        _ => return column,
    };
    zip(&is_null(&column).expect("the mask is valid"), &other, &column).expect("the columns have one type")
}

/// Returns numbers of any size as text without trailing zeros. NaN of PostgreSQL is null.
fn plain_numbers(array: &ArrayRef) -> ArrayRef {
    let plain = |text: &str| match text.split_once('.') {
        _ if text == "NaN" => None,
        Some((whole, fraction)) => {
            let fraction = fraction.trim_end_matches('0');
            Some(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
        }
        None => Some(text.to_owned()),
    };
    let texts = array.as_string::<i32>();
    Arc::new(
        (0..texts.len()).map(|r| texts.is_valid(r).then(|| plain(texts.value(r))).flatten()).collect::<StringArray>(),
    )
}

/// Gives all lists the same name of their items, since that name has no meaning.
fn list_names(array: &ArrayRef) -> ArrayRef {
    let plain = biscuit_schema::internal::plain_type(array.data_type());
    let named = match plain {
        DataType::List(item) => DataType::List(Arc::new(Field::new("element", item.data_type().clone(), true))),
        other => other,
    };
    datafusion::arrow::compute::cast(array, &named).expect("the cast is to the same type")
}

/// Returns the contract of a table for DMS, where arrays and intervals are texts.
pub fn dms_contract(table: &str) -> Contract {
    let contract = contract(table);
    let columns: Vec<Value> = contract
        .columns
        .iter()
        .map(|c| {
            let text = matches!(c.column_type.arrow(), DataType::List(_)) || c.name == "span";
            let t = if text {
                "string".to_owned()
            } else {
                biscuit_schema::type_name(c.column_type.arrow()).expect("it has a name")
            };
            json!({"name": c.name, "type": t})
        })
        .collect();
    let contract = json!({"table": format!("public.{table}"), "key": contract.key, "columns": columns});
    Contract::from_json(&contract.to_string()).expect("the types are known")
}

/// Returns the files of one setting of DMS, by path.
pub fn dms_files(setting: &str) -> Vec<(String, Vec<u8>)> {
    fn walk(at: &std::path::Path, root: &std::path::Path, all: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(at)
            .expect("the example is part of the project")
            .map(|e| e.expect("the entry is readable").path())
        {
            if entry.is_dir() {
                walk(&entry, root, all);
            } else {
                let name =
                    entry.strip_prefix(root).expect("the path is below the folder").to_string_lossy().into_owned();
                all.push((name, std::fs::read(&entry).expect("the file is read")));
            }
        }
    }
    let (root, mut all) = (data("dms"), Vec::new());
    walk(&root.join(setting), &root, &mut all);
    all.sort();
    all
}

/// Returns the lines of the flattened stream.
pub fn flat_lines() -> Vec<String> {
    let file = std::fs::File::open(data("events_unwrap.jsonl.gz")).expect("the capture is part of the project");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the capture is gzip");
    text.lines().map(str::to_owned).collect()
}

/// Returns an empty table in memory.
pub fn memory_dataset() -> Dataset {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    Dataset::new(Location::new(storage, "lake/t", "lake/t").expect("the place is valid"), JournalOptions::default())
}

/// Returns all rows of a table in one batch.
pub async fn rows_of(dataset: &Dataset) -> RecordBatch {
    let frame = dataset
        .view()
        .await
        .expect("the table is readable")
        .load(&SessionContext::new())
        .await
        .expect("the frame is valid");
    let schema = frame.schema().inner().clone();
    concat_batches(&schema, &frame.collect().await.expect("the rows are readable"))
        .expect("the batches have one schema")
}

/// Returns the rows without some columns.
pub fn without_columns(rows: &RecordBatch, names: &[&str]) -> RecordBatch {
    let schema = rows.schema();
    let kept: Vec<usize> =
        (0..rows.num_columns()).filter(|&i| !names.contains(&schema.field(i).name().as_str())).collect();
    rows.project(&kept).expect("the indices are of this batch")
}
