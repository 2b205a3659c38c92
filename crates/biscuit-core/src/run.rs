use std::fmt;

use crate::{CommitId, Instant, ParsedArguments};

/// The name of one scheduled execution; its attempts share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

impl RunId {
    /// A run id as the scheduler gives it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
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
    /// The job's name.
    pub job: String,
    /// The scheduled execution this is an attempt of.
    pub id: RunId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When this attempt started.
    pub start: Instant,
    /// The arguments it was started with.
    pub arguments: ParsedArguments,
}

impl Run {
    /// The first attempt of the run `id` of `job`, without arguments.
    pub fn new(job: impl Into<String>, id: RunId, start: Instant) -> Self {
        Self { job: job.into(), id, attempt: 1, start, arguments: ParsedArguments::default() }
    }

    /// The same run, as its n-th attempt.
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same run with arguments.
    pub fn with_arguments(mut self, arguments: ParsedArguments) -> Self {
        self.arguments = arguments;
        self
    }

    /// The commit id of one effect of this run: made of job, run and `effect`, the same for every attempt.
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
