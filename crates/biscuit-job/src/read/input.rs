use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use biscuit_change::{FileCompression, JsonLayout, JsonValues, TextEncoding, Utf8Text, unpacking_failed};
use biscuit_core::{Error, Result};
use biscuit_dataset::as_listed;
use biscuit_journal::store_error;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use crate::read::path_columns::path_columns;

/// Bytes of text that are worked on at a time.
pub(crate) const SLICE: usize = 8 << 20;

/// Bytes at the begin of a text by which it is told how its JSON values follow one another.
const BEGIN: u64 = 64 << 10;

/// Bytes of a line of JSON, or of a record of CSV. An array counts the bytes of its texts with 31 bits.
pub(crate) const MAX_LINE: usize = 256 << 20;

/// An object that a run reads, as it was listed.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    /// What messages call it: its URL.
    pub(crate) name: Arc<str>,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) size: u64,
    /// The columns that are in its path, and their values.
    pub(crate) path_columns: Vec<(String, Option<String>)>,
}

impl InputFile {
    pub(crate) fn new(name: &str, store: Arc<dyn ObjectStore>, path: Path, size: u64, etag: Option<String>) -> Self {
        let store = as_listed(store, [(path.clone(), etag)]);
        Self { name: name.into(), store, path, size, path_columns: vec![] }
    }

    /// The same file; this is its path below the place of the source.
    pub(crate) fn with_path_columns(mut self, below: &str) -> Result<Self> {
        self.path_columns = path_columns(below).map_err(|e| e.in_file(&self.name))?;
        Ok(self)
    }

    /// What an error means that came up while it was read.
    pub(crate) fn failed(&self, e: Error) -> Error {
        let (code, what) = match e.code() {
            "NotFound" => ("InputGone", "was deleted"),
            "Conflict" => ("InputChanged", "was overwritten"),
            _ if e.file().is_some() => return e,
            _ => return e.in_file(&self.name),
        };
        let message = format!("the file {what} after it was found, and before it was read; run again");
        Error::conflict(code, message).in_file(&self.name).with_source(e)
    }

    pub(crate) async fn bytes(&self, range: Range<u64>) -> Result<Bytes> {
        let got = self.store.get_range(&self.path, range).await;
        got.map_err(|e| self.failed(store_error("read", &self.path, e)))
    }

    /// Its text, unpacked, in UTF-8 and without a byte order mark, from a blocking thread.
    pub(crate) fn text(
        self: &Arc<Self>,
        handle: &Handle,
        encoding: Option<TextEncoding>,
    ) -> Result<Box<dyn Read + Send>> {
        let head = handle.block_on(self.bytes(0..self.size.min(4)))?;
        let raw = ObjectRead { file: self.clone(), handle: handle.clone(), at: 0, buffer: Bytes::new() };
        let raw = BufReader::with_capacity(1 << 16, raw);
        let text = FileCompression::of(&head).reader(raw).map_err(|e| self.unreadable(e))?;
        Ok(Box::new(Utf8Text::new(&self.name, text, encoding)))
    }

    /// Its JSON values in parts of whole lines, each value a line, from a blocking thread.
    pub(crate) fn json_lines(self: &Arc<Self>, handle: &Handle, encoding: Option<TextEncoding>) -> Result<TextChunks> {
        let (mut text, mut begin) = (self.text(handle, encoding)?, vec![]);
        (&mut text).take(BEGIN).read_to_end(&mut begin).map_err(|e| self.unreadable(e))?;
        let layout = JsonLayout::of(&begin, (begin.len() as u64) < BEGIN);
        let text = io::Cursor::new(begin).chain(text);
        let lines: Box<dyn Read + Send> = match layout {
            JsonLayout::Lines => Box::new(text),
            JsonLayout::Stream => Box::new(JsonValues::new(&self.name, BufReader::with_capacity(1 << 16, text))),
        };
        Ok(TextChunks::new(lines, self.clone()))
    }

    /// Whether it is plain text with a JSON value in each line, so that parts of it can be read by themselves.
    pub(crate) async fn has_lines(&self) -> Result<bool> {
        let begin = self.bytes(0..self.size.min(BEGIN)).await?;
        // Text with a mark is read from its begin.
        let is_plain =
            FileCompression::of(&begin) == FileCompression::None && !matches!(begin.first(), Some(0xef | 0xfe | 0xff));
        Ok(is_plain && JsonLayout::of(&begin, self.size <= BEGIN) == JsonLayout::Lines)
    }

    fn unreadable(&self, e: io::Error) -> Error {
        text_failed(&self.name, e)
    }
}

/// What an error means that came up while text was read: one of the store is one of ours already, any other is one of what it is packed in.
pub(crate) fn text_failed(file: &str, e: io::Error) -> Error {
    match e.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>) {
        true => match e.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<Error>) {
            Some(Ok(e)) => *e,
            _ => Error::internal("an error was lost"),
        },
        false => unpacking_failed(file, e),
    }
}

