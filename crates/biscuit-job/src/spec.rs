use std::collections::BTreeMap;
use std::path::Path;

use biscuit_bookmark::{BookmarkOptions, LatePolicy, ObjectIdentity, OverwrittenPolicy};
use biscuit_change::{CsvDialect, OpMap, TextEncoding};
use biscuit_core::{Error, Result, parse_duration, unquoted};
use biscuit_merge::NewServerPolicy;
use biscuit_pii::Policy;
use biscuit_schema::{Contract, NamingRule};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Value;

/// A job, as its file says it. The crate's front page has the form.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JobSpec {
    /// Its name.
    pub name: String,
    /// Where its rows come from, by name.
    pub sources: BTreeMap<String, SourceSpec>,
    /// Where they go, by name; most jobs have one.
    #[serde(default)]
    pub outputs: BTreeMap<String, OutputSpec>,
    /// The only output, under the job's name.
    target: Option<OutputSpec>,
    /// What becomes of personal data.
    pub pii: Option<Policy>,
    /// The query of the only output.
    transform: Option<TransformSpec>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransformSpec {
    sql: String,
}

/// What the objects of a source hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SourceFormat {
    /// A JSON object on each line; gzip and zstd too.
    Json,
    /// CSV; gzip and zstd too.
    Csv,
    /// Parquet.
    Parquet,
    /// Change records: plain rows with an operation.
    Rows,
    /// Change records: Debezium envelopes.
    Debezium,
    /// Change records: what AWS DMS writes.
    Dms,
}

impl SourceFormat {
    /// Whether it is one of change records, which are merged and not transformed.
    pub fn is_changes(self) -> bool {
        matches!(self, Self::Rows | Self::Debezium | Self::Dms)
    }
}

/// One value or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(vec![])
    }
}

/// A bookmark's name, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum BookmarkName {
    Named(String),
    On(bool),
}

/// How columns without a contract are typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RulesText")]
#[non_exhaustive]
pub enum RulesSpec {
    /// By the usual rules, of columns' names.
    #[default]
    Usual,
    /// By no rules.
    None,
    /// By these.
    Listed(Vec<NamingRule>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RulesText {
    Named(String),
    Listed(Vec<NamingRule>),
}

impl TryFrom<RulesText> for RulesSpec {
    type Error = String;

    fn try_from(text: RulesText) -> Result<Self, String> {
        match text {
            RulesText::Named(name) if name == "default" => Ok(Self::Usual),
            RulesText::Named(name) if name == "none" => Ok(Self::None),
            RulesText::Named(name) => Err(format!("`{name}` names no rules; there are `default` and `none`")),
            RulesText::Listed(rules) => Ok(Self::Listed(rules)),
        }
    }
}

/// A contract, or the file that has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum ContractSpec {
    /// A file: TOML or JSON.
    File(String),
    /// The contract itself.
    Inline(Value),
}

/// How CSV is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CsvFields")]
#[non_exhaustive]
pub struct CsvSpec {
    /// Delimiter, quotes, comments: each a character, or a name such as `tab`, as [`CsvDialect::byte`] has them.
    pub dialect: CsvDialect,
    /// Whether the first line has the names of the columns; else they are those of the contract, in its order.
    pub header: bool,
    /// The cell that stands for null, besides an empty one.
    pub null: String,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self { dialect: CsvDialect::default(), header: true, null: String::new() }
    }
}

/// The same as it is written in a job.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvFields {
    delimiter: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    comment: Option<String>,
    header: Option<bool>,
    null: Option<String>,
}

impl TryFrom<CsvFields> for CsvSpec {
    type Error = String;

    fn try_from(fields: CsvFields) -> std::result::Result<Self, String> {
        let defaults = Self::default();
        let byte = |name: &Option<String>, defaults: Option<u8>| match name {
            Some(name) => CsvDialect::byte(name).map_err(|e| e.message().to_owned()),
            None => Ok(defaults),
        };
        let mut dialect = defaults.dialect;
        dialect.delimiter = byte(&fields.delimiter, dialect.delimiter)?;
        dialect.quote = byte(&fields.quote, dialect.quote)?;
        dialect.escape = byte(&fields.escape, dialect.escape)?;
        dialect.comment = byte(&fields.comment, dialect.comment)?;
        if fields.delimiter.is_some() && dialect.delimiter.is_none() {
            return Err("CSV needs a delimiter".to_owned());
        }
        dialect.check().map_err(|e| e.message().to_owned())?;
        Ok(Self {
            dialect,
            header: fields.header.unwrap_or(defaults.header),
            null: fields.null.unwrap_or(defaults.null),
        })
    }
}

