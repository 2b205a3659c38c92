//! Outputs of jobs, and the receipts of their writes.

use crate::{CommitId, Outcome, Result, Run};

/// Result of a successful write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteReceipt {
    /// Commit id of the write.
    pub commit: CommitId,
    /// Effect of this call: [`Outcome::Committed`] if it made a change. It is [`Outcome::Unchanged`] if the sink
    /// already has a write with this commit id, such as that of an earlier attempt, or if its content is already equal.
    pub outcome: Outcome,
    /// Number of rows that the sink has from this commit. A retry reports the same number as the first write.
    pub rows: u64,
    /// Location of the written rows in terms of the sink, such as a version of a table or a URL.
    pub place: String,
}

impl WriteReceipt {
    /// Creates the receipt of a write of `rows` rows. `place` is the location of the rows in terms of the sink.
    pub fn new(commit: CommitId, outcome: Outcome, rows: u64, place: impl Into<String>) -> Self {
        Self { commit, outcome, rows, place: place.into() }
    }
}

/// Output of a job.
///
/// `write` is idempotent by commit id: a second call with the same id and the same value changes nothing and returns
/// a receipt for the same rows. `write` returns after the rows are durable. A failed write leaves nothing that a
/// reader can see.
#[async_trait::async_trait]
pub trait Sink<T>: Send + Sync {
    /// Writes `value` under the id `commit`.
    ///
    /// # Errors
    /// The error of the sink. A failed write leaves nothing visible, and can be repeated with the same id.
    async fn write(&self, run: &Run, commit: &CommitId, value: T) -> Result<WriteReceipt>;
}

// Compile-time check that the trait is object-safe: jobs hold their sinks as `Arc<dyn Sink<T>>`.
const _: fn(&dyn Sink<()>) = |_| {};
