//! The specification of a job: its types, as they are read from TOML or built by a program, and the checks for
//! settings that contradict each other.

mod added_columns;
mod contract;
mod error;
mod job;
mod output;
mod source;
mod source_values;
mod text;
mod validation;

pub use added_columns::{AuditSpec, DatePart, DerivedColumn};
pub(crate) use contract::read_contract;
pub use contract::{ContractSpec, RulesSpec};
pub(crate) use error::invalid_spec;
pub use job::{JobSpec, JobSpecBuilder};
pub use output::{OutputMode, OutputSpec};
pub use source::SourceSpec;
pub use source_values::{EmptyLocation, HivePartitioning, SourceFormat};
pub use text::{CsvHeader, CsvSpec, TextSpec};
