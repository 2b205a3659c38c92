//! Events of a purge that is carried out.

use biscuit_core::Error;
use biscuit_purge::{DeleteItem, DeleteOutcome, PurgePlan, manifest_line};

/// Event of a purge that is carried out.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum PurgeEvent<'a> {
    /// An object or an unfinished upload of a plan has this outcome.
    #[non_exhaustive]
    Done {
        /// The object or upload.
        item: DeleteItem<'a>,
        /// Its outcome.
        outcome: &'a DeleteOutcome,
    },
    /// Every object of a plan has its outcome. The kept objects of the plan are still there.
    PlanDone(&'a PurgePlan),
}

impl PurgeEvent<'_> {
    /// Returns the lines of a manifest for this event: an object with its outcome, or the kept objects of a plan, each
    /// with its reason.
    #[must_use]
    pub fn json_lines(&self) -> Vec<String> {
        match self {
            Self::Done { item, outcome } => vec![manifest_line(*item, outcome)],
            Self::PlanDone(plan) => plan.kept_json_lines().collect(),
        }
    }

    /// Returns the error of a delete that failed.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Done { outcome: DeleteOutcome::Failed(failure), .. } => Some(&failure.error),
            _ => None,
        }
    }
}
