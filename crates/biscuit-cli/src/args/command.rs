use std::time::Duration;

use biscuit_change::SourceTable;
use biscuit_dataset::PathTemplate;
use biscuit_journal::OtherTableFormats;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::args::aws::AwsArgs;
use crate::args::bookmark::BookmarkArgs;
use crate::args::csv::CsvArgs;
use crate::args::parquet::{ParquetArgs, bytes};
use crate::commands::bookmark::BookmarkCommand;
use crate::commands::compact::CompactArgs;
use crate::commands::doctor::DoctorArgs;
use crate::commands::forget::ForgetArgs;
use crate::commands::lifecycle::LifecycleCommand;
use crate::commands::periods::PeriodsArgs;
use crate::commands::pii::PiiCommand;
use crate::commands::purge::PurgeArgs;
use crate::commands::run::{ImpactArgs, RunArgs};
use crate::commands::schema::SchemaCommand;
use crate::commands::snapshot::SnapshotCommand;

/// Production data-lake jobs on plain Parquet.
#[derive(Debug, Parser)]
#[command(name = "biscuit", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print keys and values of rows in error messages
    #[arg(long, global = true)]
    pub(crate) show_values: bool,

    /// The key file of Parquet files that are encrypted: a path or URL; new files are encrypted like those that they follow
    #[arg(long, global = true, value_name = "FILE", env = "BISCUIT_FILE_KEYS", hide_env_values = true)]
    pub(crate) file_keys: Option<String>,

    /// Take the files of Delta Lake, Iceberg, Hudi and Paimon tables as they are, whatever their logs say of them
    #[arg(long, global = true)]
    pub(crate) allow_other_formats: bool,

    /// How logs are written to standard error
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Also write the report, or the error, as JSON to this path or URL
    #[arg(long, global = true, value_name = "PATH_OR_URL")]
    pub(crate) report: Option<String>,

    /// How long a run that is told to stop may take to finish what it has committed, as 30s or 5m [default: 30s]
    // Without a default here, since `purge` has its own meaning for it.
    #[arg(long, global = true, value_parser = duration, value_name = "DURATION")]
    pub(crate) grace: Option<Duration>,

    #[command(flatten)]
    pub(crate) aws: AwsArgs,
}

impl Cli {
    /// What to do with folders of other table formats.
    pub(crate) fn other_formats(&self) -> OtherTableFormats {
        if self.allow_other_formats { OtherTableFormats::Allow } else { OtherTableFormats::Refuse }
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(0) => Ok(Duration::ZERO),
        Ok(n) => Err(format!("{n} has no unit: write {n}s, {n}m, {n}h or {n}d")),
        Err(_) => biscuit_core::parse_duration(text).map_err(|e| e.message().to_owned()),
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Merge change files into a table of current rows
    Merge(Box<MergeCommand>),
    /// Bring change files to a table that holds one full copy per period, late and back-dated ones to every period they belong to
    Snapshot(Box<SnapshotCommand>),
    /// Draw the periods of a table
    Periods(PeriodsArgs),
    /// Look at the records that merges put aside, and try them again
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Run a job: raw files in, clean tables out, each input once
    Run(Box<RunArgs>),
    /// Name the partitions of a table that input files, or runs, have reached
    Impact(ImpactArgs),
    /// Learn, print, check and compare contracts
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Which input files were read, by which run; why one is not; forget, rewind
    #[command(subcommand)]
    Bookmark(BookmarkCommand),
    /// Personal data: keys, what columns hold, tables in which it is treated, and the way back
    #[command(subcommand)]
    Pii(PiiCommand),
    /// Forget subjects: delete their keys, what is behind their tokens, their rows
    Forget(Box<ForgetArgs>),
    /// Finish what a run left unfinished, and clean up after dead runs; safe to schedule
    Recover(RecoverArgs),
    /// Make what is in the folder the table: external files, or a table that is not what its journal says
    Adopt(AdoptArgs),
    /// Make few large files and row groups of many small ones; sort them, or change their codec
    Compact(CompactArgs),
    /// Delete what is old, superseded or left over, and nothing else
    Purge(Box<PurgeArgs>),
    /// The rules by which S3 deletes by itself
    #[command(subcommand)]
    Lifecycle(LifecycleCommand),
    /// Try what a store can do, on objects of its own, and say what rests on it
    Doctor(DoctorArgs),
    /// List the versions of a table
    History(TableArgs),
    /// Look for duplicate keys and for unreadable, missing, external and orphan files
    Verify(VerifyArgs),
    /// Print the rows of a table
    Show(ShowArgs),
}

impl Command {
    /// Whether a command that is stopped before its commit has changed nothing.
    pub(crate) fn changes_by_commits_only(&self) -> bool {
        !matches!(
            self,
            Self::Pii(_) | Self::Forget(_) | Self::Recover(_) | Self::Purge(_) | Self::Lifecycle(_) | Self::Doctor(_)
        )
    }
}

/// Which table.
#[derive(Debug, Clone, Args)]
pub(crate) struct TableArgs {
    /// The table: a path or URL
    pub(crate) url: String,

