use std::sync::Arc;

use biscuit_core::{Clock, Instant, Run, RunId, Source};
use biscuit_journal::TableStorage;

use crate::doubles::clock::FixedClock;
use crate::doubles::fault_store::{FaultStore, InjectedFault};
use crate::doubles::recording_store::RecordingStore;

fn run() -> Run {
    let clock = FixedClock::at("2024-02-29T12:00:00Z".parse::<Instant>().expect("the instant is valid"));
    Run::new("conformance", RunId::new("run-1"), clock.now())
}

/// Checks that a source returns the same value to every attempt of a run, and returns its rows. `rows` converts a
/// value to one text for each row.
///
/// ```
/// use biscuit_testkit::MemorySource;
/// use biscuit_testkit::conformance::check_source;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let source = MemorySource::of(vec![1, 2]);
/// let rows = check_source(&source, |rows| rows.iter().map(i32::to_string).collect()).await;
/// assert_eq!(rows, ["1", "2"]);
/// # }
/// ```
///
/// # Panics
/// If the values differ.
pub async fn check_source<T>(source: &dyn Source<T>, rows: impl Fn(&T) -> Vec<String>) -> Vec<String> {
    let first = rows(&source.read(&run()).await.expect("the source returns a value"));
    let second = rows(&source.read(&run()).await.expect("the source returns a value again"));
    assert_eq!(first, second, "a source returns the same value to every attempt of a run");
    first
}

/// Checks a source that reads files, in addition to [`check_source`]: it writes nothing, and if a storage call fails
/// or the process dies, it returns an error or the complete value, never a part of it. `setup` creates a storage with
/// files.
///
/// # Panics
/// If a requirement is violated.
pub async fn check_storage_source<T, F>(
    setup: impl Fn() -> F,
    open: impl Fn(TableStorage) -> Arc<dyn Source<T>>,
    rows: impl Fn(&T) -> Vec<String>,
) where
    F: Future<Output = TableStorage>,
{
    let (recorder, recorded) = RecordingStore::storage(&setup().await);
    let whole = check_source(&*open(recorded), &rows).await;
    assert!(!whole.is_empty(), "the setup contains rows");
    let calls = recorder.calls();
    let writes = ["put ", "create ", "update ", "upload ", "delete ", "copy ", "rename "];
    let wrote: Vec<&String> = calls.all().iter().filter(|c| writes.iter().any(|w| c.starts_with(w))).collect();
    assert!(wrote.is_empty(), "a source writes nothing: {wrote:?}");
    for fault in [InjectedFault::Fail, InjectedFault::Crash] {
        for at in 1..=calls.all().len() as u64 {
            let storage = setup().await;
            let faulty = FaultStore::new(storage.store.clone(), fault, at);
            if let Ok(value) = open(storage.with_store(Arc::new(faulty))).read(&run()).await {
                assert_eq!(rows(&value), whole, "a source that cannot read everything returns an error: call {at}");
            }
        }
    }
}
