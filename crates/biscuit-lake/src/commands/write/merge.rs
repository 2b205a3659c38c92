//! `biscuit merge`: merges change files into one table, or with `--table '*'` each source table into its own target.
//!
//! Key and order come from the first of: options, contract, records, and the table itself. [`MergeTarget`] does this
//! for `merge`, `snapshot` and `quarantine retry`.

use std::collections::HashMap;
use std::fmt::Write;

use biscuit_apply::internal::partition_columns;
use biscuit_apply::report::MergeReport;
use biscuit_apply::{
    ChangeFiles, ChangeFormat, IgnoreNull, KeyAndOrderColumns, KeyAndOrderSources, Merge, MergeInput, MergeOptions,
    MergeRun, MergeSpec, NewServerPolicy, OrderAuthority, RunMode, TiePolicy, TombstonePolicy, merged_by,
};
use biscuit_change::{BadRows, ChangeRecords, FormatSettings, OpMap, RowsOptions, SourceTable, TablesReader};
use biscuit_core::{Error, ErrorKind, Outcome, Result};
use biscuit_dataset::internal::check_input;
use biscuit_dataset::{Dataset, OpenLocation, PathTemplate, TableVersion};
use biscuit_journal::internal::fold_name;
use biscuit_journal::{DivergedPolicy, ExternalFiles, JournalOptions, WriterPolicy};
use biscuit_schema::Contract;
use datafusion::arrow::datatypes::SchemaRef;
use serde_json::json;

use crate::args::bookmark::ChosenInputs;
use crate::args::merge::{
    BadRowsName, ExternalFilesName, FormatName, MergeArgs, MergeCommand, NewServerName, TiesName,
};
use crate::args::table::TableArgs;
use crate::codes;
use crate::environment::context::CommandContext;
use crate::render::output::{AGAIN, CommandOutput, code, error_json};
use crate::render::remarks::{counts, remarks};

