//! The purge plan: every listed object with its decision. A plan is a value that can be printed, stored and read
//! again.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, Result};
use serde_json::{Map, Value, json};

use crate::codes;
use crate::keys::{folder_prefix, is_below};
use crate::listed::{ListedObject, MultipartUpload, VersionKind};
use crate::listing::ObjectListing;

/// Reason why a plan keeps a listed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeepReason {
    /// It is a live file of a table.
    Live,
    /// It belongs to the state of a table: journal, state files, staged files, pointer.
    State,
    /// This run has written it.
    Own,
    /// It is not old enough.
    Newer,
    /// It was modified, or may have been modified, after the listing began.
    AfterListing,
    /// Its storage class is excluded.
    StorageClass,
    /// Its age is unknown: the listing has no time of modification for it.
    NoTime,
    /// It is a retained file whose retention has not ended.
    Retained,
    /// It is a delete marker, and a version that it hides is kept.
    HidesOlder,
    /// It is the marker of a folder.
    Folder,
}

impl KeepReason {
    /// Name of the reason in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::State => "state",
            Self::Own => "own",
            Self::Newer => "newer",
            Self::AfterListing => "after-listing",
            Self::StorageClass => "storage-class",
            Self::NoTime => "no-time",
            Self::Retained => "retained",
            Self::HidesOlder => "hides-older",
            Self::Folder => "folder",
        }
    }
}

/// Decision of a plan about one listed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PurgeDecision {
    /// The object is deleted.
    Delete,
    /// The object is kept.
    Keep(KeepReason),
}

/// A list of objects with the decision to delete or keep each one. Deleting is possible only with a plan, and every
/// way to make a plan checks its guards.
///
/// ```
/// use biscuit_purge::{ListedObject, PurgePlan};
///
/// let plan = PurgePlan::exact("t", [ListedObject::new("t/day=1/a", 7, None)])?;
/// assert_eq!((plan.summary().objects, plan.summary().bytes), (1, 7));
///
/// // A stored plan is read back for a later run.
/// let lines: Vec<String> = plan.json_lines().collect();
/// let stored = PurgePlan::from_json_lines("t", "plan.jsonl", &lines.join("\n"))?;
/// assert_eq!(stored, plan);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgePlan {
    prefix: String,
    listing: ObjectListing,
    decisions: Vec<PurgeDecision>,
    uploads: Vec<MultipartUpload>,
}

/// Counts of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanSummary {
    /// Number of objects and versions to delete.
    pub objects: u64,
    /// Sum of their sizes in bytes.
    pub bytes: u64,
    /// Number of objects to keep, by the name of the reason.
    pub kept: BTreeMap<&'static str, u64>,
    /// Number of unfinished uploads to abort.
    pub uploads: u64,
}

impl PurgePlan {
    /// Plans to delete exactly `files`, which must all be below `prefix`.
    ///
    /// # Errors
    /// `EmptyPrefix` for the root of a store; `OutsidePrefix` for a file that is not below the prefix, compared by
    /// whole segments: `t_backup/x` is not below `t`.
    pub fn exact(prefix: impl AsRef<str>, files: impl IntoIterator<Item = ListedObject>) -> Result<Self> {
        Self::keeping(prefix, files.into_iter().collect(), |_| None)
    }

    /// Plans to delete all objects of a listing except those for which `keep` returns a reason.
    ///
    /// # Errors
    /// Those of [`exact`](Self::exact).
    pub fn keeping(
        prefix: impl AsRef<str>,
        listing: ObjectListing,
        keep: impl Fn(&ListedObject) -> Option<KeepReason>,
    ) -> Result<Self> {
        let prefix = prefix.as_ref();
        if folder_prefix(prefix).is_empty() {
            return Err(empty_prefix());
        }
        Self::decide_all(prefix, listing, |object| keep(object).map_or(PurgeDecision::Delete, PurgeDecision::Keep))
    }

