use biscuit_core::{Clock, Error, Instant, Result, SystemClock};
use biscuit_dataset::{DataFile, OpenFile, OpenLocation, TableVersion};
use biscuit_job::{RulesSpec, SourceFormat, learn};
use biscuit_journal::store_error;
use biscuit_schema::{Compatibility, Contract, ContractCompliance, PartitionProjection, TablePlace, differences};
use clap::{Args, Subcommand, ValueEnum};
use futures::StreamExt;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use crate::args::bookmark::open_place;
use crate::args::command::TableArgs;
use crate::args::csv::CsvArgs;
use crate::environment::context::CommandContext;
use crate::render::output::{BAD_DATA, CommandOutput};

#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Learn the contract of files by samples of them
    Infer(InferArgs),
    /// Print the contract of a table, of a contract file, a Glue table, a template or an Avro schema
    Show(ShowArgs),
    /// Look whether the rows of a table comply with a contract
    Check(CheckArgs),
    /// Compare two contracts, and say whom the difference breaks
    Diff(DiffArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    Json,
    Csv,
    Parquet,
}

impl FormatName {
    pub(crate) fn of_source(self) -> SourceFormat {
        match self {
            Self::Json => SourceFormat::Json,
            Self::Csv => SourceFormat::Csv,
            Self::Parquet => SourceFormat::Parquet,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum AsName {
    /// A contract file
    #[default]
    Toml,
    /// The same in JSON
    Json,
    /// CREATE EXTERNAL TABLE
    Ddl,
    /// Glue's TableInput
    Glue,
    /// A template with the table as a resource
    Cloudformation,
}

/// How a contract is printed.
#[derive(Debug, Args)]
pub(crate) struct PrintArgs {
    /// In which form
    #[arg(long = "as", value_enum, default_value = "toml", value_name = "FORM")]
    form: AsName,

    /// The table's name in a catalog [default: the name of its folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The database in a catalog
    #[arg(long, value_name = "NAME")]
    database: Option<String>,

    /// The URL of the table's folder, in a catalog
    #[arg(long, value_name = "URL")]
    location: Option<String>,

    /// Partition columns that Athena projects: day=since:2024-01-01, n=1..99, region=eu,us, id=injected
    #[arg(long, value_name = "COLUMN=VALUES")]
    project: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// Files, a folder or a glob
    url: String,

    /// What they hold; by their names, if not given
    #[arg(long, value_enum)]
    format: Option<FormatName>,

    #[command(flatten)]
    csv: CsvArgs,

    /// Do not type columns by their names
    #[arg(long)]
    no_rules: bool,

    #[command(flatten)]
    print: PrintArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A table, or a file: a contract (TOML, JSON), a Glue table, a CloudFormation template, an Avro schema
    url: String,

    /// The table in a template, by its name or logical id
    #[arg(long, value_name = "NAME")]
    table: Option<String>,

    #[command(flatten)]
    print: PrintArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    table: TableArgs,

    /// The contract, in any form that `show` reads
    #[arg(long, value_name = "FILE")]
    contract: String,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The old one: a table or a file, as `show` reads it
    old: String,

    /// The new one
    new: String,

    /// Fail if the difference breaks these readers
    #[arg(long, value_enum, value_name = "READERS")]
    require: Option<CompatibilityName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompatibilityName {
    /// Who reads by the new one reads old rows
    Backward,
    /// Who reads by the old one reads new rows
    Forward,
    /// Both
    Full,
}

pub(crate) async fn run(command: &SchemaCommand, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        SchemaCommand::Infer(args) => infer(args, context).await,
        SchemaCommand::Show(args) => {
            let contract = read(&args.url, args.table.as_deref(), context).await?;
            print(&contract, &args.url, &args.print, json!({}))
        }
        SchemaCommand::Check(args) => check(args, context).await,
        SchemaCommand::Diff(args) => diff(args, context).await,
    }
}

async fn infer(args: &InferArgs, context: &CommandContext) -> Result<CommandOutput> {
    let place = open_place(&args.url, context).await?;
    let format = args.format.map(FormatName::of_source);
    let rules = args.no_rules.then_some(RulesSpec::None);
    let text = args.csv.spec()?;
    let (contract, conflicts) =
        learn(&place, format, &text, rules.as_ref(), context.file_keys().await?.as_ref()).await?;
    conflicts.iter().for_each(|c| tracing::warn!("{c}"));
    print(&contract, &args.url, &args.print, json!({ "conflicts": conflicts }))
}

/// The contract in the wanted form; with `--json` it is a field of the object.
fn print(contract: &Contract, url: &str, args: &PrintArgs, mut json: Value) -> Result<CommandOutput> {
    let plain = url.trim_end_matches('/');
    let last = plain.rsplit('/').next().unwrap_or(plain);
    let stem = last.split('.').next().unwrap_or(last);
    let mut place = TablePlace::new(args.name.as_deref().unwrap_or(stem), args.location.as_deref().unwrap_or(plain));
    place.database.clone_from(&args.database);
    place.projection = args.project.iter().map(|p| projection(p)).collect::<Result<_>>()?;
    let pretty = |v: &Value| serde_json::to_string_pretty(v).unwrap_or_else(|_| v.to_string()) + "\n";
    let text = match args.form {
        AsName::Toml => contract.to_toml()?,
        AsName::Json => contract.to_json()? + "\n",
        AsName::Ddl => contract.to_ddl(&place)?,
        AsName::Glue => pretty(&contract.to_glue_json(&place)?),
        AsName::Cloudformation => {
            let letters = place.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
            let logical: String = letters.map(|w| w[..1].to_uppercase() + &w[1..]).collect();
            pretty(&contract.to_cloudformation(&logical, &place)?)
        }
    };
    json["contract"] = serde_json::from_str(&contract.to_json()?).unwrap_or_default();
    json["text"] = json!(text);
    Ok(CommandOutput::Report { json, text, exit: 0 })
}

fn projection(text: &str) -> Result<PartitionProjection> {
    let wrong = || {
        let message = format!("`{text}` is no projection: day=since:2024-01-01, n=1..99, region=eu,us, id=injected");
        Error::usage("InvalidProjection", message)
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

/// The contract of a table, or one in a file of any form.
pub(crate) async fn read(url: &str, table: Option<&str>, context: &CommandContext) -> Result<Contract> {
    let location = context.stores.open(url).await?;
    let (store, object) = (location.storage().store.clone(), location.path().clone());
    let failed = |e| store_error("read", &object, e).in_file(url);
    let size = match store.head(&object).await {
        Ok(meta) => meta.size,
        // A folder, which is a table.
        Err(object_store::Error::NotFound { .. }) => {
            return of_table(&TableArgs { url: url.to_owned(), state: None }, context).await;
        }
        Err(e) => return Err(failed(e)),
    };
    let magic = store.get_range(&object, 0..size.min(4)).await.map_err(failed)?;
    if matches!(magic.as_ref(), b"PAR1" | b"PARE") {
        let file = DataFile { path: url.to_owned(), object, size, partition: vec![] };
        let keys = context.file_keys().await?;
        return Contract::from_arrow(OpenFile::open_with(store, file, keys.as_ref()).await?.schema());
    }
    let bytes = async { store.get(&object).await?.bytes().await }.await.map_err(failed)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| Error::usage("InvalidContract", "the file is no text").in_file(url).with_source(e))?;
    of_text(text, table).map_err(|e| e.in_file(url))
}

fn of_text(text: &str, table: Option<&str>) -> Result<Contract> {
    if let Some(table) = table {
        return Contract::from_cloudformation(text, table);
    }
    let Ok(json) = serde_json::from_str::<Value>(text) else {
        return match text.contains("AWS::Glue::Table") {
            true => Err(Error::usage("InvalidArguments", "a template has several tables: name one with --table")),
            false => Contract::from_toml(text),
        };
    };
    let glue = |v: &Value| v.get("StorageDescriptor").is_some();
    if json["type"] == "record" {
        Contract::from_avro(text)
    } else if glue(&json) || json.get("Table").is_some_and(glue) || json.get("TableInput").is_some_and(glue) {
        Contract::from_glue_json(text)
    } else if json.get("Resources").is_some() {
        Err(Error::usage("InvalidArguments", "a template has several tables: name one with --table"))
    } else {
        Contract::from_json(text)
    }
}

async fn of_table(args: &TableArgs, context: &CommandContext) -> Result<Contract> {
    let dataset = context.open_table(args).await?;
    let columns = |snapshot: TableVersion| async move {
        let schema = snapshot.schema(&snapshot.open_files().await?)?;
        Ok((schema, snapshot))
    };
    let (schema, snapshot) = dataset.read(columns).await?;
    if schema.fields().is_empty() {
        return Err(Error::data("NotFound", format!("there is no table at `{}`", args.url)));
    }
    let mut contract = Contract::from_arrow(&schema)?;
    contract.partition_by = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
    if let Some((key, order)) = biscuit_merge::merged_by(&dataset).await? {
        contract.key = key.into_iter().filter(|k| contract.column(k).is_some()).collect();
        contract.order = order;
    }
    Ok(contract)
}

async fn check(args: &CheckArgs, context: &CommandContext) -> Result<CommandOutput> {
    let contract = read(&args.contract, None, context).await?;
    let there = of_table(&args.table, context).await?;
    let found = differences(&contract, &there);
    // A file may have nulls that there are none of, and orders of columns that nobody sees.
    let matters = |d: &&biscuit_schema::ContractDifference| {
        use biscuit_schema::ContractDifference as D;
        let extra = matches!(d, D::Added { .. }) && contract.extra != biscuit_schema::ExtraColumns::Refuse;
        !extra && !matches!(d, D::Loosened { .. } | D::Reordered | D::Widened { .. } | D::Other { .. })
    };
    let of_types: Vec<String> = found.iter().filter(matters).map(ToString::to_string).collect();
    let mut findings = Vec::new();
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

/// What the rows of a table break, in words.
async fn rows_comply(contract: &Contract, table: &TableArgs, context: &CommandContext) -> Result<Vec<String>> {
    let mut contract = contract.clone();
    let required = contract.columns.iter().filter(|c| !c.nullable).map(|c| c.name.clone());
    let rules =
        required.map(|column| biscuit_schema::ContractCheck::new(biscuit_schema::CheckRule::NotNull { column }));
    contract.checks.extend(rules.collect::<Vec<_>>());
    // All of them are counted, and none stops the look.
    contract.checks.iter_mut().for_each(|c| c.severity = biscuit_schema::CheckSeverity::Warn);
    let unique = [std::mem::take(&mut contract.grain), std::mem::take(&mut contract.key)];
    let unique = unique.into_iter().filter(|columns| !columns.is_empty());
    let unique =
        unique.map(|columns| biscuit_schema::ContractCheck::new(biscuit_schema::CheckRule::Unique { columns }));
    contract.checks.extend(unique.map(|c| c.with_severity(biscuit_schema::CheckSeverity::Warn)));
    contract.checks.dedup();
    let dataset = context.open_table(table).await?;
    dataset.read(|snapshot| findings(&contract, snapshot)).await
}

/// What the rows of a version do not comply with.
async fn findings(contract: &Contract, snapshot: TableVersion) -> Result<Vec<String>> {
    let mut compliance = ContractCompliance::new(contract, SystemClock.now())?;
    for file in snapshot.open_files().await? {
        let (mut rows, mut seen) = (file.stream(None)?, 0);
        while let Some(batch) = rows.next().await {
            let batch = biscuit_dataset::align(
                &batch?,
                &file.file.partition,
                &std::sync::Arc::new(contract.to_arrow()),
                &file.file.path,
            )?;
            let first = seen + 1;
            seen += batch.num_rows() as u64;
            compliance.check(&batch, &|row| (file.file.path.clone(), first + row as u64))?;
        }
    }
    let said = |f: biscuit_schema::CheckFinding| {
        let place = f.first.map(|(file, row)| format!(", first {file}, row {row}")).unwrap_or_default();
        format!("{} {} rows: {}{place}", f.code, f.rows, f.rule)
    };
    Ok(compliance.finish()?.into_iter().map(said).collect())
}

async fn diff(args: &DiffArgs, context: &CommandContext) -> Result<CommandOutput> {
    let (old, new) = (read(&args.old, None, context).await?, read(&args.new, None, context).await?);
    let found = differences(&old, &new);
    let fits = |c: Compatibility| c.broken_by(&found).is_empty();
    let (backward, forward) = (fits(Compatibility::Backward), fits(Compatibility::Forward));
    let mut text = String::new();
    for d in &found {
        let breaks = match (d.is_backward(), d.is_forward()) {
            (true, true) => "",
            (true, false) => "  breaks who reads by the old one",
            (false, true) => "  breaks who reads by the new one",
            (false, false) => "  breaks all readers",
        };
        text.push_str(&format!("{d}{breaks}\n"));
    }
    if found.is_empty() {
        text.push_str("the two are the same\n");
    }
    let broken = args.require.is_some_and(|require| match require {
        CompatibilityName::Backward => !backward,
        CompatibilityName::Forward => !forward,
        CompatibilityName::Full => !backward || !forward,
    });
    let json = json!({"differences": found, "backward": backward, "forward": forward});
    Ok(CommandOutput::Report { json, text, exit: if broken { BAD_DATA } else { 0 } })
}