pub(crate) async fn run(command: &MergeCommand, context: &CommandContext) -> Result<CommandOutput> {
    let args = &command.merge;
    if args.table.as_deref() == Some("*") {
        if command.bookmark.bookmark.is_some() {
            let message =
                "--bookmark needs one table, since each table has its own bookmark; name the table with --table";
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        if args.delete_missing {
            let message = "--delete-missing needs one table; name the table with --table";
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        return all_tables(command, context).await;
    }
    check_inputs(&command.changes, &args.target, context).await?;
    let table = MergeTarget::open(args, context).await?;
    let reading = json!({"format": args.format.name()});
    let mut chosen =
        command.bookmark.choose(&command.changes, (reading, args.allow_empty), &table.dataset, context).await?;
    // With `--allow-missing` the merge is tried again without a file that was deleted meanwhile.
    loop {
        let done = one_table(command, &table, chosen.as_ref(), context).await;
        if let (Err(e), Some(chosen)) = (&done, &mut chosen)
            && chosen.without(e)
        {
            continue;
        }
        let (report, ignored, other_tables) = done?;
        let others = report.as_ref().map_or(other_tables, |report| report.remarks.other_tables);
        let has_records = report.as_ref().is_some_and(|report| report.records > 0);
        // With a bookmark it is normal that all new files belong to other tables.
        if chosen.is_none() && !has_records {
            check_table(args, others)?;
        }
        let answer = match report {
            Some(report) => answer(&report, context.seconds()),
            None => nothing(ignored, other_tables),
        };
        return Ok(match (answer, &chosen) {
            (CommandOutput::Report { mut json, mut text, exit }, Some(chosen)) => {
                chosen.report(&mut json, &mut text);
                CommandOutput::Report { json, text, exit }
            }
            (answer, _) => answer,
        });
    }
}

/// Checks that the table of `--table` has records. `others` is the number of records or files of other tables.
///
/// # Errors
/// `UnknownTable`.
pub(crate) fn check_table(args: &MergeArgs, others: u64) -> Result<()> {
    match &args.table {
        Some(table) if others > 0 && !args.allow_empty => {
            let message = format!(
                "no record belongs to the table `{table}`; {others} records or files belong to other tables. Check the name, or use --allow-empty"
            );
            Err(Error::new(biscuit_schema::codes::UNKNOWN_TABLE, message))
        }
        _ => Ok(()),
    }
}

/// Returns the files at the places that the command names.
pub(crate) fn listed_files(
    places: &[String],
    format: ChangeFormat,
    args: &MergeArgs,
    context: &CommandContext,
) -> ChangeFiles {
    let files = ChangeFiles::new(places, format)
        .with_opener(context.stores.clone())
        .with_other_formats(context.stores.other_formats());
    if args.allow_empty { files.with_allow_empty() } else { files }
}

/// Merges the files, or those that a bookmark has chosen.
///
/// Returns the report if there was something to merge, and the numbers of ignored records and of records of other
/// tables.
async fn one_table(
    command: &MergeCommand,
    table: &MergeTarget,
    chosen: Option<&ChosenInputs>,
    context: &CommandContext,
) -> Result<(Option<MergeReport>, u64, u64)> {
    let args = &command.merge;
    let files = match chosen {
        Some(chosen) => ChangeFiles::found(chosen.files()?, table.format.clone()),
        None => listed_files(&command.changes, table.format.clone(), args, context),
    };
    // If key and order are known before the first record is read, records can be spilled to disk while reading.
    // Debezium envelopes name their key themselves, and rows without a record need all records at once: these are
    // held in memory.
    let (key, order) = files.key_and_order();
    if args.format != FormatName::Debezium
        && !args.delete_missing
        && let Some(merge) = table.merge(args, DeclaredMerge { key: &key, order: &order, is_empty: true })?
    {
        let run = with_bookmark(merge.input(files), chosen)?;
        return Ok((Some(run.run(mode(args)).await?), 0, 0));
    }
    let mut changes = files.changes().await?;
    tracing::info!(records = changes.len(), "read all changes");
    let (ignored, other_tables) = (changes.ignored, changes.other_tables);
    let Some(merge) = table.merge(args, DeclaredMerge::of(&changes))? else { return Ok((None, ignored, other_tables)) };
    if args.delete_missing {
        check_whole(&changes)?;
        // A row without a record gets a delete, so that the guards and the report see it like any other delete.
        let deletes = merge.deletes_of_missing(&changes).await?;
        changes.batches.extend(deletes);
    }
    let run = with_bookmark(merge.input(changes), chosen)?;
    Ok((Some(run.run(mode(args)).await?), ignored, other_tables))
}

/// Lets a run commit the bookmark of its input, on top of the table version in which the bookmark was read.
fn with_bookmark<'a>(run: MergeRun<'a>, chosen: Option<&ChosenInputs>) -> Result<MergeRun<'a>> {
    match chosen {
        Some(chosen) => Ok(run.on(chosen.snapshot.clone()).with_extras(chosen.extras()?)),
        None => Ok(run),
    }
}

/// Checks that the records can stand for the whole table: some exist, and none is invalid.
///
/// Otherwise `--delete-missing` would delete rows whose record is invalid or was not read.
///
/// # Errors
/// `NotWhole`.
fn check_whole(changes: &ChangeRecords) -> Result<()> {
    if changes.refused.is_empty() && !changes.is_empty() {
        return Ok(());
    }
    let message = "--delete-missing needs files with records, all of them valid; nothing was changed";
    Err(Error::new(codes::NOT_WHOLE, message))
}

/// Key and order that the reader of the records named.
#[derive(Clone, Copy)]
pub(crate) struct DeclaredMerge<'a> {
    key: &'a [String],
    order: &'a [String],
    /// Whether there are no records, or none has been read yet.
    is_empty: bool,
}

impl<'a> DeclaredMerge<'a> {
    /// Returns what these records declare.
    pub(crate) fn of(changes: &'a ChangeRecords) -> Self {
        let is_empty = changes.is_empty() && changes.refused.is_empty();
        Self { key: &changes.key, order: &changes.order, is_empty }
    }
}

