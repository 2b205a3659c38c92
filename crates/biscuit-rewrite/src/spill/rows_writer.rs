//! A writer of new files whose rows arrive one batch after the other.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::FileStager;
use datafusion::arrow::array::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::encode::output::FileOutput;
use crate::encode::row_group::bytes_of;
use crate::encode::threads::{EncodeThreads, UnitResources};
use crate::encode::unit_target::{ReadyRowGroup, UnitTarget};
use crate::plan::choice::choose_rewrite;
use crate::plan::unit::{InsertedRows, RewriteUnit, WrittenUnit};

/// Writes new files of a folder while their rows are produced. A thread encodes the rows, and row groups are staged
/// when they are full.
///
/// Memory: the unfinished row group is accounted in the memory pool of the session, and ends early when the pool is
/// used up. Batches that wait to be encoded are accounted as well; they are at most 16 MiB, or one batch when the
/// pool is used up. In addition, up to two encoded row groups are on their way to the store. For files with encrypted
/// columns, the unfinished row group consists of its rows, and one row group is encoded at a time.
///
/// A dropped writer stops soon after; [`stop`](Self::stop) waits until it has stopped.
#[derive(Debug)]
pub struct RowsWriter {
    rows: mpsc::UnboundedSender<PendingRows>,
    /// Permits for waiting rows, one for each KiB.
    room: Arc<Semaphore>,
    memory: MemoryReservation,
    writing: WriterTask,
}

/// Rows that wait to be encoded, with the permits and the memory that they hold.
#[derive(Debug)]
struct PendingRows {
    rows: RecordBatch,
    _room: OwnedSemaphorePermit,
    _memory: MemoryReservation,
}

/// Task of the writer. It is aborted when the writer is dropped.
#[derive(Debug)]
struct WriterTask(JoinHandle<Result<Vec<WrittenUnit>>>);

impl Drop for WriterTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Maximum size of the rows that wait to be encoded, in KiB. It keeps the encoder busy while further rows are
/// produced.
const WAITING: u32 = 16 << 10;

/// Rows are larger in memory than encoded. The rows of an encrypted row group may take this multiple of its maximum
/// size.
const GATHERED: usize = 4;

impl RowsWriter {
    /// Creates a writer for a unit without sources and rows. The first batch decides which columns get a dictionary.
    pub fn new(unit: RewriteUnit, stager: &FileStager, context: Arc<TaskContext>) -> Self {
        let consumer = MemoryConsumer::new(format!("rows for `{}`", unit.name()));
        let memory = consumer.register(context.memory_pool());
        let shared =
            Arc::new(UnitResources { stager: stager.clone(), context, cores: Arc::new(EncodeThreads::new(1)) });
        let (rows, receive) = mpsc::unbounded_channel();
        let writing = WriterTask(tokio::spawn(write(unit, shared, receive)));
        Self { rows, room: Arc::new(Semaphore::new(WAITING as usize)), memory, writing }
    }

    /// Appends rows, in the columns of the unit. Waits while too many rows wait to be encoded.
    ///
    /// # Errors
    /// `UnstorableType` and the errors of the store. An error of earlier rows is returned by a later call.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        let bytes = bytes_of(&rows);
        let own = u32::try_from(bytes >> 10).unwrap_or(WAITING).clamp(1, WAITING);
        let room = self.reserve_kib(own).await?;
        let memory = self.memory.new_empty();
        if memory.try_grow(bytes).is_err() {
            // The pool is used up: wait until no other batch is in the queue, then go on without an accounting.
            drop(self.reserve_kib(WAITING - own).await?);
        }
        if self.rows.send(PendingRows { rows, _room: room, _memory: memory }).is_ok() {
            return Ok(());
        }
        match self.writing.wait_for_units().await {
            Ok(_) => Err(Error::internal("the writer ended before its rows did")),
            Err(e) => Err(e),
        }
    }

    async fn reserve_kib(&self, kib: u32) -> Result<OwnedSemaphorePermit> {
        let room = self.room.clone().acquire_many_owned(kib).await;
        room.map_err(|e| Error::internal("the queue of the writer is closed").with_source(e))
    }

    /// Ends the last file, and returns all staged files. They become part of the table only when the caller publishes
    /// them with a table commit.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn finish(self) -> Result<Vec<WrittenUnit>> {
        let Self { rows, mut writing, .. } = self;
        drop(rows);
        writing.wait_for_units().await
    }

    /// Stops writing. No file is staged after this returns. Files that were staged before are deleted when the caller
    /// abandons the table commit.
    pub async fn stop(mut self) {
        self.writing.0.abort();
        // The outcome does not matter, only that the task has ended.
        let _ = self.writing.wait_for_units().await;
    }
}