    /// Makes a plan with a decision for each object of a listing. Every other constructor ends here, so no plan can
    /// contain an object outside of its prefix.
    pub(crate) fn decide_all(
        prefix: &str,
        listing: ObjectListing,
        decide: impl Fn(&ListedObject) -> PurgeDecision,
    ) -> Result<Self> {
        let mut decisions = Vec::with_capacity(listing.len());
        for object in &listing {
            if !is_below(object.key(), prefix) {
                let message = format!("`{}` is not below `{}`", object.key(), prefix.trim_matches('/'));
                return Err(Error::new(codes::OUTSIDE_PREFIX, message));
            }
            decisions.push(decide(&object));
        }
        Ok(Self { prefix: folder_prefix(prefix), listing, decisions, uploads: vec![] })
    }

    /// Replaces the decisions of the plan, each from the object and its decision so far.
    pub(crate) fn revise_decisions(mut self, decide: impl Fn(&ListedObject, PurgeDecision) -> PurgeDecision) -> Self {
        for (object, decision) in self.listing.iter().zip(&mut self.decisions) {
            *decision = decide(&object, *decision);
        }
        self
    }

    /// Adds unfinished uploads to abort.
    ///
    /// # Errors
    /// `OutsidePrefix` for an upload to a key that is not below the prefix.
    pub fn with_uploads(mut self, uploads: impl IntoIterator<Item = MultipartUpload>) -> Result<Self> {
        for upload in uploads {
            if !is_below(&upload.key, &self.prefix) {
                let message = format!("the upload of `{}` is not below `{}`", upload.key, self.prefix());
                return Err(Error::new(codes::OUTSIDE_PREFIX, message));
            }
            self.uploads.push(upload);
        }
        Ok(self)
    }

    /// Prefix of all objects and uploads of the plan.
    pub fn prefix(&self) -> &str {
        self.prefix.trim_end_matches('/')
    }