/// Merges every table of the files into its own target, reading the files once.
///
/// The error of one table does not stop the other tables. The exit code is that of the first error.
async fn all_tables(command: &MergeCommand, context: &CommandContext) -> Result<CommandOutput> {
    let args = &command.merge;
    if !PathTemplate::new(&args.target).has("table") {
        let message = "with --table '*' the target needs `{table}`, such as 's3://bucket/lake/{schema}/{table}'";
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    let options = |args: &MergeArgs| {
        let contract = contract(args)?;
        format_with(args, contract.as_ref(), None)
    };
    let other = || Error::new(biscuit_core::codes::INVALID_ARGUMENTS, "--table '*' needs --format debezium or dms");
    let reader = match args.format {
        FormatName::Debezium => TablesReader::debezium(|table| match options(&args.of_table(table)?)? {
            ChangeFormat::Debezium(options) => Ok(options),
            _ => Err(other()),
        }),
        FormatName::Dms => TablesReader::dms(|table| match options(&args.of_table(table)?)? {
            ChangeFormat::Dms(options) => Ok(options),
            _ => Err(other()),
        }),
        FormatName::Rows => return Err(other()),
    };
    let reader = reader.with_max_decompressed(max_decompressed(args));
    // The reader of tables decides the format; this one is not used.
    let read_as = ChangeFormat::Rows(RowsOptions::default());
    let files = listed_files(&command.changes, read_as, args, context);
    let (mut json, mut text, mut exit, mut changed) = (Vec::new(), String::new(), 0, false);
    let tables = files.by_table(reader).await?;
    let targets = targets(args, tables.iter().map(|(name, _)| name));
    for ((name, changes), target) in tables.into_iter().zip(targets) {
        let name = name.to_string();
        tracing::info!(table = name, "merging");
        let merged = match changes.and_then(|changes| Ok((changes, target?))) {
            Ok((changes, args)) => one_of_many(&args, &command.changes, changes, context).await,
            Err(e) => Err(e),
        };
        let mut entry = match merged {
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                exit = if exit == 0 { code(e.kind()) } else { exit };
                text.push_str(&format!("{name}\n  error       {e}\n"));
                error_json(&e, context.show_values)
            }
            Ok(None) => json!({"outcome": Outcome::Unchanged}),
            Ok(Some(report)) => {
                changed |= report.outcome != Outcome::Unchanged;
                exit = if report.remarks.exceptions.is_empty() { exit } else { AGAIN };
                text.push_str(&format!("{name}\n{}", self::text(&report, context.seconds())));
                json!(report)
            }
        };
        entry["table"] = json!(name);
        json.push(entry);
    }
    let done = if args.dry_run { Outcome::Planned } else { Outcome::Committed };
    let outcome = if changed { done } else { Outcome::Unchanged };
    if json.is_empty() {
        text.push_str("unchanged: no change records\n");
    }
    Ok(CommandOutput::Report { json: json!({"outcome": outcome, "tables": json}), text, exit })
}

/// Returns the options of each table.
///
/// If several tables have one target, all of them are refused: their rows could not be told apart. Targets are
/// compared after folding letter case and Unicode forms, as some file systems do.
fn targets<'a>(args: &MergeArgs, names: impl Iterator<Item = &'a SourceTable>) -> Vec<Result<MergeArgs>> {
    let of_each: Vec<Result<MergeArgs>> = names.map(|name| args.of_table(name)).collect();
    let mut counts: HashMap<String, u32> = HashMap::new();
    for args in of_each.iter().flatten() {
        *counts.entry(fold_name(&args.target)).or_default() += 1;
    }
    let alone = |args: MergeArgs| match counts.get(&fold_name(&args.target)) {
        Some(1) | None => Ok(args),
        Some(several) => {
            let message = format!(
                "{several} tables of the files have the target `{}`, ignoring letter case and Unicode forms; use `{{schema}}` and `{{table}}` in --target, or merge each table with --table and its own target",
                args.target
            );
            Err(Error::new(biscuit_change::codes::SEVERAL_TABLES, message))
        }
    };
    of_each.into_iter().map(|args| args.and_then(alone)).collect()
}

