#![doc = include_str!("../README.md")]

pub mod codes;
mod commit;
pub mod internal;
mod journal;
mod log;
mod observe;
mod options;
pub mod record;
mod store;

pub use biscuit_purge::ForeignTableFormat;
pub use biscuit_purge::internal::store_error;
pub use commit::extras::CommitExtras;
pub use commit::interrupt::RunInterrupt;
pub use commit::recovery::RecoveryReport;
pub use commit::staged::StagedFile;
pub use commit::stager::FileStager;
pub use commit::table_commit::{CommitSummary, TableCommit};
pub use journal::Journal;
pub use log::head::TableHead;
pub use log::layout::{default_state_root, writer_id_of};
pub use observe::observed::ObservedTable;
pub use observe::orphans::{OrphanedObjects, RetainedFiles};
pub use observe::protected::{tables_around, tables_within};
pub use options::{DivergedPolicy, ExternalFiles, JournalOptions, OtherTableFormats, WriterPolicy};
pub use store::storage::{TableStorage, WriteDurability};
