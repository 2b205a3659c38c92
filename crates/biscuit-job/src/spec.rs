//! The specification of a job: its types, as they are read from TOML or built by a program, and the checks for
//! settings that contradict each other.

mod builder;
mod output_options;
mod source_options;

use std::collections::BTreeMap;
use std::path::Path;

use biscuit_apply::NewServerPolicy;
use biscuit_bookmark::{BookmarkOptions, LatePolicy, MissingObjects, ObjectIdentity, OverwrittenPolicy};
use biscuit_change::{CsvDialect, OpMap, TextEncoding};
use biscuit_core::{Error, Result, parse_duration, unquoted};
use biscuit_pii::Policy;
use biscuit_schema::{Contract, NamingRule};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Value;

use crate::codes;

pub use builder::JobSpecBuilder;
pub use source_options::{CsvHeader, EmptyLocation, HivePartitioning};

/// A job, read from its file by [`from_toml`](Self::from_toml) or built by [`builder`](Self::builder). The
/// [crate documentation](crate) lists all settings.
///
/// ```
/// use biscuit_job::{JobSpec, OutputMode};
///
/// let text = r#"
///     name = "orders"
///     sources.raw = { url = "raw/orders", format = "json" }
///     target = { url = "lake/orders", mode = "append" }
/// "#;
/// // Any value can be replaced from outside, for example in a test.
/// let job = JobSpec::from_toml(text, &[("target.url".into(), "/tmp/orders".into())])?;
/// assert_eq!((job.outputs["orders"].url.as_str(), job.outputs["orders"].mode), ("/tmp/orders", OutputMode::Append));
///
/// // A key that does not exist is refused.
/// assert!(JobSpec::from_toml(&text.replace("mode", "modus"), &[]).is_err());
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "JobParts")]
#[non_exhaustive]
pub struct JobSpec {
    /// Name of the job.
    pub name: String,
    /// Sources of rows, by name.
    pub sources: BTreeMap<String, SourceSpec>,
    /// Outputs, by name. A job with `[target]` has one output with the name of the job.
    pub outputs: BTreeMap<String, OutputSpec>,
    /// Policy for personal data.
    pub pii: Option<Policy>,
}

/// The parts of a job as a job file or a builder declares them, before they are put together and checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobParts {
    name: String,
    sources: BTreeMap<String, SourceSpec>,
    #[serde(default)]
    outputs: BTreeMap<String, OutputSpec>,
    /// The only output. It gets the name of the job.
    target: Option<OutputSpec>,
    pii: Option<Policy>,
    /// Query of the only output.
    transform: Option<TransformSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransformSpec {
    sql: String,
}

/// The only way to a [`JobSpec`]: a job file and a builder are put together and checked by the same code.
impl TryFrom<JobParts> for JobSpec {
    type Error = Error;

    fn try_from(parts: JobParts) -> Result<Self> {
        let JobParts { name, sources, mut outputs, target, pii, transform } = parts;
        match (target, transform) {
            (Some(mut target), transform) => {
                if transform.is_some() && target.sql.is_some() {
                    return Err(invalid("the query is in both [target] and [transform]; remove one"));
                }
                target.sql = transform.map(|t| t.sql).or(target.sql);
                if outputs.insert(name.clone(), target).is_some() {
                    return Err(invalid(format!(
                        "both [target] and [outputs.{name}] are outputs with the name of the job; rename the second"
                    )));
                }
            }
            (None, Some(_)) => return Err(invalid("[transform] requires [target]; outputs have their own `sql`")),
            (None, None) => {}
        }
        let job = Self { name, sources, outputs, pii };
        job.check()?;
        Ok(job)
    }
}

/// Format of the objects of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SourceFormat {
    /// A stream of JSON objects: one a line, concatenated, over several lines, or in one array.
    Json,
    /// CSV.
    Csv,
    /// Parquet.
    Parquet,
    /// Change records: plain rows with an operation column.
    Rows,
    /// Change records: Debezium envelopes.
    Debezium,
    /// Change records: files of AWS DMS.
    Dms,
}

impl SourceFormat {
    /// Returns whether the objects are change records, which can be merged but not transformed.
    pub fn is_changes(self) -> bool {
        matches!(self, Self::Rows | Self::Debezium | Self::Dms)
    }
}

/// One value or a list of values.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(value) => vec![value],
        OneOrMany::Many(values) => values,
    })
}

/// Bookmark of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BookmarkText")]
enum SourceBookmark {
    /// It has the name of the source.
    #[default]
    OfSource,
    Named(String),
    None,
}

