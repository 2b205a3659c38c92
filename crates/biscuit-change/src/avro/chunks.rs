//! The blocks of an Avro file in chunks, so that several cores decode it and no file is in memory as a whole.

use std::io::{self, BufRead, Chain};
use std::sync::Arc;

use biscuit_core::Result;
use bytes::buf::Reader;
use bytes::{Buf, Bytes};

use crate::avro::decompress::MAX_BLOCK;
use crate::avro::file::AvroHead;
use crate::avro::header::read_long;
use crate::files::chunks::read_error;
use crate::files::decompress::DecodedRows;

/// Maximum bytes of a file that are decoded at a time, if its blocks are smaller.
const CHUNK: usize = 1 << 20;

/// Maximum number of bytes of an encoded number.
const MAX_LONG: usize = 10;

/// Consecutive blocks of an Avro file.
#[derive(Debug, Clone)]
pub struct AvroChunk {
    pub(crate) head: Arc<AvroHead>,
    pub(crate) blocks: Bytes,
    /// Position of the first block in the file.
    pub(crate) begin: u64,
    /// Number of the first row in the file, from 1.
    pub(crate) first: u64,
    /// Counts the rows of all chunks of the file.
    pub(crate) decoded: DecodedRows,
}

impl AvroChunk {
    /// Name of the file in messages.
    pub fn file(&self) -> &Arc<str> {
        &self.head.file
    }

    /// Number of the first row in the file, from 1.
    pub fn first_row(&self) -> u64 {
        self.first
    }
}

/// Divides an Avro file into chunks of whole blocks.
///
/// Only sizes and sync markers of blocks are read here. A damaged block ends its chunk and the file, and the decoder of
/// the chunk returns the error.
pub struct AvroChunks<R> {
    head: Arc<AvroHead>,
    blocks: Chain<Reader<Bytes>, R>,
    decoded: DecodedRows,
    /// Position of the next block in the file, and the number of its first row.
    at: u64,
    row: u64,
    state: ReadState,
    chunk_size: usize,
}

/// How far a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadState {
    /// The header. There is a first chunk even without a block, because its decoder checks the schema.
    Header,
    Blocks,
    /// All blocks, or a damaged one.
    End,
}

impl<R> std::fmt::Debug for AvroChunks<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AvroChunks").field("head", &self.head).field("at", &self.at).finish_non_exhaustive()
    }
}

impl<R: BufRead> AvroChunks<R> {
    /// Reads the header of a file of `size` bytes; `file` is its name in messages. `max_decompressed` is the maximum
    /// number of bytes of all rows; see [`DecodedRows`] for the default.
    ///
    /// # Errors
    /// `TruncatedInput` for a file that ends inside its header; `UnreadableAvro`, `TooDeep`, `TooManyColumns`,
    /// `TooLarge` and `UnsupportedType` for its schema; errors of `source`.
    pub fn open(file: &Arc<str>, mut source: R, size: u64, max_decompressed: Option<u64>) -> Result<Self> {
        let failed = |e| read_error(file, e);
        let mut begin = Vec::new();
        let (head, end) = loop {
            let ready = source.fill_buf().map_err(failed)?;
            let (is_end, length) = (ready.is_empty(), ready.len());
            begin.extend_from_slice(ready);
            source.consume(length);
            if let Some(found) = AvroHead::read(file, &begin, is_end, size)? {
                break found;
            }
        };
        let rest = Bytes::from(begin).slice(end..);
        Ok(Self {
            head: Arc::new(head),
            blocks: io::Read::chain(rest.reader(), source),
            decoded: DecodedRows::new(file, size, max_decompressed),
            at: end as u64,
            row: 1,
            state: ReadState::Header,
            chunk_size: CHUNK,
        })
    }

    /// Returns the next chunk; `None` at the end.
    ///
    /// # Errors
    /// Errors of the source.
    pub fn next_chunk(&mut self) -> Result<Option<AvroChunk>> {
        let (mut blocks, mut records) = (Vec::new(), 0_u64);
        let is_first = self.state == ReadState::Header;
        // A chunk is decoded as a whole, so that its rows are limited as those of a batch are.
        let rows = self.head.batch_rows() as u64;
        while self.state != ReadState::End && blocks.len() < self.chunk_size && records < rows {
            self.state = match self.copy_block(&mut blocks).map_err(|e| read_error(&self.head.file, e))? {
                Some(of_block) => {
                    records = of_block.saturating_add(records);
                    ReadState::Blocks
                }
                None => ReadState::End,
            };
        }
        if blocks.is_empty() && !is_first {
            return Ok(None);
        }
        let (begin, first) = (self.at, self.row);
        (self.at, self.row) = (begin + blocks.len() as u64, first.saturating_add(records));
        let (head, decoded) = (self.head.clone(), self.decoded.clone());
        Ok(Some(AvroChunk { head, blocks: blocks.into(), begin, first, decoded }))
    }

    /// Copies the next block, and returns the number of its records. `None` at the end of the file and after a damaged
    /// block. Of a damaged block, as many bytes are copied as its decoder needs to find the error.
    fn copy_block(&mut self, into: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let (records, size) = (self.copy_long(into)?, self.copy_long(into)?);
        let (records, size) = match (records.map(u64::try_from), size.map(u64::try_from)) {
            (Some(Ok(records)), Some(Ok(size))) if size <= MAX_BLOCK => (records, size),
            _ => {
                self.copy_bytes(MAX_LONG as u64, into)?;
                return Ok(None);
            }
        };
        let is_whole = self.copy_bytes(size + self.head.sync.len() as u64, into)?;
        Ok(Some(records).filter(|_| is_whole && into.ends_with(&self.head.sync)))
    }

