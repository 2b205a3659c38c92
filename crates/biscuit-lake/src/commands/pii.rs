//! `biscuit pii`: creates keys, finds personal data in columns, applies policies, and reveals treated values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use biscuit_core::{Clock, Error, Job, Result, Run, RunId, SystemClock};
use biscuit_dataset::{Dataset, OpenFile, OpenLocation, TableVersion};
use biscuit_job::internal::format_at;
use biscuit_job::settings::ContractSpec;
use biscuit_job::{DeclarativeJob, JobEnvironment, JobSpec, OutputMode, OutputSpec, SourceSpec, TableKeys, sample};
use biscuit_journal::JournalOptions;
use biscuit_pii::detectors::default_detectors;
use biscuit_pii::keys::{KeyFile, KeyWrapping};
use biscuit_pii::tokens::{AccessRequest, AuditFile};
use biscuit_pii::{Detector, Likelihood, PiiContext, Policy, Protector, classify};
use biscuit_pii_aws::ComprehendDetector;
use biscuit_schema::ColumnType;
use biscuit_schema::internal::align;
use clap::{Args, Subcommand};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::DataType;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use serde_json::json;

use crate::args::access::AccessRequester;
use crate::args::bookmark::open_place;
use crate::args::csv::CsvArgs;
use crate::args::table::TableArgs;
use crate::codes;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;
use crate::render::own_files::{self, ExistingFile, FileLock};

/// Commands of `biscuit pii`.
#[derive(Debug, Subcommand)]
pub(crate) enum PiiCommand {
    /// Create a key file, or add new keys to an existing one
    Keygen(KeygenArgs),
    /// Report which columns contain personal data, by samples
    Scan(ScanArgs),
    /// Create a table from files, with personal data treated by a policy
    Apply(ApplyArgs),
    /// Reveal tokenized or encrypted values. Each access is recorded in an audit file first
    Detokenize(DetokenizeArgs),
}

/// Options of `biscuit pii keygen`.
#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// Path of the key file
    file: String,

    /// Seal the root keys with this KMS key, by id, ARN or alias [default: with a key in the file itself]
    #[arg(long, value_name = "KEY")]
    kms: Option<String>,

    /// Add new keys to the file and make them current; values of the old keys remain readable
    #[arg(long, conflicts_with = "kms")]
    rotate: bool,
}

/// Options of `biscuit pii scan`.
#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// Path or URL of files, a folder or a glob
    url: String,

    /// Examine at most this number of rows of each file
    #[arg(long, default_value_t = 1000, value_name = "N")]
    rows: usize,

    /// Report findings of at least this likelihood
    #[arg(long, default_value = "likely", value_parser = parse_likelihood, value_name = "possible|likely|certain")]
    min_likelihood: Likelihood,

    /// Also use Amazon Comprehend in this language (en, es); each distinct text is charged
    #[arg(long, value_name = "LANGUAGE")]
    comprehend: Option<String>,

    #[command(flatten)]
    csv: CsvArgs,
}

/// Options of `biscuit pii apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Path or URL of files, a folder or a glob
    url: String,

    /// Path or URL of the table, whose content is replaced
    table: String,

    /// Apply the policy in this file: a policy file, or a job file with `[pii]`
    #[arg(long, value_name = "FILE")]
    policy: String,

    /// Read the files in this format [default: by their names]
    #[arg(long, value_enum)]
    format: Option<crate::commands::inspect::schema::SchemaFormatName>,

    /// Take the classes of columns from this contract
    #[arg(long, value_name = "FILE")]
    contract: Option<String>,
}

/// Options of `biscuit pii detokenize`.
#[derive(Debug, Args)]
pub(crate) struct DetokenizeArgs {
    /// Path or URL of the table; not needed with --token
    url: Option<String>,

    /// Use the policy that the table was made with: a policy file, or a job file with `[pii]`
    #[arg(long, value_name = "FILE")]
    policy: String,

    /// Reveal these columns, by path; with the type if it is not text, such as `born:date`
    #[arg(long, required = true, value_name = "COLUMNS")]
    columns: Vec<String>,

    /// Reveal these tokens of the column instead of a table
    #[arg(long, num_args = 1.., value_name = "TOKEN", conflicts_with = "url")]
    token: Vec<String>,

    /// Record this reason for the access
    #[arg(long, value_name = "REASON")]
    reason: String,

