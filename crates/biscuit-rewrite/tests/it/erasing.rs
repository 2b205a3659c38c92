//! Erasure: the rows of subjects are deleted, and no others.

use std::sync::Arc;

use biscuit_core::Outcome;
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_rewrite::{ErasureSubjects, RunMode, SubjectRows, erase};
use biscuit_testkit::InjectedFault;
use biscuit_testkit::internal::{crash_at_scaled_calls, extrapolated};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::lab::{file, flat, plain};

fn dataset(storage: TableStorage) -> Dataset {
    Dataset::new(Location::new(storage, "lake/t", "lake/t").expect("the place is valid"), JournalOptions::default())
}

/// Three files, with ids from 0 to 59, with ids from 100 to 159, and with id 7 only.
async fn lake() -> TableStorage {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    for (part, ids) in [(0..60).collect::<Vec<i64>>(), (100..160).collect(), vec![7]].into_iter().enumerate() {
        let bytes = file(&[flat(&ids, "a")], plain());
        let path = format!("lake/t/region={}/part-{part}.parquet", part % 2);
        storage.store.put(&Path::from(path), bytes.into()).await.expect("the put succeeds");
    }
    storage
}

async fn ids(storage: &TableStorage) -> Vec<i64> {
    let frame = dataset(storage.clone()).load(&SessionContext::new()).await.expect("the table is loaded");
    let rows: Vec<RecordBatch> =
        frame.select_columns(&["id"]).expect("the column is present").collect().await.expect("the rows are readable");
    let mut all: Vec<i64> =
        rows.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn rows_of_subjects_are_erased_and_other_files_remain() {
    let storage = lake().await;
    let before = ids(&storage).await;
    let table = || dataset(storage.clone());
    let subjects = ErasureSubjects::new("id", ["7", "59", "none"]);
    let found = SubjectRows::find(&table().view().await.unwrap(), &subjects).await.unwrap();
    let rows: usize = found.read(None).await.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!((rows, found.rows()), (3, 3), "rows that the erasure would delete");
    let planned = erase(&table(), &subjects, RunMode::DryRun).await.unwrap();
    assert_eq!(
        (planned.outcome, planned.erased, planned.files, ids(&storage).await),
        (Outcome::Planned, 3, 2, before.clone())
    );
    let names = |snapshot: biscuit_dataset::TableVersion| {
        snapshot.files().iter().map(|f| f.path().to_owned()).collect::<Vec<_>>()
    };
    let untouched = names(table().view().await.unwrap()).into_iter().find(|n| n.ends_with("part-1.parquet")).unwrap();
    let report = erase(&table(), &subjects, RunMode::Commit).await.unwrap();
    assert_eq!((report.outcome, report.erased, report.rows), (Outcome::Committed, 3, 121));
    let want: Vec<i64> = before.into_iter().filter(|id| ![7, 59].contains(id)).collect();
    assert_eq!(ids(&storage).await, want);
    let after = names(table().view().await.unwrap());
    assert!(after.contains(&untouched) && after.len() == 2, "a file without remaining rows is deleted: {after:?}");
    assert_eq!(erase(&table(), &subjects, RunMode::Commit).await.unwrap().outcome, Outcome::Unchanged);
    let e = erase(&table(), &ErasureSubjects::new("nix", ["7"]), RunMode::Commit).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownColumn", Some("nix")));
}

#[tokio::test]
async fn erasure_completes_after_a_crash_at_any_call() {
    for fault in [InjectedFault::Fail, InjectedFault::Crash, InjectedFault::LoseAnswer] {
        let job = async |storage: TableStorage| {
            erase(&dataset(storage), &ErasureSubjects::new("id", ["7"]), RunMode::Commit).await.map(drop)
        };
        let check = |storage: TableStorage, call| async move {
            let found = ids(&storage).await;
            assert!(!found.contains(&7) && found.len() == 119, "after call {call}");
        };
        assert!(extrapolated(crash_at_scaled_calls(fault, lake, job, check).await.crashed) > 10);
    }
}

#[tokio::test]
async fn erasing_from_a_missing_table_is_an_error() {
    let nowhere = Location::new(lake().await, "lake/typo", "lake/typo").expect("the place is valid");
    let nowhere = Dataset::new(nowhere, JournalOptions::default());
    for mode in [RunMode::DryRun, RunMode::Commit] {
        let e = erase(&nowhere, &ErasureSubjects::new("id", ["7"]), mode).await.unwrap_err();
        assert_eq!((e.code(), e.kind().name()), ("NoTable", "usage"));
    }
}

#[tokio::test]
async fn retained_files_with_erased_rows_are_deleted_and_others_remain() {
    let storage = lake().await;
    let slow = JournalOptions::default().with_retention(std::time::Duration::from_secs(86_400));
    let table = || {
        let location = Location::new(storage.clone(), "lake/t", "lake/t").expect("the place is valid");
        Dataset::new(location, slow.clone())
    };
    let erased = |id: &str| ErasureSubjects::new("id", [id.to_owned()]);
    // A compaction leaves three retained files with all rows. An erasure deletes those that contain the subject.
    let mut options = biscuit_rewrite::CompactOptions::default();
    options.parquet.row_group_rows = Some(20);
    biscuit_rewrite::compact(&table(), &options, RunMode::Commit).await.unwrap();
    let held = |d: Dataset| async move { d.view().await.unwrap().observed.retained.len() };
    assert_eq!(held(table()).await, 3);
    let report = erase(&table(), &erased("120"), RunMode::Commit).await.unwrap();
    assert_eq!((report.erased, report.retained_files, held(table()).await), (1, 1, 2), "{report:?}");
    let planned = erase(&table(), &erased("7"), RunMode::DryRun).await.unwrap();
    assert_eq!((planned.erased, planned.retained_files), (2, 2));
    let report = erase(&table(), &erased("7"), RunMode::Commit).await.unwrap();
    assert_eq!((report.outcome, report.retained_files, held(table()).await), (Outcome::Committed, 2, 0));
    assert_eq!(ids(&storage).await.len(), 118);
}

#[tokio::test]
async fn erasure_without_matches_deletes_staged_files_of_dead_runs() {
    let storage = lake().await;
    let table = || dataset(storage.clone());
    erase(&table(), &ErasureSubjects::new("id", ["7"]), RunMode::Commit).await.unwrap();
    let snapshot = table().observe().await.unwrap();
    let journal = table().journal().clone();
    let mut dead = journal.begin_commit(&snapshot.observed);
    dead.stage("", "parquet", file(&[flat(&[7], "a")], plain())).await.unwrap();
    let staged = || async {
        use futures::TryStreamExt;
        let all = storage.store.list(Some(&Path::from("lake/.biscuit/t/staging"))).try_collect::<Vec<_>>().await;
        all.expect("the listing succeeds").len()
    };
    assert_eq!(staged().await, 1);
    let report = erase(&table(), &ErasureSubjects::new("id", ["7"]), RunMode::Commit).await.unwrap();
    assert_eq!((report.outcome, staged().await), (Outcome::Unchanged, 0));
    // The run was not dead but slow.
    assert_eq!(dead.commit().await.unwrap_err().code(), "Conflict");
    assert!(!ids(&storage).await.contains(&7));
}
