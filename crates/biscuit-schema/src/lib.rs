#![doc = include_str!("../README.md")]

mod catalogs;
pub mod codes;
mod contract;
mod infer;
pub mod internal;
mod parquet_files;
mod types;
mod values;

pub use catalogs::glue::{PartitionProjection, TablePlace};
pub use contract::check::{CheckRule, CheckSeverity, CheckValue, ContractCheck};
pub use contract::compatibility::{Compatibility, ContractDifference, check_evolution, differences};
pub use contract::compliance::{CheckFinding, ContractCompliance};
pub use contract::definition::{Contract, ContractColumn, DatasetLayer, DebeziumSettings};
pub use infer::inference::{InferredSchema, SchemaInference, TypeConflict};
pub use infer::naming_rules::{NamingRule, apply_rules, default_rules};
pub use types::column_type::{ColumnType, type_name};
pub use types::common::common_type;
pub use types::hive::{HiveField, HiveType};
pub use types::union::merge_schemas;
pub use values::coercion::{
    CoercedColumn, CoercedRows, Coercion, CoercionReport, ColumnLosses, RefusedRow, coerce_column,
};
pub use values::fault::ValueFault;
pub use values::reading_rules::{BytesInText, DecimalRounding, EpochUnit, ExtraColumns, OnError, ReadingRules};