/// Merges the records of one of many tables into its target.
async fn one_of_many(
    args: &MergeArgs,
    places: &[String],
    changes: ChangeRecords,
    context: &CommandContext,
) -> Result<Option<MergeReport>> {
    check_inputs(places, &args.target, context).await?;
    let table = MergeTarget::open(args, context).await?;
    match table.merge(args, DeclaredMerge::of(&changes))? {
        Some(merge) => merge.run(changes, mode(args)).await.map(Some),
        None => Ok(None),
    }
}

/// Merges the quarantined records of a table again.
pub(crate) async fn retry(args: &MergeArgs, context: &CommandContext) -> Result<CommandOutput> {
    let table = MergeTarget::open(args, context).await?;
    let Some(merge) = table.merge(args, DeclaredMerge::of(&ChangeRecords::default()))? else {
        return Ok(nothing(0, 0));
    };
    let report = merge.input(MergeInput::Quarantined(table.format)).run(mode(args)).await?;
    Ok(answer(&report, context.seconds()))
}

/// Returns whether the run commits or only plans.
pub(crate) fn mode(args: &MergeArgs) -> RunMode {
    if args.dry_run { RunMode::DryRun } else { RunMode::Commit }
}

/// Refuses input that contains files of the table.
///
/// # Errors
/// `InputOverlapsTable`.
pub(crate) async fn check_inputs(places: &[String], target: &str, context: &CommandContext) -> Result<()> {
    let target = context.stores.open(target).await?;
    for place in places {
        check_input(place, &target, &*context.stores).await?;
    }
    Ok(())
}

/// Target of a merge: the table with its contract, its recorded key and order, and the format of the changes.
pub(crate) struct MergeTarget {
    contract: Option<Contract>,
    pub(crate) dataset: Dataset,
    /// Key and order of the earlier merges of this table.
    made: Option<(Vec<String>, Vec<String>)>,
    pub(crate) format: ChangeFormat,
}

impl MergeTarget {
    /// Opens the target.
    async fn open(args: &MergeArgs, context: &CommandContext) -> Result<Self> {
        Self::open_with(args, false, context).await
    }

    /// Opens the target. With `hard_links`, equal files may be stored once under several names.
    pub(crate) async fn open_with(args: &MergeArgs, hard_links: bool, context: &CommandContext) -> Result<Self> {
        let contract = contract(args)?;
        let dataset = target(args, hard_links, context).await?;
        let made = merged_by(&dataset).await?;
        let format = format(args, contract.as_ref(), &dataset).await?;
        Ok(Self { contract, dataset, made, format })
    }

    /// Returns the merge, or `None` if there are no records and the table has no recorded key and order.
    fn merge(&self, args: &MergeArgs, declared: DeclaredMerge<'_>) -> Result<Option<Merge>> {
        let made = self.spec(args, declared)?;
        made.map(|(spec, options)| Merge::new(self.dataset.clone(), spec, options)).transpose()
    }

