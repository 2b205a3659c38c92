use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use biscuit_core::{Error, Instant, Result};

use crate::keys::{check_lookalikes, is_below, whole};
use crate::listed::{ListedObject, VersionKind};
use crate::listing::ObjectListing;
use crate::plan::{KeepReason, PurgeDecision, PurgePlan, empty_prefix};
use crate::table_format::ForeignTableFormat;

/// What is never done unless it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AllowedDeletes {
    /// To plan for a whole bucket.
    pub bucket_root: bool,
    /// To plan for a folder in which a table is, or which is a part of one. Its files and its state stay in any case.
    pub overlap: bool,
    /// To leave nothing of what was listed.
    pub empty: bool,
    /// To delete keys that other programs may take for one another.
    pub lookalikes: bool,
    /// To plan for folders of other table formats, whose logs say which of their files count. Their live files are not known.
    pub other_formats: bool,
}

/// A table, whose files and state are in no plan by time. It is to be looked at behind the listing: what is published meanwhile is
/// then among its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectedTable {
    /// Its folder.
    pub root: String,
    /// Its state root.
    pub state: String,
    /// The folder of the pointer to its state root, if that was moved: its state root in the default place.
    pub pointer: String,
    /// The whole keys of its files.
    pub files: HashSet<String>,
}

impl ProtectedTable {
    /// Whether a key belongs to the state of the table, or is the pointer to it.
    pub fn has_state(&self, key: &str) -> bool {
        [&self.state, &self.pointer].into_iter().any(|folder| !folder.is_empty() && is_below(key, folder))
    }
}

/// The rules by which a listing is turned into a plan: a pure function, so that the plan of a dry run is the plan of the run.
///
/// All instants are on the store's clock; no other clock is asked.
#[derive(Debug, Clone)]
pub struct PurgeRules {
    prefix: String,
    /// What was modified before this goes.
    cutoff: Option<Instant>,
    /// Before the listing; what may have come after it stays.
    listed: Option<Instant>,
    excluded: BTreeSet<String>,
    outputs: HashSet<String>,
    tables: Vec<ProtectedTable>,
    allow: AllowedDeletes,
}

/// S3 says times of modification in whole seconds, and cuts off the rest.
const SECOND: i64 = 1_000_000;

impl PurgeRules {
    /// By time: what was modified before `cutoff` goes. `listed` is the store's time from before the listing: what was modified
    /// since then stays, whatever the cutoff.
    pub fn older_than(prefix: impl Into<String>, cutoff: Instant, listed: Instant) -> Self {
        Self { cutoff: Some(cutoff), listed: Some(listed), ..Self::existed_before(prefix) }
    }

