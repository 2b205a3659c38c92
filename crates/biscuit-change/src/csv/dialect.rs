//! Dialects of CSV, and a check of quotes that CSV readers do not make.

use std::io::{self, Read};
use std::sync::Arc;

use biscuit_core::{Error, Result};

use crate::codes;

/// Dialect of CSV. Default: commas between cells, or tabs in `.tsv` files; quotes `"`, which are doubled inside of
/// quotes; no comments.
///
/// ```
/// use biscuit_change::CsvDialect;
///
/// let mut dialect = CsvDialect::default();
/// dialect.delimiter = CsvDialect::byte("semicolon")?;
/// assert_eq!(dialect.format_line(["1", "a;b"]), "1;\"a;b\"");
///
/// dialect.quote = CsvDialect::byte(";")?;
/// assert_eq!(dialect.check().unwrap_err().code(), "InvalidArguments"); // two meanings of one character
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct CsvDialect {
    /// Character between cells. Default: tab for files with the extension `.tsv`, comma for all others.
    pub delimiter: Option<u8>,
    /// Character around cells that contain delimiters or line breaks. `None`: quotes are ordinary characters.
    /// Default: `"`.
    pub quote: Option<u8>,
    /// Character before a quote inside of quotes, as Spark and MySQL write it. A doubled quote is a quote in any
    /// case. Default: none.
    pub escape: Option<u8>,
    /// Character at the beginning of lines that are comments. Default: none.
    pub comment: Option<u8>,
}

impl Default for CsvDialect {
    fn default() -> Self {
        Self { delimiter: None, quote: Some(b'"'), escape: None, comment: None }
    }
}

impl CsvDialect {
    /// Parses a character of a dialect: a name (`comma`, `tab`, `semicolon`, `pipe`, `space`, `quote`, `apostrophe`,
    /// `backslash`, `hash`), an escape (`\t`, or `\xNN` with two hexadecimal digits) or the character itself. Returns
    /// `None` for `none` and empty text.
    ///
    /// # Errors
    /// `InvalidArguments` for more than one byte, and for line breaks.
    pub fn byte(name: &str) -> Result<Option<u8>> {
        let hex =
            || name.strip_prefix("\\x").filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let byte = match name {
            "" | "none" => return Ok(None),
            "comma" => b',',
            "tab" | "\\t" => b'\t',
            "semicolon" => b';',
            "pipe" => b'|',
            "space" => b' ',
            "quote" => b'"',
            "apostrophe" => b'\'',
            "backslash" => b'\\',
            "hash" => b'#',
            _ => match (name.as_bytes(), hex()) {
                ([byte], _) if byte.is_ascii() => *byte,
                (_, Some(byte)) if byte.is_ascii() => byte,
                _ => {
                    let message = format!(
                        "`{name}` is not a character of a CSV dialect; use one ASCII character, a name such as `tab`, or an escape such as `\\x1f`"
                    );
                    return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
                }
            },
        };
        if matches!(byte, b'\n' | b'\r') {
            return Err(Error::new(
                biscuit_core::codes::INVALID_ARGUMENTS,
                "a line break separates CSV records and cannot have another meaning; choose another character",
            ));
        }
        Ok(Some(byte))
    }

    /// Sets the delimiter by the name of a file, if no delimiter is set.
    pub fn of_file(mut self, file: &str) -> Self {
        let plain = without_packing(file);
        let default = if plain.to_ascii_lowercase().ends_with(".tsv") { b'\t' } else { b',' };
        self.delimiter.get_or_insert(default);
        self
    }

