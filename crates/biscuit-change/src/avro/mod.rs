//! Reading Avro object container files. Every block is verified before it is decoded.

pub(crate) mod chunks;
pub(crate) mod decompress;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod shape;
