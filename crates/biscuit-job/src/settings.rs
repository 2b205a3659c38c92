//! Settings of the sources and outputs of a [`JobSpec`](crate::JobSpec).

pub use crate::spec::{
    AuditSpec, ContractSpec, CsvHeader, CsvSpec, DatePart, DerivedColumn, EmptyLocation, HivePartitioning, RulesSpec,
    TextSpec,
};
pub use biscuit_bookmark::MissingObjects;