    /// Returns specification and options of the merge, or `None` if there are no records and nothing is recorded.
    ///
    /// # Errors
    /// `InvalidArguments` if there are records, but no key or no order.
    pub(crate) fn spec(
        &self,
        args: &MergeArgs,
        declared: DeclaredMerge<'_>,
    ) -> Result<Option<(MergeSpec, MergeOptions)>> {
        let mut sources = KeyAndOrderSources::default()
            .with_contract(self.contract.as_ref())
            .with_records(&self.format, declared.key, declared.order)
            .with_table(self.made.clone());
        sources.options = KeyAndOrderColumns { key: args.key.clone(), order: args.order.clone() };
        let columns = sources.resolve();
        if let Some(what) = columns.missing() {
            if declared.is_empty {
                return Ok(None);
            }
            let message = format!("the {what} is unknown; name its columns with --{what} or in a contract");
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        let KeyAndOrderColumns { key, order } = columns;
        Ok(Some((spec(args, key, order)?, options(args, self.contract.as_ref()))))
    }
}

fn bad_rows(args: &MergeArgs) -> BadRows {
    match args.bad_rows {
        BadRowsName::Fail => BadRows::Fail,
        BadRowsName::Quarantine => BadRows::Quarantine,
    }
}

/// Returns the answer of a merge without records.
fn nothing(ignored: u64, other_tables: u64) -> CommandOutput {
    let json = json!({"outcome": Outcome::Unchanged, "records": ignored, "other_tables": other_tables});
    CommandOutput::Report { json, text: "unchanged: no change records of this table\n".to_owned(), exit: 0 }
}

/// Reads the contract of `--schema`, as TOML or JSON.
fn contract(args: &MergeArgs) -> Result<Option<Contract>> {
    let Some(path) = &args.schema else { return Ok(None) };
    // With `--table '*'` the name is a template, and a table may have no contract.
    if args.of_many && !std::path::Path::new(path).exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::new(biscuit_schema::codes::INVALID_CONTRACT, format!("cannot read `{path}`: {e}")).with_source(e)
    })?;
    let contract =
        if text.trim_start().starts_with('{') { Contract::from_json(&text) } else { Contract::from_toml(&text) };
    contract.map(Some).map_err(|e| e.in_file(path))
}

/// Opens the table with the policies of the options.
async fn target(args: &MergeArgs, hard_links: bool, context: &CommandContext) -> Result<Dataset> {
    let external = match args.external_files {
        ExternalFilesName::Adopt => ExternalFiles::Adopt,
        ExternalFilesName::Fail => ExternalFiles::Fail,
        ExternalFilesName::Ignore => ExternalFiles::Ignore,
    };
    let writers = if args.single_writer { WriterPolicy::One } else { WriterPolicy::Many };
    let diverged = if args.adopt { DivergedPolicy::Adopt } else { DivergedPolicy::Fail };
    let mut options = JournalOptions::default()
        .with_external_files(external)
        .with_writers(writers)
        .with_diverged(diverged)
        .with_retention(args.retention);
    options.hard_links = hard_links;
    context.open(&TableArgs { url: args.target.clone(), state: args.state.clone() }, options).await
}

/// Returns the format of the changes. Rows and DMS files are read with the types that the table already has.
async fn format(args: &MergeArgs, contract: Option<&Contract>, dataset: &Dataset) -> Result<ChangeFormat> {
    let expected = match args.format {
        FormatName::Rows | FormatName::Dms => Some(schema_of(dataset).await?),
        FormatName::Debezium => None,
    };
    format_with(args, contract, expected)
}

/// Returns the format of the changes, where `expected` has the types of the existing table.
///
/// # Errors
/// `InvalidArguments` if an option does not belong to the format.
fn format_with(args: &MergeArgs, contract: Option<&Contract>, expected: Option<SchemaRef>) -> Result<ChangeFormat> {
    let formats = |given: bool, option: &str, formats: &[FormatName]| match given && !formats.contains(&args.format) {
        true => {
            let names: Vec<&str> = formats.iter().map(|f| f.name()).collect();
            let message = format!("{option} needs --format {}", names.join(" or "));
            Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message))
        }
        false => Ok(()),
    };
    use FormatName::{Debezium, Dms, Rows};
    formats(args.op.is_some(), "--op", &[Rows, Dms])?;
    formats(!args.op_map.is_empty(), "--op-map", &[Rows, Dms])?;
    formats(args.delete_column.is_some(), "--delete-column", &[Rows])?;
    formats(args.table.is_some(), "--table", &[Debezium, Dms])?;
    formats(!args.order_as.is_empty(), "--order-as", &[Debezium])?;
    formats(args.placeholder.is_some(), "--placeholder", &[Debezium, Rows])?;
    for (given, option) in [
        (args.timestamp_column.is_some(), "--timestamp-column"),
        (args.csv_null.is_some(), "--csv-null"),
        (args.before_image.is_some(), "--before-image"),
    ] {
        formats(given, option, &[Dms])?;
    }
    let mut settings = FormatSettings::default();
    (settings.contract, settings.expected) = (contract.cloned(), expected);
    settings.table.clone_from(&args.table);
    settings.key.clone_from(&args.key);
    settings.order.clone_from(&args.order);
    settings.order_as.clone_from(&args.order_as);
    settings.op.clone_from(&args.op);
    settings.op_map = OpMap::parse(&args.op_map)?;
    settings.delete_column.clone_from(&args.delete_column);
    settings.placeholder.clone_from(&args.placeholder);
    settings.timestamp_column.clone_from(&args.timestamp_column);
    settings.csv_null.clone_from(&args.csv_null);
    settings.before_image.clone_from(&args.before_image);
    settings.ignore_null = IgnoreNull::named(&args.ignore_null);
    (settings.csv, settings.encoding) = (args.csv.dialect()?, args.csv.encoding()?);
    settings.bad_rows = bad_rows(args);
    settings.max_decompressed = max_decompressed(args);
    Ok(match args.format {
        FormatName::Debezium => settings.debezium(),
        FormatName::Dms => settings.dms(),
        FormatName::Rows => settings.rows(),
    })
}

