//! The command line: global options and the commands.
//!
//! The documentation comments of the fields and variants below are the help texts.

use std::time::Duration;

use biscuit_journal::OtherTableFormats;
use clap::{Parser, Subcommand, ValueEnum};

use crate::args::aws::AwsArgs;
use crate::args::duration::parse_duration;
use crate::args::merge::MergeCommand;
use crate::args::quarantine::QuarantineCommand;
use crate::args::table::{AdoptArgs, RecoverArgs, ShowTableArgs, TableArgs, VerifyArgs};
use crate::commands::bookmark::BookmarkCommand;
use crate::commands::inspect::doctor::DoctorArgs;
use crate::commands::inspect::explain::ExplainCodeArgs;
use crate::commands::inspect::schema::SchemaCommand;
use crate::commands::maintain::forget::ForgetArgs;
use crate::commands::maintain::lifecycle::LifecycleCommand;
use crate::commands::maintain::purge::PurgeArgs;
use crate::commands::pii::PiiCommand;
use crate::commands::write::compact::CompactArgs;
use crate::commands::write::periods::PeriodsArgs;
use crate::commands::write::run::{ImpactArgs, RunArgs};
use crate::commands::write::snapshot::SnapshotCommand;

/// Run data-lake jobs on plain Parquet tables
#[derive(Debug, Parser)]
#[command(name = "biscuit", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print keys and values of rows in errors and logs
    #[arg(long, global = true)]
    pub(crate) show_values: bool,

    /// Read and write encrypted Parquet files with the keys of this key file, a path or URL. A new file is encrypted
    /// like the files that it follows
    #[arg(long, global = true, value_name = "FILE", env = "BISCUIT_FILE_KEYS", hide_env_values = true)]
    pub(crate) file_keys: Option<String>,

    /// Treat the files of Delta Lake, Iceberg, Hudi and Paimon tables as plain files, ignoring their logs
    #[arg(long, global = true)]
    pub(crate) allow_other_formats: bool,

    /// Write logs to standard error in this format
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Also write the report or the error as JSON to this path or URL
    #[arg(long, global = true, value_name = "PATH_OR_URL")]
    pub(crate) report: Option<String>,

    /// After a signal, wait at most this long for a committed version to be finished, such as 30s or 5m [default:
    /// 30s]
    // No default in clap: `purge` has an option of the same name with another meaning.
    #[arg(long, global = true, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) grace: Option<Duration>,

    #[command(flatten)]
    pub(crate) aws: AwsArgs,
}

impl Cli {
    /// Returns what happens to folders of other table formats.
    pub(crate) fn other_formats(&self) -> OtherTableFormats {
        if self.allow_other_formats { OtherTableFormats::Allow } else { OtherTableFormats::Refuse }
    }
}

/// Values of `--log-format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Commands of `biscuit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Merge change files into the current state of a table
    Merge(Box<MergeCommand>),
    /// Merge change files into a table with one full copy per period; late and back-dated changes reach every period
    /// they affect
    Snapshot(Box<SnapshotCommand>),
    /// Show the periods of a table as a chart
    Periods(PeriodsArgs),
    /// Inspect and retry quarantined records
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Run a job described by a file: raw files in, clean tables out, each input file read once
    Run(Box<RunArgs>),
    /// List the partitions of a table that have rows of given input files or runs
    Impact(ImpactArgs),
    /// Infer, print, check and compare contracts
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Inspect, rewind and reset bookmarks: which input files were read, and by which run
    #[command(subcommand)]
    Bookmark(BookmarkCommand),
    /// Handle personal data: create keys, scan columns, apply a policy, reveal treated values
    #[command(subcommand)]
    Pii(PiiCommand),
    /// Forget subjects: delete their keys, the values of their tokens, and their rows
    Forget(Box<ForgetArgs>),
    /// Finish an unfinished version and clean up after runs that died; safe to schedule
    Recover(RecoverArgs),
    /// Adopt the files found in the folder of a table: external files, or the files of a diverged table
    Adopt(AdoptArgs),
    /// Combine small files and row groups into large ones; optionally sort the rows or change the codec
    Compact(CompactArgs),
    /// Delete old files, retained files or orphan files, by a plan that can be printed first
    Purge(Box<PurgeArgs>),
    /// Show, plan and apply the S3 lifecycle rules of a table
    #[command(subcommand)]
    Lifecycle(LifecycleCommand),
    /// Test what a store can do, with temporary objects, and report what depends on it
    Doctor(DoctorArgs),
    /// List the versions of a table
    History(TableArgs),
    /// Check a table for duplicate keys and for unreadable, missing, external and orphan files
    Verify(VerifyArgs),
    /// Print the rows of a table
    Show(ShowTableArgs),
    /// Print kind, cause and remedy of an error code, or list all codes
    Explain(ExplainCodeArgs),
}

impl Command {
    /// Returns whether a commit is the only change that the command makes.
    ///
    /// Such a command has changed nothing if it is stopped before its commit.
    pub(crate) fn changes_by_commits_only(&self) -> bool {
        !matches!(
            self,
            Self::Pii(_) | Self::Forget(_) | Self::Recover(_) | Self::Purge(_) | Self::Lifecycle(_) | Self::Doctor(_)
        )
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
}
