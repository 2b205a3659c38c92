//! The table that a command works on, and the options of commands that only read, check or repair a table.
//!
//! The documentation comments of the fields and variants below are the help texts.

use clap::Args;

/// The table that a command works on.
#[derive(Debug, Clone, Args)]
pub(crate) struct TableArgs {
    /// Path or URL of the table
    pub(crate) url: String,

    /// Use this state root, a path or URL, instead of the default place
    #[arg(long)]
    pub(crate) state: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Also fence and clean up after a run that died before its commit. A run that is still alive has to start again
    #[arg(long)]
    pub(crate) fence: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print what would be adopted, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Check that these columns are a unique key [default: key of the merges]
    #[arg(long, value_delimiter = ',')]
    pub(crate) key: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowTableArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print the rows of the period that contains this instant, for a table of periods
    #[arg(long, value_name = "INSTANT")]
    pub(crate) as_of: Option<String>,

    /// Print at most this number of rows
    #[arg(long)]
    pub(crate) limit: Option<usize>,

    /// Print only these columns
    #[arg(long, value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
}
