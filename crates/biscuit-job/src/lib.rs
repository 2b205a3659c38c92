#![doc = include_str!("../README.md")]

pub mod codes;
mod environment;
pub mod internal;
mod job;
mod output_run;
mod read;
pub mod report;
mod run_options;
pub mod settings;
mod shape;
mod spec;
mod work;
mod write;

pub use biscuit_bookmark::MissingObjects;
pub use environment::{JobEnvironment, LocalEnvironment};
pub use job::DeclarativeJob;
pub use read::learn::sample;
pub use report::impact::impact;
pub use run_options::{DryRun, RunOptions};
pub use shape::treatment::TableKeys;
pub use spec::{JobSpec, JobSpecBuilder, OutputMode, OutputSpec, SourceFormat, SourceSpec};
pub use write::quarantine::{SubjectQuarantine, unseal_record};
