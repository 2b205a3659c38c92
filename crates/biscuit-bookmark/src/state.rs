use std::collections::{BTreeSet, HashMap};

use biscuit_core::{Error, ErrorKind, Instant, Result, Run};
use biscuit_journal::{Journal, TableHead};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bookmark::{Bookmark, ObjectIdentity};
use crate::change::BookmarkUpdate;
use crate::input::ListedInput;
use crate::known::ReadVersions;
use crate::lineage::ReplacedOutput;
use crate::manifest::{ManifestEntry, RunKind, RunManifest, RunOutput, RunRecord};
use crate::mode::{ReadMode, RunRef};
use crate::object::SourceObject;
use crate::select::{InputSelection, select};
use crate::tiers;

/// Where state files of bookmarks are, among those of the table.
const FOLDER: &str = "bookmarks";

/// The fact of a bookmark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct BookmarkProperty {
    /// The number of the last run.
    runs: u64,
    /// Runs whose objects do not count as read any more: first and last of each span.
    #[serde(default)]
    rewound: Vec<(u64, u64)>,
    /// The last run of which only numbers are kept.
    #[serde(default)]
    compacted: u64,
    /// The newest time of modification that any of those had, as far as it counts.
    #[serde(default)]
    newest_compacted: Option<i64>,
}

/// What a bookmark remembers, in one version of the output.
#[derive(Debug, Clone)]
pub struct BookmarkState {
    pub(crate) bookmark: Bookmark,
    property: BookmarkProperty,
    /// State files: the first and the last run of each, and what is in it.
    pub(crate) manifests: Vec<(u64, u64, RunManifest)>,
    /// Other bookmarks of the output, and where their sources were.
    others: Vec<(String, Vec<String>)>,
}

/// The names of the bookmarks that an output has.
pub fn bookmarks(head: &TableHead) -> Vec<String> {
    head.properties.keys().filter_map(|k| k.strip_prefix("bookmark.")).map(str::to_owned).collect()
}

impl BookmarkState {
    pub(crate) async fn load(bookmark: Bookmark, journal: &Journal, head: &TableHead) -> Result<Self> {
        let property = match head.properties.get(&property_name(&bookmark.name)) {
            Some(value) => {
                serde_json::from_value(value.clone()).map_err(|e| unreadable(&bookmark.name).with_source(e))?
            }
            None => BookmarkProperty::default(),
        };
        let mut manifests = read(&bookmark.name, journal, head, usize::MAX).await?;
        manifests.sort_by_key(|(first, ..)| *first);
        let mut others = Vec::new();
        // Whether a source goes by another name matters only where this name is new.
        if property.runs == 0 {
            for name in bookmarks(head).into_iter().filter(|n| *n != bookmark.name) {
                let newest = read(&name, journal, head, 1).await?;
                let places = newest.last().and_then(|(.., m)| m.runs.last()).map(|r| r.places.clone());
                others.push((name, places.unwrap_or_default()));
            }
        }
        Ok(Self { bookmark, property, manifests, others })
    }

    /// The name of the bookmark.
    pub fn name(&self) -> &str {
        &self.bookmark.name
    }

