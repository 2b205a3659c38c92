//! Diverged tables: merges refuse them, and an adoption accepts them as they are.

use std::sync::Mutex;

use biscuit_apply::{MergeSpec, RunMode, adopt, verify};
use biscuit_core::{Outcome, Result};
use biscuit_journal::TableStorage;
use biscuit_testkit::internal::{crash_at_scaled_calls, extrapolated, pause_at_scaled_calls};
use biscuit_testkit::{InjectedFault, assert_rows_eq, table};
use datafusion::arrow::array::RecordBatch;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::lake;
use crate::zoo::{self, merge_second, populated, spec};

/// All objects of a store by name.
async fn contents(storage: &TableStorage, prefix: &str) -> Vec<(Path, bytes::Bytes)> {
    let mut all = Vec::new();
    for (name, _) in lake::objects(&storage.store).await {
        if name.starts_with(prefix) {
            let path = Path::parse(name).expect("the path is valid");
            let bytes =
                storage.store.get(&path).await.expect("the object exists").bytes().await.expect("the bytes are read");
            all.push((path, bytes));
        }
    }
    all
}

async fn delete(store: &dyn ObjectStore, prefix: &str) {
    for (name, _) in lake::objects(store).await {
        if name.starts_with(prefix) {
            store.delete(&Path::parse(name).expect("the path is valid")).await.expect("the delete succeeds");
        }
    }
}

async fn is_refused(storage: &TableStorage) {
    let before = lake::objects(&storage.store).await;
    for e in [merge_second(storage.clone()).await, lake::dataset(storage.clone()).view().await.map(drop)] {
        let e = e.expect_err("it is refused");
        assert_eq!(e.code(), "Diverged", "{e}");
        assert!(e.message().contains("biscuit adopt"), "{e}");
    }
    assert_eq!(lake::objects(&storage.store).await, before, "a refusal changes nothing");
}

async fn adopted(storage: &TableStorage) -> biscuit_apply::report::AdoptReport {
    let dataset = lake::dataset(storage.clone());
    let planned = adopt(&dataset, RunMode::DryRun).await.expect("the plan is made");
    assert_eq!(planned.outcome, Outcome::Planned);
    let report = adopt(&dataset, RunMode::Commit).await.expect("the adoption succeeds");
    assert_eq!(
        (report.outcome, &report.adopted, &report.missing),
        (Outcome::Adopted, &planned.adopted, &planned.missing)
    );
    assert_eq!(
        adopt(&dataset, RunMode::Commit).await.expect("the second adoption succeeds").outcome,
        Outcome::Unchanged
    );
    report
}

async fn rows(storage: &TableStorage) -> Vec<RecordBatch> {
    lake::rows(&lake::dataset(storage.clone())).await
}

/// Rows 1, 2 and 3; then row 2 is deleted, and a value of row 3 is unchanged under a newer order.
async fn with_history() -> (TableStorage, MergeSpec) {
    let storage = lake::memory();
    let spec = spec().with_ignore_null(biscuit_apply::IgnoreNull::All);
    let dataset = lake::dataset(storage.clone());
    let first = r#"
{"id":1,"seq":10,"v":"x","w":"x","op":"c"}
{"id":2,"seq":10,"v":"y","w":"y","op":"c"}
{"id":3,"seq":10,"v":"z","w":"z","op":"c"}
"#;
    lake::merge(&dataset, &spec, first).await.expect("the merge succeeds");
    (storage, spec)
}

const LATER: &str = r#"
{"id":2,"seq":20,"v":null,"w":null,"op":"d"}
{"id":3,"seq":20,"v":"newer","w":null,"op":"u"}
"#;

#[tokio::test]
async fn missing_live_file_is_refused_and_removed_by_an_adoption() {
    let storage = populated(lake::memory()).await;
    merge_second(storage.clone()).await.expect("the merge succeeds");
    delete(&storage.store, "lake/t/day=b/").await;
    is_refused(&storage).await;
    let report = adopted(&storage).await;
    assert_eq!((report.missing.len(), report.adopted.len(), report.rows), (1, 0, 4));
    assert!(verify(&lake::dataset(storage.clone()), &[]).await.expect("the table can be verified").is_sound());
    // Merging the records again restores the lost rows.
    merge_second(storage.clone()).await.expect("the merge succeeds");
    assert_eq!(lake::count(&rows(&storage).await), 5);
}

#[tokio::test]
async fn changed_live_file_is_refused_and_adopted() {
    let storage = populated(lake::memory()).await;
    merge_second(storage.clone()).await.expect("the merge succeeds");
    let theirs = table("id:bigint | seq:bigint | v:string\n 7 | 5 | rewritten");
    lake::put_external(&storage, "lake/t/day=g/part-0.parquet", &theirs).await;
    is_refused(&storage).await;
    assert_eq!(adopted(&storage).await.adopted, ["day=g/part-0.parquet"]);
    let held = rows(&storage).await;
    assert_eq!(lake::count(&held), 6);
    assert!(biscuit_testkit::rows_text(&held).contains("rewritten"));
}

#[tokio::test]
async fn adoption_after_a_lost_state_root_makes_the_files_the_table() {
    let storage = populated(lake::memory()).await;
    merge_second(storage.clone()).await.expect("the merge succeeds");
    let before = rows(&storage).await;
    delete(&storage.store, "lake/.biscuit/").await;
    is_refused(&storage).await;
    let report = adopted(&storage).await;
    assert_eq!((report.version, report.rows), (1, 6));
    assert_rows_eq!(rows(&storage).await, before);
    // Rows count by their own orders, so that a replay changes nothing.
    merge_second(storage.clone()).await.expect("the merge succeeds");
    assert_rows_eq!(rows(&storage).await, before);
}

