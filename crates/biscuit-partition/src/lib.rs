#![doc = include_str!("../README.md")]

mod calendar;
pub mod codes;
mod effective;
mod forget;
mod granularity;
mod pending;
mod plan;
mod read;
mod rebuild;
mod records_by_period;
mod report;
mod retracted;
mod sink;
mod snapshots;
mod state_file;

pub use biscuit_rewrite::ErasureSubjects;
pub use calendar::{Period, PeriodCalendar};
pub use forget::{ForgetReport, NotCovered, forget};
pub use granularity::{DaySpan, FirstDay, Granularity};
pub use plan::{BeforeFirstPeriod, PeriodBasis, PeriodPlan};
pub use read::{LastTouch, PeriodStatus};
pub use rebuild::PeriodAudit;
pub use report::PeriodTableReport;
pub use sink::PeriodSink;
pub use snapshots::PeriodTable;
