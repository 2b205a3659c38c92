#![doc = include_str!("../README.md")]

mod doctor;
mod head;
mod interrupt;
mod journal;
mod leavings;
mod names;
mod observe;
mod ownership;
mod pointer;
mod probe;
mod protect;
mod publish;
mod record;
mod replace;
mod stage;
mod stager;
mod storage;

pub use biscuit_purge::{ForeignTableFormat, store_error};
pub use doctor::{ProbeResult, StoreCapability, probe_store};
pub use head::{LiveFile, RetainedEntry, TableHead};
pub use interrupt::RunInterrupt;
pub use journal::{
    DivergedPolicy, ExternalFiles, Journal, JournalOptions, OtherTableFormats, RandomWriterIds, RecoveryReport,
    WriterIds, WriterPolicy,
};
pub use leavings::{OrphanedObjects, RetainedFiles};
pub use names::{MAX_KEY, MAX_NAME, default_state_root, is_hidden, writer_id_of};
pub use observe::ObservedTable;
pub use ownership::{fold_name, table_format_around};
pub use protect::{tables_around, tables_within};
pub use record::{CommitException, CommitRecord, FileRef, PastVersion, PublishedFile, RetainedFile, StateFile};
pub use replace::{CommitOutcome, CommitSummary, TableCommit};
pub use stage::{StagedFile, StagedWriter};
pub use stager::FileStager;
pub use storage::{LocalDisk, StoreIsDurable, TableStorage, WriteDurability};