    /// Where the table's state is, if not in the default place
    #[arg(long)]
    pub(crate) state: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Also clean up after a run that died before its commit; a run that is alive has to start again
    #[arg(long)]
    pub(crate) fence: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Say what would be adopted, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// The key columns; those of the merges, if not given
    #[arg(long, value_delimiter = ',')]
    pub(crate) key: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print the rows of the period that holds this instant, of a table that holds one full copy per period
    #[arg(long, value_name = "INSTANT")]
    pub(crate) as_of: Option<String>,

    /// Print at most so many rows
    #[arg(long)]
    pub(crate) limit: Option<usize>,

    /// Print these columns only
    #[arg(long, value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// Parquet, Avro, JSON lines or CSV with an operation column or a delete flag
    Rows,
    /// Debezium envelopes, whole or flattened
    Debezium,
    /// What AWS DMS writes to S3: full loads, changes and transactions, CSV or Parquet
    Dms,
}

impl FormatName {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Debezium => "debezium",
            Self::Dms => "dms",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum ExternalFilesName {
    /// Read them, and make them part of the table
    #[default]
    Adopt,
    /// Stop
    Fail,
    /// Leave them alone
    Ignore,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum TiesName {
    /// The later run wins, and the record counts as corrected
    #[default]
    Correct,
    /// Stop
    Fail,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum NewServerName {
    /// They cannot be compared with those before: stop
    #[default]
    Fail,
    /// They come after all that was merged: the server has taken over
    Newer,
    /// They are in the log that is known: several servers write into it
    Same,
    /// They are what was left of the log of a server that another one has taken over from
    Older,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BadRowsName {
    /// They stop the run
    #[default]
    Fail,
    /// They are put aside with the reason
    Quarantine,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Count the records by reason, column and file
    List(TableArgs),
    /// Print the records, with their raw content
    Show(QuarantineShowArgs),
    /// Merge the records again, read as the options say; those that cannot be used stay
    Retry(Box<MergeArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineShowArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print records with this code only
    #[arg(long)]
    pub(crate) code: Option<String>,

    /// Print at most so many records
    #[arg(long)]
    pub(crate) limit: Option<usize>,

    /// Open records that a job with `[pii]` has sealed, by its policy: once it is written down who asks for them
    #[arg(long, value_name = "FILE", requires = "reason", requires = "audit")]
    pub(crate) policy: Option<String>,

    /// What for
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Option<String>,

    #[command(flatten)]
    pub(crate) requester: AccessRequester,

    /// Where it is written down, line by line
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MergeCommand {
    /// Change files: paths or URLs of files, folders, or globs
    #[arg(long, required = true, num_args = 1.., value_name = "PATH_OR_URL")]
    pub(crate) changes: Vec<String>,

    #[command(flatten)]
    pub(crate) merge: MergeArgs,

    #[command(flatten)]
    pub(crate) bookmark: BookmarkArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MergeArgs {
    /// The table to merge into: a path or URL; created if it does not exist. With --table '*' it has places for `{schema}`
    /// and `{table}`
    #[arg(long, visible_alias = "dataset")]
    pub(crate) target: String,

    /// What the change files hold
    #[arg(long, value_enum)]
    pub(crate) format: FormatName,

    /// The columns that name an entity; from the contract, the records or the table, if not given
    #[arg(long, value_delimiter = ',')]
    pub(crate) key: Vec<String>,

    /// The columns that order its changes, or for Debezium fields like `source.lsn`; found like the key
    #[arg(long, value_delimiter = ',')]
    pub(crate) order: Vec<String>,

    /// The task's `TimestampColumnName`, in DMS files
    #[arg(long)]
    pub(crate) timestamp_column: Option<String>,

    /// The task's `CsvNullValue`, in DMS files [default: NULL]
    #[arg(long)]
    pub(crate) csv_null: Option<String>,

    /// The prefix of the columns with the key before an update, in DMS files [default: BI_]
    #[arg(long)]
    pub(crate) before_image: Option<String>,

    /// The names under which fields of Debezium's `source` are stored [default: `__lsn` for `source.lsn`]
    #[arg(long, value_delimiter = ',')]
    pub(crate) order_as: Vec<String>,

    /// The column of operation codes, which is not stored
    #[arg(long)]
    pub(crate) op: Option<String>,

    /// Operation codes of other tools, as CODE=delete: upsert, delete, truncate or ignore
    #[arg(long, value_delimiter = ',', value_name = "CODE=MEANING")]
    pub(crate) op_map: Vec<String>,

    /// The column whose truth deletes the row, or that has the time of the delete; it is not stored
    #[arg(long)]
    pub(crate) delete_column: Option<String>,

    /// Operation codes for records of equal order: the later in the list wins
    #[arg(long, value_delimiter = ',')]
    pub(crate) op_rank: Vec<String>,

    /// Columns in which null means "not given"; `*` for all
    #[arg(long, value_delimiter = ',')]
    pub(crate) ignore_null: Vec<String>,

    /// Columns that are used but not stored
    #[arg(long, value_delimiter = ',')]
    pub(crate) drop_columns: Vec<String>,

    /// Columns that make Hive folders, for a new table
    #[arg(long, value_delimiter = ',')]
    pub(crate) partition_by: Vec<String>,

    /// The table whose records are wanted, `schema.table`, in Debezium and DMS files with several; `*` for all of them
    #[arg(long)]
    pub(crate) table: Option<String>,

    /// The contract: columns, types, key and order, as TOML or JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<String>,

    /// Where the table's state is, if not in the default place
    #[arg(long)]
    pub(crate) state: Option<String>,

    /// Do not remember deletes: a late record brings a deleted row back
    #[arg(long)]
    pub(crate) no_tombstones: bool,

    /// The most rows that may be deleted from a table of more than 1,000, in percent
    #[arg(long, default_value = "30", value_parser = percent, value_name = "PERCENT")]
    pub(crate) max_deleted: f64,

    /// What happens to records that cannot be used
    #[arg(long, value_enum, default_value = "fail")]
    pub(crate) bad_rows: BadRowsName,

    /// The most records that may be put aside, in percent; beyond it nothing is changed
    #[arg(long, default_value = "0.1", value_parser = percent, value_name = "PERCENT")]
    pub(crate) max_quarantined: f64,

    /// Memory that change records, and then row groups in work, may take together, such as `512MB`: records of Parquet files
    /// beyond it go on in a temporary file, and fewer row groups are worked on at a time [default: no limit]
    #[arg(long, value_parser = bytes, value_name = "BYTES")]
    pub(crate) memory: Option<usize>,

    /// Apply a new full load: the newest record of each key in the files replaces the stored row, even if that row is newer by its order.
    /// Rows without a record stay, unless --delete-missing
    #[arg(long)]
    pub(crate) reload: bool,

    /// With --reload: the files are all that there is, and rows without a record are deleted
    #[arg(long, requires = "reload")]
    pub(crate) delete_missing: bool,

    /// What the log positions of a database server mean that no record came from before, as after a failover of MySQL
    #[arg(long, value_enum, default_value = "fail")]
    pub(crate) new_server: NewServerName,

    /// Let folders and globs have no file, and --table no record
    #[arg(long)]
    pub(crate) allow_empty: bool,

    /// What one change file may be unpacked or decoded to [default: 4 GiB for text, and 250 times a packed file; 2,000 times a file of
    /// Parquet or Avro; small files 64 and 256 MiB at least]
    #[arg(long, value_parser = bytes, value_name = "BYTES")]
    pub(crate) max_decompressed: Option<usize>,

    #[command(flatten)]
    pub(crate) csv: CsvArgs,

    #[command(flatten)]
    pub(crate) parquet: ParquetArgs,

    /// What stands for values that were not available, as the connector has it: a text, or `hex:` and digits
    #[arg(long)]
    pub(crate) placeholder: Option<String>,

    /// What happens to records whose order is stored already, with other content
    #[arg(long, value_enum, default_value = "correct")]
    pub(crate) ties: TiesName,

    /// What happens to files in the table that somebody else wrote
    #[arg(long, value_enum, default_value = "adopt")]
    pub(crate) external_files: ExternalFilesName,

    /// If the table is not what its journal says, take it as it is found; see `biscuit adopt`
    #[arg(long)]
    pub(crate) adopt: bool,

    /// How long replaced files stay for readers that are slow to open them, such as 2h: `biscuit purge --retained` deletes them
    /// then. Only for tables that nobody reads by listing the folder
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
    pub(crate) retention: Duration,

    /// There is no other writer: accept stores that cannot tell
    #[arg(long)]
    pub(crate) single_writer: bool,

    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Whether this is about one of the tables that `*` stands for.
    #[arg(skip)]
    pub(crate) of_many: bool,
}

impl MergeArgs {
    /// The options for one of the tables that `*` stands for: its name is filled in where there are places for it.
    ///
    /// # Errors
    /// Those of a [`PathTemplate`].
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

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok(p),
        _ => Err("a percentage from 0 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn percentages_may_have_their_sign() {
        assert_eq!(percent("12.5%"), Ok(12.5));
        assert!(percent("101").is_err() && percent("x").is_err());
    }
}

/// Who is written down as the one who asked for personal data.
#[derive(Debug, Args)]
pub(crate) struct AccessRequester {
    /// Who asks [default: the user's name]
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "unknown",
        hide_default_value = true
    )]
    pub(crate) who: String,
}
