//! Lifecycle rules, by which S3 deletes objects itself: the rules that a table needs, their merge with existing
//! rules, and existing rules that would harm a table.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, NoncurrentVersionExpiration,
};
use biscuit_core::{Error, Result};

use crate::keys::folder_prefix;
use crate::rules::ProtectedTable;
use crate::s3::S3Store;
use crate::s3::error::s3_error;

/// Periods in days after which lifecycle rules delete objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LifecycleDays {
    /// Days until staged files are deleted. Default: 30. A version that is committed but not finished for longer than
    /// this loses its staged files, so the period must be far longer than any pause between runs.
    pub staging: i32,
    /// Days until versions are deleted after they stopped being current, in a bucket with versions. Default: 30.
    pub noncurrent: i32,
    /// Days until unfinished uploads are aborted. Default: 7.
    pub uploads: i32,
}

impl Default for LifecycleDays {
    fn default() -> Self {
        Self { staging: 30, noncurrent: 30, uploads: 7 }
    }
}

/// Planned change of the lifecycle rules of a bucket.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LifecyclePlan {
    /// All rules that the bucket is to have.
    pub rules: Vec<LifecycleRule>,
    /// Ids of added rules.
    pub added: Vec<String>,
    /// Ids of changed rules.
    pub changed: Vec<String>,
    /// Descriptions of other rules that would delete or archive objects that a table needs.
    pub dangers: Vec<String>,
}

impl LifecyclePlan {
    /// Whether the bucket has all wanted rules already.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty()
    }
}

/// Returns the rules for a table with this folder and state root. They delete old versions of files and of state
/// files, staged files, and unfinished uploads. No rule covers the journal.
pub fn lifecycle_rules(root: &str, state: &str, days: LifecycleDays) -> Vec<LifecycleRule> {
    let noncurrent = NoncurrentVersionExpiration::builder().noncurrent_days(days.noncurrent).build();
    let abort = AbortIncompleteMultipartUpload::builder().days_after_initiation(days.uploads).build();
    // Deletes a delete marker once it hides no version any more.
    let marks = LifecycleExpiration::builder().expired_object_delete_marker(true).build();
    let staged = LifecycleExpiration::builder().days(days.staging).build();
    let rule = |kind: &str, prefix: String, expiration, uploads: bool| {
        LifecycleRule::builder()
            .id(format!("biscuit-{kind}-{:016x}", hash_fnv(&prefix)))
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .status(ExpirationStatus::Enabled)
            .expiration(expiration)
            .noncurrent_version_expiration(noncurrent.clone())
            .set_abort_incomplete_multipart_upload(uploads.then(|| abort.clone()))
            .build()
            .expect("the rule has a status")
    };
    let state = folder_prefix(state);
    vec![
        rule("table", folder_prefix(root), marks.clone(), true),
        rule("staging", format!("{state}staging/"), staged, true),
        rule("state", format!("{state}state/"), marks, false),
    ]
}

/// Merges wanted rules into the current rules: a rule with the same id is replaced, all others remain as they are.
pub fn plan_lifecycle(current: &[LifecycleRule], wanted: &[LifecycleRule], table: &ProtectedTable) -> LifecyclePlan {
    let mut plan = LifecyclePlan { rules: current.to_vec(), added: vec![], changed: vec![], dangers: vec![] };
    for rule in wanted {
        let id = rule.id().unwrap_or_default();
        match plan.rules.iter_mut().find(|r| r.id() == rule.id()) {
            None => {
                plan.rules.push(rule.clone());
                plan.added.push(id.to_owned());
            }
            Some(has) if !has_same_effect(has, rule) => {
                *has = rule.clone();
                plan.changed.push(id.to_owned());
            }
            Some(_) => {}
        }
    }
    let ours = |rule: &&LifecycleRule| !wanted.iter().any(|w| w.id() == rule.id());
    plan.dangers = current.iter().filter(ours).filter_map(|rule| describe_danger(rule, table)).collect();
    plan
}

/// Returns the prefix that a rule covers; empty if it covers the whole bucket.
pub fn lifecycle_prefix(rule: &LifecycleRule) -> &str {
    let filter = rule.filter();
    let and = filter.and_then(|f| f.and()).and_then(|and| and.prefix());
    #[expect(deprecated, reason = "rules of before 2016 name their prefix this way, and are still in force")]
    let old = rule.prefix();
    filter.and_then(LifecycleRuleFilter::prefix).or(and).or(old).unwrap_or_default()
}

