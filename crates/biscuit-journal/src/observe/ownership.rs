//! Whose folder it is: no table is inside another one, around one, or in a state root.
//!
//! A table is known by its pointer `root.json`, which is always in the default place beside its folder and is there before the
//! first file is published. A state root is known by the names in its journal.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_core::{Error, ErrorKind, Result};
use biscuit_purge::ForeignTableFormat;
use futures::TryStreamExt;
use futures::future::try_join_all;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::journal::{Journal, OtherTableFormats};
use crate::log::layout::{JournalObjectKind, POINTER, STATE, is_hidden, trial_base};
use crate::log::record::FileRef;
use crate::store::storage::TableStorage;
use crate::{default_state_root, store_error};

/// What lies in a table's folder.
#[derive(Debug, Default)]
pub(crate) struct FolderListing {
    /// The data files, ascending by path, without those of tables inside the folder.
    pub(crate) files: Vec<FileRef>,
    /// The folders of other tables, relative to this one.
    pub(crate) tables: BTreeSet<String>,
    /// State roots, relative to the folder, empty for the folder itself.
    pub(crate) state_roots: BTreeSet<String>,
    /// Folders of other table formats, relative to the folder, empty for the folder itself.
    pub(crate) formats: BTreeMap<String, ForeignTableFormat>,
}

impl FolderListing {
    fn of(root: &Path, objects: Vec<ObjectMeta>) -> Self {
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
            // Trial copies of dead runs are told from those of live ones by the journal.
            let counts = trial_base(&path).is_some() || !is_hidden(&path);
            if !path.is_empty() && counts && object.size > 0 {
                listing.files.push(FileRef { path, size: object.size, etag: object.e_tag });
            }
        }
        let tables = &listing.tables;
        listing.files.retain(|file| !tables.iter().any(|table| is_within(&file.path, table)));
        listing.files.sort_by(|a, b| a.path.cmp(&b.path));
        listing
    }
}

impl Journal {
    /// Lists the folder. What is reached by links is refused: it may be another table, or the same files once more.
    ///
    /// # Errors
    /// `LinkInTable`, `OtherTableFormat`, and those of the store.
    pub(crate) async fn list_folder(&self) -> Result<FolderListing> {
        let root = &self.table;
        if let Some(link) = self.storage.durability.link_below(root).await? {
            let message = format!(
                "`{link}` in the folder of the table `{root}` is a symbolic link; its files may be those of another table: put the files themselves there"
            );
            return Err(Error::usage("LinkInTable", message));
        }
        let objects: Vec<ObjectMeta> =
            self.storage.store.list(Some(root)).try_collect().await.map_err(|e| store_error("list", root, e))?;
        let listing = FolderListing::of(root, objects);
        match listing.formats.first_key_value() {
            Some((folder, format)) if self.options.other_formats == OtherTableFormats::Refuse => {
                Err(format.refused(&join(root.as_ref(), folder)))
            }
            _ => Ok(listing),
        }
    }

    /// Refuses to write where a table, or the state of one, is inside the folder.
    ///
    /// # Errors
    /// `OverlapsTable`.
    pub(crate) fn check_inside(&self, listing: &FolderListing) -> Result<()> {
        if let Some(table) = listing.tables.first() {
            let inner = join(self.table.as_ref(), table);
            let message = format!(
                "the table `{inner}` is inside the folder of the table `{}`; tables are beside one another: move one of them, or delete `{}` if that table is gone",
                self.table,
                default_state_root(&Path::from(inner.as_str()))
            );
            return Err(overlaps(message));
        }
        if let Some(state) = listing.state_roots.first() {
            let message = format!(
                "`{}` is the state root of a table; `{}` is no place for another one",
                join(self.table.as_ref(), state),
                self.table
            );
            return Err(overlaps(message));
        }
        Ok(())
    }

    /// Refuses a place for a new table that is inside another table or a state root, or whose state would be.
    ///
    /// # Errors
    /// `OverlapsTable`, `OtherTableFormat`, and those of the store.
    pub(crate) async fn check_around(&self) -> Result<()> {
        if self.table.parts().any(|part| part.as_ref() == STATE) {
            let message = format!("`{}` is in a folder `{STATE}`, which holds the state of tables", self.table);
            return Err(overlaps(message));
        }
        let own = default_state_root(&self.table);
        let mut folders = ancestors(&self.table);
        if self.state != own {
            folders.extend(ancestors(&self.state));
            folders.insert(self.state.clone());
        }
        let storage = &self.storage;
        let look = |folder: Path| async move {
            match table_or_state(storage, &folder).await? {
                Some(what) => Ok(Some((what, folder))),
                None => Ok(None),
            }
        };
        let found = try_join_all(folders.into_iter().map(look)).await?;
        if let Some((what, folder)) = found.into_iter().flatten().next() {
            let message =
                format!("`{folder}` is {what}; the table `{}` and its state cannot be inside of it", self.table);
            return Err(overlaps(message));
        }
        self.check_spelling().await?;
        if self.options.other_formats == OtherTableFormats::Allow {
            return Ok(());
        }
        match table_format_around(&storage.store, self.table.as_ref()).await? {
            Some((format, folder)) => Err(format.refused(&folder)),
            None => Ok(()),
        }
    }