    /// By membership: what is in the listing goes, which was taken before the job began. What came later is not in it, whatever
    /// its time of modification says.
    pub fn existed_before(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            cutoff: None,
            listed: None,
            excluded: BTreeSet::new(),
            outputs: HashSet::new(),
            tables: vec![],
            allow: AllowedDeletes::default(),
        }
    }

    /// The same rules; what was modified at `cutoff` or since stays.
    pub fn keeping_newer_than(mut self, cutoff: Instant) -> Self {
        self.cutoff = Some(self.cutoff.map_or(cutoff, |c| c.min(cutoff)));
        self
    }

    /// The same rules with a cutoff that lies further back.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.cutoff = self.cutoff.map(|c| c.saturating_sub(grace));
        self
    }

    /// The same rules; objects of this storage class stay, letter case aside.
    pub fn excluding_storage_class(mut self, class: impl AsRef<str>) -> Self {
        self.excluded.insert(class.as_ref().to_uppercase());
        self
    }

    /// The same rules; these keys were written by this run, and stay.
    pub fn with_outputs(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.outputs.extend(keys);
        self
    }

    /// The same rules with a table whose files and state stay.
    pub fn protecting(mut self, table: ProtectedTable) -> Self {
        self.tables.push(table);
        self
    }

    /// The same rules with what is allowed by name.
    pub fn allowing(mut self, allow: AllowedDeletes) -> Self {
        self.allow = allow;
        self
    }

    /// What becomes of these objects.
    ///
    /// # Errors
    /// `EmptyPrefix`, `OtherTableFormat`, `OverlapsTable`, `LiveFiles` where files of a table are as old as what goes, `LooksAlike`, `WouldEmpty`,
    /// `NothingWritten` where a job that replaces what existed before it has no outputs: each unless it is allowed, but for live
    /// files, which stay in any case. `OutsidePrefix` for an object that is not below the prefix.
    pub fn plan(&self, listing: ObjectListing) -> Result<PurgePlan> {
        if whole(&self.prefix).is_empty() && !self.allow.bucket_root {
            return Err(empty_prefix());
        }
        self.check_overlap()?;
        if self.listed.is_none() && self.outputs.is_empty() && !self.allow.empty {
            let message = "the job has written nothing; to delete what was there before it would leave nothing";
            return Err(Error::usage("NothingWritten", message));
        }
        if !self.allow.other_formats {
            refuse_other_formats(&listing)?;
        }
        if !self.allow.lookalikes {
            check_lookalikes(|| listing.iter().map(|o| o.key))?;
        }
        let versions = VersionDates::of(&listing);
        let plan = PurgePlan::decided(&self.prefix, listing, |object| self.decide(object, &versions))?;
        let plan = keep_marks(plan);
        self.check_live(&plan)?;
        self.check_emptying(&plan)?;
        Ok(plan)
    }

    fn decide(&self, object: &ListedObject, versions: &VersionDates) -> PurgeDecision {
        let key = &object.key;
        if self.tables.iter().any(|t| t.has_state(key)) {
            return PurgeDecision::Keep(KeepReason::State);
        }
        if key.ends_with('/') {
            return PurgeDecision::Keep(KeepReason::Folder);
        }
        if let Some(kept) = self.by_time(versions.replaced(object)) {
            return PurgeDecision::Keep(kept);
        }
        let class = object.storage_class.as_deref().unwrap_or("STANDARD").to_uppercase();
        if self.excluded.contains(&class) {
            return PurgeDecision::Keep(KeepReason::StorageClass);
        }
        if self.outputs.contains(key) {
            return PurgeDecision::Keep(KeepReason::Own);
        }
        if self.tables.iter().any(|t| t.files.contains(key)) {
            return PurgeDecision::Keep(KeepReason::Live);
        }
        PurgeDecision::Delete
    }

    fn by_time(&self, modified: Option<Instant>) -> Option<KeepReason> {
        if self.cutoff.is_none() && self.listed.is_none() {
            return None;
        }
        let Some(modified) = modified else { return Some(KeepReason::NoTime) };
        // A whole second may be any instant in it; then it counts as the last one.
        let at = modified.as_micros();
        let latest = if at % SECOND == 0 { at.saturating_add(SECOND - 1) } else { at };
        let since = |limit: Option<Instant>| limit.is_some_and(|limit| latest >= limit.as_micros());
        if since(self.listed) {
            return Some(KeepReason::AfterListing);
        }
        since(self.cutoff).then_some(KeepReason::Newer)
    }

    fn check_overlap(&self) -> Result<()> {
        let prefix = whole(&self.prefix);
        for table in &self.tables {
            let [root, state, pointer] = [&table.root, &table.state, &table.pointer].map(|folder| whole(folder));
            let touches =
                |folder: &str| !folder.is_empty() && (folder.starts_with(&prefix) || prefix.starts_with(folder));
            // The table itself is meant, if it is named.
            if self.allow.overlap || prefix == root || ![&root, &state, &pointer].into_iter().any(|f| touches(f)) {
                continue;
            }
            let message = format!(
                "`{}` overlaps with the table `{}`; nothing was deleted. Its files and its state would stay, if `overlap` is allowed",
                self.prefix,
                root.trim_end_matches('/')
            );
            return Err(Error::usage("OverlapsTable", message));
        }
        Ok(())
    }

    fn check_live(&self, plan: &PurgePlan) -> Result<()> {
        let mut live = plan.objects().filter(|(_, d)| *d == PurgeDecision::Keep(KeepReason::Live));
        let Some((first, _)) = live.next().filter(|_| !self.allow.overlap) else { return Ok(()) };
        let message = format!(
            "{} of the objects that are old enough are files of a table, the first of them `{}`; most files of a table are old, and none is deleted for its age. What a table has no more use for goes with `--retained` and `--orphans`",
            1 + live.count(),
            first.key
        );
        Err(Error::usage("LiveFiles", message))
    }

    fn check_emptying(&self, plan: &PurgePlan) -> Result<()> {
        if self.allow.empty || !self.outputs.is_empty() {
            return Ok(());
        }
        let (mut deleted, mut stays) = (0_u64, false);
        for (_, decision) in plan.objects().filter(|(o, _)| o.form == VersionKind::Current && !is_hidden(&o.key)) {
            match decision {
                PurgeDecision::Delete => deleted += 1,
                PurgeDecision::Keep(KeepReason::Folder | KeepReason::State) => {}
                PurgeDecision::Keep(_) => stays = true,
            }
        }
        if deleted == 0 || stays {
            return Ok(());
        }
        let prefix = &self.prefix;
        let message =
            format!("all {deleted} objects below `{prefix}` would be deleted, unless `empty` is allowed; nothing was");
        Err(Error::usage("WouldEmpty", message))
    }
}

