//! Rules by which S3 deletes by itself: those that a lake needs, what others set, and what would do harm.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, NoncurrentVersionExpiration,
};
use biscuit_core::{Error, ErrorKind, Result};

use crate::keys::whole;
use crate::rules::ProtectedTable;
use crate::s3::S3Store;
use crate::s3::error::s3_error;

/// After how many days the rules of a lake delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LifecycleDays {
    /// Staged files. A version that is committed and not finished for so long loses what it staged: far more than a job may rest.
    /// Default: 30.
    pub staging: i32,
    /// Versions that are not current any more, in a bucket that keeps them. Default: 30.
    pub noncurrent: i32,
    /// Uploads that were not finished. Default: 7.
    pub uploads: i32,
}

impl Default for LifecycleDays {
    fn default() -> Self {
        Self { staging: 30, noncurrent: 30, uploads: 7 }
    }
}

/// What becomes of the rules of a bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct LifecyclePlan {
    /// All rules, as they are to be.
    pub rules: Vec<LifecycleRule>,
    /// Ids of rules that are added.
    pub added: Vec<String>,
    /// Ids of rules that change.
    pub changed: Vec<String>,
    /// How other people's rules would delete, or move out of reach, what a table needs.
    pub dangers: Vec<String>,
}

impl LifecyclePlan {
    /// Whether the bucket has all of it already.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty()
    }
}

/// The rules that a table needs whose files and state are at these places: old versions of files and of state, staging, unfinished
/// uploads. None of them is about the journal.
pub fn lifecycle_rules(root: &str, state: &str, days: LifecycleDays) -> Vec<LifecycleRule> {
    let noncurrent = NoncurrentVersionExpiration::builder().noncurrent_days(days.noncurrent).build();
    let abort = AbortIncompleteMultipartUpload::builder().days_after_initiation(days.uploads).build();
    // The mark of a delete goes when nothing is left under it.
    let marks = LifecycleExpiration::builder().expired_object_delete_marker(true).build();
    let staged = LifecycleExpiration::builder().days(days.staging).build();
    let rule = |kind: &str, prefix: String, expiration, uploads: bool| {
        LifecycleRule::builder()
            .id(format!("biscuit-{kind}-{:016x}", fnv(&prefix)))
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .status(ExpirationStatus::Enabled)
            .expiration(expiration)
            .noncurrent_version_expiration(noncurrent.clone())
            .set_abort_incomplete_multipart_upload(uploads.then(|| abort.clone()))
            .build()
            .expect("it has a status")
    };
    let state = whole(state);
    vec![
        rule("table", whole(root), marks.clone(), true),
        rule("staging", format!("{state}staging/"), staged, true),
        rule("state", format!("{state}state/"), marks, false),
    ]
}

/// What becomes of these rules when others are to be among them: rules of the same id are replaced, all others stay as they are.
pub fn plan_lifecycle(current: &[LifecycleRule], wanted: &[LifecycleRule], table: &ProtectedTable) -> LifecyclePlan {
    let mut plan = LifecyclePlan { rules: current.to_vec(), added: vec![], changed: vec![], dangers: vec![] };
    for rule in wanted {
        let id = rule.id().unwrap_or_default();
        match plan.rules.iter_mut().find(|r| r.id() == rule.id()) {
            None => {
                plan.rules.push(rule.clone());
                plan.added.push(id.to_owned());
            }
            Some(has) if !same(has, rule) => {
                *has = rule.clone();
                plan.changed.push(id.to_owned());
            }
            Some(_) => {}
        }
    }
    let ours = |rule: &&LifecycleRule| !wanted.iter().any(|w| w.id() == rule.id());
    plan.dangers = current.iter().filter(ours).filter_map(|rule| danger(rule, table)).collect();
    plan
}

/// The prefix that a rule is about; all of the bucket, if it names none.
pub fn lifecycle_prefix(rule: &LifecycleRule) -> &str {
    let filter = rule.filter();
    let and = filter.and_then(|f| f.and()).and_then(|and| and.prefix());
    #[expect(deprecated, reason = "rules of before 2016 name their prefix this way, and are still in force")]
    let old = rule.prefix();
    filter.and_then(LifecycleRuleFilter::prefix).or(and).or(old).unwrap_or_default()
}

