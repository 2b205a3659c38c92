#![doc = include_str!("../README.md")]

pub mod codes;
mod dataset;
pub mod encryption;
mod engine_error;
mod files;
pub mod internal;
mod paths;
mod rows;
mod sink;
mod table_writer;
mod version;

pub use dataset::Dataset;
pub use files::data_file::{DataFile, OpenFile};
pub use files::single::write_single;
pub use files::writer::{FileWriter, ParquetOptions};
pub use paths::location::{Location, OpenLocation};
pub use paths::template::PathTemplate;
pub use sink::TableSink;
pub use table_writer::{FileSizing, PartitionedWriter, TableWriter, WriteOptions};
pub use version::table_version::{TableVersion, WriteMode};