/// How text is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextSpec {
    /// How CSV is.
    pub csv: CsvSpec,
    /// The encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

fn encoding<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<TextEncoding>, D::Error> {
    let name = String::deserialize(deserializer)?;
    TextEncoding::of(&name).map(Some).map_err(|e| serde::de::Error::custom(e.message()))
}

/// A source.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SourceSpec {
    /// Where its objects are: paths or URLs of files, folders or globs.
    url: OneOrMany,
    /// What they hold.
    pub format: SourceFormat,
    /// The bookmark; that of the source's name, if it is not given.
    bookmark: Option<BookmarkName>,
    /// The contract of its rows.
    pub contract: Option<ContractSpec>,
    /// How columns are typed without a contract.
    pub rules: Option<RulesSpec>,
    /// How CSV is written.
    #[serde(default)]
    pub csv: CsvSpec,
    /// The encoding of CSV and JSON without a byte order mark, by a name such as `latin1`. Default: UTF-8.
    #[serde(default, deserialize_with = "encoding")]
    pub encoding: Option<TextEncoding>,
    /// The column that gets the URL of the object that a row comes from.
    pub source_file: Option<String>,
    /// Whether folders below the source's place that are named as Hive names them, `dt=2024-02-28`, are columns of the rows in them. Default: yes.
    /// Change records have none.
    #[serde(default = "yes")]
    pub hive_partitioning: bool,
    /// When an object that was read is another one.
    #[serde(default)]
    pub identity: ObjectIdentity,
    /// How far back objects may show up: `24h`, or `none`.
    pub allowed_lateness: Option<String>,
    /// What happens to objects below that.
    #[serde(default)]
    pub late: LatePolicy,
    /// What happens to overwritten objects.
    #[serde(default)]
    pub overwritten: OverwrittenPolicy,
    /// Objects that a run reads at most.
    pub limit_files: Option<usize>,
    /// Bytes that a run reads at most.
    pub limit_bytes: Option<u64>,
    /// Whether a run goes on without objects that go while it reads.
    #[serde(default)]
    pub allow_missing: bool,
    /// Whether a place may have no object when the source is read first, or without a bookmark.
    #[serde(default)]
    pub allow_empty: bool,
    /// Of Debezium and DMS: the table, `schema.table`.
    pub table: Option<String>,
    /// Of change records: the operation column.
    pub op: Option<String>,
    /// Of change records: operation codes that are not those of common tools, and what they say: `upsert`, `delete`, `truncate` or `ignore`.
    #[serde(default)]
    pub op_map: BTreeMap<String, String>,
    /// Of DMS: the task's `TimestampColumnName`.
    pub timestamp_column: Option<String>,
    /// Of DMS: the task's `CsvNullValue`.
    pub csv_null: Option<String>,
    /// Of DMS: the prefix of the columns with the key before an update.
    pub before_image: Option<String>,
    /// Of Debezium and rows: what stands for values that were not available.
    pub placeholder: Option<String>,
    /// Of change records: the bytes that one file may be unpacked or decoded to, as
    /// [`RowsOptions::max_decompressed`](biscuit_change::RowsOptions::max_decompressed).
    pub max_decompressed: Option<u64>,
}

impl SourceSpec {
    /// How its text is written.
    pub fn text(&self) -> TextSpec {
        TextSpec { csv: self.csv.clone(), encoding: self.encoding }
    }

    /// Its places.
    pub fn places(&self) -> Vec<String> {
        match &self.url {
            OneOrMany::One(url) => vec![url.clone()],
            OneOrMany::Many(urls) => urls.clone(),
        }
    }

