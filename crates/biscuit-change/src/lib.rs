#![doc = include_str!("../README.md")]

mod avro;
pub mod codes;
mod columnar;
mod csv;
mod debezium;
mod dms;
mod files;
mod format;
pub mod internal;
mod json;
mod records;
mod rows;
mod setters;
mod tables;
mod values;

pub use biscuit_merge::{
    AbsentColumns, BadRows, ChangeBatch, ChangeColumns, ChangeOp, KeyChange, KeyChangeKind, LogServer, OpMap,
    PLACEHOLDER, ParsedOp, RawRows, RefusedRecord, parse_op, row_changes,
};
pub use csv::dialect::CsvDialect;
pub use debezium::options::DebeziumOptions;
pub use debezium::reader::DebeziumReader;
pub use dms::options::DmsOptions;
pub use dms::reader::DmsReader;
pub use files::encoding::TextEncoding;
pub use format::{ChangeFormat, FormatSettings};
pub use records::change_records::ChangeRecords;
pub use rows::reader::{RowsOptions, RowsReader};
pub use tables::name::SourceTable;
pub use tables::reader::{TableChanges, TableRecordFormat, TablesReader};
