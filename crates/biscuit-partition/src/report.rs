//! Reports of a [`PeriodTable`](crate::PeriodTable) and of an erasure.

pub use crate::forget::{ForgetReport, NotCovered};
pub use crate::period::table_report::PeriodTableReport;
pub use crate::read::{LastTouch, PeriodStatus};
pub use crate::rebuild::PeriodAudit;