    #[command(flatten)]
    requester: AccessRequester,

    /// Append the record of the access to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    audit: String,

    /// Write the rows to this Parquet file
    #[arg(long, value_name = "FILE", required_unless_present = "token")]
    out: Option<String>,

    /// Decrypt with this table name, which is part of the encryption, if the policy has none [default: name of the
    /// job's output or the folder]
    #[arg(long, value_name = "NAME")]
    table_name: Option<String>,

    /// Take the classes of columns from this contract, if the policy is not part of a job file
    #[arg(long, value_name = "FILE")]
    contract: Option<String>,
}

fn parse_likelihood(text: &str) -> Result<Likelihood, String> {
    serde_json::from_value(json!(text)).map_err(|_| "use possible, likely or certain".to_owned())
}

pub(crate) async fn run(command: &PiiCommand, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        PiiCommand::Keygen(args) => generate_keys(args, context).await,
        PiiCommand::Scan(args) => scan_columns(args, context).await,
        PiiCommand::Apply(args) => apply_policy(args, context).await,
        PiiCommand::Detokenize(args) => detokenize_columns(args, context).await,
    }
}

async fn generate_keys(args: &KeygenArgs, context: &CommandContext) -> Result<CommandOutput> {
    let path = Path::new(&args.file);
    if args.file.contains("://") {
        let message = format!("`{}` is not a local file; create the key file on this machine and copy it", args.file);
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    let file = if args.rotate {
        rotate_keys(path, context).await?
    } else {
        let file = match &args.kms {
            Some(key) => KeyFile::new(KeyWrapping::Kms(key.clone()), &context.stores.kms(key).await).await?,
            None => KeyFile::local().await?,
        };
        own_files::write(path, file.to_text()?.as_bytes(), ExistingFile::Refuse).map_err(|e| match e.error_code() {
            code @ codes::FILE_EXISTS => Error::new(code, format!("{}; use `--rotate` to add keys to it", e.message())),
            _ => e,
        })?;
        file
    };
    let sealed = match file.wrapping() {
        KeyWrapping::Kms(key) => format!("sealed by the KMS key {key}"),
        _ => "together with the key that seals it; keep the file secret".to_owned(),
    };
    let text = format!("root key {} is in {}, {sealed}\n", file.current(), args.file);
    Ok(CommandOutput::Report { json: json!({"file": args.file, "current": file.current()}), text, exit: 0 })
}

/// Adds keys to a file. A lock makes concurrent processes wait for one another, so that no key is lost.
async fn rotate_keys(path: &Path, context: &CommandContext) -> Result<KeyFile> {
    // Links are resolved, so that the file is replaced and a link to it remains a link.
    let path = std::fs::canonicalize(path).map_err(|e| {
        let message = format!("the key file {} cannot be read: {e}", path.display());
        Error::new(biscuit_pii::codes::INVALID_KEY_FILE, message).with_source(e)
    })?;
    let at = path.clone();
    let locked = tokio::task::spawn_blocking(move || FileLock::wait(&at)).await;
    let locked = locked.map_err(|e| Error::internal("the thread that waits for the lock stopped").with_source(e))??;
    let file = KeyFile::open(&path)?;
    let provider = context.stores.key_provider(&file).await?;
    let file = file.with_new_keys(&*provider).await?;
    // The lock is advisory: a program that does not take it may have replaced the file.
    if !locked.is_current(&path) {
        let message = format!("another process has replaced `{}`; run the command again", path.display());
        return Err(Error::new(biscuit_core::codes::CONFLICT, message));
    }
    own_files::write(&path, file.to_text()?.as_bytes(), ExistingFile::Replace)?;
    Ok(file)
}

async fn scan_columns(args: &ScanArgs, context: &CommandContext) -> Result<CommandOutput> {
    let place = open_place(&args.url, context).await?;
    let (text, keys) = (args.csv.spec()?, context.file_keys().await?);
    let batches = sample(&place, None, &text, args.rows, SystemClock.now(), keys.as_ref()).await?;
    let mut detectors: Vec<Arc<dyn Detector>> = default_detectors();
    if let Some(language) = &args.comprehend {
        detectors.push(Arc::new(ComprehendDetector::new(context.stores.comprehend().await, language)?));
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let classes = classify(&batches, &detectors, args.min_likelihood).await?;
    let columns: BTreeSet<&str> = classes.iter().map(|class| class.column.as_str()).collect();
    let mut text = format!("{rows} rows: {} columns contain personal data\n", columns.len());
    let width = classes.iter().map(|class| class.column.len()).max().unwrap_or(0);
    for class in &classes {
        let (column, entity, texts) = (&class.column, class.entity.name(), class.texts);
        text.push_str(&format!(
            "  {column:width$}  {entity:<20} {} of {texts} texts, and part of {} texts\n",
            class.whole, class.inside
        ));
    }
    Ok(CommandOutput::Report { json: json!({"rows": rows, "columns": classes}), text, exit: 0 })
}

/// Reads a policy from a policy file, or from the `[pii]` section of a job file. Returns the job as well.
fn policy_of(path: &str) -> Result<(Policy, Option<JobSpec>)> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::new(biscuit_pii::codes::INVALID_POLICY, format!("`{path}` cannot be read: {e}")).with_source(e)
    })?;
    let table = text.parse::<toml::Table>().ok();
    if table.is_some_and(|table| table.contains_key("pii") && table.contains_key("sources")) {
        let mut job = JobSpec::from_toml(&text, &[]).map_err(|e| e.in_file(path))?;
        let policy = job.pii.take().ok_or_else(|| Error::internal("the job file has a `[pii]` section"))?;
        return Ok((policy, Some(job)));
    }
    Ok((Policy::parse(&text).map_err(|e| e.in_file(path))?, None))
}

