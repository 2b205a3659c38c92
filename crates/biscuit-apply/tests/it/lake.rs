//! A small lake in memory for the tests of this crate.

use std::sync::Arc;

use biscuit_apply::report::MergeReport;
use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use datafusion::arrow::array::RecordBatch;
use datafusion::execution::context::SessionContext;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;

/// A table in this storage.
pub(crate) fn dataset(storage: TableStorage) -> Dataset {
    let location = Location::new(storage, "lake/t", "lake/t").expect("it is below the root");
    Dataset::new(location, JournalOptions::default())
}

/// The key `id`, ordered by `seq`.
pub(crate) fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["seq"]).expect("the specification is valid")
}

/// Options for one core.
pub(crate) fn serial() -> MergeOptions {
    MergeOptions::default().with_parallelism(1)
}

pub(crate) fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

/// Writes a Parquet file as another program would.
pub(crate) async fn put_external(storage: &TableStorage, path: &str, rows: &RecordBatch) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("the writer is created");
    writer.write(rows).expect("the rows are written");
    writer.close().expect("the file is closed");
    storage.store.put(&Path::from(path), bytes.into()).await.expect("the put succeeds");
}

/// Reads change records from JSON lines with the column `op`, in the types of the table.
pub(crate) async fn changes(dataset: &Dataset, lines: &str) -> Result<ChangeRecords> {
    let snapshot = dataset.view().await?;
    let schema = snapshot.schema(&snapshot.open_files().await?)?;
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op").with_expected(schema));
    if !lines.trim().is_empty() {
        reader.read("changes.jsonl", lines.to_owned().into_bytes().into())?;
    }
    reader.finish()
}

/// Merges JSON lines.
pub(crate) async fn merge(dataset: &Dataset, spec: &MergeSpec, lines: &str) -> Result<MergeReport> {
    merge_with(dataset, spec, &MergeOptions::default().with_parallelism(1), lines).await
}

pub(crate) async fn merge_with(
    dataset: &Dataset,
    spec: &MergeSpec,
    options: &MergeOptions,
    lines: &str,
) -> Result<MergeReport> {
    let records = changes(dataset, lines).await?;
    let report = Merge::new(dataset.clone(), spec.clone(), options.clone())?.run(records, RunMode::Commit).await?;
    assert_eq!(report.verdicts.total(), report.records, "the verdicts do not add up: {:?}", report.verdicts);
    Ok(report)
}

pub(crate) async fn rows(dataset: &Dataset) -> Vec<RecordBatch> {
    let frame = dataset
        .view()
        .await
        .expect("the table can be read")
        .load(&SessionContext::new())
        .await
        .expect("the frame is valid");
    frame.collect().await.expect("the rows are readable")
}

pub(crate) fn count(rows: &[RecordBatch]) -> usize {
    rows.iter().map(RecordBatch::num_rows).sum()
}

/// Returns all objects with their ETags.
pub(crate) async fn objects(store: &dyn ObjectStore) -> Vec<(String, Option<String>)> {
    use futures::TryStreamExt;
    let mut all: Vec<_> = store
        .list(None)
        .map_ok(|m| (m.location.to_string(), m.e_tag))
        .try_collect()
        .await
        .expect("the listing succeeds");
    all.sort();
    all
}
