//! Conformance suite for sinks.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::{Clock, CommitId, Instant, Outcome, Result, Run, RunId, Sink, WriteReceipt};
use biscuit_journal::TableStorage;
use object_store::memory::InMemory;

use crate::crash::crash_at_every_call;
use crate::doubles::clock::FixedClock;
use crate::doubles::fault_store::InjectedFault;
use crate::pause::pause_at_every_call;

/// Values with which a sink is checked.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "tests of sinks write it as a literal")]
pub struct SinkCase<T> {
    /// A value with rows.
    pub first: T,
    /// Another value with rows.
    pub second: T,
    /// A value without rows.
    pub empty: T,
    /// A value that fails after some of its rows were written; `None` if values of this type cannot fail.
    pub failing: Option<T>,
}

/// A sink with a target of its own, and the rows that a reader sees there.
#[async_trait]
pub trait SinkWorld<T>: Send + Sync {
    /// Opens the sink. Each call opens it again, as another process would.
    fn sink(&self) -> Arc<dyn Sink<T>>;

    /// Returns the rows that a reader sees, one text for each row, in any order.
    async fn rows(&self) -> Vec<String>;
}

async fn rows<T>(world: &dyn SinkWorld<T>) -> Vec<String> {
    let mut rows = world.rows().await;
    rows.sort();
    rows
}

fn run(attempt: u32) -> Run {
    let clock = FixedClock::at("2024-02-29T12:00:00Z".parse::<Instant>().expect("the instant is valid"));
    let mut run = Run::new("conformance", RunId::new("run-1"), clock.now());
    run.attempt = attempt;
    run
}

async fn write<T>(world: &dyn SinkWorld<T>, id: &str, attempt: u32, value: T) -> Result<WriteReceipt> {
    world.sink().write(&run(attempt), &CommitId::new(id), value).await
}

/// Checks that a sink complies with [`Sink`]: it writes once for each commit id, whatever is repeated; nothing is
/// visible of a value that failed; a value without rows removes nothing; two concurrent attempts leave one write.
/// `fresh` creates an empty target.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_core::{Sink, async_trait};
/// use biscuit_testkit::RecordingSink;
/// use biscuit_testkit::conformance::{SinkCase, SinkWorld, check_sink};
///
/// struct World(Arc<RecordingSink<Vec<i64>>>);
///
/// #[async_trait]
/// impl SinkWorld<Vec<i64>> for World {
///     fn sink(&self) -> Arc<dyn Sink<Vec<i64>>> {
///         self.0.clone()
///     }
///
///     async fn rows(&self) -> Vec<String> {
///         self.0.written().iter().flat_map(|write| write.value.iter().map(i64::to_string)).collect()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let fresh = || async { World(Arc::new(RecordingSink::counting(|rows: &Vec<i64>| rows.len() as u64))) };
/// let case = SinkCase { first: vec![1, 2], second: vec![3], empty: vec![], failing: None };
/// check_sink(fresh, &case).await;
/// # }
/// ```
///
/// # Panics
/// If a requirement is violated.
pub async fn check_sink<T, W, F>(fresh: impl Fn() -> F, case: &SinkCase<T>)
where
    T: Clone,
    W: SinkWorld<T>,
    F: Future<Output = W>,
{
    let world = fresh().await;
    let first = write(&world, "a", 1, case.first.clone()).await.expect("the sink accepts a value");
    assert_eq!(first.outcome, Outcome::Committed, "the first write of a commit id returns `Committed`");
    assert_eq!(first.commit, CommitId::new("a"), "a receipt contains its commit id");
    let once = rows(&world).await;
    assert!(!once.is_empty(), "a reader sees what was written");
    let again = write(&world, "a", 2, case.first.clone()).await.expect("the sink accepts the same commit id again");
    assert_eq!(again.outcome, Outcome::Unchanged, "the same commit id twice: the second write returns `Unchanged`");
    assert_eq!(again.rows, first.rows, "the same commit id twice: both receipts contain the same number of rows");
    assert_eq!(rows(&world).await, once, "the same commit id twice: the rows exist once");

    write(&world, "b", 1, case.second.clone()).await.expect("the sink accepts another commit id");
    let both = rows(&world).await;
    for (id, value) in [("a", &case.first), ("b", &case.second)] {
        write(&world, id, 2, value.clone()).await.expect("the sink accepts older commit ids again");
    }
    assert_eq!(rows(&world).await, both, "older commit ids again: nothing changes");

    write(&world, "empty", 1, case.empty.clone()).await.expect("the sink accepts a value without rows");
    assert_eq!(rows(&world).await, both, "a value without rows changes nothing");

    if let Some(failing) = &case.failing {
        let answer = write(&world, "c", 1, failing.clone()).await;
        assert!(answer.is_err(), "a value that fails is an error");
        assert_eq!(rows(&world).await, both, "nothing is visible of a value that failed");
        let fixed = fresh().await;
        assert!(write(&fixed, "a", 1, failing.clone()).await.is_err(), "a value that fails is an error");
        write(&fixed, "a", 2, case.first.clone()).await.expect("the sink accepts the next attempt");
        assert_eq!(rows(&fixed).await, once, "after a failed attempt, the next one writes as if it were the first");
    }
    at_once(&fresh().await, case, &once).await;
}

