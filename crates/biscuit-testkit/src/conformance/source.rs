use std::sync::Arc;

use biscuit_core::{Clock, Instant, Run, RunId, Source};
use biscuit_journal::TableStorage;

use crate::clock::FixedClock;
use crate::fault_store::{FaultStore, InjectedFault};
use crate::recording_store::RecordingStore;

fn run() -> Run {
    let clock = FixedClock::at("2024-02-29T12:00:00Z".parse::<Instant>().expect("an instant"));
    Run::new("conformance", RunId::new("run-1"), clock.now())
}

/// Checks that a source gives the same value to every attempt of a run. `rows` are the rows of a value, as texts.
///
/// # Panics
/// Where it does not.
pub async fn check_source<T>(source: &dyn Source<T>, rows: impl Fn(&T) -> Vec<String>) -> Vec<String> {
    let first = rows(&source.read(&run()).await.expect("a source gives a value"));
    let second = rows(&source.read(&run()).await.expect("a source gives a value again"));
    assert_eq!(first, second, "a source gives the same to every attempt of a run");
    first
}

/// As [`check_source`], for a source that reads files: it writes nothing, and where a storage call fails or its process
/// dies, it ends in an error or gives the whole value, never a part. `setup` puts files into a storage.
///
/// # Panics
/// Where it does not.
pub async fn check_storage_source<T, F>(
    setup: impl Fn() -> F,
    open: impl Fn(TableStorage) -> Arc<dyn Source<T>>,
    rows: impl Fn(&T) -> Vec<String>,
) where
    F: Future<Output = TableStorage>,
{
    let (recorder, recorded) = RecordingStore::storage(&setup().await);
    let whole = check_source(&*open(recorded), &rows).await;
    assert!(!whole.is_empty(), "the setup has rows to read");
    let calls = recorder.calls();
    let writes = ["put ", "create ", "update ", "upload ", "delete ", "copy ", "rename "];
    let wrote: Vec<&String> = calls.all().iter().filter(|c| writes.iter().any(|w| c.starts_with(w))).collect();
    assert!(wrote.is_empty(), "a source writes nothing: {wrote:?}");
    for fault in [InjectedFault::Fail, InjectedFault::Crash] {
        for at in 1..=calls.all().len() as u64 {
            let storage = setup().await;
            let faulty = FaultStore::new(storage.store.clone(), fault, at);
            if let Ok(value) = open(storage.with_store(Arc::new(faulty))).read(&run()).await {
                assert_eq!(rows(&value), whole, "a source that cannot read all of it gives an error: call {at}");
            }
        }
    }
}
