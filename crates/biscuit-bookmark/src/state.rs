//! State of a bookmark in one version of its output: the manifests of its runs, and a property with the rewound runs.

use std::collections::{BTreeSet, HashMap};

use biscuit_core::{Error, Instant, Result, Run};
use biscuit_journal::{CommitExtras, Journal, TableHead};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::codes;
use crate::input::ListedInput;
use crate::object::SourceObject;
use crate::options::{BookmarkOptions, ObjectIdentity};
use crate::replaced::ReplacedOutput;
use crate::runs::manifest::{ManifestEntry, RunKind, RunManifest, RunOutput, RunRecord};
use crate::selection::known::ReadVersions;
use crate::selection::mode::{ReadMode, RunRef};
use crate::selection::selected::InputSelection;
use crate::tiers;

/// Folder of the state files of bookmarks, among the state files of the table.
const FOLDER: &str = "bookmarks";

/// Property of the table that belongs to a bookmark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct BookmarkProperty {
    /// Number of the last run.
    runs: u64,
    /// Rewound runs, whose objects no longer count as read: first and last run of each span, ascending.
    #[serde(default)]
    rewound: Vec<(u64, u64)>,
    /// The newest run whose entries were compacted to fingerprints; 0 if there is none.
    #[serde(default)]
    compacted: u64,
    /// Newest time of modification among the objects of compacted runs that were not rewound.
    #[serde(default)]
    newest_compacted: Option<i64>,
}

/// State of a bookmark in one version of its output: which objects count as read.
#[derive(Debug, Clone)]
pub struct BookmarkState {
    name: String,
    pub(crate) options: BookmarkOptions,
    property: BookmarkProperty,
    /// Manifests with the first and the last run of each, oldest first. Together they cover all runs without gaps.
    pub(crate) manifests: Vec<(u64, u64, RunManifest)>,
    /// Other bookmarks of the output with the places of their sources; loaded only if this bookmark is new.
    others: Vec<(String, Vec<String>)>,
}

/// Returns the names of the bookmarks of an output.
pub fn bookmarks(head: &TableHead) -> Vec<String> {
    head.properties.keys().filter_map(|k| k.strip_prefix("bookmark.")).map(str::to_owned).collect()
}

impl BookmarkState {
    pub(crate) async fn load(
        name: &str,
        options: &BookmarkOptions,
        journal: &Journal,
        head: &TableHead,
    ) -> Result<Self> {
        let property = match head.properties.get(&property_name(name)) {
            Some(value) => serde_json::from_value(value.clone()).map_err(|e| unreadable(name).with_source(e))?,
            None => BookmarkProperty::default(),
        };
        let mut manifests = read(name, journal, head, usize::MAX).await?;
        manifests.sort_by_key(|(first, ..)| *first);
        let mut others = Vec::new();
        // A new bookmark may be a renamed one, which deserves a warning. To see that, compare with the other
        // bookmarks.
        if property.runs == 0 {
            for other in bookmarks(head).into_iter().filter(|n| n != name) {
                let newest = read(&other, journal, head, 1).await?;
                let places = newest.last().and_then(|(.., m)| m.runs.last()).map(|r| r.places.clone());
                others.push((other, places.unwrap_or_default()));
            }
        }
        Ok(Self { name: name.to_owned(), options: options.clone(), property, manifests, others })
    }