#[tokio::test]
async fn restored_table_counts_by_its_rows_and_a_replay_brings_it_up_to_date() {
    let (storage, spec) = with_history().await;
    let backup = contents(&storage, "lake/t/").await;
    let dataset = lake::dataset(storage.clone());
    lake::merge(&dataset, &spec, LATER).await.expect("the merge succeeds");
    let caught_up = rows(&storage).await;
    delete(&storage.store, "lake/t/").await;
    for (path, bytes) in backup {
        storage.store.put(&path, bytes.into()).await.expect("the put succeeds");
    }
    is_refused(&storage).await;
    let report = adopted(&storage).await;
    assert_eq!((report.adopted.len(), report.missing.len(), report.rows), (1, 1, 3));
    // Order 15 was late before the restore. To the restored row it is newer.
    lake::merge(&dataset, &spec, r#"{"id":3,"seq":15,"v":"between","w":"between","op":"u"}"#)
        .await
        .expect("the merge succeeds");
    assert!(biscuit_testkit::rows_text(&rows(&storage).await).contains("between"));
    lake::merge(&dataset, &spec, LATER).await.expect("the replay succeeds");
    let want = table("id:bigint | seq:bigint | v:string | w:string\n 1 | 10 | x | x\n 3 | 20 | newer | between");
    assert_rows_eq!(rows(&storage).await, want);
    assert_eq!(lake::count(&caught_up), 2);
    // The tombstone has remained.
    let late = r#"{"id":2,"seq":15,"v":"back","w":"back","op":"u"}"#;
    assert_eq!(lake::merge(&dataset, &spec, late).await.expect("the merge succeeds").verdicts.late, 1);
}

#[tokio::test]
async fn after_lost_staging_the_partition_is_unchanged_and_records_can_be_merged_again() {
    let storage = zoo::died_after_its_record(lake::memory).await;
    delete(&storage.store, "lake/.biscuit/t/staging/").await;
    let dataset = lake::dataset(storage.clone());
    assert_eq!(dataset.journal().recover().await.unwrap_err().code(), "LostStaging");
    let report = adopt(&dataset, RunMode::Commit).await.expect("the adoption succeeds");
    assert!(report.diverged, "{report:?}");
    assert!(verify(&dataset, &[]).await.expect("the table can be verified").is_sound());
    merge_second(storage.clone()).await.expect("the merge succeeds");
    zoo::has_the_rows_of_the_second(&storage).await;
    zoo::nothing_is_left_over(&storage, 0).await;
}

#[tokio::test]
async fn file_that_is_not_parquet_is_not_adopted() {
    let storage = populated(lake::memory()).await;
    storage.store.put(&Path::from("lake/t/day=h/notes.parquet"), "no parquet".into()).await.expect("the put succeeds");
    let before = lake::objects(&storage.store).await;
    let e = adopt(&lake::dataset(storage.clone()), RunMode::Commit).await.unwrap_err();
    assert!(e.message().contains("day=h/notes.parquet"), "{e}");
    assert_eq!(lake::objects(&storage.store).await, before);
}

/// A table with a missing live file, a changed one, and an external file.
async fn damaged(storage: TableStorage) -> TableStorage {
    let storage = populated(storage).await;
    merge_second(storage.clone()).await.expect("the merge succeeds");
    delete(&storage.store, "lake/t/day=c/").await;
    let theirs = table("id:bigint | seq:bigint | v:string\n 7 | 5 | rewritten");
    lake::put_external(&storage, "lake/t/day=g/part-0.parquet", &theirs).await;
    let more = table("id:bigint | seq:bigint | v:string\n 70 | 5 | more");
    lake::put_external(&storage, "lake/t/day=g/part-1.parquet", &more).await;
    storage
}

async fn take(storage: TableStorage) -> Result<()> {
    adopt(&lake::dataset(storage), RunMode::Commit).await.map(drop)
}

async fn is_taken(storage: TableStorage, at: u64) {
    let held = rows(&storage).await;
    assert_eq!(lake::count(&held), 6, "call {at}");
    zoo::nothing_is_left_over(&storage, at).await;
}

#[tokio::test]
async fn adoption_survives_a_crash_at_every_call() {
    for fault in [InjectedFault::Crash, InjectedFault::CrashAfter, InjectedFault::Fail, InjectedFault::LoseAnswer] {
        let done = crash_at_scaled_calls(fault, || damaged(lake::memory()), take, is_taken).await;
        assert!(extrapolated(done.crashed) > 10, "{done:?}");
    }
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    crash_at_scaled_calls(InjectedFault::Crash, || async { damaged(zoo::disk(&folders)).await }, take, is_taken).await;
}

#[tokio::test]
async fn adoption_may_pause_at_every_call() {
    // During the pause, another process adopts the table and then merges a new row.
    let others = |s: TableStorage, n: u32| async move {
        match n {
            1 => take(s).await,
            _ => {
                let line = r#"{"id":100,"seq":1,"day":"a","v":"new","op":"c"}"#;
                lake::merge(&lake::dataset(s), &spec(), line).await.map(drop)
            }
        }
    };
    let check = |s: TableStorage, at: u64| async move {
        lake::dataset(s.clone()).journal().recover_with_fence().await.expect("the recovery succeeds");
        assert_eq!(lake::count(&rows(&s).await), 7, "call {at}");
        zoo::nothing_is_left_over(&s, at).await;
    };
    for pause in [InjectedFault::Pause, InjectedFault::PauseAfter] {
        pause_at_scaled_calls(pause, || damaged(lake::memory()), take, others, check).await;
    }
    let folders: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
    pause_at_scaled_calls(InjectedFault::Pause, || async { damaged(zoo::disk(&folders)).await }, take, others, check)
        .await;
}
