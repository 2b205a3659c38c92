use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow_avro::reader::{Reader, ReaderBuilder};
use biscuit_core::{Error, Result, catch_panic};
use biscuit_schema::too_deep;
use bytes::Bytes;
use serde_json::Value;

use crate::avro::decompress::{AvroCodec, DecompressError, MAX_BLOCK};
use crate::avro::header::{AvroHeader, SCHEMA, long, put_long};
use crate::avro::shape::{AvroShape, SchemaRefusal};

/// The rows of an Avro file, batch by batch. Each block is looked at before it is decoded: it ends with the file's marker, is not larger
/// than a block may be, and holds as many records as it says, and nothing else. arrow-avro checks none of that: it passes over a block that
/// was cut off, and loops where a block is larger than its records.
pub(crate) struct AvroFile {
    file: Arc<str>,
    reader: Reader<BlockReader>,
    state: Arc<Mutex<BlockState>>,
    /// The schema that it was written with.
    pub(crate) schema: String,
    rows: u64,
}

impl std::fmt::Debug for AvroFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AvroFile").field("file", &self.file).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// What the blocks were, beside the bytes that the decoder gets of them.
#[derive(Debug, Default)]
struct BlockState {
    records: u64,
    failed: Option<Error>,
}

fn unreadable(file: &str, reason: &str) -> Error {
    Error::data("UnreadableAvro", format!("the file cannot be read as Avro: {reason}")).in_file(file)
}

fn refused(file: &str, (code, reason): SchemaRefusal) -> Error {
    match code {
        "UnreadableAvro" => unreadable(file, &reason),
        code => Error::data(code, reason).in_file(file),
    }
}

fn cut_off(file: &str, what: &str) -> Error {
    let message = format!("{what}: the file was cut off, or is damaged");
    Error::data("TruncatedInput", message).in_file(file)
}

impl AvroFile {
    /// # Errors
    /// `TruncatedInput` for a file that ends in its head, `UnreadableAvro`, `TooDeep`, `TooManyColumns`, `TooLarge` and `UnsupportedType` for
    /// its schema.
    pub(crate) fn open(file: &Arc<str>, bytes: Bytes) -> Result<Self> {
        let header = AvroHeader::read(&bytes).ok_or_else(|| cut_off(file, "the file ends in its header"))?;
        let codec = AvroCodec::of(header.get("avro.codec"));
        let codec = codec.ok_or_else(|| unreadable(file, "its codec is none of Avro's"))?;
        let written = header.get(SCHEMA).ok_or_else(|| unreadable(file, "it has no schema"))?;
        let schema: Value = serde_json::from_slice(written).map_err(|e| match e.to_string() {
            // serde_json follows 128 levels of JSON, which are more levels of types than are followed here.
            e if e.starts_with("recursion limit") => too_deep("the schema").in_file(file),
            _ => unreadable(file, "its schema is no JSON"),
        })?;
        let text = String::from_utf8_lossy(written).into_owned();
        let shape = AvroShape::of(&schema).map_err(|reason| refused(file, reason))?;
        let state = Arc::new(Mutex::new(BlockState::default()));
        let blocks = BlockReader {
            file: file.clone(),
            at: header.end,
            sync: header.sync,
            codec,
            out: header.unpacked(schema),
            present: 0,
            shape: shape.clone(),
            state: state.clone(),
            bytes,
        };
        let built = catch_panic(|| ReaderBuilder::new().with_batch_size(shape.batch_rows()).build(blocks));
        let reader = built.map_err(|e| unreadable(file, "it is damaged").with_source(e))?;
        let reader = reader.map_err(|e| failed(file, &state, e))?;
        Ok(Self { file: file.clone(), reader, state, schema: text, rows: 0 })
    }

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let read = catch_panic(|| self.reader.next());
        let batch = match read.map_err(|e| unreadable(&self.file, "it is damaged").with_source(e))? {
            Some(Ok(batch)) => batch,
            Some(Err(e)) => return Err(failed(&self.file, &self.state, e)),
            None => {
                let records = self.state.lock().unwrap_or_else(PoisonError::into_inner).records;
                if records != self.rows {
                    let reason = format!("its blocks say {records} records, and {} were found", self.rows);
                    return Err(unreadable(&self.file, &reason));
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

/// The error of a block, if it was one, and not what the decoder made of it.
fn failed(file: &str, state: &Mutex<BlockState>, e: arrow::error::ArrowError) -> Error {
    let own = state.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
    own.unwrap_or_else(|| unreadable(file, "a value is not of its type, or a type is not supported").with_source(e))
}

/// The file for the decoder: its head, and its blocks as they are unpacked.
struct BlockReader {
    file: Arc<str>,
    bytes: Bytes,
    at: usize,
    sync: [u8; 16],
    codec: AvroCodec,
    shape: Arc<AvroShape>,
    state: Arc<Mutex<BlockState>>,
    /// What the decoder gets next, and how much of it was given.
    out: Vec<u8>,
    present: usize,
}

impl BlockReader {
    /// The next block with records in it; false at the end of the file.
    fn next_block(&mut self) -> Result<bool> {
        while self.at < self.bytes.len() {
            let begin = self.at;
            let ends = || cut_off(&self.file, &format!("the block at byte {begin} has no end"));
            let bad = |reason: &str| unreadable(&self.file, &format!("the block at byte {begin} is damaged: {reason}"));
            let mut number = |what: &str| {
                let n = long(&self.bytes, &mut self.at);
                let n = n.ok_or_else(|| {
                    if self.at >= self.bytes.len() { ends() } else { bad("it holds a number that is none") }
                })?;
                u64::try_from(n).map_err(|_| bad(what))
            };
            let records = number("its number of records is negative")?;
            let size = number("its size is negative")?;
            let end = usize::try_from(size).ok().and_then(|size| self.at.checked_add(size)).ok_or_else(ends)?;
            let marker = self.bytes.get(end..).and_then(|rest| rest.first_chunk::<16>()).ok_or_else(ends)?;
            if *marker != self.sync {
                return Err(bad("it does not end with the marker of the file"));
            }
            let unpacked = catch_panic(|| self.codec.unpack(&self.bytes[self.at..end], MAX_BLOCK));
            let block = unpacked.unwrap_or(Err(DecompressError::Damaged)).map_err(|e| match e {
                DecompressError::Damaged => bad("it is not packed as the file says"),
                DecompressError::TooLarge => {
                    let message = format!("the block at byte {begin} is larger than {MAX_BLOCK} bytes, unpacked");
                    Error::data("TooLarge", message).in_file(&self.file)
                }
            })?;
            self.shape
                .check(&block, records)
                .map_err(|reason| bad(&format!("it says {records} records, and {reason}")))?;
            self.at = end + 16;
            if records == 0 {
                continue;
            }
            self.state.lock().unwrap_or_else(PoisonError::into_inner).records += records;
            self.out.clear();
            put_long(i64::try_from(records).unwrap_or(i64::MAX), &mut self.out);
            put_long(block.len() as i64, &mut self.out);
            self.out.extend_from_slice(&block);
            self.out.extend_from_slice(&self.sync);
            self.present = 0;
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
        if self.present == self.out.len() {
            match self.next_block() {
                Ok(true) => {}
                Ok(false) => return Ok(&[]),
                Err(e) => {
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).failed = Some(e);
                    return Err(io::Error::other("a block is damaged"));
                }
            }
        }
        Ok(&self.out[self.present..])
    }

    fn consume(&mut self, n: usize) {
        self.present += n;
    }
}
