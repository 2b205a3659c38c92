//! Conversion of the options of `biscuit merge` to the options of the crates.

use biscuit_apply::{
    ChangeFormat, IgnoreNull, MergeOptions, MergeSpec, NewServerPolicy, OrderAuthority, RunMode, TiePolicy,
    TombstonePolicy,
};
use biscuit_change::{BadRows, FormatSettings, OpMap};
use biscuit_core::{Error, Result};
use biscuit_schema::Contract;
use datafusion::arrow::datatypes::SchemaRef;

use crate::args::merge::{BadRowsName, ChangeFormatName, MergeArgs, NewServerName, TiesName};
use crate::process::memory::default_budget;

/// Returns whether the run commits or only plans.
pub(crate) fn run_mode(args: &MergeArgs) -> RunMode {
    if args.dry_run { RunMode::DryRun } else { RunMode::Commit }
}

/// Reads the contract of `--schema`, as TOML or JSON.
pub(crate) fn read_contract(args: &MergeArgs) -> Result<Option<Contract>> {
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

/// Returns the format of the changes, where `expected` has the types of the existing table.
///
/// # Errors
/// `InvalidArguments` if an option does not belong to the format.
pub(crate) fn format_with(
    args: &MergeArgs,
    contract: Option<&Contract>,
    expected: Option<SchemaRef>,
) -> Result<ChangeFormat> {
    let formats =
        |given: bool, option: &str, formats: &[ChangeFormatName]| match given && !formats.contains(&args.format) {
            true => {
                let names: Vec<&str> = formats.iter().map(|f| f.name()).collect();
                let message = format!("{option} needs --format {}", names.join(" or "));
                Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message))
            }
            false => Ok(()),
        };
    use ChangeFormatName::{Debezium, Dms, Rows};
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
    (settings.max_decompressed, settings.max_record) = (max_decompressed(args), max_record(args));
    Ok(match args.format {
        ChangeFormatName::Debezium => settings.debezium(),
        ChangeFormatName::Dms => settings.dms(),
        ChangeFormatName::Rows => settings.rows(),
    })
}

pub(crate) fn max_decompressed(args: &MergeArgs) -> Option<u64> {
    args.max_decompressed.map(|bytes| bytes as u64)
}

pub(crate) fn max_record(args: &MergeArgs) -> Option<u64> {
    args.max_record.map(|bytes| bytes as u64)
}

/// Returns what decides which record of a key wins.
pub(crate) fn merge_spec(args: &MergeArgs, key: Vec<String>, order: Vec<String>) -> Result<MergeSpec> {
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

/// Returns the options of the merge.
pub(crate) fn merge_options(args: &MergeArgs, contract: Option<&Contract>) -> MergeOptions {
    let partition_by = match (args.partition_by.as_slice(), contract) {
        ([], Some(contract)) => contract.partition_by.clone(),
        (named, _) => named.to_vec(),
    };
    let mut options = MergeOptions::default();
    options.memory = args.memory.or_else(default_budget);
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

fn bad_rows(args: &MergeArgs) -> BadRows {
    match args.bad_rows {
        BadRowsName::Fail => BadRows::Fail,
        BadRowsName::Quarantine => BadRows::Quarantine,
    }
}
