//! Pending records: records whose period does not exist yet, in a state file.

use std::collections::HashSet;

use biscuit_change::ChangeBatch;
use biscuit_change::internal::parquet_row;
use biscuit_core::{Error, Result};
use biscuit_journal::{CommitExtras, Journal, TableHead};
use bytes::Bytes;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::state_file::StateFileKind;

/// State file of pending records. Each part is an Arrow IPC stream with one batch.
const PENDING: StateFileKind = StateFileKind("pending");

/// Loads the pending records of the newest version.
pub(crate) async fn load_pending(journal: &Journal, head: &TableHead) -> Result<Vec<ChangeBatch>> {
    read(&PENDING.load_parts(journal, head).await?)
}

/// Adds the state file with these records to a commit, or removes the file if there are none.
pub(crate) fn store(batches: &[ChangeBatch], extras: &mut CommitExtras) -> Result<()> {
    match batches {
        [] => extras.remove_state(PENDING.0),
        batches => extras.put_state(PENDING.0, write(batches)?),
    }
    Ok(())
}

fn write(batches: &[ChangeBatch]) -> Result<Bytes> {
    let failed = |e| Error::internal("cannot write pending records").with_source(e);
    let mut parts = Vec::with_capacity(batches.len());
    for batch in batches {
        let packed = batch.pack()?;
        let mut one = Vec::new();
        let mut writer = StreamWriter::try_new(&mut one, packed.schema_ref()).map_err(failed)?;
        writer.write(&packed).and_then(|()| writer.finish()).map_err(failed)?;
        drop(writer);
        parts.push(one);
    }
    Ok(PENDING.write(parts))
}

fn read(parts: &[Vec<u8>]) -> Result<Vec<ChangeBatch>> {
    let mut batches = Vec::with_capacity(parts.len());
    for part in parts {
        let mut reader =
            StreamReader::try_new(part.as_slice(), None).map_err(|e| PENDING.damaged_error().with_source(e))?;
        let packed = reader
            .next()
            .ok_or_else(|| PENDING.damaged_error())?
            .map_err(|e| PENDING.damaged_error().with_source(e))?;
        batches.push(ChangeBatch::unpack(&packed, parquet_row)?);
    }
    Ok(batches)
}

/// Texts of records, to recognize records that are already pending when they arrive again.
#[derive(Debug, Default)]
pub(crate) struct PendingIndex(HashSet<String>);

impl PendingIndex {
    /// Creates an index of these records.
    pub(crate) fn from_batches(batches: &[ChangeBatch]) -> Result<Self> {
        let mut known = Self::default();
        for batch in batches {
            known.add_batch(batch)?;
        }
        Ok(known)
    }

    /// Adds the records of a batch. Returns the rows of those that were not in the index.
    pub(crate) fn add_batch(&mut self, batch: &ChangeBatch) -> Result<Vec<u32>> {
        let options = FormatOptions::default().with_null("\u{0}");
        let failed = |e| Error::internal("cannot format a record").with_source(e);
        let schema = batch.rows.schema();
        let mut columns = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            let shown = ArrayFormatter::try_new(batch.rows.column(i).as_ref(), &options).map_err(failed)?;
            columns.push((field.name(), i, shown));
        }
        columns.sort_by_key(|(name, ..)| *name);
        let mut new = Vec::new();
        for row in 0..batch.ops.len() {
            // Control characters separate the parts. An absent column and a column with null have different texts.
            let mut text = format!("{}\u{1}{}\u{1}{:?}", batch.ops[row] as u8, batch.rank, batch.completeness);
            for (name, i, shown) in &columns {
                let present = batch.present.get(*i).and_then(Option::as_ref).is_none_or(|g| g.value(row));
                if present {
                    text.push_str(&format!("\u{1}{name}\u{2}{}", shown.value(row)));
                }
            }
            for m in batch.key_changes.iter().filter(|m| m.row == row) {
                text.push_str(&format!("\u{1}{:?}{:?}", m.kind, m.key));
            }
            if self.0.insert(text) {
                new.push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
            }
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use biscuit_change::{ChangeColumns, row_changes};
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use super::*;

    fn batch(names: &[&str]) -> ChangeBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=names.len() as i64));
        let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        let rows = RecordBatch::try_from_iter([("id", ids), ("name", names)]).expect("the batch is valid");
        let places = (1..=rows.num_rows() as u64).collect();
        row_changes(&rows, &"a".into(), places, &ChangeColumns::default()).expect("the records are valid").0
    }

    #[test]
    fn pending_records_are_read_back_and_recognized() {
        let batches = [batch(&["a", "b"]), batch(&["a", "c", "d"])];
        let again =
            read(&PENDING.read(&write(&batches).expect("the bytes are written")).expect("the parts are readable"))
                .expect("the records are readable");
        assert_eq!(again.len(), 2);
        assert_eq!(again[1].rows, batches[1].rows);
        let mut known = PendingIndex::from_batches(&again[..1]).expect("the records are valid");
        assert_eq!(known.add_batch(&batches[1]).expect("the records are valid"), [1, 2]);
        assert!(known.add_batch(&batches[1]).expect("the records are valid").is_empty());
        assert_eq!(read(&[vec![]]).unwrap_err().code(), "Diverged");
    }
}
