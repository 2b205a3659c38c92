//! Builds the working folders of all kinds of inputs, with the library and with the `biscuit` command. Everything in
//! them is valid.

use std::path::Path;

use biscuit_change::{RowsOptions, RowsReader};
use biscuit_dataset::{Dataset, Location};
use biscuit_flows::{dms_contract, process};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use crate::{child, layers, seeds};

/// Builds the folder in which commands of a kind run. Everything in it is valid.
pub(crate) fn build(stand: &str, root: &Path, biscuit: &Path) {
    let folder = Folder { root, biscuit };
    folder.write("elsewhere/file", b"of another program");
    folder.write("in/more.jsonl", &seeds::json_lines(5, 30, 9));
    match stand {
        "changes" => changes(&folder),
        "dms" => dms(&folder),
        "job" => job(&folder),
        "csv" => raw_as(&folder, "csv", &[("1.csv", seeds::csv(0, 30, 1)), ("2.csv.gz", layers::gzip(&seeds::csv(30, 30, 1)).unwrap_or_default())]),
        "parquet" => {
            let files: Vec<_> = seeds::parquet(&seeds::rows(0, 60, 1)).into_iter().take(3).collect();
            let named: Vec<_> = ["1.parquet", "2.parquet", "3.parquet"].into_iter().zip(files).collect();
            raw_as(&folder, "parquet", &named);
        }
        "schemas" => schemas(&folder),
        "table" => table(&folder),
        "unfinished" => unfinished(&folder),
        "moved" => folder.run("merge --target lake/m --state state/m --format rows --key id --order seq --op op --partition-by day --changes in/more.jsonl"),
        "periods" => periods(&folder),
        "foreign" => external(&folder),
        "own" => {
            small_table(&folder);
            folder.write("in/c0.parquet", &seeds::parquet(&seeds::rows(0, 200, 2))[1]);
            folder.run(&format!("{MERGE} in/c0.parquet"));
            forget_etags(&root.join("lake/.biscuit/t/journal"));
        }
        "pii" => pii(&folder),
        "plan" => plan(&folder),
        other => unreachable!("no working folder has the name {other}"),
    }
}

struct Folder<'a> {
    root: &'a Path,
    biscuit: &'a Path,
}

impl Folder<'_> {
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().expect("the path has a folder")).expect("the folder is created");
        std::fs::write(path, bytes).expect("the file is written");
    }

    fn run(&self, words: &str) {
        let ran = child::run(self.biscuit, &words.split_whitespace().collect::<Vec<_>>(), self.root);
        assert_eq!(ran.code, Some(0), "{words}: {}{}", ran.out, ran.err);
    }

    fn printed(&self, words: &str, to: &str) {
        let ran = child::run(self.biscuit, &words.split_whitespace().collect::<Vec<_>>(), self.root);
        assert_eq!(ran.code, Some(0), "{words}: {}{}", ran.out, ran.err);
        self.write(to, ran.out.as_bytes());
    }
}

const MERGE: &str = "merge --target lake/t --format rows --key id --order seq --op op --changes";

fn small_table(folder: &Folder<'_>) {
    folder.write("in/all.parquet", &seeds::parquet(&seeds::rows(0, 60, 1))[1]);
    folder.run(&format!("{MERGE} in/all.parquet --partition-by day"));
}

const CONTRACT: &str = "key = ['id']\norder = ['seq']\npartition_by = ['day']\n\
    columns = [{name = 'id', type = 'bigint', nullable = false}, {name = 'seq', type = 'bigint'}, {name = 'day', type = 'string'}, \
    {name = 'v', type = 'string', comment = 'text', pii = 'note'}, {name = 'amount', type = 'decimal(12,2)'}, {name = 'at', type = 'timestamp'}, \
    {name = 'flag', type = 'boolean'}, {name = 'price', type = 'double'}, {name = 'list', type = 'array<bigint>'}, \
    {name = 'part', type = 'struct<a:int,b:string>'}]\n";

