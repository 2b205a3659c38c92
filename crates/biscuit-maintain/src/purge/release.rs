//! Release of retained files, which is one commit of the journal.

use biscuit_core::{ObjectRef, Result};
use biscuit_journal::{Journal, ObservedTable};
use biscuit_purge::{DeleteCounts, DeleteItem, DeleteOutcome, KeptReason, PurgePlan};

use crate::purge::event::PurgeEvent;

/// Journal, observed version and files of a release. The files are in the order of the plan.
#[derive(Debug, Clone)]
pub(crate) struct RetainedRelease {
    journal: Journal,
    observed: ObservedTable,
    files: Vec<ObjectRef>,
}

impl RetainedRelease {
    pub(crate) fn new(journal: Journal, observed: ObservedTable, files: Vec<ObjectRef>) -> Self {
        Self { journal, observed, files }
    }

    /// Deletes the files of the plan. The journal names retained files, so this is a version of the table.
    ///
    /// # Errors
    /// `Conflict` if another run has committed since the plan; the errors of [`Journal::release_files`].
    pub(crate) async fn carry_out(
        &self,
        plan: &PurgePlan,
        each: &mut (dyn FnMut(PurgeEvent<'_>) + Send),
    ) -> Result<DeleteCounts> {
        // A commit without a change would still be a version.
        if self.files.is_empty() {
            return Ok(DeleteCounts::default());
        }
        let committed = self.journal.release_files(&self.observed, &self.files).await?;
        let mut counts = DeleteCounts::default();
        // `plan_due` returns the objects of the plan and the files in the same order.
        for (object, file) in plan.deletes().zip(&self.files) {
            let changed = committed.exceptions.iter().any(|e| e.path == file.path);
            let outcome = match (changed, self.observed.retained.contains(file)) {
                (true, _) => DeleteOutcome::Kept(KeptReason::Changed),
                (false, true) => DeleteOutcome::Deleted,
                (false, false) => DeleteOutcome::Absent,
            };
            counts.count_outcome(&outcome, object.listed.size);
            each(PurgeEvent::Done { item: DeleteItem::Object(&object), outcome: &outcome });
        }
        Ok(counts)
    }
}
