//! Options of `biscuit merge`, most of which `snapshot` and `quarantine retry` share.
//!
//! The documentation comments of the fields and variants below are the help texts.

use std::time::Duration;

use biscuit_change::SourceTable;
use biscuit_dataset::PathTemplate;
use clap::{Args, ValueEnum};

use crate::args::bookmark::BookmarkArgs;
use crate::args::csv::CsvArgs;
use crate::args::duration::parse_duration;
use crate::args::parquet::{ParquetArgs, parse_bytes};

/// Values of `--format`: formats of change files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChangeFormatName {
    /// Parquet, Avro, JSON lines or CSV with an operation column or a delete flag
    Rows,
    /// Debezium envelopes, complete or flattened
    Debezium,
    /// S3 output of AWS DMS: full loads, changes and transactions, CSV or Parquet
    Dms,
}

impl ChangeFormatName {
    /// Returns the name of the format on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Debezium => "debezium",
            Self::Dms => "dms",
        }
    }
}

/// Values of `--external-files`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum ExternalFilesName {
    /// Read the files, and make them part of the table
    #[default]
    Adopt,
    /// Stop the run
    Fail,
    /// Do not read or change the files
    Ignore,
}

/// Values of `--ties`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum TiesName {
    /// Replace the stored content, and count the record as corrected
    #[default]
    Correct,
    /// Stop the run
    Fail,
}

/// Values of `--new-server`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum NewServerName {
    /// Stop the run, since the positions cannot be compared with earlier ones
    #[default]
    Fail,
    /// Order the records after all merged records: the server took over in a failover
    Newer,
    /// Compare the positions with the known ones: several servers write to one log
    Same,
    /// Order the records before all records of the newer server: they are the rest of a replaced server's log
    Older,
}

/// Values of `--bad-rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BadRowsName {
    /// Stop the run
    #[default]
    Fail,
    /// Store the records in the quarantine, with the reason
    Quarantine,
}

/// Options of `biscuit merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeCommand {
    /// Read change files from these paths or URLs of files, folders or globs
    #[arg(long, required = true, num_args = 1.., value_name = "PATH_OR_URL")]
    pub(crate) changes: Vec<String>,

    #[command(flatten)]
    pub(crate) merge: MergeArgs,

    #[command(flatten)]
    pub(crate) bookmark: BookmarkArgs,
}

/// Options of a merge, which `merge`, `snapshot` and `quarantine retry` share.
#[derive(Debug, Clone, Args)]
pub(crate) struct MergeArgs {
    /// Merge into this table, a path or URL; it is created if it does not exist. With --table '*' it is a template
    /// with `{schema}` and `{table}`
    #[arg(long, visible_alias = "dataset")]
    pub(crate) target: String,

    /// Read the change files in this format
    #[arg(long, value_enum)]
    pub(crate) format: ChangeFormatName,

    /// Identify rows by these columns [default: key of the contract, the records or the table]
    #[arg(long, value_delimiter = ',')]
    pub(crate) key: Vec<String>,

    /// Order the changes of a key by these columns, or for Debezium by fields such as `source.lsn` [default: order of
    /// the contract, the records or the table]
    #[arg(long, value_delimiter = ',')]
    pub(crate) order: Vec<String>,

    /// DMS: `TimestampColumnName` of the task
    #[arg(long)]
    pub(crate) timestamp_column: Option<String>,

    /// DMS: `CsvNullValue` of the task [default: NULL]
    #[arg(long)]
    pub(crate) csv_null: Option<String>,

    /// DMS: prefix of the columns with the key before an update [default: BI_]
    #[arg(long)]
    pub(crate) before_image: Option<String>,

    /// Debezium: store the order fields of `source` under these names [default: `__lsn` for `source.lsn`]
    #[arg(long, value_delimiter = ',')]
    pub(crate) order_as: Vec<String>,

    /// Read operation codes from this column, which is not stored
    #[arg(long)]
    pub(crate) op: Option<String>,

    /// Map operation codes of other tools, such as CODE=delete, to upsert, delete, truncate or ignore
    #[arg(long, value_delimiter = ',', value_name = "CODE=MEANING")]
    pub(crate) op_map: Vec<String>,

    /// Delete the row if this column is true or has the time of the delete; the column is not stored
    #[arg(long)]
    pub(crate) delete_column: Option<String>,

    /// Rank operation codes for records of equal order: the later in the list wins
    #[arg(long, value_delimiter = ',')]
    pub(crate) op_rank: Vec<String>,

    /// Treat null in these columns as an unchanged value; `*` for all columns
    #[arg(long, value_delimiter = ',')]
    pub(crate) ignore_null: Vec<String>,

    /// Use these columns, for example as order, but do not store them
    #[arg(long, value_delimiter = ',')]
    pub(crate) drop_columns: Vec<String>,

    /// Partition a new table by these columns, as Hive folders
    #[arg(long, value_delimiter = ',')]
    pub(crate) partition_by: Vec<String>,

