//! A job, as it is read from TOML or built by a program.

use std::collections::BTreeMap;
use std::path::Path;

use biscuit_core::{Error, Result, remove_quoted_text};
use biscuit_pii::Policy;
use serde::Deserialize;
use toml::Value;

use crate::spec::contract::read_contract;
use crate::spec::error::invalid_spec;
use crate::spec::output::OutputSpec;
use crate::spec::source::SourceSpec;
use crate::spec::validation::{check_output, check_source};

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

impl JobSpec {
    /// Reads a job from TOML. `set` replaces single values by their paths:
    /// `("sources.orders.url", "s3://other/orders")`.
    ///
    /// # Errors
    /// `InvalidJob`, with the position in the file.
    pub fn from_toml(text: &str, set: &[(String, String)]) -> Result<Self> {
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| invalid_spec(remove_quoted_text(&e.to_string())))?;
        let mut value = Value::Table(table);
        for (path, new) in set {
            set_value(&mut value, path, new)?;
        }
        let parts: JobParts =
            value.try_into().map_err(|e: toml::de::Error| invalid_spec(remove_quoted_text(&e.to_string())))?;
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
            for column in read_contract(spec, read)?.columns {
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
            return Err(invalid_spec("the job has no sources; add [sources.NAME]"));
        }
        if self.outputs.is_empty() {
            return Err(invalid_spec("the job has no output; add [target] or [outputs.NAME]"));
        }
        self.sources.iter().try_for_each(|(name, source)| check_source(name, source))?;
        self.outputs.iter().try_for_each(|(name, output)| check_output(name, output, &self.sources))
    }
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
                    return Err(invalid_spec("the query is in both [target] and [transform]; remove one"));
                }
                target.sql = transform.map(|t| t.sql).or(target.sql);
                if outputs.insert(name.clone(), target).is_some() {
                    return Err(invalid_spec(format!(
                        "both [target] and [outputs.{name}] are outputs with the name of the job; rename the second"
                    )));
                }
            }
            (None, Some(_)) => return Err(invalid_spec("[transform] requires [target]; outputs have their own `sql`")),
            (None, None) => {}
        }
        let job = Self { name, sources, outputs, pii };
        job.check()?;
        Ok(job)
    }
}

/// Sets a value by its path. A text that is a TOML number, boolean or list has that type; any other text is a string.
fn set_value(value: &mut Value, path: &str, new: &str) -> Result<()> {
    let parsed = format!("v = {new}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let new = parsed.unwrap_or_else(|| Value::String(new.to_owned()));
    let mut at = value;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let Value::Table(table) = at else {
            return Err(invalid_spec(format!("cannot set `{path}`: a prefix of it is a value, not a table")));
        };
        if part.is_empty() {
            return Err(invalid_spec(format!("`{path}` is not the path of a setting; separate names by single dots")));
        }
        if parts.peek().is_none() {
            table.insert(part.to_owned(), new);
            return Ok(());
        }
        at = table.entry(part).or_insert_with(|| Value::Table(toml::Table::new()));
    }
    Ok(())
}

/// Builds a [`JobSpec`]. Options have the names of the keys of a job file, and [`build`](Self::build) makes the checks
/// that [`JobSpec::from_toml`] makes.
///
/// ```
/// use biscuit_job::{JobSpec, OutputMode, OutputSpec, SourceFormat, SourceSpec};
/// use biscuit_job::settings::{DatePart, DerivedColumn};
///
/// # fn main() -> biscuit_core::Result<()> {
/// let orders = OutputSpec::new("lake/orders", OutputMode::Append)
///     .with_partition_by(["order_date"])
///     .with_derive("order_date", DerivedColumn::new("order_datetime", DatePart::Date));
/// let built = JobSpec::builder("orders")
///     .with_source("orders", SourceSpec::new(["raw/orders"], SourceFormat::Json))
///     .with_target(orders)
///     .build()?;
///
/// let read = JobSpec::from_toml(r#"
///     name = "orders"
///     [sources.orders]
///     url = "raw/orders"
///     format = "json"
///     [target]
///     url = "lake/orders"
///     mode = "append"
///     partition_by = ["order_date"]
///     derive.order_date = { from = "order_datetime", as = "date" }
/// "#, &[])?;
/// assert_eq!(built, read);
///
/// // A job that cannot work is refused.
/// let refused = JobSpec::builder("orders").build().unwrap_err();
/// assert_eq!(refused.message(), "the job has no sources; add [sources.NAME]");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a job is built by `build`"]
pub struct JobSpecBuilder {
    parts: JobParts,
    /// Name of a part that was added twice. TOML refuses a second table of the same name.
    repeated: Option<String>,
}