/// Bookmark as written in a job file: its name, or whether there is one.
#[derive(Deserialize)]
#[serde(untagged)]
enum BookmarkText {
    Named(String),
    On(bool),
}

impl From<BookmarkText> for SourceBookmark {
    fn from(text: BookmarkText) -> Self {
        match text {
            BookmarkText::Named(name) => Self::Named(name),
            BookmarkText::On(true) => Self::OfSource,
            BookmarkText::On(false) => Self::None,
        }
    }
}

/// How columns without a contract get their types.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RulesText")]
#[non_exhaustive]
pub enum RulesSpec {
    /// By the default rules, which match the names of columns.
    #[default]
    Usual,
    /// By the values alone.
    None,
    /// By the given rules.
    Listed(Vec<NamingRule>),
}

#[derive(Deserialize)]
#[serde(untagged)]
/// Rules as written in a job file.
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
            RulesText::Named(name) => Err(format!("unknown rules `{name}`; use `default`, `none` or a list of rules")),
            RulesText::Listed(rules) => Ok(Self::Listed(rules)),
        }
    }
}

/// A contract, or the path of its file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ContractSpec {
    /// Path of a TOML or JSON file.
    File(String),
    /// The contract itself, as written in a job file. It is read when the job runs.
    Inline(Value),
    /// The contract itself, as a program declares it. Its consistency is checked when the job runs.
    #[serde(skip)]
    Declared(Box<Contract>),
}

impl From<Contract> for ContractSpec {
    fn from(contract: Contract) -> Self {
        Self::Declared(Box::new(contract))
    }
}

/// Dialect of CSV files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CsvFields")]
#[non_exhaustive]
pub struct CsvSpec {
    /// Delimiter, quote, escape and comment characters. In a job file, each is a character or a name such as `tab`;
    /// see [`CsvDialect::byte`].
    pub dialect: CsvDialect,
    /// Whether the first line has the names of the columns. Default: it has.
    pub header: CsvHeader,
    /// Cell that stands for null, in addition to the empty cell. Default: none.
    pub null: String,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self { dialect: CsvDialect::default(), header: CsvHeader::Present, null: String::new() }
    }
}

/// [`CsvSpec`] as written in a job file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvFields {
    delimiter: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    comment: Option<String>,
    header: Option<CsvHeader>,
    null: Option<String>,
}

impl TryFrom<CsvFields> for CsvSpec {
    type Error = String;

    fn try_from(fields: CsvFields) -> std::result::Result<Self, String> {
        let defaults = Self::default();
        let byte = |name: &Option<String>, default: Option<u8>| match name {
            Some(name) => CsvDialect::byte(name).map_err(|e| e.message().to_owned()),
            None => Ok(default),
        };
        let mut dialect = defaults.dialect;
        dialect.delimiter = byte(&fields.delimiter, dialect.delimiter)?;
        dialect.quote = byte(&fields.quote, dialect.quote)?;
        dialect.escape = byte(&fields.escape, dialect.escape)?;
        dialect.comment = byte(&fields.comment, dialect.comment)?;
        if fields.delimiter.is_some() && dialect.delimiter.is_none() {
            return Err("CSV needs a delimiter".to_owned());
        }
        Ok(Self {
            dialect,
            header: fields.header.unwrap_or(defaults.header),
            null: fields.null.unwrap_or(defaults.null),
        })
    }
}

/// How text files are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextSpec {
    /// Dialect of CSV.
    pub csv: CsvSpec,
    /// Encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

fn encoding<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<TextEncoding>, D::Error> {
    let name = String::deserialize(deserializer)?;
    TextEncoding::of(&name).map(Some).map_err(|e| serde::de::Error::custom(e.message()))
}