    /// Checks that no character has two meanings.
    ///
    /// # Errors
    /// `InvalidArguments` if a character has two meanings.
    pub fn check(&self) -> Result<()> {
        // Without a delimiter, the name of the file chooses one of these two.
        let delimiters = self.delimiter.map_or(vec![b',', b'\t'], |delimiter| vec![delimiter]);
        let all: Vec<u8> =
            delimiters.into_iter().chain([self.quote, self.escape, self.comment].into_iter().flatten()).collect();
        // A quote as the escape character is the same as a doubled quote.
        let doubled = self.escape.is_some() && self.escape == self.quote;
        let twice = (1..all.len()).find(|at| all[..*at].contains(&all[*at])).filter(|_| !doubled);
        match twice {
            Some(at) => {
                let message = format!(
                    "`{}` has two meanings in the CSV dialect; choose different characters",
                    char::from(all[at]).escape_default()
                );
                Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message))
            }
            None => Ok(()),
        }
    }

    /// Returns a reader of records with any number of cells, in which the first line is an ordinary record.
    pub fn reader(&self) -> csv::ReaderBuilder {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true);
        builder.delimiter(self.delimiter.unwrap_or(b',')).quoting(self.quote.is_some()).comment(self.comment);
        builder.quote(self.quote.unwrap_or(b'"')).escape(self.escape.filter(|escape| Some(*escape) != self.quote));
        builder
    }

    /// Formats a line of CSV, without a line break at the end.
    pub fn format_line<'a>(&self, cells: impl IntoIterator<Item = &'a str>) -> String {
        let mut writer = csv::WriterBuilder::new();
        writer.delimiter(self.delimiter.unwrap_or(b','));
        match self.quote {
            Some(quote) => writer.quote(quote),
            None => writer.quote_style(csv::QuoteStyle::Never),
        };
        let mut writer = writer.from_writer(Vec::new());
        let written = writer.write_record(cells).and_then(|()| Ok(writer.flush()?));
        let bytes = written.ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default().trim_end_matches('\n').to_owned()
    }
}

/// Returns the name of a file without the extension of its compression.
pub(crate) fn without_packing(file: &str) -> &str {
    let packed = [".gz", ".zst", ".bz2"].iter().find_map(|ending| {
        let at = file.len().checked_sub(ending.len())?;
        file.get(at..).filter(|end| end.eq_ignore_ascii_case(ending)).map(|_| &file[..at])
    });
    packed.unwrap_or(file)
}

/// State of the quote checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CsvState {
    /// At the beginning of a record.
    Record,
    /// At the beginning of a cell.
    Cell,
    /// In a cell without quotes.
    Plain,
    /// Inside of quotes.
    Quoted,
    /// Inside of quotes, after the escape character.
    Escaped,
    /// After a quote that ends the cell or is the first of a doubled quote; the next byte decides.
    Quote,
    /// In a comment.
    Comment,
}

/// Check of the quotes of CSV, which also finds where records end.
///
/// CSV parsers silently accept two mistakes: a quote that is never closed, which turns all further rows into one
/// cell, and text after a closing quote. Both are errors here.
#[derive(Debug)]
pub(crate) struct CsvQuotes {
    file: String,
    dialect: CsvDialect,
    at: CsvState,
    line: u64,
    /// Line in which the last quote opened.
    opened: u64,
}

impl CsvQuotes {
    /// Begins the check of a file; `file` is its name in messages.
    pub(crate) fn new(file: &str, dialect: CsvDialect) -> Self {
        Self { file: file.to_owned(), dialect, at: CsvState::Record, line: 1, opened: 0 }
    }

