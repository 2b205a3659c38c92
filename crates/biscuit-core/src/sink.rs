use std::fmt;

use crate::{Result, Run};

/// Names one effect of one run: the same for every attempt, so that a sink can tell a retry from something new.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(String);

impl CommitId {
    /// A commit id from any text that is the same for every attempt.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SinkOutcome {
    /// The write made a change.
    Changed,
    /// The commit id had been written before, or nothing differed: nothing was done.
    AlreadyDone,
}

/// Proof of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteReceipt {
    /// The commit this is the receipt of.
    pub commit: CommitId,
    /// Whether this very call changed anything.
    pub outcome: SinkOutcome,
    /// Rows the sink holds of this commit.
    pub rows: u64,
    /// Where it is, in the sink's own terms: a version, a URL.
    pub place: String,
}

/// Where a job's output goes.
///
/// `write` is idempotent for the commit id: a second call with the same id and the same value changes nothing and
/// returns a receipt for the same rows. It returns only when the rows are durable, and a failed write leaves nothing
/// that a reader could see.
#[async_trait::async_trait]
pub trait Sink<T>: Send + Sync {
    /// Writes `value` under `commit`.
    async fn write(&self, run: &Run, commit: &CommitId, value: T) -> Result<WriteReceipt>;
}

const _: fn(&dyn Sink<()>) = |_| {};