    /// Returns every listed object with its decision, in the order of the listing.
    pub fn objects(&self) -> impl Iterator<Item = (ListedObject, PurgeDecision)> + '_ {
        self.listing.iter().zip(self.decisions.iter().copied())
    }

    /// Returns the objects to delete, in the order of the listing.
    pub fn deletes(&self) -> impl Iterator<Item = ListedObject> + '_ {
        self.objects().filter(|(_, d)| *d == PurgeDecision::Delete).map(|(object, _)| object)
    }

    /// Unfinished uploads to abort.
    pub fn uploads(&self) -> &[MultipartUpload] {
        &self.uploads
    }

    /// Whether the plan deletes no object and aborts no upload.
    pub fn is_empty(&self) -> bool {
        self.uploads.is_empty() && !self.decisions.contains(&PurgeDecision::Delete)
    }

    /// Counts the objects and uploads of the plan.
    pub fn summary(&self) -> PlanSummary {
        let mut summary = PlanSummary { uploads: self.uploads.len() as u64, ..PlanSummary::default() };
        for (object, decision) in self.objects() {
            match decision {
                PurgeDecision::Delete => {
                    summary.objects += 1;
                    summary.bytes = summary.bytes.saturating_add(object.listed.size);
                }
                PurgeDecision::Keep(reason) => *summary.kept.entry(reason.name()).or_default() += 1,
            }
        }
        summary
    }

    /// Returns the folders of which every listed object is deleted, by their whole path. A catalog may drop them as
    /// partitions.
    pub fn emptied_folders(&self) -> BTreeSet<String> {
        let mut folders: BTreeMap<String, bool> = BTreeMap::new();
        for (object, decision) in self.objects().filter(|(o, _)| o.form == VersionKind::Current) {
            let folder = object.listed.folder();
            let deletable = decision == PurgeDecision::Delete || decision == PurgeDecision::Keep(KeepReason::Folder);
            match folders.get_mut(folder) {
                Some(all) => *all &= deletable,
                None => drop(folders.insert(folder.to_owned(), deletable)),
            }
        }
        folders.into_iter().filter(|(_, all)| *all).map(|(folder, _)| folder).collect()
    }

    /// Formats the plan as lines of JSON: every object with its decision, then the uploads. [`from_json_lines`] reads
    /// them.
    ///
    /// [`from_json_lines`]: Self::from_json_lines
    pub fn json_lines(&self) -> impl Iterator<Item = String> + '_ {
        let objects = self.objects().map(|(object, decision)| match decision {
            PurgeDecision::Delete => {
                let mut line = object_json(&object);
                line.insert("action".to_owned(), json!("delete"));
                Value::Object(line).to_string()
            }
            PurgeDecision::Keep(reason) => kept_line(&object, reason),
        });
        let uploads = self.uploads.iter().map(|upload| {
            json!({"key": upload.key, "upload": upload.id, "begun": upload.begun.map(|t| t.to_string()), "action": "abort"})
                .to_string()
        });
        objects.chain(uploads)
    }

    /// Formats only the kept objects as lines of JSON, each with its reason.
    pub fn kept_json_lines(&self) -> impl Iterator<Item = String> + '_ {
        self.objects().filter_map(|(object, decision)| match decision {
            PurgeDecision::Delete => None,
            PurgeDecision::Keep(reason) => Some(kept_line(&object, reason)),
        })
    }

    /// Reads a plan from lines of JSON. It deletes exactly the objects that the written plan deletes; kept objects
    /// are omitted. `name` is the name of the file in errors.
    ///
    /// # Errors
    /// `UnreadablePlan` with the line; those of [`exact`](Self::exact) and [`with_uploads`](Self::with_uploads),
    /// since a stored plan may have been edited.
    pub fn from_json_lines(prefix: &str, name: &str, text: &str) -> Result<Self> {
        let (mut files, mut uploads) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let unreadable = |what: &str| {
                let message = format!("a line of the plan is not valid: {what}");
                Error::new(codes::UNREADABLE_PLAN, message).at(name, number)
            };
            let line: Map<String, Value> =
                serde_json::from_str(line).map_err(|e| unreadable("it is not a JSON object").with_source(e))?;
            let text = |field: &str| line.get(field).and_then(Value::as_str).map(str::to_owned);
            let key = text("key").ok_or_else(|| unreadable("it has no `key`"))?;
            let instant = |field: &str| text(field).map(|t| t.parse()).transpose();
            match text("action").as_deref() {
                Some("keep") => {}
                Some("abort") => {
                    let id = text("upload").ok_or_else(|| unreadable("it has no `upload`"))?;
                    uploads.push(MultipartUpload { key, id, begun: instant("begun")? });
                }
                Some("delete") => {
                    let size = line.get("size").and_then(Value::as_u64).filter(|size| *size <= MAX_SIZE);
                    let size = size.ok_or_else(|| unreadable("it has no `size`, or a `size` above the maximum"))?;
                    let form = match text("form").as_deref() {
                        None => VersionKind::Current,
                        Some("noncurrent") => VersionKind::Noncurrent,
                        Some("delete-marker") => VersionKind::DeleteMarker,
                        Some(_) => return Err(unreadable("its `form` is not one of noncurrent and delete-marker")),
                    };
                    files.push(ListedObject {
                        version: text("version"),
                        modified: instant("modified")?,
                        storage_class: text("storage_class"),
                        form,
                        ..ListedObject::new(key, size, text("etag"))
                    });
                }
                _ => return Err(unreadable("its `action` is not one of delete, keep and abort")),
            }
        }
        Self::exact(prefix, files)?.with_uploads(uploads)
    }
}

/// Maximum size of an object in a stored plan, 1 PiB. No store has larger objects, and the sum of a plan cannot
/// overflow.
const MAX_SIZE: u64 = 1 << 50;

fn kept_line(object: &ListedObject, reason: KeepReason) -> String {
    let mut line = object_json(object);
    line.insert("action".to_owned(), json!("keep"));
    line.insert("reason".to_owned(), json!(reason.name()));
    Value::Object(line).to_string()
}

pub(crate) fn empty_prefix() -> Error {
    Error::new(
        codes::EMPTY_PREFIX,
        "a purge plan needs a prefix, and the root of a store is not one; allow `bucket-root` to plan for the whole store",
    )
}