/// Live files of a table of another format look like any others: a plan for its folder is refused.
///
/// # Errors
/// `OtherTableFormat`.
pub fn refuse_other_formats(listing: &ObjectListing) -> Result<()> {
    let found =
        listing.iter().find_map(|o| ForeignTableFormat::of_log(&o.key).map(|(format, at)| (format, at.to_owned())));
    match found {
        Some((format, folder)) => Err(format.refused(&folder)),
        None => Ok(()),
    }
}

/// When objects with several versions got each of them: an old version is as old as what took its place, and not as itself.
#[derive(Debug, Default)]
struct VersionDates(HashMap<String, Vec<Instant>>);

impl VersionDates {
    fn of(listing: &ObjectListing) -> Self {
        let mut all = Self::default();
        for object in listing.iter().filter(|o| o.form == VersionKind::Noncurrent) {
            all.0.entry(object.key).or_default();
        }
        if !all.0.is_empty() {
            for object in listing {
                all.0.get_mut(&object.key).into_iter().for_each(|times| times.extend(object.modified));
            }
            all.0.values_mut().for_each(|times| times.sort_unstable());
        }
        all
    }

    /// Since when an object has been what it is now: its own time, or for an old version that of the next one.
    fn replaced(&self, object: &ListedObject) -> Option<Instant> {
        let own = object.modified?;
        let times = self.0.get(&object.key).filter(|_| object.form == VersionKind::Noncurrent);
        Some(times.and_then(|times| times.iter().copied().find(|t| *t > own)).unwrap_or(own))
    }
}

/// A delete marker stays as long as a version of its key stays, which would be the object again without it.
fn keep_marks(plan: PurgePlan) -> PurgePlan {
    let stays =
        |(o, d): &(ListedObject, PurgeDecision)| o.form == VersionKind::Noncurrent && *d != PurgeDecision::Delete;
    let kept: HashSet<String> = plan.objects().filter(stays).map(|(o, _)| o.key).collect();
    if kept.is_empty() {
        return plan;
    }
    plan.redecided(|object, decision| match decision {
        PurgeDecision::Delete if object.form == VersionKind::DeleteMarker && kept.contains(&object.key) => {
            PurgeDecision::Keep(KeepReason::HidesOlder)
        }
        other => other,
    })
}

/// Whether Hive-style readers pass over a key: its name starts with `_` or `.`.
fn is_hidden(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.starts_with('_') || name.starts_with('.') || name.ends_with("_$folder$")
}
