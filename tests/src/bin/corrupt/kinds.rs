//! The kinds of inputs that commands read: working folder, files to damage, and commands.

use crate::layers::Layer;
use crate::node::Form;

/// A kind of inputs, and the commands that read them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Working folder of the commands: see [`crate::build`].
    pub(crate) stand: &'static str,
    /// Files of which one is damaged; `*` stands for any text.
    pub(crate) files: &'static str,
    pub(crate) layer: Layer,
    pub(crate) after: After,
    /// Commands of which two are run, in this order; `{file}` is the damaged file.
    pub(crate) commands: &'static [&'static str],
    /// Tables that may change, and their state roots.
    pub(crate) tables: &'static [(&'static str, &'static str)],
}

/// Action after a file was damaged, so that not only its checksum shows the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    /// Sometimes, size and checksum in the records are set to the values of the damaged file.
    Mend,
    /// The size of the file does not change.
    KeepSize,
    /// The version is not finished: a command that fails may have published a part of it.
    Unfinished,
}

const T: &[(&str, &str)] = &[("lake/t", "lake/.biscuit/t")];
const F: &[(&str, &str)] = &[("lake/f", "lake/.biscuit/f")];
const J: &[(&str, &str)] = &[("lake/j", "lake/.biscuit/j")];
const P: &[(&str, &str)] = &[("lake/p", "lake/.biscuit/p")];
const M: &[(&str, &str)] = &[("lake/m", "state/m"), ("lake/m", "lake/.biscuit/m")];
const C: &[(&str, &str)] = &[("clean", "clean/.biscuit")];
const ANY: &[(&str, &str)] = &[("lake", "lake/.biscuit")];

const ROWS: &[&str] = &[
    "merge --target lake/t --format rows --key id --order seq --op op --json --changes {file}",
    "merge --target lake/t --format rows --key id --order seq --op op --json --dry-run --changes {file}",
    "merge --target lake/t --format rows --key id --order seq --op op --json --bad-rows quarantine --max-quarantined 100 --changes {file}",
    "merge --target lake/t --format rows --key id --order seq --op op --json --memory 1MB --changes {file}",
    "merge --target lake/new --format rows --key id --order seq --op op --json --partition-by day --changes {file}",
    "merge --target lake/new --format rows --schema c.toml --op op --json --changes {file}",
    "snapshot --dataset lake/s --format rows --key id --order seq --op op --by ingestion --granularity month --as-of 2024-03-15 --json --changes {file}",
    "schema infer {file} --json",
    "pii scan {file} --json",
    "pii apply {file} lake/treated --policy policy.toml --json",
];

const ENVELOPES: &[&str] = &[
    "merge --target lake/d --format debezium --table public.bill --schema e.json --json --changes {file}",
    "merge --target lake/d --format debezium --table public.bill --schema e.json --json --bad-rows quarantine --max-quarantined 100 --changes {file}",
    "merge --target lake/{schema}/{table} --format debezium --table * --schema e.json --json --changes {file}",
    "merge --target lake/{schema}_{table} --format debezium --table * --json --changes {file}",
    "pii scan {file} --json",
];

const ORDERS: &[&str] = &[
    "merge --target lake/o --format debezium --key customer_id,order_no --json --changes {file}",
    "merge --target lake/o --format debezium --key customer_id,order_no --bad-rows quarantine --max-quarantined 100 --json --changes {file}",
    "merge --target lake/{schema}/{table} --format debezium --table * --key customer_id,order_no --json --changes {file}",
    "merge --target lake/o --format rows --key op --order ts_ms --json --changes {file}",
];

const DMS: &[&str] = &[
    "merge --target lake/dms --format dms --table public.orders --schema dms.json --timestamp-column dms_ts --json --changes dms",
    "merge --target lake/dms --format dms --table public.orders --schema dms.json --timestamp-column dms_ts --bad-rows quarantine --max-quarantined 100 --json --changes dms",
    "merge --target lake/{schema}/{table} --format dms --table * --schema dms.json --timestamp-column dms_ts --json --changes dms",
];

const JOURNAL: &[&str] = &[
    "show lake/t --json",
    "history lake/t --json",
    "verify lake/t --json",
    "bookmark show lake/t --json",
    "quarantine list lake/t --json",
    "schema show lake/t --json",
    "purge lake/t --orphans --dry-run --json",
    "merge --target lake/t --format rows --key id --order seq --op op --json --changes in/more.jsonl",
    "merge --target lake/t --format rows --key id --order seq --op op --json --bookmark b --changes raw",
    "quarantine retry --target lake/t --format rows --op op --json",
    "bookmark explain lake/t raw/1.jsonl --bookmark b --json",
    "bookmark reset lake/t --bookmark b --json",
    "bookmark set-to-now lake/t --bookmark b --json",
    "compact lake/t --sort-by id --json",
    "forget --subject 3 --erase-from lake/t --column id --json",
    "purge lake/t --retained --json",
    "purge lake/t --orphans --json",
    "purge lake --older-than 0s --allow overlap,empty --json",
    "recover lake/t --json",
    "recover lake/t --fence --json",
    "adopt lake/t --dry-run --json",
    "adopt lake/t --json",
];

