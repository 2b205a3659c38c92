//! A crash and a pause at every storage call of a run that carries a late record forward and opens a period.

use biscuit_core::Result;
use biscuit_journal::TableStorage;
use biscuit_testkit::InjectedFault;
use biscuit_testkit::internal::{crash_at_scaled_calls, extrapolated, pause_at_scaled_calls};

use crate::lab::{self, HISTORY, effective, run, spec, states, table};

const LATE: &str = r#"
{"id":"k4","eff":"2024-01-15","v":"z","op":"c"}
{"id":"k2","eff":"2024-02-20","v":"","op":"d"}
{"id":"k1","eff":"2024-04-02","v":"d","op":"u"}
{"id":"k7","eff":"2024-06-01","v":"waits","op":"c"}
"#;

async fn populated(storage: TableStorage) -> TableStorage {
    run(&table(&storage, spec(), effective()), HISTORY, "2024-02-28").await.expect("the history is merged");
    storage
}

async fn late(storage: TableStorage) -> Result<()> {
    run(&table(&storage, spec(), effective()), LATE, "2024-04-15").await.map(drop)
}

async fn check(storage: TableStorage, at: u64) {
    let got = states(&storage, &["2024-01", "2024-02", "2024-03", "2024-04"]).await;
    assert_eq!(got, ["k1=a,k4=z", "k1=b,k4=z", "k1=b,k4=z", "k1=d,k4=z"], "call {at}");
    let snapshot = lab::dataset(storage.clone()).observe().await.expect("the table is readable");
    assert!(snapshot.observed.orphan_files.is_empty() && snapshot.observed.external.is_empty(), "call {at}");
    assert!(!lab::objects(&storage).await.iter().any(|(name, _)| name.contains("/staging/")), "call {at}");
    let report = run(&table(&storage, spec(), effective()), "", "2024-06-15").await.expect("June opens");
    assert_eq!(report.opened, 1, "call {at}");
}

#[tokio::test]
async fn run_survives_a_crash_at_every_call() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter, InjectedFault::LoseAnswer] {
        let done = crash_at_scaled_calls(fault, || populated(lab::memory()), late, check).await;
        assert!(done.calls > 60 && done.crashed > 0, "{done:?}");
    }
}

/// The runs of others while the first run is paused: newer and older records of its keys, and a new period.
async fn meanwhile(storage: TableStorage, n: u32) -> Result<()> {
    let (lines, as_of) = match n {
        1 => (r#"{"id":"k4","eff":"2024-02-10","v":"z2","op":"u"}"#, "2024-04-20"),
        _ => (r#"{"id":"k9","eff":"2024-05-03","v":"may","op":"c"}"#, "2024-05-15"),
    };
    run(&table(&storage, spec(), effective()), lines, as_of).await.map(drop)
}

#[tokio::test]
async fn run_survives_a_pause_at_every_call() {
    let setup = || populated(lab::memory());
    let check = |storage: TableStorage, at: u64| async move {
        lab::dataset(storage.clone()).journal().recover_with_fence().await.expect("the recovery succeeds");
        let got = states(&storage, &["2024-01", "2024-02", "2024-03", "2024-04", "2024-05"]).await;
        let want = ["k1=a,k4=z", "k1=b,k4=z2", "k1=b,k4=z2", "k1=d,k4=z2", "k1=d,k4=z2,k9=may"];
        assert_eq!(got, want, "call {at}");
        let snapshot = lab::dataset(storage.clone()).observe().await.expect("the table is readable");
        assert!(snapshot.observed.orphan_files.is_empty() && snapshot.observed.external.is_empty(), "call {at}");
    };
    let done = pause_at_scaled_calls(InjectedFault::Pause, setup, late, meanwhile, check).await;
    assert!(extrapolated(done.slept) > 60 && done.conflicts > 0, "{done:?}");
}

#[tokio::test]
async fn run_on_local_disk_survives_a_crash_at_every_call() {
    let folders: std::sync::Mutex<Vec<tempfile::TempDir>> = std::sync::Mutex::default();
    let disk = || {
        let folder = tempfile::tempdir().expect("the folder exists");
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("the store opens");
        folders.lock().expect("no thread panicked").push(folder);
        TableStorage::local(std::sync::Arc::new(store))
    };
    // On a local disk, a run that died before its commit is cleaned up by a fence.
    let check = |storage: TableStorage, at: u64| async move {
        lab::dataset(storage.clone()).journal().recover_with_fence().await.expect("the recovery succeeds");
        check(storage, at).await;
    };
    crash_at_scaled_calls(InjectedFault::CrashAfter, || populated(disk()), late, check).await;
}