    /// The number of the last run; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.property.runs
    }

    /// The runs that are remembered by name, the oldest first, each with whether its objects count as read.
    pub fn runs(&self) -> impl Iterator<Item = (&RunRecord, bool)> {
        self.manifests.iter().flat_map(|(.., m)| &m.runs).map(|r| (r, !self.is_rewound(r.number)))
    }

    /// The bytes of its state files' compressed part.
    pub fn bytes(&self) -> u64 {
        self.manifests.iter().map(|(.., m)| m.bytes()).sum()
    }

    /// The newest time of modification among the objects that count as read, on the store's clock.
    pub fn watermark(&self) -> Option<Instant> {
        let counted = self.runs().filter(|(r, counts)| *counts && r.objects > 0).map(|(r, _)| r.newest);
        counted.chain(self.property.newest_compacted).max().map(Instant::from_micros)
    }

    /// Which objects a run in this mode reads, from a listing that was taken after this state was loaded.
    ///
    /// # Errors
    /// `Overwritten` where such objects are to stop the run; `UnknownRun` and `RunForgotten` for the ends of a replay; `NotFound` if nothing is
    /// there and nothing was ever read.
    pub fn select(&self, input: &ListedInput, mode: &ReadMode) -> Result<InputSelection> {
        select(self, input, mode)
    }

    /// What a commit of the run's output has to make true, so that the objects of the selection count as read. None where nothing is to be
    /// remembered: in other modes than [`ReadMode::Advance`], and where nothing was selected.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn advance(&self, selection: &InputSelection, run: &Run, output: RunOutput) -> Result<Option<BookmarkUpdate>> {
        if selection.mode != ReadMode::Advance || selection.objects.is_empty() {
            return Ok(None);
        }
        self.remember(RunKind::Advance, &selection.objects, &selection.places, run, (vec![], output)).map(Some)
    }

    /// As [`advance`](Self::advance), for an output that replaces what [`replaced`](Self::replaced) names: also for a replay, whose files are
    /// then those of the new run.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn replace(
        &self,
        selection: &InputSelection,
        run: &Run,
        output: RunOutput,
        replaced: &ReplacedOutput,
    ) -> Result<Option<BookmarkUpdate>> {
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

    /// Forgets everything: the next run reads all there is. Nothing is done to the output.
    ///
    /// # Errors
    /// As [`rewind`](Self::rewind).
    pub fn reset(&self) -> Result<BookmarkUpdate> {
        let mut property = self.property.clone();
        property.rewound = if property.runs == 0 { vec![] } else { vec![(1, property.runs)] };
        property.newest_compacted = None;
        Ok(self.with_property(&property))
    }

    /// Forgets what was read by the runs after this one: the next run reads it again. Nothing is done to the output.
    ///
    /// # Errors
    /// `UnknownRun`; `RunForgotten` for a run of which only numbers are kept.
    pub fn rewind(&self, to: &RunRef) -> Result<BookmarkUpdate> {
        let to = self.number(to)?;
        if to == 0 {
            return self.reset();
        }
        let mut property = self.property.clone();
        property.rewound.retain(|(first, _)| *first <= to);
        if to < property.runs {
            // A span that goes on is one span.
            match property.rewound.last_mut().filter(|(_, last)| *last >= to) {
                Some(span) => span.1 = property.runs,
                None => property.rewound.push((to + 1, property.runs)),
            }
        }
        Ok(self.with_property(&property))
    }

    /// Remembers everything that is there as read, without its being read. `partitions` are the folders that the output's files are in: rows
    /// of these objects may be in any of them.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn set_to_now(&self, input: &ListedInput, run: &Run, partitions: BTreeSet<String>) -> Result<BookmarkUpdate> {
        let output = RunOutput { partitions: partitions.into_iter().collect(), ..RunOutput::default() };
        self.remember(RunKind::SetToNow, &input.everything(), &input.places(), run, (vec![], output))
    }

    /// What a commit has to make true that builds some partitions anew from these objects, which were read before.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn rebuild(
        &self,
        objects: &[SourceObject],
        places: &[String],
        run: &Run,
        output: RunOutput,
    ) -> Result<BookmarkUpdate> {
        self.remember(RunKind::Rebuild, objects, places, run, (vec![], output))
    }

    /// The number of a run.
    ///
    /// # Errors
    /// `UnknownRun`, `RunForgotten`.
    pub fn number(&self, run: &RunRef) -> Result<u64> {
        let last = self.property.runs;
        match run {
            RunRef::Number(0) => Ok(0),
            RunRef::Number(number) if *number > 0 && *number < self.property.compacted => {
                let compacted = self.property.compacted;
                let message = format!("the objects of runs up to {compacted} are not remembered by name any more");
                Err(Error::usage("RunForgotten", message))
            }
            RunRef::Number(number) if *number <= last => Ok(*number),
            RunRef::Number(number) => {
                let message =
                    format!("the bookmark `{}` has no run {number}; its last one is {last}", self.bookmark.name);
                Err(Error::usage("UnknownRun", message))
            }
            RunRef::Id(id) => {
                let found = self.runs().filter(|(r, _)| r.id == *id).last().map(|(r, _)| r.number);
                let message = || format!("the bookmark `{}` has no run with the id `{id}`", self.bookmark.name);
                found.ok_or_else(|| Error::usage("UnknownRun", message()))
            }
        }
    }

    /// The last run of which only numbers are kept.
    pub(crate) fn compacted(&self) -> u64 {
        self.property.compacted
    }

    pub(crate) fn is_rewound(&self, run: u64) -> bool {
        self.property.rewound.iter().any(|(first, last)| (*first..=*last).contains(&run))
    }

    /// What counts as read.
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

    /// What runs read an object of this URL, by number, with what they found.
    pub(crate) fn readings(&self, url: &str) -> Result<Vec<(u64, SourceObject)>> {
        let mut found = Vec::new();
        self.each_entry(&mut |entry| {
            if entry.object.url == url {
                found.push((entry.run, entry.object));
            }
        })?;
        found.sort_by_key(|(run, _)| *run);
        Ok(found)
    }

    pub(crate) fn urls_of(&self, wants: &dyn Fn(u64) -> bool) -> Result<BTreeSet<String>> {
        let mut urls = BTreeSet::new();
        self.each_entry(&mut |entry| {
            if wants(entry.run) {
                urls.insert(entry.object.url);
            }
        })?;
        Ok(urls)
    }

    /// Calls `f` with every object that is remembered by name.
    pub(crate) fn each_entry(&self, f: &mut dyn FnMut(ManifestEntry)) -> Result<()> {
        self.manifests.iter().try_for_each(|(.., manifest)| manifest.each(f, &mut |_| ()))
    }

    /// Below this time an object that is not remembered is too late.
    pub(crate) fn horizon(&self, input: &ListedInput) -> Option<Instant> {
        let allowed_lateness = self.bookmark.options.allowed_lateness.filter(|_| input.has_store_times())?;
        Some(self.watermark()?.saturating_sub(allowed_lateness))
    }

    pub(crate) fn warnings(&self, places: &[String]) -> Vec<String> {
        let name = &self.bookmark.name;
        let mut warnings = Vec::new();
        for (other, theirs) in self.others.iter().filter(|(_, theirs)| theirs.iter().any(|p| places.contains(p))) {
            let place = theirs.iter().find(|p| places.contains(p)).map(String::as_str).unwrap_or_default();
            warnings.push(format!(
                "the bookmark `{name}` is new and begins with everything, although `{other}` of this output reads `{place}` already: was it renamed?"
            ));
        }
        let Some((last, _)) = self.runs().last() else { return warnings };
        if last.places != places {
            warnings.push(format!(
                "the source of the bookmark `{name}` was {} and is {} now: objects are known by their URL, so those of another place are new",
                last.places.join(", "),
                places.join(", ")
            ));
        }
        let reading = self.reading();
        if last.reading != reading {
            warnings.push(format!(
                "the bookmark `{name}` was read with other options, {} and now {reading}: what was read stays as it was read",
                last.reading
            ));
        }
        warnings
    }

    fn reading(&self) -> Value {
        let mut reading = json!({"identity": self.bookmark.options.identity});
        if !self.bookmark.options.reading.is_null() {
            reading["options"] = self.bookmark.options.reading.clone();
        }
        reading
    }

    fn with_property(&self, property: &BookmarkProperty) -> BookmarkUpdate {
        BookmarkUpdate { state: vec![], properties: vec![(property_name(&self.bookmark.name), json!(property))] }
    }

    /// One more run, with these objects.
    fn remember(
        &self,
        kind: RunKind,
        objects: &[SourceObject],
        places: &[String],
        run: &Run,
        (replaced, output): (Vec<u64>, RunOutput),
    ) -> Result<BookmarkUpdate> {
        let number = self.property.runs + 1;
        let record = RunRecord {
            number,
            id: run.id.to_string(),
            attempt: run.attempt,
            started: run.start.as_micros(),
            kind,
            objects: objects.len() as u64,
            bytes: objects.iter().map(|o| o.size).sum(),
            newest: objects.iter().map(|o| o.modified).max().unwrap_or_default(),
            places: places.to_vec(),
            reading: self.reading(),
            replaced,
            output: RunOutput { reached: vec![], ..output.clone() },
        };
        let reached: HashMap<String, Vec<u32>> = output.reached.into_iter().collect();
        let entry = |object: &SourceObject| {
            let reached = reached.get(&object.url).cloned().unwrap_or_default();
            ManifestEntry { object: object.clone(), run: number, reached }
        };
        let mut entries: Vec<ManifestEntry> = objects.iter().map(entry).collect();
        entries.sort_by(|a, b| a.object.url.cmp(&b.object.url));
        let widths: Vec<u64> = self.manifests.iter().map(|(first, last, _)| last - first + 1).chain([1]).collect();
        let merged = tiers::due(&widths) - 1;
        let (_, old) = self.manifests.split_at(self.manifests.len() - merged);
        let mut property = BookmarkProperty { runs: number, ..self.property.clone() };
        let fading = number.saturating_sub(self.bookmark.options.keep_runs);
        // Those in manifests that stay as they are fade when these are merged.
        let first = old.first().map_or(number, |(first, ..)| *first);
        let compacted = if first <= fading { fading } else { 0 };
        if compacted > 0 {
            let gone = self.runs().filter(|(r, counts)| *counts && r.number <= compacted).map(|(r, _)| r.newest);
            property.newest_compacted = gone.chain(self.property.newest_compacted).max();
            property.compacted = property.compacted.max(compacted);
        }
        let manifests: Vec<RunManifest> = old.iter().map(|(.., m)| m.clone()).collect();
        let bytes = tiers::merge(&manifests, (record, entries), compacted, &|run| self.is_rewound(run))?;
        let mut state = vec![(state_name(&self.bookmark.name, first, number), Some(bytes))];
        state.extend(old.iter().map(|(first, last, _)| (state_name(&self.bookmark.name, *first, *last), None)));
        Ok(BookmarkUpdate { state, ..self.with_property(&property) })
    }

    /// The identity by which objects are told apart.
    pub(crate) fn identity(&self) -> ObjectIdentity {
        self.bookmark.options.identity
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
    Error::new(ErrorKind::Unavailable, "UnreadableBookmark", message)
}

/// The newest of a bookmark's state files, at most so many, the oldest of them first.
async fn read(
    bookmark: &str,
    journal: &Journal,
    head: &TableHead,
    maximum: usize,
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
    for (first, last, name, file) in named.split_off(named.len().saturating_sub(maximum)) {
        let bytes = journal.read_state(head, file).await?;
        manifests.push((first, last, RunManifest::parse(&bytes, name)?));
    }
    Ok(manifests)
}
