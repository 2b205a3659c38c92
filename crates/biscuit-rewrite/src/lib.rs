#![doc = include_str!("../README.md")]

mod apply;
mod bloom;
mod choose;
mod compact;
mod copy;
mod cores;
mod edits;
mod encode;
mod erase;
mod exec;
mod group_bytes;
mod hybrid;
mod mode;
mod out;
mod page_headers;
mod paged;
mod pages;
mod properties;
mod rows_writer;
mod session;
mod sort;
mod spill;
mod target;
mod transcode;
mod unit;
mod write;

pub use choose::{Choice, Reason, choose, has_sound_statistics, usual_rows};
pub use compact::{CompactOptions, CompactReport, compact};
pub use edits::Edits;
pub use erase::{EraseReport, erase};
pub use exec::{RewriteUnitsExec, rewrite_units};
pub use mode::Mode;
pub use rows_writer::RowsWriter;
pub use session::session;
pub use spill::{Rows, Spill};
pub use unit::{Force, Insert, SmallGroups, SortBy, Unit, Written};
