//! Rows that wait to be written, in memory or in temporary files.

use std::sync::{Arc, Mutex, PoisonError};

use biscuit_core::{Error, Result};
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamEncoder;
use datafusion::execution::memory_pool::MemoryReservation;

use crate::spill::columnar::ColumnarSpill;
use crate::spill::files::{SpillFiles, damaged_spill, spill_error};

/// Temporary files for rows that do not fit into memory, in the folder for temporary files (`TMPDIR`). The files have
/// no names, so the operating system removes them however the process ends.
#[derive(Debug)]
pub struct SpillFolder {
    files: Arc<SpillFiles>,
    /// Memory for rows that need not be written to disk yet.
    memory: Option<Arc<SpillMemory>>,
}

/// Memory of a [`SpillFolder`].
#[derive(Debug)]
struct SpillMemory {
    limit: usize,
    reserved: Mutex<MemoryReservation>,
}

/// Part of the memory, which is free again when the rows are dropped.
#[derive(Debug)]
struct HeldMemory {
    memory: Arc<SpillMemory>,
    bytes: usize,
}

impl SpillMemory {
    /// Returns memory for `bytes`; `None` if there is not enough.
    fn hold(self: &Arc<Self>, bytes: usize) -> Option<Arc<HeldMemory>> {
        let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = reserved.size().saturating_add(bytes) <= self.limit;
        (fits && reserved.try_grow(bytes).is_ok()).then(|| Arc::new(HeldMemory { memory: self.clone(), bytes }))
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.memory.reserved.lock().unwrap_or_else(PoisonError::into_inner).shrink(self.bytes);
    }
}

impl SpillFolder {
    /// Creates the temporary files.
    ///
    /// # Errors
    /// `SpillFailed` if the temporary folder does not exist or cannot be written.
    pub fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self { files: SpillFiles::new()?, memory: None }))
    }

    /// Creates the temporary files, and keeps rows in memory up to `bytes` and as long as `memory` can grow. Only
    /// further rows are written to disk.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_memory(bytes: usize, memory: MemoryReservation) -> Result<Arc<Self>> {
        let memory = SpillMemory { limit: bytes, reserved: Mutex::new(memory) };
        Ok(Arc::new(Self { files: SpillFiles::new()?, memory: Some(Arc::new(memory)) }))
    }

    /// Keeps rows in memory. Returns `None` if there is not enough memory.
    fn hold(&self, rows: &RecordBatch) -> Option<Arc<HeldMemory>> {
        self.memory.as_ref()?.hold(slice_bytes(rows))
    }

    /// Writes rows to disk.
    ///
    /// # Errors
    /// `SpillFailed`, for example if the disk is full.
    pub fn write(self: &Arc<Self>, rows: &RecordBatch) -> Result<BufferedRows> {
        if let Some(memory) = self.hold(rows) {
            return Ok(BufferedRows::held(rows.clone(), memory));
        }
        let bytes = to_bytes(rows).map_err(spill_error)?;
        let length = bytes.len() as u64;
        let (file, at) = self.files.reserve(length);
        self.files.file(file).write(&bytes, at)?;
        let nulls = rows.columns().iter().map(|c| c.logical_null_count() > 0).collect();
        let on_disk = OnDisk { files: self.files.clone(), file, at, length, schema: rows.schema(), nulls };
        Ok(BufferedRows { count: rows.num_rows(), held: RowsStorage::Disk(Arc::new(on_disk)) })
    }

    /// Writes rows to disk in parts, which can be read alone or together with parts of other batches. `parts` are the
    /// numbers of rows of consecutive parts.
    ///
    /// # Errors
    /// As [`write`](Self::write); `Internal` if the parts do not add up to all rows.
    pub fn write_parts(self: &Arc<Self>, rows: &RecordBatch, parts: &[usize]) -> Result<Vec<BufferedRows>> {
        if parts.iter().sum::<usize>() != rows.num_rows() {
            return Err(Error::internal("the parts do not add up to all rows"));
        }
        if let Some(memory) = self.hold(rows) {
            let mut at = 0;
            let part = |count: &usize| {
                at += count;
                BufferedRows::held(rows.slice(at - count, *count), memory.clone())
            };
            return Ok(parts.iter().map(part).collect());
        }
        if let Some(lanes) = ColumnarSpill::write(&self.files, rows, parts)? {
            let part = |(part, rows): (usize, &usize)| BufferedRows {
                count: *rows,
                held: RowsStorage::Part(lanes.clone(), part),
            };
            return Ok(parts.iter().enumerate().map(part).collect());
        }
        let mut at = 0;
        let mut part = |count: &usize| {
            at += count;
            self.write(&rows.slice(at - count, *count))
        };
        parts.iter().map(&mut part).collect()
    }
}

