//! Avro object container files.

pub(crate) mod decompress;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod shape;