/// A source of rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SourceSpec {
    /// Paths or URLs of files, folders or globs.
    #[serde(deserialize_with = "one_or_many")]
    url: Vec<String>,
    /// Format of the objects.
    pub format: SourceFormat,
    /// Name of the bookmark, or `false` for none. Default: the name of the source.
    #[serde(default)]
    bookmark: SourceBookmark,
    /// Contract of the rows.
    pub contract: Option<ContractSpec>,
    /// How columns get their types without a contract.
    pub rules: Option<RulesSpec>,
    /// Dialect of CSV files.
    #[serde(default)]
    pub csv: CsvSpec,
    /// Encoding of CSV and JSON without a byte order mark, by a name such as `latin1`. Default: UTF-8.
    #[serde(default, deserialize_with = "encoding")]
    pub encoding: Option<TextEncoding>,
    /// Column that gets the URL of the object of each row.
    pub source_file: Option<String>,
    /// Whether folders with Hive names, such as `dt=2024-02-28`, become columns of the rows below them. Change
    /// records never have such columns. Default: they become columns.
    #[serde(default)]
    pub hive_partitioning: HivePartitioning,
    /// How an overwritten object is recognized. Default: by its content.
    #[serde(default)]
    pub identity: ObjectIdentity,
    /// How far below the newest read object the modification time of an unread object may be, such as `24h`, or
    /// `none` for no limit. Default: 24 hours.
    pub allowed_lateness: Option<String>,
    /// Handling of objects beyond the allowed lateness. Default: they are reported and not read.
    #[serde(default)]
    pub late: LatePolicy,
    /// Handling of objects that were overwritten after they were read. Default: they are read again.
    #[serde(default)]
    pub overwritten: OverwrittenPolicy,
    /// Maximum number of objects in a run; the next run reads the rest. Default: no limit.
    pub limit_files: Option<usize>,
    /// Maximum bytes in a run; the next run reads the rest. At least one object is read. Default: no limit.
    pub limit_bytes: Option<u64>,
    /// Whether a run continues without objects that are deleted while it reads. Default: it stops.
    #[serde(default)]
    pub allow_missing: MissingObjects,
    /// Whether a location may have no objects when the source is read for the first time, or without a bookmark.
    /// Default: it must have objects.
    #[serde(default)]
    pub allow_empty: EmptyLocation,
    /// For `debezium` and `dms`: the table, as `schema.table`.
    pub table: Option<String>,
    /// For change records: the operation column.
    pub op: Option<String>,
    /// For change records: operation codes beyond those of common tools, with their meaning: `upsert`, `delete`,
    /// `truncate` or `ignore`.
    #[serde(default)]
    pub op_map: BTreeMap<String, String>,
    /// For `dms`: `TimestampColumnName` of the task.
    pub timestamp_column: Option<String>,
    /// For `dms`: `CsvNullValue` of the task.
    pub csv_null: Option<String>,
    /// For `dms`: prefix of the columns that contain the key before an update.
    pub before_image: Option<String>,
    /// For `debezium` and `rows`: text that stands for an unchanged value.
    pub placeholder: Option<String>,
    /// For change records: maximum bytes of one file after decompression and decoding; see
    /// [`RowsOptions::max_decompressed`](biscuit_change::RowsOptions::max_decompressed).
    pub max_decompressed: Option<u64>,
}

impl SourceSpec {
    /// Returns how the text files of the source are written.
    pub fn text(&self) -> TextSpec {
        TextSpec { csv: self.csv.clone(), encoding: self.encoding }
    }

    /// Returns the locations of the objects.
    pub fn places(&self) -> Vec<String> {
        self.url.clone()
    }

    /// Returns the name of the bookmark of the source `source`. `None` if every run reads all objects.
    pub fn bookmark<'a>(&'a self, source: &'a str) -> Option<&'a str> {
        match &self.bookmark {
            SourceBookmark::OfSource => Some(source),
            SourceBookmark::Named(name) => Some(name),
            SourceBookmark::None => None,
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        let wrong = |what: &str| Err(invalid(format!("source `{name}` {what}")));
        if self.places().is_empty() {
            return wrong("has no `url`");
        }
        if self.contract.is_some() && self.rules.is_some() {
            return wrong("has both `contract` and `rules`; a contract defines every type, so remove `rules`");
        }
        use SourceFormat::{Debezium, Dms, Rows};
        // Setting, whether it is set, and the formats that it applies to.
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
        if let Some((what, ..)) = formats.iter().find(|(_, is_set, fits)| *is_set && !fits.contains(&self.format)) {
            return wrong(&format!("has `{what}`, which its format does not support"));
        }
        if self.rules.is_some() && self.format.is_changes() {
            return wrong("has `rules`, which change records do not support");
        }
        if let Err(e) = self.csv.dialect.check() {
            return wrong(&format!("has a CSV dialect that cannot be read: {}", e.message()));
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

/// Handling of the existing rows of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OutputMode {
    /// They remain. The rows of each object are in the output once, even if the object is read again.
    Append,
    /// The partitions with new rows are replaced by the rows of all input that reaches them.
    ReplacePartitions,
    /// They are replaced by the rows of all input.
    Replace,
    /// The new rows are change records; the output has the current state.
    Merge,
    /// As [`Merge`](Self::Merge), with one full copy of the state for each period.
    Snapshot,
}

/// A column that is derived from another column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DerivedColumn {
    /// Source column: a date, a timestamp, or text with a date or time.
    pub from: String,
    /// Part of the time.
    #[serde(rename = "as")]
    pub part: DatePart,
}

/// A part of a time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DatePart {
    /// Date.
    Date,
    /// Year, as a number.
    Year,
    /// Month, 1 to 12.
    Month,
    /// Day of the month.
    Day,
    /// Hour, 0 to 23.
    Hour,
}

/// Columns about the run that are added to every row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AuditSpec {
    /// Column for the instant at which the run started.
    pub processing_datetime: Option<String>,
    /// Column for the id of the run.
    pub run_id: Option<String>,
}

