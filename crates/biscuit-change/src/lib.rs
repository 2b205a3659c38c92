#![doc = include_str!("../README.md")]

mod avro;
mod columnar;
mod csv;
mod debezium;
mod dms;
mod files;
mod json;
mod records;
mod rows;
mod setters;
mod tables;
mod values;

pub use columnar::rows::{FileRows, stored};
pub use csv::dialect::{CheckedCsv, CsvDialect};
pub use debezium::options::DebeziumOptions;
pub use debezium::placeholder::PLACEHOLDER;
pub use debezium::reader::DebeziumReader;
pub use dms::reader::{DmsOptions, DmsReader};
pub use files::decompress::{DecodedRows, FileCompression, unpacking_failed};
pub use files::encoding::{TextEncoding, Utf8Text};
pub use json::scan::{JsonLayout, JsonValues};
pub use records::change_records::{AbsentColumns, ChangeBatch, ChangeRecords, KeyChange, KeyChangeKind, LogServer};
pub use records::op::{ChangeOp, OpMap, ParsedOp, parse_op};
pub use records::refused::{BadRows, RawRows, RefusedRecord};
pub use rows::changes::row_changes;
pub use rows::reader::{RowsOptions, RowsReader};
pub use tables::name::SourceTable;
pub use tables::reader::{TableChanges, TableRecordFormat, TablesReader};
