//! The working folder of a case, which is restored after every command.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A working folder with tables and inputs, which is restored after every command that changed it.
///
/// Journals contain absolute paths of tables, and ETags that depend on inodes and times. So the path of the folder
/// never changes, and its files are hard links to the files of a copy. That is safe, because the command replaces
/// files and changes none in place.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) root: PathBuf,
    kept: PathBuf,
    pristine: BTreeMap<String, Print>,
}

/// Inode, size and time of a file.
type Print = (u64, u64, i64, i64);

impl Stand {
    /// Stores the present content of `root` as the state to restore.
    pub(crate) fn new(root: &Path) -> Self {
        let kept = root.with_extension("kept");
        std::fs::rename(root, &kept).expect("our folder is renamed");
        let mut stand = Self { root: root.to_owned(), kept, pristine: BTreeMap::new() };
        stand.pristine = prints(&stand.kept);
        stand.restore();
        stand
    }

    /// Restores the folder.
    pub(crate) fn restore(&self) {
        if self.root.exists() {
            std::fs::remove_dir_all(&self.root).expect("the working folder is removed");
        }
        for name in self.pristine.keys() {
            let to = self.root.join(name);
            std::fs::create_dir_all(to.parent().expect("the path has a folder")).expect("the folder is created");
            let put = if is_database(name) {
                std::fs::copy(self.kept.join(name), to).map(drop)
            } else {
                std::fs::hard_link(self.kept.join(name), to)
            };
            put.expect("the file is stored");
        }
        let changed = Files(prints(&self.root));
        let changed = changed.changed(&Files(self.pristine.clone()), |name| !is_database(name)).join(", ");
        assert!(changed.is_empty(), "a command changed a file in place: {changed}");
    }

    /// Returns the files whose names match the pattern; `*` stands for any text.
    pub(crate) fn matching(&self, pattern: &str) -> Vec<&str> {
        self.pristine.keys().map(String::as_str).filter(|name| matches(pattern, name)).collect()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.root.join(name)).expect("the file of the stand is readable")
    }

    /// Replaces a file by another one.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        let path = self.root.join(name);
        std::fs::remove_file(&path).expect("the file of the stand is removed");
        std::fs::write(path, bytes).expect("the file is written");
    }

    pub(crate) fn now(&self) -> Files {
        Files(prints(&self.root))
    }
}

/// Whether programs change this file in place, so that it must not be a link.
fn is_database(name: &str) -> bool {
    name.ends_with(".redb")
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

/// The files of a folder at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<String, Print>);

impl Files {
    /// Returns the names of changed files among those that `of` selects.
    pub(crate) fn changed<'a>(&'a self, before: &'a Self, of: impl Fn(&str) -> bool) -> Vec<&'a str> {
        let new = self.0.iter().filter(|(name, print)| before.0.get(*name) != Some(print)).map(|(name, _)| name);
        let gone = before.0.keys().filter(|name| !self.0.contains_key(*name));
        new.chain(gone).map(String::as_str).filter(|name| of(name)).collect()
    }

    /// Returns the number of the newest record of each state root.
    pub(crate) fn versions(&self) -> BTreeMap<&str, u64> {
        let mut newest = BTreeMap::new();
        for name in self.0.keys() {
            let Some((state, record)) = name.split_once("/journal/") else { continue };
            let number = record.strip_suffix(".json").and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
            let version = newest.entry(state).or_default();
            *version = number.max(*version);
        }
        newest
    }

    /// Returns the state roots that have a new version.
    pub(crate) fn committed<'a>(&'a self, before: &Self) -> Vec<&'a str> {
        let old = before.versions();
        let is_new = |(state, version): &(&str, u64)| *version > old.get(state).copied().unwrap_or(0);
        self.versions().into_iter().filter(is_new).map(|(state, _)| state).collect()
    }
}

fn prints(root: &Path) -> BTreeMap<String, Print> {
    fn walk(at: &Path, root: &Path, all: &mut BTreeMap<String, Print>) {
        for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                walk(&path, root, all);
            } else {
                let name =
                    path.strip_prefix(root).expect("the path is below the folder").to_string_lossy().into_owned();
                all.insert(name, (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()));
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        assert!(matches("lake/*/keys-*", "lake/.biscuit/t/state/0-a/keys-1"));
        assert!(matches("in/c.csv", "in/c.csv") && matches("in/*", "in/c.csv"));
        assert!(!matches("in/*.csv", "in/c.csv.gz") && !matches("in/c", "in/c.csv"));
    }

    #[test]
    fn what_was_changed_is_seen_and_put_back() {
        let folder = tempfile::tempdir().expect("the folder is created");
        let root = folder.path().join("stand");
        std::fs::create_dir_all(root.join("lake/t")).expect("the folder is created");
        std::fs::write(root.join("lake/t/a"), "1").expect("the file is written");
        let stand = Stand::new(&root);
        let before = stand.now();
        stand.replace("lake/t/a", b"2");
        std::fs::write(root.join("b"), "3").expect("the file is written");
        assert_eq!(stand.now().changed(&before, |_| true), ["b", "lake/t/a"]);
        stand.restore();
        assert_eq!((stand.now(), stand.read("lake/t/a")), (before, b"1".to_vec()));
    }
}
