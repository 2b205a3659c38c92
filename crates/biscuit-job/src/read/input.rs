//! Objects of a source as bytes, text and lines. Objects are read with the ETag of their listing, in parts, from
//! blocking threads; large files of lines are split into byte ranges that several threads read.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use biscuit_apply::FoundFile;
use biscuit_apply::internal::input_failed;
use biscuit_change::TextEncoding;
use biscuit_change::internal::{FileCompression, JsonLayout, JsonValues, Utf8Text, decompression_error};
use biscuit_core::{Error, ObjectRef, Result};
use biscuit_dataset::encryption::FileEncryption;
use biscuit_dataset::internal::as_listed;
use biscuit_dataset::{DataFile, OpenFile};
use biscuit_journal::store_error;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use crate::read::path_columns::path_columns;

/// Bytes of text that are processed at a time.
pub(crate) const SLICE: usize = 8 << 20;

/// Bytes at the beginning of a text that decide how its JSON values are separated.
const BEGIN: u64 = 64 << 10;

/// Maximum bytes of a JSON line or a CSV record, if the source does not set another one.
pub(crate) const MAX_LINE: usize = 256 << 20;

/// Maximum that a source can set, since Arrow counts the bytes of a text array with 31 bits.
const MAX_LINE_LIMIT: u64 = 1 << 30;

/// An object that a run reads, as it was listed.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    /// The object, named by its URL. Its store refuses to read it if it was overwritten since.
    pub(crate) found: FoundFile,
    /// Columns in the path of the object, with their values.
    pub(crate) path_columns: Vec<(String, Option<String>)>,
    /// Maximum bytes of a JSON line or a CSV record, at least [`SLICE`].
    pub(crate) max_record: usize,
}

impl InputFile {
    pub(crate) fn new(listed: ObjectRef, store: Arc<dyn ObjectStore>, object: Path) -> Self {
        let store = as_listed(store, [(object.clone(), listed.etag.clone())]);
        Self { found: FoundFile::new(listed, store, object), path_columns: vec![], max_record: MAX_LINE }
    }

    /// Sets the maximum bytes of a JSON line or a CSV record.
    pub(crate) fn with_max_record(mut self, bytes: Option<u64>) -> Self {
        let bytes = bytes.map(|bytes| usize::try_from(bytes.min(MAX_LINE_LIMIT)).unwrap_or(MAX_LINE));
        self.max_record = bytes.unwrap_or(MAX_LINE).max(SLICE);
        self
    }

    /// URL of the object, for messages.
    pub(crate) fn name(&self) -> &str {
        self.found.name()
    }

    pub(crate) fn size(&self) -> u64 {
        self.found.listed.size
    }

    /// Opens the object as a Parquet file.
    pub(crate) async fn open(&self, keys: Option<&FileEncryption>) -> Result<OpenFile> {
        let FoundFile { listed, store, object, .. } = &self.found;
        let file = DataFile::outside_tables(listed.clone(), object.clone());
        OpenFile::open_with(store.clone(), file, keys).await.map_err(|e| self.explain_error(e))
    }

    /// Adds the columns of the path. `below` is the path relative to the location of the source.
    pub(crate) fn with_path_columns(mut self, below: &str) -> Result<Self> {
        self.path_columns = path_columns(below).map_err(|e| e.in_file(self.name()))?;
        Ok(self)
    }

    /// Converts an error that happened during a read: an object that was deleted or overwritten is a conflict, not
    /// damaged input.
    pub(crate) fn explain_error(&self, e: Error) -> Error {
        input_failed(e, self.name())
    }

    pub(crate) async fn read_range(&self, range: Range<u64>) -> Result<Bytes> {
        let got = self.found.store.get_range(&self.found.object, range).await;
        got.map_err(|e| self.explain_error(store_error("read", &self.found.object, e)))
    }

    /// Returns the text of the object: decompressed, in UTF-8 and without a byte order mark. Call it from a blocking
    /// thread.
    pub(crate) fn open_text(
        self: &Arc<Self>,
        handle: &Handle,
        encoding: Option<TextEncoding>,
    ) -> Result<Box<dyn Read + Send>> {
        let head = handle.block_on(self.read_range(0..self.size().min(4)))?;
        let raw = ObjectRead { file: self.clone(), handle: handle.clone(), at: 0, buffer: Bytes::new() };
        let raw = BufReader::with_capacity(1 << 16, raw);
        let text = FileCompression::detect(&head).reader(raw).map_err(|e| self.unreadable_error(e))?;
        Ok(Box::new(Utf8Text::new(self.name(), text, encoding)))
    }

