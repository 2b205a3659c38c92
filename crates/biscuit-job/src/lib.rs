#![doc = include_str!("../README.md")]

mod changes;
mod choose;
mod columns;
mod decode;
mod finish;
mod hidden;
mod impact;
mod infer;
mod input;
mod job;
mod json;
mod json_names;
mod learn;
mod merge;
mod origin;
mod output;
mod path_columns;
mod pii;
mod put_aside;
mod query;
mod read;
mod report;
mod say_plan;
mod spec;
mod table;
mod work;
mod write;

pub use choose::{OpenByLocation, OpenSource};
pub use impact::impact;
pub use job::{DeclarativeJob, DryRun, RunOptions};
pub use learn::{format_at, learn, sample};
pub use pii::{LocalPiiResolver, PiiResolver, TableKeys};
pub use put_aside::{SubjectQuarantine, put_aside_of, unsealed};
pub use read::ReadReport;
pub use report::{JobReport, OutputReport, SourceReport};
pub use spec::{
    AuditSpec, ContractSpec, CsvSpec, DatePart, DerivedColumn, JobSpec, OutputMode, OutputSpec, RulesSpec,
    SourceFormat, SourceSpec, TextSpec,
};
