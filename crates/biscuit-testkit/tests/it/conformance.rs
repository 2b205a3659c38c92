//! The conformance suites accept correct implementations and find violations.

use std::sync::{Arc, Mutex};

use biscuit_core::{
    CommitId, Error, ErrorCode, ErrorKind, Outcome, Result, Run, Sink, Source, WriteReceipt, async_trait,
};
use biscuit_journal::{TableStorage, store_error};
use biscuit_purge::execute;
use biscuit_testkit::conformance::{
    SinkCase, SinkWorld, check_deleter, check_sink, check_source, check_storage_source, check_store,
};
use biscuit_testkit::{MemorySource, RecordingSink};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

type Rows = Vec<i64>;

const UNLUCKY: ErrorCode = ErrorCode::new("Unlucky", ErrorKind::Data, "A row is 13.", "Remove the row.");

fn case() -> SinkCase<Rows> {
    SinkCase { first: vec![1, 2], second: vec![3], empty: vec![], failing: None }
}

/// A sink in memory that may violate a rule.
#[derive(Clone, Default)]
struct Memory {
    written: Arc<Mutex<Vec<(CommitId, Rows)>>>,
    broken: Option<&'static str>,
}

#[async_trait]
impl Sink<Rows> for Memory {
    async fn write(&self, _: &Run, commit: &CommitId, rows: Rows) -> Result<WriteReceipt> {
        let mut written = self.written.lock().expect("no thread panicked while it had the lock");
        let known = written.iter().any(|(id, _)| id == commit) && self.broken != Some("forgets commit ids");
        if self.broken == Some("is emptied by nothing") && rows.is_empty() {
            written.clear();
        }
        if self.broken == Some("keeps what failed") && rows.contains(&13) {
            written.push((commit.clone(), rows));
            return Err(Error::new(UNLUCKY, "a row is 13"));
        }
        if rows.contains(&13) {
            return Err(Error::new(UNLUCKY, "a row is 13"));
        }
        let outcome = if known { Outcome::Unchanged } else { Outcome::Committed };
        let receipt = WriteReceipt::new(commit.clone(), outcome, rows.len() as u64, "memory");
        if !known {
            written.push((commit.clone(), rows));
        }
        Ok(receipt)
    }
}

#[async_trait]
impl SinkWorld<Rows> for Memory {
    fn sink(&self) -> Arc<dyn Sink<Rows>> {
        Arc::new(self.clone())
    }

    async fn rows(&self) -> Vec<String> {
        self.written
            .lock()
            .expect("no thread panicked while it had the lock")
            .iter()
            .flat_map(|(_, r)| r.iter().map(i64::to_string))
            .collect()
    }
}

async fn check(broken: Option<&'static str>) {
    let case = SinkCase { failing: Some(vec![4, 13]), ..case() };
    check_sink(|| async { Memory { broken, ..Memory::default() } }, &case).await;
}

#[tokio::test]
async fn correct_sink_passes() {
    check(None).await;
}

#[tokio::test]
#[should_panic(expected = "the same commit id twice: the second write returns `Unchanged`")]
async fn sink_that_forgets_commit_ids_is_found() {
    check(Some("forgets commit ids")).await;
}

#[tokio::test]
#[should_panic(expected = "a value without rows changes nothing")]
async fn sink_that_an_empty_value_clears_is_found() {
    check(Some("is emptied by nothing")).await;
}

#[tokio::test]
#[should_panic(expected = "nothing is visible of a value that failed")]
async fn sink_that_keeps_rows_of_a_failed_value_is_found() {
    check(Some("keeps what failed")).await;
}

struct Recorded(Arc<RecordingSink<Rows>>);

#[async_trait]
impl SinkWorld<Rows> for Recorded {
    fn sink(&self) -> Arc<dyn Sink<Rows>> {
        self.0.clone()
    }

    async fn rows(&self) -> Vec<String> {
        self.0.written().iter().flat_map(|w| w.value.iter().map(i64::to_string)).collect()
    }
}

#[tokio::test]
async fn recording_sink_passes() {
    check_sink(|| async { Recorded(Arc::new(RecordingSink::counting(|r: &Rows| r.len() as u64))) }, &case()).await;
}

/// A source of all objects in a folder. If the flag is set, it skips objects that cannot be read.
struct Folder(TableStorage, bool);

#[async_trait]
impl Source<Vec<String>> for Folder {
    async fn read(&self, _: &Run) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for name in ["in/1", "in/2"] {
            let path = Path::from(name);
            let got = async { self.0.store.get(&path).await?.bytes().await }.await;
            match got {
                Ok(bytes) => all.push(String::from_utf8_lossy(&bytes).into_owned()),
                Err(_) if self.1 => {}
                Err(e) => return Err(store_error("read", &path, e)),
            }
        }
        Ok(all)
    }
}

async fn files() -> TableStorage {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    for name in ["in/1", "in/2"] {
        storage.store.put(&Path::from(name), name.into()).await.expect("the put succeeds");
    }
    storage
}

#[tokio::test]
async fn sources_that_return_all_or_nothing_pass() {
    check_source(&MemorySource::of(vec![1, 2]), |v| v.iter().map(i32::to_string).collect()).await;
    check_storage_source(files, |s| Arc::new(Folder(s, false)), Vec::clone).await;
}

#[tokio::test]
#[should_panic(expected = "a source that cannot read everything returns an error")]
async fn source_that_returns_a_part_is_found() {
    check_storage_source(files, |s| Arc::new(Folder(s, true)), Vec::clone).await;
}

#[tokio::test]
async fn plan_execution_passes() {
    check_deleter(|s, plan| async move { execute(&s.store, &plan).await }).await;
}

#[tokio::test]
#[should_panic(expected = "an object that was changed after the plan is kept and reported")]
async fn deleter_that_compares_names_only_is_found() {
    check_deleter(|s, plan| async move {
        let mut report = biscuit_purge::PurgeReport::default();
        for path in plan.deletes().map(|file| Path::from(file.key())) {
            match s.store.head(&path).await {
                Ok(_) => {
                    s.store.delete(&path).await.expect("the delete succeeds");
                    report.deleted.push(path);
                }
                Err(_) => report.absent.push(path),
            }
        }
        report
    })
    .await;
}

#[tokio::test]
async fn memory_and_disk_pass_the_store_suite() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    check_store(&memory, &Path::from("root")).await;
    let folder = tempfile::tempdir().expect("the folder is created");
    let disk: Arc<dyn ObjectStore> =
        Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists"));
    check_store(&disk, &Path::from("root")).await;
}
