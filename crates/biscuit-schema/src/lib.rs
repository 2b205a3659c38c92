#![doc = include_str!("../README.md")]

mod avro;
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
mod infer;
mod iso;
mod merge_schemas;
mod nested;
mod reading;
mod rules;
mod scalar;

pub use check::{Check, Rule, Scalar, Severity};
pub use coerce::{Coerced, Coercion, CoercionReport, Losses, RefusedRow};
pub use column_type::{ColumnType, Wire, type_name};
pub use common_type::{common_type, plain_type};
pub use compatibility::{Compatibility, Difference, check_evolution, differences};
pub use comply::{Compliance, Finding};
pub use contract::{Column, Contract, DebeziumSettings, Layer};
pub use fault::Fault;
pub use glue::{Projection, TablePlace};
pub use hive_type::{HiveField, HiveType};
pub use infer::{Conflict, Inference, Inferred};
pub use iso::{iso_date, iso_date_time, iso_time};
pub use merge_schemas::{check_names, column_index, merge_schemas};
pub use reading::{Epoch, Extra, OnError, Reading, Rounding};
pub use rules::{NamingRule, apply_rules, usual_rules};
