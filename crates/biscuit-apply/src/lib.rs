#![doc = include_str!("../README.md")]

mod changes;
pub mod codes;
mod frame;
pub mod internal;
mod key_and_order;
mod merge;
mod merge_report;
mod options;
mod part;
mod periods;
mod plan;
pub mod report;
mod run;
mod setup;
mod sink;
mod state;
mod table;

pub use biscuit_change::ChangeFormat;
pub use biscuit_merge::{IgnoreNull, MergeSpec, OrderAuthority, TiePolicy, TombstonePolicy};
pub use biscuit_rewrite::RunMode;
pub use changes::buffered::BufferedChanges;
pub use changes::collected::CollectedChanges;
pub use changes::files::{ChangeBatchSink, ChangeFiles, TableBuffer};
pub use changes::found_files::FoundFile;
pub use changes::log_epochs::NewServerPolicy;
pub use frame::merge_frames;
pub use key_and_order::{KeyAndOrderColumns, KeyAndOrderSources};
pub use merge::{Merge, MergeInput, MergeRun};
pub use options::MergeOptions;
pub use sink::MergeSink;
pub use state::forgotten_keys::readmit;
pub use state::quarantine::{QuarantinedRecord, discard, quarantine_records, quarantined_records};
pub use table::adopt::adopt;
pub use table::stored_spec::merged_by;
pub use table::verify::verify;