    /// The name of its bookmark; none if everything is read every time.
    pub fn bookmark<'a>(&'a self, source: &'a str) -> Option<&'a str> {
        match &self.bookmark {
            None | Some(BookmarkName::On(true)) => Some(source),
            Some(BookmarkName::Named(name)) => Some(name),
            Some(BookmarkName::On(false)) => None,
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        let wrong = |what: &str| Err(invalid(format!("source `{name}` {what}")));
        if self.places().is_empty() {
            return wrong("has no url");
        }
        if self.contract.is_some() && self.rules.is_some() {
            return wrong("has a contract and rules: a contract names every type");
        }
        use SourceFormat::{Debezium, Dms, Rows};
        let formats: [(&str, bool, &[SourceFormat]); 8] = [
            ("op_map", !self.op_map.is_empty(), &[Rows, Dms]),
            ("table", self.table.is_some(), &[Debezium, Dms]),
            ("op", self.op.is_some(), &[Rows, Dms]),
            ("timestamp_column", self.timestamp_column.is_some(), &[Dms]),
            ("csv_null", self.csv_null.is_some(), &[Dms]),
            ("before_image", self.before_image.is_some(), &[Dms]),
            ("placeholder", self.placeholder.is_some(), &[Debezium, Rows]),
            ("max_decompressed", self.max_decompressed.is_some(), &[Debezium, Dms, Rows]),
        ];
        if let Some((what, ..)) = formats.iter().find(|(_, present, fits)| *present && !fits.contains(&self.format)) {
            return wrong(&format!("has `{what}`, which does not go with its format"));
        }
        if self.rules.is_some() && self.format.is_changes() {
            return wrong("has rules, which do not go with a format of change records");
        }
        self.op_map()?;
        self.allowed_lateness().map(drop)
    }

    pub(crate) fn op_map(&self) -> Result<OpMap> {
        OpMap::parse(self.op_map.iter().map(|(code, meaning)| format!("{code}={meaning}")))
    }

    pub(crate) fn allowed_lateness(&self) -> Result<Option<std::time::Duration>> {
        match self.allowed_lateness.as_deref() {
            None => Ok(BookmarkOptions::default().allowed_lateness),
            Some("none") => Ok(None),
            Some(text) => parse_duration(text).map(Some),
        }
    }
}

/// What happens to the rows that an output has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OutputMode {
    /// They stay; each input is in the output once, also if it is read again.
    Append,
    /// Partitions that new input reaches are built anew from all input that reaches them.
    ReplacePartitions,
    /// They all go.
    Replace,
    /// The rows are change records, and the output holds the current state.
    Merge,
    /// As merge, one full copy per period.
    Snapshot,
}

fn yes() -> bool {
    true
}

/// A column that is made of another one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DerivedColumn {
    /// The column it is made of: a date, a timestamp, or text that is one.
    pub from: String,
    /// What of it.
    #[serde(rename = "as")]
    pub part: DatePart,
}

/// A part of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DatePart {
    /// Its date.
    Date,
    /// Its year, as a number.
    Year,
    /// Its month, 1 to 12.
    Month,
    /// Its day of the month.
    Day,
    /// Its hour, 0 to 23.
    Hour,
}

/// Columns about the run, added to every row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSpec {
    /// The column that gets the instant at which the run started.
    pub processing_datetime: Option<String>,
    /// The column that gets the run's id.
    pub run_id: Option<String>,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OutputSpec {
    /// The table: a path or URL.
    pub url: String,
    /// Where its state is, if not in the default place.
    pub state: Option<String>,
    /// What happens to the rows it has.
    pub mode: OutputMode,
    /// A query over the sources, by their names.
    pub sql: Option<String>,
    /// The sources it reads; all of them, if it is not given.
    pub sources: Option<Vec<String>>,
    /// The contract of its rows: types, grain, checks, partition columns, layer.
    pub contract: Option<ContractSpec>,
    /// Columns that make folders.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Columns that are made of others, by name.
    #[serde(default)]
    pub derive: BTreeMap<String, DerivedColumn>,
    /// Columns about the run.
    #[serde(default)]
    pub audit: AuditSpec,
    /// Of merge and snapshot: the columns that name an entity.
    #[serde(default)]
    pub key: Vec<String>,
    /// Of merge and snapshot: the columns that order its changes.
    #[serde(default)]
    pub order: Vec<String>,
    /// Of merge and snapshot: the operation column of transformed rows.
    pub op: Option<String>,
    /// Of merge and snapshot: operation codes for records of equal order, of which the later one wins.
    #[serde(default)]
    pub op_rank: Vec<String>,
    /// Of merge and snapshot: columns in which null means "not given"; `*` for all.
    #[serde(default)]
    pub ignore_null: Vec<String>,
    /// Of merge and snapshot: columns that are used and not stored.
    #[serde(default)]
    pub drop_columns: Vec<String>,
    /// Of merge and snapshot: the most rows of a table of more than 1,000 that may be deleted, in percent.
    pub max_deleted: Option<f64>,
    /// Of merge and snapshot: what the log positions of a database server mean that no record came from before.
    pub new_server: Option<NewServerPolicy>,
    /// Of snapshot: how long periods are.
    pub granularity: Option<String>,
    /// Of snapshot: the time zone in which periods begin.
    pub zone: Option<String>,
    /// Of snapshot: the column that says when a record takes effect; by ingestion, if it is not given.
    pub effective_column: Option<String>,
    /// The most rows that may be put aside, in percent.
    #[serde(default = "tenth")]
    pub max_quarantined: f64,
    /// Bytes of a file: `target_size = 268435456`.
    pub target_size: Option<u64>,
}

