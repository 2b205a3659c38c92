#![doc = include_str!("../README.md")]

mod avro;
#[cfg(feature = "parquet")]
mod calendar;
mod check;
mod cloudformation;
mod coerce;
mod column_type;
mod common_type;
mod compatibility;
mod comply;
mod contract;
mod contract_file;
mod convert;
mod fault;
mod glue;
mod hive_type;
mod impossible;
mod infer;
#[cfg(feature = "parquet")]
mod int96;
mod iso;
mod json_names;
mod limits;
mod merge_schemas;
mod nested;
mod parquet_footer;
#[cfg(feature = "parquet")]
mod parquet_pages;
mod reading;
mod rules;
mod scalar;
mod text_type;
mod thrift;
#[cfg(feature = "parquet")]
mod uuid;

#[cfg(feature = "parquet")]
pub use calendar::{differs_by_calendar, has_legacy_calendar, legacy_calendar};
pub use check::{CheckRule, CheckSeverity, CheckValue, ContractCheck};
pub use coerce::{
    CoercedColumn, CoercedRows, Coercion, CoercionReport, ColumnLosses, RefusedRow, coerce_column, default_values,
};
pub use column_type::{ColumnType, WireType, type_name};
pub use common_type::{common_type, plain_type, stored_type, written_type};
pub use compatibility::{Compatibility, ContractDifference, check_evolution, differences};
pub use comply::{CheckFinding, ContractCompliance};
pub use contract::{Contract, ContractColumn, DatasetLayer, DebeziumSettings};
pub use fault::ValueFault;
pub use glue::{PartitionProjection, TablePlace};
pub use hive_type::{HiveField, HiveType};
pub use impossible::impossible_values;
pub use infer::{InferredSchema, SchemaInference, TypeConflict};
#[cfg(feature = "parquet")]
pub use int96::{check_int96, int96_as_micros};
pub use iso::{iso_date, iso_date_time, iso_time};
pub use json_names::name_twice;
pub use limits::{MAX_DEPTH, MAX_FIELDS, check_size, check_type_size, is_too_deep, too_deep};
pub use merge_schemas::{check_names, column_index, merge_schemas};
pub use parquet_footer::check_parquet_footer;
#[cfg(feature = "parquet")]
pub use parquet_pages::{check_parquet_pages, parquet_rows_at_a_time};
pub use reading::{BytesInText, DecimalRounding, EpochUnit, ExtraColumns, OnError, ReadingRules, hex_bytes};
pub use rules::{NamingRule, apply_rules, default_rules};
pub use text_type::text_type;
pub use thrift::check_thrift;
#[cfg(feature = "parquet")]
pub use uuid::UuidColumns;