    /// Name of the bookmark.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the last run; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.property.runs
    }

    /// Returns the runs that are remembered by name, oldest first. The second value tells whether the objects of the
    /// run count as read; it is false for a rewound run.
    pub fn runs(&self) -> impl Iterator<Item = (&RunRecord, bool)> {
        self.manifests.iter().flat_map(|(.., m)| &m.runs).map(|r| (r, !self.is_rewound(r.number)))
    }

    /// Size of the compressed parts of all state files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.manifests.iter().map(|(.., m)| m.bytes()).sum()
    }

    /// Newest time of modification among the objects that count as read, on the clock of the store.
    pub fn watermark(&self) -> Option<Instant> {
        let counted = self.runs().filter(|(r, counts)| *counts && r.objects > 0).map(|(r, _)| r.newest);
        counted.chain(self.property.newest_compacted).max().map(Instant::from_micros)
    }

    /// Returns the update to commit together with the output, so that the objects of the selection count as read.
    /// None if there is nothing to remember: in modes other than [`ReadMode::Advance`], and if nothing was selected.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn advance(&self, selection: &InputSelection, run: &Run, output: RunOutput) -> Result<Option<CommitExtras>> {
        if selection.mode != ReadMode::Advance || selection.objects.is_empty() {
            return Ok(None);
        }
        self.remember(RunKind::Advance, &selection.objects, &selection.places, run, (vec![], output)).map(Some)
    }

    /// Returns the update to commit together with an output that replaces the output of earlier runs, as
    /// [`replaced`](Self::replaced) returned it. This also applies to a replay: its objects then belong to the new
    /// run.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance).
    pub fn replace(
        &self,
        selection: &InputSelection,
        run: &Run,
        output: RunOutput,
        replaced: &ReplacedOutput,
    ) -> Result<Option<CommitExtras>> {
        let kind = match selection.mode {
            ReadMode::Advance => RunKind::Advance,
            ReadMode::Replay(_) => RunKind::Replay,
            ReadMode::Full | ReadMode::ReadOnly => return Ok(None),
        };
        if selection.objects.is_empty() {
            return Ok(None);
        }
        let output = (replaced.runs.clone(), output);
        self.remember(kind, &selection.objects, &selection.places, run, output).map(Some)
    }

    /// Returns the update that forgets all runs: the next run reads all objects. The output does not change.
    ///
    /// # Errors
    /// No errors at present.
    pub fn reset(&self) -> Result<CommitExtras> {
        let mut property = self.property.clone();
        property.rewound = if property.runs == 0 { vec![] } else { vec![(1, property.runs)] };
        property.newest_compacted = None;
        Ok(self.with_property(&property))
    }

    /// Returns the update that forgets the runs after `to`: the next run reads their objects again. The output does
    /// not change.
    ///
    /// # Errors
    /// `UnknownRun`; `RunCompacted` for a compacted run.
    pub fn rewind(&self, to: &RunRef) -> Result<CommitExtras> {
        let to = self.number(to)?;
        if to == 0 {
            return self.reset();
        }
        let mut property = self.property.clone();
        property.rewound.retain(|(first, _)| *first <= to);
        if to < property.runs {
            // The new span reaches to the last run, so it is merged with an older span that it overlaps or follows.
            match property.rewound.last_mut().filter(|(_, last)| *last >= to) {
                Some(span) => span.1 = property.runs,
                None => property.rewound.push((to + 1, property.runs)),
            }
        }
        Ok(self.with_property(&property))
    }

    /// Returns the update after which all listed objects count as read, without reading them. `partitions` are the
    /// folders with files of the output: rows of these objects may be in any of them.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance).
    pub fn set_to_now(&self, input: &ListedInput, run: &Run, partitions: BTreeSet<String>) -> Result<CommitExtras> {
        let output = RunOutput { partitions: partitions.into_iter().collect(), ..RunOutput::default() };
        self.remember(RunKind::SetToNow, &input.everything(), &input.places(), run, (vec![], output))
    }

    /// Returns the update to commit together with an output that replaces some partitions, built again from objects
    /// that were read before.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance).
    pub fn rebuild(
        &self,
        objects: &[SourceObject],
        places: &[String],
        run: &Run,
        output: RunOutput,
    ) -> Result<CommitExtras> {
        self.remember(RunKind::Rebuild, objects, places, run, (vec![], output))
    }

    /// Returns the number of a run.
    ///
    /// # Errors
    /// `UnknownRun`, `RunCompacted`.
    pub fn number(&self, run: &RunRef) -> Result<u64> {
        let last = self.property.runs;
        match run {
            RunRef::Number(0) => Ok(0),
            RunRef::Number(number) if *number > 0 && *number < self.property.compacted => {
                let compacted = self.property.compacted;
                let message = format!("the objects of runs up to {compacted} are no longer remembered by name");
                Err(Error::new(codes::RUN_COMPACTED, message))
            }
            RunRef::Number(number) if *number <= last => Ok(*number),
            RunRef::Number(number) => {
                let message = format!("the bookmark `{}` has no run {number}; its last one is {last}", self.name);
                Err(Error::new(codes::UNKNOWN_RUN, message))
            }
            RunRef::Id(id) => {
                let found = self.runs().filter(|(r, _)| r.id == *id).last().map(|(r, _)| r.number);
                let message = || format!("the bookmark `{}` has no run with the id `{id}`", self.name);
                found.ok_or_else(|| Error::new(codes::UNKNOWN_RUN, message()))
            }
        }
    }

    /// Newest run whose entries were compacted to fingerprints; 0 if there is none.
    pub(crate) fn compacted(&self) -> u64 {
        self.property.compacted
    }

    pub(crate) fn is_rewound(&self, run: u64) -> bool {
        self.property.rewound.iter().any(|(first, last)| (*first..=*last).contains(&run))
    }

    /// Returns all objects that count as read. Entries are read as fingerprints, without allocating their texts.
    pub(crate) fn known(&self) -> Result<ReadVersions> {
        let mut known = ReadVersions::with_capacity(self.manifests.iter().map(|(.., m)| m.len()).sum());
        for (.., manifest) in &self.manifests {
            let mut reader = manifest.reader()?;
            while let Some((fingerprint, run)) = reader.fingerprint()? {
                if !self.is_rewound(run) {
                    known.add(fingerprint, run);
                }
            }
            while let Some(compacted) = reader.compacted()? {
                if !self.is_rewound(compacted.run) {
                    known.add(compacted.fingerprint, compacted.run);
                }
            }
        }
        Ok(known)
    }

    /// Returns the runs that read the object with this URL, sorted by number, each with the object as it was then.
    pub(crate) fn readings(&self, url: &str) -> Result<Vec<(u64, SourceObject)>> {
        let mut found = Vec::new();
        self.each_entry(&mut |entry| {
            if entry.object.url() == url {
                found.push((entry.run, entry.object));
            }
        })?;
        found.sort_by_key(|(run, _)| *run);
        Ok(found)
    }

    /// Returns the URLs of the objects that the selected runs read.
    pub(crate) fn urls_of(&self, wants: &dyn Fn(u64) -> bool) -> Result<BTreeSet<String>> {
        let mut urls = BTreeSet::new();
        self.each_entry(&mut |entry| {
            if wants(entry.run) {
                urls.insert(entry.object.listed.path);
            }
        })?;
        Ok(urls)
    }

    /// Calls `f` with every object that is remembered by name.
    pub(crate) fn each_entry(&self, f: &mut dyn FnMut(ManifestEntry)) -> Result<()> {
        self.manifests.iter().try_for_each(|(.., manifest)| manifest.each(f, &mut |_| ()))
    }

    /// Returns the start of the allowed lateness: an unread object with an earlier time is too late. None without a
    /// limit, and before the first run.
    pub(crate) fn horizon(&self, input: &ListedInput) -> Option<Instant> {
        let allowed_lateness = self.options.allowed_lateness.filter(|_| input.has_store_times())?;
        Some(self.watermark()?.saturating_sub(allowed_lateness))
    }

    /// Warnings about a renamed bookmark, moved places and changed options.
    pub(crate) fn warnings(&self, places: &[String]) -> Vec<String> {
        let name = &self.name;
        let mut warnings = Vec::new();
        for (other, theirs) in self.others.iter().filter(|(_, theirs)| theirs.iter().any(|p| places.contains(p))) {
            let place = theirs.iter().find(|p| places.contains(p)).map(String::as_str).unwrap_or_default();
            warnings.push(format!(
                "the bookmark `{name}` is new and reads all objects, although `{other}` of this output reads `{place}` already; check whether the bookmark was renamed"
            ));
        }
        let Some((last, _)) = self.runs().last() else { return warnings };
        if last.places != places {
            warnings.push(format!(
                "the source of the bookmark `{name}` was {} and is {} now; objects are recognised by their URL, so all objects of a new place are read",
                last.places.join(", "),
                places.join(", ")
            ));
        }
        let reading = self.reading();
        if last.reading != reading {
            warnings.push(format!(
                "the bookmark `{name}` was read with other options: {} before, {reading} now; objects that were read before are not read again",
                last.reading
            ));
        }
        warnings
    }

    fn reading(&self) -> Value {
        let mut reading = json!({"identity": self.options.identity});
        if !self.options.reading.is_null() {
            reading["options"] = self.options.reading.clone();
        }
        reading
    }

    fn with_property(&self, property: &BookmarkProperty) -> CommitExtras {
        let mut extras = CommitExtras::default();
        extras.set_property(property_name(&self.name), json!(property));
        extras
    }

    /// Returns the update that adds one run with these objects.
    ///
    /// The run becomes a manifest of its own, or is merged with the newest manifests, as [`tiers::due`] decides.
    /// State files of merged manifests are removed in the same commit, so that every run is in exactly one manifest.
    fn remember(
        &self,
        kind: RunKind,
        objects: &[SourceObject],
        places: &[String],
        run: &Run,
        (replaced, output): (Vec<u64>, RunOutput),
    ) -> Result<CommitExtras> {
        let number = self.property.runs + 1;
        let record = RunRecord {
            number,
            id: run.id.to_string(),
            attempt: run.attempt,
            started: run.start.as_micros(),
            kind,
            objects: objects.len() as u64,
            bytes: objects.iter().map(|o| o.listed.size).sum(),
            newest: objects.iter().map(|o| o.modified).max().unwrap_or_default(),
            places: places.to_vec(),
            reading: self.reading(),
            replaced,
            output: RunOutput { reached: vec![], ..output.clone() },
        };
        let reached: HashMap<String, Vec<u32>> = output.reached.into_iter().collect();
        let entry = |object: &SourceObject| {
            let reached = reached.get(object.url()).cloned().unwrap_or_default();
            ManifestEntry { object: object.clone(), run: number, reached }
        };
        let mut entries: Vec<ManifestEntry> = objects.iter().map(entry).collect();
        entries.sort_by(|a, b| a.object.url().cmp(b.object.url()));
        let widths: Vec<u64> = self.manifests.iter().map(|(first, last, _)| last - first + 1).chain([1]).collect();
        let merged = tiers::due(&widths) - 1;
        let (_, old) = self.manifests.split_at(self.manifests.len() - merged);
        let mut property = BookmarkProperty { runs: number, ..self.property.clone() };
        let forgettable = number.saturating_sub(self.options.keep_runs);
        // Runs beyond `keep_runs` are compacted only when their manifest is merged anyway. Manifests that are not
        // merged now are not rewritten for that.
        let first = old.first().map_or(number, |(first, ..)| *first);
        let compact_up_to = if first <= forgettable { forgettable } else { 0 };
        if compact_up_to > 0 {
            let gone = self.runs().filter(|(r, counts)| *counts && r.number <= compact_up_to).map(|(r, _)| r.newest);
            property.newest_compacted = gone.chain(self.property.newest_compacted).max();
            property.compacted = property.compacted.max(compact_up_to);
        }
        let manifests: Vec<RunManifest> = old.iter().map(|(.., m)| m.clone()).collect();
        let bytes = tiers::merge(&manifests, (record, entries), compact_up_to, &|run| self.is_rewound(run))?;
        let mut extras = self.with_property(&property);
        extras.put_state(state_name(&self.name, first, number), bytes);
        old.iter().for_each(|(first, last, _)| extras.remove_state(state_name(&self.name, *first, *last)));
        Ok(extras)
    }

    /// Criterion by which objects are the same.
    pub(crate) fn identity(&self) -> ObjectIdentity {
        self.options.identity
    }
}