fn tenth() -> f64 {
    0.1
}

impl OutputSpec {
    fn check(&self, name: &str, job: &JobSpec) -> Result<()> {
        let wrong = |what: String| Err(invalid(format!("output `{name}` {what}")));
        let sources = self.sources(job);
        if let Some(unknown) = sources.iter().find(|s| !job.sources.contains_key(*s)) {
            return wrong(format!("reads `{unknown}`, which is no source"));
        }
        if sources.is_empty() {
            return wrong("reads no source".to_owned());
        }
        let changes = sources.iter().any(|s| job.sources[s].format.is_changes());
        let merges = matches!(self.mode, OutputMode::Merge | OutputMode::Snapshot);
        if changes && (sources.len() > 1 || self.sql.is_some() || !merges) {
            return wrong(
                "reads change records: these are merged or snapshot, from one source and without a query".to_owned(),
            );
        }
        if sources.len() > 1 && self.sql.is_none() {
            return wrong("reads several sources and has no query that brings them together".to_owned());
        }
        let only = [
            ("granularity", self.granularity.is_some(), self.mode == OutputMode::Snapshot),
            ("effective_column", self.effective_column.is_some(), self.mode == OutputMode::Snapshot),
            ("key", !self.key.is_empty(), merges),
            ("order", !self.order.is_empty(), merges),
            ("op", self.op.is_some(), merges),
            ("op_rank", !self.op_rank.is_empty(), merges),
            ("ignore_null", !self.ignore_null.is_empty(), merges),
            ("drop_columns", !self.drop_columns.is_empty(), merges),
            ("max_deleted", self.max_deleted.is_some(), merges),
            ("new_server", self.new_server.is_some(), merges),
            ("zone", self.zone.is_some(), self.mode == OutputMode::Snapshot),
        ];
        if let Some((what, ..)) = only.iter().find(|(_, present, fits)| *present && !fits) {
            return wrong(format!("has `{what}`, which does not go with its mode"));
        }
        if self.mode == OutputMode::Snapshot && self.granularity.is_none() {
            return wrong("is a snapshot and does not say its granularity".to_owned());
        }
        if changes && (!self.derive.is_empty() || self.audit != AuditSpec::default()) {
            return wrong("adds columns to change records: their adapters say what is stored".to_owned());
        }
        Ok(())
    }

    /// The sources it reads.
    pub fn sources(&self, job: &JobSpec) -> Vec<String> {
        self.sources.clone().unwrap_or_else(|| job.sources.keys().cloned().collect())
    }
}

impl JobSpec {
    /// Reads a job from TOML, with single values set to others: `("sources.orders.url", "s3://other/orders")`.
    ///
    /// # Errors
    /// `InvalidJob` with the place of the mistake.
    pub fn from_toml(text: &str, set: &[(String, String)]) -> Result<Self> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| invalid(unquoted(&e.to_string())))?;
        let mut value = Value::Table(table);
        for (path, new) in set {
            put(&mut value, path, new)?;
        }
        let mut job: Self = value.try_into().map_err(|e: toml::de::Error| invalid(unquoted(&e.to_string())))?;
        match (job.target.take(), job.transform.take()) {
            (Some(mut target), transform) => {
                if transform.is_some() && target.sql.is_some() {
                    return Err(invalid("the target has a query, and there is a [transform] too"));
                }
                target.sql = transform.map(|t| t.sql).or(target.sql);
                job.outputs.insert(job.name.clone(), target);
            }
            (None, Some(_)) => return Err(invalid("[transform] goes with [target]; outputs have their own `sql`")),
            (None, None) => {}
        }
        job.check()?;
        Ok(job)
    }

    /// The columns that contracts give a class, with it: those of sources, and of outputs whose only source has no contract. Files of contracts are
    /// relative to the folder.
    ///
    /// # Errors
    /// `InvalidContract`.
    pub fn classes(&self, folder: &Path) -> Result<Vec<(String, String)>> {
        let read = |path: &str| {
            std::fs::read_to_string(folder.join(path)).map_err(|e| {
                Error::usage("InvalidContract", format!("the contract `{path}` cannot be read: {e}")).with_source(e)
            })
        };
        let sources = self.sources.values().filter_map(|source| source.contract.as_ref());
        let outputs = self.outputs.values().filter_map(|output| output.contract.as_ref());
        let mut classes = vec![];
        for spec in sources.chain(outputs) {
            for column in contract(spec, read)?.columns {
                if let Some(class) = column.pii
                    && !classes.iter().any(|(known, _)| *known == column.name)
                {
                    classes.push((column.name, class));
                }
            }
        }
        Ok(classes)
    }

    fn check(&self) -> Result<()> {
        if self.sources.is_empty() {
            return Err(invalid("there is no source"));
        }
        if self.outputs.is_empty() {
            return Err(invalid("there is no [target], and no output"));
        }
        self.sources.iter().try_for_each(|(name, source)| source.check(name))?;
        self.outputs.iter().try_for_each(|(name, output)| output.check(name, self))
    }
}

