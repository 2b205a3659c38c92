//! Recovery: finishes the version of a dead run, and cleans up after dead runs.

use std::future::ready;

use biscuit_core::Result;
use serde::Serialize;

use crate::commit::clean;
use crate::commit::publish::{self, LeftTrials, PublishOutcome};
use crate::log::head::TableHead;
use crate::log::journal_store::JournalStore;

/// Result of a recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Version that a dead run had committed and that this recovery finished.
    pub rolled_forward: Option<u64>,
    /// Version of the fence, if the recovery committed one.
    pub fence: Option<u64>,
    /// Number of objects of dead runs that were deleted from the state root.
    pub cleaned: u64,
}

/// Returns the newest version, and finishes it first if its run did not.
pub(crate) async fn finished_head(journal: &JournalStore) -> Result<TableHead> {
    Ok(roll_forward(journal).await?.0)
}

/// Finishes the newest version if its run did not. Returns the head, and the version that this call finished.
pub(crate) async fn roll_forward(journal: &JournalStore) -> Result<(TableHead, Option<u64>)> {
    let mut rolled = None;
    // Only the newest version can be unfinished: a run builds on a version after it is finished. `Overtaken`
    // means that another process finished it, perhaps with further versions on top, so the head is read again.
    // The number of attempts bounds the time against writers that never pause.
    for _ in 0..8 {
        let head = journal.head().await?;
        let Some(record) = &head.unfinished else { return Ok((head, rolled)) };
        tracing::info!(version = record.version, "rolling an unfinished version forward");
        if let PublishOutcome::Finished(_) =
            publish::finish_version(journal, record, ready(Ok(())), LeftTrials::MayRemain).await?
        {
            rolled = Some(record.version);
        }
    }
    Err(journal.busy())
}

/// Finishes an unfinished version and deletes the objects of dead runs from the state root.
pub(crate) async fn recover(journal: &JournalStore) -> Result<RecoveryReport> {
    let (head, rolled_forward) = roll_forward(journal).await?;
    let found = clean::list_run_objects(journal).await?;
    let dead = clean::delete_dead_objects(journal, &head, found).await?;
    let cleaned = dead + clean::clean_probes(journal, &head).await?;
    Ok(RecoveryReport { rolled_forward, fence: None, cleaned })
}
