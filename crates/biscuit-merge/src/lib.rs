#![doc = include_str!("../README.md")]

mod adopt;
mod change_files;
mod change_set;
mod commit;
mod encode;
mod fetch;
mod frame;
mod groups;
mod key_state;
mod known;
mod merge;
mod moves;
mod order;
mod outcome;
mod plan;
mod prepare;
mod quarantine;
mod report;
mod resolve;
mod rewrite;
mod scan;
mod segment;
mod spec;
mod table;
mod verify;

pub use adopt::{AdoptReport, adopt};
pub use change_files::{ChangeFiles, Format};
pub use frame::merge_and_retain_last;
pub use merge::{Merge, MergeOptions, Mode};
pub use prepare::merged_by;
pub use quarantine::{Quarantined, quarantined};
pub use report::{FileCounts, MergeReport, Partitions, RowCounts, Verdicts};
pub use segment::{HeldKey, held_keys};
pub use spec::{Authority, IgnoreNull, MergeSpec, Ties, Tombstones};
pub use verify::{Verified, verify};
