//! Which objects an output's files and partitions were made of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use biscuit_core::{Error, Result};

use crate::input::Input;
use crate::manifest::{Entry, RunKind, RunRecord};
use crate::object::{Object, Print};
use crate::select::Selection;
use crate::state::State;

/// What goes when the rows of a selection replace those that were read from the same objects before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The runs that are replaced, by number.
    pub runs: Vec<u64>,
    /// The files that they wrote, relative to the table.
    pub files: Vec<String>,
}

impl State {
    /// The objects whose rows are in these partitions, as they are listed: where it is not known of an object, those of all runs that wrote
    /// there.
    ///
    /// # Errors
    /// `CannotReplace` if one of them is gone, or was overwritten since it was read, so that the partitions would not be what they were;
    /// `RunForgotten` where runs wrote of which nothing is known any more.
    pub fn inputs_of(&self, partitions: &BTreeSet<String>, input: &Input) -> Result<Vec<Object>> {
        self.inputs_besides(partitions, input, &|_| false)
    }

    /// As [`inputs_of`](Self::inputs_of), without the objects that the caller has already: these may have been overwritten.
    ///
    /// # Errors
    /// As [`inputs_of`](Self::inputs_of).
    pub fn inputs_besides(
        &self,
        partitions: &BTreeSet<String>,
        input: &Input,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Object>> {
        if self.faded() > 0 {
            let message = format!("what runs up to {} wrote is not known any more", self.faded());
            return Err(Error::usage("RunForgotten", message));
        }
        let dead: BTreeSet<u64> = self.runs().flat_map(|(r, _)| r.replaced.iter().copied()).collect();
        let wrote = |r: &RunRecord| r.kind != RunKind::SetToNow && !dead.contains(&r.number);
        let live: BTreeMap<u64, &RunRecord> =
            self.runs().filter(|(r, _)| wrote(r)).map(|(r, _)| (r.number, r)).collect();
        let mut wanted: BTreeMap<String, Print> = BTreeMap::new();
        for (.., manifest) in &self.manifests {
            let entry = &mut |entry: Entry| {
                let Some(run) = live.get(&entry.run) else { return };
                let all = &run.output.partitions;
                let is_in = match entry.reached.is_empty() {
                    true => all.iter().any(|p| partitions.contains(p)),
                    false => {
                        entry.reached.iter().filter_map(|at| all.get(*at as usize)).any(|p| partitions.contains(p))
                    }
                };
                if is_in && !has(&entry.object.url) {
                    // Entries come by run: of one object the last reading counts.
                    wanted.insert(entry.object.url.clone(), entry.object.print());
                }
            };
            manifest.each(entry, &mut |_| ())?;
        }
        let mut found = Vec::new();
        for (object, _) in input.objects().filter(|(_, ignored)| ignored.is_none()) {
            if let Some(print) = wanted.remove(&object.url) {
                if print.content != object.print().content {
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
    /// `CannotReplace` if one of those is gone or has been overwritten since; `RunForgotten` if nothing is known of a run's files.
    pub fn replaced(&self, selection: &mut Selection, input: &Input) -> Result<Replaced> {
        let dead: BTreeSet<u64> = self.runs().flat_map(|(r, _)| r.replaced.iter().copied()).collect();
        let wrote = |r: &RunRecord| r.kind != RunKind::SetToNow && !dead.contains(&r.number);
        let live: BTreeMap<u64, &RunRecord> =
            self.runs().filter(|(r, _)| wrote(r)).map(|(r, _)| (r.number, r)).collect();
        let mut urls_of_run: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut runs_of_url: HashMap<String, Vec<u64>> = HashMap::new();
        let mut old: BTreeSet<u64> = BTreeSet::new();
        for (.., manifest) in &self.manifests {
            let entry = &mut |entry: Entry| {
                if live.contains_key(&entry.run) {
                    runs_of_url.entry(entry.object.url.clone()).or_default().push(entry.run);
                    urls_of_run.entry(entry.run).or_default().push(entry.object.url);
                }
            };
            manifest.each(entry, &mut |faded| {
                old.insert(faded.print.url);
            })?;
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
        let faded = |o: &&Object| old.contains(&o.print().url) && !runs_of_url.contains_key(&o.url);
        if let Some(object) = selection.objects.iter().find(faded) {
            let message = format!("`{}` was read by a run so long ago that its files are not known", object.url);
            return Err(Error::usage("RunForgotten", message));
        }
        let files = runs.iter().filter_map(|r| live.get(r)).flat_map(|r| r.output.files.iter().cloned()).collect();
        Ok(Replaced { runs: runs.into_iter().collect(), files })
    }

    /// Adds the objects that are to be read again besides those of the selection.
    fn complete(&self, selection: &mut Selection, input: &Input, mut chosen: BTreeSet<String>) -> Result<()> {
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
        for (.., manifest) in &self.manifests {
            let entry = &mut |entry: Entry| {
                let Some(run) = runs.get(&entry.run).filter(|_| wants(&entry.object.url, entry.run)) else { return };
                let all = &run.output.partitions;
                match entry.reached.is_empty() {
                    true => found.extend(all.iter().cloned()),
                    false => found.extend(entry.reached.iter().filter_map(|at| all.get(*at as usize)).cloned()),
                }
            };
            manifest.each(entry, &mut |_| ())?;
        }
        Ok(found)
    }
}
