//! Decoding of change files on all cores. Each chunk of text and each batch of rows is decoded by a task of its own, and
//! the results are taken in the order of the input.

use std::collections::VecDeque;
use std::sync::Arc;

use biscuit_change::TablesReader;
use biscuit_change::internal::{AvroChunk, ChunkReader, FileRows, TableChunkReader, TextChunk};
use biscuit_core::{Error, Result};
use datafusion::arrow::array::RecordBatch;
use tokio::task::JoinHandle;

use crate::changes::change_reader::ChangeReader;
use crate::changes::files::{ChangeBatchSink, take_all};

/// Memory that a chunk of text takes while it is decoded, in bytes: its text, and the columns twice.
pub(crate) const CHUNK_MEMORY: usize = 16 << 20;

/// Input of a task that decodes.
pub(crate) enum DecodingUnit {
    /// Records of a text.
    Text(TextChunk),
    /// Text whose types are learned.
    Types(TextChunk),
    /// Blocks of an Avro file.
    Blocks(AvroChunk),
    /// Rows of a file, with the number of the first one.
    Rows(Arc<str>, RecordBatch, u64),
}

impl DecodingUnit {
    /// Passes the records to a reader.
    ///
    /// # Errors
    /// Errors of the records.
    pub(crate) fn decode(self, reader: &mut ChangeReader) -> Result<()> {
        match self {
            Self::Text(chunk) => reader.read_chunk(chunk),
            Self::Types(chunk) => reader.learn_types(chunk),
            Self::Blocks(chunk) => read_blocks(chunk, |file, rows, first| reader.read_rows(file, rows, first)),
            Self::Rows(file, rows, first) => reader.read_rows(&file, rows, first),
        }
    }

    /// Passes the records to a reader of several tables.
    ///
    /// # Errors
    /// Errors about a line that is not a record.
    pub(crate) fn decode_tables(self, reader: &mut TablesReader<'_>) -> Result<()> {
        match self {
            Self::Text(chunk) => reader.read_chunk(chunk),
            Self::Types(_) => Ok(()),
            Self::Blocks(chunk) => read_blocks(chunk, |file, rows, first| reader.read_rows(file, rows, first)),
            Self::Rows(file, rows, first) => reader.read_rows(&file, rows, first),
        }
    }
}

/// Decodes blocks of an Avro file. `read` gets the rows, and the number of the first one.
fn read_blocks(chunk: AvroChunk, mut read: impl FnMut(&Arc<str>, RecordBatch, u64) -> Result<()>) -> Result<()> {
    let (file, mut first) = (chunk.file().clone(), chunk.first_row());
    for rows in FileRows::of_chunk(chunk)? {
        let rows = rows?;
        let count = rows.num_rows() as u64;
        read(&file, rows, first)?;
        first += count;
    }
    Ok(())
}

/// Chunks and batches that are being decoded, in the order of the input.
pub(crate) struct Decoding {
    parts: VecDeque<JoinHandle<Result<ChangeReader>>>,
    parallel: usize,
}

impl Decoding {
    /// Decodes at most `parallel` units at a time.
    pub(crate) fn new(parallel: usize) -> Self {
        Self { parts: VecDeque::new(), parallel: parallel.max(1) }
    }

    /// Starts to decode a unit. Takes the records of earlier units as far as they are decoded, or as far as it has to
    /// wait for them.
    ///
    /// # Errors
    /// Errors of the records, and of `take`.
    pub(crate) async fn start(
        &mut self,
        unit: DecodingUnit,
        reader: &mut ChangeReader,
        take: &mut dyn ChangeBatchSink,
    ) -> Result<()> {
        while self.parts.len() >= self.parallel || self.parts.front().is_some_and(JoinHandle::is_finished) {
            self.take_first(reader, take).await?;
        }
        match reader.new_part() {
            Some(mut part) => {
                self.parts.push_back(tokio::task::spawn_blocking(move || unit.decode(&mut part).map(|()| part)));
                Ok(())
            }
            None => {
                self.finish(reader, take).await?;
                unit.decode(reader)?;
                take_all(reader.take_batches(), take).await
            }
        }
    }

    /// Takes the records of all units.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) async fn finish(&mut self, reader: &mut ChangeReader, take: &mut dyn ChangeBatchSink) -> Result<()> {
        while !self.parts.is_empty() {
            self.take_first(reader, take).await?;
        }
        Ok(())
    }

    async fn take_first(&mut self, reader: &mut ChangeReader, take: &mut dyn ChangeBatchSink) -> Result<()> {
        let Some(part) = self.parts.pop_front() else { return Ok(()) };
        let failed = |e| Error::internal("the task that decodes changes failed").with_source(e);
        let taken = match part.await.map_err(failed).flatten().and_then(|part| reader.add_part(part)) {
            Ok(()) => take_all(reader.take_batches(), take).await,
            Err(e) => Err(e),
        };
        if taken.is_err() {
            // The first error is returned, so that later units do not matter.
            self.parts.clear();
        }
        taken
    }
}
