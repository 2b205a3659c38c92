//! Reading of files in parts on several cores.

use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::Result;
use biscuit_merge::ChangeBatch;

use crate::files::chunks::{RecordSeparation, TextChunk, TextSettings};

/// Reads chunks that waited until the types of all of them were known.
///
/// # Errors
/// As of [`ChunkReader::learn_types`] and [`ChunkReader::read_chunk`].
pub(crate) fn read_waiting(reader: &mut impl ChunkReader, waiting: Vec<TextChunk>) -> Result<()> {
    if let Some(mut learner) = reader.new_part() {
        waiting.iter().try_for_each(|chunk| learner.learn_types(chunk.clone()))?;
        reader.end_types(learner);
    }
    waiting.into_iter().try_for_each(|chunk| reader.read_chunk(chunk))
}

/// Form of a text file.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct TextForm {
    /// How its records are separated.
    pub separation: RecordSeparation,
    /// Its encoding and limits.
    pub settings: TextSettings,
}

/// Reader whose files can be read in parts, on several cores.
///
/// A part is read by a reader of its own, made by [`new_part`](Self::new_part). The parts are then added in the order
/// of the input, so that the result does not depend on timing. What a part needs to know of the parts before it is
/// known when the first records are read; until then `new_part` returns `None`, and the reader reads the chunks
/// itself.
pub trait ChunkReader: Sized + Send + 'static {
    /// Returns the form of a text file, by its name; `None` for a file that is skipped.
    ///
    /// # Errors
    /// Errors about the name of the file.
    fn text_form(&mut self, file: &str) -> Result<Option<TextForm>>;

    /// Returns whether the types of some columns come from the values of all text files. These are then read twice:
    /// first by another part of the reader, which learns the types, and after [`end_types`](Self::end_types) for the
    /// records.
    fn needs_types(&self) -> bool;

    /// Learns the types of the values of a chunk.
    ///
    /// # Errors
    /// `InvalidText`. Other invalid records are errors when they are read.
    fn learn_types(&mut self, chunk: TextChunk) -> Result<()>;

    /// Takes over the types that a part of the reader has learned, and nothing else: what it has counted and refused
    /// is counted and refused again when the records are read.
    fn end_types(&mut self, learner: Self);

    /// Returns a reader for one chunk.
    fn new_part(&self) -> Option<Self>;

    /// Reads a chunk.
    ///
    /// # Errors
    /// Errors of the records.
    fn read_chunk(&mut self, chunk: TextChunk) -> Result<()>;

    /// Reads rows of a Parquet or Avro file; `first` is the number of the first row in the file, from 1.
    ///
    /// # Errors
    /// Errors of the records.
    fn read_rows(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()>;

    /// Adds what a reader of a later chunk has read.
    ///
    /// # Errors
    /// `KeyDrift` for records that contradict earlier ones.
    fn add_part(&mut self, part: Self) -> Result<()>;

    /// Takes the change records that are ready.
    fn take_batches(&mut self) -> Vec<ChangeBatch>;
}

/// Reader of several tables whose files can be read in chunks.
pub trait TableChunkReader {
    /// Returns the form of a text file, by its name; `None` for a file that is read as a whole or skipped.
    fn text_form(&self, file: &str) -> Option<TextForm>;

    /// Reads a chunk.
    ///
    /// # Errors
    /// Errors about a line that is not a record.
    fn read_chunk(&mut self, chunk: TextChunk) -> Result<()>;

    /// Reads rows of a Parquet or Avro file; `first` is the number of the first row in the file, from 1.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    fn read_rows(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()>;
}
