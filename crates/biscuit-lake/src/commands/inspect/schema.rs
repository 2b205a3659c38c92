//! `biscuit schema`: infers, prints, checks and compares contracts.

use biscuit_core::{Clock, Error, Instant, ObjectRef, Result, SystemClock};
use biscuit_dataset::{DataFile, OpenFile, OpenLocation, TableVersion};
use biscuit_job::SourceFormat;
use biscuit_job::internal::learn;
use biscuit_job::settings::RulesSpec;
use biscuit_journal::store_error;
use biscuit_schema::{Compatibility, Contract, ContractCompliance, PartitionProjection, TablePlace, differences};
use clap::{Args, Subcommand, ValueEnum};
use futures::StreamExt;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use crate::args::bookmark::open_place;
use crate::args::csv::CsvArgs;
use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::render::output::{BAD_DATA, CommandOutput};

/// Commands of `biscuit schema`.
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Infer a contract from files
    Infer(InferArgs),
    /// Print the contract of a table, a contract file, a Glue table, a CloudFormation template or an Avro schema
    Show(ShowSchemaArgs),
    /// Check whether the columns and rows of a table comply with a contract
    Check(CheckArgs),
    /// Compare two contracts, and report which readers the differences break
    Diff(DiffArgs),
}

/// Values of `--format`: formats of raw files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaFormatName {
    Json,
    Csv,
    Parquet,
}

impl SchemaFormatName {
    pub(crate) fn of_source(self) -> SourceFormat {
        match self {
            Self::Json => SourceFormat::Json,
            Self::Csv => SourceFormat::Csv,
            Self::Parquet => SourceFormat::Parquet,
        }
    }
}

/// Values of `--as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum AsName {
    /// Contract file in TOML
    #[default]
    Toml,
    /// Contract file in JSON
    Json,
    /// Statement CREATE EXTERNAL TABLE
    Ddl,
    /// TableInput of Glue
    Glue,
    /// CloudFormation template with the table as a resource
    Cloudformation,
}

/// Options of the form in which a contract is printed.
#[derive(Debug, Args)]
pub(crate) struct PrintArgs {
    /// Print the contract in this form
    #[arg(long = "as", value_enum, default_value = "toml", value_name = "FORM")]
    form: AsName,

    /// Use this table name in the catalog [default: name of the folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Use this database in the catalog
    #[arg(long, value_name = "NAME")]
    database: Option<String>,

    /// Use this URL of the table's folder in the catalog [default: the given URL]
    #[arg(long, value_name = "URL")]
    location: Option<String>,

    /// Define partition projection of Athena for a column: day=since:2024-01-01, n=1..99, region=eu,us, id=injected
    #[arg(long, value_name = "COLUMN=VALUES")]
    project: Vec<String>,
}

/// Options of `biscuit schema infer`.
#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// Path or URL of files, a folder or a glob
    url: String,

    /// Read the files in this format [default: by their names]
    #[arg(long, value_enum)]
    format: Option<SchemaFormatName>,

    #[command(flatten)]
    csv: CsvArgs,

    /// Do not derive types from the names of columns
    #[arg(long)]
    no_rules: bool,

    #[command(flatten)]
    print: PrintArgs,
}

/// Options of `biscuit schema show`.
#[derive(Debug, Args)]
pub(crate) struct ShowSchemaArgs {
    /// Path or URL of a table or a file: a contract (TOML, JSON), a Glue table, a CloudFormation template, an Avro
    /// schema
    url: String,

    /// Select the table of a template by its name or logical id
    #[arg(long, value_name = "NAME")]
    table: Option<String>,

    #[command(flatten)]
    print: PrintArgs,
}

/// Options of `biscuit schema check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    table: TableArgs,

    /// Check against this contract, in any form that `schema show` reads
    #[arg(long, value_name = "FILE")]
    contract: String,
}

/// Options of `biscuit schema diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Old contract: a table or a file, in any form that `schema show` reads
    old: String,

    /// New contract
    new: String,

    /// Fail if the differences break this compatibility
    #[arg(long, value_enum, value_name = "READERS")]
    require: Option<CompatibilityName>,
}

/// Values of `--require`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompatibilityName {
    /// Readers with the new contract can read old rows
    Backward,
    /// Readers with the old contract can read new rows
    Forward,
    /// Both backward and forward
    Full,
}

