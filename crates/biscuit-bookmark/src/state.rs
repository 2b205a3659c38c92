//! State of a bookmark in one version of its output: what it reads next, and how it remembers a run.

use std::collections::{BTreeSet, HashMap};

use biscuit_core::{Instant, Result, Run};
use biscuit_journal::{CommitExtras, Journal, TableHead};
use serde_json::{Value, json};

use crate::input::ListedInput;
use crate::object::SourceObject;
use crate::options::BookmarkOptions;
use crate::replaced::ReplacedOutput;
use crate::runs::lineage;
use crate::runs::manifest::{ManifestEntry, RunKind, RunManifest, RunOutput, RunRecord};
use crate::runs::remembered::{BookmarkProperty, RememberedRuns, property_name, read, state_name};
use crate::selection::explain::{ObjectExplanation, explain};
use crate::selection::mode::{ReadMode, RunRef};
use crate::selection::select::select_objects;
use crate::selection::selected::InputSelection;
use crate::tiers;

/// State of a bookmark in one version of its output: which objects count as read.
#[derive(Debug, Clone)]
pub struct BookmarkState {
    name: String,
    options: BookmarkOptions,
    runs: RememberedRuns,
    /// Other bookmarks of the output with the places of their sources; loaded only if this bookmark is new.
    others: Vec<(String, Vec<String>)>,
}

/// Returns the names of the bookmarks of an output.
pub fn bookmark_names(head: &TableHead) -> Vec<String> {
    head.properties.keys().filter_map(|k| k.strip_prefix("bookmark.")).map(str::to_owned).collect()
}

impl BookmarkState {
    pub(crate) async fn load(
        name: &str,
        options: &BookmarkOptions,
        journal: &Journal,
        head: &TableHead,
    ) -> Result<Self> {
        let runs = RememberedRuns::load(name, journal, head).await?;
        let mut others = Vec::new();
        // A new bookmark may be a renamed one, which deserves a warning. To see that, compare with the other
        // bookmarks.
        if runs.last() == 0 {
            for other in bookmark_names(head).into_iter().filter(|n| n != name) {
                let newest = read(&other, journal, head, 1).await?;
                let places = newest.last().and_then(|(.., m)| m.runs.last()).map(|r| r.places.clone());
                others.push((other, places.unwrap_or_default()));
            }
        }
        Ok(Self { name: name.to_owned(), options: options.clone(), runs, others })
    }

    /// Name of the bookmark.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the last run; 0 if there was none.
    pub fn last_run(&self) -> u64 {
        self.runs.last()
    }

    /// Returns the runs that are remembered by name, oldest first. The second value tells whether the objects of the
    /// run count as read; it is false for a rewound run.
    pub fn runs(&self) -> impl Iterator<Item = (&RunRecord, bool)> {
        self.runs.runs()
    }

    /// Size of the compressed parts of all state files, in bytes.
    pub fn compressed_size(&self) -> u64 {
        self.runs.bytes()
    }

    /// Newest time of modification among the objects that count as read, on the clock of the store.
    pub fn watermark(&self) -> Option<Instant> {
        self.runs.watermark()
    }

    /// Returns the number of a run.
    ///
    /// # Errors
    /// `UnknownRun`, `RunCompacted`.
    pub fn run_number(&self, run: &RunRef) -> Result<u64> {
        self.runs.number(run)
    }

    /// Selects the objects that a run in this mode reads. Take the listing after loading this state.
    ///
    /// # Errors
    /// `Overwritten` for an overwritten object with [`OverwrittenPolicy::Fail`](crate::OverwrittenPolicy::Fail);
    /// `UnknownRun` and `RunCompacted` for the ends of a replay; `NoInput` if a place has no objects in the first
    /// run; `UnreadableBookmark` if the state is damaged.
    pub fn select(&self, input: &ListedInput, mode: &ReadMode) -> Result<InputSelection> {
        let mut selection = select_objects(&self.runs, &self.options, input, mode)?;
        selection.warnings = self.warnings(&selection.places);
        Ok(selection)
    }

