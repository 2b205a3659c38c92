//! Runs of jobs, and the names of their effects.

use std::fmt;

use crate::Instant;

/// Name of one scheduled execution. All attempts of the execution share it.
///
/// ```
/// use biscuit_core::{Run, RunId};
///
/// let id = RunId::new("2024-02-29");
/// let run = Run::new("daily", id.clone(), "2024-03-01T02:00:00Z".parse()?);
/// let again = Run::new("daily", id, "2024-03-01T02:10:00Z".parse()?).with_attempt(2);
/// assert_eq!(run.id, again.id);
/// assert_eq!((run.attempt, again.attempt), (1, 2));
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

impl RunId {
    /// Creates a run id from the name that the scheduler uses, such as `2024-02-29`.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One execution of a job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Run {
    /// Name of the job.
    pub job: String,
    /// Id of the scheduled execution.
    pub id: RunId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Time at which this attempt started.
    pub start: Instant,
}

impl Run {
    /// Creates the first attempt of the run `id` of `job`.
    pub fn new(job: impl Into<String>, id: RunId, start: Instant) -> Self {
        Self { job: job.into(), id, attempt: 1, start }
    }

    /// Sets the number of the attempt, from 1. Default: 1. The number is not part of a commit id.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Returns the commit id of one effect of this run. It consists of the job, the run and `effect`, and is the same
    /// for each attempt.
    ///
    /// ```
    /// use biscuit_core::{Instant, Run, RunId};
    ///
    /// let run = Run::new("daily", RunId::new("2024-02-29"), Instant::from_micros(0));
    /// assert_eq!(run.commit_id("orders"), run.clone().with_attempt(2).commit_id("orders"));
    /// assert_ne!(run.commit_id("orders"), run.commit_id("lines"));
    /// ```
    pub fn commit_id(&self, effect: &str) -> CommitId {
        CommitId::new(format!("{}/{}/{effect}", self.job, self.id))
    }
}

/// Name of one effect of a scheduled run. It is the same for each attempt, so that a sink can distinguish a retry
/// from a new write. [`Run::commit_id`] builds it.
///
/// ```
/// use biscuit_core::{CommitId, Instant, Run, RunId};
///
/// let run = Run::new("daily", RunId::new("2024-02-29"), Instant::from_micros(0));
/// let commit = run.commit_id("orders");
/// assert_eq!(commit, CommitId::new("daily/2024-02-29/orders"));
/// assert_eq!(commit.as_str(), commit.to_string());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(String);

impl CommitId {
    /// Creates a commit id from a text. The text must be the same for each attempt of a run, and different for each
    /// run.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