/// Policy with its keys and stores, the name of its table, and the classes of columns.
///
/// The name of the table is bound into encrypted values: they can be decrypted under the same name only.
#[derive(Debug)]
pub(crate) struct OpenPolicy {
    pub(crate) policy: Policy,
    pub(crate) means: PiiContext,
    pub(crate) table: String,
    classes: Vec<(String, String)>,
}

impl OpenPolicy {
    /// Opens a policy for a table.
    ///
    /// The name of the table is that of the policy, else that of the job's output, else that of its folder. The
    /// classes of columns come from the contract, else from the job.
    pub(crate) async fn open(
        path: &str,
        table: &str,
        contract: Option<&str>,
        context: &CommandContext,
    ) -> Result<Self> {
        let (mut policy, job) = policy_of(path)?;
        let means = context.stores.open_pii(&policy, folder_of(path)).await?;
        let classes = match (contract, &job) {
            (Some(contract), _) => {
                let contract = crate::commands::inspect::schema::read(contract, None, context).await?;
                contract.columns.into_iter().filter_map(|c| Some((c.name, c.pii?))).collect()
            }
            (None, Some(job)) => job.classes(folder_of(path))?,
            (None, None) => {
                // Without a contract the classes of columns are unknown: a column named like a class counts as one of
                // it.
                policy = policy.all_named();
                vec![]
            }
        };
        let output = job.as_ref().and_then(|job| {
            let is = |url: &str| url.trim_end_matches('/') == table.trim_end_matches('/');
            let of_url = job.outputs.iter().find(|(_, output)| is(&output.url));
            of_url
                .or_else(|| job.outputs.iter().next().filter(|_| job.outputs.len() == 1))
                .map(|(name, _)| name.clone())
        });
        let table = policy.table.clone().or(output).unwrap_or_else(|| name_of(table).to_owned());
        Ok(Self { policy, means, table, classes })
    }

    /// Opens a table, with the keys of the policy for its encrypted files unless `--file-keys` has them.
    pub(crate) async fn open_dataset(&self, url: &str, context: &CommandContext) -> Result<Dataset> {
        let dataset = context.open(&of_url(url), JournalOptions::default()).await?;
        Ok(match &self.means.provider {
            Some(provider) if dataset.encryption().is_none() => {
                dataset.with_encryption(TableKeys::encryption(provider.clone()))
            }
            _ => dataset,
        })
    }

    /// Returns the protector that treats or reveals the columns of a table.
    pub(crate) fn protector(&self, table: &str) -> Result<Protector> {
        let classes = self.classes.iter().map(|(column, class)| (column.as_str(), class.as_str()));
        Protector::new(&self.policy, table, classes, &self.means)
    }
}

/// Returns the folder of a file, to which the paths in the file are relative.
fn folder_of(path: &str) -> &Path {
    Path::new(path).parent().unwrap_or(Path::new(""))
}

