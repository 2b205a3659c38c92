//! Recovery of a table after runs that died.

use biscuit_core::{Outcome, Result};
use biscuit_journal::{Journal, RecoveryReport};
use serde::Serialize;

/// Handling of the version number that a dead or sleeping run may still use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryFence {
    /// Runs on the newest version may be alive: their staged files remain.
    #[default]
    None,
    /// An empty version is committed, so that no run that began before can commit.
    Commit,
}

/// Result of a recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TableRecovery {
    /// `Recovered`, or `Unchanged` if there was nothing to do.
    pub outcome: Outcome,
    /// Result of the journal.
    #[serde(flatten)]
    pub report: RecoveryReport,
}

/// Finishes a version that a dead run has committed, and deletes the objects of dead runs.
///
/// # Errors
/// Those of [`Journal::recover`] and [`Journal::recover_with_fence`].
pub async fn recover_table(journal: &Journal, fence: RecoveryFence) -> Result<TableRecovery> {
    let report = match fence {
        RecoveryFence::None => journal.recover().await?,
        RecoveryFence::Commit => journal.recover_with_fence().await?,
    };
    let changed = report.rolled_forward.is_some() || report.cleaned > 0 || fence == RecoveryFence::Commit;
    Ok(TableRecovery { outcome: if changed { Outcome::Recovered } else { Outcome::Unchanged }, report })
}