/// Encodes rows in the Arrow IPC stream format.
fn to_bytes(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut encoder = StreamEncoder::try_new(rows.schema_ref())?;
    let buffers = encoder.encode(rows)?;
    let mut bytes = Vec::with_capacity(buffers.iter().map(Buffer::len).sum());
    buffers.iter().for_each(|buffer| bytes.extend_from_slice(buffer));
    Ok(bytes)
}

/// Rows that wait to be written, in memory or on disk.
#[derive(Debug, Clone)]
pub struct BufferedRows {
    count: usize,
    held: RowsStorage,
}

#[derive(Debug, Clone)]
enum RowsStorage {
    Memory(RecordBatch),
    /// Rows in the memory of a folder, and their size.
    Held(RecordBatch, usize, #[expect(dead_code, reason = "frees the memory when it is dropped")] Arc<HeldMemory>),
    Disk(Arc<OnDisk>),
    /// Part of rows that are stored on disk by column.
    Part(Arc<ColumnarSpill>, usize),
}

#[derive(Debug)]
struct OnDisk {
    files: Arc<SpillFiles>,
    file: usize,
    at: u64,
    length: u64,
    schema: SchemaRef,
    /// For each column, whether it has a null.
    nulls: Vec<bool>,
}

impl From<RecordBatch> for BufferedRows {
    fn from(rows: RecordBatch) -> Self {
        Self { count: rows.num_rows(), held: RowsStorage::Memory(rows) }
    }
}

/// Returns the bytes of the rows themselves, without the rest of the arrays that they are a slice of.
fn slice_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

impl BufferedRows {
    fn held(rows: RecordBatch, memory: Arc<HeldMemory>) -> Self {
        let bytes = slice_bytes(&rows);
        Self { count: rows.num_rows(), held: RowsStorage::Held(rows, bytes, memory) }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the rows. Reads them if they are on disk.
    ///
    /// # Errors
    /// `SpillFailed`.
    pub fn get(&self) -> Result<RecordBatch> {
        match &self.held {
            RowsStorage::Memory(rows) | RowsStorage::Held(rows, ..) => Ok(rows.clone()),
            RowsStorage::Disk(at) => at.read(),
            RowsStorage::Part(lanes, part) => ColumnarSpill::read(&[(lanes.clone(), *part)]),
        }
    }

    /// Returns the rows of `all`, which must have the same columns, as one batch.
    ///
    /// # Errors
    /// `SpillFailed`; `Internal` if the columns differ or `all` is empty.
    pub fn concat(all: &[Self]) -> Result<RecordBatch> {
        let part = |rows: &Self| match &rows.held {
            RowsStorage::Part(lanes, part) => Some((lanes.clone(), *part)),
            _ => None,
        };
        if let Some(parts) = all.iter().map(part).collect::<Option<Vec<_>>>() {
            return ColumnarSpill::read(&parts);
        }
        let batches = all.iter().map(Self::get).collect::<Result<Vec<_>>>()?;
        let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| Error::internal("there are no rows"))?;
        concat_batches(&schema, &batches).map_err(|e| Error::internal("rows could not be concatenated").with_source(e))
    }