/// An output of a job.
///
/// ```
/// use biscuit_job::{JobSpec, OutputMode, OutputSpec, SourceFormat, SourceSpec};
///
/// let all = OutputSpec::new("lake/orders", OutputMode::ReplacePartitions).with_partition_by(["day"]);
/// let large = OutputSpec::new("lake/large_orders", OutputMode::Append)
///     .with_sql("SELECT id, amount FROM orders WHERE amount > 1000");
/// let job = JobSpec::builder("orders")
///     .with_source("orders", SourceSpec::new(["raw/orders"], SourceFormat::Json))
///     .with_output("all", all)
///     .with_output("large", large)
///     .build()?;
/// assert_eq!(job.outputs["all"].partition_by, ["day"]);
/// assert_eq!(job.outputs["large"].max_quarantined, 0.1); // percent
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OutputSpec {
    /// Path or URL of the table.
    pub url: String,
    /// State root of the table. Default: `_biscuit` in the table.
    pub state: Option<String>,
    /// Handling of existing rows.
    pub mode: OutputMode,
    /// Query over the sources, by their names.
    pub sql: Option<String>,
    /// Names of the sources that the output reads. Default: all sources.
    pub sources: Option<Vec<String>>,
    /// Contract of the rows: types, grain, checks, partition columns, layer.
    pub contract: Option<ContractSpec>,
    /// Partition columns.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Columns to derive from other columns, by name.
    #[serde(default)]
    pub derive: BTreeMap<String, DerivedColumn>,
    /// Columns about the run.
    #[serde(default)]
    pub audit: AuditSpec,
    /// For `merge` and `snapshot`: columns that identify an entity.
    #[serde(default)]
    pub key: Vec<String>,
    /// For `merge` and `snapshot`: columns that decide which of two records is newer.
    #[serde(default)]
    pub order: Vec<String>,
    /// For `merge` and `snapshot`: operation column of transformed rows.
    pub op: Option<String>,
    /// For `merge` and `snapshot`: operation codes from low to high rank. Among records of equal order, the highest
    /// rank wins.
    #[serde(default)]
    pub op_rank: Vec<String>,
    /// For `merge` and `snapshot`: columns in which null means an unchanged value; `*` for all columns.
    #[serde(default)]
    pub ignore_null: Vec<String>,
    /// For `merge` and `snapshot`: columns that the merge uses but does not store.
    #[serde(default)]
    pub drop_columns: Vec<String>,
    /// For `merge` and `snapshot`: maximum deleted rows, in percent of the rows of the table. Applies to tables of
    /// more than 1,000 rows. Default: 30.
    pub max_deleted: Option<f64>,
    /// For `merge` and `snapshot`: how log positions of a database server are ordered if no earlier record came from
    /// that server.
    pub new_server: Option<NewServerPolicy>,
    /// For `snapshot`: length of periods.
    pub granularity: Option<String>,
    /// For `snapshot`: time zone in which periods begin. Default: UTC.
    pub zone: Option<String>,
    /// For `snapshot`: column with the effective time of a record. Default: records count from the period of the run.
    pub effective_column: Option<String>,
    /// Maximum quarantined rows, in percent of all rows. Beyond it, the run stops. Default: 0.1.
    #[serde(default = "tenth")]
    pub max_quarantined: f64,
    /// Target size of files in bytes, such as `target_size = 268435456`.
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
            return wrong(format!("reads `{unknown}`, which is not a source"));
        }
        if sources.is_empty() {
            return wrong("has no sources".to_owned());
        }
        let changes = sources.iter().any(|s| job.sources[s].format.is_changes());
        let merges = matches!(self.mode, OutputMode::Merge | OutputMode::Snapshot);
        if changes && (sources.len() > 1 || self.sql.is_some() || !merges) {
            return wrong(
                "reads change records; these require the mode `merge` or `snapshot`, a single source and no query"
                    .to_owned(),
            );
        }
        if sources.len() > 1 && self.sql.is_none() {
            return wrong("reads several sources without a query; add `sql`".to_owned());
        }
        // Setting, whether it is set, and whether it applies to the mode.
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
        if let Some((what, ..)) = only.iter().find(|(_, is_set, fits)| *is_set && !fits) {
            return wrong(format!("has `{what}`, which its mode does not support"));
        }
        if self.mode == OutputMode::Snapshot && self.granularity.is_none() {
            return wrong("has the mode `snapshot` without `granularity`".to_owned());
        }
        if changes && (!self.derive.is_empty() || self.audit != AuditSpec::default()) {
            return wrong("adds columns to change records; remove `derive` and `audit`".to_owned());
        }
        Ok(())
    }

    /// Returns the names of the sources that the output reads.
    pub fn sources(&self, job: &JobSpec) -> Vec<String> {
        self.sources.clone().unwrap_or_else(|| job.sources.keys().cloned().collect())
    }
}

