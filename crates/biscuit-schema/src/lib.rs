#![doc = include_str!("../README.md")]

mod catalogs;
pub mod checks;
pub mod codes;
pub mod coercion;
mod contract;
mod infer;
pub mod internal;
mod parquet_files;
mod types;
mod values;

pub use catalogs::glue::{PartitionProjection, TablePlace};
pub use contract::check::ContractCheck;
pub use contract::column::ContractColumn;
pub use contract::compatibility::{Compatibility, ContractDifference, check_evolution, differences};
pub use contract::compliance::ContractCompliance;
pub use contract::definition::Contract;
pub use contract::settings::{DatasetLayer, DebeziumSettings};
pub use infer::inference::{InferredSchema, SchemaInference, TypeConflict};
pub use infer::naming_rules::{NamingRule, apply_rules, default_rules};
pub use types::column_type::{ColumnType, type_name};
pub use types::common::common_type;
pub use types::hive::{HiveField, HiveType};
pub use types::union::merge_schemas;
pub use values::coercion::{Coercion, coerce_column};
pub use values::reading_rules::{DecimalRounding, EpochUnit, ExtraColumns, OnError, ReadingRules};