fn max_decompressed(args: &MergeArgs) -> Option<u64> {
    args.max_decompressed.map(|bytes| bytes as u64)
}

/// Returns the columns of the existing table.
async fn schema_of(dataset: &Dataset) -> Result<SchemaRef> {
    dataset.read(|snapshot: TableVersion| async move { snapshot.current_schema().await }).await
}

fn spec(args: &MergeArgs, key: Vec<String>, order: Vec<String>) -> Result<MergeSpec> {
    Ok(MergeSpec::new(key, order)?
        .with_op_rank(&args.op_rank)
        .with_ignore_null(IgnoreNull::named(&args.ignore_null))
        .with_drop_columns(args.drop_columns.clone())
        .with_authority(if args.reload { OrderAuthority::Reload } else { OrderAuthority::Order })
        .with_tombstones(if args.no_tombstones { TombstonePolicy::Forget } else { TombstonePolicy::Keep })
        .with_ties(match args.ties {
            TiesName::Correct => TiePolicy::LaterRunWins,
            TiesName::Fail => TiePolicy::Fail,
        }))
}

fn options(args: &MergeArgs, contract: Option<&Contract>) -> MergeOptions {
    let partition_by = partition_columns(&args.partition_by, contract);
    let mut options = MergeOptions::default();
    options.memory = args.memory;
    options
        .with_parquet(args.parquet.options())
        .with_partition_by(partition_by)
        .with_max_deleted(args.max_deleted)
        .with_new_server(match args.new_server {
            NewServerName::Fail => NewServerPolicy::Fail,
            NewServerName::Newer => NewServerPolicy::Newer,
            NewServerName::Same => NewServerPolicy::Same,
            NewServerName::Older => NewServerPolicy::Older,
        })
        .with_bad_rows(bad_rows(args), args.max_quarantined)
}

fn answer(report: &MergeReport, seconds: f64) -> CommandOutput {
    let exit = if report.remarks.exceptions.is_empty() { 0 } else { AGAIN };
    CommandOutput::Report { json: json!(report), text: text(report, seconds), exit }
}

/// Renders the report as text.
fn text(report: &MergeReport, seconds: f64) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line(format!("{}: version {}, {} records in {seconds:.2} s", report.outcome, report.version, report.records));
    line(format!("  records     {}", counts(json!(report.verdicts))));
    let (late, ignored) = (report.verdicts.late, report.verdicts.ignored);
    if late > 0 && late + ignored == report.records {
        line(format!(
            "  LATE        all {late} records are older than the stored rows of their keys and change nothing; use --reload to apply a new full load"
        ));
    }
    line(format!("  rows        {}", counts(json!(report.rows))));
    line(format!("  files       {}", counts(json!(report.files))));
    let p = &report.partitions;
    for (what, names) in [("added", &p.added), ("changed", &p.changed), ("emptied", &p.emptied)] {
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
        if !names.is_empty() {
            line(format!("  partitions  {what} {}", names.join(", ")));
        }
    }
    out.push_str(&remarks(&report.remarks, report.verdicts.quarantined));
    out
}
