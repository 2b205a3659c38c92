//! Helpers for a dataset in memory.

use std::sync::Arc;

use biscuit_core::Result;
use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
use biscuit_journal::{CommitSummary, JournalOptions, TableStorage};
use datafusion::arrow::array::RecordBatch;
use datafusion::prelude::{DataFrame, SessionContext};
use object_store::memory::InMemory;

pub(crate) fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

pub(crate) fn dataset(storage: &TableStorage) -> Dataset {
    Dataset::new(
        Location::new(storage.clone(), "lake/t", "lake/t").expect("the place is valid"),
        JournalOptions::default(),
    )
}

pub(crate) fn frame(rows: &RecordBatch) -> DataFrame {
    SessionContext::new().read_batch(rows.clone()).expect("the frame is valid")
}

pub(crate) async fn write(
    d: &Dataset,
    rows: &RecordBatch,
    mode: WriteMode,
    options: &WriteOptions,
) -> Result<CommitSummary> {
    d.observe().await?.write(frame(rows), mode, options).await
}

pub(crate) async fn load(d: &Dataset) -> DataFrame {
    d.view().await.expect("the table is readable").load(&SessionContext::new()).await.expect("the frame is valid")
}

pub(crate) async fn rows(d: &Dataset) -> Vec<RecordBatch> {
    load(d).await.collect().await.expect("the rows are readable")
}

pub(crate) async fn paths(d: &Dataset) -> Vec<String> {
    d.view().await.expect("the table is readable").files().iter().map(|f| f.path().to_owned()).collect()
}

/// The folders of all files, without duplicates.
pub(crate) async fn folders(d: &Dataset) -> Vec<String> {
    let mut folders: Vec<String> =
        paths(d).await.iter().map(|p| p.rsplit_once('/').map_or(String::new(), |(f, _)| f.to_owned())).collect();
    folders.dedup();
    folders
}
