#![doc = include_str!("../README.md")]

pub mod codes;
pub mod internal;
mod keys;
mod records;
mod reduce;
mod report;
mod resolve;
mod spec;

pub use records::change_batch::{AbsentColumns, ChangeBatch, LogServer};
pub use records::key_change::{KeyChange, KeyChangeKind};
pub use records::op::{ChangeOp, OpMap, ParsedOp, parse_op};
pub use records::placeholder::PLACEHOLDER;
pub use records::refused::{BadRows, RawRows, RefusedRecord};
pub use records::row_changes::{ChangeColumns, row_changes};
pub use reduce::merge_and_retain_last;
pub use report::{RecordVerdicts, ReductionReport, RowCounts};
pub use spec::{IgnoreNull, MergeSpec, OrderAuthority, TiePolicy, TombstonePolicy};
