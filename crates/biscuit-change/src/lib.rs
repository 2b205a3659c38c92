#![doc = include_str!("../README.md")]

mod avro_header;
mod building;
mod cell;
mod changes;
mod codec;
mod columnar;
mod connect;
mod csv_rows;
mod debezium;
mod dms;
mod dms_file;
mod dms_rows;
mod envelope;
mod infer;
mod json;
mod op;
mod packed;
mod placeholder;
mod refused;
mod row_changes;
mod rows;
mod source_field;
mod table_name;
mod tables;
mod text;
mod units;

pub use changes::{ChangeBatch, Changes, Completeness, Move, MoveKind};
pub use debezium::{DebeziumOptions, DebeziumReader};
pub use dms::{DmsOptions, DmsReader};
pub use op::{Op, ParsedOp, parse_op};
pub use placeholder::PLACEHOLDER;
pub use refused::{BadRows, RawRows, Refused};
pub use row_changes::row_changes;
pub use rows::{RowsOptions, RowsReader};
pub use table_name::TableName;
pub use tables::{OfTable, TableFormat, TablesReader};