    /// Explains why the next run reads the object with this URL or does not.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use biscuit_bookmark::{Bookmark, IgnoredReason, ObjectExplanation, SourcePlace, list};
    /// use biscuit_journal::{Journal, JournalOptions, TableStorage};
    /// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
    /// let storage = TableStorage::durable(Arc::new(InMemory::new()));
    /// for key in ["raw/a.json", "raw/_SUCCESS"] {
    ///     storage.store.put(&Path::from(key), "{}".into()).await.unwrap();
    /// }
    /// let journal = Journal::new(storage.clone(), Path::from("lake/orders"), JournalOptions::default());
    /// let state = Bookmark::new("orders")?.load(&journal, &journal.head().await?).await?;
    /// let input = list(&[SourcePlace::new(&storage, "memory://lake/", "raw")?]).await?;
    ///
    /// assert_eq!(state.explain(&input, "memory://lake/raw/a.json")?, ObjectExplanation::New);
    /// let ignored = ObjectExplanation::Ignored { reason: IgnoredReason::Hidden };
    /// assert_eq!(state.explain(&input, "memory://lake/raw/_SUCCESS")?, ignored);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn explain(&self, input: &ListedInput, url: &str) -> Result<ObjectExplanation> {
        explain(&self.runs, &self.options, input, url)
    }

    /// Returns the partitions that contain rows of objects that the bookmark remembers by name.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn partitions(&self) -> Result<BTreeSet<String>> {
        lineage::partitions(&self.runs)
    }

    /// Returns the partitions with rows of the objects for whose URL and run `wants` returns true. If the partitions
    /// of an object are unknown, all partitions of its run count.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn partitions_of(&self, wants: &dyn Fn(&str, u64) -> bool) -> Result<BTreeSet<String>> {
        lineage::partitions_of(&self.runs, wants)
    }

    /// Returns the partitions that rebuilds among these runs have replaced. Files of earlier runs in these partitions
    /// were removed, and the files of the rebuild contain their rows.
    pub fn rebuilt_partitions(&self, runs: &[u64]) -> BTreeSet<String> {
        lineage::rebuilt_partitions(&self.runs, runs)
    }

    /// Returns the URLs of objects with rows in these partitions, as far as the bookmark remembers them.
    ///
    /// # Errors
    /// Those of [`partitions`](Self::partitions).
    pub fn urls_in(&self, partitions: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        lineage::urls_in(&self.runs, partitions)
    }

    /// Returns the listed objects that have rows in these partitions. If the partitions of an object are unknown, all
    /// partitions of its run count.
    ///
    /// # Errors
    /// `CannotReplace` if such an object no longer exists or was overwritten after it was read, because its rows
    /// could not be written again; `RunCompacted` if there are compacted runs, whose partitions are unknown.
    pub fn inputs_of(&self, partitions: &BTreeSet<String>, input: &ListedInput) -> Result<Vec<SourceObject>> {
        self.inputs_of_except(partitions, input, &|_| false)
    }

    /// Returns the objects of [`inputs_of`](Self::inputs_of) except those for whose URL `has` returns true. The
    /// caller reads those already, so they may have been overwritten.
    ///
    /// # Errors
    /// Those of [`inputs_of`](Self::inputs_of).
    pub fn inputs_of_except(
        &self,
        partitions: &BTreeSet<String>,
        input: &ListedInput,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<SourceObject>> {
        lineage::inputs_besides(&self.runs, partitions, input, has)
    }

    /// Returns the output that the rows of a selection replace when they are appended: the files of every run that
    /// read one of its objects before. If such a run read other objects too, these are added to the selection,
    /// because their rows are in the same files.
    ///
    /// # Errors
    /// `CannotReplace` if an added object no longer exists, if an object was set as read without reading and was
    /// overwritten since, or if it was read by a run that replaced partitions as a whole. `RunCompacted` if the files
    /// of a run are no longer known.
    pub fn replaced_output(&self, selection: &mut InputSelection, input: &ListedInput) -> Result<ReplacedOutput> {
        lineage::replaced(&self.runs, selection, input)
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
        self.add_run(RunKind::Advance, &selection.objects, &selection.places, run, vec![], output).map(Some)
    }

    /// Returns the update to commit together with an output that replaces the output of earlier runs, as
    /// [`replaced_output`](Self::replaced_output) returned it. This also applies to a replay: its objects then belong
    /// to the new run.
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
        self.add_run(kind, &selection.objects, &selection.places, run, replaced.runs.clone(), output).map(Some)
    }

    /// Returns the update that forgets all runs: the next run reads all objects. The output does not change.
    ///
    /// # Errors
    /// No errors at present.
    pub fn reset(&self) -> Result<CommitExtras> {
        let mut property = self.runs.property.clone();
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
        let to = self.run_number(to)?;
        if to == 0 {
            return self.reset();
        }
        let mut property = self.runs.property.clone();
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
        self.add_run(RunKind::SetToNow, &input.all_objects(), &input.places(), run, vec![], output)
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
        self.add_run(RunKind::Rebuild, objects, places, run, vec![], output)
    }

    /// Warnings about a renamed bookmark, moved places and changed options.
    fn warnings(&self, places: &[String]) -> Vec<String> {
        let name = &self.name;
        let mut warnings = Vec::new();
        for (other, theirs) in self.others.iter().filter(|(_, theirs)| theirs.iter().any(|p| places.contains(p))) {
            let place = theirs.iter().find(|p| places.contains(p)).map(String::as_str).unwrap_or_default();
            warnings.push(format!(
                "the bookmark `{name}` is new and reads all objects, although `{other}` of this output reads `{place}` already; check whether the bookmark was renamed"
            ));
        }
        let Some((last, _)) = self.runs.runs().last() else { return warnings };
        if last.places != places {
            warnings.push(format!(
                "the source of the bookmark `{name}` was {} and is {} now; objects are recognised by their URL, so all objects of a new place are read",
                last.places.join(", "),
                places.join(", ")
            ));
        }
        let reading = self.reading_options();
        if last.reading != reading {
            warnings.push(format!(
                "the bookmark `{name}` was read with other options: {} before, {reading} now; objects that were read before are not read again",
                last.reading
            ));
        }
        warnings
    }

    fn reading_options(&self) -> Value {
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
    /// The run becomes a manifest of its own, or is merged with the newest manifests, as [`tiers::count_due`] decides.
    /// State files of merged manifests are removed in the same commit, so that every run is in exactly one manifest.
    fn add_run(
        &self,
        kind: RunKind,
        objects: &[SourceObject],
        places: &[String],
        run: &Run,
        replaced: Vec<u64>,
        output: RunOutput,
    ) -> Result<CommitExtras> {
        let number = self.runs.property.runs + 1;
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
            reading: self.reading_options(),
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
        let widths: Vec<u64> = self.runs.manifests.iter().map(|(first, last, _)| last - first + 1).chain([1]).collect();
        let merged = tiers::count_due(&widths) - 1;
        let (_, old) = self.runs.manifests.split_at(self.runs.manifests.len() - merged);
        let mut property = BookmarkProperty { runs: number, ..self.runs.property.clone() };
        let forgettable = number.saturating_sub(self.options.keep_runs);
        // Runs beyond `keep_runs` are compacted only when their manifest is merged anyway. Manifests that are not
        // merged now are not rewritten for that.
        let first = old.first().map_or(number, |(first, ..)| *first);
        let compact_up_to = if first <= forgettable { forgettable } else { 0 };
        if compact_up_to > 0 {
            let gone =
                self.runs.runs().filter(|(r, counts)| *counts && r.number <= compact_up_to).map(|(r, _)| r.newest);
            property.newest_compacted = gone.chain(self.runs.property.newest_compacted).max();
            property.compacted = property.compacted.max(compact_up_to);
        }
        let manifests: Vec<RunManifest> = old.iter().map(|(.., m)| m.clone()).collect();
        let bytes =
            tiers::merge_manifests(&manifests, record, entries, compact_up_to, &|run| self.runs.is_rewound(run))?;
        let mut extras = self.with_property(&property);
        extras.put_state(state_name(&self.name, first, number), bytes);
        old.iter().for_each(|(first, last, _)| extras.remove_state(state_name(&self.name, *first, *last)));
        Ok(extras)
    }
}