/// A line or record that has more bytes than may be in memory.
pub(crate) fn too_long(file: &str, what: &str, row: u64) -> Error {
    Error::data("TooLarge", format!("the {what} has more than {MAX_LINE} bytes")).at(file, row)
}

/// Reads an object in parts, so that little of it is in memory.
struct ObjectRead {
    file: Arc<InputFile>,
    handle: Handle,
    at: u64,
    buffer: Bytes,
}

impl Read for ObjectRead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && self.at < self.file.size {
            let end = (self.at + SLICE as u64).min(self.file.size);
            self.buffer = self.handle.block_on(self.file.bytes(self.at..end)).map_err(io::Error::other)?;
            self.at = end;
        }
        let n = self.buffer.len().min(into.len());
        into[..n].copy_from_slice(&self.buffer.split_to(n));
        Ok(n)
    }
}

/// A part of a text: whole lines, and the number of the first one, from 1.
pub(crate) struct TextChunk {
    pub(crate) bytes: Bytes,
    pub(crate) first: u64,
}

/// Cuts a text into parts of whole lines.
pub(crate) struct TextChunks {
    text: Box<dyn Read + Send>,
    file: Arc<InputFile>,
    rest: Vec<u8>,
    first: u64,
    ended: bool,
}

impl TextChunks {
    pub(crate) fn new(text: Box<dyn Read + Send>, file: Arc<InputFile>) -> Self {
        Self { text, file, rest: vec![], first: 1, ended: false }
    }

    /// The next part.
    pub(crate) fn next(&mut self) -> Result<Option<TextChunk>> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut want = SLICE;
        while !self.ended {
            let had = bytes.len();
            let read = (&mut self.text).take((want - had) as u64).read_to_end(&mut bytes);
            read.map_err(|e| self.file.unreadable(e))?;
            self.ended = bytes.len() < want;
            match memchr::memrchr(b'\n', &bytes) {
                Some(end) if !self.ended => {
                    self.rest = bytes.split_off(end + 1);
                    break;
                }
                _ if !self.ended && want > MAX_LINE => return Err(too_long(&self.file.name, "line", self.first)),
                // A line that is longer than a part.
                _ => want *= 2,
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

/// A part of a file of lines that is not compressed: those that begin in a range of its bytes.
pub(crate) async fn lines_in(file: &InputFile, range: Range<u64>) -> Result<Bytes> {
    let from = range.start.saturating_sub(1);
    let mut bytes = file.bytes(from..range.end).await?.to_vec();
    let mut end = range.end;
    // The last line goes on behind the range.
    while end < file.size && !ends_in_line(&bytes, (range.end - from) as usize) {
        if end - range.end > MAX_LINE as u64 {
            return Err(too_long(&file.name, "line", lines_before(file, range.end).await? + 1));
        }
        let next = (end + (1 << 18)).min(file.size);
        bytes.extend_from_slice(&file.bytes(end..next).await?);
        end = next;
    }
    let own = (range.end - from) as usize;
    let stop =
        memchr::memchr(b'\n', &bytes[own.saturating_sub(1)..]).map_or(bytes.len(), |i| own.saturating_sub(1) + i + 1);
    let start = match range.start {
        0 => 0,
        // The line that the byte before belongs to is not this part's.
        _ => memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |i| i + 1),
    };
    let bytes = Bytes::from(bytes);
    Ok(if start >= stop { Bytes::new() } else { bytes.slice(start..stop) })
}

fn ends_in_line(bytes: &[u8], own: usize) -> bool {
    memchr::memchr(b'\n', &bytes[own.saturating_sub(1)..]).is_some()
}

/// How many lines end before a place in a file.
pub(crate) async fn lines_before(file: &InputFile, end: u64) -> Result<u64> {
    let (mut lines, mut at) = (0, 0);
    while at < end {
        let next = (at + SLICE as u64).min(end);
        lines += memchr::memchr_iter(b'\n', &file.bytes(at..next).await?).count() as u64;
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
        store.put(&path, text.to_owned().into()).await.expect("memory takes it");
        Arc::new(InputFile::new("a", store, path, text.len() as u64, None))
    }

    #[tokio::test]
    async fn every_line_is_in_one_part_however_a_file_is_cut() {
        for text in ["a\nbb\n\nccc\nd", "a\n", "\n\n", "abc", "a\nb\n"] {
            let file = file(text).await;
            for size in 1..=text.len() as u64 {
                let mut all = Vec::new();
                let mut at = 0;
                while at < file.size {
                    let end = (at + size).min(file.size);
                    all.extend_from_slice(&lines_in(&file, at..end).await.unwrap());
                    at = end;
                }
                assert_eq!(String::from_utf8(all).unwrap(), text, "in parts of {size}");
            }
            assert_eq!(lines_before(&file, file.size).await.unwrap(), text.matches('\n').count() as u64);
        }
    }
}
