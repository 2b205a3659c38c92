//! Decompression and decoding of the bytes of a file to text.

pub(crate) mod decompress;
pub(crate) mod encoding;