/// Whether two rules have the same effect. A store may return a rule in another form than the one that was put.
fn has_same_effect(a: &LifecycleRule, b: &LifecycleRule) -> bool {
    let days = |r: &LifecycleRule| {
        let expiration = r.expiration();
        (
            expiration.and_then(LifecycleExpiration::days),
            expiration.and_then(LifecycleExpiration::expired_object_delete_marker).unwrap_or(false),
            r.noncurrent_version_expiration().and_then(NoncurrentVersionExpiration::noncurrent_days),
            r.abort_incomplete_multipart_upload().and_then(AbortIncompleteMultipartUpload::days_after_initiation),
        )
    };
    let date = |r: &LifecycleRule| r.expiration().and_then(LifecycleExpiration::date).copied();
    lifecycle_prefix(a) == lifecycle_prefix(b)
        && a.status() == b.status()
        && days(a) == days(b)
        && date(a) == date(b)
        && a.transitions() == b.transitions()
}

/// Describes how another rule would harm a table; `None` if it does not. The most harmful effect comes first, since one
/// rule may cover several places.
fn describe_danger(rule: &LifecycleRule, table: &ProtectedTable) -> Option<String> {
    let ProtectedTable { root, state, pointer, .. } = table;
    let prefix = lifecycle_prefix(rule);
    let covers = |folder: &str| folder.starts_with(prefix) || prefix.starts_with(folder);
    let what = if covers(&format!("{}journal/", folder_prefix(state))) {
        "the journal"
    } else if covers(&folder_prefix(root)) {
        "files of the table"
    } else if covers(&format!("{}state/", folder_prefix(state))) {
        "the state"
    } else if !pointer.is_empty() && covers(&folder_prefix(pointer)) {
        "the pointer to the state root"
    } else {
        return None;
    };
    let expiration = rule.expiration().filter(|e| e.days().is_some() || e.date().is_some());
    let archive = rule.transitions().iter().find_map(|t| t.storage_class()).map(|c| c.as_str());
    let does = match (expiration, archive) {
        (Some(_), _) => "expires".to_owned(),
        (None, Some(class @ ("GLACIER" | "DEEP_ARCHIVE"))) => format!("moves to {class}"),
        _ => return None,
    };
    let enabled = *rule.status() == ExpirationStatus::Enabled;
    let id = rule.id().unwrap_or("without an id");
    enabled.then(|| format!("rule `{id}` {does} {what}: its prefix is `{prefix}`"))
}

