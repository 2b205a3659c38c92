//! The text of a file in chunks of whole records, so that several cores decode it and no file is in memory as a whole.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use biscuit_core::{Error, Result, catch_panic};
use bytes::Bytes;

use crate::codes;
use crate::csv::dialect::{CsvDialect, CsvQuotes};
use crate::files::decompress::{FileCompression, TextLimit, decompression_error};
use crate::files::encoding::{TextEncoding, Utf8Text};
use crate::files::lines::too_long;
use crate::json::layout::{JsonLayout, JsonValues};
use crate::values::text::empty_file;

/// Bytes of text that are decoded at a time.
const CHUNK: usize = 4 << 20;

/// Bytes at the beginning of a text that decide how its JSON values are separated.
const BEGIN: u64 = 64 << 10;

/// Default maximum number of bytes of a record in a text: a line of JSON, or a record of CSV.
pub const MAX_RECORD: u64 = 64 << 20;

/// Number of bytes above which the limit cannot be raised, since Arrow counts the bytes of a column with 31 bits.
const MAX_RECORD_LIMIT: u64 = 1 << 30;

/// How the records of a text are separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum RecordSeparation {
    /// Values of JSON: one in each line, or in another layout, which is converted to lines.
    Json,
    /// Records of CSV, which may contain line breaks.
    Csv(CsvDialect),
}

/// Encoding and limits of text files.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct TextSettings {
    /// Encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
    /// Maximum size of a text after decompression in bytes. Default: none for plain text; for compressed text 250
    /// times the size of the file, at least 64 MiB.
    pub max_decompressed: Option<u64>,
    /// Maximum size of a record in bytes. Default: [`MAX_RECORD`].
    pub max_record: Option<u64>,
}

/// Consecutive whole records of a text.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "internal: outside of semantic versioning")]
pub struct TextChunk {
    /// Name of the file in messages.
    pub file: Arc<str>,
    /// Whole records.
    pub text: Vec<u8>,
    /// How the records are separated.
    pub separation: RecordSeparation,
    /// Number of the first line in the file, from 1.
    pub first: u64,
    /// First record of a CSV file, if the chunk does not begin with it.
    pub head: Option<Arc<str>>,
    /// Row number of a quarantined record that is read again.
    pub only: Option<u64>,
    /// Maximum size of a record in bytes.
    pub max_record: usize,
}

impl TextChunk {
    /// Returns the text.
    ///
    /// # Errors
    /// `InvalidText` if it is not UTF-8.
    pub(crate) fn as_text(&self) -> Result<&str> {
        std::str::from_utf8(&self.text).map_err(|e| self.invalid_text(&self.text, e.valid_up_to()))
    }

    /// Takes the text out of the chunk.
    ///
    /// # Errors
    /// As [`as_text`](Self::as_text).
    pub(crate) fn take_text(&mut self) -> Result<Arc<String>> {
        String::from_utf8(std::mem::take(&mut self.text))
            .map(Arc::new)
            .map_err(|e| self.invalid_text(e.as_bytes(), e.utf8_error().valid_up_to()))
    }

    fn invalid_text(&self, text: &[u8], at: usize) -> Error {
        let line = memchr::memchr_iter(b'\n', &text[..at]).count() as u64;
        let begin = memchr::memrchr(b'\n', &text[..at]).map_or(0, |at| at + 1);
        let message = format!(
            "the text is not UTF-8: byte {} of the line is {:#04x}; if the file has another encoding, set it (`encoding` of the source, or `--encoding`)",
            at - begin + 1,
            text[at]
        );
        Error::new(codes::INVALID_TEXT, message).at(&self.file, self.only.unwrap_or(self.first + line))
    }
}

/// Divides the text of a file into chunks.
pub struct TextChunks<'a> {
    file: Arc<str>,
    text: Box<dyn BufRead + Send + 'a>,
    separation: RecordSeparation,
    /// Finds the ends of records of CSV; `None` for lines.
    quotes: Option<CsvQuotes>,
    /// Beginning of a record that continues in the next chunk.
    rest: Vec<u8>,
    first: u64,
    head: Option<Arc<str>>,
    only: Option<u64>,
    ended: bool,
    chunk: usize,
    max_record: usize,
}

