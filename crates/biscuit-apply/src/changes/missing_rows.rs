//! Deletes of rows that a full load does not contain.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use biscuit_change::{ChangeBatch, ChangeOp};
use biscuit_core::{Error, Result};
use biscuit_dataset::TableVersion;
use biscuit_dataset::internal::engine_error;
use biscuit_merge::internal::{TupleEncoder, TuplePurpose};
use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::execution::context::SessionContext;
use futures::TryStreamExt;
use hashbrown::HashSet;

use crate::changes::buffered::BufferedChanges;
use crate::setup::MergeSetup;

/// Name in messages of records that are made from rows of the table.
const PLACE: &str = "the rows without a record";

/// Memory of a key in a set in addition to its bytes, estimated.
const EACH_KEY: usize = 48;

/// A share of all keys: those whose hash has the remainder `number` when it is divided by `of`.
#[derive(Debug, Clone, Copy)]
struct KeyShare {
    number: u64,
    of: u64,
}

impl KeyShare {
    fn contains(self, key: &[u8]) -> bool {
        self.of == 1 || BuildHasherDefault::<DefaultHasher>::default().hash_one(key) % self.of == self.number
    }
}

/// Adds deletes of the rows of a table whose keys have no record in `changes`. Each delete has the order of the row that it
/// deletes.
///
/// The keys of the records are held in memory. If they exceed the memory for change records, the keys are compared one
/// share after the other, and records and table are read once for each.
///
/// # Errors
/// `MissingColumn` if the table does not store the order columns; `SpillFailed`; the errors of the table and its files.
pub(crate) async fn add_deletes_of_missing(setup: &MergeSetup, changes: &mut BufferedChanges) -> Result<()> {
    let limit = setup.options.change_limit().unwrap_or(usize::MAX).max(1);
    let mut bytes = 0;
    each_record_key(changes, &setup.spec.key, &mut |key| bytes += key.len() + EACH_KEY)?;
    let of = bytes.div_ceil(limit).max(1) as u64;
    let records: &BufferedChanges = changes;
    let deletes = setup.dataset.read(|snapshot| find_deletes(setup, snapshot, records, of)).await?;
    changes.append(deletes);
    Ok(())
}

/// Returns the deletes, beside the records of `changes`.
async fn find_deletes(
    setup: &MergeSetup,
    snapshot: TableVersion,
    changes: &BufferedChanges,
    of: u64,
) -> Result<BufferedChanges> {
    let mut deletes = changes.another();
    if snapshot.files().is_empty() {
        return Ok(deletes);
    }
    let (key, order) = (&setup.spec.key, &setup.spec.order);
    let columns: Vec<&str> = key.iter().chain(order).map(String::as_str).collect();
    let schema = snapshot.schema(&snapshot.open_files().await?)?;
    for column in &columns {
        biscuit_schema::internal::column_index(&schema, column, "the table")?;
    }
    let failed = |e| engine_error("the table", e);
    for number in 0..of {
        let share = KeyShare { number, of };
        let mut keys: HashSet<Vec<u8>> = HashSet::new();
        each_record_key(changes, key, &mut |bytes| {
            if share.contains(bytes) && !keys.contains(bytes) {
                keys.insert(bytes.to_vec());
            }
        })?;
        let frame = snapshot.load(&SessionContext::new()).await?.select_columns(&columns).map_err(failed)?;
        let mut rows = frame.execute_stream().await.map_err(failed)?;
        while let Some(batch) = rows.try_next().await.map_err(failed)? {
            let mut missing: Vec<u32> = Vec::new();
            each_key(&batch, key, "the table", &mut |row, bytes| {
                if share.contains(bytes) && !keys.contains(bytes) {
                    missing.push(u32::try_from(row).unwrap_or(u32::MAX));
                }
            })?;
            if !missing.is_empty() {
                deletes.add(make_deletes(&batch, missing)?)?;
            }
        }
    }
    Ok(deletes)
}

/// Calls `each` with the encoded key of each record.
fn each_record_key(changes: &BufferedChanges, key: &[String], each: &mut dyn FnMut(&[u8])) -> Result<()> {
    for batch in changes.batches() {
        let batch = batch?;
        each_key(&batch.rows, key, &format!("`{}`", batch.file), &mut |_, key| each(key))?;
    }
    Ok(())
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