pub(crate) async fn run(command: &SchemaCommand, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        SchemaCommand::Infer(args) => infer_contract(args, context).await,
        SchemaCommand::Show(args) => {
            let contract = read(&args.url, args.table.as_deref(), context).await?;
            print_contract(&contract, &args.url, &args.print, json!({}))
        }
        SchemaCommand::Check(args) => check_contract(args, context).await,
        SchemaCommand::Diff(args) => compare_contracts(args, context).await,
    }
}

async fn infer_contract(args: &InferArgs, context: &CommandContext) -> Result<CommandOutput> {
    let place = open_place(&args.url, context).await?;
    let format = args.format.map(SchemaFormatName::of_source);
    let rules = args.no_rules.then_some(RulesSpec::None);
    let text = args.csv.spec()?;
    let (contract, conflicts) =
        learn(&place, format, &text, rules.as_ref(), context.file_keys().await?.as_ref()).await?;
    conflicts.iter().for_each(|c| tracing::warn!("{c}"));
    print_contract(&contract, &args.url, &args.print, json!({ "conflicts": conflicts }))
}

/// Returns the contract as text in the form of the options. The JSON object always has the contract itself as well.
fn print_contract(contract: &Contract, url: &str, args: &PrintArgs, mut json: Value) -> Result<CommandOutput> {
    let plain = url.trim_end_matches('/');
    let last = plain.rsplit('/').next().unwrap_or(plain);
    let stem = last.split('.').next().unwrap_or(last);
    let mut place = TablePlace::new(args.name.as_deref().unwrap_or(stem), args.location.as_deref().unwrap_or(plain));
    place.database.clone_from(&args.database);
    place.projection = args.project.iter().map(|p| parse_projection(p)).collect::<Result<_>>()?;
    let pretty = |v: &Value| serde_json::to_string_pretty(v).unwrap_or_else(|_| v.to_string()) + "\n";
    let text = match args.form {
        AsName::Toml => contract.to_toml()?,
        AsName::Json => contract.to_json()? + "\n",
        AsName::Ddl => contract.to_ddl(&place)?,
        AsName::Glue => pretty(&contract.to_glue_json(&place)?),
        AsName::Cloudformation => {
            // Logical ids of CloudFormation are alphanumeric: `raw_orders` becomes `RawOrders`.
            let letters = place.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
            let logical: String = letters.map(|w| w[..1].to_uppercase() + &w[1..]).collect();
            pretty(&contract.to_cloudformation(&logical, &place)?)
        }
    };
    json["contract"] = serde_json::from_str(&contract.to_json()?).unwrap_or_default();
    json["text"] = json!(text);
    Ok(CommandOutput::Report { json, text, exit: 0 })
}

/// Parses `COLUMN=VALUES` of `--project`.
fn parse_projection(text: &str) -> Result<PartitionProjection> {
    let wrong = || {
        let message = format!(
            "invalid projection `{text}`; write one such as day=since:2024-01-01, n=1..99, region=eu,us or id=injected"
        );
        Error::new(biscuit_schema::codes::INVALID_PROJECTION, message)
    };
    let (column, values) = text.split_once('=').ok_or_else(wrong)?;
    if values == "injected" {
        return Ok(PartitionProjection::injected(column));
    }
    if let Some(first) = values.strip_prefix("since:") {
        first.parse::<Instant>().map_err(|_| wrong())?;
        return Ok(PartitionProjection::days_since(column, first));
    }
    if let Some((from, to)) = values.split_once("..") {
        let number = |n: &str| n.parse().map_err(|_| wrong());
        return Ok(PartitionProjection::integers(column, number(from)?, number(to)?));
    }
    Ok(PartitionProjection::one_of(column, &values.split(',').collect::<Vec<_>>()))
}

