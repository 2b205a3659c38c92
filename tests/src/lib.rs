//! A real capture of changes, and the true states of its tables.

pub mod process;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use biscuit_schema::Contract;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{concat_batches, is_null};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The README of the project, whose example compiles and holds.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The keyed tables of the capture.
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

/// The lines of the capture, in stream order, with embedded schemas.
pub fn lines() -> Vec<String> {
    let file = std::fs::File::open(data("events.jsonl.gz")).expect("the capture is part of the project");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the capture is gzip");
    text.lines().map(str::to_owned).collect()
}

/// A line without its embedded schemas; every value keeps its text.
pub fn without_schema(line: &str) -> String {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let mut line: Fields = serde_json::from_str(line).expect("JSON");
    for part in ["key", "value"] {
        let payload = serde_json::from_str::<Fields>(line[part].get()).ok().and_then(|mut f| f.remove("payload"));
        payload.map(|p| line.insert(part.to_owned(), p));
    }
    serde_json::to_string(&line).expect("fields are JSON")
}

/// The number of lines up to each checkpoint: `seed` ends where the stream begins, the others with their marker.
pub fn checkpoints(lines: &[String]) -> Vec<(&'static str, usize)> {
    let envelopes: Vec<Value> =
        lines.iter().map(|l| serde_json::from_str::<Value>(l).expect("JSON")["value"]["payload"].take()).collect();
    let stream = envelopes.iter().position(|v| v["op"] != "r").expect("the stream begins");
    let marker = |id: i64| {
        let is = |v: &Value| v["source"]["table"] == "checkpoint" && v["after"]["id"] == id;
        envelopes.iter().position(is).expect("the checkpoint is in the stream") + 1
    };
    vec![("seed", stream), ("1", marker(1)), ("2", marker(2)), ("3", marker(3))]
}

/// The contract of a table in PostgreSQL's own types; `orders` has the columns it had at any time.
pub fn contract(table: &str) -> Contract {
    let schema = |k: &str| -> Value {
        let text = std::fs::read_to_string(data(k).join("schema.json")).expect("the types are part of the project");
        serde_json::from_str::<Value>(&text).expect("JSON")[table].take()
    };
    let mut columns: Vec<(String, String)> = Vec::new();
    for k in ["3", "seed"] {
        for column in schema(k)["columns"].as_array().into_iter().flatten() {
            let (name, t) = (column[0].as_str().expect("a name"), column[1].as_str().expect("a type"));
            // An enum has a type name of its own.
            let t = if t == "mood" { "string" } else { t };
            if !columns.iter().any(|(n, _)| n == name) {
                columns.push((name.to_owned(), t.to_owned()));
            }
        }
    }
    let columns: Vec<Value> = columns.iter().map(|(n, t)| json!({"name": n, "type": t})).collect();
    let contract = json!({"table": format!("public.{table}"), "key": schema("3")["key"], "columns": columns});
    Contract::from_json(&contract.to_string()).expect("PostgreSQL's types are known")
}

/// The rows PostgreSQL had.
pub fn truth(checkpoint: &str, table: &str) -> RecordBatch {
    let file = std::fs::File::open(data(checkpoint).join(format!("{table}.parquet")))
        .expect("the state is part of the project");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().expect("a reader").map(|b| b.expect("rows")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

/// Columns that the stream does not carry in full: intervals are microseconds, and the edge cases of times and arrays are
/// texts in the truth.
fn is_lossy(table: &str, column: &str) -> bool {
    matches!((table, column), ("customer", "span") | ("edge", "d" | "ts" | "tstz" | "a" | "iv"))
}

/// Both sides in the columns that can be compared, in the truth's order; types have to be the same.
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
            // It was widened in mid-stream, and a contract has the wide type from the beginning.
            truth = datafusion::arrow::compute::cast(&truth, &DataType::Int64).expect("a wider integer");
        }
        let truth = list_names(&truth);
        let column = list_names(&column);
        assert_eq!(column.data_type(), truth.data_type(), "{table}.{name}");
        fields.push(Field::new(name, truth.data_type().clone(), true));
        left.push(column);
        right.push(truth);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = |columns| RecordBatch::try_new(schema.clone(), columns).expect("columns of one length");
    (batch(left), batch(right))
}

/// DDL is not in the stream: `note` was renamed to `remark`, `discount` came with a default.
fn after_ddl(name: &str, column: ArrayRef, got: &RecordBatch) -> ArrayRef {
    let other: ArrayRef = match name {
        "remark" => got.column_by_name("note").expect("the old name").clone(),
        "discount" => {
            let zeros = vec![0i128; got.num_rows()];
            let zeros = datafusion::arrow::array::Decimal128Array::from(zeros).with_precision_and_scale(5, 2);
            Arc::new(zeros.expect("a decimal(5,2)"))
        }
        _ => return column,
    };
    zip(&is_null(&column).expect("a mask"), &other, &column).expect("columns of one type")
}

/// Numbers of any size as text without trailing zeros; PostgreSQL's NaN comes as null.
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

/// Names of list items are of no meaning.
fn list_names(array: &ArrayRef) -> ArrayRef {
    let plain = biscuit_schema::plain_type(array.data_type());
    let named = match plain {
        DataType::List(item) => DataType::List(Arc::new(Field::new("element", item.data_type().clone(), true))),
        other => other,
    };
    datafusion::arrow::compute::cast(array, &named).expect("a cast to the same type")
}
