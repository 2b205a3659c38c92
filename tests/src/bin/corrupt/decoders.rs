//! The decoders that are tried within a process, each with valid inputs of its format.

use biscuit_change::{
    BadRows, DebeziumOptions, DebeziumReader, DmsOptions, DmsReader, RowsOptions, RowsReader, TablesReader,
};
use biscuit_core::Result;
use biscuit_flows::dms_contract;
use biscuit_job::JobSpec;
use biscuit_pii::Policy;
use biscuit_pii::keys::KeyFile;
use biscuit_schema::{ColumnType, Contract};

use crate::build::envelopes_as_parquet;
use crate::layers::{Layer, gzip};
use crate::node::Form;
use crate::random::Random;
use crate::seeds;

/// A decoder that is tried within the process.
pub(crate) struct Decoder {
    pub(crate) name: &'static str,
    pub(crate) layer: Layer,
    /// Returns valid inputs.
    pub(crate) inputs: fn() -> Vec<Vec<u8>>,
    pub(crate) decode: fn(Vec<u8>, &mut Random) -> Result<()>,
}

const LINES: Form = Form::JsonLines;

/// All kinds of inputs that are decoded without a table.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "rows-parquet",
        layer: Layer::Plain,
        inputs: || seeds::parquet(&seeds::rows(0, 60, 1)),
        decode: |b, r| rows("c.parquet", b, r),
    },
    Decoder {
        name: "rows-avro",
        layer: Layer::Avro,
        inputs: || seeds::avro(&seeds::rows(0, 60, 1)),
        decode: |b, r| rows("c.avro", b, r),
    },
    Decoder {
        name: "rows-json",
        layer: Layer::Text(LINES),
        inputs: || vec![seeds::json_lines(0, 20, 1)],
        decode: |b, r| rows("c.jsonl", b, r),
    },
    Decoder {
        name: "rows-json-gz",
        layer: Layer::Gzip(LINES),
        inputs: || gzip(&seeds::json_lines(0, 20, 1)).into_iter().collect(),
        decode: |b, r| rows("c.jsonl.gz", b, r),
    },
    Decoder {
        name: "rows-csv",
        layer: Layer::Plain,
        inputs: || vec![seeds::csv(0, 20, 1)],
        decode: |b, r| rows("c.csv", b, r),
    },
    Decoder {
        name: "envelopes-json",
        layer: Layer::Text(LINES),
        inputs: || vec![seeds::envelopes(1), first_lines()],
        decode: |b, r| envelopes("e.jsonl", b, r),
    },
    Decoder {
        name: "envelopes-avro",
        layer: Layer::Avro,
        inputs: || vec![seeds::data("envelopes/orders.avro")],
        decode: |b, r| envelopes("orders.avro", b, r),
    },
    Decoder {
        name: "envelopes-parquet",
        layer: Layer::Plain,
        inputs: || vec![envelopes_as_parquet("orders")],
        decode: |b, r| envelopes("orders.parquet", b, r),
    },
    Decoder {
        name: "flattened-json",
        layer: Layer::Text(LINES),
        inputs: || vec![flattened()],
        decode: |b, r| envelopes("f.jsonl", b, r),
    },
    Decoder {
        name: "dms-parquet",
        layer: Layer::Plain,
        inputs: || dms_files("parquet-before-image-lobnull", "parquet"),
        decode: |b, r| dms("public/orders/20261120-175407265.parquet", b, r),
    },
    Decoder {
        name: "dms-csv-gz",
        layer: Layer::Gzip(LINES),
        inputs: || dms_files("csv-header", "csv.gz"),
        decode: |b, r| dms("public/orders/20261120-175407265.csv.gz", b, r),
    },
    Decoder {
        name: "contract-toml",
        layer: Layer::Text(Form::Toml),
        inputs: || vec![contract().to_toml().expect("the TOML is serialized").into_bytes()],
        decode: |b, _| contract_of(&text(&b), true),
    },
    Decoder {
        name: "contract-json",
        layer: Layer::Text(Form::Json),
        inputs: || vec![contract().to_json().expect("the JSON is serialized").into_bytes()],
        decode: |b, _| contract_of(&text(&b), false),
    },
    Decoder {
        name: "avro-schema",
        layer: Layer::Text(Form::Json),
        inputs: || vec![AVRO.as_bytes().to_vec()],
        decode: |b, _| Contract::from_avro(&text(&b)).map(drop),
    },
    Decoder {
        name: "glue-table",
        layer: Layer::Text(Form::Json),
        inputs: || vec![GLUE.as_bytes().to_vec()],
        decode: |b, _| Contract::from_glue_json(&text(&b)).map(drop),
    },
    Decoder {
        name: "column-type",
        layer: Layer::Plain,
        inputs: || TYPES.iter().map(|t| t.as_bytes().to_vec()).collect(),
        decode: |b, _| ColumnType::parse(&text(&b)).map(drop),
    },
    Decoder {
        name: "job",
        layer: Layer::Text(Form::Toml),
        inputs: || vec![JOB.as_bytes().to_vec()],
        decode: |b, _| JobSpec::from_toml(&text(&b), &[]).map(drop),
    },
    Decoder {
        name: "pii-policy",
        layer: Layer::Text(Form::Toml),
        inputs: || vec![POLICY.as_bytes().to_vec()],
        decode: |b, _| Policy::parse(&text(&b)).map(drop),
    },
    Decoder {
        name: "key-file",
        layer: Layer::Text(Form::Toml),
        inputs: || vec![KEYS.as_bytes().to_vec()],
        decode: |b, _| KeyFile::parse(&text(&b)).map(drop),
    },
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bad_rows(random: &mut Random) -> BadRows {
    if random.once_in(2) { BadRows::Quarantine } else { BadRows::Fail }
}