/// Whether two rules do the same, however a store writes them down.
fn same(a: &LifecycleRule, b: &LifecycleRule) -> bool {
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

/// What somebody else's rule would do to a table.
fn danger(rule: &LifecycleRule, table: &ProtectedTable) -> Option<String> {
    let ProtectedTable { root, state, pointer, .. } = table;
    let prefix = lifecycle_prefix(rule);
    let covers = |folder: &str| folder.starts_with(prefix) || prefix.starts_with(folder);
    let what = if covers(&format!("{}journal/", whole(state))) {
        "the journal"
    } else if covers(&whole(root)) {
        "files of the table"
    } else if covers(&format!("{}state/", whole(state))) {
        "the state"
    } else if !pointer.is_empty() && covers(&whole(pointer)) {
        "the pointer to the table's state"
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

/// FNV-1a (the 64-bit constants of the Fowler-Noll-Vo draft): ids of rules may be 255 characters long, prefixes 1,024.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl S3Store {
    /// The lifecycle rules of the bucket.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn lifecycle(&self) -> Result<Vec<LifecycleRule>> {
        match self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await {
            Ok(found) => Ok(found.rules.unwrap_or_default()),
            Err(e) if e.code() == Some("NoSuchLifecycleConfiguration") => Ok(vec![]),
            Err(e) => Err(s3_error("read the lifecycle rules of", self.place(""), e)),
        }
    }

    /// Gives the bucket the rules of a plan, and looks whether it has them. A bucket without rules to put has none put.
    ///
    /// # Errors
    /// `Conflict` if the rules are others than they were when the plan was made, or others than were put; those of the store. S3 has
    /// no condition here: a rule that somebody else puts within the same instant is lost, and the look shows what is there.
    pub async fn put_lifecycle(&self, before: &[LifecycleRule], plan: &LifecyclePlan) -> Result<()> {
        let differ =
            |what: &str| Error::new(ErrorKind::Conflict, "Conflict", format!("the lifecycle rules {what}; run again"));
        if self.lifecycle().await? != before {
            return Err(differ("were changed by somebody else"));
        }
        let rules = BucketLifecycleConfiguration::builder().set_rules(Some(plan.rules.clone())).build();
        let rules = rules.map_err(|e| Error::internal("lifecycle rules could not be put together").with_source(e))?;
        let put = self.client.put_bucket_lifecycle_configuration().bucket(&self.bucket).lifecycle_configuration(rules);
        put.send().await.map_err(|e| s3_error("write the lifecycle rules of", self.place(""), e))?;
        let now = self.lifecycle().await?;
        let has = |rule: &LifecycleRule| now.iter().any(|r| r.id() == rule.id() && same(r, rule));
        if now.len() == plan.rules.len() && plan.rules.iter().all(has) {
            return Ok(());
        }
        Err(differ("are not those that were written"))
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
    fn no_rule_of_ours_is_about_the_journal_or_expires_live_files() {
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
    fn rules_of_others_stay_and_ours_are_replaced_by_id() {
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
        assert!(plan_lifecycle(&plan.rules, &wanted(), &table()).is_empty(), "a second time nothing changes");
    }

    #[test]
    fn a_rule_that_expires_the_pointer_to_a_moved_state_is_named() {
        let expire = LifecycleExpiration::builder().days(30).build();
        let rules = [foreign("hidden", "lake/.biscuit/").expiration(expire).build().unwrap()];
        let moved = ProtectedTable { state: "states/t".into(), ..table() };
        assert_eq!(
            plan_lifecycle(&rules, &[], &moved).dangers,
            ["rule `hidden` expires the pointer to the table's state: its prefix is `lake/.biscuit/`"]
        );
    }

    #[test]
    fn rules_of_others_that_would_do_harm_are_named() {
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
