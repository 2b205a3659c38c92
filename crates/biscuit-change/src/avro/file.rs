//! Reads Avro files with arrow-avro, which gets the blocks only after they were verified and decompressed here.

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow_avro::reader::{Reader, ReaderBuilder};
use biscuit_core::catch_panic;
use biscuit_core::{Error, Result};
use biscuit_schema::internal::too_deep;
use bytes::Bytes;
use serde_json::Value;

use crate::avro::decompress::{AvroCodec, DecompressError, MAX_BLOCK};
use crate::avro::header::{AvroHeader, SCHEMA, put_long, read_long};
use crate::avro::shape::{AvroShape, SchemaRefusal};
use crate::codes;

/// Iterator over the rows of an Avro file in batches.
///
/// Each block is verified before it is decoded: it ends with the sync marker of the file, is not larger than the
/// maximum, and contains exactly the declared number of records. arrow-avro checks none of this: it skips a truncated
/// block, and loops forever if a block has bytes after its records.
pub(crate) struct AvroFile {
    file: Arc<str>,
    reader: Reader<BlockReader>,
    state: Arc<Mutex<BlockState>>,
    pub(crate) head: Arc<AvroHead>,
    /// Number of rows that were decoded.
    rows: u64,
}

impl std::fmt::Debug for AvroFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AvroFile").field("file", &self.file).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// State that [`BlockReader`] shares with [`AvroFile`], while the decoder owns the block reader.
#[derive(Debug, Default)]
struct BlockState {
    /// Number of records in the blocks so far, to be compared with the decoded rows.
    records: u64,
    /// Error of a block: the decoder only passes on an `io::Error`, which would lose its code.
    failed: Option<Error>,
}

fn unreadable_file(file: &str, reason: &str) -> Error {
    Error::new(codes::UNREADABLE_AVRO, format!("the file cannot be read as Avro: {reason}")).in_file(file)
}

fn refused_schema(file: &str, (code, reason): SchemaRefusal) -> Error {
    match code {
        codes::UNREADABLE_AVRO => unreadable_file(file, &reason),
        code => Error::new(code, reason).in_file(file),
    }
}

fn cut_off(file: &str, what: &str) -> Error {
    let message = format!("{what}; the file was truncated or is damaged");
    Error::new(codes::TRUNCATED_INPUT, message).in_file(file)
}

/// Maximum size of a header in bytes. Its largest part is the schema.
const MAX_HEADER: usize = 64 << 20;

/// Header of an Avro file, with what the decoder of its blocks needs.
#[derive(Debug)]
pub(crate) struct AvroHead {
    /// Name of the file in messages.
    pub(crate) file: Arc<str>,
    /// Size of the file in bytes.
    size: u64,
    /// Marker that follows each block.
    pub(crate) sync: [u8; 16],
    codec: AvroCodec,
    shape: Arc<AvroShape>,
    /// Schema with which the file was written, as JSON.
    pub(crate) schema: String,
    /// Header of the file without compression.
    plain: Vec<u8>,
}

impl AvroHead {
    /// Reads the header from the first bytes of a file of `size` bytes, and checks its schema. Returns it with the position of the first
    /// block; `None` if `begin` is not the whole file and more of it is needed.
    ///
    /// # Errors
    /// `TruncatedInput` for a file that ends inside its header; `UnreadableAvro`, `TooDeep`, `TooManyColumns`,
    /// `TooLarge` and `UnsupportedType` for its schema.
    pub(crate) fn read(file: &Arc<str>, begin: &[u8], is_whole: bool, size: u64) -> Result<Option<(Self, usize)>> {
        let header = match AvroHeader::read(begin) {
            Some(header) => header,
            None if is_whole => return Err(cut_off(file, "the file ends in its header")),
            None if begin.len() > MAX_HEADER => {
                return Err(unreadable_file(file, &format!("its header has more than {MAX_HEADER} bytes")));
            }
            None => return Ok(None),
        };
        let codec = AvroCodec::from_name(header.get("avro.codec"));
        let codec = codec.ok_or_else(|| unreadable_file(file, "its codec is not one of Avro's codecs"))?;
        let written = header.get(SCHEMA).ok_or_else(|| unreadable_file(file, "it has no schema"))?;
        let schema: Value = serde_json::from_slice(written).map_err(|e| match e.to_string() {
            // serde_json parses at most 128 levels of JSON. A deeper schema has more levels of types than are
            // allowed.
            e if e.starts_with("recursion limit") => too_deep("the schema").in_file(file),
            _ => unreadable_file(file, "its schema is not valid JSON"),
        })?;
        let text = String::from_utf8_lossy(written).into_owned();
        let shape = AvroShape::from_schema(&schema).map_err(|refusal| refused_schema(file, refusal))?;
        let (sync, end, plain) = (header.sync, header.end, header.without_compression(schema));
        Ok(Some((Self { file: file.clone(), size, sync, codec, shape, schema: text, plain }, end)))
    }
}

impl AvroHead {
    /// Maximum number of rows in a batch.
    pub(crate) fn batch_rows(&self) -> usize {
        self.shape.batch_rows()
    }
}

impl AvroFile {
    /// Opens a file and checks its header and schema.
    ///
    /// # Errors
    /// Those of [`AvroHead::read`], and `UnreadableAvro` for a schema that the decoder does not support.
    pub(crate) fn open(file: &Arc<str>, bytes: &Bytes) -> Result<Self> {
        let found = AvroHead::read(file, bytes, true, bytes.len() as u64)?;
        let (head, end) = found.ok_or_else(|| Error::internal("the header of a whole file was not read"))?;
        Self::of_blocks(Arc::new(head), bytes.slice(end..), end as u64)
    }

