//! The job of `books.toml`, for programs and their tests.

use biscuit_core::Result;
use biscuit_job::JobSpec;

/// Returns the job, with these values in place of the values in its file.
///
/// # Errors
/// `InvalidJob` for a path that does not exist in the job file.
pub fn job(set: &[(String, String)]) -> Result<JobSpec> {
    JobSpec::from_toml(include_str!("../books.toml"), set)
}
