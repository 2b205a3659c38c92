#![doc = include_str!("../README.md")]

pub mod codes;
mod environment;
pub mod internal;
mod job;
mod read;
mod report;
mod run_options;
mod shape;
mod spec;
mod work;
mod write;

pub use biscuit_bookmark::MissingObjects;
pub use environment::{JobEnvironment, LocalEnvironment};
pub use job::DeclarativeJob;
pub use read::learn::sample;
pub use read::source::ReadReport;
pub use report::counts::{JobReport, OutputReport, SourceReport};
pub use report::impact::impact;
pub use run_options::{DryRun, RunOptions};
pub use shape::treatment::TableKeys;
pub use spec::{
    AuditSpec, ContractSpec, CsvHeader, CsvSpec, DatePart, DerivedColumn, EmptyLocation, HivePartitioning, JobSpec,
    JobSpecBuilder, OutputMode, OutputSpec, RulesSpec, SourceFormat, SourceSpec, TextSpec,
};
pub use write::quarantine::{SubjectQuarantine, unsealed};