    /// Checks the next part of the text. Returns where the last record in it ends, after its line break.
    ///
    /// # Errors
    /// `InvalidCsv` with the row.
    pub(crate) fn check(&mut self, text: &[u8]) -> Result<Option<usize>> {
        let d = self.dialect;
        let delimiter = d.delimiter.unwrap_or(b',');
        let escape = d.escape.filter(|escape| Some(*escape) != d.quote);
        if let Some(end) = self.check_plain(text, delimiter) {
            return Ok(Some(end));
        }
        let (mut at, mut end, mut opened) = (0, None, None);
        while at < text.len() {
            // Bytes that cannot change the state are skipped at once.
            let skipped = match self.at {
                CsvState::Plain => memchr::memchr3(delimiter, b'\n', b'\r', &text[at..]),
                CsvState::Comment => memchr::memchr(b'\n', &text[at..]),
                CsvState::Quoted => match (d.quote, escape) {
                    (Some(quote), Some(escape)) => memchr::memchr2(quote, escape, &text[at..]),
                    (Some(quote), None) => memchr::memchr(quote, &text[at..]),
                    (None, _) => None,
                },
                _ => Some(0),
            };
            let Some(skipped) = skipped else { break };
            at += skipped;
            let byte = text[at];
            let is = |of: Option<u8>| of == Some(byte);
            let begin = || match byte {
                b'\n' | b'\r' => CsvState::Record,
                byte if byte == delimiter => CsvState::Cell,
                _ => CsvState::Plain,
            };
            self.at = match self.at {
                CsvState::Comment => CsvState::Record,
                CsvState::Record if is(d.comment) => CsvState::Comment,
                CsvState::Record | CsvState::Cell if is(d.quote) => {
                    opened = Some(at);
                    CsvState::Quoted
                }
                CsvState::Record | CsvState::Cell | CsvState::Plain => begin(),
                CsvState::Quoted if is(escape) => CsvState::Escaped,
                CsvState::Quoted if is(d.quote) => CsvState::Quote,
                CsvState::Quoted | CsvState::Escaped => CsvState::Quoted,
                // The second quote of a doubled one.
                CsvState::Quote if is(d.quote) => CsvState::Quoted,
                CsvState::Quote => match begin() {
                    CsvState::Plain => {
                        let what = "there is text after a closing quote";
                        return Err(self.malformed_csv(what, self.line + lines_in(&text[..at])));
                    }
                    next => next,
                },
            };
            at += 1;
            // A part does not end between the bytes of a CRLF: the line feed would become an empty line of the next part.
            let in_line_break = byte == b'\r' && text.get(at).is_none_or(|next| *next == b'\n');
            if self.at == CsvState::Record && !in_line_break {
                end = Some(at);
            }
        }
        if let Some(opened) = opened {
            self.opened = self.line + lines_in(&text[..opened]);
        }
        self.line += lines_in(text);
        Ok(end)
    }

    /// Checks a part without quotes and comments, which has nothing but the ends of records. Returns `None` for any
    /// other part.
    fn check_plain(&mut self, text: &[u8], delimiter: u8) -> Option<usize> {
        let is_outside = matches!(self.at, CsvState::Record | CsvState::Cell | CsvState::Plain);
        let has = |byte: Option<u8>| byte.is_some_and(|byte| memchr::memchr(byte, text).is_some());
        if !is_outside || has(self.dialect.quote) || has(self.dialect.comment) {
            return None;
        }
        let end = memchr::memrchr(b'\n', text)? + 1;
        self.line += lines_in(text);
        self.at = match text.last()? {
            b'\n' | b'\r' => CsvState::Record,
            byte if *byte == delimiter => CsvState::Cell,
            _ => CsvState::Plain,
        };
        Some(end)
    }

    /// Ends the check at the end of the text.
    ///
    /// # Errors
    /// `InvalidCsv` for a quote that is not closed.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.at {
            CsvState::Quoted | CsvState::Escaped => {
                let what = "the quote that opens in this row is not closed until the end of the file";
                Err(self.malformed_csv(what, self.opened))
            }
            _ => Ok(()),
        }
    }

    /// Returns the first record of a text, with the comments before it.
    pub(crate) fn first_record(&self, text: &[u8]) -> Arc<str> {
        let mut reader = self.dialect.reader().from_reader(text);
        // A record that cannot be read is an error of the chunk that begins with it.
        let end = reader.read_byte_record(&mut csv::ByteRecord::new()).map_or(0, |_| reader.position().byte());
        let record = text.get(..usize::try_from(end).unwrap_or(usize::MAX)).unwrap_or(text);
        String::from_utf8_lossy(record).into()
    }

    fn malformed_csv(&self, what: &str, line: u64) -> Error {
        let hint = "if the file escapes quotes or does not use them, set the CSV options `escape` or `quote` (`quote = \"none\"`)";
        Error::new(codes::INVALID_CSV, format!("{what}; {hint}")).at(&self.file, line)
    }
}

