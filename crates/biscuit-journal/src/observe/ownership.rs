//! Ownership of folders: no table is inside another table, around one, or in a state root.
//!
//! A table is recognised by its pointer `root.json`, which is always in the default state root beside the folder and
//! exists before the first file is published. A state root is recognised by the names of the objects in its journal.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, ErrorKind, ObjectRef, Result};
use biscuit_purge::ForeignTableFormat;
use futures::TryStreamExt;
use futures::future::try_join_all;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::log::journal_store::JournalStore;
use crate::log::layout::{JournalObjectKind, POINTER, STATE, is_hidden, trial_base};
use crate::options::OtherTableFormats;
use crate::store::storage::TableStorage;
use crate::{codes, default_state_root, store_error};

/// Content of the folder of a table.
#[derive(Debug, Default)]
pub(crate) struct FolderListing {
    /// Data files and trial copies, sorted by path, without files of other tables inside the folder.
    pub(crate) files: Vec<ObjectRef>,
    /// Folders of other tables, relative to this one.
    pub(crate) tables: BTreeSet<String>,
    /// State roots, relative to the folder; empty for the folder itself.
    pub(crate) state_roots: BTreeSet<String>,
    /// Folders with the log of another table format, relative to the folder; empty for the folder itself.
    pub(crate) formats: BTreeMap<String, ForeignTableFormat>,
}

impl FolderListing {
    fn from_objects(root: &Path, objects: Vec<ObjectMeta>) -> Self {
        let mut listing = Self::default();
        for object in objects {
            let Some(parts) = object.location.prefix_match(root) else { continue };
            let path = parts.map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            if let Some((format, folder)) = ForeignTableFormat::of_log(&path) {
                listing.formats.insert(folder.to_owned(), format);
            }
            match table_of_state(&path) {
                Some(table) => drop(listing.tables.insert(table)),
                None => listing.state_roots.extend(state_root_of(&path).map(str::to_owned)),
            }
            // Trial copies are hidden from readers but listed here, so that a commit can remove those of dead runs.
            let counts = trial_base(&path).is_some() || !is_hidden(&path);
            if !path.is_empty() && counts && object.size > 0 {
                listing.files.push(ObjectRef::new(path, object.size, object.e_tag));
            }
        }
        let tables = &listing.tables;
        listing.files.retain(|file| !tables.iter().any(|table| is_within(&file.path, table)));
        listing.files.sort_by(|a, b| a.path.cmp(&b.path));
        listing
    }
}

/// Lists the folder of the table. Symbolic links are refused: a link may lead to another table, or to the same
/// files under a second path.
///
/// # Errors
/// `LinkInTable`, `OtherTableFormat`, and errors of the store.
pub(crate) async fn list_folder(journal: &JournalStore) -> Result<FolderListing> {
    let root = &journal.table;
    if let Some(link) = journal.storage.durability.link_below(root).await? {
        let message = format!(
            "`{link}` in the folder of the table `{root}` is a symbolic link and may lead to files of another table; replace the link by the files themselves"
        );
        return Err(Error::new(codes::LINK_IN_TABLE, message));
    }
    let objects: Vec<ObjectMeta> =
        journal.storage.store.list(Some(root)).try_collect().await.map_err(|e| store_error("list", root, e))?;
    let listing = FolderListing::from_objects(root, objects);
    match listing.formats.first_key_value() {
        Some((folder, format)) if journal.options.other_formats == OtherTableFormats::Refuse => {
            Err(format.refused(&join_path(root.as_ref(), folder)))
        }
        _ => Ok(listing),
    }
}

/// Refuses a folder that contains another table or a state root.
///
/// # Errors
/// `OverlapsTable`.
pub(crate) fn check_inside(root: &Path, listing: &FolderListing) -> Result<()> {
    if let Some(table) = listing.tables.first() {
        let inner = join_path(root.as_ref(), table);
        let message = format!(
            "the table `{inner}` is inside the folder of the table `{}`; move one of them so that neither is inside the other, or delete `{}` if the inner table no longer exists",
            root,
            default_state_root(&Path::from(inner.as_str()))
        );
        return Err(overlap_error(message));
    }
    if let Some(state) = listing.state_roots.first() {
        let message = format!(
            "`{}` is the state root of a table; move it, or choose a folder other than `{}` for this table",
            join_path(root.as_ref(), state),
            root
        );
        return Err(overlap_error(message));
    }
    Ok(())
}

