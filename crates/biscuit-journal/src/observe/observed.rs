//! Observing a table: the newest version and a listing of the folder, compared file by file.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, ObjectRef, Result};
use object_store::path::Path;

use crate::codes;
use crate::commit::clean;
use crate::commit::recovery::finished_head;
use crate::log::head::{JournalListing, LiveFile, RetainedEntry, TableHead, list_entries, read_listed_head};
use crate::log::journal_store::JournalStore;
use crate::log::layout::{trial_base, writer_id_of};
use crate::log::pointer;
use crate::observe::ownership::{FolderListing, check_around, check_inside, list_folder};
use crate::options::{DivergedPolicy, ExternalFiles, JournalOptions};
use crate::store::put_if_absent::is_remembered;

/// State of a table when a run begins: the newest version, and a listing of the folder taken after the version was
/// read.
#[derive(Debug, Clone)]
pub struct ObservedTable {
    /// The newest version. It is finished if the value comes from [`Journal::observe`](crate::Journal::observe).
    pub head: TableHead,
    /// Files of the table, sorted by path, with their ETags: live files, and external files unless these are ignored.
    pub files: Vec<ObjectRef>,
    /// The external files among `files`, which no commit has adopted yet.
    pub external: Vec<ObjectRef>,
    /// Orphan files: they have names that Biscuit gives, and no version names them. The next commit removes them.
    pub orphan_files: Vec<ObjectRef>,
    /// Retained files that exist in the folder.
    pub retained: Vec<ObjectRef>,
    /// Trial copies of other runs on this version. The next commit removes them: it makes those runs lose.
    pub(crate) trials: Vec<ObjectRef>,
    /// Whether the store of a new table was probed before and has exactly one winner among writers.
    pub(crate) is_probed: bool,
    /// Live files that do not exist. Not empty only if a diverged table is adopted; the next commit removes them from
    /// the journal.
    pub missing: Vec<String>,
    /// Whether the table was diverged and is adopted as it was found. Its rows may be older or newer than its state
    /// files and properties.
    pub diverged: bool,
}

impl ObservedTable {
    /// Returns the file of the table with this relative path.
    pub fn file(&self, path: &str) -> Option<&ObjectRef> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Folders that contain files of the table, relative to the table.
    pub fn folders(&self) -> BTreeSet<String> {
        self.files.iter().map(|f| f.folder().to_owned()).collect()
    }
}

/// Observes the table for a run that writes.
pub(crate) async fn observe(journal: &JournalStore) -> Result<ObservedTable> {
    // Requests that do not depend on each other are sent at once. Nothing is written before the pointer is checked.
    let (checked, listed) = futures::join!(pointer::check(journal), StateListing::list(journal));
    checked?;
    observe_listed(journal, listed?).await
}

/// As [`observe`], with the state root that the pointer of the table names, which becomes that of the journal.
pub(crate) async fn follow_and_observe(journal: &mut JournalStore) -> Result<ObservedTable> {
    let (followed, listed) = futures::join!(pointer::followed(journal), StateListing::list(journal));
    let followed = followed?;
    if followed == journal.state {
        return observe_listed(journal, listed?).await;
    }
    journal.state = followed;
    let listed = StateListing::list(journal).await?;
    observe_listed(journal, listed).await
}

/// Listings of a state root.
struct StateListing {
    entries: JournalListing,
    /// Objects of runs. Without them, nothing is cleaned.
    runs: Result<Vec<Path>>,
}

impl StateListing {
    async fn list(journal: &JournalStore) -> Result<Self> {
        let entries = list_entries(&journal.storage.store, &journal.state);
        let (entries, runs) = futures::join!(entries, clean::list_run_objects(journal));
        Ok(Self { entries: entries?, runs })
    }
}

async fn observe_listed(journal: &JournalStore, listed: StateListing) -> Result<ObservedTable> {
    let (mut entries, mut runs) = (Some(listed.entries), Some(listed.runs));
    for _ in 0..8 {
        let is_new = entries.as_ref().is_some_and(JournalListing::is_empty);
        let around = async { if is_new { check_around(journal).await } else { Ok(()) } };
        let probed = async { is_new && is_remembered(&journal.storage, &journal.table).await };
        let found = newest(journal, entries.take(), IfUnfinished::Finish);
        let (found, around, is_probed) = futures::join!(found, around, probed);
        let (head, listing) = found?;
        check_inside(&journal.table, &listing)?;
        around?;
        if head.version == 0 && !is_new {
            check_around(journal).await?;
        }
        match classify_files(&journal.options, &head, listing.files) {
            Ok(observed) => {
                if let Some(runs) = runs.take() {
                    clean::clean_if_possible(journal, &head, runs).await;
                }
                return Ok(ObservedTable { is_probed, ..observed });
            }
            // A divergence is real only if no newer version was committed between the head and the listing.
            Err(e) if journal.head().await?.version == head.version => return Err(e),
            Err(_) => {}
        }
    }
    Err(journal.busy())
}

