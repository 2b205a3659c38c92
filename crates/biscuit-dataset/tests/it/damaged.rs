//! Damaged Parquet files: an error that names the file, never a panic, and never other rows.

use std::sync::Arc;

use biscuit_core::{ErrorKind, ObjectRef, Result};
use biscuit_dataset::internal::engine_error;
use biscuit_dataset::{DataFile, OpenFile};
use biscuit_testkit::table;
use datafusion::arrow::array::{Int32Builder, ListBuilder, RecordBatch};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::lake::{dataset, memory};

fn content() -> RecordBatch {
    let row = |i: usize| format!("{i} | {}", ["a", "null", "ccc"][i % 3]);
    let rows: Vec<String> = (0..40).map(row).collect();
    let flat = table(&format!("id:bigint | v:string\n{}", rows.join("\n")));
    let mut lists = ListBuilder::new(Int32Builder::new());
    (0..40).for_each(|i| lists.append_value([Some(i), None]));
    let columns = [("id", flat.column(0).clone()), ("v", flat.column(1).clone()), ("l", Arc::new(lists.finish()) as _)];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("the batch is valid")
}

fn parquet(rows: &RecordBatch) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(25)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).expect("the writer is created");
    writer.write(rows).expect("the rows are written");
    writer.into_inner().expect("the file is complete")
}

async fn stored(bytes: &[u8]) -> Arc<dyn ObjectStore> {
    let store = memory().store;
    store.put(&Path::from("lake/t/a.parquet"), bytes.to_vec().into()).await.expect("the put succeeds");
    store
}

async fn open(bytes: &[u8]) -> Result<OpenFile> {
    let listed = ObjectRef::new("a.parquet", bytes.len() as u64, None);
    let file = DataFile::outside_tables(listed, Path::from("lake/t/a.parquet"));
    OpenFile::open(stored(bytes).await, file).await
}

async fn streamed(bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let open = open(bytes).await?;
    open.page_indexes().await?;
    open.stream(None)?.try_collect().await
}

/// Reads the table with the engine, in several tasks.
async fn queried(bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let d = dataset(&memory().with_store(stored(bytes).await));
    let frame = d.view().await?.load(&SessionContext::new()).await?;
    let failed = |e: DataFusionError| engine_error("the table", e);
    // A changed byte may be part of a column name.
    let first = frame.schema().field(0).name().clone();
    let sorted = frame.sort_by(vec![datafusion::prelude::ident(first)]).map_err(failed)?;
    sorted.collect().await.map_err(failed)
}

fn check(read: Result<Vec<RecordBatch>>, what: &str) {
    match read {
        Ok(rows) => assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 40, "{what}"),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Data, "{what}: {e}");
            assert!(e.message().contains("a.parquet"), "{what}: {e}");
        }
    }
}

#[tokio::test]
async fn changed_byte_gives_all_rows_or_an_error_with_the_file_name() {
    let whole = parquet(&content());
    for at in 0..whole.len() {
        let bits = if at % 2 == 0 { 1_u8 << (at % 8) } else { 0xff };
        let mut damaged = whole.clone();
        damaged[at] ^= bits;
        check(streamed(&damaged).await, &format!("byte {at} ^ {bits:#x}"));
    }
}

#[tokio::test]
async fn changed_byte_gives_all_rows_or_an_error_in_a_query() {
    let whole = parquet(&content());
    for at in (0..whole.len()).step_by(11) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        check(queried(&damaged).await, &format!("byte {at}"));
    }
}

#[tokio::test]
async fn truncated_file_is_unreadable() {
    let whole = parquet(&content());
    for cut in (0..whole.len()).step_by(37) {
        let e = open(&whole[..cut]).await.unwrap_err();
        assert!(e.code() == "UnreadableParquet" && e.message().contains("a.parquet"), "the first {cut} bytes: {e}");
    }
}

/// Opens a file whose footer was changed by replacing bytes that occur in it once.
async fn with_footer(from: &[u8], to: &[u8]) -> Result<OpenFile> {
    let mut bytes = parquet(&content());
    let footer = bytes.len()
        - 8
        - u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().expect("there are four bytes")) as usize;
    let places: Vec<usize> = (footer..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "the footer has it at {places:?}");
    bytes[places[0]..][..to.len()].copy_from_slice(to);
    open(&bytes).await
}

#[tokio::test]
async fn a_footer_that_contradicts_its_row_groups_is_unreadable() {
    // Field 3 of the footer is a number (40 rows), after the schema and before the list of two row groups.
    let rows = [0x16, 80, 0x19, 0x2c];
    for other in [0_u8, 78, 82, 1] {
        let e = with_footer(&rows, &[0x16, other, 0x19, 0x2c]).await.unwrap_err();
        assert_eq!(e.code(), "UnreadableParquet", "{other}: {e}");
    }
    assert!(with_footer(&rows, &rows).await.is_ok());
}
