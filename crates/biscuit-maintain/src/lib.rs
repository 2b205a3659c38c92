#![doc = include_str!("../README.md")]

pub mod codes;
mod erasure;
#[cfg(feature = "s3")]
mod lifecycle;
mod partitions;
mod place;
mod purge;
mod quarantine;
mod recovery;
pub mod report;
mod store_check;
mod verification;

pub use erasure::{ErasureTable, SubjectErasure};
#[cfg(feature = "s3")]
pub use lifecycle::TableLifecycle;
pub use place::DeletePlace;
pub use purge::by_age::AgeLimit;
pub use purge::event::PurgeEvent;
pub use purge::folder::FolderPurge;
pub use purge::orphans::OrphanLimit;
pub use purge::planned::PlannedPurge;
pub use quarantine::{group_quarantined, reveal_quarantined};
pub use recovery::{RecoveryFence, recover_table};
pub use store_check::check_store;
pub use verification::verify_table;