/// Observes the table for a reader: writes nothing and deletes nothing.
pub(crate) async fn view(journal: &JournalStore) -> Result<ObservedTable> {
    let entries = list_entries(&journal.storage.store, &journal.state);
    let (checked, entries) = futures::join!(pointer::check(journal), entries);
    checked?;
    view_listed(journal, entries?).await
}

/// As [`view`], with the state root that the pointer of the table names, which becomes that of the journal.
pub(crate) async fn follow_and_view(journal: &mut JournalStore) -> Result<ObservedTable> {
    let entries = list_entries(&journal.storage.store, &journal.state);
    let (followed, entries) = futures::join!(pointer::followed(journal), entries);
    let followed = followed?;
    if followed == journal.state {
        return view_listed(journal, entries?).await;
    }
    journal.state = followed;
    let entries = list_entries(&journal.storage.store, &journal.state).await?;
    view_listed(journal, entries).await
}

async fn view_listed(journal: &JournalStore, entries: JournalListing) -> Result<ObservedTable> {
    let mut entries = Some(entries);
    for _ in 0..8 {
        let (head, listing) = newest(journal, entries.take(), IfUnfinished::Return).await?;
        if head.version == 0 {
            check_inside(&journal.table, &listing)?;
        }
        match classify_files(&journal.options, &head, listing.files) {
            Ok(observed) => return Ok(observed),
            Err(e) if journal.head().await? == head => return Err(e),
            Err(_) => {}
        }
    }
    Err(journal.busy())
}

/// How [`newest`] treats a version that is not finished: finishes it, or returns it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfUnfinished {
    Finish,
    Return,
}

/// Returns the newest version and a listing of the folder. `entries` is a listing of the journal that was just taken.
///
/// The newest version is known before the folder is listed. If another version is committed in between, its new files
/// look like orphan files, which is harmless (this run ends with `Conflict` and its record never counts), and files
/// that it deleted look missing, which the caller repeats. In the opposite order, a new live file would be missing in
/// the listing, and the head would give no hint why. The records are read while the folder is listed: they do not
/// change, and the listing of the journal has decided which of them count.
async fn newest(
    journal: &JournalStore,
    entries: Option<JournalListing>,
    unfinished: IfUnfinished,
) -> Result<(TableHead, FolderListing)> {
    if let Some(entries) = entries {
        let head = read_listed_head(&journal.storage.store, &journal.state, &entries);
        let (head, listing) = futures::join!(head, list_folder(journal));
        match head {
            Ok(head) if head.is_finished() || unfinished == IfUnfinished::Return => return Ok((head, listing?)),
            Ok(_) => {}
            // A new listing may show why: see `JournalStore::head`.
            Err(e) if e.is(biscuit_core::codes::NOT_FOUND) => {}
            Err(e) => return Err(e),
        }
    }
    let head = match unfinished {
        IfUnfinished::Finish => finished_head(journal).await?,
        IfUnfinished::Return => journal.head().await?,
    };
    Ok((head, list_folder(journal).await?))
}

