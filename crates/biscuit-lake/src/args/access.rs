//! Options of commands that reveal personal data.

use clap::Args;

/// The person or program that asks for personal data, as recorded in the audit file.
#[derive(Debug, Args)]
pub(crate) struct AccessRequester {
    /// Record this name as the requester [default: name of the user]
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