    /// Merge only records of this source table, `schema.table`, from Debezium or DMS files with several tables; `*`
    /// merges each table into its own target
    #[arg(long)]
    pub(crate) table: Option<String>,

    /// Apply this contract, with columns, types, key and order, as TOML or JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<String>,

    /// Use this state root, a path or URL, instead of the default place
    #[arg(long)]
    pub(crate) state: Option<String>,

    /// Keep no tombstones: a late record restores a deleted row
    #[arg(long)]
    pub(crate) no_tombstones: bool,

    /// Stop if more than this share of the rows would be deleted, in percent; tables of up to 1,000 rows have no
    /// limit
    #[arg(long, default_value = "30", value_parser = parse_percent, value_name = "PERCENT")]
    pub(crate) max_deleted: f64,

    /// Choose what happens to invalid records
    #[arg(long, value_enum, default_value = "fail")]
    pub(crate) bad_rows: BadRowsName,

    /// Stop and change nothing if more than this share of the records would be quarantined, in percent
    #[arg(long, default_value = "0.1", value_parser = parse_percent, value_name = "PERCENT")]
    pub(crate) max_quarantined: f64,

    /// Limit the memory of change records and row groups, such as `512MB`. Beyond it, records are spilled to a temporary
    /// file, and fewer row groups are processed at a time [default: half of the memory of the machine or container]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub(crate) memory: Option<usize>,

    /// Apply a new full load: the newest record of each key replaces the stored row, even if the stored row is newer
    /// by its order. Rows without a record remain unless --delete-missing is given
    #[arg(long)]
    pub(crate) reload: bool,

    /// With --reload, delete rows that have no record in the files
    #[arg(long, requires = "reload")]
    pub(crate) delete_missing: bool,

    /// Choose how to order records of a database server that has not been seen before, such as after a MySQL failover
    #[arg(long, value_enum, default_value = "fail")]
    pub(crate) new_server: NewServerName,

    /// Accept folders and globs without files, and a --table without records
    #[arg(long)]
    pub(crate) allow_empty: bool,

    /// Limit the decompressed or decoded size of one change file [default: 250 times the size of compressed text, at
    /// least 64 MiB; 2,000 times the size of a Parquet or Avro file, at least 256 MiB]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub(crate) max_decompressed: Option<usize>,

    /// Limit the size of one record in a text file: a line of JSON or a record of CSV [default: 64 MiB]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub(crate) max_record: Option<usize>,

    #[command(flatten)]
    pub(crate) csv: CsvArgs,

    #[command(flatten)]
    pub(crate) parquet: ParquetArgs,

    /// Read this text as an unchanged value, as set in the connector (`unavailable.value.placeholder`); or `hex:` and
    /// digits
    #[arg(long)]
    pub(crate) placeholder: Option<String>,

    /// Choose what happens to a record with the order of the stored row and other content
    #[arg(long, value_enum, default_value = "correct")]
    pub(crate) ties: TiesName,

    /// Choose what happens to external files, which another program wrote into the table
    #[arg(long, value_enum, default_value = "adopt")]
    pub(crate) external_files: ExternalFilesName,

    /// Adopt a diverged table with the files found in its folder, as `biscuit adopt` does
    #[arg(long)]
    pub(crate) adopt: bool,

    /// Retain replaced files this long for slow readers, such as 2h, until `biscuit purge --retained` deletes them.
    /// Only for tables that are not read by listing the folder
    #[arg(long, default_value = "0s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) retention: Duration,

    /// Promise that no other run writes to the table, and accept stores that cannot detect one
    #[arg(long)]
    pub(crate) single_writer: bool,

    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Whether these are the options for one of the tables of `--table '*'`.
    #[arg(skip)]
    pub(crate) of_many: bool,
}

impl MergeArgs {
    /// Returns the options for one of the tables of `--table '*'`, with its name filled into target, state root and
    /// contract.
    ///
    /// # Errors
    /// Errors of a [`PathTemplate`], such as `InvalidName`.
    pub(crate) fn of_table(&self, name: &SourceTable) -> biscuit_core::Result<Self> {
        let names = [
            ("db", name.database.as_deref().unwrap_or_default()),
            ("schema", name.schema.as_deref().unwrap_or_default()),
            ("table", name.table.as_str()),
        ];
        let fill = |text: &String| PathTemplate::new(text).fill(&names);
        Ok(Self {
            target: fill(&self.target)?,
            state: self.state.as_ref().map(fill).transpose()?,
            schema: self.schema.as_ref().map(fill).transpose()?,
            table: Some(name.to_string()),
            of_many: true,
            ..self.clone()
        })
    }
}

/// Parses a percentage from 0 to 100, with or without the sign.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok(p),
        _ => Err("write a percentage from 0 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_may_have_their_sign() {
        assert_eq!(parse_percent("12.5%"), Ok(12.5));
        assert!(parse_percent("101").is_err() && parse_percent("x").is_err());
    }
}