    /// Refuses a new table whose name differs from that of a table beside it by letter case or Unicode form only: some file
    /// systems and catalogs take both for one.
    async fn check_spelling(&self) -> Result<()> {
        let own = default_state_root(&self.table);
        let (beside, name) = (parent(&own), own.filename().unwrap_or_default().to_owned());
        let listed = self.storage.store.list_with_delimiter(Some(&beside)).await;
        let Some(listed) = unless_denied(listed.map_err(|e| store_error("list", &beside, e)))? else { return Ok(()) };
        let folded = fold_name(&name);
        let names = listed.common_prefixes.iter().filter_map(Path::filename);
        match names.into_iter().find(|other| *other != name && fold_name(other) == folded) {
            None => Ok(()),
            Some(other) => {
                let message = format!(
                    "the name of the table `{}` differs from that of the table `{other}` beside it by letter case or Unicode form only; catalogs and some file systems take both for one: choose another name",
                    self.table
                );
                Err(Error::usage("LooksAlike", message))
            }
        }
    }
}

/// The form in which names are compared: canonical composition (Unicode's NFC) of the lower-case text.
///
/// ```
/// use biscuit_journal::fold_name;
///
/// assert_eq!(fold_name("Äpfel"), fold_name("a\u{308}PFEL"));
/// ```
pub fn fold_name(name: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    name.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// The format and folder of another format's table that a folder is, or is inside of. Only logs directly below these folders
/// are looked for; a listing of the folder shows those inside of it.
///
/// # Errors
/// Those of the store. Folders that may not be listed count as none.
pub async fn table_format_around(
    store: &dyn ObjectStore,
    folder: &str,
) -> Result<Option<(ForeignTableFormat, String)>> {
    let Ok(folder) = Path::parse(folder) else { return Ok(None) };
    let mut folders = ancestors(&folder);
    folders.insert(folder);
    let look = |(folder, format): (Path, ForeignTableFormat)| async move {
        let log = folder.clone().join(format.log_folder());
        let mut objects = store.list(Some(&log));
        // A log has few files that another program could have written, and what counts is one of them.
        for _ in 0..1000 {
            let next = objects.try_next().await.map_err(|e| store_error("list", &log, e));
            let Some(object) = unless_denied(next)?.flatten() else { break };
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

fn overlaps(message: String) -> Error {
    Error::usage("OverlapsTable", message)
}

/// What a folder is, if it is a table or a state root.
async fn table_or_state(storage: &TableStorage, folder: &Path) -> Result<Option<&'static str>> {
    let pointer = default_state_root(folder).join(POINTER);
    match storage.store.head(&pointer).await {
        Ok(_) => return Ok(Some("the folder of a table")),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(e) => drop(unless_denied(Err::<(), _>(store_error("look at", &pointer, e)))?),
    }
    let journal = folder.clone().join("journal");
    let mut objects = storage.store.list(Some(&journal));
    let first = objects.try_next().await.map_err(|e| store_error("list", &journal, e));
    let first = unless_denied(first)?.flatten();
    Ok(first.and_then(|object| JournalObjectKind::parse(&object.location)).map(|_| "the state root of a table"))
}

/// Whether a name of the path is a file, which a disk says in its own way.
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

/// None where there can be nothing, or a store refuses to say: rights may end at the folder of the table.
fn unless_denied<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == ErrorKind::Denied || is_not_a_folder(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// All folders above a path, without the root of the store.
fn ancestors(path: &Path) -> BTreeSet<Path> {
    let parts: Vec<_> = path.parts().collect();
    (1..parts.len()).map(|n| parts[..n].iter().cloned().collect()).collect()
}

fn parent(path: &Path) -> Path {
    let mut parts: Vec<_> = path.parts().collect();
    parts.pop();
    Path::from_iter(parts)
}

fn join(root: &str, relative: &str) -> String {
    if relative.is_empty() { root.to_owned() } else { format!("{root}/{relative}") }
}

/// Whether a path is below a folder, by whole segments.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The table whose state a key in a folder of the default name belongs to.
pub(crate) fn table_of_state(key: &str) -> Option<String> {
    let segments: Vec<&str> = key.split('/').collect();
    let at = segments.iter().position(|s| *s == STATE)?;
    let name = segments.get(at + 1).filter(|_| segments.len() > at + 2)?;
    Some(segments[..at].iter().chain([name]).copied().collect::<Vec<_>>().join("/"))
}

/// The state root that a key of a journal is in, wherever it is; empty for the root that keys are relative to.
pub(crate) fn state_root_of(key: &str) -> Option<&str> {
    let (folder, _) = key.rsplit_once('/')?;
    let root = if folder == "journal" { "" } else { folder.strip_suffix("/journal")? };
    JournalObjectKind::parse(&Path::parse(key).ok()?).map(|_| root)
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
        assert_eq!(state_root_of("journal/00000000000000000001.json"), Some(""));
        assert_eq!(state_root_of("elsewhere/t/journal/1.json"), None);
    }

    #[test]
    fn folders_above_a_path_are_whole_names() {
        let names: Vec<String> = ancestors(&Path::from("a/b/c")).into_iter().map(|p| p.to_string()).collect();
        assert_eq!(names, ["a", "a/b"]);
        assert!(is_within("a/b/c", "a/b") && !is_within("a/bc", "a/b") && !is_within("a/b", "a/b"));
    }
}