const PERIODS: &[&str] = &[
    "show lake/p --as-of 2024-01-31 --json",
    "periods lake/p --json",
    "verify lake/p --json",
    "snapshot --dataset lake/p --format rows --op op --as-of 2024-03-20 --json --changes in/late.jsonl",
    "snapshot --dataset lake/p --format rows --as-of 2024-06-02 --json",
    "compact lake/p --json",
    "recover lake/p --json",
    "adopt lake/p --json",
];

const FOREIGN: &[&str] = &[
    "show lake/f --json",
    "show lake/f --columns id --limit 3 --json",
    "verify lake/f --key id --json",
    "schema show lake/f --json",
    "schema check lake/f --contract c.toml --json",
    "pii scan lake/f --json",
    "purge lake/f --orphans --dry-run --json",
    "merge --target lake/f --format rows --key id --order seq --op op --json --changes in/more.jsonl",
    "merge --target lake/f --format rows --key id --order seq --op op --json --changes in/all.parquet",
    "compact lake/f --sort-by id --json",
    "compact lake/f --codec zstd --json",
    "forget --subject 3 --erase-from lake/f --column id --json",
    "adopt lake/f --json",
];

const OWN: &[&str] = &[
    "show lake/t --json",
    "verify lake/t --json",
    "merge --target lake/t --format rows --key id --order seq --op op --json --changes in/more.jsonl",
    "compact lake/t --sort-by id --json",
    "compact lake/t --codec snappy --json",
    "forget --subject 3 --erase-from lake/t --column id --json",
];

const RUN: &[&str] = &[
    "run job.toml --json",
    "run job.toml --dry-run --json",
    "run query.toml --json",
    "run merge.toml --json",
    "schema infer {file} --json",
    "impact lake/j --input raw/1.json --json",
    "pii scan {file} --json",
];

const RUN_ALONE: &[&str] = &["run job.toml --dry-run --json", "run job.toml --json"];

const SCHEMAS: &[&str] = &[
    "schema show {file} --json",
    "schema show {file} --as ddl --name n --database d --location s3://b/n",
    "schema show {file} --as glue --name n --database d --location s3://b/n",
    "schema show {file} --as cloudformation --name n --database d --location s3://b/n",
    "schema diff contract.toml {file} --json",
    "schema check lake/t --contract {file} --json",
    "merge --target lake/t --format rows --schema {file} --op op --json --changes in/more.jsonl",
];

const PII: &[&str] = &[
    "pii apply customers.jsonl clean/new --policy policy.toml --json",
    "show clean/customers --json --file-keys keys.toml",
    "verify clean/customers --json --file-keys keys.toml",
    "pii detokenize clean/customers --policy policy.toml --columns ssn,email --audit audit.jsonl --who t --reason w --out back.parquet --json",
    "forget --subject 2 --policy policy.toml --json",
    "merge --target clean/customers --format rows --key id --order seq --op op --file-keys keys.toml --json --changes more.jsonl",
    "compact clean/customers --row-group-rows 2 --file-keys keys.toml --json",
    "pii keygen keys.toml --rotate --json",
];

const fn kind(
    name: &'static str,
    (stand, files): (&'static str, &'static str),
    (layer, after): (Layer, After),
    commands: &'static [&'static str],
    tables: &'static [(&'static str, &'static str)],
) -> Kind {
    Kind { name, stand, files, layer, after, commands, tables }
}

const LINES: Layer = Layer::Text(Form::JsonLines);
const JSON: Layer = Layer::Text(Form::Json);
const TOML: Layer = Layer::Text(Form::Toml);

use After::{KeepSize, Mend, Nothing, Unfinished};

