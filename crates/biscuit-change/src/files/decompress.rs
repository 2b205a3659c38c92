//! Decompression of text files with verification of their end, and limits that stop decompression bombs.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, RecordBatch};
use biscuit_core::{Error, Result};

use crate::codes;

/// Default maximum number of bytes of text for each byte of a compressed file, if the text has more than
/// [`RATIO_FROM`] bytes. Real data is rarely compressed to less than a hundredth of its size.
const MAX_RATIO: u64 = 250;

/// Number of bytes of text up to which any ratio is accepted.
const RATIO_FROM: u64 = 64 << 20;

/// Compression of a text file, detected by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileCompression {
    /// Not compressed.
    None,
    /// Gzip with one or several members.
    Gzip,
    /// Zstandard with one or several frames.
    Zstd,
    /// Bzip2 with one or several streams.
    Bzip2,
}

impl FileCompression {
    /// Detects the compression of a file from its first bytes; four bytes are enough.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// Returns a reader that decompresses the text.
    ///
    /// The reader verifies the end: checksums and lengths are checked, and any bytes after them must be another
    /// member or frame. A truncated file is therefore an error while reading.
    ///
    /// # Errors
    /// An error of the system if there is no memory for a decoder.
    pub fn reader<'a>(self, packed: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        })
    }
}

/// Creates the error for a compressed file that cannot be decompressed.
pub fn decompression_error(file: &str, e: io::Error) -> Error {
    let message = match e.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed text ends too early; the file was truncated",
        _ => "the compressed text is damaged, or other bytes follow it; the file was truncated or changed",
    };
    Error::new(codes::TRUNCATED_INPUT, message).in_file(file).with_source(e)
}

/// Maximum size of a text after decompression.
#[derive(Debug)]
pub(crate) struct TextLimit {
    file: Arc<str>,
    maximum: u64,
    what: String,
}

impl TextLimit {
    /// Creates the limit of a file of `size` bytes. The maximum is `max_decompressed`; by default there is none for
    /// plain text, and for compressed text it is 250 times `size`, or 64 MiB if that is more.
    pub(crate) fn new(file: &Arc<str>, size: u64, compression: FileCompression, max_decompressed: Option<u64>) -> Self {
        Self::with_ratio_from(file, size, compression, max_decompressed, RATIO_FROM)
    }

    fn with_ratio_from(
        file: &Arc<str>,
        size: u64,
        compression: FileCompression,
        max_decompressed: Option<u64>,
        ratio_from: u64,
    ) -> Self {
        let (maximum, what) = match (max_decompressed, compression) {
            (Some(maximum), _) => (maximum, format!("{maximum} bytes")),
            (None, FileCompression::None) => (u64::MAX, String::new()),
            (None, _) => {
                let maximum = size.saturating_mul(MAX_RATIO).max(ratio_from);
                (maximum, format!("{maximum} bytes, the limit for a compressed file of {size} bytes"))
            }
        };
        Self { file: file.clone(), maximum, what }
    }

    /// Returns a reader of the text. Its `io::Error` contains `TooLarge` if the text has more bytes than allowed.
    pub(crate) fn apply<R: Read>(self, text: R) -> LimitedText<R> {
        LimitedText { text, left: self.maximum, limit: self }
    }
}

/// Reader of a text with a maximum size.
#[derive(Debug)]
pub(crate) struct LimitedText<R> {
    text: R,
    left: u64,
    limit: TextLimit,
}

impl<R> LimitedText<R> {
    /// Returns the error of a text with more bytes than allowed.
    fn too_large(&self) -> io::Error {
        let TextLimit { file, what, .. } = &self.limit;
        io::Error::other(too_large(file, &format!("the text has more than {what}")))
    }
}

impl<R: Read> Read for LimitedText<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(into)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| self.too_large())?;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for LimitedText<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 && !self.text.fill_buf()?.is_empty() {
            return Err(self.too_large());
        }
        let ready = self.text.fill_buf()?;
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(ready.len());
        Ok(&ready[..allowed])
    }

    fn consume(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
        self.text.consume(bytes);
    }
}

fn too_large(file: &str, what: &str) -> Error {
    let message = format!(
        "{what}; if the file is valid, raise the limit with --max-decompressed or `max_decompressed` of the source"
    );
    Error::new(biscuit_schema::codes::TOO_LARGE, message).in_file(file)
}

/// Default maximum number of bytes of decoded rows for each byte of a file, if the rows have more than [`ROWS_FROM`]
/// bytes. The ratio is larger than for text, because a dictionary stores a value that all rows share only once.
const ROWS_RATIO: u64 = 2000;

/// Number of bytes of decoded rows up to which any ratio is accepted.
const ROWS_FROM: u64 = 256 << 20;

