//! The job of `books.toml`, for programs and their tests.

use biscuit_core::Result;
use biscuit_job::JobSpec;

/// The job, with these values in place of its own.
///
/// # Errors
/// `InvalidJob` for a path that is none.
pub fn job(set: &[(String, String)]) -> Result<JobSpec> {
    JobSpec::from_toml(include_str!("../books.toml"), set)
}
