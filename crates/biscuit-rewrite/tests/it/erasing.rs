//! Erasure: the rows of a subject go, and nothing else.

use std::sync::Arc;

use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, Storage};
use biscuit_rewrite::{Mode, erase, rows_with};
use biscuit_testkit::{Fault, crash_at_every_call};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::lab::{file, flat, plain};

fn dataset(storage: Storage) -> Dataset {
    Dataset::new(Location::new(storage, "lake/t", "lake/t").expect("a place"), JournalOptions::default())
}

/// Ids from 0 to 59 in one file, from 100 to 159 in another, and only 7 in a third.
async fn lake() -> Storage {
    let storage = Storage::durable(Arc::new(InMemory::new()));
    for (part, ids) in [(0..60).collect::<Vec<i64>>(), (100..160).collect(), vec![7]].into_iter().enumerate() {
        let bytes = file(&[flat(&ids, "a")], plain());
        let path = format!("lake/t/region={}/part-{part}.parquet", part % 2);
        storage.store.put(&Path::from(path), bytes.into()).await.expect("a put");
    }
    storage
}

async fn ids(storage: &Storage) -> Vec<i64> {
    let frame = dataset(storage.clone()).load(&SessionContext::new()).await.expect("a table");
    let rows: Vec<RecordBatch> = frame.select_columns(&["id"]).expect("a column").collect().await.expect("rows");
    let mut all: Vec<i64> =
        rows.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn rows_with_the_values_go_and_files_without_them_stay() {
    let storage = lake().await;
    let before = ids(&storage).await;
    let table = || dataset(storage.clone());
    let values = ["7".to_owned(), "59".to_owned(), "none".to_owned()];
    let rows: usize = rows_with(&table(), "id", &values).await.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 3, "those that would go");
    let planned = erase(&table(), "id", &values, Mode::DryRun).await.unwrap();
    assert_eq!(
        (planned.outcome, planned.erased, planned.files, ids(&storage).await),
        ("planned", 3, 2, before.clone())
    );
    let names =
        |snapshot: biscuit_dataset::Snapshot| snapshot.files().iter().map(|f| f.path.clone()).collect::<Vec<_>>();
    let untouched = names(table().view().await.unwrap()).into_iter().find(|n| n.ends_with("part-1.parquet")).unwrap();
    let report = erase(&table(), "id", &values, Mode::Commit).await.unwrap();
    assert_eq!((report.outcome, report.erased, report.rows), ("committed", 3, 121));
    let want: Vec<i64> = before.into_iter().filter(|id| ![7, 59].contains(id)).collect();
    assert_eq!(ids(&storage).await, want);
    let after = names(table().view().await.unwrap());
    assert!(after.contains(&untouched) && after.len() == 2, "a file of nothing else is gone: {after:?}");
    assert_eq!(erase(&table(), "id", &values, Mode::Commit).await.unwrap().outcome, "unchanged");
    let e = erase(&table(), "nix", &values, Mode::Commit).await.unwrap_err();
    assert_eq!((e.code(), e.column()), ("MissingColumn", Some("nix")));
}

#[tokio::test]
async fn a_crash_at_any_call_leaves_all_rows_or_those_that_are_wanted() {
    for fault in [Fault::Fail, Fault::Crash, Fault::LoseAnswer] {
        let job =
            async |storage: Storage| erase(&dataset(storage), "id", &["7".to_owned()], Mode::Commit).await.map(drop);
        let check = |storage: Storage, call| async move {
            let found = ids(&storage).await;
            assert!(!found.contains(&7) && found.len() == 119, "after call {call}");
        };
        assert!(crash_at_every_call(fault, lake, job, check).await.crashed > 10);
    }
}
