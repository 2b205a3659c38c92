//! Which tables a folder has to do with: what of it may never go for its age.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_journal::JournalOptions;
use biscuit_purge::{Listing, Table};

use crate::args::TableArgs;
use crate::context::Context;
use crate::stores::Place;

/// The folder in which state roots are by default.
const STATE: &str = ".biscuit";

/// A folder's table, and those that it is inside of.
pub(crate) async fn around(place: &Place, context: &Context) -> Result<Vec<Table>> {
    let mut candidates: BTreeSet<String> = BTreeSet::new();
    let mut at = place.prefix.as_str();
    while !at.is_empty() {
        candidates.insert(at.to_owned());
        at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    candidates.extend(table_of_state(&format!("{}/x", place.prefix)));
    tables(candidates, place, context).await
}

/// The tables of which a listing shows the state, and state roots of tables that are elsewhere.
pub(crate) async fn within(listing: &Listing, place: &Place, context: &Context) -> Result<Vec<Table>> {
    let (mut candidates, mut roots) = (BTreeSet::new(), BTreeMap::new());
    for object in listing {
        match table_of_state(&object.key) {
            Some(table) => drop(candidates.insert(table)),
            None => drop(state_root_of(&object.key).map(|root| roots.insert(root.to_owned(), ()))),
        }
    }
    let mut tables = tables(candidates, place, context).await?;
    let known: BTreeSet<String> = tables.iter().map(|t| t.state.clone()).collect();
    let others = roots.into_keys().filter(|root| !known.contains(root));
    tables.extend(others.map(|state| Table { state, ..Table::default() }));
    Ok(tables)
}

async fn tables(candidates: BTreeSet<String>, place: &Place, context: &Context) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for path in candidates {
        let url = place.url(&path);
        let dataset = context.open(&TableArgs { url, state: None }, JournalOptions::default()).await?;
        tables.extend(table(&dataset).await?);
    }
    Ok(tables)
}

/// The table, if there is one: its files are the live ones, those of others that it would adopt, and those that are held.
pub(crate) async fn table(dataset: &Dataset) -> Result<Option<Table>> {
    let journal = dataset.journal();
    if journal.head().await?.version == 0 {
        return Ok(None);
    }
    let observed = journal.view().await?;
    if !observed.head.is_finished() {
        // Files that it replaces are not live any more, and not yet replaced either.
        let version = observed.head.version;
        let message = format!(
            "version {version} of `{}` is committed and not finished yet; if its run is dead, `biscuit recover` finishes it",
            journal.table()
        );
        return Err(Error::conflict("Unfinished", message));
    }
    let root = journal.table().to_string();
    let files = observed.files.iter().chain(&observed.held).map(|f| format!("{root}/{}", f.path)).collect();
    Ok(Some(Table { root, state: journal.state_root().to_string(), files }))
}

/// The table whose state a key in a folder of the default name belongs to.
fn table_of_state(key: &str) -> Option<String> {
    let segments: Vec<&str> = key.split('/').collect();
    let at = segments.iter().position(|s| *s == STATE)?;
    let name = segments.get(at + 1).filter(|_| segments.len() > at + 2)?;
    Some(segments[..at].iter().chain([name]).copied().collect::<Vec<_>>().join("/"))
}

/// The state root that a key of a journal is in, wherever it is.
fn state_root_of(key: &str) -> Option<&str> {
    let (folder, name) = key.rsplit_once('/')?;
    let root = folder.strip_suffix("/journal")?;
    let (number, ending) = name.split_once('.')?;
    let is_version = number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit());
    (is_version && matches!(ending, "json" | "done" | "checkpoint")).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_known_by_its_place_and_a_journal_by_its_names() {
        assert_eq!(table_of_state("lake/.biscuit/t/journal/x").as_deref(), Some("lake/t"));
        assert_eq!(table_of_state(".biscuit/t/x").as_deref(), Some("t"));
        assert_eq!(table_of_state("lake/.biscuit/t"), None);
        assert_eq!(table_of_state("lake/t/part-0.parquet"), None);
        assert_eq!(state_root_of("elsewhere/t/journal/00000000000000000001.json"), Some("elsewhere/t"));
        assert_eq!(state_root_of("elsewhere/t/journal/1.json"), None);
    }
}
