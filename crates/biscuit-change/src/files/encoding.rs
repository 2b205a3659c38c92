//! Conversion of text in other encodings to UTF-8 while it is read.

use std::io::{self, BufRead, Read};

use biscuit_core::{Error, Result};
use encoding_rs::{DecoderResult, Encoding, UTF_8};

use crate::codes;

/// Encoding of text, named by a label of the WHATWG Encoding Standard such as `latin1`, `windows-1252` or `utf-16le`.
///
/// A byte order mark takes precedence over the encoding. As the standard requires, `latin1` is read as Windows-1252,
/// which differs only in the control characters of Latin-1.
///
/// ```
/// use arrow::array::AsArray;
/// use biscuit_change::{RowsOptions, RowsReader, TextEncoding};
///
/// let mut reader = RowsReader::new(RowsOptions::default().with_encoding(TextEncoding::from_label("latin1")?));
/// reader.read("a.csv", b"name\nZo\xeb\n".to_vec().into())?;
/// let changes = reader.finish()?;
/// assert_eq!(changes.batches[0].rows["name"].as_string::<i32>().value(0), "Zoë");
///
/// assert_eq!(TextEncoding::from_label("klingon").unwrap_err().code(), "InvalidArguments");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextEncoding(&'static Encoding);

impl TextEncoding {
    /// Returns the encoding with this label.
    ///
    /// # Errors
    /// `InvalidArguments` for an unknown label.
    pub fn from_label(name: &str) -> Result<Self> {
        let unknown = || {
            let message = format!(
                "unknown encoding `{name}`; use a name such as `utf-8`, `latin1`, `windows-1252` or `utf-16le`"
            );
            Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message)
        };
        Encoding::for_label(name.as_bytes()).map(Self).ok_or_else(unknown)
    }
}

/// Reader that converts text to UTF-8 and removes the byte order mark. Text that has no mark and no other encoding is
/// passed through unchanged, without a check that it is UTF-8.
pub struct Utf8Text<R> {
    text: R,
    file: String,
    encoding: Option<TextEncoding>,
    state: DecodeState,
    /// Decoded bytes, of which the first `at` have been read.
    ready: Vec<u8>,
    at: usize,
    /// Bytes that are not decoded yet.
    raw: Vec<u8>,
}

enum DecodeState {
    Begin,
    AsItIs,
    Decoding(Box<encoding_rs::Decoder>),
    End,
}

impl<R> std::fmt::Debug for Utf8Text<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Utf8Text").field("file", &self.file).field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

impl<R: Read> Utf8Text<R> {
    /// Creates a reader of the text of a file; `file` is its name in messages. The `io::Error`s of the reader may
    /// contain `InvalidText`.
    pub fn new(file: &str, text: R, encoding: Option<TextEncoding>) -> Self {
        let file = file.to_owned();
        Self { text, file, encoding, state: DecodeState::Begin, ready: vec![], at: 0, raw: vec![] }
    }

    /// Reads the byte order mark, which has at most three bytes, and chooses the decoder.
    fn choose_decoder(&mut self) -> io::Result<()> {
        (&mut self.text).take(3).read_to_end(&mut self.raw)?;
        let marked = Encoding::for_bom(&self.raw);
        let (encoding, mark) = match (marked, self.encoding) {
            (Some((encoding, length)), _) => (encoding, length),
            (None, Some(TextEncoding(encoding))) => (encoding, 0),
            (None, None) => (UTF_8, 0),
        };
        self.raw.drain(..mark);
        self.state = match encoding == UTF_8 {
            true => {
                self.ready = std::mem::take(&mut self.raw);
                DecodeState::AsItIs
            }
            false => DecodeState::Decoding(Box::new(encoding.new_decoder_without_bom_handling())),
        };
        Ok(())
    }

