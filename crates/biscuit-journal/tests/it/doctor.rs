//! The probe of the capabilities of a store.

use std::sync::Arc;

use biscuit_journal::TableStorage;
use biscuit_journal::internal::{ProbeResult, StoreCapability, probe_store};
use biscuit_testkit::{FaultStore, InjectedFault};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use crate::commit::Ignoring;
use crate::table::memory;

async fn shown(storage: &TableStorage) -> Vec<(StoreCapability, ProbeResult)> {
    let shown =
        probe_store(storage, &Path::from("lake/.biscuit/t/probe/doctor-1")).await.expect("the listing succeeds");
    let left: Vec<ObjectMeta> = storage.store.list(None).try_collect().await.expect("the listing succeeds");
    assert!(left.is_empty(), "{left:?}");
    shown
}

fn missing(shown: &[(StoreCapability, ProbeResult)]) -> Vec<StoreCapability> {
    shown.iter().filter(|(_, s)| !matches!(s, ProbeResult::Yes)).map(|(a, _)| *a).collect()
}

#[tokio::test]
async fn memory_has_all_capabilities_and_a_disk_all_but_conditional_puts() {
    assert_eq!(missing(&shown(&memory()).await), []);
    let folder = tempfile::tempdir().expect("the folder is created");
    let disk = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists"));
    assert_eq!(missing(&shown(&TableStorage::local(disk)).await), [StoreCapability::ConditionalPut]);
    let probes = folder.path().join("lake/.biscuit/t/probe");
    assert_eq!(
        std::fs::read_dir(probes).expect("the folder of probes is readable").count(),
        0,
        "no folder is left in it"
    );
}

#[tokio::test]
async fn store_that_ignores_conditions_is_detected() {
    let storage = TableStorage::durable(Arc::new(Ignoring(Arc::new(InMemory::new()))));
    let shown = shown(&storage).await;
    assert!(missing(&shown).contains(&StoreCapability::PutIfAbsent));
    let how = shown.iter().find(|(a, _)| *a == StoreCapability::PutIfAbsent);
    assert!(matches!(how, Some((_, ProbeResult::No(how))) if how.contains("of 16 writers")), "{how:?}");
}

#[tokio::test]
async fn failed_trial_is_reported_and_the_others_continue() {
    let storage = memory();
    let failing: Arc<dyn ObjectStore> = Arc::new(FaultStore::new(storage.store.clone(), InjectedFault::Fail, 1));
    let shown = shown(&storage.with_store(failing)).await;
    assert!(
        matches!(&shown[0], (StoreCapability::Write, ProbeResult::Failed(e)) if e.message().contains("write, read, delete"))
    );
    assert_eq!(missing(&shown), [StoreCapability::Write]);
}