    /// Copies a number. `None` for an invalid one, and at the end of the file.
    fn copy_long(&mut self, into: &mut Vec<u8>) -> io::Result<Option<i64>> {
        let begin = into.len();
        for _ in 0..MAX_LONG {
            self.copy_bytes(1, into)?;
            if let Some(number) = read_long(&into[begin..], &mut 0) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Copies bytes. Returns whether there were as many.
    fn copy_bytes(&mut self, number: u64, into: &mut Vec<u8>) -> io::Result<bool> {
        let mut left = number;
        while left > 0 {
            let ready = self.blocks.fill_buf()?;
            if ready.is_empty() {
                return Ok(false);
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(ready.len());
            into.extend_from_slice(&ready[..length]);
            self.blocks.consume(length);
            left -= length as u64;
        }
        Ok(true)
    }

    #[cfg(test)]
    pub(crate) fn with_chunk_size(mut self, bytes: usize) -> Self {
        self.chunk_size = bytes;
        self
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::avro::header::put_long;
    use crate::columnar::rows::FileRows;

    /// A file with a column of these numbers, in blocks.
    fn file(blocks: &[&[i64]]) -> Vec<u8> {
        let mut file = b"Obj\x01".to_vec();
        let text = |text: &str, file: &mut Vec<u8>| {
            put_long(text.len() as i64, file);
            file.extend_from_slice(text.as_bytes());
        };
        put_long(1, &mut file);
        text("avro.schema", &mut file);
        text(r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"}]}"#, &mut file);
        put_long(0, &mut file);
        file.extend_from_slice(b"0123456789abcdef");
        for block in blocks {
            let mut records = Vec::new();
            block.iter().for_each(|n| put_long(*n, &mut records));
            put_long(block.len() as i64, &mut file);
            put_long(records.len() as i64, &mut file);
            file.extend_from_slice(&records);
            file.extend_from_slice(b"0123456789abcdef");
        }
        file
    }

    /// Returns the numbers of all rows, or the text of the first error.
    fn numbers(rows: impl Iterator<Item = Result<FileRows>>) -> Result<Vec<i64>, String> {
        let mut all = Vec::new();
        for rows in rows {
            for batch in rows.map_err(|e| e.to_string())? {
                let batch = batch.map_err(|e| e.to_string())?;
                all.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            }
        }
        Ok(all)
    }

    fn whole(file: &[u8]) -> Result<Vec<i64>, String> {
        numbers(std::iter::once(FileRows::open(&"a.avro".into(), file.to_vec().into(), None)))
    }

    fn chunks(file: &[u8], size: usize) -> Result<Vec<AvroChunk>> {
        // The file arrives in pieces of seven bytes.
        let source = io::BufReader::with_capacity(7, file);
        let mut chunks = AvroChunks::open(&"a.avro".into(), source, file.len() as u64, None)?.with_chunk_size(size);
        std::iter::from_fn(|| chunks.next_chunk().transpose()).collect()
    }

    fn chunked(file: &[u8], size: usize) -> Result<Vec<i64>, String> {
        match chunks(file, size) {
            Ok(chunks) => numbers(chunks.into_iter().map(FileRows::of_chunk)),
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn chunks_of_any_size_have_all_rows_with_their_numbers() {
        let file = file(&[&[1, 2, 300], &[], &[4], &[5, 6]]);
        for (size, first_rows) in [(1, vec![1, 4, 4, 5]), (25, vec![1, 4]), (CHUNK, vec![1])] {
            let found: Vec<u64> = chunks(&file, size).unwrap().iter().map(AvroChunk::first_row).collect();
            assert_eq!(found, first_rows, "{size}");
            assert_eq!(chunked(&file, size).unwrap(), [1, 2, 300, 4, 5, 6], "{size}");
        }
    }

    #[test]
    fn chunk_has_few_more_rows_than_a_batch() {
        let block = vec![1; 5000];
        let found = chunks(&file(&[&block, &block, &block]), CHUNK).unwrap();
        assert_eq!(found.iter().map(AvroChunk::first_row).collect::<Vec<_>>(), [1, 10_001]);
    }

    #[test]
    fn file_without_blocks_has_a_chunk_whose_decoder_checks_the_schema() {
        assert_eq!(chunks(&file(&[]), 1).unwrap().len(), 1);
        assert_eq!(chunked(&file(&[]), 1).unwrap(), [0; 0]);
    }

    #[test]
    fn damaged_file_has_the_same_error_in_chunks_as_in_one_piece() {
        let right = file(&[&[1, 2, 300], &[4], &[5, 6]]);
        let truncated = (4..right.len()).map(|end| right[..end].to_vec());
        let flipped = (4..right.len()).flat_map(|at| {
            (0..8).map({
                let right = &right;
                move |bit| {
                    let mut file = right.clone();
                    file[at] ^= 1 << bit;
                    file
                }
            })
        });
        let mut damaged = 0;
        for file in truncated.chain(flipped) {
            let want = whole(&file);
            damaged += usize::from(want.is_err());
            for size in [1, CHUNK] {
                assert_eq!(chunked(&file, size), want, "{file:?}");
            }
        }
        assert!(damaged > right.len());
    }
}
