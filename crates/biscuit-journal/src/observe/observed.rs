use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, Result};

use crate::journal::{DivergedPolicy, ExternalFiles, Journal};
use crate::log::head::{LiveFile, RetainedEntry, TableHead};
use crate::log::layout::{trial_base, writer_id_of};
use crate::log::record::FileRef;
use crate::{commit::publish, log::pointer};

/// What a run starts from: the newest finished version and a listing of the folder taken after it was read.
#[derive(Debug, Clone)]
pub struct ObservedTable {
    /// The newest version; it is finished.
    pub head: TableHead,
    /// The files that are part of the table: live ones, and foreign ones unless these are ignored. With ETags.
    pub files: Vec<FileRef>,
    /// Those of `files` that somebody else wrote and no commit has adopted yet.
    pub external: Vec<FileRef>,
    /// Biscuit files that are not live: leavings of a run that was overtaken. The next commit deletes them.
    pub orphan_files: Vec<FileRef>,
    /// Files that were replaced and stay for those that still read them, as far as they are there.
    pub retained: Vec<FileRef>,
    /// Trial copies of runs on this version, which die with it: those that are alive lose, and delete theirs if they can.
    pub(crate) trials: Vec<FileRef>,
    /// Live files that are gone; there are some only where a diverged table is adopted. The next commit forgets them.
    pub missing: Vec<String>,
    /// Whether the table was not what its journal says, and is adopted as it was found: rows may be older or newer than
    /// what is kept besides them.
    pub diverged: bool,
}

impl ObservedTable {
    /// The file of the table with this relative path.
    pub fn file(&self, path: &str) -> Option<&FileRef> {
        self.files.iter().find(|f| f.path == path)
    }

    /// The folders that the table's files are in, relative to the table.
    pub fn folders(&self) -> BTreeSet<String> {
        self.files.iter().map(|f| f.folder().to_owned()).collect()
    }
}

impl Journal {
    /// Reads the head, finishes it if it is unfinished, then lists the folder and compares. What dead runs left in the
    /// state root is deleted.
    ///
    /// # Errors
    /// `DivergedPolicy` if a live file is missing or changed, or if Biscuit files lie in a folder without a journal;
    /// `ExternalFiles` if there are some and they are to fail; `StateRootMismatch` if the table's state is elsewhere.
    /// `OverlapsTable` if another table is inside the folder or, before the first version, around it; `LinkInTable`,
    /// `OtherTableFormat`.
    pub async fn observe(&self) -> Result<ObservedTable> {
        pointer::check(self).await?;
        for _ in 0..8 {
            let head = self.finished_head().await?;
            let listing = self.list_folder().await?;
            self.check_inside(&listing)?;
            if head.version == 0 {
                self.check_around().await?;
            }
            match self.classify(&head, listing.files) {
                Ok(observed) => {
                    publish::clean_if_possible(self, &head).await;
                    return Ok(observed);
                }
                // A newer version may have come between the head and the listing.
                Err(e) if self.head().await?.version == head.version => return Err(e),
                Err(_) => {}
            }
        }
        Err(Error::conflict("Conflict", format!("other runs keep changing `{}`; run again", self.table)))
    }

    /// What a reader starts from: as [`observe`](Self::observe), but nothing is written. Files of an unfinished version
    /// that are not at their final names yet are named all the same; [`LiveFile::staged`](crate::LiveFile::staged)
    /// says where they are. Files of a table inside the folder are not among its files.
    ///
    /// # Errors
    /// As [`observe`](Self::observe); `OverlapsTable` only before the first version.
    pub async fn view(&self) -> Result<ObservedTable> {
        pointer::check(self).await?;
        for _ in 0..8 {
            let head = self.head().await?;
            let listing = self.list_folder().await?;
            if head.version == 0 {
                self.check_inside(&listing)?;
            }
            match self.classify(&head, listing.files) {
                Ok(observed) => return Ok(observed),
                Err(e) if self.head().await? == head => return Err(e),
                Err(_) => {}
            }
        }
        Err(Error::conflict("Conflict", format!("other runs keep changing `{}`; run again", self.table)))
    }

