//! Plans, and the outcome of every key when a plan is carried out.

mod job;
mod rules;

use std::sync::Arc;

use biscuit_core::ErrorKind;
use biscuit_purge::internal::store_error;
use biscuit_purge::{
    AnyStore, DeleteCondition, DeleteItem, DeleteOptions, DeleteOutcome, KeptReason, ListedObject, ListedVersions,
    PurgePlan, PurgeStore, carry_out, execute,
};
use biscuit_testkit::{FaultStore, InjectedFault};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

async fn store_with(names: &[&str]) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for name in names {
        store.put(&Path::from(*name), "x".into()).await.expect("the put succeeds");
    }
    store
}

async fn plan(store: &dyn ObjectStore) -> PurgePlan {
    let listed: Vec<ListedObject> = store
        .list(Some(&Path::from("t")))
        .map_ok(ListedObject::from)
        .try_collect()
        .await
        .expect("the listing succeeds");
    PurgePlan::exact("t", listed).expect("the plan is valid")
}

async fn left(store: &dyn ObjectStore) -> Vec<String> {
    store.list(None).map_ok(|m| m.location.to_string()).try_collect().await.expect("the listing succeeds")
}

#[tokio::test]
async fn exactly_the_listed_objects_are_deleted() {
    let store = store_with(&["t/a", "t/b", "t_backup/a"]).await;
    let plan = plan(&store).await;
    store.put(&Path::from("t/new"), "x".into()).await.expect("the put succeeds");
    let report = execute(&store, &plan).await;
    assert_eq!(report.deleted.len(), 2);
    assert_eq!(left(&store).await, ["t/new", "t_backup/a"]);
    assert_eq!(execute(&store, &plan).await.absent.len(), 2, "a second run finds no objects");
}

#[tokio::test]
async fn object_that_was_written_after_the_listing_is_kept() {
    let store = store_with(&["t/a", "t/b"]).await;
    let plan = plan(&store).await;
    store.put(&Path::from("t/a"), "y".into()).await.expect("the put succeeds");
    let report = execute(&store, &plan).await;
    assert_eq!(report.kept, [(Path::from("t/a"), KeptReason::Changed)]);
    assert_eq!(left(&store).await, ["t/a"]);
}

#[tokio::test]
async fn one_failure_is_reported_and_does_not_stop_the_others() {
    let store = store_with(&["t/a", "t/b", "t/c"]).await;
    let plan = plan(&store).await;
    let failing: Arc<dyn ObjectStore> = Arc::new(FaultStore::new(store.clone(), InjectedFault::Fail, 2));
    let report = execute(&failing, &plan).await;
    assert_eq!((report.deleted.len(), report.failed.len()), (2, 1));
    assert_eq!(report.failed[0].1.kind(), ErrorKind::Unavailable);
    assert_eq!(left(&store).await, [report.failed[0].0.to_string()]);
}

#[tokio::test]
async fn key_that_is_not_a_path_is_reported_and_the_others_are_deleted() {
    let store = store_with(&["t/a"]).await;
    let etag = store.head(&Path::from("t/a")).await.expect("the object exists").e_tag;
    let files =
        [ListedObject::new("t//b", 1, None), ListedObject::new("t/a", 1, etag), ListedObject::new("t/gone", 1, None)];
    let mut failed = Vec::new();
    let store = AnyStore::new(store);
    let plan = PurgePlan::exact("t", files).expect("the plan is valid");
    let mut each = |item: DeleteItem<'_>, answer: DeleteOutcome| {
        if let (DeleteItem::Object(object), DeleteOutcome::Failed(failure)) = (item, answer) {
            failed.push((object.key().to_owned(), failure.code));
        }
    };
    let done = carry_out(&store, &plan, &DeleteOptions::default(), &mut each).await;
    assert_eq!((done.deleted, done.bytes, done.absent), (1, 1, 1));
    assert_eq!(failed, [("t//b".to_owned(), "InvalidPath".to_owned())]);
    assert!(!done.is_complete());
}

#[tokio::test]
async fn store_without_conditions_reports_what_it_cannot_guarantee() {
    let store = store_with(&["t/a"]).await;
    let any = AnyStore::new(store.clone());
    let look = any.probe("scratch").await.expect("the probe succeeds");
    let then = store.head(&Path::from("t/a")).await.expect("the object exists").last_modified.timestamp_micros();
    assert!(look.now.as_micros() >= then, "the time is on the clock of the store");
    assert_eq!(look.condition, DeleteCondition::LookedAt);
    assert!(look.condition.caveat().expect("the condition has a caveat").contains("no conditional delete"));
    assert_eq!(left(&*store).await, ["t/a"], "the marker was deleted");
    assert_eq!(any.list("t", ListedVersions::All).await.unwrap_err().code(), "NoVersions");
}

#[test]
fn store_errors_have_the_kind_that_tells_what_to_do() {
    let denied = object_store::Error::PermissionDenied { path: "x".into(), source: "no".into() };
    assert_eq!(store_error("read", "x", denied).kind(), ErrorKind::Denied);
    let io = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let generic = object_store::Error::Generic { store: "disk", source: Box::new(io) };
    assert_eq!(store_error("read", "x", generic).kind(), ErrorKind::Denied);
    let down = object_store::Error::Generic { store: "s3", source: "reset by peer".into() };
    let e = store_error("list", "lake/t", down);
    assert_eq!((e.kind(), e.message()), (ErrorKind::Unavailable, "cannot list `lake/t`"));
}
