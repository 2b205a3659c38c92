//! Plan of a purge of orphan files and of leftovers of other programs.

use std::collections::BTreeSet;
use std::time::Duration;

use biscuit_core::{Instant, Result};
use biscuit_purge::{
    JobMarker, KeepReason, ListedObject, ListedVersions, MultipartUpload, ProtectedTable, PurgePlan, is_leftover,
};
use biscuit_rewrite::RunMode;

use crate::purge::planned::{PlanSource, PlannedPurge};
use crate::purge::target::TargetFolder;

/// Limit of a purge of orphan files.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct OrphanLimit {
    age: Duration,
    markers: Vec<JobMarker>,
}

impl Default for OrphanLimit {
    fn default() -> Self {
        Self { age: Duration::from_secs(24 * 3600), markers: vec![] }
    }
}

impl OrphanLimit {
    /// Sets the minimum age of leftovers of other programs and of unfinished uploads, on the clock of the store.
    /// Default: one day. The journal decides about leftovers of Biscuit, and their age has no effect.
    pub fn with_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Also deletes these job markers. Default: none, since other programs may rely on them.
    pub fn with_markers(mut self, markers: impl IntoIterator<Item = JobMarker>) -> Self {
        self.markers.extend(markers);
        self
    }
}

/// Plans to delete leftovers, after it has finished an unfinished version of the table unless this is a dry run.
pub(crate) async fn plan_orphans(folder: &TargetFolder, limit: &OrphanLimit, mode: RunMode) -> Result<PlannedPurge> {
    let place = &folder.place;
    place.check_allowed(&folder.allow)?;
    let own = folder.own_table().await?;
    let look = place.store().probe(&folder.scratch(own.as_ref())).await?;
    let cutoff = look.now.saturating_sub(limit.age);
    let old = |at: Option<Instant>| at.is_some_and(|at| at < cutoff);
    let listing = place.store().list(place.prefix(), ListedVersions::Current).await?;
    // After the listing: a table that was created in between may be in a folder with the name of a leftover.
    let tables = folder.tables(own.as_ref(), &[&listing]).await?;
    let mut files: Vec<ListedObject> =
        listing.iter().filter(|o| is_left(o, place.prefix(), &tables, &limit.markers)).collect();
    let young: BTreeSet<String> = files.iter().filter(|o| !old(o.modified)).map(|o| o.key().to_owned()).collect();
    let mut of_state = Vec::new();
    if let Some(journal) = &own {
        if mode == RunMode::Commit {
            journal.finished_head().await?;
        }
        // The journal lists the folder again, and proves each orphan by a head that is the same before and after.
        let found = journal.orphaned_objects().await?;
        let orphan = |path: &str| format!("{}/{path}", journal.table());
        files.extend(found.orphan_files.into_iter().map(|file| {
            let key = orphan(&file.path);
            ListedObject::from(file.with_path(key))
        }));
        of_state.extend(found.dead.into_iter().map(ListedObject::from));
    }
    let listing = files.into_iter().collect();
    let keep = |o: &ListedObject| young.contains(o.key()).then_some(KeepReason::Newer);
    let plan = PurgePlan::keeping(place.prefix(), listing, keep)?;
    let uploads = async |prefix: &str| -> Result<Vec<MultipartUpload>> {
        let found = place.store().list_uploads(prefix).await?.unwrap_or_default();
        Ok(found.into_iter().filter(|u| old(u.begun)).collect())
    };
    let mut plans = vec![plan.with_uploads(uploads(place.prefix()).await?)?];
    if let Some(journal) = &own {
        let state = journal.state_root();
        plans.push(PurgePlan::exact(state, of_state)?.with_uploads(uploads(state.as_ref()).await?)?);
    }
    Ok(PlannedPurge::new(plans, look.condition, PlanSource::Orphans))
}

/// Returns whether a listed object is a leftover of another program's job.
///
/// Only the part of the path below the innermost table counts. The files of a table in a folder named `_temporary`,
/// for example, are not leftovers, but those in `_temporary/_temporary` are.
fn is_left(object: &ListedObject, prefix: &str, tables: &[ProtectedTable], marks: &[JobMarker]) -> bool {
    let below = |folder: &str| object.key().strip_prefix(folder)?.strip_prefix('/');
    let leaves = |folder: &str| is_leftover(below(folder).unwrap_or(object.key()), marks);
    if !leaves(prefix) {
        return false;
    }
    let whose = tables.iter().filter(|t| below(&t.root).is_some()).max_by_key(|t| t.root.len());
    !tables.iter().any(|t| t.has_state(object.key()) || t.files.contains(object.key()))
        && whose.is_none_or(|table| leaves(&table.root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(key: &str, tables: &[ProtectedTable]) -> bool {
        is_left(&ListedObject::new(key, 1, None), "lake", tables, &[])
    }

    #[test]
    fn only_the_path_below_the_innermost_table_counts() {
        let mut table = ProtectedTable::default();
        (table.root, table.state) = ("lake/_temporary".to_owned(), "lake/.biscuit/_temporary".to_owned());
        table.files.insert("lake/_temporary/live.parquet".to_owned());
        assert!(left("lake/_temporary/0/part", &[]), "without a table it is a leftover of Spark");
        let tables = [table];
        assert!(!left("lake/_temporary/live.parquet", &tables) && !left("lake/_temporary/other", &tables));
        assert!(left("lake/_temporary/_temporary/0/part", &tables));
        assert!(!left("lake/.biscuit/_temporary/journal/1.json", &tables) && !left("lake/part-0", &tables));
    }
}