/// Sets a value by its path: a number, a truth or a list where the text is one, else the text.
fn put(value: &mut Value, path: &str, new: &str) -> Result<()> {
    let parsed = format!("v = {new}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let new = parsed.unwrap_or_else(|| Value::String(new.to_owned()));
    let mut at = value;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let Value::Table(table) = at else {
            return Err(invalid(format!("`{path}` cannot be set: there is a value above it")));
        };
        if part.is_empty() {
            return Err(invalid(format!("`{path}` is no path of a setting")));
        }
        if parts.peek().is_none() {
            table.insert(part.to_owned(), new);
            return Ok(());
        }
        at = table.entry(part).or_insert_with(|| Value::Table(toml::Table::new()));
    }
    Ok(())
}

/// Reads what a contract spec says; `read` fetches the file.
pub(crate) fn contract(spec: &ContractSpec, read: impl Fn(&str) -> Result<String>) -> Result<Contract> {
    match spec {
        ContractSpec::File(path) => {
            let text = read(path)?;
            let json = text.trim_start().starts_with('{');
            let contract = if json { Contract::from_json(&text) } else { Contract::from_toml(&text) };
            contract.map_err(|e| e.in_file(path))
        }
        ContractSpec::Inline(value) => {
            let text = toml::to_string(value).map_err(|e| invalid(e.to_string()))?;
            Contract::from_toml(&text)
        }
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::usage("InvalidJob", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "
        name = 'orders'
        [sources.orders]
        url = 'raw/orders'
        format = 'json'
        [target]
        url = 'lake/orders'
        mode = 'append'
    ";

    fn set(path: &str, value: &str) -> Result<JobSpec> {
        JobSpec::from_toml(JOB, &[(path.to_owned(), value.to_owned())])
    }

    #[test]
    fn values_are_set_by_their_path() {
        let job = set("sources.orders.url", "s3://b/orders").unwrap();
        assert_eq!(job.sources["orders"].places(), ["s3://b/orders"]);
        assert_eq!(set("sources.orders.limit_files", "7").unwrap().sources["orders"].limit_files, Some(7));
        assert_eq!(set("target.partition_by", "['a', 'b']").unwrap().outputs["orders"].partition_by, ["a", "b"]);
        assert_eq!(set("name.x", "1").unwrap_err().code(), "InvalidJob");
        assert_eq!(job.sources["orders"].bookmark("orders"), Some("orders"));
        assert_eq!(set("sources.orders.bookmark", "false").unwrap().sources["orders"].bookmark("orders"), None);
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        for (path, value, said) in [
            ("target.mode", "appendix", "unknown variant `appendix`"),
            ("target.colour", "red", "unknown field `colour`"),
            ("target.granularity", "month", "has `granularity`, which does not go with its mode"),
            ("target.mode", "snapshot", "does not say its granularity"),
            ("sources.orders.format", "debezium", "reads change records"),
            ("sources.orders.table", "public.orders", "has `table`, which does not go with its format"),
            ("target.sources", "['none']", "reads `none`, which is no source"),
            ("sources.orders.url", "[]", "has no url"),
            ("sources.orders.allowed_lateness", "5x", "is not a duration"),
            ("sources.orders.rules", "usal", "`usal` names no rules"),
        ] {
            let e = set(path, value).unwrap_err();
            assert!(e.message().contains(said), "{path}: {e}");
        }
    }
}
