#![doc = include_str!("../README.md")]

mod column_type;
mod common_type;
mod contract;
mod merge_schemas;

pub use column_type::{ColumnType, Wire, type_name};
pub use common_type::{common_type, plain_type};
pub use contract::{Column, Contract, DebeziumSettings};
pub use merge_schemas::{check_names, column_index, merge_schemas};