/// All kinds of inputs that commands read.
pub(crate) const KINDS: &[Kind] = &[
    kind("merge-parquet", ("changes", "in/c*.parquet"), (Layer::Plain, Nothing), ROWS, ANY),
    kind("merge-avro", ("changes", "in/c*.avro"), (Layer::Avro, Nothing), ROWS, ANY),
    kind("merge-jsonl", ("changes", "in/c.jsonl"), (LINES, Nothing), ROWS, ANY),
    kind("merge-jsonl-gz", ("changes", "in/c.jsonl.gz"), (Layer::Gzip(Form::JsonLines), Nothing), ROWS, ANY),
    kind("merge-csv", ("changes", "in/c.csv"), (Layer::Plain, Nothing), ROWS, ANY),
    kind("debezium-jsonl", ("changes", "in/e.jsonl"), (LINES, Nothing), ENVELOPES, ANY),
    kind("debezium-jsonl-gz", ("changes", "in/orders.jsonl.gz"), (Layer::Gzip(Form::JsonLines), Nothing), ORDERS, ANY),
    kind("debezium-avro", ("changes", "in/orders.avro"), (Layer::Avro, Nothing), ORDERS, ANY),
    kind("debezium-parquet", ("changes", "in/orders.parquet"), (Layer::Plain, Nothing), ORDERS, ANY),
    kind("dms-parquet", ("dms", "dms/*.parquet"), (Layer::Plain, Nothing), DMS, ANY),
    kind("dms-csv-gz", ("dms", "dms/*.csv.gz"), (Layer::Gzip(Form::JsonLines), Nothing), DMS, ANY),
    kind("run-json", ("job", "raw/*.json"), (LINES, Nothing), RUN, ANY),
    kind("run-json-gz", ("job", "raw/*.json.gz"), (Layer::Gzip(Form::JsonLines), Nothing), RUN, ANY),
    kind("run-json-zst", ("job", "raw/*.json.zst"), (Layer::Zstd(Form::JsonLines), Nothing), RUN, ANY),
    kind("run-csv", ("csv", "raw/*.csv*"), (Layer::Plain, Nothing), RUN_ALONE, J),
    kind("run-parquet", ("parquet", "raw/*.parquet"), (Layer::Plain, Nothing), RUN_ALONE, J),
    kind("job-file", ("job", "job.toml"), (TOML, Nothing), RUN_ALONE, ANY),
    kind(
        "job-file-of-merge",
        ("job", "merge.toml"),
        (TOML, Nothing),
        &["run merge.toml --dry-run --json", "run merge.toml --json"],
        ANY,
    ),
    kind(
        "job-file-of-query",
        ("job", "query.toml"),
        (TOML, Nothing),
        &["run query.toml --dry-run --json", "run query.toml --json"],
        ANY,
    ),
    kind("job-contract", ("job", "contract.toml"), (TOML, Nothing), RUN_ALONE, J),
    kind("contract-toml", ("schemas", "contract.toml"), (TOML, Nothing), SCHEMAS, T),
    kind("contract-json", ("schemas", "contract.json"), (JSON, Nothing), SCHEMAS, T),
    kind("schema-glue", ("schemas", "glue.json"), (JSON, Nothing), SCHEMAS, T),
    kind("schema-cloudformation", ("schemas", "cf.json"), (JSON, Nothing), SCHEMAS, T),
    kind("schema-avro", ("schemas", "order.avsc"), (JSON, Nothing), SCHEMAS, T),
    kind("journal-record", ("table", "lake/.biscuit/t/journal/*.json"), (JSON, Nothing), JOURNAL, T),
    kind("journal-done", ("table", "lake/.biscuit/t/journal/*.done"), (JSON, Nothing), JOURNAL, T),
    kind("journal-checkpoint", ("table", "lake/.biscuit/t/journal/*.checkpoint"), (JSON, Nothing), JOURNAL, T),
    kind("journal-unfinished", ("unfinished", "lake/.biscuit/t/journal/*.json"), (JSON, Unfinished), JOURNAL, T),
    kind("pointer", ("table", "lake/.biscuit/t/root.json"), (JSON, Nothing), JOURNAL, T),
    kind(
        "pointer-moved",
        ("moved", "lake/.biscuit/m/root.json"),
        (JSON, Nothing),
        &[
            "show lake/m --json",
            "verify lake/m --json",
            "merge --target lake/m --format rows --key id --order seq --op op --json --changes in/more.jsonl",
            "recover lake/m --fence --json",
            "purge lake/m --orphans --json",
            "purge lake --older-than 0s --allow overlap,empty --json",
        ],
        M,
    ),
    kind("state-keys", ("table", "lake/.biscuit/t/state/*/keys-*"), (Layer::Plain, Mend), JOURNAL, T),
    kind("state-quarantine", ("table", "lake/.biscuit/t/state/*/quarantine-*"), (LINES, Mend), JOURNAL, T),
    kind("state-bookmark", ("table", "lake/.biscuit/t/state/*/bookmarks*"), (Layer::LineAndZstd, Mend), JOURNAL, T),
    kind("periods-journal", ("periods", "lake/.biscuit/p/journal/*"), (JSON, Nothing), PERIODS, P),
    kind("periods-keys", ("periods", "lake/.biscuit/p/state/*/keys-*"), (Layer::Plain, Mend), PERIODS, P),
    kind("periods-pending", ("periods", "lake/.biscuit/p/state/*/pending*"), (Layer::Plain, Mend), PERIODS, P),
    kind("periods-retracted", ("periods", "lake/.biscuit/p/state/*/retracted*"), (Layer::Plain, Mend), PERIODS, P),
    kind("table-foreign", ("foreign", "lake/f/*.parquet"), (Layer::Plain, Nothing), FOREIGN, F),
    kind("table-own", ("own", "lake/t/*.parquet"), (Layer::Plain, KeepSize), OWN, T),
    kind("table-encrypted", ("pii", "clean/customers/*.parquet"), (Layer::Plain, KeepSize), PII, C),
    kind("keys", ("pii", "keys.toml"), (TOML, Nothing), PII, C),
    kind("policy", ("pii", "policy.toml"), (TOML, Nothing), PII, C),
    kind("tokens", ("pii", "tokens.redb"), (Layer::Plain, Nothing), PII, C),
    kind(
        "purge-plan",
        ("plan", "plan.jsonl"),
        (LINES, Nothing),
        &["purge logs --plan plan.jsonl --dry-run --json", "purge logs --plan plan.jsonl --json"],
        &[("logs", "logs")],
    ),
];