    /// Decodes until some bytes are ready. At the end of the text no bytes are ready.
    fn decode_some(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        while self.ready.is_empty() {
            let DecodeState::Decoding(decoder) = &mut self.state else { return Ok(()) };
            let had = self.raw.len();
            self.raw.resize(had + (1 << 15), 0);
            let read = self.text.read(&mut self.raw[had..])?;
            self.raw.truncate(had + read);
            let last = read == 0;
            let room = decoder.max_utf8_buffer_length_without_replacement(self.raw.len()).unwrap_or(1 << 20);
            self.ready.resize(room, 0);
            let (result, taken, written) = decoder.decode_to_utf8_without_replacement(&self.raw, &mut self.ready, last);
            self.raw.drain(..taken);
            self.ready.truncate(written);
            if let DecoderResult::Malformed(..) = result {
                let name = decoder.encoding().name();
                let message = format!(
                    "the text is not {name}; set the encoding of the file (`encoding` of the source, or `--encoding`), or repair the file if it is damaged"
                );
                return Err(io::Error::other(Error::new(codes::INVALID_TEXT, message).in_file(&self.file)));
            }
            if last && result == DecoderResult::InputEmpty {
                self.state = DecodeState::End;
            }
        }
        Ok(())
    }
}

impl<R: Read> Utf8Text<R> {
    /// Decodes until some bytes are ready. Returns whether the text itself has to be read instead, because it needs no
    /// decoding.
    fn prepare(&mut self) -> io::Result<bool> {
        if matches!(self.state, DecodeState::Begin) {
            self.choose_decoder()?;
        }
        if self.at < self.ready.len() {
            return Ok(false);
        }
        if matches!(self.state, DecodeState::AsItIs) {
            return Ok(true);
        }
        self.decode_some()?;
        Ok(false)
    }
}

impl<R: BufRead> BufRead for Utf8Text<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.prepare()? {
            true => self.text.fill_buf(),
            false => Ok(&self.ready[self.at..]),
        }
    }

    fn consume(&mut self, bytes: usize) {
        match self.at < self.ready.len() {
            true => self.at += bytes,
            false => self.text.consume(bytes),
        }
    }
}

impl<R: Read> Read for Utf8Text<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.prepare()? {
            return self.text.read(into);
        }
        let n = into.len().min(self.ready.len() - self.at);
        into[..n].copy_from_slice(&self.ready[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], encoding: Option<&str>) -> Result<String, &'static str> {
        let encoding = encoding.map(|name| TextEncoding::from_label(name).expect("the encoding is known"));
        let mut text = Vec::new();
        match Utf8Text::new("a.csv", bytes, encoding).read_to_end(&mut text) {
            Ok(_) => Ok(String::from_utf8(text).expect("the text is UTF-8")),
            Err(e) => Err(e.downcast::<Error>().expect("the error is a Biscuit error").code()),
        }
    }

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        let units = text.encode_utf16();
        units.flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    }

    #[test]
    fn text_with_a_byte_order_mark_or_a_named_encoding_becomes_utf_8() {
        for text in ["", "a", "ab", "id,name\n1,Zoë 🐎\n", &"äöü\n".repeat(20_000)] {
            assert_eq!(read(text.as_bytes(), None).as_deref(), Ok(text));
            assert_eq!(read(format!("\u{feff}{text}").as_bytes(), None).as_deref(), Ok(text));
            for little in [true, false] {
                let marked = utf16(&format!("\u{feff}{text}"), little);
                assert_eq!(read(&marked, None).as_deref(), Ok(text));
                assert_eq!(read(&marked, Some("latin1")).as_deref(), Ok(text), "the mark takes precedence");
            }
            assert_eq!(read(&utf16(text, true), Some("utf-16le")).as_deref(), Ok(text));
        }
        assert_eq!(read(b"Zo\xeb\x80", Some("windows-1252")).as_deref(), Ok("Zoë€"));
        assert_eq!(read(b"Zo\xeb", Some("latin1")).as_deref(), Ok("Zoë"));
    }

    #[test]
    fn text_invalid_in_its_encoding_is_an_error() {
        let mut cut = utf16("\u{feff}abc", true);
        cut.pop();
        assert_eq!(read(&cut, None), Err("InvalidText"));
        assert_eq!(
            read(&utf16("\u{feff}a", false).into_iter().chain([0xd8, 0, 0, b'b']).collect::<Vec<_>>(), None),
            Err("InvalidText")
        );
        assert_eq!(read(b"\x81", Some("shift_jis")), Err("InvalidText"));
        assert_eq!(TextEncoding::from_label("klingon").unwrap_err().code(), "InvalidArguments");
    }
}
