//! Lineage: which objects the files and partitions of an output were made of.
//!
//! It answers two questions. Which partitions have to be built again if an object changes, and which files have to be
//! removed so that the rows of an object that is read again are not in the output twice?

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use biscuit_core::{Error, Result};

use crate::codes;
use crate::input::ListedInput;
use crate::object::{ObjectFingerprint, SourceObject};
use crate::replaced::ReplacedOutput;
use crate::runs::manifest::{ManifestEntry, RunKind, RunOutput, RunRecord};
use crate::runs::remembered::RememberedRuns;
use crate::selection::selected::InputSelection;

/// Calls `f` with every object whose rows are in the output, together with the run that wrote them.
///
/// Runs whose output was replaced by a later run are left out: their rows are gone. An object that was set as
/// read without reading ([`RunKind::SetToNow`]) may have rows in every partition that existed then. If a run has
/// read the same content, that run is known to have written the rows, and the entry of the other kind is left
/// out.
fn each_live(runs: &RememberedRuns, f: &mut dyn FnMut(&RunRecord, ManifestEntry)) -> Result<()> {
    let dead: BTreeSet<u64> = runs.runs().flat_map(|(r, _)| r.replaced.iter().copied()).collect();
    let has_rows = |r: &RunRecord| r.kind != RunKind::SetToNow || !r.output.partitions.is_empty();
    let wrote = |r: &RunRecord| !dead.contains(&r.number) && has_rows(r);
    let live: BTreeMap<u64, &RunRecord> = runs.runs().filter(|(r, _)| wrote(r)).map(|(r, _)| (r.number, r)).collect();
    let mut read: HashSet<(u64, u64)> = HashSet::new();
    if live.values().any(|r| r.kind == RunKind::SetToNow) {
        runs.each_entry(&mut |entry| {
            if live.get(&entry.run).is_some_and(|r| r.kind != RunKind::SetToNow) {
                let fingerprint = entry.object.fingerprint();
                read.insert((fingerprint.url, fingerprint.content));
            }
        })?;
    }
    runs.each_entry(&mut |entry| {
        let Some(run) = live.get(&entry.run) else { return };
        let fingerprint = entry.object.fingerprint();
        if run.kind != RunKind::SetToNow || !read.contains(&(fingerprint.url, fingerprint.content)) {
            f(run, entry);
        }
    })
}

/// Returns the partitions that contain rows of objects that the bookmark remembers by name.
pub(crate) fn partitions(runs: &RememberedRuns) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    each_live(runs, &mut |run, entry| found.extend(partitions_of_entry(run, &entry).cloned()))?;
    Ok(found)
}

/// Returns the URLs of objects with rows in these partitions, as far as the bookmark remembers them.
pub(crate) fn urls_in(runs: &RememberedRuns, partitions: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    each_live(runs, &mut |run, entry| {
        if partitions_of_entry(run, &entry).any(|p| partitions.contains(p)) {
            found.insert(entry.object.listed.path);
        }
    })?;
    Ok(found)
}

/// Returns the listed objects that have rows in these partitions, except those for whose URL `has` returns true.
pub(crate) fn inputs_besides(
    runs: &RememberedRuns,
    partitions: &BTreeSet<String>,
    input: &ListedInput,
    has: &dyn Fn(&str) -> bool,
) -> Result<Vec<SourceObject>> {
    if runs.compacted() > 0 {
        let message = format!("the output of runs up to {} is no longer known", runs.compacted());
        return Err(Error::new(codes::RUN_COMPACTED, message));
    }
    let mut wanted: BTreeMap<String, ObjectFingerprint> = BTreeMap::new();
    each_live(runs, &mut |run, entry| {
        if partitions_of_entry(run, &entry).any(|p| partitions.contains(p)) && !has(entry.object.url()) {
            // Entries of one URL are sorted by run, so the last reading counts.
            wanted.insert(entry.object.url().to_owned(), entry.object.fingerprint());
        }
    })?;
    let mut found = Vec::new();
    for (object, _) in input.objects().filter(|(_, ignored)| ignored.is_none()) {
        if let Some(fingerprint) = wanted.remove(object.url()) {
            if fingerprint.content != object.fingerprint().content {
                let message = format!("`{}` was overwritten since it was read; run the job first", object.url());
                return Err(Error::new(codes::CANNOT_REPLACE, message).in_file(object.url()));
            }
            found.push(object);
        }
    }
    match wanted.into_keys().next() {
        None => Ok(found),
        Some(url) => {
            let message = format!("`{url}` no longer exists, and its rows in the partitions would be lost");
            Err(Error::new(codes::CANNOT_REPLACE, message).in_file(&url))
        }
    }
}

