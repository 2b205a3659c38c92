//! Decompression of the blocks of Avro files.

use std::borrow::Cow;
use std::io::Read;

/// Maximum number of bytes of a decompressed block. Writers make blocks of some kilobytes to a few megabytes.
pub(crate) const MAX_BLOCK: u64 = 256 << 20;

/// Compression of the blocks of a file, `avro.codec` in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AvroCodec {
    Null,
    Deflate,
    Snappy,
    Zstd,
    Bzip2,
    Xz,
}

/// Reason why a block cannot be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecompressError {
    /// The bytes are invalid for the codec of the file.
    Damaged,
    /// The decompressed block is larger than the maximum.
    TooLarge,
}

impl AvroCodec {
    /// Returns the codec with this name; without a name, blocks are not compressed.
    pub(crate) fn from_name(name: Option<&[u8]>) -> Option<Self> {
        Some(match name {
            None | Some(b"null" | b"") => Self::Null,
            Some(b"deflate") => Self::Deflate,
            Some(b"snappy") => Self::Snappy,
            Some(b"zstandard") => Self::Zstd,
            Some(b"bzip2") => Self::Bzip2,
            Some(b"xz") => Self::Xz,
            Some(_) => return None,
        })
    }

    /// Decompresses a block of at most `maximum` bytes. At most one byte more than that is ever in memory.
    pub(crate) fn decompress(self, block: &[u8], maximum: u64) -> Result<Cow<'_, [u8]>, DecompressError> {
        let all = |packed: &mut dyn Read| {
            let mut out = Vec::new();
            packed.take(maximum + 1).read_to_end(&mut out).map_err(|_| DecompressError::Damaged)?;
            if out.len() as u64 > maximum { Err(DecompressError::TooLarge) } else { Ok(Cow::Owned(out)) }
        };
        match self {
            Self::Null if block.len() as u64 > maximum => Err(DecompressError::TooLarge),
            Self::Null => Ok(Cow::Borrowed(block)),
            Self::Deflate => all(&mut flate2::bufread::DeflateDecoder::new(block)),
            Self::Snappy => decompress_snappy(block, maximum),
            Self::Zstd => all(&mut zstd::Decoder::with_buffer(block).map_err(|_| DecompressError::Damaged)?),
            Self::Bzip2 => all(&mut bzip2::bufread::BzDecoder::new(block)),
            Self::Xz => all(&mut liblzma::bufread::XzDecoder::new(block)),
        }
    }
}

/// Decompresses a Snappy block, which is followed by the CRC-32 of the decompressed bytes. The declared length is
/// checked before memory is allocated for it.
fn decompress_snappy(block: &[u8], maximum: u64) -> Result<Cow<'_, [u8]>, DecompressError> {
    let (packed, check) = block.split_last_chunk::<4>().ok_or(DecompressError::Damaged)?;
    let size = snap::raw::decompress_len(packed).map_err(|_| DecompressError::Damaged)?;
    if size as u64 > maximum {
        return Err(DecompressError::TooLarge);
    }
    let out = snap::raw::Decoder::new().decompress_vec(packed).map_err(|_| DecompressError::Damaged)?;
    let same = crc32fast::hash(&out) == u32::from_be_bytes(*check);
    if same { Ok(Cow::Owned(out)) } else { Err(DecompressError::Damaged) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(codec: AvroCodec, content: &[u8]) -> Vec<u8> {
        match codec {
            AvroCodec::Null => content.to_vec(),
            AvroCodec::Deflate => {
                let mut w = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::fast());
                w.write_all(content).unwrap();
                w.finish().unwrap()
            }
            AvroCodec::Snappy => {
                let mut out = snap::raw::Encoder::new().compress_vec(content).unwrap();
                out.extend_from_slice(&crc32fast::hash(content).to_be_bytes());
                out
            }
            AvroCodec::Zstd => zstd::encode_all(content, 0).unwrap(),
            AvroCodec::Bzip2 => {
                let mut w = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::fast());
                w.write_all(content).unwrap();
                w.finish().unwrap()
            }
            AvroCodec::Xz => {
                let mut w = liblzma::write::XzEncoder::new(vec![], 0);
                w.write_all(content).unwrap();
                w.finish().unwrap()
            }
        }
    }

    const ALL: [AvroCodec; 6] =
        [AvroCodec::Null, AvroCodec::Deflate, AvroCodec::Snappy, AvroCodec::Zstd, AvroCodec::Bzip2, AvroCodec::Xz];

    #[test]
    fn blocks_of_every_codec_are_unpacked_up_to_the_limit() {
        let content: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
        for codec in ALL {
            let packed = packed(codec, &content);
            assert_eq!(codec.decompress(&packed, 40_000).as_deref(), Ok(content.as_slice()), "{codec:?}");
            assert_eq!(codec.decompress(&packed, 39_999), Err(DecompressError::TooLarge), "{codec:?}");
        }
    }

    #[test]
    fn length_declared_by_snappy_allocates_no_memory() {
        // 2^32 - 1 bytes.
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0];
        assert_eq!(AvroCodec::Snappy.decompress(&huge, MAX_BLOCK), Err(DecompressError::TooLarge));
        assert_eq!(AvroCodec::Snappy.decompress(&[0; 3], MAX_BLOCK), Err(DecompressError::Damaged));
    }
}
