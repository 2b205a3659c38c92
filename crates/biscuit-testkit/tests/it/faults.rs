//! Faults strike at the call they are meant for, and crash tests find what they should.

use std::sync::Arc;
use std::time::Duration;

use biscuit_core::{Clock, Instant, Result};
use biscuit_journal::{Storage, store_error};
use biscuit_testkit::{Fault, FaultStore, FixedClock, RecordingStore, crash_at_every_call};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

async fn content(store: &dyn ObjectStore, path: &str) -> Option<String> {
    let bytes = store.get(&Path::from(path)).await.ok()?.bytes().await.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

async fn put(store: &dyn ObjectStore, path: &str) -> bool {
    store.put(&Path::from(path), "12345678".into()).await.is_ok()
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let after = |fault| async move {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = FaultStore::new(inner.clone(), fault, 2);
        let answers = [put(&store, "a").await, put(&store, "b").await, put(&store, "c").await];
        (answers, content(&inner, "b").await, content(&inner, "c").await.is_some())
    };
    let whole = Some("12345678".to_owned());
    assert_eq!(after(Fault::Fail).await, ([true, false, true], None, true));
    assert_eq!(after(Fault::Crash).await, ([true, false, false], None, false));
    assert_eq!(after(Fault::CrashAfter).await, ([true, false, false], whole.clone(), false));
    assert_eq!(after(Fault::LoseAnswer).await, ([true, false, true], whole.clone(), true));
    assert_eq!(after(Fault::Torn).await, ([true, false, false], Some("1234".to_owned()), false));
}

#[tokio::test(start_paused = true)]
async fn a_delay_delays() {
    let store = FaultStore::new(Arc::new(InMemory::new()), Fault::Delay(Duration::from_secs(3600)), 1);
    let before = tokio::time::Instant::now();
    assert!(put(&store, "a").await);
    assert!(before.elapsed() >= Duration::from_secs(3600) && store.has_struck());
}

#[tokio::test]
async fn calls_are_recorded_in_order() {
    let store = RecordingStore::new(Arc::new(InMemory::new()));
    put(&store, "new").await;
    store.delete(&Path::from("new")).await.expect("a delete");
    assert_eq!(store.calls().all(), ["put new", "delete new"]);
    assert!(store.calls().before("put new", "delete new") && !store.calls().before("delete new", "put new"));
    assert!(!store.calls().before("never", "delete new"));
}

/// A job that is not safe: it deletes the old file before it writes the new one.
async fn careless(storage: Storage) -> Result<()> {
    let (store, path) = (&storage.store, Path::from("total"));
    let old: u64 = content(store, "total").await.and_then(|t| t.parse().ok()).unwrap_or(0);
    match store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(e) => return Err(store_error("delete", &path, e)),
    }
    store.put(&path, (old + 1).to_string().into()).await.map_err(|e| store_error("put", &path, e))?;
    Ok(())
}

#[tokio::test]
#[should_panic(expected = "the total is wrong after call")]
async fn a_crash_test_finds_a_careless_job() {
    let setup = || async {
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("total"), "41".into()).await.expect("a put");
        Storage::durable(store)
    };
    let check = |storage: Storage, at: u64| async move {
        let total = content(&storage.store, "total").await;
        assert_eq!(total.as_deref(), Some("42"), "the total is wrong after call {at}");
    };
    crash_at_every_call(Fault::Crash, setup, careless, check).await;
}

#[test]
fn a_fixed_clock_moves_only_by_hand() {
    let clock = FixedClock::at(Instant::from_micros(5));
    assert_eq!((clock.now(), clock.now()), (Instant::from_micros(5), Instant::from_micros(5)));
    clock.advance(Duration::from_micros(7));
    assert_eq!(clock.now(), Instant::from_micros(12));
}
