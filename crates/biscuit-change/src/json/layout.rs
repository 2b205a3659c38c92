//! JSON text with a layout other than one value per line: one array, values over several lines, or several values in
//! a line. [`JsonValues`] converts such text to lines with a byte-wise state machine, without parsing the values.

use std::io::{self, Read};

use biscuit_core::Error;

use crate::codes;

/// Layout of the values in a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "internal: outside of semantic versioning")]
pub enum JsonLayout {
    /// Each value is a line. A damaged line does not affect the other lines.
    Lines,
    /// The values are the items of one array, span several lines, or share a line. [`JsonValues`] converts them to
    /// lines.
    Stream,
}

impl JsonLayout {
    /// Detects the layout of a whole text.
    pub fn of_text(text: &[u8]) -> Self {
        Self::detect(text, true)
    }

    /// Detects the layout from the beginning of a text.
    pub fn of_begin(begin: &[u8]) -> Self {
        Self::detect(begin, false)
    }

    fn detect(begin: &[u8], is_all: bool) -> Self {
        let text = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begin);
        let Some(start) = text.iter().position(|b| !b.is_ascii_whitespace()) else { return Self::Lines };
        let text = &text[start..];
        if text[0] == b'[' {
            return Self::Stream;
        }
        if text[0] != b'{' {
            return Self::Lines;
        }
        let line_end = |text: &[u8]| memchr::memchr(b'\n', text);
        let Some(end) = value_end(text) else {
            // The first value does not end in this part. If the next line is a whole object, the first line is a
            // damaged line, and not the beginning of a value over several lines.
            let rest = line_end(text).map(|end| &text[end + 1..]).unwrap_or_default();
            let next = &rest[..line_end(rest).unwrap_or(rest.len())];
            let next = next.trim_ascii();
            let is_whole = next.first() == Some(&b'{') && value_end(next) == Some(next.len());
            return if is_all || is_whole || rest.is_empty() { Self::Lines } else { Self::Stream };
        };
        let (value, rest) = text.split_at(end);
        let rest = &rest[..line_end(rest).unwrap_or(rest.len())];
        match line_end(value).is_some() || !rest.trim_ascii().is_empty() {
            true => Self::Stream,
            false => Self::Lines,
        }
    }
}

/// Returns the end of the object at the beginning of a text; `None` if the object does not end, or a string in it
/// contains a line break.
fn value_end(text: &[u8]) -> Option<usize> {
    let mut state = ScanState::default();
    text.iter()
        .position(|byte| state.advance(*byte).is_ok_and(|ended| ended) || state.broken)
        .filter(|_| !state.broken)
        .map(|at| at + 1)
}

/// Position of a scanner relative to the structure of a value.
#[derive(Debug, Default)]
struct ScanState {
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// Whether the scanner is in a number or word (`true`, `false`, `null`) outside of objects and arrays.
    scalar: bool,
    /// Whether a string contained a line break, which JSON does not allow.
    broken: bool,
}

impl ScanState {
    fn is_outside(&self) -> bool {
        self.depth == 0 && !self.quoted && !self.scalar
    }

    /// Advances by one byte. Returns whether a value ends with this byte, or an error if the byte cannot continue or
    /// begin a value. In the state `scalar` the error means that the number or word ended before the byte.
    fn advance(&mut self, byte: u8) -> Result<bool, ()> {
        if self.quoted {
            self.broken |= matches!(byte, b'\n' | b'\r');
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.quoted = false;
                    return Ok(self.depth == 0);
                }
                _ => {}
            }
            return Ok(false);
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' | b'[' if !self.scalar => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                return Ok(self.depth == 0);
            }
            _ if self.depth > 0 => {}
            b',' | b']' | b'}' | b'{' | b'[' | b' ' | b'\t' | b'\n' | b'\r' => {
                self.scalar = false;
                return Err(());
            }
            _ => self.scalar = true,
        }
        Ok(false)
    }
}

