//! Which tables a folder has to do with: what of it may never go for its age.

use std::collections::BTreeSet;

use biscuit_core::{Error, Result};
use biscuit_purge::{ObjectListing, ProtectedTable};
use object_store::path::Path;

use crate::default_state_root;
use crate::journal::{Journal, JournalOptions, OtherTableFormats};
use crate::log::head::TableHead;
use crate::observe::ownership::{state_root_of, table_of_state};
use crate::store::storage::TableStorage;

impl Journal {
    /// The table as a plan to delete has to know it; none if there is no version yet. Its files are the live ones, those of others
    /// that it would adopt, and those that are held. Changes nothing.
    ///
    /// # Errors
    /// `Unfinished` where a version is committed and not finished: files that it replaces are not live any more, and not replaced
    /// yet either. As [`view`](Self::view).
    pub async fn protected(&self) -> Result<Option<ProtectedTable>> {
        if self.head().await?.version == 0 {
            return Ok(None);
        }
        let observed = self.view().await?;
        self.check_finished(&observed.head)?;
        let root = self.table.to_string();
        let files = observed.files.iter().chain(&observed.retained).map(|f| format!("{root}/{}", f.path)).collect();
        let pointer = default_state_root(&self.table).to_string();
        Ok(Some(ProtectedTable { root, state: self.state.to_string(), pointer, files }))
    }

    pub(crate) fn check_finished(&self, head: &TableHead) -> Result<()> {
        if head.is_finished() {
            return Ok(());
        }
        let message = format!(
            "version {} of `{}` is committed and not finished yet; if its run is dead, `biscuit recover` finishes it",
            head.version, self.table
        );
        Err(Error::conflict("Unfinished", message))
    }
}

/// A folder's table, those that the folder is inside of, and the one whose state it is in, as far as there are any. To be asked
/// behind the listing from which the folder is planned for.
///
/// # Errors
/// As [`Journal::protected`].
pub async fn tables_around(storage: &TableStorage, folder: &str) -> Result<Vec<ProtectedTable>> {
    let mut candidates: BTreeSet<String> = BTreeSet::new();
    let mut at = folder;
    while !at.is_empty() {
        candidates.insert(at.to_owned());
        at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    candidates.extend(table_of_state(&format!("{folder}/x")));
    tables(storage, candidates).await
}

/// The tables of which a listing shows the state, and the state roots of tables that are elsewhere.
///
/// # Errors
/// As [`Journal::protected`].
pub async fn tables_within(storage: &TableStorage, listing: &ObjectListing) -> Result<Vec<ProtectedTable>> {
    let (mut candidates, mut roots) = (BTreeSet::new(), BTreeSet::new());
    for object in listing {
        match table_of_state(&object.key) {
            Some(table) => drop(candidates.insert(table)),
            None => roots.extend(state_root_of(&object.key).map(str::to_owned)),
        }
    }
    let mut tables = tables(storage, candidates).await?;
    let known: BTreeSet<String> = tables.iter().map(|t| t.state.clone()).collect();
    let others = roots.into_iter().filter(|root| !known.contains(root));
    tables.extend(others.map(|state| ProtectedTable { state, ..ProtectedTable::default() }));
    Ok(tables)
}

async fn tables(storage: &TableStorage, candidates: BTreeSet<String>) -> Result<Vec<ProtectedTable>> {
    // Whoever protects a table looks at what is there, whoever else has a log for it.
    let options = JournalOptions::default().with_other_formats(OtherTableFormats::Allow);
    let mut tables = Vec::new();
    for path in candidates {
        let Ok(path) = Path::parse(&path) else { continue };
        let journal = Journal::new(storage.clone(), path, options.clone()).follow_pointer().await?;
        tables.extend(journal.protected().await?);
    }
    Ok(tables)
}
