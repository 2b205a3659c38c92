//! Which objects an output's files and partitions were made of.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use biscuit_core::{Error, Result};

use crate::input::ListedInput;
use crate::manifest::{ManifestEntry, RunKind, RunOutput, RunRecord};
use crate::object::{ObjectFingerprint, SourceObject};
use crate::select::InputSelection;
use crate::state::BookmarkState;

/// What goes when the rows of a selection replace those that were read from the same objects before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplacedOutput {
    /// The runs that are replaced, by number.
    pub runs: Vec<u64>,
    /// The files that they wrote, relative to the table.
    pub files: Vec<String>,
}

impl BookmarkState {
    /// Calls `f` with every object whose rows are in the output, as the runs that wrote them read it. What was taken as read without being
    /// read may be wherever rows were then, unless a run has read it.
    fn each_live(&self, f: &mut dyn FnMut(&RunRecord, ManifestEntry)) -> Result<()> {
        let dead: BTreeSet<u64> = self.runs().flat_map(|(r, _)| r.replaced.iter().copied()).collect();
        let has_rows = |r: &RunRecord| r.kind != RunKind::SetToNow || !r.output.partitions.is_empty();
        let wrote = |r: &RunRecord| !dead.contains(&r.number) && has_rows(r);
        let live: BTreeMap<u64, &RunRecord> =
            self.runs().filter(|(r, _)| wrote(r)).map(|(r, _)| (r.number, r)).collect();
        let mut read: HashSet<(u64, u64)> = HashSet::new();
        if live.values().any(|r| r.kind == RunKind::SetToNow) {
            self.each_entry(&mut |entry| {
                if live.get(&entry.run).is_some_and(|r| r.kind != RunKind::SetToNow) {
                    let fingerprint = entry.object.fingerprint();
                    read.insert((fingerprint.url, fingerprint.content));
                }
            })?;
        }
        self.each_entry(&mut |entry| {
            let Some(run) = live.get(&entry.run) else { return };
            let fingerprint = entry.object.fingerprint();
            if run.kind != RunKind::SetToNow || !read.contains(&(fingerprint.url, fingerprint.content)) {
                f(run, entry);
            }
        })
    }