fn rows(file: &str, bytes: Vec<u8>, random: &mut Random) -> Result<()> {
    let mut options = RowsOptions::default().with_op("op").with_bad_rows(bad_rows(random));
    if random.once_in(2) {
        options = options.with_contract(contract());
    }
    let mut reader = RowsReader::new(options);
    reader.read(file, bytes.into())?;
    reader.finish().map(drop)
}

fn envelopes(file: &str, bytes: Vec<u8>, random: &mut Random) -> Result<()> {
    if random.once_in(3) {
        let mut reader = TablesReader::debezium(|_| Ok(DebeziumOptions::default().with_key(["id"])));
        reader.read(file, &bytes.into())?;
        drop(reader.finish());
        return Ok(());
    }
    let key = if file.starts_with("orders") { vec!["customer_id", "order_no"] } else { vec!["id"] };
    let mut options = DebeziumOptions::default().with_key(key).with_bad_rows(bad_rows(random));
    if file == "e.jsonl" && random.once_in(2) {
        let columns = r#"{"key":["id"],"columns":[{"name":"id","type":"bigint"},{"name":"total","type":"decimal(8,2)"},{"name":"v","type":"string"}]}"#;
        options = options.with_contract(Contract::from_json(columns)?).with_table("public.bill");
    }
    let mut reader = DebeziumReader::new(options);
    reader.read(file, &bytes.into())?;
    reader.finish().map(drop)
}

fn dms(file: &str, bytes: Vec<u8>, random: &mut Random) -> Result<()> {
    let options = DmsOptions::default().with_timestamp_column("dms_ts").with_table("public.orders");
    let mut reader = DmsReader::new(options.with_contract(dms_contract("orders")).with_bad_rows(bad_rows(random)));
    reader.read(file, bytes.into())?;
    reader.finish().map(drop)
}

fn dms_files(setting: &str, ending: &str) -> Vec<Vec<u8>> {
    let names = ["LOAD00000001", "20261120-175407265", "20261120-175407736"];
    names.iter().map(|name| seeds::data(&format!("capture/dms/{setting}/public/orders/{name}.{ending}"))).collect()
}

/// Returns envelopes with embedded schemas.
fn first_lines() -> Vec<u8> {
    let lines = biscuit_flows::lines();
    lines.iter().step_by(lines.len() / 12).map(|line| line.clone() + "\n").collect::<String>().into_bytes()
}

fn flattened() -> Vec<u8> {
    let lines = biscuit_flows::flat_lines();
    lines.iter().step_by(lines.len() / 20).map(|line| line.clone() + "\n").collect::<String>().into_bytes()
}

fn contract() -> Contract {
    biscuit_flows::contract("customer")
}

fn contract_of(text: &str, toml: bool) -> Result<()> {
    let contract = if toml { Contract::from_toml(text) } else { Contract::from_json(text) }?;
    drop(contract.to_arrow());
    drop((contract.to_toml(), contract.to_json()));
    contract.to_ddl(&biscuit_schema::TablePlace::new("t", "s3://b/t")).map(drop)
}

const AVRO: &str = r#"{"type":"record","name":"O","fields":[{"name":"id","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
{"name":"d","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}]},{"name":"f","type":{"type":"fixed","name":"F","size":16}},
{"name":"l","type":{"type":"array","items":{"type":"map","values":"string"}}},{"name":"r","type":{"type":"record","name":"R","fields":[{"name":"x","type":["null","int"]}]}}]}"#;

const GLUE: &str = r#"{"Name":"orders","StorageDescriptor":{"Columns":[{"Name":"id","Type":"bigint","Comment":"c"},
{"Name":"s","Type":"struct<a:int,b:array<map<string,decimal(10,2)>>>"}],"Location":"s3://b/t"},"PartitionKeys":[{"Name":"day","Type":"date"}],"Parameters":{"biscuit.key":"id"}}"#;

const TYPES: [&str; 6] = [
    "struct<a:int,b:array<map<string,decimal(10,2)>>>",
    "decimal(38,10)",
    "numeric(12, 2)[]",
    "timestamp(6) with time zone",
    "map<string,array<bigint>>",
    "varchar(200)",
];

const JOB: &str = "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = 'json'\nallowed_lateness = '2h'\nlimit_files = 3\n[target]\nurl = 'lake/j'\nmode = 'append'\n\
partition_by = ['day']\nderive.hour = {from = 'at', as = 'hour'}\n[pii]\nkeys = 'k'\ncolumns = {a = 'redact'}\nclasses = {ssn = {partial = {last = 4}}}\n";

const POLICY: &str = "keys = 'keys.toml'\nstore = 'tokens.redb'\nsubject = 'id'\n[columns]\nssn = { tokenize = { kind = 'ff1' } }\n\
name = { encrypt = { key = 'subject' } }\nbio = 'redact'\nphone = { partial = { last = 4 } }\n[classes]\nemail = 'hash'\n";

const KEYS: &str = "[wrapping]\ncurrent = '1'\n[wrapping.keys]\n1 = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\n[roots]\ncurrent = 1\n[roots.keys]\n1 = 'AAAA'\n";
