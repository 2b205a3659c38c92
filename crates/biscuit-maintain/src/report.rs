//! Results of the functions of this crate. Those that serialise have the fields of the command's JSON report.

pub use crate::erasure::{DiscardedRecords, ForgottenTokens, SubjectErasureReport};
#[cfg(feature = "s3")]
pub use crate::lifecycle::{LifecycleReport, LifecycleRuleSummary};
pub use crate::purge::planned::{PurgeOutcome, PurgeTotals};
pub use crate::quarantine::QuarantineGroup;
pub use crate::recovery::TableRecovery;
pub use crate::store_check::{StoreCheck, StoreCheckReport, StoreVerdict};
pub use crate::verification::TableVerification;