    /// Returns the JSON values of the object in chunks of whole lines, one value a line. Call it from a blocking
    /// thread.
    pub(crate) fn json_lines(self: &Arc<Self>, handle: &Handle, encoding: Option<TextEncoding>) -> Result<TextChunks> {
        let (mut text, mut begin) = (self.open_text(handle, encoding)?, vec![]);
        (&mut text).take(BEGIN).read_to_end(&mut begin).map_err(|e| self.unreadable_error(e))?;
        let is_whole = (begin.len() as u64) < BEGIN;
        let layout = if is_whole { JsonLayout::of_text(&begin) } else { JsonLayout::of_begin(&begin) };
        let text = io::Cursor::new(begin).chain(text);
        let lines: Box<dyn Read + Send> = match layout {
            JsonLayout::Lines => Box::new(text),
            JsonLayout::Stream => Box::new(JsonValues::new(self.name(), BufReader::with_capacity(1 << 16, text))),
        };
        Ok(TextChunks::new(lines, self.clone()))
    }

    /// Returns whether the object is uncompressed text with one JSON value a line, so that byte ranges of it can be
    /// read independently.
    pub(crate) async fn has_lines(&self) -> Result<bool> {
        let begin = self.read_range(0..self.size().min(BEGIN)).await?;
        // A byte order mark is only at the beginning, so a text with one is read as a whole.
        let is_plain = FileCompression::detect(&begin) == FileCompression::None
            && !matches!(begin.first(), Some(0xef | 0xfe | 0xff));
        let layout = if self.size() <= BEGIN { JsonLayout::of_text(&begin) } else { JsonLayout::of_begin(&begin) };
        Ok(is_plain && layout == JsonLayout::Lines)
    }

    fn unreadable_error(&self, e: io::Error) -> Error {
        text_failed(self.name(), e)
    }
}

/// Converts an I/O error of a text. An error of the store is already a Biscuit error inside of the I/O error; any
/// other error comes from the decompression.
pub(crate) fn text_failed(file: &str, e: io::Error) -> Error {
    match e.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>) {
        true => match e.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<Error>) {
            Some(Ok(e)) => *e,
            _ => Error::internal("an error was lost"),
        },
        false => decompression_error(file, e),
    }
}

/// Error for a line or record with more bytes than the file allows.
pub(crate) fn too_long(file: &str, what: &str, row: u64, maximum: usize) -> Error {
    let message = format!(
        "the {what} has more than {maximum} bytes; if it is valid, raise the limit with `max_record` of the source, up to 1 GiB"
    );
    Error::new(biscuit_schema::codes::TOO_LARGE, message).at(file, row)
}

/// Reads an object in parts of [`SLICE`] bytes to limit memory.
struct ObjectRead {
    file: Arc<InputFile>,
    handle: Handle,
    at: u64,
    buffer: Bytes,
}

impl Read for ObjectRead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && self.at < self.file.size() {
            let end = (self.at + SLICE as u64).min(self.file.size());
            self.buffer = self.handle.block_on(self.file.read_range(self.at..end)).map_err(io::Error::other)?;
            self.at = end;
        }
        let n = self.buffer.len().min(into.len());
        into[..n].copy_from_slice(&self.buffer.split_to(n));
        Ok(n)
    }
}

/// Whole lines of a text, and the number of the first line, from 1.
pub(crate) struct TextChunk {
    pub(crate) bytes: Bytes,
    pub(crate) first: u64,
}

/// Splits a text into chunks of whole lines.
pub(crate) struct TextChunks {
    text: Box<dyn Read + Send>,
    file: Arc<InputFile>,
    /// Beginning of a line that continues in the next chunk.
    rest: Vec<u8>,
    first: u64,
    ended: bool,
}

impl TextChunks {
    pub(crate) fn new(text: Box<dyn Read + Send>, file: Arc<InputFile>) -> Self {
        Self { text, file, rest: vec![], first: 1, ended: false }
    }

