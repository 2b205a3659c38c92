#![doc = include_str!("../README.md")]

mod dataset;
mod dictionary;
mod encrypted_table;
mod encryption;
mod engine_error;
mod file;
mod file_writer;
mod guarded;
mod guarded_source;
mod hive;
mod keyring;
mod location;
mod path_template;
mod provider;
mod reader;
mod rows;
mod single;
mod snapshot;
mod snapshot_store;
mod table_writer;

pub use dataset::Dataset;
pub use encryption::{Encryption, FileKey, FileKeys, FilePart};
pub use engine_error::{engine_error, parquet_error};
pub use file::{DataFile, OpenFile};
pub use file_writer::{FileWriter, ParquetOptions, check_staged};
pub use guarded::decode_parquet;
pub use hive::{HIVE_NULL, check_partition_columns, escape, partition_values, unescape};
pub use keyring::reading;
pub use location::{ByUrl, Location, OpenLocation};
pub use path_template::PathTemplate;
pub use rows::{align, conform, partition_folders};
pub use single::write_single;
pub use snapshot::{LAYER, Snapshot, WriteMode, refuse_raw};
pub use snapshot_store::as_listed;
pub use table_writer::{FileSizing, PartitionedWriter, TableWriter, WriteOptions};
