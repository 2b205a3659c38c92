//! Plan of a release of retained files: files that a later version replaced and that are kept for a time.

use std::time::Duration;

use biscuit_core::{Error, Result};
use biscuit_purge::DeleteCondition;
use biscuit_rewrite::RunMode;

use crate::codes;
use crate::purge::folder::FolderPurge;
use crate::purge::planned::{PlanSource, PlannedPurge};
use crate::purge::release::RetainedRelease;

impl FolderPurge {
    /// Plans to delete retained files whose retention ended at least `grace` ago, by the clock of the store. Unless it
    /// is a dry run, an unfinished version of the table is finished first.
    ///
    /// # Errors
    /// `NothingThere`, `EmptyPrefix`; `NoJournal` for a folder that is not a table; `Unfinished` in a dry run; the
    /// errors of [`Journal::retained_files`](biscuit_journal::Journal::retained_files) and of the store.
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
        let release = RetainedRelease::new(journal, found.observed, files);
        // The journal compares each file right before it deletes it; it does not use conditional deletes.
        Ok(PlannedPurge::new(vec![plan], DeleteCondition::LookedAt, PlanSource::Retained(Box::new(release))))
    }
}