/// Counts the bytes of the rows that are decoded from a file, so that a small file that decodes to huge rows is an
/// error before it exhausts the memory. Clones count together.
#[derive(Debug, Clone)]
pub struct DecodedRows {
    file: Arc<str>,
    bytes: Arc<AtomicU64>,
    maximum: u64,
    is_default: bool,
}

impl DecodedRows {
    /// Creates a counter for a file of `size` bytes. The maximum is `max_decompressed`; by default it is 256 MiB, or
    /// 2,000 times `size` if that is more.
    pub fn new(file: &Arc<str>, size: u64, max_decompressed: Option<u64>) -> Self {
        let maximum = max_decompressed.unwrap_or(size.saturating_mul(ROWS_RATIO).max(ROWS_FROM));
        Self { file: file.clone(), bytes: Arc::default(), maximum, is_default: max_decompressed.is_none() }
    }

    /// Adds the bytes of some rows.
    ///
    /// # Errors
    /// `TooLarge` if all rows so far have more bytes than the maximum.
    pub fn add(&self, rows: &RecordBatch) -> Result<()> {
        let sizes = rows.columns().iter().filter_map(|column| column.to_data().get_slice_memory_size().ok());
        let bytes = sizes.sum::<usize>() as u64;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.maximum {
            return Ok(());
        }
        let times =
            if self.is_default { format!(", and {ROWS_RATIO} times the bytes of the file") } else { String::new() };
        Err(too_large(&self.file, &format!("the rows have more than {} bytes{times}", self.maximum)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::files::chunks::read_error;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
        w.write_all(text).unwrap();
        w.finish().unwrap()
    }

    fn packed(text: &[u8]) -> [Vec<u8>; 3] {
        let mut bzip2 = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::best());
        bzip2.write_all(text).unwrap();
        [gzip(text), zstd::encode_all(text, 0).unwrap(), bzip2.finish().unwrap()]
    }

    fn read(file: &[u8], max_decompressed: Option<u64>, ratio_from: u64) -> Result<Vec<u8>> {
        let (name, size) = (Arc::from("a.gz"), file.len() as u64);
        let compression = FileCompression::detect(file);
        let limit = TextLimit::with_ratio_from(&name, size, compression, max_decompressed, ratio_from);
        let mut text = Vec::new();
        let opened = compression.reader(file).map_err(|e| read_error(&name, e))?;
        match limit.apply(opened).read_to_end(&mut text) {
            Ok(_) => Ok(text),
            Err(e) => Err(read_error(&name, e)),
        }
    }

    fn decompress(file: &[u8]) -> Result<Vec<u8>> {
        read(file, None, RATIO_FROM)
    }

    fn code(file: &[u8]) -> &'static str {
        decompress(file).unwrap_err().code()
    }

    #[test]
    fn consecutive_members_and_frames_are_one_text() {
        for one in packed(b"id,v\n1,a\n") {
            assert_eq!(decompress(&one).unwrap(), b"id,v\n1,a\n");
            assert_eq!(decompress(&one.repeat(2)).unwrap(), b"id,v\n1,a\nid,v\n1,a\n");
        }
        assert_eq!(decompress(&gzip(b"")).unwrap(), b"");
    }

    #[test]
    fn compressed_text_truncated_at_any_byte_is_an_error() {
        for whole in packed(&(0..2000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()) {
            for cut in 4..whole.len() {
                assert_eq!(code(&whole[..cut]), "TruncatedInput", "the first {cut} of {} bytes", whole.len());
            }
            assert_eq!(code(&[&whole, &b"more"[..]].concat()), "TruncatedInput");
        }
        let mut checksum = gzip(b"text");
        let at = checksum.len() - 5;
        checksum[at] ^= 1;
        assert_eq!(code(&checksum), "TruncatedInput");
    }

    #[test]
    fn text_much_larger_than_its_compressed_size_is_refused() {
        let spaces = vec![b' '; 1 << 20];
        for packed in packed(&spaces) {
            let e = read(&packed, None, 1000).map(drop).unwrap_err();
            assert_eq!((e.code(), e.file()), ("TooLarge", Some("a.gz")), "{} bytes", packed.len());
            assert_eq!(decompress(&packed).unwrap().len(), 1 << 20);
            assert_eq!(read(&packed, Some(1 << 20), 1000).unwrap().len(), 1 << 20);
            assert_eq!(read(&packed, Some((1 << 20) - 1), RATIO_FROM).unwrap_err().code(), "TooLarge");
        }
        assert_eq!(read(&spaces, None, 1000).unwrap().len(), 1 << 20, "plain text has no limit");
        assert_eq!(read(&spaces, Some(1000), 1000).unwrap_err().code(), "TooLarge");
    }
}