    /// Creates a reader of some blocks of a file, the first of which begins at byte `begin` of the file.
    ///
    /// # Errors
    /// `UnreadableAvro` for a schema that the decoder does not support.
    pub(crate) fn of_blocks(head: Arc<AvroHead>, bytes: Bytes, begin: u64) -> Result<Self> {
        let (file, state) = (head.file.clone(), Arc::new(Mutex::new(BlockState::default())));
        let (rows, out) = (head.batch_rows(), head.plain.clone());
        let blocks = BlockReader { head: head.clone(), bytes, begin, at: 0, out, consumed: 0, state: state.clone() };
        let built = catch_panic(|| ReaderBuilder::new().with_batch_size(rows).build(blocks));
        let reader = built.map_err(|e| unreadable_file(&file, "it is damaged").with_source(e))?;
        let reader = reader.map_err(|e| block_error(&file, &state, e))?;
        Ok(Self { file, reader, state, head, rows: 0 })
    }

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let read = catch_panic(|| self.reader.next());
        let batch = match read.map_err(|e| unreadable_file(&self.file, "it is damaged").with_source(e))? {
            Some(Ok(batch)) => batch,
            Some(Err(e)) => return Err(block_error(&self.file, &self.state, e)),
            None => {
                let records = self.state.lock().unwrap_or_else(PoisonError::into_inner).records;
                if records != self.rows {
                    let reason = format!("its blocks declare {records} records, and {} were found", self.rows);
                    return Err(unreadable_file(&self.file, &reason));
                }
                return Ok(None);
            }
        };
        self.rows += batch.num_rows() as u64;
        Ok(Some(batch))
    }
}

impl Iterator for AvroFile {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Returns the error of the block if verification failed, or else the error of the decoder.
fn block_error(file: &str, state: &Mutex<BlockState>, e: arrow::error::ArrowError) -> Error {
    let own = state.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
    own.unwrap_or_else(|| {
        unreadable_file(file, "a value is not of its type, or a type is not supported").with_source(e)
    })
}

/// The file as the decoder reads it: a new header, then each verified block without compression.
struct BlockReader {
    head: Arc<AvroHead>,
    bytes: Bytes,
    /// Position of `bytes` in the file.
    begin: u64,
    /// Position of the next block in `bytes`.
    at: usize,
    state: Arc<Mutex<BlockState>>,
    /// Bytes for the decoder, of which it has read the first `consumed`.
    out: Vec<u8>,
    consumed: usize,
}

impl BlockReader {
    /// Verifies the next block that has records and puts it into `out`; returns false at the end of the file.
    ///
    /// A block is the number of its records, its size in bytes, the compressed records, and the sync marker.
    fn next_block(&mut self) -> Result<bool> {
        while self.at < self.bytes.len() {
            let begin = self.begin + self.at as u64;
            let file = &self.head.file;
            let ends = || cut_off(file, &format!("the block at byte {begin} has no end"));
            let bad = |reason: &str| unreadable_file(file, &format!("the block at byte {begin} is damaged: {reason}"));
            let mut number = |what: &str| {
                let n = read_long(&self.bytes, &mut self.at);
                let n = n.ok_or_else(|| {
                    if self.at >= self.bytes.len() { ends() } else { bad("it contains an invalid number") }
                })?;
                u64::try_from(n).map_err(|_| bad(what))
            };
            let records = number("its number of records is negative")?;
            let size = number("its size is negative")?;
            let too_large = |when: &str| {
                let message = format!("the block at byte {begin} has more than {MAX_BLOCK} bytes{when}");
                Error::new(biscuit_schema::codes::TOO_LARGE, message).in_file(file)
            };
            let is_within = (self.begin + self.at as u64).checked_add(size).is_some_and(|end| end <= self.head.size);
            if !is_within {
                return Err(ends());
            }
            if size > MAX_BLOCK {
                return Err(too_large(""));
            }
            let end = usize::try_from(size).ok().and_then(|size| self.at.checked_add(size)).ok_or_else(ends)?;
            let marker = self.bytes.get(end..).and_then(|rest| rest.first_chunk::<16>()).ok_or_else(ends)?;
            if *marker != self.head.sync {
                return Err(bad("it does not end with the sync marker of the file"));
            }
            let unpacked = catch_panic(|| self.head.codec.decompress(&self.bytes[self.at..end], MAX_BLOCK));
            let block = unpacked.unwrap_or(Err(DecompressError::Damaged)).map_err(|e| match e {
                DecompressError::Damaged => bad("it is not compressed with the codec of the file"),
                DecompressError::TooLarge => too_large(" after decompression"),
            })?;
            self.head
                .shape
                .check_block(&block, records)
                .map_err(|reason| bad(&format!("it declares {records} records, but {reason}")))?;
            self.at = end + 16;
            if records == 0 {
                continue;
            }
            self.state.lock().unwrap_or_else(PoisonError::into_inner).records += records;
            self.out.clear();
            put_long(i64::try_from(records).unwrap_or(i64::MAX), &mut self.out);
            put_long(block.len() as i64, &mut self.out);
            self.out.extend_from_slice(&block);
            self.out.extend_from_slice(&self.head.sync);
            self.consumed = 0;
            return Ok(true);
        }
        Ok(false)
    }
}

impl Read for BlockReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let n = ready.len().min(into.len());
        into[..n].copy_from_slice(&ready[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for BlockReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed == self.out.len() {
            match self.next_block() {
                Ok(true) => {}
                Ok(false) => return Ok(&[]),
                Err(e) => {
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).failed = Some(e);
                    return Err(io::Error::other("a block is damaged"));
                }
            }
        }
        Ok(&self.out[self.consumed..])
    }

    fn consume(&mut self, n: usize) {
        self.consumed += n;
    }
}