/// Refuses a folder for a new table if the folder or its state root is inside another table or state root.
///
/// # Errors
/// `OverlapsTable`, `LooksAlike`, `OtherTableFormat`, and errors of the store.
pub(crate) async fn check_around(journal: &JournalStore) -> Result<()> {
    if journal.table.parts().any(|part| part.as_ref() == STATE) {
        let message = format!(
            "`{}` is in a folder `{STATE}`, which is reserved for the state of tables; choose another folder",
            journal.table
        );
        return Err(overlap_error(message));
    }
    let own = default_state_root(&journal.table);
    let mut folders = folders_above(&journal.table);
    if journal.state != own {
        folders.extend(folders_above(&journal.state));
        folders.insert(journal.state.clone());
    }
    let storage = &journal.storage;
    let look = |folder: Path| async move {
        match table_or_state(storage, &folder).await? {
            Some(what) => Ok(Some((what, folder))),
            None => Ok(None),
        }
    };
    let format_around = async {
        match journal.options.other_formats {
            OtherTableFormats::Allow => Ok(None),
            OtherTableFormats::Refuse => table_format_around(&storage.store, journal.table.as_ref()).await,
        }
    };
    let found = try_join_all(folders.into_iter().map(look));
    let (found, spelled, format) = futures::join!(found, check_spelling(journal), format_around);
    if let Some((what, folder)) = found?.into_iter().flatten().next() {
        let message =
            format!("`{folder}` is {what}; the table `{}` and its state root cannot be inside it", journal.table);
        return Err(overlap_error(message));
    }
    spelled?;
    match format? {
        Some((format, folder)) => Err(format.refused(&folder)),
        None => Ok(()),
    }
}

/// Refuses a new table if its name differs from the name of a table beside it only by letter case or Unicode
/// form: some file systems and catalogs do not distinguish such names.
async fn check_spelling(journal: &JournalStore) -> Result<()> {
    let own = default_state_root(&journal.table);
    let (beside, name) = (parent_folder(&own), own.filename().unwrap_or_default().to_owned());
    let listed = journal.storage.store.list_with_delimiter(Some(&beside)).await;
    let Some(listed) = ignore_denied(listed.map_err(|e| store_error("list", &beside, e)))? else { return Ok(()) };
    let folded = fold_name(&name);
    let names = listed.common_prefixes.iter().filter_map(Path::filename);
    match names.into_iter().find(|other| *other != name && fold_name(other) == folded) {
        None => Ok(()),
        Some(other) => {
            let message = format!(
                "the names of the table `{}` and of the table `{other}` beside it differ only by letter case or Unicode form, which catalogs and some file systems do not distinguish; choose another name",
                journal.table
            );
            Err(Error::new(biscuit_purge::codes::LOOKS_ALIKE, message))
        }
    }
}

/// Folds a name for comparisons: the canonical composition (Unicode NFC) of its lower-case text.
///
/// ```
/// use biscuit_journal::internal::fold_name;
///
/// assert_eq!(fold_name("Äpfel"), fold_name("a\u{308}PFEL"));
/// ```
pub fn fold_name(name: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    name.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Returns the format and the folder of a table of another format that a folder is, or is inside of.
///
/// Only logs directly below the folder and the folders above it are found. Logs further inside the folder are found
/// by listing it.
///
/// # Errors
/// Errors of the store. A folder that the store refuses to list counts as one without a log.
pub async fn table_format_around(
    store: &dyn ObjectStore,
    folder: &str,
) -> Result<Option<(ForeignTableFormat, String)>> {
    let Ok(folder) = Path::parse(folder) else { return Ok(None) };
    let mut folders = folders_above(&folder);
    folders.insert(folder);
    let look = |(folder, format): (Path, ForeignTableFormat)| async move {
        let log = folder.clone().join(format.log_folder());
        let mut objects = store.list(Some(&log));
        // One file is enough to recognise a log. A folder `metadata` or `schema` may belong to another program and
        // have millions of files, so only the first ones are examined.
        for _ in 0..1000 {
            let next = objects.try_next().await.map_err(|e| store_error("list", &log, e));
            let Some(object) = ignore_denied(next)?.flatten() else { break };
            if ForeignTableFormat::of_log(object.location.as_ref())
                .is_some_and(|(found, at)| found == format && at == folder.as_ref())
            {
                return Ok(Some((format, folder.to_string())));
            }
        }
        Ok(None)
    };
    let both = folders.into_iter().flat_map(|folder| ForeignTableFormat::ALL.map(|format| (folder.clone(), format)));
    Ok(try_join_all(both.map(look)).await?.into_iter().flatten().next())
}

fn overlap_error(message: String) -> Error {
    Error::new(biscuit_purge::codes::OVERLAPS_TABLE, message)
}

/// Describes a folder if it is the folder of a table or a state root.
async fn table_or_state(storage: &TableStorage, folder: &Path) -> Result<Option<&'static str>> {
    let pointer = default_state_root(folder).join(POINTER);
    let journal = folder.clone().join("journal");
    let mut objects = storage.store.list(Some(&journal));
    let (pointed, first) = futures::join!(async { storage.store.head(&pointer).await }, objects.try_next());
    match pointed {
        Ok(_) => return Ok(Some("the folder of a table")),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(e) => drop(ignore_denied(Err::<(), _>(store_error("check", &pointer, e)))?),
    }
    let first = ignore_denied(first.map_err(|e| store_error("list", &journal, e)))?.flatten();
    Ok(first.and_then(|object| JournalObjectKind::parse(&object.location)).map(|_| "the state root of a table"))
}

