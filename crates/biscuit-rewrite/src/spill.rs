use std::fs::File;
#[cfg(not(unix))]
use std::io::Write;
use std::io::{Read, Seek, SeekFrom};
#[cfg(unix)]
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use biscuit_core::{Error, ErrorKind, Result};
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamEncoder;

/// A file on the local disk for rows that memory has no room for, in the folder for temporary files (`TMPDIR`). It has no
/// name, so that nothing stays behind, however the process ends.
#[derive(Debug)]
pub struct Spill {
    file: Mutex<File>,
    /// The same file, for those that write, who need no turn.
    #[cfg(unix)]
    writing: File,
    /// Bytes that are written, or about to be.
    end: AtomicU64,
}

fn failed(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("rows cannot be put on the disk for temporary files: {e}");
    Error::new(ErrorKind::Unavailable, "SpillFailed", message).with_source(e)
}

impl Spill {
    /// An empty one.
    ///
    /// # Errors
    /// `SpillFailed` if there is no folder for temporary files that can be written.
    pub fn new() -> Result<Arc<Self>> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Arc::new(Self {
            #[cfg(unix)]
            writing: file.try_clone().map_err(failed)?,
            file: Mutex::new(file),
            end: AtomicU64::new(0),
        }))
    }

    /// Puts rows on the disk.
    ///
    /// # Errors
    /// `SpillFailed`, for a disk that is full among others.
    pub fn write(self: &Arc<Self>, rows: &RecordBatch) -> Result<Rows> {
        let bytes = to_bytes(rows).map_err(failed)?;
        let length = bytes.len() as u64;
        let at = self.end.fetch_add(length, Ordering::Relaxed);
        self.write_at(&bytes, at).map_err(failed)?;
        let nulls = rows.columns().iter().map(|c| c.logical_null_count() > 0).collect();
        let on_disk = OnDisk { spill: self.clone(), at, length, schema: rows.schema(), nulls };
        Ok(Rows { count: rows.num_rows(), held: Held::Disk(Arc::new(on_disk)) })
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        self.writing.write_all_at(bytes, at)
    }

    #[cfg(not(unix))]
    fn write_at(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        let mut file = self.file();
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Arrow's format for streams.
fn to_bytes(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut encoder = StreamEncoder::try_new(rows.schema_ref())?;
    let buffers = encoder.encode(rows)?;
    let mut bytes = Vec::with_capacity(buffers.iter().map(Buffer::len).sum());
    buffers.iter().for_each(|buffer| bytes.extend_from_slice(buffer));
    Ok(bytes)
}

/// Rows that wait to be written: in memory, or on the local disk.
#[derive(Debug, Clone)]
pub struct Rows {
    count: usize,
    held: Held,
}

#[derive(Debug, Clone)]
enum Held {
    Memory(RecordBatch),
    Disk(Arc<OnDisk>),
}

#[derive(Debug)]
struct OnDisk {
    spill: Arc<Spill>,
    at: u64,
    length: u64,
    schema: SchemaRef,
    /// By column, whether there is a null.
    nulls: Vec<bool>,
}

impl From<RecordBatch> for Rows {
    fn from(rows: RecordBatch) -> Self {
        Self { count: rows.num_rows(), held: Held::Memory(rows) }
    }
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows, read back if they are on the disk.
    ///
    /// # Errors
    /// `SpillFailed`.
    pub fn get(&self) -> Result<RecordBatch> {
        match &self.held {
            Held::Memory(rows) => Ok(rows.clone()),
            Held::Disk(at) => at.read(),
        }
    }

    /// The same rows, on the disk.
    ///
    /// # Errors
    /// `SpillFailed`.
    pub fn spilled(self, spill: &Arc<Spill>) -> Result<Self> {
        match &self.held {
            Held::Memory(rows) => spill.write(rows),
            Held::Disk(_) => Ok(self),
        }
    }

    /// Bytes that they take in memory.
    pub fn memory(&self) -> usize {
        match &self.held {
            Held::Memory(rows) => rows.get_array_memory_size(),
            Held::Disk(at) => usize::try_from(at.length).unwrap_or(usize::MAX),
        }
    }

    /// Whether a column is null in some of the rows; one that they do not have is.
    pub(crate) fn has_null(&self, column: &str) -> bool {
        match &self.held {
            Held::Memory(rows) => rows.column_by_name(column).is_none_or(|c| c.logical_null_count() > 0),
            Held::Disk(at) => at.schema.index_of(column).map_or(true, |i| at.nulls[i]),
        }
    }
}

impl OnDisk {
    fn read(&self) -> Result<RecordBatch> {
        // Not zeroed before it is read into, which costs as much as the reading.
        let mut bytes = Vec::with_capacity(usize::try_from(self.length).unwrap_or(0));
        {
            let mut file = self.spill.file();
            file.seek(SeekFrom::Start(self.at)).map_err(failed)?;
            Read::by_ref(&mut *file).take(self.length).read_to_end(&mut bytes).map_err(failed)?;
        }
        // The arrays are slices of what was read.
        let mut bytes = Buffer::from(bytes);
        let decoded = StreamDecoder::new().decode(&mut bytes).map_err(failed)?;
        decoded.ok_or_else(|| Error::internal("rows on the disk are not what was put there"))
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
        RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("name", names, true)]).expect("a batch")
    }

    #[test]
    fn rows_come_back_from_the_disk_in_any_order() {
        let spill = Spill::new().unwrap();
        let batches = [rows(0, 10), rows(10, 0), rows(20, 1000).slice(5, 100)];
        let written: Vec<Rows> = batches.iter().map(|b| spill.write(b).unwrap()).collect();
        for (rows, batch) in written.iter().zip(&batches).rev() {
            assert_eq!((&rows.get().unwrap(), rows.len()), (batch, batch.num_rows()));
        }
        assert!(written[0].has_null("name") && !written[0].has_null("id") && written[0].has_null("other"));
        // Of a slice only what it shows is written.
        assert!(written[2].memory() < Rows::from(batches[2].clone()).memory());
    }
}
