//! Periods: the calendar, their lengths, and which rows are effective in which.

pub(crate) mod calendar;
pub(crate) mod effective;
pub(crate) mod granularity;
pub(crate) mod plan;
pub(crate) mod table;
pub(crate) mod table_report;
