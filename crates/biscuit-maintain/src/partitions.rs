//! Folders that a purge has emptied: partitions that a catalog may drop.

use std::collections::{BTreeSet, HashSet};

use biscuit_core::Result;
use biscuit_journal::internal::is_hidden;
use biscuit_purge::internal::is_below;
use biscuit_purge::{ListedVersions, PurgePlan, PurgeStore};
use biscuit_rewrite::RunMode;

/// Returns those of `folders` in which the plans delete something and no file remains that an engine reads.
/// `prefix` is the folder of the purge.
pub(crate) async fn emptied_folders(
    store: &dyn PurgeStore,
    prefix: &str,
    plans: &[PurgePlan],
    folders: impl IntoIterator<Item = &str> + Send,
    mode: RunMode,
) -> Result<BTreeSet<String>> {
    let deletes = || plans.iter().flat_map(PurgePlan::deletes);
    let touched = folders_of(deletes().map(|o| o.listed.path));
    let gone: HashSet<String> =
        if mode == RunMode::DryRun { deletes().map(|o| o.listed.path).collect() } else { HashSet::new() };
    let asked: BTreeSet<String> =
        folders.into_iter().filter(|folder| touched.contains(*folder)).map(str::to_owned).collect();
    let here = occupied_folders(store, prefix, &gone).await?;
    let mut emptied = BTreeSet::new();
    for folder in asked {
        let inside = prefix.is_empty() || folder == prefix || is_below(&folder, prefix);
        let left = match inside {
            true => here.contains(&folder),
            false => occupied_folders(store, &folder, &gone).await?.contains(&folder),
        };
        if !left {
            emptied.insert(folder);
        }
    }
    Ok(emptied)
}

/// Returns the folders below a prefix that contain a file, and the folders around them. The keys in `gone` do not
/// count.
async fn occupied_folders(store: &dyn PurgeStore, prefix: &str, gone: &HashSet<String>) -> Result<HashSet<String>> {
    let listing = store.list(prefix, ListedVersions::Current).await?;
    let hidden = |key: &str| is_hidden(key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/'));
    // Hidden files and markers of folders are not data: engines ignore them.
    let is_file = |key: &String| !key.ends_with('/') && !hidden(key) && !gone.contains(key);
    Ok(folders_of(listing.iter().map(|o| o.listed.path).filter(is_file)))
}

/// Returns all folders that contain these keys, including outer folders.
fn folders_of(keys: impl Iterator<Item = String>) -> HashSet<String> {
    let mut folders = HashSet::new();
    for key in keys {
        let mut at = key.as_str();
        while let Some((folder, _)) = at.rsplit_once('/') {
            // If a folder is known, its outer folders are known, too.
            if !folders.insert(folder.to_owned()) {
                break;
            }
            at = folder;
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_key_are_all_folders_around_it() {
        let keys = ["t/day=1/a", "t/day=1/b", "c"].map(str::to_owned);
        let folders: BTreeSet<String> = folders_of(keys.into_iter()).into_iter().collect();
        assert_eq!(folders, BTreeSet::from(["t".to_owned(), "t/day=1".to_owned()]));
    }
}
