use std::collections::BTreeMap;

use biscuit_core::Result;
use biscuit_dataset::OpenFile;
use biscuit_merge::internal::{RowRef, TargetRows};
use biscuit_schema::internal::align;
use datafusion::arrow::datatypes::SchemaRef;
use futures::TryStreamExt;

/// Reads stored rows with all columns, by their numbers, and adds them to `tables`.
pub(crate) async fn fetch_stored_rows(
    file: &OpenFile,
    rows: &[u64],
    target: &SchemaRef,
    tables: &mut TargetRows,
) -> Result<BTreeMap<u64, RowRef>> {
    let place = format!("`{}`", file.path());
    let mut batches = file.stream_rows(None, rows)?;
    let mut numbers = rows.iter();
    let mut places = BTreeMap::new();
    while let Some(batch) = batches.try_next().await? {
        let table = tables.add_table(align(&batch, &file.file.partition, target, &place)?);
        for row in 0..batch.num_rows() {
            let number = numbers.next().expect("the reader returns as many rows as were requested");
            places.insert(*number, RowRef { table, row: u32::try_from(row).expect("a batch is small") });
        }
    }
    Ok(places)
}