/// Reads the contract of a table, or from a file in any supported form.
pub(crate) async fn read(url: &str, table: Option<&str>, context: &CommandContext) -> Result<Contract> {
    let location = context.stores.open(url).await?;
    let (store, object) = (location.storage().store.clone(), location.path().clone());
    let failed = |e| store_error("read", &object, e).in_file(url);
    let size = match store.head(&object).await {
        Ok(meta) => meta.size,
        // There is no object of this name: it is the folder of a table.
        Err(object_store::Error::NotFound { .. }) => {
            return of_table(&TableArgs { url: url.to_owned(), state: None }, context).await;
        }
        Err(e) => return Err(failed(e)),
    };
    // A Parquet file begins with `PAR1`, or with `PARE` if its footer is encrypted. Everything else is text.
    let magic = store.get_range(&object, 0..size.min(4)).await.map_err(failed)?;
    if matches!(magic.as_ref(), b"PAR1" | b"PARE") {
        let file = DataFile::outside_tables(ObjectRef::new(url, size, None), object);
        let keys = context.file_keys().await?;
        return Contract::from_arrow(OpenFile::open_with(store, file, keys.as_ref()).await?.schema());
    }
    let bytes = async { store.get(&object).await?.bytes().await }.await.map_err(failed)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        Error::new(biscuit_schema::codes::INVALID_CONTRACT, "the file is not UTF-8 text").in_file(url).with_source(e)
    })?;
    of_text(text, table).map_err(|e| e.in_file(url))
}

/// Parses a contract; its form is recognised by the content.
fn of_text(text: &str, table: Option<&str>) -> Result<Contract> {
    if let Some(table) = table {
        return Contract::from_cloudformation(text, table);
    }
    let Ok(json) = serde_json::from_str::<Value>(text) else {
        return match text.contains("AWS::Glue::Table") {
            true => Err(Error::new(
                biscuit_core::codes::INVALID_ARGUMENTS,
                "a template may have several tables; name one with --table",
            )),
            false => Contract::from_toml(text),
        };
    };
    let glue = |v: &Value| v.get("StorageDescriptor").is_some();
    if json["type"] == "record" {
        Contract::from_avro(text)
    } else if glue(&json) || json.get("Table").is_some_and(glue) || json.get("TableInput").is_some_and(glue) {
        Contract::from_glue_json(text)
    } else if json.get("Resources").is_some() {
        Err(Error::new(
            biscuit_core::codes::INVALID_ARGUMENTS,
            "a template may have several tables; name one with --table",
        ))
    } else {
        Contract::from_json(text)
    }
}

/// Returns the contract that describes an existing table: columns, partition columns, key and order.
async fn of_table(args: &TableArgs, context: &CommandContext) -> Result<Contract> {
    let dataset = context.open_table(args).await?;
    let columns = |snapshot: TableVersion| async move {
        let schema = snapshot.schema(&snapshot.open_files().await?)?;
        Ok((schema, snapshot))
    };
    let (schema, snapshot) = dataset.read(columns).await?;
    if schema.fields().is_empty() {
        return Err(Error::new(biscuit_dataset::codes::NO_TABLE, format!("there is no table at `{}`", args.url)));
    }
    let mut contract = Contract::from_arrow(&schema)?;
    contract.partition_by = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
    if let Some((key, order)) = biscuit_apply::merged_by(&dataset).await? {
        contract.key = key.into_iter().filter(|k| contract.column(k).is_some()).collect();
        contract.order = order;
    }
    Ok(contract)
}

async fn check_contract(args: &CheckArgs, context: &CommandContext) -> Result<CommandOutput> {
    let contract = read(&args.contract, None, context).await?;
    let there = of_table(&args.table, context).await?;
    let found = differences(&contract, &there);
    // The schema of Parquet files may be looser than the rows, such as nullable columns without nulls, and the order
    // of columns does not matter. Such differences are not findings; the rows are checked below.
    let matters = |d: &&biscuit_schema::ContractDifference| {
        use biscuit_schema::ContractDifference as D;
        let extra = matches!(d, D::Added { .. }) && contract.extra != biscuit_schema::ExtraColumns::Refuse;
        !extra && !matches!(d, D::Loosened { .. } | D::Reordered | D::Widened { .. } | D::Other { .. })
    };
    let of_types: Vec<String> = found.iter().filter(matters).map(ToString::to_string).collect();
    let mut findings = Vec::new();
    // Rows are not checked if a column is missing: every check of that column would fail.
    if !found.iter().any(|d| matches!(d, biscuit_schema::ContractDifference::Removed { .. })) {
        findings = rows_comply(&contract, &args.table, context).await?;
    }
    let (outcome, exit) =
        if of_types.is_empty() && findings.is_empty() { ("complies", 0) } else { ("breaks", BAD_DATA) };
    let mut text = format!("{outcome}\n");
    of_types.iter().for_each(|d| text.push_str(&format!("  columns  {d}\n")));
    findings.iter().for_each(|f| text.push_str(&format!("  rows     {f}\n")));
    Ok(CommandOutput::Report { json: json!({"outcome": outcome, "columns": of_types, "rows": findings}), text, exit })
}