/// Writes two concurrent attempts of one run.
async fn at_once<T: Clone>(world: &dyn SinkWorld<T>, case: &SinkCase<T>, once: &[String]) {
    let (one, two) = futures::join!(write(world, "a", 1, case.first.clone()), write(world, "a", 2, case.first.clone()));
    for e in [&one, &two].into_iter().filter_map(|a| a.as_ref().err()) {
        assert_eq!(
            e.kind(),
            biscuit_core::ErrorKind::Conflict,
            "of two concurrent attempts, one may fail with a conflict: {e}"
        );
    }
    assert!(one.is_ok() || two.is_ok(), "of two concurrent attempts, one succeeds");
    write(world, "a", 3, case.first.clone()).await.expect("the sink accepts a third attempt");
    assert_eq!(rows(world).await, once, "two concurrent attempts: the rows exist once");
}

/// A sink that writes files, in a storage that the suite chooses.
struct FileSink<'a, T> {
    storage: TableStorage,
    open: &'a (dyn Fn(TableStorage) -> Arc<dyn Sink<T>> + Send + Sync),
    read: &'a ReadRows,
}

/// Reads the rows in a storage, one text for each row.
pub type ReadRows = dyn Fn(TableStorage) -> Pin<Box<dyn Future<Output = Vec<String>> + Send>> + Send + Sync;

#[async_trait]
impl<T> SinkWorld<T> for FileSink<'_, T> {
    fn sink(&self) -> Arc<dyn Sink<T>> {
        (self.open)(self.storage.clone())
    }

    async fn rows(&self) -> Vec<String> {
        (self.read)(self.storage.clone()).await
    }
}

fn memory_storage() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

/// Checks a sink that writes files, in addition to [`check_sink`]: the suite crashes a write at every storage call,
/// and pauses it at every call while two other writes finish.
///
/// # Panics
/// If a requirement is violated.
pub async fn check_storage_sink<T>(
    open: &(dyn Fn(TableStorage) -> Arc<dyn Sink<T>> + Send + Sync),
    read: &ReadRows,
    case: &SinkCase<T>,
) where
    T: Clone + Send + Sync,
{
    let world = |storage| FileSink { storage, open, read };
    check_sink(|| async { world(memory_storage()) }, case).await;

    let both = {
        let world = world(memory_storage());
        write(&world, "b", 1, case.second.clone()).await.expect("the write succeeds");
        write(&world, "a", 1, case.first.clone()).await.expect("the write succeeds");
        rows(&world).await
    };
    let setup = || async {
        let world = world(memory_storage());
        write(&world, "b", 1, case.second.clone()).await.expect("the write succeeds");
        world.storage
    };
    let job = |storage: TableStorage| async { write(&world(storage), "a", 1, case.first.clone()).await.map(drop) };
    let check = |storage: TableStorage, at: u64| {
        let both = both.clone();
        async move { assert_eq!(rows(&world(storage)).await, both, "a fault at call {at}: the rows exist once") }
    };
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter, InjectedFault::LoseAnswer] {
        crash_at_every_call(fault, setup, job, check).await;
    }
    // During the pause, another attempt of the same commit finishes, and then an older commit is written again.
    let others = |storage: TableStorage, n: u32| async move {
        let (id, value) = if n == 1 { ("a", case.first.clone()) } else { ("b", case.second.clone()) };
        write(&world(storage), id, 2, value).await.map(drop)
    };
    pause_at_every_call(InjectedFault::Pause, setup, job, others, check).await;
}
