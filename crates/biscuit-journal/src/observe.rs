use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, Result};

use crate::head::{Head, HeldFile, LiveFile};
use crate::journal::{Diverged, Foreign, Journal};
use crate::names::{biscuit_nonce, trial_base};
use crate::record::Retired;
use crate::{pointer, publish};

/// What a run starts from: the newest finished version and a listing of the folder taken after it was read.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The newest version; it is finished.
    pub head: Head,
    /// The files that are part of the table: live ones, and foreign ones unless these are ignored. With ETags.
    pub files: Vec<Retired>,
    /// Those of `files` that somebody else wrote and no commit has adopted yet.
    pub foreign: Vec<Retired>,
    /// Biscuit files that are not live: leavings of a run that was overtaken. The next commit deletes them.
    pub ghosts: Vec<Retired>,
    /// Files that were replaced and stay for those that still read them, as far as they are there.
    pub held: Vec<Retired>,
    /// Trial copies of runs on this version, which die with it: those that are alive lose, and delete theirs if they can.
    pub(crate) trials: Vec<Retired>,
    /// Live files that are gone; there are some only where a diverged table is adopted. The next commit forgets them.
    pub missing: Vec<String>,
    /// Whether the table was not what its journal says, and is adopted as it was found: rows may be older or newer than
    /// what is kept besides them.
    pub diverged: bool,
}

impl Observed {
    /// The file of the table with this relative path.
    pub fn file(&self, path: &str) -> Option<&Retired> {
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
    /// `Diverged` if a live file is missing or changed, or if Biscuit files lie in a folder without a journal;
    /// `ForeignFiles` if there are some and they are to fail; `StateRootMismatch` if the table's state is elsewhere.
    /// `OverlapsTable` if another table is inside the folder or, before the first version, around it; `LinkInTable`,
    /// `OtherTableFormat`.
    pub async fn observe(&self) -> Result<Observed> {
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
    pub async fn view(&self) -> Result<Observed> {
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
    pub(crate) fn classify(&self, head: &Head, listing: Vec<Retired>) -> Result<Observed> {
        let mut observed = Observed {
            head: head.clone(),
            files: vec![],
            foreign: vec![],
            ghosts: vec![],
            held: vec![],
            trials: vec![],
            missing: vec![],
            diverged: head.lost,
        };
        let mut missing: BTreeMap<_, _> = head.live.iter().collect();
        let mut changed = Vec::new();
        let retiring: BTreeSet<&str> =
            head.unfinished.iter().flat_map(|r| &r.retire).map(|f| f.path.as_str()).collect();
        for file in listing.into_iter().filter(|f| !retiring.contains(f.path.as_str())) {
            match missing.remove(&file.path) {
                Some(live) if is_same(live, &file) => observed.files.push(file),
                Some(_) => changed.push(file),
                None if trial_base(&file.path).is_some_and(|base| base < head.version) => observed.ghosts.push(file),
                None if trial_base(&file.path).is_some() => observed.trials.push(file),
                None if is_held(head, &file) => observed.held.push(file),
                None if biscuit_nonce(&file.path).is_some() => observed.ghosts.push(file),
                None => observed.foreign.push(file),
            }
        }
        for (path, live) in missing {
            match live.staged {
                Some(_) => observed.files.push(Retired { path: path.clone(), size: live.size, etag: None }),
                None => observed.missing.push(path.clone()),
            }
        }
        self.judge_foreign(&mut observed)?;
        self.judge_divergence(&mut observed, changed)?;
        observed.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(observed)
    }

    fn judge_foreign(&self, observed: &mut Observed) -> Result<()> {
        match (self.options.foreign, observed.foreign.first()) {
            (Foreign::Adopt, _) => observed.files.extend(observed.foreign.iter().cloned()),
            (Foreign::Ignore, _) => observed.foreign.clear(),
            (Foreign::Fail, None) => {}
            (Foreign::Fail, Some(file)) => {
                let n = observed.foreign.len();
                let message = format!("{n} file(s) of somebody else are in the table, the first is `{}`", file.path);
                return Err(Error::data("ForeignFiles", message));
            }
        }
        Ok(())
    }

    /// Live files that are gone or changed, and Biscuit files without a journal, stop a run, or else everything that is
    /// there becomes the table.
    fn judge_divergence(&self, observed: &mut Observed, changed: Vec<Retired>) -> Result<()> {
        let orphan = observed.ghosts.first().filter(|_| observed.head.version == 0);
        let what = match (changed.first(), observed.missing.first(), orphan) {
            (Some(file), ..) => format!("the live file `{}` was changed by somebody else", file.path),
            (_, Some(path), _) => format!("the live file `{path}` is missing"),
            (.., Some(file)) => format!("`{}` was written by Biscuit, but there is no journal for it", file.path),
            _ => return Ok(()),
        };
        if self.options.diverged == Diverged::Fail {
            return Err(diverged(&what));
        }
        tracing::warn!("the table is not what its journal says, and is taken as it is: {what}");
        observed.diverged = true;
        let found: Vec<Retired> = changed.into_iter().chain(std::mem::take(&mut observed.ghosts)).collect();
        observed.files.extend(found.iter().cloned());
        observed.foreign.extend(found);
        Ok(())
    }
}

fn is_same(live: &LiveFile, file: &Retired) -> bool {
    live.size == file.size && (live.etag.is_none() || file.etag.is_none() || live.etag == file.etag)
}

fn is_held(head: &Head, file: &Retired) -> bool {
    // A copy or a restore gives it another ETag, and its rows are those that were replaced all the same. Nobody else gives names like
    // Biscuit's; under another name somebody may have written something new.
    let same = |h: &HeldFile| h.size == file.size || biscuit_nonce(&file.path).is_some();
    head.held.get(&file.path).is_some_and(same)
}

fn diverged(what: &str) -> Error {
    Error::data(
        "Diverged",
        format!("the table is not what its journal says: {what}; `biscuit adopt` makes what is there the table"),
    )
}
