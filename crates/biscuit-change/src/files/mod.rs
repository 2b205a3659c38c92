//! Text of files: decompressed, decoded, and divided into chunks of whole records.

pub(crate) mod chunks;
pub(crate) mod decompress;
pub(crate) mod encoding;
pub(crate) mod lines;
pub(crate) mod parts;