    /// The partitions that rows of objects are in which the bookmark remembers by name.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn partitions(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        self.each_live(&mut |run, entry| found.extend(reached(run, &entry).cloned()))?;
        Ok(found)
    }

    /// The objects whose rows are in these partitions, by URL, as far as the bookmark remembers.
    ///
    /// # Errors
    /// As [`partitions`](Self::partitions).
    pub fn urls_in(&self, partitions: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        self.each_live(&mut |run, entry| {
            if reached(run, &entry).any(|p| partitions.contains(p)) {
                found.insert(entry.object.url);
            }
        })?;
        Ok(found)
    }

    /// The objects whose rows are in these partitions, as they are listed: where it is not known of an object, those of all runs that wrote
    /// there.
    ///
    /// # Errors
    /// `CannotReplace` if one of them is gone, or was overwritten since it was read, so that the partitions would not be what they were;
    /// `RunForgotten` where runs wrote of which nothing is known any more.
    pub fn inputs_of(&self, partitions: &BTreeSet<String>, input: &ListedInput) -> Result<Vec<SourceObject>> {
        self.inputs_besides(partitions, input, &|_| false)
    }

    /// As [`inputs_of`](Self::inputs_of), without the objects that the caller has already: these may have been overwritten.
    ///
    /// # Errors
    /// As [`inputs_of`](Self::inputs_of).
    pub fn inputs_besides(
        &self,
        partitions: &BTreeSet<String>,
        input: &ListedInput,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<SourceObject>> {
        if self.compacted() > 0 {
            let message = format!("what runs up to {} wrote is not known any more", self.compacted());
            return Err(Error::usage("RunForgotten", message));
        }
        let mut wanted: BTreeMap<String, ObjectFingerprint> = BTreeMap::new();
        self.each_live(&mut |run, entry| {
            if reached(run, &entry).any(|p| partitions.contains(p)) && !has(&entry.object.url) {
                // Entries come by run: of one object the last reading counts.
                wanted.insert(entry.object.url.clone(), entry.object.fingerprint());
            }
        })?;
        let mut found = Vec::new();
        for (object, _) in input.objects().filter(|(_, ignored)| ignored.is_none()) {
            if let Some(fingerprint) = wanted.remove(&object.url) {
                if fingerprint.content != object.fingerprint().content {
                    let message = format!("`{}` was overwritten since it was read; run the job first", object.url);
                    return Err(Error::data("CannotReplace", message).in_file(&object.url));
                }
                found.push(object);
            }
        }
        match wanted.into_keys().next() {
            None => Ok(found),
            Some(url) => {
                let message = format!("`{url}` is gone: its rows are in the partitions, and would be lost");
                Err(Error::data("CannotReplace", message).in_file(&url))
            }
        }
    }

    /// What goes when the selection's rows are appended: the files of every run that read one of its objects before. Where such a run read
    /// others besides, these are added to the selection, since their rows go with its files.
    ///
    /// # Errors
    /// `CannotReplace` if one of those is gone or has been overwritten since, or if an object was overwritten that had been taken as read when
    /// there were rows already, or was read by a run that replaced partitions as a whole; `RunForgotten` if nothing is known of a run's files.
    pub fn replaced(&self, selection: &mut InputSelection, input: &ListedInput) -> Result<ReplacedOutput> {
        let mut urls_of_run: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut runs_of_url: HashMap<String, Vec<u64>> = HashMap::new();
        let mut output_of_run: BTreeMap<u64, RunOutput> = BTreeMap::new();
        let mut taken: HashSet<String> = HashSet::new();
        self.each_live(&mut |run, entry| {
            if run.kind == RunKind::SetToNow {
                taken.insert(entry.object.url);
                return;
            }
            output_of_run.entry(run.number).or_insert_with(|| run.output.clone());
            runs_of_url.entry(entry.object.url.clone()).or_default().push(run.number);
            urls_of_run.entry(run.number).or_default().push(entry.object.url);
        })?;
        let mut old: HashSet<u64> = HashSet::new();
        for (.., manifest) in &self.manifests {
            manifest.each(&mut |_| (), &mut |compacted| old.extend([compacted.fingerprint.url]))?;
        }
        let mut chosen: BTreeSet<String> = selection.objects.iter().map(|o| o.url.clone()).collect();
        let (mut todo, mut runs) = (chosen.iter().cloned().collect::<Vec<_>>(), BTreeSet::new());
        while let Some(url) = todo.pop() {
            for run in runs_of_url.get(&url).into_iter().flatten() {
                if runs.insert(*run) {
                    let urls = urls_of_run.get(run).into_iter().flatten();
                    todo.extend(urls.filter(|u| chosen.insert((*u).clone())).cloned());
                }
            }
        }
        self.complete(selection, input, chosen)?;
        let unread = |o: &&SourceObject| taken.contains(&o.url) && !runs_of_url.contains_key(&o.url);
        if let Some(object) = selection.objects.iter().find(unread) {
            let message = format!(
                "`{}` was taken as read, and was overwritten since: which rows of the table were made of it is not known",
                object.url
            );
            return Err(Error::data("CannotReplace", message).in_file(&object.url));
        }
        let compacted = |o: &&SourceObject| old.contains(&o.fingerprint().url) && !runs_of_url.contains_key(&o.url);
        if let Some(object) = selection.objects.iter().find(compacted) {
            let message = format!("`{}` was read by a run so long ago that its files are not known", object.url);
            return Err(Error::usage("RunForgotten", message));
        }
        let mut files = Vec::new();
        for run in &runs {
            let output = output_of_run.remove(run).unwrap_or_default();
            if output.files.is_empty() && !output.partitions.is_empty() {
                let message = format!(
                    "rows of objects that are read again are in partitions that run {run} replaced as a whole; replace these partitions again"
                );
                return Err(Error::usage("CannotReplace", message));
            }
            files.extend(output.files);
        }
        Ok(ReplacedOutput { runs: runs.into_iter().collect(), files })
    }

    /// Adds the objects that are to be read again besides those of the selection.
    fn complete(
        &self,
        selection: &mut InputSelection,
        input: &ListedInput,
        mut chosen: BTreeSet<String>,
    ) -> Result<()> {
        for object in &selection.objects {
            chosen.remove(&object.url);
        }
        if chosen.is_empty() {
            return Ok(());
        }
        for (object, ignored) in input.objects() {
            if ignored.is_none() && chosen.remove(&object.url) {
                selection.add(object);
            }
        }
        if let Some(url) = chosen.first() {
            let message = format!(
                "`{url}` is gone: its rows are in files with those of objects that are to be read again, and would be lost"
            );
            return Err(Error::data("CannotReplace", message).in_file(url));
        }
        selection.objects.sort_by(|a, b| (a.modified, &a.url).cmp(&(b.modified, &b.url)));
        Ok(())
    }

    /// The partitions that rebuilds among these runs have built anew: files of earlier runs in them are gone, and their rows are in the
    /// rebuilds'.
    pub fn rebuilt_partitions(&self, runs: &[u64]) -> BTreeSet<String> {
        let rebuilds = self.runs().filter(|(r, _)| r.kind == RunKind::Rebuild && runs.contains(&r.number));
        rebuilds.flat_map(|(r, _)| r.output.partitions.iter().cloned()).collect()
    }

    /// The partitions that rows of these objects are in: where it is not known of an object, all partitions of the runs that read it.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn partitions_of(&self, wants: &dyn Fn(&str, u64) -> bool) -> Result<BTreeSet<String>> {
        let runs: BTreeMap<u64, &RunRecord> = self.runs().map(|(r, _)| (r.number, r)).collect();
        let mut found = BTreeSet::new();
        self.each_entry(&mut |entry| {
            if let Some(run) = runs.get(&entry.run).filter(|_| wants(&entry.object.url, entry.run)) {
                found.extend(reached(run, &entry).cloned());
            }
        })?;
        Ok(found)
    }
}

/// The partitions that rows of an object are in: all that the run wrote to where it is not known.
fn reached<'a>(run: &'a RunRecord, entry: &ManifestEntry) -> impl Iterator<Item = &'a String> {
    let all = &run.output.partitions;
    let known = entry.reached.iter().filter_map(|at| all.get(*at as usize)).collect::<Vec<_>>();
    let unknown = if entry.reached.is_empty() { all.as_slice() } else { &[] };
    unknown.iter().chain(known)
}
