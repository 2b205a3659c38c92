//! The sink of a table complies with the conformance suite, in each mode.

use std::sync::Arc;

use biscuit_core::{CommitId, Instant, Outcome, Run, RunId, Sink};
use biscuit_dataset::{TableSink, WriteMode, WriteOptions};
use biscuit_journal::TableStorage;
use biscuit_testkit::conformance::{SinkCase, check_storage_sink};
use biscuit_testkit::{dataset_text, table};
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::FutureExt;

use crate::lake::{dataset, frame, memory, rows};

/// Returns a frame whose second batch has a day without a folder.
fn failing() -> DataFrame {
    let batches = vec![table("v:int | day:string\n1 | 2024-02-28"), table("v:int | day:string\n2 | \"\"")];
    let rows = MemTable::try_new(batches[0].schema(), vec![batches]).expect("the table is valid");
    SessionContext::new().read_table(Arc::new(rows)).expect("the frame is valid")
}

fn case() -> SinkCase<DataFrame> {
    SinkCase {
        first: frame(&table("v:int | day:string\n1 | 2024-02-28\n2 | 2024-02-29")),
        second: frame(&table("v:int | day:string\n3 | 2024-02-29")),
        empty: frame(&table("v:int | day:string\n1 | 2024-02-28").slice(0, 0)),
        failing: Some(failing()),
    }
}

fn sink(storage: &TableStorage, mode: WriteMode) -> TableSink {
    TableSink::new(dataset(storage), mode).with_options(WriteOptions::default().with_partition_by(["day"]))
}

async fn check(mode: WriteMode) {
    let open = move |storage: TableStorage| -> Arc<dyn Sink<DataFrame>> { Arc::new(sink(&storage, mode)) };
    let read = |storage: TableStorage| {
        async move {
            let text = dataset_text(&dataset(&storage)).await.expect("the table can be read");
            text.lines().map(str::to_owned).collect()
        }
        .boxed()
    };
    check_storage_sink(&open, &read, &case()).await;
}

#[tokio::test]
async fn appending_sink_passes_the_conformance_suite() {
    check(WriteMode::Append).await;
}

#[tokio::test]
async fn sink_that_replaces_partitions_passes_the_conformance_suite() {
    check(WriteMode::ReplacePartitions).await;
}

#[tokio::test]
async fn sink_that_replaces_all_rows_passes_the_conformance_suite() {
    check(WriteMode::ReplaceAll).await;
    check(WriteMode::ReplaceAllEvenByNothing).await;
}

#[tokio::test]
async fn rows_without_a_row_write_no_version_and_no_file() {
    let storage = memory();
    let run = Run::new("sales", RunId::new("1"), Instant::from_micros(0));
    for mode in [WriteMode::Append, WriteMode::ReplacePartitions, WriteMode::ReplaceAll] {
        let receipt =
            sink(&storage, mode).write(&run, &CommitId::new("empty"), case().empty).await.expect("the write succeeds");
        assert_eq!((receipt.outcome, receipt.rows), (Outcome::Unchanged, 0), "{mode:?}");
        assert_eq!(receipt.place, "lake/t version 0");
    }
    let version = dataset(&storage).observe().await.expect("the version is observed");
    assert_eq!((version.observed.head.version, version.files().len()), (0, 0));
}

#[tokio::test]
async fn mode_decides_which_rows_remain() {
    for (mode, remaining) in [(WriteMode::Append, 3), (WriteMode::ReplacePartitions, 2), (WriteMode::ReplaceAll, 1)] {
        let (storage, run) = (memory(), Run::new("sales", RunId::new("1"), Instant::from_micros(0)));
        for (id, value) in [("a", case().first), ("b", case().second)] {
            sink(&storage, mode).write(&run, &CommitId::new(id), value).await.expect("the write succeeds");
        }
        let count: usize = rows(&dataset(&storage)).await.iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(count, remaining, "{mode:?}");
    }
}
