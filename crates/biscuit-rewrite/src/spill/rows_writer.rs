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
use crate::plan::choice::choose;
use crate::plan::unit::{InsertedRows, RewriteUnit, WrittenUnit};

/// Writes new files of a folder while their rows are made: a thread of its own encodes them, and row groups are staged as they
/// become full. What the row group in the making holds is accounted in the session's memory pool, and where that is used up it
/// ends early; so is what waits to be encoded, which is 16 MiB at most, and one batch where the pool is used up. Besides there are up to
/// two encoded row groups on their way to the store. Of files with something encrypted, a row group in the making is its rows, and one is
/// encoded at a time.
///
/// One that is dropped gives up soon; [`stop`](Self::stop) waits until it has.
#[derive(Debug)]
pub struct RowsWriter {
    rows: mpsc::UnboundedSender<PendingRows>,
    /// For rows that wait.
    room: Arc<Semaphore>,
    memory: MemoryReservation,
    writing: WriterTask,
}

/// Rows that wait to be encoded, and the room that they take meanwhile.
#[derive(Debug)]
struct PendingRows {
    rows: RecordBatch,
    _room: OwnedSemaphorePermit,
    _memory: MemoryReservation,
}

/// Ends with who asked for it.
#[derive(Debug)]
struct WriterTask(JoinHandle<Result<Vec<WrittenUnit>>>);

impl Drop for WriterTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// KiB of rows that may wait to be encoded: so many that there is work while the next ones are made.
const WAITING: u32 = 16 << 10;

/// So many times the bytes of a row group may be gathered as rows, which are larger than what they are encoded to.
const GATHERED: usize = 4;

impl RowsWriter {
    /// The writer of a unit that has neither sources nor rows yet. Its first rows say which columns are worth a dictionary.
    pub fn new(unit: RewriteUnit, stager: &FileStager, context: Arc<TaskContext>) -> Self {
        let consumer = MemoryConsumer::new(format!("rows for `{}`", unit.name()));
        let memory = consumer.register(context.memory_pool());
        let shared =
            Arc::new(UnitResources { stager: stager.clone(), context, cores: Arc::new(EncodeThreads::new(1)) });
        let (rows, receive) = mpsc::unbounded_channel();
        let writing = WriterTask(tokio::spawn(write(unit, shared, receive)));
        Self { rows, room: Arc::new(Semaphore::new(WAITING as usize)), memory, writing }
    }

    /// Writes rows, in the columns of the unit, behind those that came before.
    ///
    /// # Errors
    /// `UnsupportedType` and those of the store, also those that earlier rows ran into.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        let bytes = bytes_of(&rows);
        let own = u32::try_from(bytes >> 10).unwrap_or(WAITING).clamp(1, WAITING);
        let room = self.room_for(own).await?;
        let memory = self.memory.new_empty();
        if memory.try_grow(bytes).is_err() {
            // Until nothing else waits.
            drop(self.room_for(WAITING - own).await?);
        }
        if self.rows.send(PendingRows { rows, _room: room, _memory: memory }).is_ok() {
            return Ok(());
        }
        match self.writing.ended().await {
            Ok(_) => Err(Error::internal("a writer ended before its rows")),
            Err(e) => Err(e),
        }
    }

    async fn room_for(&self, kib: u32) -> Result<OwnedSemaphorePermit> {
        let room = self.room.clone().acquire_many_owned(kib).await;
        room.map_err(|e| Error::internal("nothing can wait any more").with_source(e))
    }

    /// Ends the last file, and answers with all that were staged. Nothing is part of the table by it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn finish(self) -> Result<Vec<WrittenUnit>> {
        let Self { rows, mut writing, .. } = self;
        drop(rows);
        writing.ended().await
    }

    /// Gives up. When this returns nothing more is staged; what was is up to whoever abandons the replace.
    pub async fn stop(mut self) {
        self.writing.0.abort();
        // However it ended.
        let _ = self.writing.ended().await;
    }
}

impl WriterTask {
    async fn ended(&mut self) -> Result<Vec<WrittenUnit>> {
        (&mut self.0).await.map_err(|e| Error::internal("a writer was cut off").with_source(e))?
    }
}

type RowReceiver = mpsc::UnboundedReceiver<PendingRows>;

async fn write(mut unit: RewriteUnit, shared: Arc<UnitResources>, mut rows: RowReceiver) -> Result<Vec<WrittenUnit>> {
    let Some(PendingRows { rows: first, .. }) = rows.recv().await else { return Ok(vec![]) };
    unit.inserts = vec![InsertedRows::new(None, first.clone())];
    let choice = choose(&unit);
    let target = Arc::new(UnitTarget::new(Arc::new(unit), shared, choice).await?);
    if target.is_encrypted() {
        return gathered(&target, first, rows).await;
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
        out.append(ReadyRowGroup::Encoded(vec![chunks])).await?;
    }
    encoding.await.map_err(|e| Error::internal("rows were cut off").with_source(e))??;
    out.finish().await
}

/// Row groups of encrypted files are encoded when their file is open, so that their rows are put together first.
async fn gathered(target: &Arc<UnitTarget>, first: RecordBatch, mut rows: RowReceiver) -> Result<Vec<WrittenUnit>> {
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
                out.append(target.encode_rows(std::mem::take(&mut group)).await?).await?;
                memory.free();
                (count, full) = (0, false);
            }
        }
        next = rows.recv().await.map(|waiting| waiting.rows);
    }
    if !group.is_empty() {
        out.append(target.encode_rows(group).await?).await?;
    }
    out.finish().await
}
