#![doc = include_str!("../README.md")]

mod compact;
mod encode;
mod erase;
mod exec;
pub mod internal;
mod mode;
mod pages;
mod plan;
mod replacing;
mod sort;
mod spill;
mod subjects;
mod transcode;
pub mod unit;

pub use compact::{CompactOptions, CompactReport, compact};
pub use erase::{EraseReport, SubjectRows, erase};
pub use exec::{RewriteUnitsExec, rewrite_units};
pub use mode::RunMode;
pub use plan::choice::{NoSpliceReason, RewriteChoice, choose_rewrite};
pub use plan::unit::{RewriteUnit, SortBy};
pub use spill::buffered_rows::{BufferedRows, SpillFolder};
pub use spill::rows_writer::RowsWriter;
pub use subjects::ErasureSubjects;
