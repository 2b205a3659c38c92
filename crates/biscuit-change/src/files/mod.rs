//! From the bytes of a file to its text.

pub(crate) mod decompress;
pub(crate) mod encoding;