fn property_name(bookmark: &str) -> String {
    format!("bookmark.{bookmark}")
}

fn state_name(bookmark: &str, first: u64, last: u64) -> String {
    format!("{FOLDER}/{bookmark}/{first:010}-{last:010}")
}

fn unreadable(bookmark: &str) -> Error {
    let message = format!("the state of the bookmark `{bookmark}` cannot be read");
    Error::new(codes::UNREADABLE_BOOKMARK, message)
}

/// Reads the newest `count` state files of a bookmark, oldest first.
async fn read(
    bookmark: &str,
    journal: &Journal,
    head: &TableHead,
    count: usize,
) -> Result<Vec<(u64, u64, RunManifest)>> {
    let prefix = format!("{FOLDER}/{bookmark}/");
    let mut named = Vec::new();
    for (name, file) in &head.state {
        let Some(span) = name.strip_prefix(&prefix) else { continue };
        let span = span.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (first, last): (u64, u64) = span.ok_or_else(|| unreadable(bookmark))?;
        named.push((first, last, name, file));
    }
    named.sort_by_key(|(first, ..)| *first);
    let mut manifests = Vec::new();
    for (first, last, name, file) in named.split_off(named.len().saturating_sub(count)) {
        let bytes = journal.read_state(head, file).await?;
        manifests.push((first, last, RunManifest::parse(&bytes, name)?));
    }
    Ok(manifests)
}
