//! A planned purge, and how it is carried out.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, Outcome, Result};
use biscuit_purge::{DeleteCondition, DeleteCounts, DeleteItem, DeleteOptions, DeleteOutcome, PurgePlan, carry_out};
use serde::Serialize;

use crate::purge::event::PurgeEvent;
use crate::purge::release::RetainedRelease;
use crate::purge::target::TargetFolder;

/// Plans of a purge, and the condition under which the store deletes.
///
/// Only [`FolderPurge`](crate::FolderPurge) makes one, so that each plan comes from the order of probe, listing and
/// journals.
#[derive(Debug, Clone)]
pub struct PlannedPurge {
    plans: Vec<PurgePlan>,
    condition: DeleteCondition,
    source: PlanSource,
}

/// Origin of a plan, which decides how the plan is carried out.
#[derive(Debug, Clone)]
pub(crate) enum PlanSource {
    Age,
    Orphans,
    Stored,
    Retained(Box<RetainedRelease>),
}

impl PlannedPurge {
    pub(crate) fn new(plans: Vec<PurgePlan>, condition: DeleteCondition, source: PlanSource) -> Self {
        Self { plans, condition, source }
    }

    /// Plans, in the order in which they are carried out: first the folder, then the state root of its table.
    #[must_use]
    pub fn plans(&self) -> &[PurgePlan] {
        &self.plans
    }

    /// Returns what the deletes cannot guarantee in this store; `None` if they guarantee everything.
    #[must_use]
    pub fn caveat(&self) -> Option<&'static str> {
        self.condition.caveat()
    }

    /// Returns whether nothing is deleted and no upload aborted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plans.iter().all(PurgePlan::is_empty)
    }

    /// Returns the sums of all plans.
    #[must_use]
    pub fn totals(&self) -> PurgeTotals {
        let mut totals = PurgeTotals::default();
        for summary in self.plans.iter().map(PurgePlan::summary) {
            totals.objects += summary.objects;
            totals.bytes = totals.bytes.saturating_add(summary.bytes);
            totals.uploads += summary.uploads;
            summary.kept.into_iter().for_each(|(reason, n)| *totals.kept.entry(reason).or_default() += n);
        }
        totals
    }

    /// Carries the plans out in the folder from which they were made, and passes each outcome to `each`.
    pub(crate) async fn carry_out(
        &self,
        folder: &TargetFolder,
        each: &mut (dyn FnMut(PurgeEvent<'_>) + Send),
    ) -> Result<PurgeOutcome> {
        let mut counts = DeleteCounts::default();
        for plan in &self.plans {
            if let PlanSource::Retained(release) = &self.source {
                counts.add(release.carry_out(plan, each).await?);
                continue;
            }
            let mut done =
                |item: DeleteItem<'_>, outcome: DeleteOutcome| each(PurgeEvent::Done { item, outcome: &outcome });
            counts.add(carry_out(folder.place.store(), plan, &DeleteOptions::default(), &mut done).await);
            each(PurgeEvent::PlanDone(plan));
        }
        let cleanup_error = match self.source {
            PlanSource::Orphans => clean_up(folder).await.err(),
            _ => None,
        };
        let outcome = match (self.is_empty(), counts.is_complete()) {
            (true, _) => Outcome::Unchanged,
            (false, true) => Outcome::Purged,
            (false, false) => Outcome::PurgedWithExceptions,
        };
        let emptied_folders = self.emptied_folders(&counts);
        Ok(PurgeOutcome { outcome, counts, emptied_folders, cleanup_error })
    }

    /// Returns the folders that are empty after the purge. A plan lists every object of the folder only if it is by
    /// age. Only then, and if every delete succeeded, it is known which folders are empty.
    fn emptied_folders(&self, counts: &DeleteCounts) -> BTreeSet<String> {
        match (&self.source, self.plans.first()) {
            (PlanSource::Age, Some(plan)) if counts.is_complete() => plan.emptied_folders(),
            _ => BTreeSet::new(),
        }
    }
}

/// Sums of the plans of a purge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PurgeTotals {
    /// Number of objects and versions to delete.
    pub objects: u64,
    /// Sum of their sizes in bytes.
    pub bytes: u64,
    /// Number of unfinished uploads to abort.
    pub uploads: u64,
    /// Number of objects to keep, by the name of the reason.
    pub kept: BTreeMap<&'static str, u64>,
}

/// Outcome of a purge.
#[derive(Debug)]
#[non_exhaustive]
pub struct PurgeOutcome {
    /// `Purged`; `Unchanged` if the plans were empty; `PurgedWithExceptions` if an object was kept or not deleted.
    pub outcome: Outcome,
    /// Outcomes in numbers.
    pub counts: DeleteCounts,
    /// Folders of which every object was deleted. Empty unless the plan is by age and every delete succeeded.
    pub emptied_folders: BTreeSet<String>,
    /// Error of the clean-up of the table after a purge of orphans. The deletes are done.
    pub cleanup_error: Option<Error>,
}

/// Deletes what dead runs left and a listing does not show.
async fn clean_up(folder: &TargetFolder) -> Result<()> {
    match folder.own_table().await? {
        Some(journal) => journal.recover().await.map(drop),
        None => Ok(()),
    }
}
