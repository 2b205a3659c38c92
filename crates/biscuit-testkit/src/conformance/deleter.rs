use std::sync::Arc;

use biscuit_journal::TableStorage;
use biscuit_purge::{ListedObject, PurgePlan, PurgeReport};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::doubles::fault_store::{FaultStore, InjectedFault};

async fn put_text(store: &dyn ObjectStore, path: &str, text: &str) {
    store.put(&Path::from(path), text.to_owned().into()).await.expect("the put succeeds");
}

async fn list_names(store: &dyn ObjectStore) -> Vec<String> {
    let mut all: Vec<String> =
        store.list(None).map_ok(|m| m.location.to_string()).try_collect().await.expect("the listing succeeds");
    all.sort();
    all
}

async fn list_objects(store: &dyn ObjectStore, prefix: &str) -> Vec<ListedObject> {
    let objects: Vec<ListedObject> = store
        .list(Some(&Path::from(prefix)))
        .map_ok(ListedObject::from)
        .try_collect()
        .await
        .expect("the listing succeeds");
    objects
}

/// Creates five objects of a table, and one of another table whose name begins alike.
async fn create_world() -> (TableStorage, PurgePlan) {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    for n in 1..=5 {
        put_text(&storage.store, &format!("lake/t/{n}"), &n.to_string()).await;
    }
    put_text(&storage.store, "lake/t_backup/1", "other").await;
    let files = list_objects(&storage.store, "lake/t").await.into_iter().filter(|f| f.key() != "lake/t/5");
    (storage, PurgePlan::exact("lake/t", files).expect("the plan is made"))
}

/// Checks that a deleter deletes exactly the objects of its plan. An object that was changed after the plan remains
/// and is reported; an object that does not exist any more is not a failure; one failure does not stop other deletes;
/// a second run changes nothing.
///
/// ```
/// use biscuit_purge::execute;
/// use biscuit_testkit::conformance::check_deleter;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// check_deleter(|storage, plan| async move { execute(&storage.store, &plan).await }).await;
/// # }
/// ```
///
/// # Panics
/// If a requirement is violated.
pub async fn check_deleter<F>(delete: impl Fn(TableStorage, PurgePlan) -> F)
where
    F: Future<Output = PurgeReport>,
{
    let (storage, plan) = create_world().await;
    let report = delete(storage.clone(), plan.clone()).await;
    assert_eq!(report.deleted.len(), 4, "all objects of the plan are deleted: {report:?}");
    assert_eq!(list_names(&storage.store).await, ["lake/t/5", "lake/t_backup/1"], "no other object is deleted");
    let again = delete(storage.clone(), plan).await;
    assert_eq!(
        (again.absent.len(), again.failed.len()),
        (4, 0),
        "an object that does not exist any more is not a failure: {again:?}"
    );

    let (storage, plan) = create_world().await;
    put_text(&storage.store, "lake/t/2", "written since").await;
    let report = delete(storage.clone(), plan).await;
    let kept: Vec<&str> = report.kept.iter().map(|(p, _)| p.as_ref()).collect();
    assert_eq!(kept, ["lake/t/2"], "an object that was changed after the plan is kept and reported: {report:?}");
    assert!(
        list_names(&storage.store).await.contains(&"lake/t/2".to_owned()),
        "an object that was changed after the plan is kept"
    );

    let calls = {
        let (storage, plan) = create_world().await;
        let counting = FaultStore::new(storage.store.clone(), InjectedFault::Fail, 0);
        delete(storage.with_store(Arc::new(counting.clone())), plan).await;
        counting.calls()
    };
    for at in 1..=calls {
        let (storage, plan) = create_world().await;
        let faulty = FaultStore::new(storage.store.clone(), InjectedFault::Fail, at);
        let report = delete(storage.with_store(Arc::new(faulty)), plan.clone()).await;
        let ended = report.deleted.len() + report.failed.len() + report.kept.len() + report.absent.len();
        assert_eq!(ended, 4, "every object of the plan has an outcome, also after a failure at call {at}: {report:?}");
        assert!(report.deleted.len() >= 3, "one failure does not stop other deletes (call {at}): {report:?}");
        delete(storage.clone(), plan).await;
        assert_eq!(
            list_names(&storage.store).await,
            ["lake/t/5", "lake/t_backup/1"],
            "a second run after a failure at call {at} completes the plan"
        );
    }
}
