//! Rules that turn a listing into a purge plan, with guards against plans that delete too much.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use biscuit_core::{Error, Instant, Result};

use crate::codes;
use crate::keys::{check_lookalikes, folder_prefix, is_below};
use crate::listed::{ListedObject, VersionKind};
use crate::listing::ObjectListing;
use crate::plan::{KeepReason, PurgeDecision, PurgePlan, empty_prefix};
use crate::table_format::ForeignTableFormat;

/// Guards that a caller switches off by name. All are on by default.
///
/// ```
/// use biscuit_purge::{AllowedDeletes, ListedObject, ObjectListing, PurgeRules};
///
/// let mut object = ListedObject::new("logs/a", 10, None);
/// object.modified = Some("2024-01-15".parse()?);
/// let listing: ObjectListing = [object].into_iter().collect();
///
/// let rules = PurgeRules::older_than("logs", "2024-02-01".parse()?, "2024-03-01".parse()?);
/// assert_eq!(rules.plan(listing.clone()).unwrap_err().code(), "WouldEmpty");
///
/// let mut allowed = AllowedDeletes::default();
/// allowed.empty = true;
/// assert_eq!(rules.allowing(allowed).plan(listing)?.summary().objects, 1);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AllowedDeletes {
    /// Allows a plan for a whole bucket.
    pub bucket_root: bool,
    /// Allows a plan for a folder that contains a table or is part of one. Files and state of the table are kept in
    /// any case.
    pub overlap: bool,
    /// Allows a plan that deletes all listed objects.
    pub empty: bool,
    /// Allows a plan with keys that are equal after decoding.
    pub lookalikes: bool,
    /// Allows a plan for folders of other table formats. Their live files are unknown and may be deleted.
    pub other_formats: bool,
}

/// A table whose files and state a plan by time must keep.
///
/// Read the table *after* the listing. A file that is published between the two is then among the files of the table.
/// In the opposite order it would be listed, but not protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtectedTable {
    /// Folder of the table.
    pub root: String,
    /// State root of the table.
    pub state: String,
    /// Default state root of the table, which contains the pointer if the state root was moved.
    pub pointer: String,
    /// Key of the object that remembers the probe of the store, beside the default state root.
    pub probe: String,
    /// Whole keys of the files of the table.
    pub files: HashSet<String>,
}

impl ProtectedTable {
    /// Creates a table without files, and without a pointer to a moved state root.
    pub fn new(root: impl Into<String>, state: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
            pointer: String::new(),
            probe: String::new(),
            files: HashSet::new(),
        }
    }

    /// Whether a key belongs to the state of the table or to the folder of its pointer, or remembers the probe of its store.
    pub fn has_state(&self, key: &str) -> bool {
        key == self.probe
            || [&self.state, &self.pointer].into_iter().any(|folder| !folder.is_empty() && is_below(key, folder))
    }
}

/// Rules that turn a listing into a plan. Planning is a pure function, so a dry run and the run itself make the same
/// plan from the same listing.
///
/// All instants are on the clock of the store. No other clock is read.
///
/// ```
/// use biscuit_core::Instant;
/// use biscuit_purge::{ListedObject, PurgeRules};
///
/// let object = |key: &str, day: &str| -> biscuit_core::Result<ListedObject> {
///     let mut object = ListedObject::new(key, 10, None);
///     object.modified = Some(day.parse()?);
///     Ok(object)
/// };
/// let listing = [object("logs/a", "2024-01-15")?, object("logs/b", "2024-02-20")?].into_iter().collect();
///
/// let cutoff: Instant = "2024-02-01".parse()?;
/// let plan = PurgeRules::older_than("logs", cutoff, "2024-03-01".parse()?).plan(listing)?;
/// assert_eq!(plan.deletes().map(|object| object.listed.path).collect::<Vec<_>>(), ["logs/a"]);
/// assert_eq!(plan.summary().kept["newer"], 1);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct PurgeRules {
    prefix: String,
    /// Objects that were modified before this are deleted.
    cutoff: Option<Instant>,
    /// Time before the listing began. Objects that may have been modified since are kept.
    listed: Option<Instant>,
    excluded: BTreeSet<String>,
    outputs: HashSet<String>,
    tables: Vec<ProtectedTable>,
    allow: AllowedDeletes,
}

/// Microseconds of a second, the resolution of times of modification on S3.
const SECOND: i64 = 1_000_000;

impl PurgeRules {
    /// Rules by time: objects that were modified before `cutoff` are deleted. `listed` is the time of the store
    /// before the listing began; objects that were modified since then are kept, whatever the cutoff is.
    pub fn older_than(prefix: impl Into<String>, cutoff: Instant, listed: Instant) -> Self {
        Self { cutoff: Some(cutoff), listed: Some(listed), ..Self::existed_before(prefix) }
    }

