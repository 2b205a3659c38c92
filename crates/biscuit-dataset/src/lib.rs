#![doc = include_str!("../README.md")]

pub mod codes;
mod dataset;
mod encryption;
mod engine_error;
mod files;
mod paths;
mod rows;
mod sink;
mod table_writer;
mod version;

pub use dataset::Dataset;
pub use encryption::file_encryption::{FileEncryption, FileKey, FileKeys, FilePart};
pub use encryption::keyring::reading;
pub use engine_error::{engine_error, parquet_error};
pub use files::data_file::{DataFile, OpenFile};
pub use files::guarded::decode_parquet;
pub use files::single::write_single;
pub use files::writer::{FileWriter, ParquetOptions, check_staged};
pub use paths::column::PathValue;
pub use paths::hive::{HIVE_NULL, check_partition_columns, escape, partition_values, unescape};
pub use paths::input_place::{check_input, split_glob};
pub use paths::location::{Location, OpenByUrl, OpenLocation};
pub use paths::spelling::FolderSpelling;
pub use paths::template::PathTemplate;
pub use rows::{partition_folders, rows_without_folder};
pub use sink::TableSink;
pub use table_writer::{FileSizing, PartitionedWriter, TableWriter, WriteOptions};
pub use version::store::as_listed;
pub use version::table_version::{LAYER, TableVersion, WriteMode, refuse_raw};