/// Classifies each listed file by the head, and finds live files that are not listed.
///
/// The order of the cases matters. A live path wins over everything else. A trial copy is recognised before other
/// Biscuit files, and a retained file before an orphan file, because both have names that Biscuit gives.
/// Everything else that Biscuit did not name is external.
pub(crate) fn classify_files(
    options: &JournalOptions,
    head: &TableHead,
    listing: Vec<ObjectRef>,
) -> Result<ObservedTable> {
    let mut observed = ObservedTable {
        head: head.clone(),
        files: vec![],
        external: vec![],
        orphan_files: vec![],
        retained: vec![],
        trials: vec![],
        is_probed: false,
        missing: vec![],
        diverged: head.lost,
    };
    let mut missing: BTreeMap<_, _> = head.live.iter().collect();
    let mut changed = Vec::new();
    // Files that an unfinished version removes may still exist. They are not live and not orphan files either.
    let retiring: BTreeSet<&str> = head.unfinished.iter().flat_map(|r| &r.remove).map(|f| f.path.as_str()).collect();
    for file in listing.into_iter().filter(|f| !retiring.contains(f.path.as_str())) {
        match missing.remove(&file.path) {
            Some(live) if is_same(live, &file) => observed.files.push(file),
            Some(_) => changed.push(file),
            None if trial_base(&file.path).is_some_and(|base| base < head.version) => {
                observed.orphan_files.push(file);
            }
            None if trial_base(&file.path).is_some() => observed.trials.push(file),
            None if is_retained(head, &file) => observed.retained.push(file),
            None if writer_id_of(&file.path).is_some() => observed.orphan_files.push(file),
            None => observed.external.push(file),
        }
    }
    for (path, live) in missing {
        // A file of an unfinished version may still be at its staged path only.
        match live.staged {
            Some(_) => observed.files.push(ObjectRef::new(path, live.size, None)),
            None => observed.missing.push(path.clone()),
        }
    }
    apply_external_policy(options.external, &mut observed)?;
    apply_divergence_policy(options.diverged, &mut observed, changed)?;
    observed.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(observed)
}

/// Applies [`ExternalFiles`] to the external files that were found.
fn apply_external_policy(policy: ExternalFiles, observed: &mut ObservedTable) -> Result<()> {
    match (policy, observed.external.first()) {
        (ExternalFiles::Adopt, _) => observed.files.extend(observed.external.iter().cloned()),
        (ExternalFiles::Ignore, _) => observed.external.clear(),
        (ExternalFiles::Fail, None) => {}
        (ExternalFiles::Fail, Some(file)) => {
            let n = observed.external.len();
            let message = format!("the table contains {n} external file(s), the first is `{}`", file.path);
            return Err(Error::new(codes::EXTERNAL_FILES, message));
        }
    }
    Ok(())
}

/// Applies [`DivergedPolicy`] to live files that are missing or changed, and to Biscuit files without a journal:
/// they are an error, or all files that exist become files of the table.
fn apply_divergence_policy(
    policy: DivergedPolicy,
    observed: &mut ObservedTable,
    changed: Vec<ObjectRef>,
) -> Result<()> {
    let orphan = observed.orphan_files.first().filter(|_| observed.head.version == 0);
    let what = match (changed.first(), observed.missing.first(), orphan) {
        (Some(file), ..) => format!("the live file `{}` was changed by another program", file.path),
        (_, Some(path), _) => format!("the live file `{path}` is missing"),
        (.., Some(file)) => format!("`{}` was written by Biscuit, but has no journal", file.path),
        _ => return Ok(()),
    };
    if policy == DivergedPolicy::Fail {
        return Err(diverged_error(&what));
    }
    tracing::warn!("the files of the table differ from its journal and are adopted as they are: {what}");
    observed.diverged = true;
    // A trial copy has the rows of another file. It remains an orphan file.
    let orphans = std::mem::take(&mut observed.orphan_files);
    let (trials, orphans): (Vec<_>, Vec<_>) = orphans.into_iter().partition(|file| trial_base(&file.path).is_some());
    observed.orphan_files = trials;
    let found: Vec<ObjectRef> = changed.into_iter().chain(orphans).collect();
    observed.files.extend(found.iter().cloned());
    observed.external.extend(found);
    Ok(())
}

/// Whether a listed file is the live one. ETags are compared only if both are known: a copy of a table to another
/// store or a store without ETags has none.
fn is_same(live: &LiveFile, file: &ObjectRef) -> bool {
    live.size == file.size && (live.etag.is_none() || file.etag.is_none() || live.etag == file.etag)
}

/// Whether a listed file is a retained one.
fn is_retained(head: &TableHead, file: &ObjectRef) -> bool {
    // The ETag is not compared: a restore gives the file another ETag, but its rows are still replaced ones. With a
    // name that Biscuit gives, the file is the retained one in any case, since no other program writes such names.
    // With another name, a different size shows that another program has written a new file.
    let same = |h: &RetainedEntry| h.size == file.size || writer_id_of(&file.path).is_some();
    head.retained.get(&file.path).is_some_and(same)
}

fn diverged_error(what: &str) -> Error {
    Error::new(
        codes::DIVERGED,
        format!("the files of the table differ from its journal: {what}; `biscuit adopt` adopts the files that exist"),
    )
}
