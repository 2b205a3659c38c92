//! Lifecycle rules of the bucket of a table: the rules by which S3 itself deletes objects.

use aws_sdk_s3::types::LifecycleRule;
use biscuit_core::{Error, Outcome, Result};
use biscuit_journal::{Journal, default_state_root};
use biscuit_purge::internal::lifecycle_prefix;
use biscuit_purge::lifecycle::{LifecycleDays, LifecyclePlan, lifecycle_rules, plan_lifecycle};
use biscuit_purge::{ProtectedTable, S3Store};
use biscuit_rewrite::RunMode;
use serde::Serialize;

use crate::codes;
use crate::place::DeletePlace;

/// Lifecycle rules of a bucket, and the rules that a table in it needs.
#[derive(Debug, Clone)]
pub struct TableLifecycle {
    store: S3Store,
    current: Vec<LifecycleRule>,
    plan: LifecyclePlan,
}

/// A lifecycle rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LifecycleRuleSummary {
    /// Id of the rule.
    pub id: Option<String>,
    /// Prefix that the rule covers; empty for the whole bucket.
    pub prefix: String,
    /// `Enabled` or `Disabled`.
    pub status: String,
    /// Days after which objects are deleted.
    pub expire_days: Option<i32>,
    /// Date on which objects are deleted.
    pub expire_date: Option<String>,
    /// Whether delete markers that hide no version are deleted.
    pub expire_delete_markers: Option<bool>,
    /// Days after which noncurrent versions are deleted.
    pub noncurrent_days: Option<i32>,
    /// Days after which unfinished uploads are aborted.
    pub abort_upload_days: Option<i32>,
    /// Storage classes to which objects are moved.
    pub transitions: Vec<String>,
}

/// Result of a change of lifecycle rules, or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LifecycleReport {
    /// `Applied`, `Planned` for a dry run, or `Unchanged`.
    pub outcome: Outcome,
    /// Ids of added rules.
    pub added: Vec<String>,
    /// Ids of changed rules.
    pub changed: Vec<String>,
    /// All rules that the bucket is to have.
    pub rules: Vec<LifecycleRuleSummary>,
    /// Descriptions of other rules that would delete or archive objects that the table needs.
    pub dangers: Vec<String>,
}

impl TableLifecycle {
    /// Reads the rules of the bucket and plans those of the table.
    ///
    /// # Errors
    /// `NotOnS3` for a place without the S3 API; the errors of S3.
    pub async fn read(place: &DeletePlace, journal: &Journal, days: LifecycleDays) -> Result<Self> {
        let Some(store) = place.s3() else {
            let message = format!("`{}` is not on S3; only buckets have lifecycle rules", place.name());
            return Err(Error::new(codes::NOT_ON_S3, message));
        };
        let current = store.lifecycle().await?;
        let plan = plan_of(&current, journal, days);
        Ok(Self { store: store.clone(), current, plan })
    }

    /// Returns the rules of the bucket as they are.
    #[must_use]
    pub fn current(&self) -> Vec<LifecycleRuleSummary> {
        self.current.iter().map(LifecycleRuleSummary::from_rule).collect()
    }

    /// Descriptions of other rules that would delete or archive objects that the table needs.
    #[must_use]
    pub fn dangers(&self) -> &[String] {
        &self.plan.dangers
    }

    /// Adds the rules of the table to the bucket. All other rules remain unchanged.
    ///
    /// S3 replaces the rules as a whole. The plan therefore includes the rules of others, and the rules that were read
    /// are compared with the bucket again right before.
    ///
    /// # Errors
    /// Those of [`S3Store::put_lifecycle`].
    pub async fn apply(&self, mode: RunMode) -> Result<LifecycleReport> {
        let outcome = match (self.plan.is_empty(), mode) {
            (true, _) => Outcome::Unchanged,
            (false, RunMode::Commit) => {
                self.store.put_lifecycle(&self.current, &self.plan).await?;
                Outcome::Applied
            }
            (false, RunMode::DryRun) => Outcome::Planned,
        };
        let LifecyclePlan { rules, added, changed, dangers, .. } = self.plan.clone();
        let rules = rules.iter().map(LifecycleRuleSummary::from_rule).collect();
        Ok(LifecycleReport { outcome, added, changed, rules, dangers })
    }
}

/// Plans the rules for the table. The pointer in the default place is protected even if the state root is elsewhere.
fn plan_of(current: &[LifecycleRule], journal: &Journal, days: LifecycleDays) -> LifecyclePlan {
    let (root, state) = (journal.table().as_ref(), journal.state_root().as_ref());
    let pointer = default_state_root(journal.table()).to_string();
    let mut table = ProtectedTable::new(root, state);
    table.pointer = pointer;
    plan_lifecycle(current, &lifecycle_rules(root, state, days), &table)
}

impl LifecycleRuleSummary {
    fn from_rule(rule: &LifecycleRule) -> Self {
        let expiration = rule.expiration();
        let transitions = rule.transitions().iter().filter_map(|t| t.storage_class());
        Self {
            id: rule.id().map(str::to_owned),
            prefix: lifecycle_prefix(rule).to_owned(),
            status: rule.status().as_str().to_owned(),
            expire_days: expiration.and_then(|e| e.days()),
            expire_date: expiration.and_then(|e| e.date()).map(ToString::to_string),
            expire_delete_markers: expiration.and_then(|e| e.expired_object_delete_marker()),
            noncurrent_days: rule.noncurrent_version_expiration().and_then(|n| n.noncurrent_days()),
            abort_upload_days: rule.abort_incomplete_multipart_upload().and_then(|a| a.days_after_initiation()),
            transitions: transitions.map(|c| c.as_str().to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_sdk_s3::types::{ExpirationStatus, LifecycleExpiration, LifecycleRuleFilter};
    use biscuit_journal::{JournalOptions, TableStorage};
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;

    #[test]
    fn rule_on_the_pointer_of_a_moved_state_root_is_a_danger() {
        let storage = TableStorage::durable(Arc::new(InMemory::new()));
        let journal = Journal::new(storage, Path::from("lake/t"), JournalOptions::default());
        let journal = journal.with_state_root(Path::from("states/t"));
        let rule = |prefix: &str| {
            LifecycleRule::builder()
                .id("mine")
                .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
                .status(ExpirationStatus::Enabled)
                .expiration(LifecycleExpiration::builder().days(9).build())
                .build()
                .unwrap()
        };
        let plan = |prefix: &str| plan_of(&[rule(prefix)], &journal, LifecycleDays::default());
        assert_eq!(plan("lake/.biscuit/").dangers.len(), 1, "{:?}", plan("lake/.biscuit/").dangers);
        assert_eq!((plan("elsewhere/").dangers, plan("elsewhere/").added.len()), (vec![], 3));
        let summary = LifecycleRuleSummary::from_rule(&rule("x/"));
        assert_eq!((summary.prefix.as_str(), summary.expire_days, summary.status.as_str()), ("x/", Some(9), "Enabled"));
    }
}
