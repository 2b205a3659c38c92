//! A crash at every storage call, a rerun, and the same rows. Races. Reruns that change nothing.

use std::sync::{Arc, Mutex};

use biscuit_journal::TableStorage;
use biscuit_testkit::internal::crash_at_scaled_calls;
use biscuit_testkit::{InjectedFault, RecordingStore};
use futures::future::join_all;
use object_store::local::LocalFileSystem;

use crate::lake;
use crate::zoo::{self, merge_second, populated};

async fn recover_then_merge(storage: TableStorage) -> biscuit_core::Result<()> {
    lake::dataset(storage.clone()).journal().recover().await?;
    merge_second(storage).await
}

async fn check(storage: TableStorage, at: u64) {
    let dataset = lake::dataset(storage.clone());
    zoo::has_the_rows_of_the_second(&storage).await;
    let snapshot = dataset.observe().await.expect("the table is observed");
    assert_eq!(snapshot.observed.head.version, 2, "call {at}");
    zoo::nothing_is_left_over(&storage, at).await;
}

#[tokio::test]
async fn merge_survives_a_crash_at_every_call_in_memory() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter, InjectedFault::Fail, InjectedFault::LoseAnswer] {
        let done = crash_at_scaled_calls(fault, || populated(lake::memory()), merge_second, check).await;
        assert!(done.calls > 50, "{done:?}");
        assert!(done.crashed > 0, "{done:?}");
    }
}

#[tokio::test]
async fn recovery_survives_a_crash_at_every_call_in_memory() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        crash_at_scaled_calls(fault, || populated(lake::memory()), recover_then_merge, check).await;
    }
}

#[tokio::test]
async fn recovery_of_a_committed_version_survives_a_crash_at_every_call() {
    let setup = || zoo::died_after_its_record(lake::memory);
    let recover = |s: TableStorage| async move { lake::dataset(s).journal().recover().await.map(drop) };
    let done = crash_at_scaled_calls(InjectedFault::Crash, setup, recover, check).await;
    assert!(done.calls > 10, "{done:?}");
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    crash_at_scaled_calls(InjectedFault::Crash, || zoo::died_after_its_record(|| zoo::disk(&folders)), recover, check)
        .await;
}

#[tokio::test]
async fn merge_survives_a_crash_at_every_call_on_disk() {
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    let setup = || async { populated(zoo::disk(&folders)).await };
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter] {
        crash_at_scaled_calls(fault, setup, recover_then_merge, check).await;
    }
}

#[tokio::test]
async fn nothing_is_deleted_before_the_commit_record() {
    let storage = populated(lake::memory()).await;
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    merge_second(storage.with_store(recording.clone())).await.expect("the merge succeeds");
    let calls = recording.calls();
    let record = "create lake/.biscuit/t/journal/00000000000000000002.json";
    let before = calls.all().iter().take_while(|call| *call != record);
    let deleted: Vec<&String> = before.filter(|call| call.starts_with("delete lake/t/")).collect();
    // A name that no object has, with which the right to delete is tried.
    assert!(deleted.iter().all(|call| call.ends_with("/_biscuit-absent")), "{:?}", calls.all());
    assert!(calls.with("delete lake/t/").len() > deleted.len());
    assert!(calls.with("day=g").iter().all(|c| !c.starts_with("delete")), "{:?}", calls.with("day=g"));
}

async fn race(storage: TableStorage) {
    let answers = join_all((0..2).map(|_| tokio::spawn(merge_second(storage.clone())))).await;
    let answers: Vec<_> = answers.into_iter().map(|a| a.expect("the code does not panic")).collect();
    for e in answers.iter().filter_map(|a| a.as_ref().err()) {
        assert_eq!(e.code(), "Conflict", "{e}");
    }
    assert!(answers.iter().any(Result::is_ok));
    check(storage, 0).await;
}

// Two runs on the same version: one commits, the other one fails with `Conflict`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_two_concurrent_runs_commits() {
    for _ in 0..20 {
        race(populated(lake::memory()).await).await;
        let folder = tempfile::tempdir().expect("the folder is created");
        let store = LocalFileSystem::new_with_prefix(folder.path()).expect("the folder of the store exists");
        race(populated(TableStorage::local(Arc::new(store))).await).await;
    }
}

#[tokio::test]
async fn rerun_changes_no_object() {
    let storage = populated(lake::memory()).await;
    merge_second(storage.clone()).await.expect("the merge succeeds");
    let before = lake::objects(&storage.store).await;
    merge_second(storage.clone()).await.expect("the second merge succeeds");
    assert_eq!(lake::objects(&storage.store).await, before);
}