    /// Compares what is there with what the journal says.
    pub(crate) fn classify(&self, head: &TableHead, listing: Vec<FileRef>) -> Result<ObservedTable> {
        let mut observed = ObservedTable {
            head: head.clone(),
            files: vec![],
            external: vec![],
            orphan_files: vec![],
            retained: vec![],
            trials: vec![],
            missing: vec![],
            diverged: head.lost,
        };
        let mut missing: BTreeMap<_, _> = head.live.iter().collect();
        let mut changed = Vec::new();
        let retiring: BTreeSet<&str> =
            head.unfinished.iter().flat_map(|r| &r.remove).map(|f| f.path.as_str()).collect();
        for file in listing.into_iter().filter(|f| !retiring.contains(f.path.as_str())) {
            match missing.remove(&file.path) {
                Some(live) if is_same(live, &file) => observed.files.push(file),
                Some(_) => changed.push(file),
                None if trial_base(&file.path).is_some_and(|base| base < head.version) => {
                    observed.orphan_files.push(file)
                }
                None if trial_base(&file.path).is_some() => observed.trials.push(file),
                None if is_retained(head, &file) => observed.retained.push(file),
                None if writer_id_of(&file.path).is_some() => observed.orphan_files.push(file),
                None => observed.external.push(file),
            }
        }
        for (path, live) in missing {
            match live.staged {
                Some(_) => observed.files.push(FileRef { path: path.clone(), size: live.size, etag: None }),
                None => observed.missing.push(path.clone()),
            }
        }
        self.judge_external(&mut observed)?;
        self.judge_divergence(&mut observed, changed)?;
        observed.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(observed)
    }

    fn judge_external(&self, observed: &mut ObservedTable) -> Result<()> {
        match (self.options.external, observed.external.first()) {
            (ExternalFiles::Adopt, _) => observed.files.extend(observed.external.iter().cloned()),
            (ExternalFiles::Ignore, _) => observed.external.clear(),
            (ExternalFiles::Fail, None) => {}
            (ExternalFiles::Fail, Some(file)) => {
                let n = observed.external.len();
                let message = format!("{n} file(s) of somebody else are in the table, the first is `{}`", file.path);
                return Err(Error::data("ExternalFiles", message));
            }
        }
        Ok(())
    }

    /// Live files that are gone or changed, and Biscuit files without a journal, stop a run, or else everything that is
    /// there becomes the table.
    fn judge_divergence(&self, observed: &mut ObservedTable, changed: Vec<FileRef>) -> Result<()> {
        let orphan = observed.orphan_files.first().filter(|_| observed.head.version == 0);
        let what = match (changed.first(), observed.missing.first(), orphan) {
            (Some(file), ..) => format!("the live file `{}` was changed by somebody else", file.path),
            (_, Some(path), _) => format!("the live file `{path}` is missing"),
            (.., Some(file)) => format!("`{}` was written by Biscuit, but there is no journal for it", file.path),
            _ => return Ok(()),
        };
        if self.options.diverged == DivergedPolicy::Fail {
            return Err(diverged(&what));
        }
        tracing::warn!("the table is not what its journal says, and is taken as it is: {what}");
        observed.diverged = true;
        let found: Vec<FileRef> = changed.into_iter().chain(std::mem::take(&mut observed.orphan_files)).collect();
        observed.files.extend(found.iter().cloned());
        observed.external.extend(found);
        Ok(())
    }
}

fn is_same(live: &LiveFile, file: &FileRef) -> bool {
    live.size == file.size && (live.etag.is_none() || file.etag.is_none() || live.etag == file.etag)
}

fn is_retained(head: &TableHead, file: &FileRef) -> bool {
    // A copy or a restore gives it another ETag, and its rows are those that were replaced all the same. Nobody else gives names like
    // Biscuit's; under another name somebody may have written something new.
    let same = |h: &RetainedEntry| h.size == file.size || writer_id_of(&file.path).is_some();
    head.retained.get(&file.path).is_some_and(same)
}

fn diverged(what: &str) -> Error {
    Error::data(
        "Diverged",
        format!("the table is not what its journal says: {what}; `biscuit adopt` makes what is there the table"),
    )
}
