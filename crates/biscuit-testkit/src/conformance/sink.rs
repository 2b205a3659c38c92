use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_core::{Clock, CommitId, Instant, Result, Run, RunId, Sink, SinkOutcome, WriteReceipt};
use biscuit_journal::TableStorage;
use object_store::memory::InMemory;

use crate::clock::FixedClock;
use crate::crash::crash_at_every_call;
use crate::fault_store::InjectedFault;
use crate::pause::pause_at_every_call;

/// Values that a sink is checked with.
#[derive(Debug, Clone)]
pub struct SinkCase<T> {
    /// A value.
    pub first: T,
    /// Another one.
    pub second: T,
    /// A value without a row.
    pub empty: T,
    /// A value that fails on the way, after some of its rows were taken; none if values of this type cannot.
    pub failing: Option<T>,
}

/// A sink in a world of its own, and what a reader sees there.
#[async_trait]
pub trait SinkWorld<T>: Send + Sync {
    /// The sink; every call opens it anew, as another process would.
    fn sink(&self) -> Arc<dyn Sink<T>>;

    /// What a reader sees, a text for each row, in any order.
    async fn rows(&self) -> Vec<String>;
}

async fn rows<T>(world: &dyn SinkWorld<T>) -> Vec<String> {
    let mut rows = world.rows().await;
    rows.sort();
    rows
}

fn run(attempt: u32) -> Run {
    let clock = FixedClock::at("2024-02-29T12:00:00Z".parse::<Instant>().expect("an instant"));
    let mut run = Run::new("conformance", RunId::new("run-1"), clock.now());
    run.attempt = attempt;
    run
}

async fn write<T>(world: &dyn SinkWorld<T>, id: &str, attempt: u32, value: T) -> Result<WriteReceipt> {
    world.sink().write(&run(attempt), &CommitId::new(id), value).await
}

/// Checks that a sink does what [`Sink`] asks: once for each commit id, whatever is repeated; nothing of a value that
/// failed; an empty value takes nothing away; two attempts at once leave one write. `fresh` makes an empty world.
///
/// # Panics
/// Where it does not, saying what.
pub async fn check_sink<T, W, F>(fresh: impl Fn() -> F, case: &SinkCase<T>)
where
    T: Clone,
    W: SinkWorld<T>,
    F: Future<Output = W>,
{
    let world = fresh().await;
    let first = write(&world, "a", 1, case.first.clone()).await.expect("a sink takes a value");
    assert_eq!(first.outcome, SinkOutcome::Changed, "the first write of a commit id changes something");
    assert_eq!(first.commit, CommitId::new("a"), "a receipt names its commit");
    let once = rows(&world).await;
    assert!(!once.is_empty(), "a reader sees what was written");
    let again = write(&world, "a", 2, case.first.clone()).await.expect("a sink takes the same commit id again");
    assert_eq!(
        again.outcome,
        SinkOutcome::AlreadyDone,
        "the same commit id twice: the second write says that it is done"
    );
    assert_eq!(again.rows, first.rows, "the same commit id twice: both receipts count the same rows");
    assert_eq!(rows(&world).await, once, "the same commit id twice: the rows are there once");

    write(&world, "b", 1, case.second.clone()).await.expect("a sink takes another commit id");
    let both = rows(&world).await;
    for (id, value) in [("a", &case.first), ("b", &case.second)] {
        write(&world, id, 2, value.clone()).await.expect("a sink takes old commit ids again");
    }
    assert_eq!(rows(&world).await, both, "older commit ids again: nothing changes");

    write(&world, "empty", 1, case.empty.clone()).await.expect("a sink takes a value without a row");
    assert_eq!(rows(&world).await, both, "a value without a row changes nothing");

    if let Some(failing) = &case.failing {
        let answer = write(&world, "c", 1, failing.clone()).await;
        assert!(answer.is_err(), "a value that fails on the way is an error");
        assert_eq!(rows(&world).await, both, "nothing is seen of a value that failed on the way");
        let fixed = fresh().await;
        assert!(write(&fixed, "a", 1, failing.clone()).await.is_err(), "a value that fails on the way is an error");
        write(&fixed, "a", 2, case.first.clone()).await.expect("the next attempt is taken");
        assert_eq!(rows(&fixed).await, once, "after a failed attempt the next one is written as if it were the first");
    }
    at_once(&fresh().await, case, &once).await;
}

/// Two attempts of one run that are alive at the same time.
async fn at_once<T: Clone>(world: &dyn SinkWorld<T>, case: &SinkCase<T>, once: &[String]) {
    let (one, two) = futures::join!(write(world, "a", 1, case.first.clone()), write(world, "a", 2, case.first.clone()));
    for e in [&one, &two].into_iter().filter_map(|a| a.as_ref().err()) {
        assert_eq!(
            e.kind(),
            biscuit_core::ErrorKind::Conflict,
            "of two attempts at once one may lose, with a conflict: {e}"
        );
    }
    assert!(one.is_ok() || two.is_ok(), "of two attempts at once one wins");
    write(world, "a", 3, case.first.clone()).await.expect("a third attempt is taken");
    assert_eq!(rows(world).await, once, "two attempts at once: the rows are there once");
}

/// A sink of files, in a storage that the suite chooses.
struct FileSink<'a, T> {
    storage: TableStorage,
    open: &'a (dyn Fn(TableStorage) -> Arc<dyn Sink<T>> + Send + Sync),
    read: &'a ReadRows,
}

/// Reads what is in a storage, a text for each row.
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

fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

/// As [`check_sink`], for a sink that writes files: the suite chooses the storage, crashes a write at every storage call, and
/// pauses it at every call while two others are written.
///
/// # Panics
/// Where the sink does not do what it has to, saying what.
pub async fn check_storage_sink<T>(
    open: &(dyn Fn(TableStorage) -> Arc<dyn Sink<T>> + Send + Sync),
    read: &ReadRows,
    case: &SinkCase<T>,
) where
    T: Clone + Send + Sync,
{
    let world = |storage| FileSink { storage, open, read };
    check_sink(|| async { world(memory()) }, case).await;

    let both = {
        let world = world(memory());
        write(&world, "b", 1, case.second.clone()).await.expect("a write");
        write(&world, "a", 1, case.first.clone()).await.expect("a write");
        rows(&world).await
    };
    let setup = || async {
        let world = world(memory());
        write(&world, "b", 1, case.second.clone()).await.expect("a write");
        world.storage
    };
    let job = |storage: TableStorage| async { write(&world(storage), "a", 1, case.first.clone()).await.map(drop) };
    let check = |storage: TableStorage, at: u64| {
        let both = both.clone();
        async move { assert_eq!(rows(&world(storage)).await, both, "a fault at call {at}: the rows are there once") }
    };
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter, InjectedFault::LoseAnswer] {
        crash_at_every_call(fault, setup, job, check).await;
    }
    // While it sleeps another attempt of it finishes, and then a write that was there before comes again.
    let others = |storage: TableStorage, n: u32| async move {
        let (id, value) = if n == 1 { ("a", case.first.clone()) } else { ("b", case.second.clone()) };
        write(&world(storage), id, 2, value).await.map(drop)
    };
    pause_at_every_call(InjectedFault::Pause, setup, job, others, check).await;
}
