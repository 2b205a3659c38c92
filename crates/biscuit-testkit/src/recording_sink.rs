use std::collections::BTreeMap;
use std::sync::Mutex;

use biscuit_core::{CommitId, Result, Run, Sink, SinkOutcome, WriteReceipt, async_trait};

/// A value that a sink received.
#[derive(Debug, Clone)]
pub struct RecordedWrite<T> {
    /// Commit id of the write.
    pub commit: CommitId,
    /// Number of the attempt that wrote the value first.
    pub attempt: u32,
    /// The value.
    pub value: T,
}

/// A sink that keeps the values it receives, once for each commit id, as every sink must.
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
        let receipt =
            |outcome, rows| WriteReceipt { commit: commit.clone(), outcome, rows, place: "memory".to_owned() };
        if let Some(rows) = by_commit.get(commit) {
            return Ok(receipt(SinkOutcome::AlreadyDone, *rows));
        }
        by_commit.insert(commit.clone(), rows);
        let written = RecordedWrite { commit: commit.clone(), attempt: run.attempt, value };
        self.written.lock().expect("no holder of this lock panics").push(written);
        Ok(receipt(SinkOutcome::Changed, rows))
    }
}