    /// Rules by membership: all objects of a listing that was taken before a job began are deleted. An object that
    /// was written later is not in that listing, whatever its time of modification is.
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

    /// Also keeps objects that were modified at `cutoff` or later. The earlier of several cutoffs counts.
    pub fn keeping_newer_than(mut self, cutoff: Instant) -> Self {
        self.cutoff = Some(self.cutoff.map_or(cutoff, |c| c.min(cutoff)));
        self
    }

    /// Moves the cutoff back by `grace`. Without a cutoff this has no effect.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.cutoff = self.cutoff.map(|c| c.saturating_sub(grace));
        self
    }

    /// Keeps objects of this storage class, without regard to letter case. Objects without a class count as
    /// `STANDARD`.
    pub fn excluding_storage_class(mut self, class: impl AsRef<str>) -> Self {
        self.excluded.insert(class.as_ref().to_uppercase());
        self
    }

    /// Keeps these keys, which the run itself has written.
    pub fn with_outputs(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.outputs.extend(keys);
        self
    }

    /// Keeps the files and the state of a table.
    pub fn protecting(mut self, table: ProtectedTable) -> Self {
        self.tables.push(table);
        self
    }

    /// Sets the guards that are switched off. Default: none.
    pub fn allowing(mut self, allow: AllowedDeletes) -> Self {
        self.allow = allow;
        self
    }

    /// Makes a plan for the objects of a listing.
    ///
    /// # Errors
    /// Unless allowed: `EmptyPrefix`; `OtherTableFormat`; `OverlapsTable`; `LooksAlike`; `WouldEmpty`; `LiveFiles` if
    /// files of a table are before the cutoff (with [`AllowedDeletes::overlap`] they are kept instead);
    /// `NothingWritten` if rules by membership have no outputs. `OutsidePrefix` for an object that is not below the
    /// prefix.
    pub fn plan(&self, listing: ObjectListing) -> Result<PurgePlan> {
        if folder_prefix(&self.prefix).is_empty() && !self.allow.bucket_root {
            return Err(empty_prefix());
        }
        self.check_overlap()?;
        if self.listed.is_none() && self.outputs.is_empty() && !self.allow.empty {
            let message = "the job has written no files, so deleting the earlier objects would leave nothing; nothing was deleted; allow `empty` to go on";
            return Err(Error::new(codes::NOTHING_WRITTEN, message));
        }
        if !self.allow.other_formats {
            refuse_other_formats(&listing)?;
        }
        if !self.allow.lookalikes {
            check_lookalikes(|| listing.iter().map(|o| o.listed.path))?;
        }
        let versions = VersionDates::from_listing(&listing);
        let plan = PurgePlan::decide_all(&self.prefix, listing, |object| self.decide(object, &versions))?;
        let plan = keep_marks(plan);
        self.check_live(&plan)?;
        self.check_emptying(&plan)?;
        Ok(plan)
    }

    /// Decides about one object. The first reason to keep it wins; state and time come first, so that reports are
    /// stable.
    fn decide(&self, object: &ListedObject, versions: &VersionDates) -> PurgeDecision {
        let key = object.key();
        if self.tables.iter().any(|t| t.has_state(key)) {
            return PurgeDecision::Keep(KeepReason::State);
        }
        if key.ends_with('/') {
            return PurgeDecision::Keep(KeepReason::Folder);
        }
        if let Some(kept) = self.by_time(versions.replaced_at(object)) {
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
        // S3 cuts times to whole seconds. A time of 12:00:05 may stand for any instant up to 12:00:05.999999, so it
        // counts as that last one. A time with a fraction comes from a store with a finer clock.
        let at = modified.as_micros();
        let latest = if at % SECOND == 0 { at.saturating_add(SECOND - 1) } else { at };
        let since = |limit: Option<Instant>| limit.is_some_and(|limit| latest >= limit.as_micros());
        if since(self.listed) {
            return Some(KeepReason::AfterListing);
        }
        since(self.cutoff).then_some(KeepReason::Newer)
    }

    fn check_overlap(&self) -> Result<()> {
        let prefix = folder_prefix(&self.prefix);
        for table in &self.tables {
            let [root, state, pointer] =
                [&table.root, &table.state, &table.pointer].map(|folder| folder_prefix(folder));
            let touches =
                |folder: &str| !folder.is_empty() && (folder.starts_with(&prefix) || prefix.starts_with(folder));
            // A plan for exactly the folder of a table is meant for that table.
            if self.allow.overlap || prefix == root || ![&root, &state, &pointer].into_iter().any(|f| touches(f)) {
                continue;
            }
            let message = format!(
                "`{}` overlaps with the table `{}`; nothing was deleted; allow `overlap` to go on and keep the files and the state of the table",
                self.prefix,
                root.trim_end_matches('/')
            );
            return Err(Error::new(codes::OVERLAPS_TABLE, message));
        }
        Ok(())
    }

    fn check_live(&self, plan: &PurgePlan) -> Result<()> {
        let mut live = plan.objects().filter(|(_, d)| *d == PurgeDecision::Keep(KeepReason::Live));
        let Some((first, _)) = live.next().filter(|_| !self.allow.overlap) else { return Ok(()) };
        let message = format!(
            "{} of the objects before the cutoff are files of a table, the first is `{}`; files of a table are never deleted by age; delete files that the table no longer needs with `--retained` and `--orphans`",
            1 + live.count(),
            first.key()
        );
        Err(Error::new(codes::LIVE_FILES, message))
    }

    /// Refuses a plan by time that deletes every visible object: a wrong cutoff or prefix usually looks like that.
    /// Markers and hidden files do not count, because a folder with only those is empty for a reader.
    fn check_emptying(&self, plan: &PurgePlan) -> Result<()> {
        if self.allow.empty || !self.outputs.is_empty() {
            return Ok(());
        }
        let (mut deleted, mut stays) = (0_u64, false);
        for (_, decision) in plan.objects().filter(|(o, _)| o.form == VersionKind::Current && !is_hidden(o.key())) {
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
        let message = format!(
            "all {deleted} objects below `{prefix}` would be deleted; nothing was deleted; allow `empty` to go on"
        );
        Err(Error::new(codes::WOULD_EMPTY, message))
    }
}

/// Refuses a listing that contains the log of a table of another format, because its live files cannot be recognised.
///
/// # Errors
/// `OtherTableFormat`.
pub fn refuse_other_formats(listing: &ObjectListing) -> Result<()> {
    let found =
        listing.iter().find_map(|o| ForeignTableFormat::of_log(o.key()).map(|(format, at)| (format, at.to_owned())));
    match found {
        Some((format, folder)) => Err(format.refused(&folder)),
        None => Ok(()),
    }
}

/// Times of the versions of each object that has older versions.
///
/// The age of an older version counts from the moment when it was replaced. Otherwise an object of last year that was
/// overwritten a minute ago would lose its only older version at once. Example: versions of January and of today; the
/// older one was replaced today, so its time is today.
#[derive(Debug, Default)]
struct VersionDates(HashMap<String, Vec<Instant>>);

impl VersionDates {
    fn from_listing(listing: &ObjectListing) -> Self {
        let mut all = Self::default();
        for object in listing.iter().filter(|o| o.form == VersionKind::Noncurrent) {
            all.0.entry(object.listed.path).or_default();
        }
        if !all.0.is_empty() {
            for object in listing {
                all.0.get_mut(object.key()).into_iter().for_each(|times| times.extend(object.modified));
            }
            all.0.values_mut().for_each(|times| times.sort_unstable());
        }
        all
    }

    /// Returns the time since which an entry is what it is: its own time, or for an older version the time of the
    /// next version.
    fn replaced_at(&self, object: &ListedObject) -> Option<Instant> {
        let own = object.modified?;
        let times = self.0.get(object.key()).filter(|_| object.form == VersionKind::Noncurrent);
        Some(times.and_then(|times| times.iter().copied().find(|t| *t > own)).unwrap_or(own))
    }
}

/// Keeps a delete marker as long as an older version of its key is kept. Without the marker, that version would
/// become the current object again.
fn keep_marks(plan: PurgePlan) -> PurgePlan {
    let stays =
        |(o, d): &(ListedObject, PurgeDecision)| o.form == VersionKind::Noncurrent && *d != PurgeDecision::Delete;
    let kept: HashSet<String> = plan.objects().filter(stays).map(|(o, _)| o.listed.path).collect();
    if kept.is_empty() {
        return plan;
    }
    plan.revise_decisions(|object, decision| match decision {
        PurgeDecision::Delete if object.form == VersionKind::DeleteMarker && kept.contains(object.key()) => {
            PurgeDecision::Keep(KeepReason::HidesOlder)
        }
        other => other,
    })
}

/// Whether Hive-style readers skip a key: its last segment starts with `_` or `.`, or it is a folder marker.
fn is_hidden(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.starts_with('_') || name.starts_with('.') || name.ends_with("_$folder$")
}