impl std::fmt::Debug for TextChunks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextChunks").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<'a> TextChunks<'a> {
    /// Opens a text. `raw` are the bytes of the file, whose number is `size`.
    ///
    /// # Errors
    /// Errors of reading the beginning of the text; see [`next_chunk`](Self::next_chunk).
    pub fn open(
        file: &Arc<str>,
        mut raw: impl BufRead + Send + 'a,
        size: u64,
        separation: RecordSeparation,
        settings: &TextSettings,
    ) -> Result<Self> {
        let compression = FileCompression::detect(read_text(file, || raw.fill_buf())?);
        let limit = TextLimit::new(file, size, compression, settings.max_decompressed);
        // Plain text is read from the buffers of the file itself.
        let plain: Box<dyn BufRead + Send + 'a> = match compression {
            FileCompression::None => Box::new(raw),
            packed => Box::new(BufReader::with_capacity(1 << 16, read_text(file, || packed.reader(raw))?)),
        };
        let text = Utf8Text::new(file, limit.apply(plain), settings.encoding);
        let mut text: Box<dyn BufRead + Send + 'a> = Box::new(text);
        let quotes = match separation {
            RecordSeparation::Json => {
                text = json_lines(file, text)?;
                None
            }
            RecordSeparation::Csv(dialect) => Some(CsvQuotes::new(file, dialect)),
        };
        let max_record = settings.max_record.unwrap_or(MAX_RECORD).clamp(1, MAX_RECORD_LIMIT);
        Ok(Self {
            file: file.clone(),
            text,
            separation,
            quotes,
            rest: vec![],
            first: 1,
            head: None,
            only: None,
            ended: false,
            chunk: CHUNK,
            max_record: usize::try_from(max_record).unwrap_or(usize::MAX),
        })
    }

    /// Sets the number of bytes that are decoded at a time. Default: 4 MiB.
    #[must_use]
    pub fn with_chunk_size(mut self, bytes: usize) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// Opens the text of a file in memory. `only` is the row number of a quarantined record that is read again.
    ///
    /// # Errors
    /// `EmptyFile`, and errors as of [`open`](Self::open).
    pub(crate) fn of_bytes(
        file: &Arc<str>,
        bytes: &'a Bytes,
        separation: RecordSeparation,
        settings: &TextSettings,
        only: Option<u64>,
    ) -> Result<Self> {
        if bytes.is_empty() {
            return Err(empty_file(file));
        }
        let chunks = Self::open(file, bytes.as_ref(), bytes.len() as u64, separation, settings)?;
        Ok(Self { only, ..chunks })
    }

    /// Returns the next chunk, or `None` at the end.
    ///
    /// # Errors
    /// `TruncatedInput`, `InvalidText`, `InvalidJson`, `InvalidCsv`, `TooLarge`; errors of the source of the bytes.
    pub fn next_chunk(&mut self) -> Result<Option<TextChunk>> {
        let mut text = std::mem::take(&mut self.rest);
        while !self.ended {
            let had = text.len();
            // A record that is longer than the chunk doubles it.
            let want = if had < self.chunk { self.chunk - had } else { had };
            text.reserve(want);
            let read = read_text(&self.file, || read_up_to(&mut self.text, want, &mut text))?;
            self.ended = read < want;
            let end = match &mut self.quotes {
                Some(quotes) => quotes.check(&text[had..])?,
                None => memchr::memrchr(b'\n', &text[had..]).map(|at| at + 1),
            };
            match end {
                _ if self.ended => {}
                Some(end) => {
                    self.rest = text.split_off(had + end);
                    break;
                }
                None if text.len() > self.max_record => {
                    return Err(too_long(&self.file, self.only.unwrap_or(self.first), self.max_record));
                }
                None => {}
            }
        }
        if let Some(quotes) = self.quotes.as_ref().filter(|_| self.ended) {
            quotes.finish()?;
        }
        if text.is_empty() {
            return Ok(None);
        }
        let first = self.first;
        self.first += memchr::memchr_iter(b'\n', &text).count() as u64;
        let head = self.head.clone();
        if let (Some(quotes), None) = (&self.quotes, &head) {
            self.head = Some(quotes.first_record(&text));
        }
        let (file, only, max_record) = (self.file.clone(), self.only, self.max_record);
        Ok(Some(TextChunk { file, text, separation: self.separation, first, head, only, max_record }))
    }
}

/// Reads from a text. A decompressor that panics has found damaged bytes.
fn read_text<T>(file: &str, read: impl FnOnce() -> io::Result<T>) -> Result<T> {
    match catch_panic(read) {
        Ok(read) => read.map_err(|e| read_error(file, e)),
        Err(e) => {
            let message = "the compressed text is damaged";
            Err(Error::new(codes::TRUNCATED_INPUT, message).in_file(file).with_source(e))
        }
    }
}

/// Appends up to `want` bytes to `out`. Returns fewer only at the end.
fn read_up_to(text: &mut dyn BufRead, want: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    let mut read = 0;
    while read < want {
        let ready = text.fill_buf()?;
        if ready.is_empty() {
            break;
        }
        let taken = ready.len().min(want - read);
        out.extend_from_slice(&ready[..taken]);
        text.consume(taken);
        read += taken;
    }
    Ok(read)
}

/// Returns the values of a JSON text as lines, whatever its layout is.
fn json_lines<'a>(file: &Arc<str>, mut text: Box<dyn BufRead + Send + 'a>) -> Result<Box<dyn BufRead + Send + 'a>> {
    let mut begin = vec![];
    read_text(file, || (&mut text).take(BEGIN).read_to_end(&mut begin))?;
    let is_whole = (begin.len() as u64) < BEGIN;
    let layout = if is_whole { JsonLayout::of_text(&begin) } else { JsonLayout::of_begin(&begin) };
    let text = io::Cursor::new(begin).chain(text);
    Ok(match layout {
        JsonLayout::Lines => Box::new(text),
        JsonLayout::Stream => Box::new(BufReader::with_capacity(1 << 16, JsonValues::new(file, text))),
    })
}