fn changes(folder: &Folder<'_>) {
    small_table(folder);
    let rows = seeds::rows(10, 60, 2);
    for (n, file) in seeds::parquet(&rows).iter().enumerate() {
        folder.write(&format!("in/c{n}.parquet"), file);
    }
    for (n, file) in seeds::avro(&rows).iter().enumerate() {
        folder.write(&format!("in/c{n}.avro"), file);
    }
    folder.write("in/c.jsonl", &seeds::json_lines(10, 30, 2));
    folder.write("in/c.jsonl.gz", &layers::gzip(&seeds::json_lines(10, 60, 2)).unwrap_or_default());
    folder.write("in/c.csv", &seeds::csv(10, 30, 2));
    folder.write("in/e.jsonl", &seeds::envelopes(2));
    folder.write("in/orders.avro", &seeds::data("envelopes/orders.avro"));
    folder.write("in/orders.jsonl.gz", &seeds::data("envelopes/orders.jsonl.gz"));
    folder.write("in/orders.parquet", &envelopes_as_parquet("orders"));
    folder.write("c.toml", CONTRACT.as_bytes());
    folder.write("e.json", br#"{"key":["id"],"columns":[{"name":"id","type":"bigint"},{"name":"total","type":"decimal(8,2)"},{"name":"v","type":"string"}]}"#);
    folder.write("policy.toml", b"[columns]\nv = \"redact\"\nraw = \"remove\"\nday = { partial = { last = 2 } }\n");
}

/// Returns envelopes of Avro as Parquet, with the Avro schema in the metadata of the file.
pub(crate) fn envelopes_as_parquet(table: &str) -> Vec<u8> {
    let mut reader = RowsReader::new(RowsOptions::default().with_op("no such column"));
    let bytes = seeds::data(&format!("envelopes/{table}.avro"));
    reader.read("orders.avro", bytes.into()).expect("the file is read");
    let changes = reader.finish().expect("the rows are written");
    let schema = changes.batches[0].rows.schema();
    let avro = schema.metadata().get("avro.schema").expect("the file has an Avro schema").clone();
    let metadata = vec![KeyValue::new("parquet.avro.schema".to_owned(), avro)];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, schema, Some(properties)).expect("the writer is created");
    changes.batches.iter().for_each(|batch| writer.write(&batch.rows).expect("the rows are written"));
    writer.close().expect("the file is closed");
    out
}

fn dms(folder: &Folder<'_>) {
    let setting = "capture/dms/parquet-before-image-lobnull/public/orders";
    for name in ["LOAD00000001.parquet", "20261120-175407265.parquet", "20261120-175408347.parquet"] {
        folder.write(&format!("dms/public/orders/{name}"), &seeds::data(&format!("{setting}/{name}")));
    }
    for name in ["LOAD00000001.csv.gz", "20261120-175407265.csv.gz"] {
        let to = name.replace("00001", "00009").replace("265.", "266.");
        folder.write(
            &format!("dms/public/orders/{to}"),
            &seeds::data(&format!("capture/dms/csv-header/public/orders/{name}")),
        );
    }
    folder.write("dms.json", dms_contract("orders").to_json().expect("the JSON is serialized").as_bytes());
}

const JOB: &str = "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = 'json'\nsource_file = 'from'\ncontract = 'contract.toml'\n[target]\nurl = 'lake/j'\nmode = 'append'\n\
    partition_by = ['day']\nmax_quarantined = 50.0\nderive.hour = {from = 'at', as = 'hour'}\naudit.processing_datetime = 'processed'\n";
const QUERY: &str = "name = 'q'\n[sources.s]\nurl = 'raw'\nformat = 'json'\nbookmark = false\n[transform]\n\
    sql = \"SELECT id, day, sum(CAST(price AS DOUBLE)) AS price, max(amount) AS amount FROM s GROUP BY id, day\"\n[target]\nurl = 'lake/q'\nmode = 'replace'\n";
const MERGED: &str = "name = 'm'\n[sources.s]\nurl = 'raw'\nformat = 'rows'\nop = 'op'\n[target]\nurl = 'lake/mm'\nmode = 'merge'\nkey = ['id']\norder = ['seq']\nmax_deleted = 100.0\n";

