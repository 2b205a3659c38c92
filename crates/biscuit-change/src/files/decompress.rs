use std::io::{self, BufRead, Read};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use biscuit_core::{Error, Result, catch_panic};

/// Bytes of a text file that is held in memory, unpacked.
const MAX_TEXT: u64 = 4 << 30;

/// Bytes of unpacked text for each byte of the file, where there are more than [`RATIO_FROM`]. Text that somebody means is seldom packed to
/// less than a hundredth of its size.
const MAX_RATIO: u64 = 250;

/// Bytes up to which any ratio is fine.
const RATIO_FROM: u64 = 64 << 20;

/// How a text is packed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileCompression {
    /// It is not.
    None,
    /// By gzip: one member, or several behind one another.
    Gzip,
    /// By zstd: one frame, or several.
    Zstd,
    /// By bzip2: one stream, or several.
    Bzip2,
}

impl FileCompression {
    /// That of a file which begins like this; four bytes are enough.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// The text, unpacked while it is read. It ends only where all of it was read: checksums and lengths at the end are checked, and what
    /// follows has to be another member or frame.
    ///
    /// # Errors
    /// Those of the system, if there is no memory for a decoder.
    pub fn reader<'a>(self, packed: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        })
    }
}

/// The error for a packed file that cannot be unpacked.
pub fn unpacking_failed(file: &str, e: io::Error) -> Error {
    let message = match e.kind() {
        io::ErrorKind::UnexpectedEof => "the packed text ends too early: the file was cut off",
        _ => "the packed text is damaged, or something else follows it: the file was cut off or changed",
    };
    Error::data("TruncatedInput", message).in_file(file).with_source(e)
}

/// All of a text, unpacked.
pub(crate) fn unpack(file: &str, bytes: &[u8], max_decompressed: Option<u64>) -> Result<Vec<u8>> {
    unpack_to(file, bytes, max_decompressed, RATIO_FROM)
}

fn unpack_to(file: &str, bytes: &[u8], max_decompressed: Option<u64>, ratio_from: u64) -> Result<Vec<u8>> {
    let packing = FileCompression::of(bytes);
    let maximum = match (max_decompressed, packing) {
        (Some(maximum), _) => maximum,
        (None, FileCompression::None) => MAX_TEXT,
        (None, _) => MAX_TEXT.min((bytes.len() as u64).saturating_mul(MAX_RATIO).max(ratio_from)),
    };
    let read = catch_panic(|| {
        let mut out = Vec::new();
        packing.reader(bytes)?.take(maximum.saturating_add(1)).read_to_end(&mut out).map(|_| out)
    });
    let out = match read {
        Ok(read) => read.map_err(|e| unpacking_failed(file, e))?,
        Err(e) => return Err(Error::data("TruncatedInput", "the packed text is damaged").in_file(file).with_source(e)),
    };
    if out.len() as u64 <= maximum {
        return Ok(out);
    }
    let what = match max_decompressed {
        None if maximum < MAX_TEXT => format!("{MAX_RATIO} times the bytes of the packed file"),
        _ => format!("{maximum} bytes"),
    };
    Err(too_large(file, &format!("the text has more than {what}")))
}

fn too_large(file: &str, what: &str) -> Error {
    let message = format!(
        "{what}; if that is meant, say the most that a file may have (--max-decompressed, or `max_decompressed` of a source)"
    );
    Error::data("TooLarge", message).in_file(file)
}

/// Bytes of decoded rows for each byte of a file, where there are more than [`ROWS_FROM`]: a value that all rows have is in it once.
const ROWS_RATIO: u64 = 2000;

/// Bytes of decoded rows up to which any ratio is fine.
const ROWS_FROM: u64 = 256 << 20;

/// Counts the bytes of the rows that a file is decoded to: a small file that becomes very many of them is an error and not the end of the memory.
#[derive(Debug, Clone)]
pub struct DecodedRows {
    file: Arc<str>,
    bytes: u64,
    maximum: u64,
    is_default: bool,
}

impl DecodedRows {
    /// Of a file of `size` bytes. Without `max_decompressed` it may have 256 MiB of rows, or 2,000 times its bytes if that is more.
    pub fn new(file: &Arc<str>, size: u64, max_decompressed: Option<u64>) -> Self {
        let maximum = max_decompressed.unwrap_or(size.saturating_mul(ROWS_RATIO).max(ROWS_FROM));
        Self { file: file.clone(), bytes: 0, maximum, is_default: max_decompressed.is_none() }
    }

    /// Counts some rows.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let sizes = rows.columns().iter().filter_map(|column| column.to_data().get_slice_memory_size().ok());
        self.bytes = self.bytes.saturating_add(sizes.sum::<usize>() as u64);
        if self.bytes <= self.maximum {
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

    fn code(bytes: &[u8]) -> &'static str {
        unpack("a.gz", bytes, None).map(drop).unwrap_err().code()
    }

    #[test]
    fn members_and_frames_behind_one_another_are_one_text() {
        for one in packed(b"id,v\n1,a\n") {
            assert_eq!(unpack("a", &one, None).unwrap(), b"id,v\n1,a\n");
            assert_eq!(unpack("a", &one.repeat(2), None).unwrap(), b"id,v\n1,a\nid,v\n1,a\n");
        }
        assert_eq!(unpack("a", &gzip(b""), None).unwrap(), b"");
    }

    #[test]
    fn packed_text_that_was_cut_off_anywhere_is_an_error() {
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
    fn text_of_many_times_its_packed_size_is_refused() {
        let spaces = vec![b' '; 1 << 20];
        for packed in packed(&spaces) {
            let e = unpack_to("a.gz", &packed, None, 1000).map(drop).unwrap_err();
            assert_eq!((e.code(), e.file()), ("TooLarge", Some("a.gz")), "{} bytes", packed.len());
            assert_eq!(unpack("a", &packed, None).unwrap().len(), 1 << 20);
            assert_eq!(unpack_to("a", &packed, Some(1 << 20), 1000).unwrap().len(), 1 << 20);
            assert_eq!(unpack("a", &packed, Some((1 << 20) - 1)).unwrap_err().code(), "TooLarge");
        }
    }
}
