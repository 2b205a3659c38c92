//! A crash at every storage call, a rerun, and the same rows; races; reruns that change nothing.

use std::sync::{Arc, Mutex};

use biscuit_journal::Storage;
use biscuit_merge::{Merge, MergeOptions, MergeSpec, Mode};
use biscuit_testkit::{Fault, RecordingStore, assert_rows_eq, crash_at_every_call, table};
use futures::future::join_all;
use object_store::local::LocalFileSystem;

use crate::lake;

fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("a spec")
}

const FIRST: &str = r#"
{"id":1,"seq":1,"day":"a","v":"x","op":"c"}
{"id":2,"seq":1,"day":"b","v":"y","op":"c"}
{"id":3,"seq":1,"day":"b","v":"z","op":"c"}
"#;
const SECOND: &str = r#"
{"id":1,"seq":2,"day":"b","v":"moved","op":"u"}
{"id":2,"seq":2,"day":"b","v":null,"op":"d"}
{"id":4,"seq":2,"day":"c","v":"new","op":"c"}
{"id":9,"seq":2,"day":"f","v":"changed","op":"u"}
"#;

/// A table with two partitions of Biscuit's and a foreign file of which one row changes, and one that is not touched.
async fn populated(storage: Storage) -> Storage {
    let dataset = lake::dataset(storage.clone());
    let options = MergeOptions::default().with_partition_by(["day"]).with_parallelism(1);
    lake::merge_with(&dataset, &spec(), &options, FIRST).await.expect("the first merge");
    let foreign = table("id:bigint | seq:bigint | v:string\n 9 | 1 | theirs\n 8 | 1 | kept");
    lake::put_foreign(&storage, "lake/t/day=f/part-0.parquet", &foreign).await;
    let other = table("id:bigint | seq:bigint | v:string\n 7 | 1 | untouched");
    lake::put_foreign(&storage, "lake/t/day=g/part-0.parquet", &other).await;
    storage
}

async fn merge_second(storage: Storage) -> biscuit_core::Result<()> {
    let dataset = lake::dataset(storage);
    let records = lake::changes(&dataset, SECOND).await?;
    let options = MergeOptions::default().with_parallelism(1);
    Merge::new(dataset, spec(), options)?.run(records, Mode::Commit).await.map(drop)
}

async fn recover_then_merge(storage: Storage) -> biscuit_core::Result<()> {
    lake::dataset(storage.clone()).journal().recover().await?;
    merge_second(storage).await
}

async fn check(storage: Storage, at: u64) {
    let dataset = lake::dataset(storage.clone());
    let want = table(
        "id:bigint | seq:bigint | day:string | v:string
         1 | 2 | b | moved
         3 | 1 | b | z
         4 | 2 | c | new
         9 | 2 | f | changed
         8 | 1 | f | kept
         7 | 1 | g | untouched",
    );
    assert_rows_eq!(lake::rows(&dataset).await, want);
    let snapshot = dataset.observe().await.expect("a table");
    assert!(snapshot.observed.ghosts.is_empty(), "ghosts after call {at}");
    assert!(snapshot.observed.foreign.is_empty(), "the foreign file is adopted");
    assert_eq!(snapshot.observed.head.version, 2, "call {at}");
    let objects = lake::objects(&storage.store).await;
    let names: Vec<&String> = objects.iter().map(|(n, _)| n).collect();
    assert!(names.iter().any(|n| n.as_str() == "lake/t/day=g/part-0.parquet"), "the untouched foreign file is gone");
    let staged: Vec<_> = names.iter().filter(|n| n.contains("/staging/")).collect();
    assert!(staged.is_empty(), "call {at}: {staged:?}");
    let live = names.iter().filter(|n| n.starts_with("lake/t/")).count();
    assert_eq!(live, snapshot.files().len());
}

#[tokio::test]
async fn a_merge_survives_a_crash_at_every_call_in_memory() {
    for fault in [Fault::Crash, Fault::CrashAfter, Fault::Fail, Fault::LoseAnswer] {
        let done = crash_at_every_call(fault, || populated(lake::memory()), merge_second, check).await;
        assert!(done.calls > 50, "{done:?}");
        assert!(done.crashed > 0, "{done:?}");
    }
}

#[tokio::test]
async fn recovery_survives_a_crash_at_every_call_in_memory() {
    for fault in [Fault::Crash, Fault::CrashAfter] {
        crash_at_every_call(fault, || populated(lake::memory()), recover_then_merge, check).await;
    }
}

#[tokio::test]
async fn recovery_of_a_committed_version_survives_a_crash_at_every_call() {
    // Die right after the record is there, then let only recovery run, dying at every call of its own.
    let storage = populated(lake::memory()).await;
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    merge_second(storage.with_store(recording.clone())).await.expect("a merge");
    let calls = recording.calls();
    let record = calls.all().iter().position(|c| c.starts_with("create") && c.contains("/journal/")).expect("a record");
    let setup = || async {
        let storage = populated(lake::memory()).await;
        let dying = biscuit_testkit::FaultStore::new(storage.store.clone(), Fault::CrashAfter, record as u64 + 1);
        merge_second(storage.with_store(Arc::new(dying))).await.expect_err("it died");
        storage
    };
    let recover = |s: Storage| async move { lake::dataset(s).journal().recover().await.map(drop) };
    let done = crash_at_every_call(Fault::Crash, setup, recover, check).await;
    assert!(done.calls > 10, "{done:?}");
}

#[tokio::test]
async fn a_merge_survives_a_crash_at_every_call_on_disk() {
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    let setup = || async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a store");
        folders.lock().expect("no panic").push(folder);
        populated(Storage::local(Arc::new(store))).await
    };
    for fault in [Fault::Crash, Fault::CrashAfter] {
        crash_at_every_call(fault, setup, recover_then_merge, check).await;
    }
}

#[tokio::test]
async fn nothing_is_deleted_before_the_commit_record() {
    let storage = populated(lake::memory()).await;
    let recording = Arc::new(RecordingStore::new(storage.store.clone()));
    merge_second(storage.with_store(recording.clone())).await.expect("a merge");
    let calls = recording.calls();
    assert!(
        calls.before("create lake/.biscuit/t/journal/00000000000000000002.json", "delete lake/t/"),
        "{:?}",
        calls.all()
    );
    assert!(!calls.with("delete lake/t/").is_empty());
    assert!(calls.with("day=g").iter().all(|c| !c.starts_with("delete")), "{:?}", calls.with("day=g"));
}

async fn race(storage: Storage) {
    let answers = join_all((0..2).map(|_| tokio::spawn(merge_second(storage.clone())))).await;
    let answers: Vec<_> = answers.into_iter().map(|a| a.expect("no panic")).collect();
    for e in answers.iter().filter_map(|a| a.as_ref().err()) {
        assert_eq!(e.code(), "Conflict", "{e}");
    }
    assert!(answers.iter().any(Result::is_ok));
    check(storage, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_at_once_exactly_one_wins() {
    for _ in 0..20 {
        race(populated(lake::memory()).await).await;
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a store");
        race(populated(Storage::local(Arc::new(store))).await).await;
    }
}

#[tokio::test]
async fn a_rerun_changes_no_object() {
    let storage = populated(lake::memory()).await;
    merge_second(storage.clone()).await.expect("a merge");
    let before = lake::objects(&storage.store).await;
    merge_second(storage.clone()).await.expect("the same merge");
    assert_eq!(lake::objects(&storage.store).await, before);
}
