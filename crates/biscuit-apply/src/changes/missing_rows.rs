//! Deletes of rows that a full load does not contain.

use std::sync::Arc;

use biscuit_change::{ChangeBatch, ChangeOp, ChangeRecords};
use biscuit_core::{Error, Result};
use biscuit_dataset::internal::engine_error;
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{TupleEncoder, TuplePurpose};
use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::execution::context::SessionContext;
use futures::TryStreamExt;
use hashbrown::HashSet;

/// Name in messages of records that are made from rows of the table.
const PLACE: &str = "the rows without a record";

/// Returns deletes of the rows of a table whose keys have no record in `changes`. Each delete has the order of the row
/// that it deletes.
///
/// # Errors
/// `MissingColumn` if the table does not store the order columns; the errors of the table and its files.
pub(crate) async fn deletes_of_missing(
    dataset: &Dataset,
    spec: &MergeSpec,
    changes: &ChangeRecords,
) -> Result<Vec<ChangeBatch>> {
    let mut keys: HashSet<Vec<u8>> = HashSet::new();
    for batch in &changes.batches {
        each_key(&batch.rows, &spec.key, &format!("`{}`", batch.file), &mut |_, key| {
            keys.insert(key.to_vec());
        })?;
    }
    dataset.read(|snapshot| find_deletes(snapshot, spec, &keys)).await
}

async fn find_deletes(snapshot: TableVersion, spec: &MergeSpec, keys: &HashSet<Vec<u8>>) -> Result<Vec<ChangeBatch>> {
    if snapshot.files().is_empty() {
        return Ok(vec![]);
    }
    let columns: Vec<&str> = spec.key.iter().chain(&spec.order).map(String::as_str).collect();
    let schema = snapshot.schema(&snapshot.open_files().await?)?;
    for column in &columns {
        biscuit_schema::internal::column_index(&schema, column, "the table")?;
    }
    let failed = |e| engine_error("the table", e);
    let frame = snapshot.load(&SessionContext::new()).await?.select_columns(&columns).map_err(failed)?;
    let mut rows = frame.execute_stream().await.map_err(failed)?;
    let mut deletes = Vec::new();
    while let Some(batch) = rows.try_next().await.map_err(failed)? {
        let mut missing: Vec<u32> = Vec::new();
        each_key(&batch, &spec.key, "the table", &mut |row, key| {
            if !keys.contains(key) {
                missing.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
        })?;
        if !missing.is_empty() {
            deletes.push(make_deletes(&batch, missing)?);
        }
    }
    Ok(deletes)
}

/// Calls `each` with the number and the encoded key of each row.
fn each_key(rows: &RecordBatch, key: &[String], place: &str, each: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
    let encoder = TupleEncoder::new(rows, key, TuplePurpose::Key, place)?;
    let mut bytes = Vec::new();
    for row in 0..rows.num_rows() {
        bytes.clear();
        // A record with a null key is refused when it is merged. Stored rows have no null keys.
        if encoder.encode(row, &mut bytes).is_ok() {
            each(row, &bytes);
        }
    }
    Ok(())
}

/// Makes deletes of these rows.
fn make_deletes(rows: &RecordBatch, missing: Vec<u32>) -> Result<ChangeBatch> {
    let count = missing.len();
    let rows = take_record_batch(rows, &UInt32Array::from(missing))
        .map_err(|e| Error::internal("rows could not be selected").with_source(e))?;
    let codes = vec![Arc::from("d"); count];
    let places = (1..=count as u64).collect();
    Ok(ChangeBatch { codes, ..ChangeBatch::new(rows, vec![ChangeOp::Delete; count], PLACE.into(), places) })
}
