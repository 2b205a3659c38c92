//! A crate outside of the workspace that uses single crates of the family: the merge of data frames alone, the
//! journal alone, and a job with a sink of its own.

use std::sync::{Arc, Mutex};

use biscuit_core::{CommitId, Job, Outcome, Result, Run, Sink, Source, WriteReceipt, async_trait};

/// A sink of this crate, which depends only on `biscuit-core`.
#[derive(Debug, Default)]
pub struct Ledger(pub Mutex<Vec<(CommitId, Vec<i64>)>>);

#[async_trait]
impl Sink<Vec<i64>> for Ledger {
    async fn write(&self, _: &Run, commit: &CommitId, value: Vec<i64>) -> Result<WriteReceipt> {
        let mut entries = self.0.lock().expect("no holder of this lock panics");
        let known = entries.iter().any(|(id, _)| id == commit);
        let rows = value.len() as u64;
        if !known {
            entries.push((commit.clone(), value));
        }
        let outcome = if known { Outcome::Unchanged } else { Outcome::Committed };
        Ok(WriteReceipt::new(commit.clone(), outcome, rows, "ledger"))
    }
}

/// A job of this crate.
pub struct Copy {
    /// Source of the numbers.
    pub from: Arc<dyn Source<Vec<i64>>>,
    /// Sink of the numbers.
    pub to: Arc<dyn Sink<Vec<i64>>>,
}

#[async_trait]
impl Job for Copy {
    type Output = u64;

    async fn run(&self, run: &Run) -> Result<u64> {
        let numbers = self.from.read(run).await?;
        Ok(self.to.write(run, &run.commit_id("copy"), numbers).await?.rows)
    }
}

#[cfg(test)]
mod tests {
    use biscuit_apply::{MergeSpec, merge_frames};
    use biscuit_change::ChangeColumns;
    use biscuit_core::{Clock, RunId, SystemClock};
    use biscuit_journal::{Journal, JournalOptions, TableStorage};
    use datafusion::prelude::*;
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;

    #[tokio::test]
    async fn data_frames_are_merged_without_a_table() {
        let current = dataframe!("id" => [1, 2], "seq" => [1, 7], "v" => ["a", "b"]).expect("the frame is valid");
        let changes =
            dataframe!("id" => [1, 2, 3], "seq" => [2, 3, 1], "v" => ["x", "late", "new"], "op" => ["u", "u", "c"]);
        let spec = MergeSpec::new(["id"], ["seq"]).expect("the specification is valid");
        let columns = ChangeColumns::default().with_op("op");
        let merged = merge_frames(current, changes.expect("the frame is valid"), &spec, &columns).await;
        let (frame, report) = merged.expect("the merge succeeds");
        assert_eq!((report.verdicts.updated, report.verdicts.late, report.verdicts.inserted), (1, 1, 1));
        assert_eq!(frame.count().await.expect("the rows are readable"), 3);
    }

    #[tokio::test]
    async fn journal_commits_a_file_without_a_dataset() {
        let storage = TableStorage::durable(Arc::new(InMemory::new()));
        let journal = Journal::new(storage, Path::from("lake/notes"), JournalOptions::default());
        let observed = journal.observe().await.expect("the base is observed");
        let mut table_commit = journal.begin_commit(&observed);
        table_commit.stage("", "txt", "hello".into()).await.expect("the file is staged");
        assert_eq!(table_commit.commit().await.expect("the commit succeeds").version, 1);
        assert_eq!(journal.view().await.expect("the table is readable").files.len(), 1);
    }

    struct Numbers;

    #[async_trait]
    impl Source<Vec<i64>> for Numbers {
        async fn read(&self, _: &Run) -> Result<Vec<i64>> {
            Ok(vec![1, 2, 3])
        }
    }

    #[tokio::test]
    async fn job_writes_to_a_sink_of_this_crate_once() {
        let ledger = Arc::new(Ledger::default());
        let job = Copy { from: Arc::new(Numbers), to: ledger.clone() };
        let run = Run::new("copy", RunId::new("monday"), SystemClock.now());
        assert_eq!(job.run(&run).await.expect("the run succeeds"), 3);
        assert_eq!(job.run(&run.with_attempt(2)).await.expect("the second attempt succeeds"), 3);
        assert_eq!(ledger.0.lock().expect("no thread panicked while it had the lock").len(), 1);
    }
}