/// Returns the last part of a URL, the default name of a table.
fn name_of(url: &str) -> &str {
    let plain = url.trim_end_matches('/');
    plain.rsplit('/').next().unwrap_or(plain)
}

/// Treats files by a policy. It runs a job with one source without bookmark, in the mode `replace`.
async fn apply_policy(args: &ApplyArgs, context: &CommandContext) -> Result<CommandOutput> {
    let (policy, _) = policy_of(&args.policy)?;
    let name = policy.table.clone().unwrap_or_else(|| name_of(&args.table).to_owned());
    let format = match args.format {
        Some(format) => format.of_source(),
        None => format_at(&open_place(&args.url, context).await?).await?,
    };
    let mut source = SourceSpec::new([&args.url], format).without_bookmark();
    source.contract = args.contract.clone().map(ContractSpec::File);
    let spec = JobSpec::builder(&name)
        .with_source("files", source)
        .with_target(OutputSpec::new(&args.table, OutputMode::Replace))
        // Paths in the policy are relative to its file, while the job has no file.
        .with_pii(policy.in_folder(folder_of(&args.policy)))
        .build()?;
    let job =
        DeclarativeJob::new(spec).with_environment(context.stores.clone()).with_interrupt(context.interrupt.clone());
    let start = SystemClock.now();
    let run = Run::new(name, RunId::new(start.to_string()), start);
    let report = job.run(&run).await?;
    let output = &report.outputs[0];
    let mut text = format!("{}: {} rows in {} files at {}\n", report.outcome, output.rows, output.files, output.url);
    for (column, treated) in &output.pii {
        text.push_str(&format!("  {column}  {}\n", json!(treated)));
    }
    Ok(CommandOutput::Report { json: json!(output), text, exit: 0 })
}

