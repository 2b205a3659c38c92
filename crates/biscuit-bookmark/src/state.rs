use std::collections::{BTreeSet, HashMap};

use biscuit_core::{Error, ErrorKind, Instant, Result, Run};
use biscuit_journal::{Head, Journal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bookmark::{Bookmark, Identity};
use crate::change::Change;
use crate::input::Input;
use crate::known::Known;
use crate::lineage::Replaced;
use crate::manifest::{Entry, Manifest, Output, RunKind, RunRecord};
use crate::mode::{Mode, RunRef};
use crate::object::Object;
use crate::select::{Selection, select};
use crate::tiers;

/// Where state files of bookmarks are, among those of the table.
const FOLDER: &str = "bookmarks";

/// The fact of a bookmark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Fact {
    /// The number of the last run.
    runs: u64,
    /// Runs whose objects do not count as read any more: first and last of each span.
    #[serde(default)]
    forgotten: Vec<(u64, u64)>,
    /// The last run of which only numbers are kept.
    #[serde(default)]
    faded: u64,
    /// The newest time of modification that any of those had, as far as it counts.
    #[serde(default)]
    newest_faded: Option<i64>,
}

/// What a bookmark remembers, in one version of the output.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) bookmark: Bookmark,
    fact: Fact,
    /// State files: the first and the last run of each, and what is in it.
    pub(crate) manifests: Vec<(u64, u64, Manifest)>,
    /// Other bookmarks of the output, and where their sources were.
    others: Vec<(String, Vec<String>)>,
}

/// The names of the bookmarks that an output has.
pub fn bookmarks(head: &Head) -> Vec<String> {
    head.meta.keys().filter_map(|k| k.strip_prefix("bookmark.")).map(str::to_owned).collect()
}

impl State {
    pub(crate) async fn load(bookmark: Bookmark, journal: &Journal, head: &Head) -> Result<Self> {
        let fact = match head.meta.get(&fact_name(&bookmark.name)) {
            Some(value) => {
                serde_json::from_value(value.clone()).map_err(|e| unreadable(&bookmark.name).with_source(e))?
            }
            None => Fact::default(),
        };
        let mut manifests = read(&bookmark.name, journal, head, usize::MAX).await?;
        manifests.sort_by_key(|(first, ..)| *first);
        let mut others = Vec::new();
        // Whether a source goes by another name matters only where this name is new.
        if fact.runs == 0 {
            for name in bookmarks(head).into_iter().filter(|n| *n != bookmark.name) {
                let newest = read(&name, journal, head, 1).await?;
                let places = newest.last().and_then(|(.., m)| m.runs.last()).map(|r| r.places.clone());
                others.push((name, places.unwrap_or_default()));
            }
        }
        Ok(Self { bookmark, fact, manifests, others })
    }

    /// The name of the bookmark.
    pub fn name(&self) -> &str {
        &self.bookmark.name
    }