/// FNV-1a hash with 64 bits (constants of the Fowler-Noll-Vo draft). An id of a rule has at most 255 characters, a
/// prefix up to 1,024, so the id contains a hash of the prefix.
fn hash_fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl S3Store {
    /// Returns the lifecycle rules of the bucket.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn lifecycle(&self) -> Result<Vec<LifecycleRule>> {
        match self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await {
            Ok(found) => Ok(found.rules.unwrap_or_default()),
            Err(e) if e.code() == Some("NoSuchLifecycleConfiguration") => Ok(vec![]),
            Err(e) => Err(s3_error("read the lifecycle rules of", self.describe_key(""), e)),
        }
    }

    /// Puts the rules of a plan, and reads them again to check that the bucket has them. `before` are the rules from
    /// which the plan was made.
    ///
    /// S3 has no condition for this request. A rule that another program puts between the check and the put is lost;
    /// the check after the put finds rules that another program puts after it.
    ///
    /// # Errors
    /// `Conflict` if the rules have changed since the plan was made, or differ from the written rules afterwards;
    /// errors of the store.
    pub async fn put_lifecycle(&self, before: &[LifecycleRule], plan: &LifecyclePlan) -> Result<()> {
        let differ =
            |what: &str| Error::new(biscuit_core::codes::CONFLICT, format!("the lifecycle rules {what}; run again"));
        if self.lifecycle().await? != before {
            return Err(differ("were changed by another program"));
        }
        let rules = BucketLifecycleConfiguration::builder().set_rules(Some(plan.rules.clone())).build();
        let rules = rules.map_err(|e| Error::internal("lifecycle rules could not be built").with_source(e))?;
        let put = self.client.put_bucket_lifecycle_configuration().bucket(&self.bucket).lifecycle_configuration(rules);
        put.send().await.map_err(|e| s3_error("write the lifecycle rules of", self.describe_key(""), e))?;
        let now = self.lifecycle().await?;
        let has = |rule: &LifecycleRule| now.iter().any(|r| r.id() == rule.id() && has_same_effect(r, rule));
        if now.len() == plan.rules.len() && plan.rules.iter().all(has) {
            return Ok(());
        }
        Err(differ("differ from the written rules"))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{Transition, TransitionStorageClass};

    use super::*;

    fn foreign(id: &str, prefix: &str) -> aws_sdk_s3::types::builders::LifecycleRuleBuilder {
        let filter = LifecycleRuleFilter::builder().prefix(prefix).build();
        LifecycleRule::builder().id(id).filter(filter).status(ExpirationStatus::Enabled)
    }

    fn table() -> ProtectedTable {
        ProtectedTable {
            root: "lake/t".into(),
            state: "lake/.biscuit/t".into(),
            pointer: "lake/.biscuit/t".into(),
            ..ProtectedTable::default()
        }
    }

    fn wanted() -> Vec<LifecycleRule> {
        lifecycle_rules("lake/t", "lake/.biscuit/t", LifecycleDays::default())
    }

    #[test]
    fn rules_of_a_table_neither_cover_the_journal_nor_expire_live_files() {
        let rules = wanted();
        let prefixes: Vec<&str> = rules.iter().map(lifecycle_prefix).collect();
        assert_eq!(prefixes, ["lake/t/", "lake/.biscuit/t/staging/", "lake/.biscuit/t/state/"]);
        for rule in &rules {
            let expires = rule.expiration().and_then(LifecycleExpiration::days).is_some();
            assert_eq!(expires, lifecycle_prefix(rule).ends_with("/staging/"));
            assert!(!"lake/.biscuit/t/journal/".starts_with(lifecycle_prefix(rule)));
            assert!(rule.id().is_some_and(|id| id.len() < 256));
        }
    }

    #[test]
    fn other_rules_remain_and_own_rules_are_replaced_by_id() {
        let other =
            foreign("theirs", "logs/").expiration(LifecycleExpiration::builder().days(7).build()).build().unwrap();
        let days = LifecycleDays { uploads: 99, ..LifecycleDays::default() };
        let mut old = lifecycle_rules("lake/t", "lake/.biscuit/t", days);
        old.truncate(2);
        let current = [vec![other.clone()], old].concat();
        let plan = plan_lifecycle(&current, &wanted(), &table());
        assert_eq!((plan.added.len(), plan.changed.len(), plan.rules.len()), (1, 2, 4));
        assert_eq!(plan.rules[0], other);
        assert!(plan.dangers.is_empty());
        assert!(plan_lifecycle(&plan.rules, &wanted(), &table()).is_empty(), "a second plan changes nothing");
    }

    #[test]
    fn rule_that_expires_the_pointer_to_a_moved_state_root_is_reported() {
        let expire = LifecycleExpiration::builder().days(30).build();
        let rules = [foreign("hidden", "lake/.biscuit/").expiration(expire).build().unwrap()];
        let moved = ProtectedTable { state: "states/t".into(), ..table() };
        assert_eq!(
            plan_lifecycle(&rules, &[], &moved).dangers,
            ["rule `hidden` expires the pointer to the state root: its prefix is `lake/.biscuit/`"]
        );
    }

    #[test]
    fn harmful_rules_of_others_are_reported() {
        let expire = || LifecycleExpiration::builder().days(30).build();
        let glacier = Transition::builder().days(1).storage_class(TransitionStorageClass::Glacier).build();
        let rules = [
            foreign("all", "").expiration(expire()).build().unwrap(),
            foreign("state", "lake/.biscuit/").expiration(expire()).build().unwrap(),
            foreign("cold", "lake/t/").transitions(glacier).build().unwrap(),
            foreign("off", "").expiration(expire()).status(ExpirationStatus::Disabled).build().unwrap(),
            foreign("beside", "lake/t2/").expiration(expire()).build().unwrap(),
            foreign("uploads", "").build().unwrap(),
        ];
        let dangers = plan_lifecycle(&rules, &wanted(), &table()).dangers;
        assert_eq!(
            dangers,
            [
                "rule `all` expires the journal: its prefix is ``",
                "rule `state` expires the journal: its prefix is `lake/.biscuit/`",
                "rule `cold` moves to GLACIER files of the table: its prefix is `lake/t/`",
            ]
        );
    }
}