impl WriterTask {
    async fn wait_for_units(&mut self) -> Result<Vec<WrittenUnit>> {
        (&mut self.0).await.map_err(|e| Error::internal("the task of the writer was cut off").with_source(e))?
    }
}

type RowReceiver = mpsc::UnboundedReceiver<PendingRows>;

async fn write(mut unit: RewriteUnit, shared: Arc<UnitResources>, mut rows: RowReceiver) -> Result<Vec<WrittenUnit>> {
    let Some(PendingRows { rows: first, .. }) = rows.recv().await else { return Ok(vec![]) };
    unit.inserts = vec![InsertedRows::new(None, first.clone())];
    let choice = choose_rewrite(&unit);
    let target = Arc::new(UnitTarget::new(Arc::new(unit), shared, choice).await?);
    if target.is_encrypted() {
        return write_gathered(&target, first, rows).await;
    }
    let (full, mut groups) = mpsc::channel(1);
    let encoder = target.clone();
    let encoding = tokio::task::spawn_blocking(move || {
        let consumer = MemoryConsumer::new(format!("RowsWriter `{}`", encoder.unit.name()));
        let memory = consumer.register(encoder.shared.context.memory_pool());
        let rows =
            std::iter::once(first).chain(std::iter::from_fn(|| rows.blocking_recv().map(|waiting| waiting.rows)));
        encoder.encode_stream(rows, &memory, &mut |chunks| full.blocking_send(chunks).is_ok())
    });
    let mut out = FileOutput::new(target.clone(), 0);
    while let Some(chunks) = groups.recv().await {
        out.append_group(ReadyRowGroup::Encoded(vec![chunks])).await?;
    }
    encoding.await.map_err(|e| Error::internal("the thread that encodes rows was cut off").with_source(e))??;
    out.finish().await
}

/// Writes files with encrypted columns. Their row groups are encoded when their file is open, so the rows of a row
/// group are collected first.
async fn write_gathered(
    target: &Arc<UnitTarget>,
    first: RecordBatch,
    mut rows: RowReceiver,
) -> Result<Vec<WrittenUnit>> {
    let consumer = MemoryConsumer::new(format!("RowsWriter `{}`", target.unit.name()));
    let memory = consumer.register(target.shared.context.memory_pool());
    let (max_rows, max_bytes) = (target.max_rows(), GATHERED * target.unit.parquet.row_group_bytes);
    let mut out = FileOutput::new(target.clone(), 0);
    let (mut group, mut count, mut next) = (vec![], 0, Some(first));
    while let Some(batch) = next {
        let mut full = memory.try_grow(bytes_of(&batch)).is_err() || memory.size() >= max_bytes;
        let mut at = 0;
        while at < batch.num_rows() {
            let part = batch.slice(at, (batch.num_rows() - at).min(max_rows - count));
            (at, count) = (at + part.num_rows(), count + part.num_rows());
            group.push(target.of_file(&part)?);
            if full || count >= max_rows {
                out.append_group(target.encode_rows(std::mem::take(&mut group)).await?).await?;
                memory.free();
                (count, full) = (0, false);
            }
        }
        next = rows.recv().await.map(|waiting| waiting.rows);
    }
    if !group.is_empty() {
        out.append_group(target.encode_rows(group).await?).await?;
    }
    out.finish().await
}
