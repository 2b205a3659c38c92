use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_journal::Stager;
use datafusion::arrow::array::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::choose::choose;
use crate::cores::{Cores, Shared};
use crate::out::Out;
use crate::target::{Ready, Target};
use crate::unit::{Insert, Unit, Written};

/// Writes new files of a folder while their rows are made: a thread of its own encodes them, and row groups are staged as they
/// become full. What the row group in the making holds is accounted in the session's memory pool, and where that is used up it
/// ends early; besides it there are two batches that wait, and up to two encoded row groups on their way to the store.
///
/// One that is dropped gives up soon; [`stop`](Self::stop) waits until it has.
#[derive(Debug)]
pub struct RowsWriter {
    rows: mpsc::Sender<RecordBatch>,
    writing: Writing,
}

/// Ends with who asked for it.
#[derive(Debug)]
struct Writing(JoinHandle<Result<Vec<Written>>>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Batches that wait to be encoded.
const WAITING: usize = 2;

impl RowsWriter {
    /// The writer of a unit that has neither sources nor rows yet. Its first rows say which columns are worth a dictionary.
    pub fn new(unit: Unit, stager: &Stager, context: Arc<TaskContext>) -> Self {
        let shared = Arc::new(Shared { stager: stager.clone(), context, cores: Arc::new(Cores::new(1)) });
        let (rows, receive) = mpsc::channel(WAITING);
        Self { rows, writing: Writing(tokio::spawn(write(unit, shared, receive))) }
    }

    /// Writes rows, in the columns of the unit, behind those that came before.
    ///
    /// # Errors
    /// `UnsupportedType` and those of the store, also those that earlier rows ran into.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        if self.rows.send(rows).await.is_ok() {
            return Ok(());
        }
        match self.writing.ended().await {
            Ok(_) => Err(Error::internal("a writer ended before its rows")),
            Err(e) => Err(e),
        }
    }

    /// Ends the last file, and answers with all that were staged. Nothing is part of the table by it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn finish(self) -> Result<Vec<Written>> {
        let Self { rows, mut writing } = self;
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

impl Writing {
    async fn ended(&mut self) -> Result<Vec<Written>> {
        (&mut self.0).await.map_err(|e| Error::internal("a writer was cut off").with_source(e))?
    }
}

async fn write(mut unit: Unit, shared: Arc<Shared>, mut rows: mpsc::Receiver<RecordBatch>) -> Result<Vec<Written>> {
    let Some(first) = rows.recv().await else { return Ok(vec![]) };
    unit.inserts = vec![Insert::new(None, first.clone())];
    let choice = choose(&unit);
    let target = Arc::new(Target::new(Arc::new(unit), shared, choice).await?);
    let (full, mut groups) = mpsc::channel(1);
    let encoder = target.clone();
    let encoding = tokio::task::spawn_blocking(move || {
        let consumer = MemoryConsumer::new(format!("RowsWriter `{}`", encoder.unit.name()));
        let memory = consumer.register(encoder.shared.context.memory_pool());
        let rows = std::iter::once(first).chain(std::iter::from_fn(|| rows.blocking_recv()));
        encoder.encode_stream(rows, &memory, &mut |chunks| full.blocking_send(chunks).is_ok())
    });
    let mut out = Out::new(&target, 0);
    while let Some(chunks) = groups.recv().await {
        out.append(Ready::Encoded(vec![chunks])).await?;
    }
    encoding.await.map_err(|e| Error::internal("rows were cut off").with_source(e))??;
    out.finish().await
}
