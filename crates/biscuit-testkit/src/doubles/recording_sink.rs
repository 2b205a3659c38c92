use std::collections::BTreeMap;
use std::sync::Mutex;

use biscuit_core::{CommitId, Outcome, Result, Run, Sink, WriteReceipt, async_trait};

/// A value that a sink received.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecordedWrite<T> {
    /// Commit id of the write.
    pub commit: CommitId,
    /// Number of the attempt that wrote the value first.
    pub attempt: u32,
    /// The value.
    pub value: T,
}

/// A sink that keeps the values it receives, once for each commit id, as every sink must.
///
/// ```
/// use biscuit_core::{Instant, Run, RunId, Sink};
/// use biscuit_testkit::RecordingSink;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let sink = RecordingSink::counting(|rows: &Vec<i64>| rows.len() as u64);
/// let run = Run::new("job", RunId::new("monday"), Instant::from_micros(0));
/// for attempt in [1, 2] {
///     sink.write(&run.clone().with_attempt(attempt), &run.commit_id("orders"), vec![1, 2]).await?;
/// }
/// // The second attempt has the same commit id, and is not recorded.
/// assert_eq!(sink.written().len(), 1);
/// assert_eq!((sink.written()[0].attempt, sink.written()[0].value.len()), (1, 2));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RecordingSink<T> {
    written: Mutex<Vec<RecordedWrite<T>>>,
    by_commit: Mutex<BTreeMap<CommitId, u64>>,
    rows: fn(&T) -> u64,
}

impl<T: Clone> RecordingSink<T> {
    /// Creates a sink that counts the rows of a value with `rows`.
    pub fn counting(rows: fn(&T) -> u64) -> Self {
        Self { written: Mutex::default(), by_commit: Mutex::default(), rows }
    }

    /// Returns all values in order, without repeated commits.
    pub fn written(&self) -> Vec<RecordedWrite<T>> {
        self.written.lock().expect("no holder of this lock panics").clone()
    }
}

#[async_trait]
impl<T: Clone + Send + Sync> Sink<T> for RecordingSink<T> {
    async fn write(&self, run: &Run, commit: &CommitId, value: T) -> Result<WriteReceipt> {
        let rows = (self.rows)(&value);
        let mut by_commit = self.by_commit.lock().expect("no holder of this lock panics");
        let receipt = |outcome, rows| WriteReceipt::new(commit.clone(), outcome, rows, "memory");
        if let Some(rows) = by_commit.get(commit) {
            return Ok(receipt(Outcome::Unchanged, *rows));
        }
        by_commit.insert(commit.clone(), rows);
        let written = RecordedWrite { commit: commit.clone(), attempt: run.attempt, value };
        self.written.lock().expect("no holder of this lock panics").push(written);
        Ok(receipt(Outcome::Committed, rows))
    }
}