/// Whether an error of a local disk means that a folder of the path is a file (`ENOTDIR`): nothing can be below it.
fn is_not_a_folder(e: &Error) -> bool {
    let mut at = std::error::Error::source(e);
    while let Some(cause) = at {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::NotADirectory) {
            return true;
        }
        at = cause.source();
    }
    false
}

/// Returns `None` if there can be nothing, or if the store denies access: the rights of a run may end at the folder of
/// its table.
fn ignore_denied<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == ErrorKind::Denied || is_not_a_folder(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns all folders above a path, without the root of the store.
fn folders_above(path: &Path) -> BTreeSet<Path> {
    let parts: Vec<_> = path.parts().collect();
    (1..parts.len()).map(|n| parts[..n].iter().cloned().collect()).collect()
}

fn parent_folder(path: &Path) -> Path {
    let mut parts: Vec<_> = path.parts().collect();
    parts.pop();
    Path::from_iter(parts)
}

fn join_path(root: &str, relative: &str) -> String {
    if relative.is_empty() { root.to_owned() } else { format!("{root}/{relative}") }
}

/// Whether a path is below a folder, compared by whole segments.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the table whose default state root contains a key: `lake/t` for `lake/.biscuit/t/…`.
pub(crate) fn table_of_state(key: &str) -> Option<String> {
    let segments: Vec<&str> = key.split('/').collect();
    let at = segments.iter().position(|s| *s == STATE)?;
    let name = segments.get(at + 1).filter(|_| segments.len() > at + 2)?;
    Some(segments[..at].iter().chain([name]).copied().collect::<Vec<_>>().join("/"))
}

/// Returns the state root of a key that is an object of a journal, wherever the state root is; empty if the state
/// root is the folder that keys are relative to.
pub(crate) fn state_root_of(key: &str) -> Option<&str> {
    let (folder, _) = key.rsplit_once('/')?;
    let root = if folder == "journal" { "" } else { folder.strip_suffix("/journal")? };
    JournalObjectKind::parse(&Path::parse(key).ok()?).map(|_| root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_roots_are_recognised_by_place_and_by_journal_names() {
        assert_eq!(table_of_state("lake/.biscuit/t/journal/x").as_deref(), Some("lake/t"));
        assert_eq!(table_of_state(".biscuit/t/x").as_deref(), Some("t"));
        assert_eq!(table_of_state("lake/.biscuit/t"), None);
        assert_eq!(table_of_state("lake/t/part-0.parquet"), None);
        assert_eq!(state_root_of("elsewhere/t/journal/00000000000000000001.json"), Some("elsewhere/t"));
        assert_eq!(state_root_of("journal/00000000000000000001.json"), Some(""));
        assert_eq!(state_root_of("elsewhere/t/journal/1.json"), None);
    }

    #[test]
    fn paths_are_compared_by_whole_segments() {
        let names: Vec<String> = folders_above(&Path::from("a/b/c")).into_iter().map(|p| p.to_string()).collect();
        assert_eq!(names, ["a", "a/b"]);
        assert!(is_within("a/b/c", "a/b") && !is_within("a/bc", "a/b") && !is_within("a/b", "a/b"));
    }
}
