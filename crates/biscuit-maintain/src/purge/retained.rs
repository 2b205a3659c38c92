//! Plan of a release of retained files: files that a later version replaced and that are kept for a time.

use std::time::Duration;

use biscuit_core::{Error, Result};
use biscuit_purge::DeleteCondition;
use biscuit_rewrite::RunMode;

use crate::codes;
use crate::purge::planned::{PlanSource, PlannedPurge};
use crate::purge::release::RetainedRelease;
use crate::purge::target::TargetFolder;

/// Plans to delete retained files whose retention ended at least `grace` ago.
pub(crate) async fn plan_retained(folder: &TargetFolder, grace: Duration, mode: RunMode) -> Result<PlannedPurge> {
    let place = &folder.place;
    place.check_allowed(&folder.allow)?;
    let Some(journal) = folder.own_table().await? else {
        let message = format!("`{}` is not a table with a journal, and has no retained files", place.name());
        return Err(Error::new(codes::NO_JOURNAL, message));
    };
    if mode == RunMode::Commit {
        journal.finished_head().await?;
    }
    let look = place.store().probe(&folder.scratch(Some(&journal))).await?;
    let found = journal.retained_files().await?;
    let (plan, files) = found.plan_due(journal.table(), look.now, grace)?;
    let release = RetainedRelease::new(journal, found.observed, files);
    // The journal compares each file right before it deletes it; it does not use conditional deletes.
    Ok(PlannedPurge::new(vec![plan], DeleteCondition::LookedAt, PlanSource::Retained(Box::new(release))))
}