impl JobSpecBuilder {
    fn new(name: String) -> Self {
        Self { parts: JobParts { name, ..JobParts::default() }, repeated: None }
    }

    /// Adds a source of rows, as `[sources.NAME]`.
    pub fn with_source(mut self, name: impl Into<String>, source: SourceSpec) -> Self {
        let name = name.into();
        if self.parts.sources.insert(name.clone(), source).is_some() {
            self.repeated.get_or_insert(format!("[sources.{name}]"));
        }
        self
    }

    /// Sets the only output, as `[target]`. It has the name of the job.
    pub fn with_target(mut self, target: OutputSpec) -> Self {
        if self.parts.target.replace(target).is_some() {
            self.repeated.get_or_insert("[target]".to_owned());
        }
        self
    }

    /// Adds an output, as `[outputs.NAME]`.
    pub fn with_output(mut self, name: impl Into<String>, output: OutputSpec) -> Self {
        let name = name.into();
        if self.parts.outputs.insert(name.clone(), output).is_some() {
            self.repeated.get_or_insert(format!("[outputs.{name}]"));
        }
        self
    }

    /// Sets the query of the only output, as `[transform]`.
    pub fn with_transform(mut self, sql: impl Into<String>) -> Self {
        self.parts.transform = Some(TransformSpec { sql: sql.into() });
        self
    }

    /// Sets the policy for personal data, as `[pii]`. Default: rows are not treated.
    pub fn with_pii(mut self, policy: Policy) -> Self {
        self.parts.pii = Some(policy);
        self
    }

