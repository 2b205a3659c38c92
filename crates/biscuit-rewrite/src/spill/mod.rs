//! Buffers rows in memory or on disk until they are written.

pub(crate) mod buffered_rows;
pub(crate) mod columnar;
pub(crate) mod files;
pub(crate) mod rows_writer;
