#![doc = include_str!("../README.md")]

mod calendar;
mod dated;
mod effective;
mod forget;
mod granularity;
mod plan;
mod read;
mod rebuild;
mod report;
mod retracted;
mod snapshots;
mod state_file;
mod waiting;

pub use biscuit_rewrite::Subjects;
pub use calendar::{Calendar, Period};
pub use forget::{ForgetReport, NotCovered, forget};
pub use granularity::{DaySpan, FirstDay, Granularity};
pub use plan::{BeforeFirst, By, Periods};
pub use read::{LastTouch, PeriodState};
pub use rebuild::Audit;
pub use report::SnapshotReport;
pub use snapshots::Snapshots;
