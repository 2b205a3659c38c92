//! Recovery: finishes the version of a dead run, and cleans up after dead runs.

use biscuit_core::{Error, Result};
use serde::Serialize;

use crate::commit::publish::{self, PublishOutcome};
use crate::journal::Journal;
use crate::log::head::TableHead;

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

impl Journal {
    /// Returns the newest version, and finishes it first if its run did not.
    ///
    /// # Errors
    /// Those of [`head`](Self::head), `LostStaging` if a staged file is missing in both its places, and `Conflict` if
    /// other runs keep committing.
    pub async fn finished_head(&self) -> Result<TableHead> {
        Ok(self.roll_forward().await?.0)
    }

    async fn roll_forward(&self) -> Result<(TableHead, Option<u64>)> {
        let mut rolled = None;
        // Only the newest version can be unfinished: a run builds on a version after it is finished. `Overtaken`
        // means that another process finished it, perhaps with further versions on top, so the head is read again.
        // The number of attempts bounds the time against writers that never pause.
        for _ in 0..8 {
            let (head, _) = self.head_and_entries().await?;
            let Some(record) = &head.unfinished else { return Ok((head, rolled)) };
            tracing::info!(version = record.version, "rolling an unfinished version forward");
            if let PublishOutcome::Finished(_) = publish::complete(self, record).await? {
                rolled = Some(record.version);
            }
        }
        Err(Error::new(biscuit_core::codes::CONFLICT, format!("other runs keep changing `{}`; run again", self.table)))
    }

    /// Finishes an unfinished version and deletes the objects of dead runs from the state root. Safe at any time,
    /// also while other runs are alive.
    ///
    /// Objects of runs on the newest version remain, because such a run may be alive: see
    /// [`recover_with_fence`](Self::recover_with_fence).
    ///
    /// # Errors
    /// Those of [`finished_head`](Self::finished_head).
    pub async fn recover(&self) -> Result<RecoveryReport> {
        let (head, rolled_forward) = self.roll_forward().await?;
        let cleaned = publish::clean(self, &head).await? + publish::clean_probes(self, &head).await?;
        Ok(RecoveryReport { rolled_forward, fence: None, cleaned })
    }

    /// Finishes an unfinished version, commits an empty version (the fence), and deletes the objects of all runs that
    /// began before the fence.
    ///
    /// The fence takes the number that a dead or sleeping run may still use. Such a run can no longer commit, so the
    /// objects that it staged on the newest version are deleted too. A run that is alive ends with `Conflict` and has
    /// to run again.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe), and `Conflict` if another run commits the version of the fence.
    pub async fn recover_with_fence(&self) -> Result<RecoveryReport> {
        let (_, rolled_forward) = self.roll_forward().await?;
        let observed = self.observe().await?;
        let (fence, cleaned) = self.replace(&observed).fence().await?;
        Ok(RecoveryReport { rolled_forward, fence: Some(fence), cleaned })
    }
}
