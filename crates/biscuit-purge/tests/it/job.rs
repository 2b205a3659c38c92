//! The job of the cookbook on a folder without a journal: it writes new files, then deletes the objects from before.

use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_core::{Error, ErrorCode, ErrorKind, Result};
use biscuit_purge::internal::store_error;
use biscuit_purge::{
    AnyStore, DeleteCounts, DeleteOptions, ListedVersions, ObjectListing, PurgePlan, PurgeRules, PurgeStore, carry_out,
};
use biscuit_testkit::{FaultStore, InjectedFault};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

const FILES: usize = 3;

const EXCEPTIONS: ErrorCode = ErrorCode::new("Exceptions", ErrorKind::Conflict, "Some deletes failed.", "Run again.");

async fn old() -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for n in 0..FILES {
        store.put(&Path::from(format!("t/old-{n}")), "old".into()).await.expect("the put succeeds");
    }
    store
}

async fn names(store: &dyn ObjectStore) -> BTreeSet<String> {
    let all: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("the listing succeeds");
    all.into_iter().map(|m| m.location.to_string()).collect()
}

/// Returns the output keys of an attempt. Each attempt has its own keys, as in a careful job.
fn outputs(attempt: &str) -> Vec<String> {
    (0..FILES).map(|n| format!("t/{attempt}-{n}")).collect()
}

/// Replaces the content of the folder.
async fn job(store: Arc<dyn ObjectStore>, attempt: &str) -> Result<DeleteCounts> {
    let purge = AnyStore::new(store.clone());
    let before = purge.list("t", ListedVersions::Current).await?;
    let own = outputs(attempt);
    for key in &own {
        let path = Path::from(key.as_str());
        store.put(&path, "new".into()).await.map_err(|e| store_error("write", key, e))?;
    }
    let plan = PurgeRules::existed_before("t").with_outputs(own).plan(before)?;
    let done = carry_out(&purge, &plan, &DeleteOptions::default().with_in_flight(1), &mut |_, _| {}).await;
    match done.is_complete() {
        true => Ok(done),
        false => Err(Error::new(EXCEPTIONS, format!("{done:?}"))),
    }
}

// X06.
#[tokio::test]
async fn failed_write_deletes_nothing_and_its_own_files_can_be_deleted() {
    let store = old().await;
    // Call 1 is the listing, calls 2 to 4 write.
    let failing: Arc<dyn ObjectStore> = Arc::new(FaultStore::new(store.clone(), InjectedFault::Fail, 3));
    job(failing, "new").await.expect_err("the write fails");
    let there = names(&*store).await;
    assert!((0..FILES).all(|n| there.contains(&format!("t/old-{n}"))), "{there:?}");
    let purge = AnyStore::new(store.clone());
    let own: BTreeSet<String> = outputs("new").into_iter().collect();
    let listing = purge.list("t", ListedVersions::Current).await.expect("the listing succeeds");
    let listing: ObjectListing = listing.iter().filter(|o| own.contains(o.key())).collect();
    let plan = PurgePlan::exact("t", &listing).expect("the plan is valid");
    let done = carry_out(&purge, &plan, &DeleteOptions::default(), &mut |_, _| {}).await;
    assert_eq!((done.deleted, names(&*store).await.len()), (1, FILES));
}

// X07.
#[tokio::test]
async fn crash_at_any_call_and_a_rerun_leave_exactly_the_new_files() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        let mut at = 1;
        loop {
            let store = old().await;
            let faulty = FaultStore::new(store.clone(), fault, at);
            let ran = job(Arc::new(faulty.clone()), "first").await;
            if !faulty.has_struck() {
                assert_eq!(ran.expect("no fault occurs").deleted, FILES as u64);
                break;
            }
            let between = names(&*store).await;
            let whole = |attempt: &str| outputs(attempt).iter().all(|key| between.contains(key));
            assert!(whole("old") || whole("first"), "after a crash at call {at}: {between:?}");
            job(store.clone(), "second").await.expect("the rerun succeeds");
            assert_eq!(names(&*store).await, outputs("second").into_iter().collect(), "after a crash at call {at}");
            at += 1;
        }
        assert!(at > 2 * FILES as u64 + 1, "{at} calls");
    }
}