/// Converts an error of reading a text. An error with a code is inside of the `io::Error`; any other error comes from
/// the decompression.
pub fn read_error(file: &str, e: io::Error) -> Error {
    e.downcast::<Error>().unwrap_or_else(|e| decompression_error(file, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str, separation: RecordSeparation, size: usize) -> Result<Vec<TextChunk>> {
        let bytes = Bytes::from(text.to_owned());
        let opened = TextChunks::of_bytes(&"a.csv".into(), &bytes, separation, &TextSettings::default(), None)?;
        let mut opened = opened.with_chunk_size(size);
        std::iter::from_fn(|| opened.next_chunk().transpose()).collect()
    }

    #[test]
    fn chunks_of_any_size_are_whole_records_with_their_lines() {
        let csv = RecordSeparation::Csv(CsvDialect::default());
        let texts = [
            ("{\"a\":1}\n\n{\"a\":2}\r\n{\"a\":3}", RecordSeparation::Json),
            ("{}\n{}\n", RecordSeparation::Json),
            ("id,v\n1,a\n2,b", csv),
            ("id,v\r\n1,\"a\nb\"\r\n2,\"\"\"\n\"\"\"\r\n", csv),
            ("id,v\r1,a\r2,b\r", csv),
            ("id,v\n1,5\" pipe\n2,\"x\"\n", csv),
        ];
        for (text, separation) in texts {
            let whole = chunks(text, separation, text.len() + 1).expect("the text is valid");
            assert_eq!(whole.len(), 1, "{text:?}");
            for size in 1..=text.len() {
                let parts = chunks(text, separation, size).expect("the text is valid");
                let together: Vec<u8> = parts.iter().flat_map(|part| part.text.clone()).collect();
                assert_eq!(String::from_utf8_lossy(&together), text, "in parts of {size}");
                for (at, part) in parts.iter().enumerate() {
                    let before: usize = parts[..at].iter().map(|part| part.text.len()).sum();
                    assert_eq!(part.first as usize, 1 + text[..before].matches('\n').count(), "{text:?} {size}");
                    let quotes = part.text.iter().filter(|byte| **byte == b'"').count();
                    assert!(quotes % 2 == 0 || text.contains("5\""), "{text:?} is cut in a quote by parts of {size}");
                    let is_first = at == 0 || separation == RecordSeparation::Json;
                    assert_eq!(part.head.is_none(), is_first);
                }
            }
        }
    }

    #[test]
    fn record_that_does_not_end_is_an_error_and_does_not_fill_the_memory() {
        let endless = Bytes::from(vec![b'x'; 10_000]);
        for separation in [RecordSeparation::Json, RecordSeparation::Csv(CsvDialect::default())] {
            let settings = TextSettings { max_record: Some(1000), ..TextSettings::default() };
            let opened = TextChunks::of_bytes(&"a".into(), &endless, separation, &settings, None);
            let e = opened.expect("the text begins").with_chunk_size(100).next_chunk().unwrap_err();
            assert_eq!((e.code(), e.row()), ("TooLarge", Some(1)));
        }
    }

    #[test]
    fn text_whose_reader_panics_is_damaged() {
        struct Panicking(usize);
        impl Read for Panicking {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let taken = into.len().min(100);
                assert!(self.0 >= taken, "the bytes are damaged");
                self.0 -= taken;
                into[..taken].fill(b'\n');
                Ok(taken)
            }
        }
        // At the very beginning, while the layout is decided, and later.
        for bytes in [0, 1000, 2 * BEGIN as usize] {
            for separation in [RecordSeparation::Json, RecordSeparation::Csv(CsvDialect::default())] {
                let raw = BufReader::with_capacity(100, Panicking(bytes));
                let opened = TextChunks::open(&"a".into(), raw, 1, separation, &TextSettings::default());
                let e = opened.and_then(|text| text.with_chunk_size(1 << 20).next_chunk()).unwrap_err();
                assert_eq!((e.code(), e.file()), ("TruncatedInput", Some("a")), "{bytes}");
            }
        }
    }

    #[test]
    fn invalid_text_has_its_line() {
        let bytes = Bytes::from_static(b"{}\n{}\n{\"a\":\"\xff\"}\n");
        let settings = TextSettings::default();
        let opened = TextChunks::of_bytes(&"a".into(), &bytes, RecordSeparation::Json, &settings, None);
        let mut opened = opened.expect("the text begins").with_chunk_size(1);
        let text = std::iter::from_fn(|| opened.next_chunk().transpose());
        let e = text.map(|chunk| chunk?.take_text()).find_map(Result::err).expect("the text is invalid");
        assert_eq!((e.code(), e.row()), ("InvalidText", Some(3)));
        assert!(e.message().contains("byte 7 of the line is 0xff"), "{e}");
    }
}
