//! Plan and release of retained files: files that a later version replaced and that are kept for a time.

use std::time::Duration;

use biscuit_core::{Error, Result};
use biscuit_journal::{FileRef, Journal, ObservedTable};
use biscuit_purge::{DeleteCondition, DeleteCounts, DeleteItem, DeleteOutcome, KeptReason, PurgePlan};
use biscuit_rewrite::RunMode;

use crate::codes;
use crate::purge::folder::FolderPurge;
use crate::purge::planned::{PlanSource, PlannedPurge, PurgeEvent};

/// Journal, observed version and files of a release. The files are in the order of the plan.
#[derive(Debug, Clone)]
pub(crate) struct RetainedRelease {
    journal: Journal,
    observed: ObservedTable,
    files: Vec<FileRef>,
}

impl FolderPurge {
    /// Plans to delete retained files whose retention ended at least `grace` ago, by the clock of the store. Unless it
    /// is a dry run, an unfinished version of the table is finished first.
    ///
    /// # Errors
    /// `NothingThere`, `EmptyPrefix`; `NoJournal` for a folder that is not a table; `Unfinished` in a dry run; the
    /// errors of [`Journal::retained_files`] and of the store.
    pub async fn plan_retained(&self, grace: Duration, mode: RunMode) -> Result<PlannedPurge> {
        let place = self.place();
        place.check(&self.allow)?;
        let Some(journal) = self.own_table().await? else {
            let message = format!("`{}` is not a table with a journal, and has no retained files", place.name());
            return Err(Error::new(codes::NO_JOURNAL, message));
        };
        if mode == RunMode::Commit {
            journal.finished_head().await?;
        }
        let look = place.store().look(&self.scratch(Some(&journal))).await?;
        let found = journal.retained_files().await?;
        let (plan, files) = found.due(journal.table(), look.now, grace)?;
        let release = RetainedRelease { journal, observed: found.observed, files };
        // The journal compares each file right before it deletes it; it does not use conditional deletes.
        Ok(PlannedPurge::new(vec![plan], DeleteCondition::LookedAt, PlanSource::Retained(Box::new(release))))
    }
}

impl RetainedRelease {
    /// Deletes the files of the plan. The journal names retained files, so this is a version of the table.
    ///
    /// # Errors
    /// `Conflict` if another run has committed since the plan; the errors of [`Journal::release`].
    pub(crate) async fn carry_out(
        &self,
        plan: &PurgePlan,
        each: &mut (dyn FnMut(PurgeEvent<'_>) + Send),
    ) -> Result<DeleteCounts> {
        // A commit without a change would still be a version.
        if self.files.is_empty() {
            return Ok(DeleteCounts::default());
        }
        let committed = self.journal.release(&self.observed, &self.files).await?;
        let mut counts = DeleteCounts::default();
        // `due` returns the objects of the plan and the files in the same order.
        for (object, file) in plan.deletes().zip(&self.files) {
            let changed = committed.exceptions.iter().any(|e| e.path == file.path);
            let outcome = match (changed, self.observed.retained.contains(file)) {
                (true, _) => DeleteOutcome::Kept(KeptReason::Changed),
                (false, true) => DeleteOutcome::Deleted,
                (false, false) => DeleteOutcome::Absent,
            };
            counts.count(&outcome, object.size);
            each(PurgeEvent::Done { item: DeleteItem::Object(&object), outcome: &outcome });
        }
        Ok(counts)
    }
}