    /// Puts the job together and checks it.
    ///
    /// # Errors
    /// `InvalidJob` for settings that contradict each other, and for two sources or outputs of the same name; errors
    /// of [`JobSpec::from_toml`] that are not about the syntax of a file.
    pub fn build(self) -> Result<JobSpec> {
        match self.repeated {
            Some(part) => Err(invalid_spec(format!("{part} is declared twice; rename or remove one"))),
            None => JobSpec::try_from(self.parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use biscuit_apply::NewServerPolicy;
    use biscuit_bookmark::{LatePolicy, MissingObjects, ObjectIdentity, OverwrittenPolicy};
    use biscuit_change::{CsvDialect, TextEncoding};
    use biscuit_schema::{Contract, NamingRule};

    use super::*;
    use crate::spec::{
        AuditSpec, ContractSpec, CsvHeader, CsvSpec, DatePart, DerivedColumn, EmptyLocation, HivePartitioning,
        OutputMode, RulesSpec, SourceFormat,
    };

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

    fn source(format: SourceFormat) -> SourceSpec {
        SourceSpec::new(["raw"], format)
    }

    /// Returns the job of a builder and of a job file with one source, as results.
    fn both_of_source(source: SourceSpec, more: &str) -> (Result<JobSpec>, Result<JobSpec>) {
        let mode = if source.format.is_changes() { OutputMode::Merge } else { OutputMode::Append };
        let format = serde_json::json!(source.format);
        let built = JobSpec::builder("j").with_source("s", source).with_target(OutputSpec::new("lake", mode)).build();
        let mode = serde_json::json!(mode);
        let text = format!(
            "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = {format}\n{more}\n[target]\nurl = 'lake'\nmode = {mode}\n"
        );
        (built, JobSpec::from_toml(&text, &[]))
    }

    /// Returns the job of a builder and of a job file with one output, as results.
    fn both_of_target(target: OutputSpec, more: &str) -> (Result<JobSpec>, Result<JobSpec>) {
        let mode = serde_json::json!(target.mode);
        let built = JobSpec::builder("j").with_source("s", source(SourceFormat::Json)).with_target(target).build();
        let text = format!(
            "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = 'json'\n[target]\nurl = 'lake'\nmode = {mode}\n{more}\n"
        );
        (built, JobSpec::from_toml(&text, &[]))
    }

    fn assert_same((built, read): (Result<JobSpec>, Result<JobSpec>), option: &str) {
        let (built, read) = (built.expect(option), read.expect(option));
        assert_eq!(built, read, "{option}");
    }

    #[test]
    fn each_option_of_a_source_is_the_key_of_a_job_file() {
        use SourceFormat::{Csv, Debezium, Dms, Json, Parquet, Rows};
        let mut dialect = CsvDialect::default();
        (dialect.delimiter, dialect.quote) = (Some(b'\t'), Some(b'\''));
        (dialect.escape, dialect.comment) = (Some(b'\\'), Some(b'#'));
        let latin = TextEncoding::from_label("latin1").expect("the encoding is known");
        for (source, key) in [
            (source(Json), ""),
            (source(Parquet), ""),
            (source(Json), "bookmark = true"),
            (source(Json).with_bookmark("b"), "bookmark = 'b'"),
            (source(Json).without_bookmark(), "bookmark = false"),
            (source(Json).with_contract(ContractSpec::File("c.toml".to_owned())), "contract = 'c.toml'"),
            (source(Json).with_rules(RulesSpec::Usual), "rules = 'default'"),
            (source(Json).with_rules(RulesSpec::None), "rules = 'none'"),
            (
                source(Json).with_rules(RulesSpec::Listed(vec![NamingRule::new("*_at", "timestamp")])),
                "rules = [{ match = '*_at', type = 'timestamp' }]",
            ),
            (
                source(Csv).with_csv(CsvSpec::default().with_dialect(dialect)),
                "csv = { delimiter = 'tab', quote = 'apostrophe', escape = 'backslash', comment = 'hash' }",
            ),
            (source(Csv).with_csv(CsvSpec::default().with_header(CsvHeader::Absent)), "csv.header = false"),
            (source(Csv).with_csv(CsvSpec::default().with_header(CsvHeader::Present)), "csv.header = true"),
            (source(Csv).with_csv(CsvSpec::default().with_null("NULL")), "csv.null = 'NULL'"),
            (source(Csv).with_encoding(latin), "encoding = 'latin1'"),
            (source(Json).with_source_file("file"), "source_file = 'file'"),
            (source(Json).with_hive_partitioning(HivePartitioning::Ignored), "hive_partitioning = false"),
            (source(Json).with_hive_partitioning(HivePartitioning::Columns), "hive_partitioning = true"),
            (source(Json).with_identity(ObjectIdentity::Modified), "identity = 'modified'"),
            (source(Json).with_allowed_lateness("2h"), "allowed_lateness = '2h'"),
            (source(Json).with_late(LatePolicy::Read), "late = 'read'"),
            (source(Json).with_overwritten(OverwrittenPolicy::Ignore), "overwritten = 'ignore'"),
            (source(Json).with_limit_files(7), "limit_files = 7"),
            (source(Json).with_limit_bytes(7), "limit_bytes = 7"),
            (source(Json).with_allow_missing(MissingObjects::Allow), "allow_missing = true"),
            (source(Json).with_allow_missing(MissingObjects::Refuse), "allow_missing = false"),
            (source(Json).with_allow_empty(EmptyLocation::Allow), "allow_empty = true"),
            (source(Json).with_allow_empty(EmptyLocation::Refuse), "allow_empty = false"),
            (source(Debezium).with_table("public.t"), "table = 'public.t'"),
            (source(Rows).with_op("op"), "op = 'op'"),
            (source(Rows).with_op_map("X", "delete"), "op_map = { X = 'delete' }"),
            (source(Dms).with_timestamp_column("ts"), "timestamp_column = 'ts'"),
            (source(Dms).with_csv_null("NULL"), "csv_null = 'NULL'"),
            (source(Dms).with_before_image("BI_"), "before_image = 'BI_'"),
            (source(Rows).with_placeholder("same"), "placeholder = 'same'"),
            (source(Dms).with_max_decompressed(7), "max_decompressed = 7"),
            (source(Dms).with_max_record(7), "max_record = 7"),
        ] {
            assert_same(both_of_source(source, key), key);
        }
        let two =
            "name = 'j'\n[sources.s]\nurl = ['a', 'b']\nformat = 'json'\n[target]\nurl = 'lake'\nmode = 'append'\n";
        let built = JobSpec::builder("j")
            .with_source("s", SourceSpec::new(["a", "b"], Json))
            .with_target(OutputSpec::new("lake", OutputMode::Append));
        assert_same((built.build(), JobSpec::from_toml(two, &[])), "url");
    }

    #[test]
    fn each_option_of_an_output_is_the_key_of_a_job_file() {
        use OutputMode::{Append, Merge, Replace, ReplacePartitions, Snapshot};
        let out = |mode| OutputSpec::new("lake", mode);
        let months = || out(Snapshot).with_granularity("month");
        for (target, key) in [
            (out(Append), ""),
            (out(Replace), ""),
            (out(ReplacePartitions), ""),
            (out(Append).with_state("state"), "state = 'state'"),
            (out(Append).with_sql("select 1"), "sql = 'select 1'"),
            (out(Append).with_sources(["s"]), "sources = ['s']"),
            (out(Append).with_contract(ContractSpec::File("c.toml".to_owned())), "contract = 'c.toml'"),
            (out(Append).with_partition_by(["a", "b"]), "partition_by = ['a', 'b']"),
            (
                out(Append).with_derive("day", DerivedColumn::new("at", DatePart::Date)),
                "derive.day = { from = 'at', as = 'date' }",
            ),
            (
                out(Append).with_audit(AuditSpec::default().with_processing_datetime("at").with_run_id("run")),
                "audit = { processing_datetime = 'at', run_id = 'run' }",
            ),
            (out(Merge).with_key(["id"]), "key = ['id']"),
            (out(Merge).with_order(["seq"]), "order = ['seq']"),
            (out(Merge).with_op("op"), "op = 'op'"),
            (out(Merge).with_op_rank(["c", "d"]), "op_rank = ['c', 'd']"),
            (out(Merge).with_ignore_null(["*"]), "ignore_null = ['*']"),
            (out(Merge).with_drop_columns(["x"]), "drop_columns = ['x']"),
            (out(Merge).with_max_deleted(5.0), "max_deleted = 5.0"),
            (out(Merge).with_new_server(NewServerPolicy::Newer), "new_server = 'newer'"),
            (months(), "granularity = 'month'"),
            (months().with_zone("Europe/Zurich"), "granularity = 'month'\nzone = 'Europe/Zurich'"),
            (months().with_effective_column("at"), "granularity = 'month'\neffective_column = 'at'"),
            (out(Append).with_max_quarantined(5.0), "max_quarantined = 5.0"),
            (out(Append).with_target_size(7), "target_size = 7"),
        ] {
            assert_same(both_of_target(target, key), key);
        }
    }

    #[test]
    fn each_part_of_a_job_is_a_table_of_a_job_file() {
        let policy = "store = 'tokens.redb'\ncolumns = { ssn = 'tokenize' }\n";
        let two = || {
            JobSpec::builder("j")
                .with_source("a", source(SourceFormat::Json))
                .with_source("b", source(SourceFormat::Csv))
        };
        let sources =
            "name = 'j'\n[sources.a]\nurl = 'raw'\nformat = 'json'\n[sources.b]\nurl = 'raw'\nformat = 'csv'\n";
        let out = || OutputSpec::new("lake", OutputMode::Append);
        let target = "[target]\nurl = 'lake'\nmode = 'append'\n";
        for (built, more) in [
            (two().with_target(out()).with_transform("select 1"), format!("{target}[transform]\nsql = 'select 1'\n")),
            (
                two().with_target(out().with_sources(["a"])).with_output("other", out().with_sql("select 1")),
                format!("{target}sources = ['a']\n[outputs.other]\nurl = 'lake'\nmode = 'append'\nsql = 'select 1'\n"),
            ),
            (
                two()
                    .with_target(out().with_sql("select 1"))
                    .with_pii(Policy::parse(policy).expect("the policy is valid")),
                format!("{target}sql = 'select 1'\n[pii]\n{policy}"),
            ),
        ] {
            assert_same((built.build(), JobSpec::from_toml(&format!("{sources}{more}"), &[])), &more);
        }
    }

    #[test]
    fn declared_contract_is_that_of_a_job_file() {
        let text = "columns = [{ name = 'id', type = 'bigint' }]\n";
        let declared = Contract::from_toml(text).expect("the contract is valid");
        let (built, read) = both_of_source(
            source(SourceFormat::Json).with_contract(declared.clone()),
            &format!("[sources.s.contract]\n{text}"),
        );
        let no_file = |path: &str| -> Result<String> { panic!("{path} is read") };
        for job in [built, read] {
            let job = job.expect("the job is valid");
            let spec = job.sources["s"].contract.as_ref().expect("the source has a contract");
            assert_eq!(read_contract(spec, no_file).expect("the contract is valid"), declared);
        }
        // The consistency of a declared contract is checked as that of a file.
        let mut broken = declared;
        broken.key = vec!["other".to_owned()];
        let e = read_contract(&broken.into(), no_file).expect_err("the key is not a column");
        let file = Contract::from_toml(&format!("key = ['other']\n{text}")).expect_err("the key is not a column");
        assert_eq!((e.code(), e.message()), ("InvalidContract", file.message()));
    }

    #[test]
    fn contradicting_settings_are_refused_with_the_error_of_a_job_file() {
        use SourceFormat::{Csv, Debezium, Json, Rows};
        let mut dialect = CsvDialect::default();
        dialect.quote = Some(b',');
        let sources = [
            (source(Json).with_table("public.t"), "table = 'public.t'", "has `table`"),
            (source(Json).with_allowed_lateness("5x"), "allowed_lateness = '5x'", "is not a duration"),
            (source(Rows).with_op_map("X", "drop"), "op_map = { X = 'drop' }", "drop"),
            (source(Debezium).with_rules(RulesSpec::None), "rules = 'none'", "has `rules`"),
            (
                source(Json).with_contract(ContractSpec::File("c".to_owned())).with_rules(RulesSpec::None),
                "contract = 'c'\nrules = 'none'",
                "has both `contract` and `rules`",
            ),
            (
                source(Csv).with_csv(CsvSpec::default().with_dialect(dialect)),
                "csv.quote = ','",
                "has two meanings in the CSV dialect",
            ),
        ];
        let out = OutputSpec::new;
        let targets = [
            (out("lake", OutputMode::Append).with_key(["id"]), "key = ['id']", "has `key`"),
            (out("lake", OutputMode::Snapshot), "", "without `granularity`"),
            (out("lake", OutputMode::Append).with_sources(["x"]), "sources = ['x']", "reads `x`"),
            (out("lake", OutputMode::Append).with_sources(Vec::<String>::new()), "sources = []", "has no sources"),
        ];
        let sources = sources.into_iter().map(|(source, key, message)| (both_of_source(source, key), message));
        let targets = targets.into_iter().map(|(target, key, message)| (both_of_target(target, key), message));
        for ((built, read), message) in sources.chain(targets) {
            let (built, read) = (built.expect_err(message), read.expect_err(message));
            assert!(built.message().contains(message), "{built}");
            assert_eq!((built.code(), built.message()), (read.code(), read.message()));
        }
    }

    #[test]
    fn parts_that_exclude_each_other_are_refused_with_the_error_of_a_job_file() {
        let job = || JobSpec::builder("j").with_source("s", source(SourceFormat::Json));
        let head = "name = 'j'\n[sources.s]\nurl = 'raw'\nformat = 'json'\n";
        let out = || OutputSpec::new("lake", OutputMode::Append);
        let target = "url = 'lake'\nmode = 'append'\n";
        for (built, text) in [
            (JobSpec::builder("j"), "name = 'j'\nsources = {}\n".to_owned()),
            (job(), head.to_owned()),
            (job().with_transform("select 1"), format!("{head}[transform]\nsql = 'select 1'\n")),
            (
                job().with_target(out().with_sql("select 1")).with_transform("select 1"),
                format!("{head}[target]\n{target}sql = 'select 1'\n[transform]\nsql = 'select 1'\n"),
            ),
            (
                job().with_target(out()).with_output("j", out()),
                format!("{head}[target]\n{target}[outputs.j]\n{target}"),
            ),
        ] {
            let (built, read) = (built.build().unwrap_err(), JobSpec::from_toml(&text, &[]).unwrap_err());
            assert_eq!((built.code(), built.message()), ("InvalidJob", read.message()));
        }
        for (twice, message) in [
            (job().with_source("s", source(SourceFormat::Csv)).with_target(out()), "[sources.s] is declared twice"),
            (job().with_target(out()).with_target(out()), "[target] is declared twice"),
            (job().with_output("o", out()).with_output("o", out()), "[outputs.o] is declared twice"),
        ] {
            let e = twice.build().unwrap_err();
            assert!(e.code() == "InvalidJob" && e.message().contains(message), "{e}");
        }
    }
}
