//! Compaction: many small files become few large ones with the same rows.

use biscuit_core::Outcome;
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_rewrite::{CompactOptions, CompactReport, RunMode, SortBy, compact};
use biscuit_testkit::internal::{crash_at_scaled_calls, extrapolated};
use biscuit_testkit::{InjectedFault, assert_rows_eq};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::basic::{Compression, ZstdLevel};
use std::sync::Arc;

use crate::lab::{file, flat, footer, plain};

fn dataset(storage: TableStorage) -> Dataset {
    Dataset::new(Location::new(storage, "lake/t", "lake/t").expect("the place is valid"), JournalOptions::default())
}

/// Two folders of three files each, with 60 rows a file and overlapping ids.
async fn lake() -> TableStorage {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    for f in 0..6_i64 {
        let ids: Vec<i64> = (0..60).map(|r| (r * 7 + f * 13) % 60 + f % 3).collect();
        let bytes = file(&[flat(&ids[..30], "a"), flat(&ids[30..], "b")], plain());
        let path = format!("lake/t/region={}/part-{f}.parquet", f % 2);
        storage.store.put(&Path::from(path), bytes.into()).await.expect("the put succeeds");
    }
    storage
}

async fn rows(dataset: &Dataset) -> Vec<RecordBatch> {
    dataset
        .load(&SessionContext::new())
        .await
        .expect("the table is loaded")
        .collect()
        .await
        .expect("the rows are readable")
}

async fn run(storage: &TableStorage, options: &CompactOptions) -> CompactReport {
    compact(&dataset(storage.clone()), options, RunMode::Commit).await.expect("the compaction succeeds")
}

#[tokio::test]
async fn small_files_of_a_folder_are_joined_and_a_second_run_changes_nothing() {
    let storage = lake().await;
    let before = rows(&dataset(storage.clone())).await;
    let planned = compact(&dataset(storage.clone()), &CompactOptions::default(), RunMode::DryRun)
        .await
        .expect("the plan is made");
    assert_eq!((planned.outcome, planned.files_replaced, planned.files_written), (Outcome::Planned, 6, 0));
    let mut options = CompactOptions::default();
    options.parquet.row_group_rows = Some(100);
    let report = run(&storage, &options).await;
    assert_eq!(
        (report.outcome, report.files_replaced, report.files_written, report.rows),
        (Outcome::Committed, 6, 2, 360)
    );
    assert_rows_eq!(rows(&dataset(storage.clone())).await, before);
    for file in dataset(storage.clone())
        .view()
        .await
        .expect("the table is readable")
        .open_files()
        .await
        .expect("the files are opened")
    {
        let sizes: Vec<i64> = file.metadata().metadata().row_groups().iter().map(|g| g.num_rows()).collect();
        assert_eq!(sizes, [90, 90]);
    }
    let again = run(&storage, &options).await;
    assert_eq!((again.outcome, again.files_replaced), (Outcome::Unchanged, 0));
}

#[tokio::test]
async fn compaction_copies_full_row_groups() {
    let storage = TableStorage::durable(Arc::new(InMemory::new()));
    for f in 0..3_i64 {
        let ids: Vec<i64> = (f * 200..f * 200 + 200).collect();
        let bytes = file(&[flat(&ids[..100], "a"), flat(&ids[100..], "b")], plain());
        storage
            .store
            .put(&Path::from(format!("lake/t/part-{f}.parquet")), bytes.into())
            .await
            .expect("the put succeeds");
    }
    let report = run(&storage, &CompactOptions::default()).await;
    assert_eq!((report.files_written, report.groups_copied, report.groups_encoded), (1, 6, 0));
    let frame = rows(&dataset(storage)).await;
    assert_eq!(frame.iter().map(RecordBatch::num_rows).sum::<usize>(), 600);
}