/// Splits columns at commas, except for commas inside a type such as `decimal(16,2)`.
fn split_columns(columns: &str) -> Vec<&str> {
    let (mut depth, mut from, mut all) = (0i32, 0, Vec::new());
    for (at, c) in columns.char_indices() {
        match c {
            '(' | '<' => depth += 1,
            ')' | '>' => depth -= 1,
            ',' if depth == 0 => {
                all.push(columns[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    all.push(columns[from..].trim());
    all
}

/// Parses `--columns` into names, and into types by name for columns that are not text.
fn parse_columns(columns: &[String]) -> Result<(Vec<String>, BTreeMap<String, DataType>)> {
    let (mut names, mut kinds) = (vec![], BTreeMap::new());
    for column in columns.iter().flat_map(|columns| split_columns(columns)) {
        let (name, kind) = column.split_once(':').map_or((column, None), |(name, kind)| (name, Some(kind)));
        if let Some(kind) = kind {
            kinds.insert(name.to_owned(), ColumnType::parse(kind)?.arrow().clone());
        }
        names.push(name.to_owned());
    }
    Ok((names, kinds))
}

async fn detokenize_columns(args: &DetokenizeArgs, context: &CommandContext) -> Result<CommandOutput> {
    let url = args.url.as_deref().unwrap_or_default();
    let open = OpenPolicy::open(&args.policy, url, args.contract.as_deref(), context).await?;
    let name = args.table_name.as_ref().unwrap_or(&open.table);
    let (columns, kinds) = parse_columns(&args.columns)?;
    let protector = open.protector(name)?;
    let access = AccessRequest::new(&args.requester.who, &args.reason, Arc::new(AuditFile::new(&args.audit)))?;
    let Some(url) = &args.url else { return of_tokens(args, &protector, &columns, &access).await };
    let dataset = open.open_dataset(url, context).await?;
    let mut batches = vec![];
    let mut forgotten = 0;
    for (path, batch) in dataset.read(all_rows).await? {
        let revealed = protector.reveal(&batch, &columns, &kinds, &access).await.map_err(|e| match e.row() {
            Some(row) => e.relocated(&path, row),
            None => e,
        })?;
        forgotten += revealed.columns.values().map(|treated| treated.forgotten).sum::<u64>();
        batches.push(revealed.rows);
    }
    let out = args.out.as_deref().unwrap_or_default();
    let rows = write(out, &batches, context).await?;
    let json = json!({"rows": rows, "file": out, "forgotten": forgotten});
    let text =
        format!("{rows} rows written to {out}; {forgotten} values are null, since their subjects were forgotten\n");
    Ok(CommandOutput::Report { json, text, exit: 0 })
}

/// Reads all rows of a version by file, with the columns of the table including partition columns.
async fn all_rows(snapshot: TableVersion) -> Result<Vec<(String, RecordBatch)>> {
    let files = snapshot.open_files().await?;
    let schema = snapshot.schema(&files)?;
    let mut all = vec![];
    for file in files {
        for batch in read(&file).await? {
            let batch = align(&batch, &file.file.partition, &schema, file.path())?;
            all.push((file.path().to_owned(), batch));
        }
    }
    Ok(all)
}

/// Reads the rows of a file as one batch.
async fn read(file: &OpenFile) -> Result<Vec<RecordBatch>> {
    let (mut rows, mut all) = (file.stream(None)?, vec![]);
    while let Some(batch) = rows.next().await {
        all.push(batch?);
    }
    // Row numbers in errors count from the begin of a batch. With one batch per file they are the row numbers of the
    // file.
    let Some(first) = all.first() else { return Ok(vec![]) };
    let whole = concat_batches(&first.schema(), &all);
    Ok(vec![whole.map_err(|e| Error::internal("the batches of a file have one schema").with_source(e))?])
}

/// Reveals single tokens of one column.
async fn of_tokens(
    args: &DetokenizeArgs,
    protector: &Protector,
    columns: &[String],
    access: &AccessRequest,
) -> Result<CommandOutput> {
    let [column] = columns else {
        return Err(Error::new(
            biscuit_core::codes::INVALID_ARGUMENTS,
            "--token needs exactly one column; name it with --columns",
        ));
    };
    let tokens: datafusion::arrow::array::ArrayRef =
        Arc::new(datafusion::arrow::array::StringArray::from(args.token.clone()));
    let rows = RecordBatch::try_from_iter([(column.as_str(), tokens)])
        .map_err(|e| Error::internal("tokens make a column of text").with_source(e))?;
    let back = protector.reveal(&rows, columns, &BTreeMap::new(), access).await?.rows;
    let values = datafusion::arrow::array::AsArray::as_string::<i32>(back.column(0).as_ref());
    let (mut json_lines, mut text) = (String::new(), String::new());
    for (token, value) in args.token.iter().zip(values.iter()) {
        json_lines.push_str(&format!("{}\n", json!({"token": token, "value": value})));
        text.push_str(&format!("{token}  {}\n", value.unwrap_or("(forgotten)")));
    }
    Ok(CommandOutput::Rows { json_lines, text })
}

/// Writes rows to a Parquet file. A local file is readable by its owner only, and replaces nothing.
async fn write(place: &str, batches: &[RecordBatch], context: &CommandContext) -> Result<usize> {
    let failed = |e: parquet::errors::ParquetError| {
        Error::new(biscuit_dataset::codes::UNSTORABLE_TYPE, format!("cannot write `{place}` as Parquet")).with_source(e)
    };
    let Some(first) = batches.first() else {
        return Err(Error::new(codes::NO_ROWS, "the table has no rows"));
    };
    let mut bytes = vec![];
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, first.schema(), None).map_err(failed)?;
    for batch in batches {
        let batch = batch.clone().with_schema(first.schema());
        let batch =
            batch.map_err(|e| Error::internal("aligned batches have the columns of the table").with_source(e))?;
        writer.write(&batch).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    if place.contains("://") {
        let location = context.stores.open(place).await?;
        let put = location.storage().store.put(location.path(), bytes.into()).await;
        put.map_err(|e| biscuit_journal::store_error("write", location.path(), e))?;
    } else {
        own_files::write(Path::new(place), &bytes, ExistingFile::Refuse)?;
    }
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

/// Returns the arguments for a table with its state root in the default place.
pub(crate) fn of_url(table: &str) -> TableArgs {
    TableArgs { url: table.to_owned(), state: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_types_do_not_separate_columns() {
        assert_eq!(
            split_columns("amt:decimal(16,2), name,m:map<string,int>"),
            ["amt:decimal(16,2)", "name", "m:map<string,int>"]
        );
        let (names, kinds) = parse_columns(&["amt:decimal(16,2)".to_owned()]).unwrap();
        assert_eq!((names, &kinds["amt"]), (vec!["amt".to_owned()], &DataType::Decimal128(16, 2)));
    }
}