/// Formats an object for plans and reports.
pub(crate) fn object_json(object: &ListedObject) -> Map<String, Value> {
    let mut line = Map::new();
    let mut put =
        |name: &str, value: Option<Value>| value.into_iter().for_each(|v| drop(line.insert(name.to_owned(), v)));
    put("key", Some(json!(object.key())));
    put("size", Some(json!(object.listed.size)));
    put("etag", object.listed.etag.as_ref().map(|e| json!(e)));
    put("version", object.version.as_ref().map(|v| json!(v)));
    put("modified", object.modified.map(|t| json!(t.to_string())));
    put("storage_class", object.storage_class.as_ref().map(|c| json!(c)));
    let form = match object.form {
        VersionKind::Current => None,
        VersionKind::Noncurrent => Some(json!("noncurrent")),
        VersionKind::DeleteMarker => Some(json!("delete-marker")),
    };
    put("form", form);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(key: &str) -> ListedObject {
        ListedObject::new(key, 1, None)
    }

    #[test]
    fn sibling_with_the_same_start_is_outside_the_prefix() {
        let e = PurgePlan::exact("lake/t", [file("lake/t/a"), file("lake/t_backup/a")]).unwrap_err();
        assert_eq!(e.code(), "OutsidePrefix");
        assert!(e.message().contains("lake/t_backup/a"));
    }

    #[test]
    fn the_prefix_itself_and_the_root_are_refused() {
        assert_eq!(PurgePlan::exact("t", [file("t")]).unwrap_err().code(), "OutsidePrefix");
        assert_eq!(PurgePlan::exact("", [file("t/a")]).unwrap_err().code(), "EmptyPrefix");
        assert_eq!(PurgePlan::exact("/", [file("t/a")]).unwrap_err().code(), "EmptyPrefix");
    }

    #[test]
    fn stored_plan_deletes_the_same_objects() {
        let version = ListedObject { version: Some("v1".into()), form: VersionKind::Noncurrent, ..file("t/b ü") };
        let begun = "2024-02-29T12:00:00Z".parse().ok();
        let decide = |o: &ListedObject| {
            if o.key() == "t/kept" { PurgeDecision::Keep(KeepReason::Own) } else { PurgeDecision::Delete }
        };
        let plan = PurgePlan::decide_all("t", [file("t/a"), file("t/kept"), version].into_iter().collect(), decide);
        let plan = plan.unwrap().with_uploads([MultipartUpload { key: "t/u".into(), id: "7".into(), begun }]).unwrap();
        let lines: Vec<String> = plan.json_lines().collect();
        let again = PurgePlan::from_json_lines("t", "plan.jsonl", &lines.join("\n")).unwrap();
        assert!(again.deletes().eq(plan.deletes()) && again.uploads() == plan.uploads());
        let e = PurgePlan::from_json_lines("t", "plan.jsonl", "{\"key\":\"t/a\",\"size\":1,\"action\":\"delete\"}\n{}")
            .unwrap_err();
        assert_eq!((e.code(), e.file(), e.row()), ("UnreadablePlan", Some("plan.jsonl"), Some(2)));
        let line = format!("{{\"key\":\"t/a\",\"size\":{},\"action\":\"delete\"}}", u64::MAX);
        let e = PurgePlan::from_json_lines("t", "plan.jsonl", &format!("{line}\n{line}")).unwrap_err();
        assert_eq!((e.code(), e.row()), ("UnreadablePlan", Some(1)));
        let e = PurgePlan::from_json_lines("t", "p", r#"{"key":"t_backup/a","size":1,"action":"delete"}"#).unwrap_err();
        assert_eq!(e.code(), "OutsidePrefix");
    }

    #[test]
    fn folder_is_emptied_if_all_its_listed_objects_are_deleted() {
        let decide = |o: &ListedObject| {
            if o.key() == "t/b/2" { PurgeDecision::Keep(KeepReason::Newer) } else { PurgeDecision::Delete }
        };
        let listing = ["t/a/1", "t/a/2", "t/b/1", "t/b/2"].map(file).into_iter().collect();
        let plan = PurgePlan::decide_all("t", listing, decide).unwrap();
        assert_eq!(plan.emptied_folders(), BTreeSet::from(["t/a".to_owned()]));
    }
}
