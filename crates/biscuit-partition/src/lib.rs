#![doc = include_str!("../README.md")]

pub mod codes;
mod forget;
mod pending;
mod period;
mod read;
mod rebuild;
mod records_by_period;
pub mod report;
mod retracted;
mod sink;
mod snapshots;
mod state_file;

pub use biscuit_rewrite::ErasureSubjects;
pub use forget::forget;
pub use period::calendar::{Period, PeriodCalendar};
pub use period::granularity::{DaySpan, FirstDay, Granularity};
pub use period::plan::{BeforeFirstPeriod, PeriodBasis, PeriodPlan};
pub use period::table::PeriodTable;
pub use sink::PeriodSink;
