//! Reports of merges and of the other operations on a table. Those that serialise have the fields of the command's JSON
//! report.

pub use crate::merge_report::{FileCounts, MergeRemarks, MergeReport, PeriodFiles, PeriodReport, TouchedPartitions};
pub use crate::table::adopt::AdoptReport;
pub use crate::table::verify::VerifyReport;
pub use biscuit_merge::{RecordVerdicts, RowCounts};