    /// Returns the columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        match &self.held {
            RowsStorage::Memory(rows) | RowsStorage::Held(rows, ..) => rows.schema_ref(),
            RowsStorage::Disk(at) => &at.schema,
            RowsStorage::Part(lanes, _) => lanes.schema(),
        }
    }

    /// Moves the rows to disk. Does nothing if they are there already.
    ///
    /// # Errors
    /// `SpillFailed`.
    pub fn spill(self, spill: &Arc<SpillFolder>) -> Result<Self> {
        match &self.held {
            RowsStorage::Memory(rows) => spill.write(rows),
            RowsStorage::Held(..) | RowsStorage::Disk(_) | RowsStorage::Part(..) => Ok(self),
        }
    }

    /// Returns the memory that the rows take when they are loaded, in bytes.
    pub fn memory_size(&self) -> usize {
        match &self.held {
            RowsStorage::Memory(rows) => rows.get_array_memory_size(),
            RowsStorage::Held(_, bytes, _) => *bytes,
            RowsStorage::Disk(at) => usize::try_from(at.length).unwrap_or(usize::MAX),
            RowsStorage::Part(lanes, part) => lanes.bytes(*part),
        }
    }

    /// Returns whether a column has a null. A column that the rows do not have counts as null.
    pub(crate) fn has_null(&self, column: &str) -> bool {
        match &self.held {
            RowsStorage::Memory(rows) | RowsStorage::Held(rows, ..) => {
                rows.column_by_name(column).is_none_or(|c| c.logical_null_count() > 0)
            }
            RowsStorage::Disk(at) => at.schema.index_of(column).map_or(true, |i| at.nulls[i]),
            RowsStorage::Part(lanes, _) => lanes.schema().index_of(column).map_or(true, |i| lanes.has_null(i)),
        }
    }
}

impl OnDisk {
    fn read(&self) -> Result<RecordBatch> {
        let mut bytes = vec![0; usize::try_from(self.length).map_err(spill_error)?];
        self.files.file(self.file).read(&mut bytes, self.at)?;
        // The arrays are slices of this buffer, without a copy.
        let mut bytes = Buffer::from(bytes);
        let decoded = StreamDecoder::new().decode(&mut bytes).map_err(spill_error)?;
        decoded.ok_or_else(damaged_spill)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn rows(from: i64, count: i64) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
        let names = (from..from + count).map(|i| (i % 3 != 0).then(|| format!("n{i}")));
        let names: ArrayRef = Arc::new(names.collect::<StringArray>());
        RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("name", names, true)])
            .expect("the columns have the same length")
    }

    #[test]
    fn rows_are_written_to_disk_only_if_they_do_not_fit_into_memory() {
        use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};

        let batch = rows(0, 100);
        let bytes = slice_bytes(&batch);
        // Either the folder or the pool has memory for two batches.
        for (limit, pool) in [(2 * bytes, 100 * bytes), (100 * bytes, 2 * bytes)] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(pool));
            let spill = SpillFolder::in_memory(limit, MemoryConsumer::new("rows").register(&pool)).unwrap();
            let mut held = spill.write_parts(&batch, &[30, 70]).unwrap();
            held.push(spill.write(&batch).unwrap());
            let on_disk = spill.write(&batch).unwrap();
            let is_held = |rows: &BufferedRows| matches!(rows.held, RowsStorage::Held(..));
            assert!(held.iter().all(is_held) && !is_held(&on_disk) && pool.reserved() == 2 * bytes);
            assert_eq!(BufferedRows::concat(&held[..2]).unwrap(), batch);
            assert_eq!((held[1].get().unwrap(), on_disk.get().unwrap()), (batch.slice(30, 70), batch.clone()));
            assert!(held[0].memory_size() < bytes / 2);
            held.truncate(1);
            assert_eq!(pool.reserved(), bytes, "the parts of a batch are freed together");
            drop(held);
            assert_eq!(pool.reserved(), 0);
            assert!(is_held(&spill.write(&batch).unwrap()));
        }
    }

    #[test]
    fn spilled_rows_can_be_read_in_any_order() {
        let spill = SpillFolder::new().unwrap();
        let batches = [rows(0, 10), rows(10, 0), rows(20, 1000).slice(5, 100)];
        let written: Vec<BufferedRows> = batches.iter().map(|b| spill.write(b).unwrap()).collect();
        for (rows, batch) in written.iter().zip(&batches).rev() {
            assert_eq!((&rows.get().unwrap(), rows.len()), (batch, batch.num_rows()));
        }
        assert!(written[0].has_null("name") && !written[0].has_null("id") && written[0].has_null("other"));
        // For a slice, only its visible rows are written.
        assert!(written[2].memory_size() < BufferedRows::from(batches[2].clone()).memory_size());
    }
}