/// Reader that returns each value of a JSON text as one line: the items of a top-level array, and consecutive values.
/// Line breaks inside a value become spaces, so that the number of a line is the number of its value.
#[derive(Debug)]
pub struct JsonValues<R> {
    text: R,
    file: String,
    state: ScanState,
    /// Whether an array at the top is open.
    in_array: bool,
    values: u64,
    lines: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> JsonValues<R> {
    /// Creates a reader of the values of a file; `file` is its name in messages. The `io::Error`s of the reader
    /// contain `InvalidJson` or `TruncatedInput` with the number of the value.
    pub fn new(file: &str, text: R) -> Self {
        let file = file.to_owned();
        Self { text, file, state: ScanState::default(), in_array: false, values: 0, lines: vec![], at: 0, ended: false }
    }

    /// Adds one byte of the text to the lines.
    fn add_byte(&mut self, byte: u8) -> Result<(), Error> {
        // Between values: white space, and the brackets and commas of the top-level array.
        if self.state.is_outside() {
            match byte {
                // 0x1e separates records in JSON text sequences (RFC 7464).
                b' ' | b'\t' | b'\n' | b'\r' | 0x1e => return Ok(()),
                b',' if self.in_array => return Ok(()),
                b'[' if !self.in_array => {
                    self.in_array = true;
                    return Ok(());
                }
                b']' if self.in_array => {
                    self.in_array = false;
                    return Ok(());
                }
                _ => {}
            }
        }
        let in_scalar = self.state.scalar;
        match self.state.advance(byte) {
            _ if self.state.broken => {
                let message = "a JSON string contains a line break, so that the end of the value cannot be found";
                Err(Error::new(codes::INVALID_JSON, message).at(&self.file, self.values + 1))
            }
            Ok(ended) => {
                self.lines.push(if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
                if ended {
                    self.end_text();
                }
                Ok(())
            }
            // The byte after a number or word is not part of it: end the value, then take the byte again.
            Err(()) => {
                if in_scalar {
                    self.end_text();
                    return self.add_byte(byte);
                }
                let message = "a JSON value is expected here";
                Err(Error::new(codes::INVALID_JSON, message).at(&self.file, self.values + 1))
            }
        }
    }

    fn end_text(&mut self) {
        self.lines.push(b'\n');
        self.values += 1;
    }

    /// Reads until at least one byte of a line is ready, or the text ends.
    fn read_lines(&mut self) -> io::Result<()> {
        self.lines.clear();
        self.at = 0;
        let mut part = [0; 1 << 15];
        while self.lines.is_empty() && !self.ended {
            let read = self.text.read(&mut part)?;
            if read == 0 {
                self.ended = true;
                if !self.state.is_outside() && !self.state.scalar || self.in_array {
                    let message =
                        "the last JSON value, or the array around all of them, is not closed; the file was truncated";
                    return Err(io::Error::other(
                        Error::new(codes::TRUNCATED_INPUT, message).at(&self.file, self.values + 1),
                    ));
                }
            }
            for byte in &part[..read] {
                self.add_byte(*byte).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for JsonValues<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.lines.len() {
            self.read_lines()?;
        }
        let n = into.len().min(self.lines.len() - self.at);
        into[..n].copy_from_slice(&self.lines[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<String, (&'static str, Option<u64>)> {
        // One byte per call, so that the result cannot depend on the size of the parts.
        struct SlowReader<'a>(&'a [u8]);
        impl Read for SlowReader<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let n = self.0.len().min(1).min(into.len());
                into[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let mut all = String::new();
        match JsonValues::new("a.json", SlowReader(text.as_bytes())).read_to_string(&mut all) {
            Ok(_) => Ok(all),
            Err(e) => {
                let e = e.downcast::<Error>().expect("the error is a Biscuit error");
                Err((e.code(), e.row()))
            }
        }
    }

    #[test]
    fn each_value_becomes_one_line() {
        for (text, want) in [
            ("[{\"a\":1},{\"a\":2}]", "{\"a\":1}\n{\"a\":2}\n"),
            ("[\n  {\n    \"a\": \"]\\\"}\"\n  }\n]\n", "{     \"a\": \"]\\\"}\"   }\n"),
            ("{\"a\":1}{\"a\":[1,\n2]} {\"a\":3}", "{\"a\":1}\n{\"a\":[1, 2]}\n{\"a\":3}\n"),
            ("[]", ""),
            ("", ""),
            ("[null, 1.5,\"x\", [1]]", "null\n1.5\n\"x\"\n[1]\n"),
            ("[{}][{}]", "{}\n{}\n"),
            ("1 2\n", "1\n2\n"),
        ] {
            assert_eq!(lines(text).as_deref(), Ok(want), "{text}");
        }
        // The last value is a number without a byte after it.
        assert_eq!(lines("1 2").as_deref(), Ok("1\n2"));
    }

    #[test]
    fn truncated_text_is_an_error_with_the_number_of_the_value() {
        let whole = "[{\"a\":\"x\"},{\"b\":[1,2]}]";
        for cut in 1..whole.len() {
            let found = lines(&whole[..cut]).unwrap_err();
            assert!(found.0 == "TruncatedInput" && found.1.is_some(), "{}: {found:?}", &whole[..cut]);
        }
        assert_eq!(lines("{\"a\":1}{\"a\":"), Err(("TruncatedInput", Some(2))));
        assert_eq!(lines("{\"a\":\"x\ny\"}"), Err(("InvalidJson", Some(1))));
        assert_eq!(lines("{\"a\":1}}"), Err(("InvalidJson", Some(2))));
        assert_eq!(lines("[1]]"), Err(("InvalidJson", Some(2))));
    }

    #[test]
    fn layout_is_detected_from_the_beginning() {
        let of = |text: &str| JsonLayout::of_text(text.as_bytes());
        for text in [
            "",
            "\n\n",
            "{\"a\":1}\n{\"a\":2}\n",
            "\u{feff}{\"a\":1}\r\n",
            "  {\"a\":\"}\"}  \n",
            "1\n2\n",
            "{\"a\":\n",
            "{\"a\":\"x\n{\"a\":1}\n",
        ] {
            assert_eq!(of(text), JsonLayout::Lines, "{text:?}");
        }
        for text in ["[", "\u{feff}\n[{}]", "{\"a\":1}{\"a\":2}\n", "{\n\"a\":1}\n", "{\"a\":1} {\"a\":2}"] {
            assert_eq!(of(text), JsonLayout::Stream, "{text:?}");
        }
        // A damaged line does not make the rest a stream; a value over several lines does.
        assert_eq!(JsonLayout::of_begin(b"{\"a\":\n{\"a\":1}\n{\"a\":2}\n{"), JsonLayout::Lines);
        assert_eq!(JsonLayout::of_begin(b"{\n \"a\": [\n 1,\n"), JsonLayout::Stream);
        assert_eq!(JsonLayout::of_begin(b"{\"long\": \"xxxx"), JsonLayout::Lines);
    }
}