impl JobSpec {
    /// Reads a job from TOML. `set` replaces single values by their paths:
    /// `("sources.orders.url", "s3://other/orders")`.
    ///
    /// # Errors
    /// `InvalidJob`, with the position in the file.
    pub fn from_toml(text: &str, set: &[(String, String)]) -> Result<Self> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| invalid(unquoted(&e.to_string())))?;
        let mut value = Value::Table(table);
        for (path, new) in set {
            put(&mut value, path, new)?;
        }
        let parts: JobParts = value.try_into().map_err(|e: toml::de::Error| invalid(unquoted(&e.to_string())))?;
        Self::try_from(parts)
    }

    /// Starts the specification of a job with this name, for a program that has no job file.
    pub fn builder(name: impl Into<String>) -> JobSpecBuilder {
        JobSpecBuilder::new(name.into())
    }

    /// Returns the columns that contracts give a class, with the class: columns of sources and of outputs. Paths of
    /// contract files are relative to `folder`.
    ///
    /// # Errors
    /// `InvalidContract`.
    pub fn classes(&self, folder: &Path) -> Result<Vec<(String, String)>> {
        let read = |path: &str| {
            std::fs::read_to_string(folder.join(path)).map_err(|e| {
                Error::new(biscuit_schema::codes::INVALID_CONTRACT, format!("cannot read the contract `{path}`: {e}"))
                    .with_source(e)
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
            return Err(invalid("the job has no sources; add [sources.NAME]"));
        }
        if self.outputs.is_empty() {
            return Err(invalid("the job has no output; add [target] or [outputs.NAME]"));
        }
        self.sources.iter().try_for_each(|(name, source)| source.check(name))?;
        self.outputs.iter().try_for_each(|(name, output)| output.check(name, self))
    }
}

/// Sets a value by its path. A text that is a TOML number, boolean or list has that type; any other text is a string.
fn put(value: &mut Value, path: &str, new: &str) -> Result<()> {
    let parsed = format!("v = {new}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let new = parsed.unwrap_or_else(|| Value::String(new.to_owned()));
    let mut at = value;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let Value::Table(table) = at else {
            return Err(invalid(format!("cannot set `{path}`: a prefix of it is a value, not a table")));
        };
        if part.is_empty() {
            return Err(invalid(format!("`{path}` is not the path of a setting; separate names by single dots")));
        }
        if parts.peek().is_none() {
            table.insert(part.to_owned(), new);
            return Ok(());
        }
        at = table.entry(part).or_insert_with(|| Value::Table(toml::Table::new()));
    }
    Ok(())
}

/// Returns the contract of a spec. `read` reads the contract file.
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
        ContractSpec::Declared(contract) => {
            contract.check()?;
            Ok(contract.as_ref().clone())
        }
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(codes::INVALID_JOB, message)
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
    fn contradicting_settings_are_errors() {
        for (path, value, message) in [
            ("target.mode", "appendix", "unknown variant `appendix`"),
            ("target.colour", "red", "unknown field `colour`"),
            ("target.granularity", "month", "has `granularity`, which its mode does not support"),
            ("target.mode", "snapshot", "without `granularity`"),
            ("sources.orders.format", "debezium", "reads change records"),
            ("sources.orders.table", "public.orders", "has `table`, which its format does not support"),
            ("target.sources", "['none']", "reads `none`, which is not a source"),
            ("sources.orders.url", "[]", "has no `url`"),
            ("sources.orders.allowed_lateness", "5x", "is not a duration"),
            ("sources.orders.rules", "usal", "unknown rules `usal`"),
        ] {
            let e = set(path, value).unwrap_err();
            assert!(e.message().contains(message), "{path}: {e}");
        }
    }
}