/// Returns the rules of a contract that the rows of a table break, as text.
async fn rows_comply(contract: &Contract, table: &TableArgs, context: &CommandContext) -> Result<Vec<String>> {
    let mut contract = contract.clone();
    let required = contract.columns.iter().filter(|c| !c.nullable).map(|c| c.name.clone());
    let rules = required
        .map(|column| biscuit_schema::ContractCheck::new(biscuit_schema::checks::CheckRule::NotNull { column }));
    contract.checks.extend(rules.collect::<Vec<_>>());
    // As warnings all violations are counted, and none stops the check.
    contract.checks.iter_mut().for_each(|c| c.severity = biscuit_schema::checks::CheckSeverity::Warn);
    let unique = [std::mem::take(&mut contract.grain), std::mem::take(&mut contract.key)];
    let unique = unique.into_iter().filter(|columns| !columns.is_empty());
    let unique =
        unique.map(|columns| biscuit_schema::ContractCheck::new(biscuit_schema::checks::CheckRule::Unique { columns }));
    contract.checks.extend(unique.map(|c| c.with_severity(biscuit_schema::checks::CheckSeverity::Warn)));
    contract.checks.dedup();
    let dataset = context.open_table(table).await?;
    dataset.read(|snapshot| check_rows(&contract, snapshot)).await
}

/// Checks the rows of a version, and returns the findings as text.
async fn check_rows(contract: &Contract, snapshot: TableVersion) -> Result<Vec<String>> {
    let mut compliance = ContractCompliance::new(contract, SystemClock.now())?;
    for file in snapshot.open_files().await? {
        let (mut rows, mut seen) = (file.stream(None)?, 0);
        while let Some(batch) = rows.next().await {
            let batch = biscuit_schema::internal::align(
                &batch?,
                &file.file.partition,
                &std::sync::Arc::new(contract.to_arrow()),
                file.path(),
            )?;
            // Rows are numbered from 1 in each file, across its batches.
            let first = seen + 1;
            seen += batch.num_rows() as u64;
            compliance.check(&batch, &|row| (file.path().to_owned(), first + row as u64))?;
        }
    }
    let text_of = |f: biscuit_schema::checks::CheckFinding| {
        let place = f.first.map(|(file, row)| format!(", first {file}, row {row}")).unwrap_or_default();
        format!("{} {} rows: {}{place}", f.code, f.rows, f.rule)
    };
    Ok(compliance.finish()?.into_iter().map(text_of).collect())
}

async fn compare_contracts(args: &DiffArgs, context: &CommandContext) -> Result<CommandOutput> {
    let (old, new) = (read(&args.old, None, context).await?, read(&args.new, None, context).await?);
    let found = differences(&old, &new);
    let fits = |c: Compatibility| c.broken_by(&found).is_empty();
    let (backward, forward) = (fits(Compatibility::Backward), fits(Compatibility::Forward));
    let mut text = String::new();
    for d in &found {
        let breaks = match (d.is_backward(), d.is_forward()) {
            (true, true) => "",
            (true, false) => "  breaks readers with the old contract",
            (false, true) => "  breaks readers with the new contract",
            (false, false) => "  breaks all readers",
        };
        text.push_str(&format!("{d}{breaks}\n"));
    }
    if found.is_empty() {
        text.push_str("the contracts are equal\n");
    }
    let broken = args.require.is_some_and(|require| match require {
        CompatibilityName::Backward => !backward,
        CompatibilityName::Forward => !forward,
        CompatibilityName::Full => !backward || !forward,
    });
    let json = json!({"differences": found, "backward": backward, "forward": forward});
    Ok(CommandOutput::Report { json, text, exit: if broken { BAD_DATA } else { 0 } })
}