    /// Returns the next chunk, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<TextChunk>> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut want = SLICE;
        while !self.ended {
            let had = bytes.len();
            let read = (&mut self.text).take((want - had) as u64).read_to_end(&mut bytes);
            read.map_err(|e| self.file.unreadable_error(e))?;
            self.ended = bytes.len() < want;
            // The chunk begins with a line, and has more than one unless this line is long.
            let line = memchr::memchr(b'\n', &bytes).unwrap_or(bytes.len());
            if line > self.file.max_record {
                return Err(too_long(self.file.name(), "line", self.first, self.file.max_record));
            }
            match memchr::memrchr(b'\n', &bytes) {
                Some(end) if !self.ended => {
                    self.rest = bytes.split_off(end + 1);
                    break;
                }
                // The chunk has no line end: one line is longer than the chunk.
                _ => want = (want * 2).min(self.file.max_record + 1).max(want),
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let first = self.first;
        self.first += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Some(TextChunk { bytes: bytes.into(), first }))
    }
}

/// Returns the lines that begin in a range of bytes of an uncompressed file. Each line belongs to exactly one range.
///
/// Example: in `a\nbb\nc`, the range 0..3 has the lines `a` and `bb`, since `bb` begins at byte 2; the range 3..6 has
/// `c`.
pub(crate) async fn lines_in(file: &InputFile, range: Range<u64>) -> Result<Bytes> {
    // The byte before the range tells whether a line begins exactly at its start.
    let from = range.start.saturating_sub(1);
    let mut bytes = file.read_range(from..range.end).await?.to_vec();
    let mut end = range.end;
    // The last line of the range may end after the range.
    while end < file.size() && !ends_in_line(&bytes, (range.end - from) as usize) {
        if end - range.end > file.max_record as u64 {
            let line = lines_before(file, range.end).await? + 1;
            return Err(too_long(file.name(), "line", line, file.max_record));
        }
        let next = (end + (1 << 18)).min(file.size());
        bytes.extend_from_slice(&file.read_range(end..next).await?);
        end = next;
    }
    let own = (range.end - from) as usize;
    let stop =
        memchr::memchr(b'\n', &bytes[own.saturating_sub(1)..]).map_or(bytes.len(), |i| own.saturating_sub(1) + i + 1);
    let start = match range.start {
        0 => 0,
        // The line that contains the byte before the range belongs to an earlier range.
        _ => memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |i| i + 1),
    };
    let bytes = Bytes::from(bytes);
    Ok(if start >= stop { Bytes::new() } else { bytes.slice(start..stop) })
}

fn ends_in_line(bytes: &[u8], own: usize) -> bool {
    memchr::memchr(b'\n', &bytes[own.saturating_sub(1)..]).is_some()
}

/// Returns the number of lines that end before a position in a file.
pub(crate) async fn lines_before(file: &InputFile, end: u64) -> Result<u64> {
    let (mut lines, mut at) = (0, 0);
    while at < end {
        let next = (at + SLICE as u64).min(end);
        lines += memchr::memchr_iter(b'\n', &file.read_range(at..next).await?).count() as u64;
        at = next;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    async fn file(text: &str) -> Arc<InputFile> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("a");
        store.put(&path, text.to_owned().into()).await.expect("the store in memory accepts writes");
        Arc::new(InputFile::new(ObjectRef::new("a", text.len() as u64, None), store, path))
    }

    #[tokio::test]
    async fn every_line_is_in_exactly_one_byte_range() {
        for text in ["a\nbb\n\nccc\nd", "a\n", "\n\n", "abc", "a\nb\n"] {
            let file = file(text).await;
            for size in 1..=text.len() as u64 {
                let mut all = Vec::new();
                let mut at = 0;
                while at < file.size() {
                    let end = (at + size).min(file.size());
                    all.extend_from_slice(&lines_in(&file, at..end).await.unwrap());
                    at = end;
                }
                assert_eq!(String::from_utf8(all).unwrap(), text, "in parts of {size}");
            }
            assert_eq!(lines_before(&file, file.size()).await.unwrap(), text.matches('\n').count() as u64);
        }
    }
}