fn lines_in(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Reader that passes CSV through and checks its quotes.
#[derive(Debug)]
pub struct CheckedCsv<R> {
    text: R,
    quotes: CsvQuotes,
}

impl<R: Read> CheckedCsv<R> {
    /// Creates a reader of the text of a file; `file` is its name in messages. The `io::Error`s of the reader contain
    /// `InvalidCsv` with the row.
    pub fn new(file: &str, text: R, dialect: CsvDialect) -> Self {
        Self { text, quotes: CsvQuotes::new(file, dialect) }
    }
}

impl<R: Read> Read for CheckedCsv<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(into)?;
        if read == 0 && !into.is_empty() {
            self.quotes.finish().map_err(io::Error::other)?;
        }
        self.quotes.check(&into[..read]).map_err(io::Error::other)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str, dialect: CsvDialect) -> Option<(String, u64)> {
        // In parts of every size, since the state continues from part to part.
        let check = |size: usize| {
            let mut quotes = CsvQuotes::new("a.csv", dialect);
            text.as_bytes()
                .chunks(size)
                .try_for_each(|part| quotes.check(part).map(drop))
                .and_then(|()| quotes.finish())
        };
        let all: Vec<_> = (1..=text.len().max(1)).map(|size| check(size).map_err(|e| e.to_string())).collect();
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        let e = check(text.len().max(1)).err()?;
        assert_eq!((e.code(), e.file()), ("InvalidCsv", Some("a.csv")));
        Some((e.message().split(';').next()?.to_owned(), e.row()?))
    }

    #[test]
    fn closed_quotes_that_end_their_cell_are_accepted() {
        let defaults = CsvDialect::default();
        for text in [
            "",
            "a",
            "a,b\n",
            "\"a\"",
            "\"a\",b\r\n\"\"\n",
            "\"a\"\"b\"\n",
            "\"a\n\nb\",c\n",
            "5\" pipe,x\n",
            "\"\"\"\"\n",
            "a,\"\"",
        ] {
            assert_eq!(wrong(text, defaults), None, "{text:?}");
        }
        let spark = CsvDialect { escape: Some(b'\\'), comment: Some(b'#'), delimiter: Some(b';'), ..defaults };
        for text in ["\"a\\\"b\";c\n", "\"\\\\\";c\n", "# it's \"open\n\"a\";b\n", "\"a\"\"b\"\n"] {
            assert_eq!(wrong(text, spark), None, "{text:?}");
        }
        assert_eq!(wrong("\"a\n\"b\"c\n", CsvDialect { quote: None, ..defaults }), None);
    }

    #[test]
    fn unclosed_quote_is_reported_with_the_row_in_which_it_opens() {
        let (message, row) =
            wrong("id,name\n1,Ann\n2,\"5 inch\n3,Cy\n4,Di\n", CsvDialect::default()).expect("the quote is not closed");
        assert!(message.contains("not closed") && row == 3, "{message} {row}");
        let escaped = CsvDialect { escape: Some(b'\\'), ..CsvDialect::default() };
        assert_eq!(wrong("a,\"b\\\"", escaped).map(|(_, row)| row), Some(1));
        assert_eq!(wrong("\"", CsvDialect::default()).map(|(_, row)| row), Some(1));
    }

    #[test]
    fn text_after_a_closing_quote_is_reported() {
        for (text, row) in [("a\n\"b\" ,c\n", 2), ("\"She said \\\"yes\\\"\"\n", 1), ("\"a\nb\"c", 2)] {
            let (message, at) = wrong(text, CsvDialect::default()).expect("there is text after the quote");
            assert!(message.contains("text after a closing quote") && at == row, "{text:?}: {message} {at}");
        }
    }

    #[test]
    fn characters_of_a_dialect_are_parsed_by_name() {
        let byte = |name| CsvDialect::byte(name).map_err(|e| e.code());
        assert_eq!(
            ["tab", "\\t", "\t", "\\x01", "pipe", ";"].map(byte).map(Result::ok),
            [9, 9, 9, 1, 124, 59].map(|b| Some(Some(b)))
        );
        assert_eq!(
            (byte("none"), byte(""), byte("ab"), byte("ä"), byte("\n")),
            (Ok(None), Ok(None), Err("InvalidArguments"), Err("InvalidArguments"), Err("InvalidArguments"))
        );
        let twice = CsvDialect { delimiter: Some(b'"'), ..CsvDialect::default() };
        assert_eq!(twice.check().unwrap_err().code(), "InvalidArguments");
        for byte in [b',', b'\t'] {
            let ambiguous = CsvDialect { quote: Some(byte), ..CsvDialect::default() };
            assert_eq!(ambiguous.check().unwrap_err().code(), "InvalidArguments");
        }
        assert!(CsvDialect { escape: Some(b'"'), ..CsvDialect::default() }.check().is_ok());
        assert_eq!(CsvDialect::default().of_file("a/B.TSV.gz").delimiter, Some(b'\t'));
    }
}
