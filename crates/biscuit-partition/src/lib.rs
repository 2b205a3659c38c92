#![doc = include_str!("../README.md")]

mod calendar;
mod effective;
mod plan;
mod read;
mod rebuild;
mod report;
mod retracted;
mod snapshots;
mod waiting;

pub use calendar::{Calendar, DaySpan, FirstDay, Granularity, Period};
pub use plan::{BeforeFirst, By, Periods};
pub use read::PeriodState;
pub use rebuild::Audit;
pub use report::SnapshotReport;
pub use snapshots::Snapshots;
