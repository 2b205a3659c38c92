//! Tables that a folder contains or is part of, whose files a purge by age must never delete.

use std::collections::BTreeSet;

use biscuit_core::Result;
use biscuit_purge::{ObjectListing, ProtectedTable};
use object_store::path::Path;

use crate::default_state_root;
use crate::log::journal_store::JournalStore;
use crate::log::pointer;
use crate::observe::observed::view;
use crate::observe::ownership::{state_root_of, table_of_state};
use crate::options::{JournalOptions, OtherTableFormats};
use crate::store::put_if_absent::remembered_path;
use crate::store::storage::TableStorage;

/// Returns the table in the form that a purge plan needs; none before the first version.
pub(crate) async fn protected(journal: &JournalStore) -> Result<Option<ProtectedTable>> {
    if journal.head().await?.version == 0 {
        return Ok(None);
    }
    let observed = view(journal).await?;
    journal.check_finished(&observed.head)?;
    let root = journal.table.to_string();
    let files = observed.files.iter().chain(&observed.retained).map(|f| format!("{root}/{}", f.path)).collect();
    let pointer = default_state_root(&journal.table).to_string();
    let mut table = ProtectedTable::new(root, journal.state.as_ref());
    (table.pointer, table.files) = (pointer, files);
    table.probe = remembered_path(&journal.table).to_string();
    Ok(Some(table))
}

/// Returns the tables that a folder belongs to: the table of the folder itself, tables that it is inside of, and the
/// table whose state root it is in. Call this after the listing from which the purge is planned, so that no newer
/// version is missed.
///
/// # Errors
/// Those of [`Journal::protected_table`](crate::Journal::protected_table).
pub async fn tables_around(storage: &TableStorage, folder: &str) -> Result<Vec<ProtectedTable>> {
    let mut candidates: BTreeSet<String> = BTreeSet::new();
    let mut at = folder;
    while !at.is_empty() {
        candidates.insert(at.to_owned());
        at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    candidates.extend(table_of_state(&format!("{folder}/x")));
    load_tables(storage, candidates).await
}

/// Returns the tables whose default state roots a listing contains, and an entry for each moved state root in it,
/// whose table is elsewhere.
///
/// # Errors
/// Those of [`Journal::protected_table`](crate::Journal::protected_table).
pub async fn tables_within(storage: &TableStorage, listing: &ObjectListing) -> Result<Vec<ProtectedTable>> {
    let (mut candidates, mut roots) = (BTreeSet::new(), BTreeSet::new());
    for object in listing {
        match table_of_state(object.key()) {
            Some(table) => drop(candidates.insert(table)),
            None => roots.extend(state_root_of(object.key()).map(str::to_owned)),
        }
    }
    let mut tables = load_tables(storage, candidates).await?;
    let known: BTreeSet<String> = tables.iter().map(|t| t.state.clone()).collect();
    let others = roots.into_iter().filter(|root| !known.contains(root));
    tables.extend(others.map(|state| ProtectedTable::new("", state)));
    Ok(tables)
}

async fn load_tables(storage: &TableStorage, candidates: BTreeSet<String>) -> Result<Vec<ProtectedTable>> {
    // Files must be protected even if another table format has a log in the folder.
    let options = JournalOptions::default().with_other_formats(OtherTableFormats::Allow);
    let mut tables = Vec::new();
    for path in candidates {
        let Ok(path) = Path::parse(&path) else { continue };
        let mut journal = JournalStore::new(storage.clone(), path, options.clone());
        journal.state = pointer::followed(&journal).await?;
        tables.extend(protected(&journal).await?);
    }
    Ok(tables)
}
