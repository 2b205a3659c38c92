use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, Result};
use biscuit_purge::Listed;
use futures::TryStreamExt;
use object_store::path::Path;

use crate::head::Head;
use crate::journal::{Foreign, Journal};
use crate::names::{biscuit_nonce, is_hidden};
use crate::record::Retired;
use crate::{pointer, publish, store_error};

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
}

impl Observed {
    /// The file of the table with this relative path.
    pub fn file(&self, path: &str) -> Option<&Retired> {
        self.files.iter().find(|f| f.path == path)
    }
}

impl Journal {
    /// Reads the head, finishes it if it is unfinished, then lists the folder and compares. What dead runs left in the
    /// state root is deleted.
    ///
    /// # Errors
    /// `Diverged` if a live file is missing or changed, or if Biscuit files lie in a folder without a journal;
    /// `ForeignFiles` if there are some and they are to fail; `StateRootMismatch` if the table's state is elsewhere.
    pub async fn observe(&self) -> Result<Observed> {
        pointer::check(self).await?;
        for _ in 0..8 {
            let head = self.finished_head().await?;
            let listing = self.list_table().await?;
            match classify(&head, listing, self.options.foreign) {
                Ok(observed) => {
                    publish::clean(self, &head).await?;
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
    /// says where they are.
    pub async fn view(&self) -> Result<Observed> {
        pointer::check(self).await?;
        for _ in 0..8 {
            let head = self.head().await?;
            let listing = self.list_table().await?;
            match classify(&head, listing, self.options.foreign) {
                Ok(observed) => return Ok(observed),
                Err(e) if self.head().await? == head => return Err(e),
                Err(_) => {}
            }
        }
        Err(Error::conflict("Conflict", format!("other runs keep changing `{}`; run again", self.table)))
    }

    async fn list_table(&self) -> Result<Vec<Retired>> {
        let root = &self.table;
        let objects: Vec<Listed> = self
            .storage
            .store
            .list(Some(root))
            .map_ok(Listed::from)
            .try_collect()
            .await
            .map_err(|e| store_error("list", root, e))?;
        let mut files: Vec<Retired> = objects.into_iter().filter_map(|o| relative(root, o)).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

fn relative(root: &Path, object: Listed) -> Option<Retired> {
    let parts = object.path.prefix_match(root)?;
    let path = parts.map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/");
    let data = !path.is_empty() && !is_hidden(&path) && object.size > 0;
    data.then_some(Retired { path, size: object.size, etag: object.etag })
}

fn classify(head: &Head, listing: Vec<Retired>, foreign: Foreign) -> Result<Observed> {
    let mut observed = Observed { head: head.clone(), files: vec![], foreign: vec![], ghosts: vec![] };
    let mut missing: BTreeMap<_, _> = head.live.iter().collect();
    let retiring: BTreeSet<&str> = head.unfinished.iter().flat_map(|r| &r.retire).map(|f| f.path.as_str()).collect();
    for file in listing.into_iter().filter(|f| !retiring.contains(f.path.as_str())) {
        match missing.remove(&file.path) {
            Some(live) => {
                let same =
                    live.size == file.size && (live.etag.is_none() || file.etag.is_none() || live.etag == file.etag);
                if !same {
                    return Err(diverged(&format!("the live file `{}` was changed by somebody else", file.path)));
                }
                observed.files.push(file);
            }
            None if biscuit_nonce(&file.path).is_some() && head.version > 0 => observed.ghosts.push(file),
            None if biscuit_nonce(&file.path).is_some() => {
                return Err(diverged(&format!(
                    "`{}` was written by Biscuit, but there is no journal for it",
                    file.path
                )));
            }
            None => observed.foreign.push(file),
        }
    }
    for (path, live) in missing {
        if live.staged.is_some() {
            observed.files.push(Retired { path: path.clone(), size: live.size, etag: None });
            continue;
        }
        return Err(diverged(&format!("the live file `{path}` is missing")));
    }
    match foreign {
        Foreign::Adopt => observed.files.extend(observed.foreign.iter().cloned()),
        Foreign::Ignore => observed.foreign.clear(),
        Foreign::Fail => {
            if let Some(file) = observed.foreign.first() {
                let n = observed.foreign.len();
                let message = format!("{n} file(s) of somebody else are in the table, the first is `{}`", file.path);
                return Err(Error::conflict("ForeignFiles", message));
            }
        }
    }
    observed.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(observed)
}

fn diverged(what: &str) -> Error {
    Error::conflict("Diverged", format!("the table is not what its journal says: {what}"))
}
