//! Options of `biscuit quarantine`.
//!
//! The documentation comments of the fields and variants below are the help texts.

use clap::{Args, Subcommand};

use crate::args::access::AccessRequester;
use crate::args::merge::MergeArgs;
use crate::args::table::TableArgs;

/// Commands of `biscuit quarantine`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Count the quarantined records by reason, column and file
    List(TableArgs),
    /// Print the quarantined records with their raw content
    Show(QuarantineShowArgs),
    /// Merge the quarantined records again with these options; invalid records remain quarantined
    Retry(Box<MergeArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineShowArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,

    /// Print only records with this error code
    #[arg(long)]
    pub(crate) code: Option<String>,

    /// Print at most this number of records
    #[arg(long)]
    pub(crate) limit: Option<usize>,

    /// Decrypt records that a job with `[pii]` has sealed, with the keys of this policy. The access is recorded in
    /// the audit file first
    #[arg(long, value_name = "FILE", requires = "reason", requires = "audit")]
    pub(crate) policy: Option<String>,

    /// Record this reason for the access
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Option<String>,

    #[command(flatten)]
    pub(crate) requester: AccessRequester,

    /// Append the record of the access to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<String>,
}