fn job(folder: &Folder<'_>) {
    folder.write("raw/1.json", &seeds::json_lines(0, 30, 1));
    folder.write("contract.toml", format!("on_error = 'quarantine'\n{CONTRACT}").as_bytes());
    folder.write("job.toml", JOB.as_bytes());
    folder.write("query.toml", QUERY.as_bytes());
    folder.write("merge.toml", MERGED.as_bytes());
    folder.run("run job.toml");
    folder.write("raw/2.json", &seeds::json_lines(30, 30, 1));
    folder.write("raw/3.json.gz", &layers::gzip(&seeds::json_lines(60, 30, 1)).unwrap_or_default());
    folder.write("raw/4.json.zst", &layers::zstd(&seeds::json_lines(90, 30, 1)).unwrap_or_default());
}

fn raw_as(folder: &Folder<'_>, format: &str, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        folder.write(&format!("raw/{name}"), bytes);
    }
    let contract = if format == "csv" { "" } else { "contract = 'contract.toml'" };
    folder.write("contract.toml", CONTRACT.as_bytes());
    folder.write(
        "job.toml",
        JOB.replace("'json'", &format!("'{format}'")).replace("contract = 'contract.toml'", contract).as_bytes(),
    );
}

fn schemas(folder: &Folder<'_>) {
    small_table(folder);
    folder.write("contract.toml", CONTRACT.as_bytes());
    let place = "--name orders --database lake --location s3://lake/orders";
    folder.printed(&format!("schema show contract.toml --as json {place}"), "contract.json");
    folder.printed(&format!("schema show contract.toml --as glue {place}"), "glue.json");
    folder.printed(&format!("schema show contract.toml --as cloudformation {place}"), "cf.json");
    let avro = json!({"type": "record", "name": "O", "namespace": "n", "fields": [
        {"name": "id", "type": "long"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "d", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}]},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 16}}, {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"name": "l", "type": {"type": "array", "items": {"type": "map", "values": "string"}}},
        {"name": "r", "type": {"type": "record", "name": "R", "fields": [{"name": "x", "type": ["null", "int", "string"]}]}}]});
    folder.write("order.avsc", avro.to_string().as_bytes());
}

/// Builds a table with several versions, a checkpoint, key metadata, retained files, a quarantine and a bookmark.
fn table(folder: &Folder<'_>) {
    versions(folder);
    folder.write("in/4.jsonl", &seeds::json_lines(0, 12, 4));
    folder.run(&format!("{MERGE} in/4.jsonl --retention 2h"));
    folder.write(
        "in/bad.jsonl",
        b"{\"id\":null,\"seq\":5,\"op\":\"c\"}\n{\"id\":3,\"seq\":5,\"day\":\"2024-02-28\",\"v\":\"x\",\"op\":\"c\"}\n",
    );
    folder.run(&format!("{MERGE} in/bad.jsonl --bad-rows quarantine --max-quarantined 90"));
    for n in 1..=2 {
        folder.write(&format!("raw/{n}.jsonl"), &seeds::json_lines(n * 10, 3, 6));
        folder.run(&format!("{MERGE} raw --bookmark b --run-id run{n}"));
    }
    folder.write("raw/3.jsonl", &seeds::json_lines(3, 3, 7));
}

/// Writes versions with the library, which can write checkpoints more often than the command does.
fn versions(folder: &Folder<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    runtime.block_on(async {
        let location = Location::parse(&folder.root.join("lake/t").to_string_lossy()).expect("the place is valid");
        let dataset = Dataset::new(location, process::options());
        for n in 1..=4 {
            let name = format!("in/{n}.jsonl");
            folder.write(&name, &seeds::json_lines(n * 3, 20, n));
            process::merge(&dataset, &folder.root.join(name).to_string_lossy()).await.expect("the merge succeeds");
        }
    });
}

/// Builds a table whose newest version is committed and not finished.
fn unfinished(folder: &Folder<'_>) {
    versions(folder);
    let journal = folder.root.join("lake/.biscuit/t/journal");
    std::fs::remove_file(journal.join(format!("{:020}.done", 4))).expect("the mark of the last version is removed");
}