    /// The number of the last run; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.fact.runs
    }

    /// The runs that are remembered by name, the oldest first, each with whether its objects count as read.
    pub fn runs(&self) -> impl Iterator<Item = (&RunRecord, bool)> {
        self.manifests.iter().flat_map(|(.., m)| &m.runs).map(|r| (r, !self.is_forgotten(r.number)))
    }

    /// The bytes of its state files' compressed part.
    pub fn bytes(&self) -> u64 {
        self.manifests.iter().map(|(.., m)| m.bytes()).sum()
    }

    /// The newest time of modification among the objects that count as read, on the store's clock.
    pub fn watermark(&self) -> Option<Instant> {
        let counted = self.runs().filter(|(r, counts)| *counts && r.objects > 0).map(|(r, _)| r.newest);
        counted.chain(self.fact.newest_faded).max().map(Instant::from_micros)
    }

    /// Which objects a run in this mode reads, from a listing that was taken after this state was loaded.
    ///
    /// # Errors
    /// `Overwritten` where such objects are to stop the run; `UnknownRun` and `RunForgotten` for the ends of a replay; `NotFound` if nothing is
    /// there and nothing was ever read.
    pub fn select(&self, input: &Input, mode: &Mode) -> Result<Selection> {
        select(self, input, mode)
    }

    /// What a commit of the run's output has to make true, so that the objects of the selection count as read. None where nothing is to be
    /// remembered: in other modes than [`Mode::Advance`], and where nothing was selected.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn advance(&self, selection: &Selection, run: &Run, output: Output) -> Result<Option<Change>> {
        if selection.mode != Mode::Advance || selection.objects.is_empty() {
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
        selection: &Selection,
        run: &Run,
        output: Output,
        replaced: &Replaced,
    ) -> Result<Option<Change>> {
        let kind = match selection.mode {
            Mode::Advance => RunKind::Advance,
            Mode::Replay(_) => RunKind::Replay,
            Mode::Full | Mode::ReadOnly => return Ok(None),
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
    pub fn reset(&self) -> Result<Change> {
        let mut fact = self.fact.clone();
        fact.forgotten = if fact.runs == 0 { vec![] } else { vec![(1, fact.runs)] };
        fact.newest_faded = None;
        Ok(self.with_fact(&fact))
    }

    /// Forgets what was read by the runs after this one: the next run reads it again. Nothing is done to the output.
    ///
    /// # Errors
    /// `UnknownRun`; `RunForgotten` for a run of which only numbers are kept.
    pub fn rewind(&self, to: &RunRef) -> Result<Change> {
        let to = self.number(to)?;
        if to == 0 {
            return self.reset();
        }
        let mut fact = self.fact.clone();
        fact.forgotten.retain(|(first, _)| *first <= to);
        if to < fact.runs {
            // A span that goes on is one span.
            match fact.forgotten.last_mut().filter(|(_, last)| *last >= to) {
                Some(span) => span.1 = fact.runs,
                None => fact.forgotten.push((to + 1, fact.runs)),
            }
        }
        Ok(self.with_fact(&fact))
    }

    /// Remembers everything that is there as read, without its being read. `partitions` are the folders that the output's files are in: rows
    /// of these objects may be in any of them.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn set_to_now(&self, input: &Input, run: &Run, partitions: BTreeSet<String>) -> Result<Change> {
        let output = Output { partitions: partitions.into_iter().collect(), ..Output::default() };
        self.remember(RunKind::SetToNow, &input.everything(), &input.places(), run, (vec![], output))
    }

    /// What a commit has to make true that builds some partitions anew from these objects, which were read before.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn rebuild(&self, objects: &[Object], places: &[String], run: &Run, output: Output) -> Result<Change> {
        self.remember(RunKind::Rebuild, objects, places, run, (vec![], output))
    }

    /// The number of a run.
    ///
    /// # Errors
    /// `UnknownRun`, `RunForgotten`.
    pub fn number(&self, run: &RunRef) -> Result<u64> {
        let last = self.fact.runs;
        match run {
            RunRef::Number(0) => Ok(0),
            RunRef::Number(number) if *number > 0 && *number < self.fact.faded => {
                let faded = self.fact.faded;
                let message = format!("the objects of runs up to {faded} are not remembered by name any more");
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
    pub(crate) fn faded(&self) -> u64 {
        self.fact.faded
    }

    pub(crate) fn is_forgotten(&self, run: u64) -> bool {
        self.fact.forgotten.iter().any(|(first, last)| (*first..=*last).contains(&run))
    }

    /// What counts as read.
    pub(crate) fn known(&self) -> Result<Known> {
        let mut known = Known::with_capacity(self.manifests.iter().map(|(.., m)| m.len()).sum());
        for (.., manifest) in &self.manifests {
            let mut reader = manifest.reader()?;
            while let Some((print, run)) = reader.print()? {
                if !self.is_forgotten(run) {
                    known.add(print, run);
                }
            }
            while let Some(faded) = reader.faded()? {
                if !self.is_forgotten(faded.run) {
                    known.add(faded.print, faded.run);
                }
            }
        }
        Ok(known)
    }

    /// What runs read an object of this URL, by number, with what they found.
    pub(crate) fn readings(&self, url: &str) -> Result<Vec<(u64, Object)>> {
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
    pub(crate) fn each_entry(&self, f: &mut dyn FnMut(Entry)) -> Result<()> {
        self.manifests.iter().try_for_each(|(.., manifest)| manifest.each(f, &mut |_| ()))
    }

    /// Below this time an object that is not remembered is too late.
    pub(crate) fn horizon(&self, input: &Input) -> Option<Instant> {
        let look_back = self.bookmark.options.look_back.filter(|_| input.has_store_times())?;
        Some(self.watermark()?.saturating_sub(look_back))
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

    fn with_fact(&self, fact: &Fact) -> Change {
        Change { state: vec![], facts: vec![(fact_name(&self.bookmark.name), json!(fact))] }
    }

    /// One more run, with these objects.
    fn remember(
        &self,
        kind: RunKind,
        objects: &[Object],
        places: &[String],
        run: &Run,
        (replaced, output): (Vec<u64>, Output),
    ) -> Result<Change> {
        let number = self.fact.runs + 1;
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
            output: Output { reached: vec![], ..output.clone() },
        };
        let reached: HashMap<String, Vec<u32>> = output.reached.into_iter().collect();
        let entry = |object: &Object| {
            let reached = reached.get(&object.url).cloned().unwrap_or_default();
            Entry { object: object.clone(), run: number, reached }
        };
        let mut entries: Vec<Entry> = objects.iter().map(entry).collect();
        entries.sort_by(|a, b| a.object.url.cmp(&b.object.url));
        let widths: Vec<u64> = self.manifests.iter().map(|(first, last, _)| last - first + 1).chain([1]).collect();
        let merged = tiers::due(&widths) - 1;
        let (_, old) = self.manifests.split_at(self.manifests.len() - merged);
        let mut fact = Fact { runs: number, ..self.fact.clone() };
        let fading = number.saturating_sub(self.bookmark.options.keep_runs);
        // Those in manifests that stay as they are fade when these are merged.
        let first = old.first().map_or(number, |(first, ..)| *first);
        let faded = if first <= fading { fading } else { 0 };
        if faded > 0 {
            let gone = self.runs().filter(|(r, counts)| *counts && r.number <= faded).map(|(r, _)| r.newest);
            fact.newest_faded = gone.chain(self.fact.newest_faded).max();
            fact.faded = fact.faded.max(faded);
        }
        let manifests: Vec<Manifest> = old.iter().map(|(.., m)| m.clone()).collect();
        let bytes = tiers::merge(&manifests, (record, entries), faded, &|run| self.is_forgotten(run))?;
        let mut state = vec![(state_name(&self.bookmark.name, first, number), Some(bytes))];
        state.extend(old.iter().map(|(first, last, _)| (state_name(&self.bookmark.name, *first, *last), None)));
        Ok(Change { state, ..self.with_fact(&fact) })
    }

    /// The identity by which objects are told apart.
    pub(crate) fn identity(&self) -> Identity {
        self.bookmark.options.identity
    }
}

fn fact_name(bookmark: &str) -> String {
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
async fn read(bookmark: &str, journal: &Journal, head: &Head, most: usize) -> Result<Vec<(u64, u64, Manifest)>> {
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
    for (first, last, name, file) in named.split_off(named.len().saturating_sub(most)) {
        let bytes = journal.read_state(head, file).await?;
        manifests.push((first, last, Manifest::parse(&bytes, name)?));
    }
    Ok(manifests)
}
