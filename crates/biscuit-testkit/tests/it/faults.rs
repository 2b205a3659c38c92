//! Faults happen at the chosen call, and crash and pause tests find unsafe jobs.

use std::sync::Arc;
use std::time::Duration;

use biscuit_core::{Clock, Instant, Result};
use biscuit_journal::{TableStorage, store_error};
use biscuit_testkit::{
    FaultStore, FixedClock, InjectedFault, RecordingStore, crash_at_every_call, pause_at_every_call,
};
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
async fn each_fault_has_its_documented_effect() {
    let after = |fault| async move {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = FaultStore::new(inner.clone(), fault, 2);
        let answers = [put(&store, "a").await, put(&store, "b").await, put(&store, "c").await];
        (answers, content(&inner, "b").await, content(&inner, "c").await.is_some())
    };
    let whole = Some("12345678".to_owned());
    assert_eq!(after(InjectedFault::Fail).await, ([true, false, true], None, true));
    assert_eq!(after(InjectedFault::Crash).await, ([true, false, false], None, false));
    assert_eq!(after(InjectedFault::CrashAfter).await, ([true, false, false], whole.clone(), false));
    assert_eq!(after(InjectedFault::LoseAnswer).await, ([true, false, true], whole.clone(), true));
    assert_eq!(after(InjectedFault::Torn).await, ([true, false, false], Some("1234".to_owned()), false));
}

#[tokio::test]
async fn refusal_returns_already_exists_without_an_object() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FaultStore::new(inner.clone(), InjectedFault::Refuse, 1);
    let e = store.put(&Path::from("a"), "1".into()).await.unwrap_err();
    assert!(matches!(e, object_store::Error::AlreadyExists { .. }), "{e}");
    assert_eq!(content(&inner, "a").await, None);
}

#[tokio::test]
async fn pause_before_or_after_the_call_lasts_until_resume() {
    for (fault, seen) in [(InjectedFault::Pause, None), (InjectedFault::PauseAfter, Some("12345678".to_owned()))] {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = FaultStore::new(inner.clone(), fault, 1);
        let meanwhile = async {
            assert!(store.wait_for_pause().await);
            let seen = content(&inner, "a").await;
            store.resume();
            seen
        };
        let (answered, during) = futures::join!(put(&store, "a"), meanwhile);
        assert!(answered);
        assert_eq!((during, content(&inner, "a").await.is_some()), (seen, true), "{fault:?}");
    }
    let never = FaultStore::new(Arc::new(InMemory::new()), InjectedFault::Pause, 9);
    never.resume();
    assert!(!never.wait_for_pause().await);
}

#[tokio::test(start_paused = true)]
async fn delayed_call_waits() {
    let store = FaultStore::new(Arc::new(InMemory::new()), InjectedFault::Delay(Duration::from_secs(3600)), 1);
    let before = tokio::time::Instant::now();
    assert!(put(&store, "a").await);
    assert!(before.elapsed() >= Duration::from_secs(3600) && store.has_struck());
}

#[tokio::test]
async fn calls_are_recorded_in_order() {
    let store = RecordingStore::new(Arc::new(InMemory::new()));
    put(&store, "new").await;
    store.delete(&Path::from("new")).await.expect("the delete succeeds");
    assert_eq!(store.calls().all(), ["put new", "delete new"]);
    assert!(store.calls().before("put new", "delete new") && !store.calls().before("delete new", "put new"));
    assert!(!store.calls().before("never", "delete new"));
}

/// An unsafe job: it deletes the old file before it writes the new one.
async fn careless(storage: TableStorage) -> Result<()> {
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
async fn crash_test_finds_an_unsafe_job() {
    let setup = || async {
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("total"), "41".into()).await.expect("the put succeeds");
        TableStorage::durable(store)
    };
    let check = |storage: TableStorage, at: u64| async move {
        let total = content(&storage.store, "total").await;
        assert_eq!(total.as_deref(), Some("42"), "the total is wrong after call {at}");
    };
    crash_at_every_call(InjectedFault::Crash, setup, careless, check).await;
}

#[test]
fn fixed_clock_advances_only_on_request() {
    let clock = FixedClock::at(Instant::from_micros(5));
    assert_eq!((clock.now(), clock.now()), (Instant::from_micros(5), Instant::from_micros(5)));
    clock.advance(Duration::from_micros(7));
    assert_eq!(clock.now(), Instant::from_micros(12));
}

/// Adds one to a number. `safe` writes under the condition that the object is unchanged.
async fn add(storage: TableStorage, safe: bool) -> Result<()> {
    let (store, path) = (&storage.store, Path::from("total"));
    let read = store.get(&path).await.map_err(|e| store_error("read", &path, e))?;
    let version = object_store::UpdateVersion { e_tag: read.meta.e_tag.clone(), version: None };
    let bytes = read.bytes().await.map_err(|e| store_error("read", &path, e))?;
    let total: u64 = String::from_utf8_lossy(&bytes).parse().expect("the value is a number");
    let mode = if safe { object_store::PutMode::Update(version) } else { object_store::PutMode::Overwrite };
    match store.put_opts(&path, (total + 1).to_string().into(), mode.into()).await {
        Ok(_) => Ok(()),
        Err(object_store::Error::Precondition { .. }) => {
            Err(biscuit_core::Error::new(biscuit_core::codes::CONFLICT, "run again"))
        }
        Err(e) => Err(store_error("write", &path, e)),
    }
}

async fn zero() -> TableStorage {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    storage.store.put(&Path::from("total"), "0".into()).await.expect("the put succeeds");
    storage
}

async fn is_three(storage: TableStorage, _: u64) {
    assert_eq!(content(&storage.store, "total").await.as_deref(), Some("3"), "an addition is lost");
}

#[tokio::test]
async fn pause_test_accepts_a_safe_job() {
    let job = |s| add(s, true);
    let done = pause_at_every_call(InjectedFault::Pause, zero, job, |s, _| add(s, true), is_three).await;
    assert_eq!((done.calls, done.slept, done.conflicts), (2, 2, 1));
}

#[tokio::test]
#[should_panic(expected = "an addition is lost")]
async fn pause_test_finds_a_lost_update() {
    pause_at_every_call(InjectedFault::Pause, zero, |s| add(s, false), |s, _| add(s, false), is_three).await;
}