/// Removes the ETags of done marks and checkpoints, as in a store without ETags, where files are known by their
/// sizes.
fn forget_etags(journal: &Path) {
    for entry in std::fs::read_dir(journal).expect("the journal is readable").flatten() {
        let mut value: Value =
            serde_json::from_slice(&std::fs::read(entry.path()).expect("the file is read")).expect("the JSON is valid");
        if entry.path().extension().is_some_and(|e| e == "done") {
            value["etags"] = json!({});
        }
        std::fs::write(entry.path(), value.to_string()).expect("the file is written");
    }
}

fn periods(folder: &Folder<'_>) {
    let line = |id: &str, eff: &str, was: &str, op: &str| {
        format!("{{\"id\":\"{id}\",\"eff\":\"{eff}\",\"was\":{was},\"v\":\"v\",\"op\":\"{op}\"}}\n")
    };
    let snapshot = "snapshot --dataset lake/p --format rows --key id --order eff --op op --by effective --effective-column eff \
                    --granularity month --retracts was --as-of 2024-03-15 --changes";
    let one = line("k1", "2024-01-10", "null", "c")
        + &line("k1", "2024-02-05", "null", "u")
        + &line("k2", "2024-02-07", "null", "c");
    folder.write("in/h.jsonl", one.as_bytes());
    folder.run(&format!("{snapshot} in/h.jsonl"));
    let two = line("k2", "2024-03-01", "\"2024-02-07\"", "u")
        + &line("k4", "2024-05-01", "null", "c")
        + &line("k1", "2024-03-02", "null", "d");
    folder.write("in/2.jsonl", two.as_bytes());
    folder.run(&format!("{snapshot} in/2.jsonl"));
    folder.write(
        "in/late.jsonl",
        (line("k5", "2024-01-15", "null", "c") + &line("k2", "2024-04-01", "null", "u")).as_bytes(),
    );
}

fn external(folder: &Folder<'_>) {
    for (n, file) in seeds::parquet(&seeds::rows(0, 60, 1)).iter().enumerate() {
        folder.write(&format!("lake/f/part-{n}.parquet"), file);
    }
    let spark = seeds::data(
        "foreign/spark-table/day=2024-02-28/part-00000-48cd4aad-984d-4de6-90f9-7a11b0891424.c000.snappy.parquet",
    );
    folder.write("lake/g/part-0.snappy.parquet", &spark);
    folder.write("in/all.parquet", &seeds::parquet(&seeds::rows(0, 60, 3))[1]);
    folder.write("c.toml", CONTRACT.as_bytes());
}

const POLICY: &str = "keys = 'keys.toml'\nstore = 'tokens.redb'\nsubject = 'id'\n[columns]\nssn = 'tokenize'\nname = { encrypt = { key = 'subject' } }\n\
    email = { encrypt = { key = 'file' } }\nbio = 'redact'\nphone = { partial = { last = 4 } }\n";

fn pii(folder: &Folder<'_>) {
    let line = |n: u32| {
        format!(
            "{{\"id\":{n},\"seq\":1,\"ssn\":\"{}-45-6789\",\"name\":\"Ann {n}\",\"email\":\"a{n}@example.com\",\"bio\":\"write to b{n}@example.com\",\"phone\":\"+1 212-555-01{n:02}\"}}\n",
            123 + n
        )
    };
    folder.write("customers.jsonl", (0..20).map(line).collect::<String>().as_bytes());
    folder.run("pii keygen keys.toml");
    folder.write("policy.toml", POLICY.as_bytes());
    folder.run("pii apply customers.jsonl clean/customers --policy policy.toml");
    let more = "{\"op\":\"u\",\"seq\":2,\"id\":40,\"ssn\":\"t\",\"name\":null,\"email\":\"c@example.com\",\"bio\":\"\",\"phone\":\"1\"}\n";
    folder.write("more.jsonl", more.as_bytes());
    forget_etags(&folder.root.join("clean/.biscuit/customers/journal"));
}

fn plan(folder: &Folder<'_>) {
    for n in 0..5 {
        folder.write(&format!("logs/day={n}/file"), b"x");
    }
    folder.write("lake/t/part-0.parquet", b"not of the logs");
    // Ages are on the clock of the disk. `0s` selects every object that existed before the listing.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    folder.run("purge logs --older-than 0s --allow empty --dry-run --manifest plan.jsonl");
}