/// Returns the output that the rows of a selection replace when they are appended.
pub(crate) fn replaced(
    remembered: &RememberedRuns,
    selection: &mut InputSelection,
    input: &ListedInput,
) -> Result<ReplacedOutput> {
    let mut urls_of_run: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut runs_of_url: HashMap<String, Vec<u64>> = HashMap::new();
    let mut output_of_run: BTreeMap<u64, RunOutput> = BTreeMap::new();
    let mut taken: HashSet<String> = HashSet::new();
    each_live(remembered, &mut |run, entry| {
        if run.kind == RunKind::SetToNow {
            taken.insert(entry.object.listed.path);
            return;
        }
        output_of_run.entry(run.number).or_insert_with(|| run.output.clone());
        runs_of_url.entry(entry.object.url().to_owned()).or_default().push(run.number);
        urls_of_run.entry(run.number).or_default().push(entry.object.listed.path);
    })?;
    let mut old: HashSet<u64> = HashSet::new();
    for (.., manifest) in &remembered.manifests {
        manifest.visit_entries(&mut |_| (), &mut |compacted| old.extend([compacted.fingerprint.url]))?;
    }
    // Objects and runs form a bipartite graph: a run is connected to each object that it read. The files of a run
    // can only be removed as a whole, so the result is the connected component of the selection, found with a
    // work list. Example: run 1 read a and b, run 2 read b and c. If a is read again, run 1 is replaced, so b is
    // read again, so run 2 is replaced, so c is read again.
    let mut chosen: BTreeSet<String> = selection.objects.iter().map(|o| o.url().to_owned()).collect();
    let (mut todo, mut runs) = (chosen.iter().cloned().collect::<Vec<_>>(), BTreeSet::new());
    while let Some(url) = todo.pop() {
        for run in runs_of_url.get(&url).into_iter().flatten() {
            if runs.insert(*run) {
                let urls = urls_of_run.get(run).into_iter().flatten();
                todo.extend(urls.filter(|u| chosen.insert((*u).clone())).cloned());
            }
        }
    }
    complete_selection(selection, input, chosen)?;
    let unread = |o: &&SourceObject| taken.contains(o.url()) && !runs_of_url.contains_key(o.url());
    if let Some(object) = selection.objects.iter().find(unread) {
        let message = format!(
            "`{}` was set as read without reading and was overwritten since; it is unknown which rows of the table were made of it",
            object.url()
        );
        return Err(Error::new(codes::CANNOT_REPLACE, message).in_file(object.url()));
    }
    let read_by_compacted =
        |o: &&SourceObject| old.contains(&o.fingerprint().url) && !runs_of_url.contains_key(o.url());
    if let Some(object) = selection.objects.iter().find(read_by_compacted) {
        let message = format!("`{}` was read by a compacted run, whose files are no longer known", object.url());
        return Err(Error::new(codes::RUN_COMPACTED, message));
    }
    let mut files = Vec::new();
    for run in &runs {
        let output = output_of_run.remove(run).unwrap_or_default();
        if output.files.is_empty() && !output.partitions.is_empty() {
            let message = format!(
                "objects that are read again have rows in partitions that run {run} replaced as a whole; replace these partitions again"
            );
            return Err(Error::new(codes::CANNOT_REPLACE, message));
        }
        files.extend(output.files);
    }
    Ok(ReplacedOutput { runs: runs.into_iter().collect(), files })
}

/// Adds to the selection the chosen objects that it does not contain yet.
fn complete_selection(selection: &mut InputSelection, input: &ListedInput, mut chosen: BTreeSet<String>) -> Result<()> {
    for object in &selection.objects {
        chosen.remove(object.url());
    }
    if chosen.is_empty() {
        return Ok(());
    }
    for (object, ignored) in input.objects() {
        if ignored.is_none() && chosen.remove(object.url()) {
            selection.add(object);
        }
    }
    if let Some(url) = chosen.first() {
        let message = format!(
            "`{url}` no longer exists; its rows are in the same files as rows of objects that are read again, and would be lost"
        );
        return Err(Error::new(codes::CANNOT_REPLACE, message).in_file(url));
    }
    selection.objects.sort_by(|a, b| (a.modified, a.url()).cmp(&(b.modified, b.url())));
    Ok(())
}

/// Returns the partitions that rebuilds among these runs have replaced.
pub(crate) fn rebuilt_partitions(remembered: &RememberedRuns, runs: &[u64]) -> BTreeSet<String> {
    let rebuilds = remembered.runs().filter(|(r, _)| r.kind == RunKind::Rebuild && runs.contains(&r.number));
    rebuilds.flat_map(|(r, _)| r.output.partitions.iter().cloned()).collect()
}

/// Returns the partitions with rows of the objects for whose URL and run `wants` returns true.
pub(crate) fn partitions_of(
    remembered: &RememberedRuns,
    wants: &dyn Fn(&str, u64) -> bool,
) -> Result<BTreeSet<String>> {
    let runs: BTreeMap<u64, &RunRecord> = remembered.runs().map(|(r, _)| (r.number, r)).collect();
    let mut found = BTreeSet::new();
    remembered.each_entry(&mut |entry| {
        if let Some(run) = runs.get(&entry.run).filter(|_| wants(entry.object.url(), entry.run)) {
            found.extend(partitions_of_entry(run, &entry).cloned());
        }
    })?;
    Ok(found)
}

/// Returns the partitions with rows of an object; all partitions of the run if they are unknown.
fn partitions_of_entry<'a>(run: &'a RunRecord, entry: &ManifestEntry) -> impl Iterator<Item = &'a String> {
    let all = &run.output.partitions;
    let known = entry.reached.iter().filter_map(|at| all.get(*at as usize)).collect::<Vec<_>>();
    let unknown = if entry.reached.is_empty() { all.as_slice() } else { &[] };
    unknown.iter().chain(known)
}
