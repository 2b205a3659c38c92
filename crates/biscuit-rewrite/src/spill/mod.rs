//! Rows that are kept until they are written, in memory or on disk.

pub(crate) mod buffered_rows;
pub(crate) mod columnar;
pub(crate) mod rows_writer;