fn by(column: &str, descending: bool) -> SortBy {
    if descending { SortBy::descending(column) } else { SortBy::ascending(column) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_sorted_across_files_and_row_groups() {
    for (descending, memory) in [(false, None), (true, Some(8 << 20))] {
        let storage = lake().await;
        let before = rows(&dataset(storage.clone())).await;
        let mut options = CompactOptions::default();
        options.sort_by = vec![by("id", descending), by("note", false)];
        options.parquet.row_group_rows = Some(50);
        options.target_size = 1_500;
        options.memory = memory;
        run(&storage, &options).await;
        assert_rows_eq!(rows(&dataset(storage.clone())).await, before);
        let mut files = dataset(storage.clone())
            .view()
            .await
            .expect("the table is readable")
            .open_files()
            .await
            .expect("the files are opened");
        assert!(files.len() > 2, "files end at the target size");
        files.retain(|f| f.path().starts_with("region=0"));
        let mut ranges = Vec::new();
        for open in files {
            let bytes = storage
                .store
                .get(&open.file.object)
                .await
                .expect("the get succeeds")
                .bytes()
                .await
                .expect("the bytes are read");
            let sorting = footer(&bytes)
                .row_group(0)
                .sorting_columns()
                .cloned()
                .expect("the footer declares its sorting columns");
            assert_eq!((sorting[0].column_idx, sorting[0].descending, sorting[1].column_idx), (0, descending, 2));
            let ids = crate::lab::read(&bytes).column(0).as_primitive::<Int64Type>().values().to_vec();
            let ordered = if descending { ids.iter().rev().is_sorted() } else { ids.is_sorted() };
            assert!(ordered, "{ids:?}");
            ranges.push((ids.iter().min().copied(), ids.iter().max().copied()));
        }
        ranges.sort();
        assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0), "{ranges:?}");
        let again = run(&storage, &options).await;
        assert_eq!(again.outcome, Outcome::Unchanged, "{again:?}");
    }
}

#[tokio::test]
async fn compaction_changes_the_codec_if_one_is_chosen() {
    let storage = lake().await;
    let mut options = CompactOptions::default();
    options.parquet.compression = Some(Compression::ZSTD(ZstdLevel::default()));
    // No file is small enough to be joined.
    options.target_size = 1;
    let report = run(&storage, &options).await;
    assert_eq!(
        (report.files_written, report.groups_copied),
        (12, 0),
        "each row group makes a file, since it exceeds the target size"
    );
    for file in dataset(storage.clone())
        .view()
        .await
        .expect("the table is readable")
        .open_files()
        .await
        .expect("the files are opened")
    {
        let mut chunks = file.metadata().metadata().row_groups().iter().flat_map(|g| g.columns());
        assert!(chunks.all(|c| matches!(c.compression(), Compression::ZSTD(_))));
    }
    assert_eq!(run(&storage, &options).await.outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn missing_sort_column_is_an_error_and_changes_nothing() {
    let storage = lake().await;
    let mut options = CompactOptions::default();
    options.sort_by = vec![by("price", false)];
    let e = compact(&dataset(storage.clone()), &options, RunMode::Commit).await.expect_err("the column does not exist");
    assert_eq!(e.code(), "UnknownColumn");
    assert_eq!(dataset(storage).view().await.expect("the table is readable").files().len(), 6);
}

#[tokio::test]
async fn rows_survive_a_failure_at_any_call() {
    for fault in [InjectedFault::Fail, InjectedFault::Crash, InjectedFault::LoseAnswer] {
        let job = |storage: TableStorage| async move {
            let mut options = CompactOptions::default();
            options.parallelism = 1;
            options.sort_by = vec![by("id", false)];
            compact(&dataset(storage), &options, RunMode::Commit).await.map(drop)
        };
        let check = |storage: TableStorage, call: u64| async move {
            let found = rows(&dataset(storage.clone())).await;
            assert_rows_eq!(found, rows(&dataset(lake().await)).await);
            let files = dataset(storage).view().await.expect("the table is readable").files().len();
            assert_eq!(files, 2, "after call {call}");
        };
        assert!(extrapolated(crash_at_scaled_calls(fault, lake, job, check).await.crashed) > 20);
    }
}
