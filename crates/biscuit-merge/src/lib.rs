#![doc = include_str!("../README.md")]

mod adopt;
mod changes;
mod frame;
mod keys;
mod merge;
mod options;
mod periods;
mod plan;
mod report;
mod resolve;
mod spec;
mod state;
mod target;
mod verify;

pub use adopt::{AdoptReport, adopt};
pub use biscuit_rewrite::RunMode;
pub use changes::files::{ChangeFiles, ChangeFormat, FoundFile};
pub use changes::log_epochs::NewServerPolicy;
pub use frame::merge_and_retain_last;
pub use merge::Merge;
pub use options::MergeOptions;
pub use periods::period_state::{CommitExtras, PeriodBase, PeriodState, PeriodStates};
pub use report::{FileCounts, MergeReport, PeriodFiles, PeriodReport, RecordVerdicts, RowCounts, TouchedPartitions};
pub use resolve::retraction::{EffectiveTimes, KeyAndOrder, RetractedRecord, RetractionSet, key_and_order};
pub use spec::{IgnoreNull, MergeSpec, OrderAuthority, TiePolicy, TombstonePolicy};
pub use state::erasing::{ErasedState, erased_state};
pub use state::forgotten_keys::{ErasedKeys, readmit};
pub use state::key_segment::{StoredKeyMetadata, held_keys};
pub use state::quarantine::{QuarantinedRecord, discard, quarantine_records, quarantined};
pub use target::context::{merged_by, stored_spec};
pub use verify::{VerifyReport, verify};
