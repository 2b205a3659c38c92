#![doc = include_str!("../README.md")]

mod catalogs;
pub mod codes;
mod contract;
mod infer;
mod parquet_files;
mod types;
mod values;

pub use catalogs::glue::{PartitionProjection, TablePlace};
pub use contract::check::{CheckRule, CheckSeverity, CheckValue, ContractCheck};
pub use contract::compatibility::{Compatibility, ContractDifference, check_evolution, differences};
pub use contract::compliance::{CheckFinding, ContractCompliance};
pub use contract::definition::{Contract, ContractColumn, DatasetLayer, DebeziumSettings};
pub use infer::inference::{InferredSchema, SchemaInference, TypeConflict};
pub use infer::json_names::name_twice;
pub use infer::naming_rules::{NamingRule, apply_rules, default_rules};
pub use parquet_files::footer::check_parquet_footer;
pub use parquet_files::impossible::impossible_values;
#[cfg(feature = "parquet")]
pub use parquet_files::int96::{check_int96, int96_as_micros};
#[cfg(feature = "parquet")]
pub use parquet_files::pages::{check_parquet_pages, parquet_rows_at_a_time};
pub use parquet_files::thrift::check_thrift;
pub use types::column_type::{ColumnType, WireType, type_name};
pub use types::common::{common_type, plain_type, stored_type, written_type};
pub use types::hive::{HiveField, HiveType};
pub use types::limits::{MAX_DEPTH, MAX_FIELDS, check_size, check_type_size, is_too_deep, too_deep};
pub use types::text::text_type;
pub use types::union::{check_names, column_index, merge_schemas};
#[cfg(feature = "parquet")]
pub use types::uuid::UuidColumns;
#[cfg(feature = "parquet")]
pub use values::calendar::{differs_by_calendar, has_legacy_calendar, legacy_calendar};
pub use values::coercion::{
    CoercedColumn, CoercedRows, Coercion, CoercionReport, ColumnLosses, RefusedRow, coerce_column, default_values,
};
pub use values::conform::{align, cast_exactly, conform};
pub use values::fault::ValueFault;
pub use values::iso::{iso_date, iso_date_time, iso_time};
pub use values::reading_rules::{
    BytesInText, DecimalRounding, EpochUnit, ExtraColumns, OnError, ReadingRules, hex_bytes,
};
