//! The paths under which users can name the items of a crate.

use crate::rustdoc::{CrateDocs, Item, ids};
use std::collections::BTreeMap;

/// All that a signature needs to write the paths of items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathNames<'a> {
    pub(crate) docs: &'a CrateDocs,
    pub(crate) paths: &'a PublicPaths,
    pub(crate) siblings: &'a SiblingPaths,
}

/// Public paths of the items of all library crates, by the path of their definition. The list of a crate would
/// otherwise change when a file of another crate is moved.
#[derive(Debug, Default)]
pub(crate) struct SiblingPaths(BTreeMap<String, String>);

impl SiblingPaths {
    pub(crate) fn of(crates: &[CrateDocs]) -> Self {
        let mut paths = BTreeMap::new();
        for docs in crates {
            for (id, path) in PublicPaths::of(docs).main {
                if let Some(definition) = docs.definition(id) {
                    paths.insert(definition.path.join("::"), path);
                }
            }
        }
        Self(paths)
    }

    /// The public path of an item.
    pub(crate) fn path(&self, definition: &str) -> Option<&str> {
        self.0.get(definition).map(String::as_str)
    }
}

/// Paths of the items that can be reached from the crate's root without a private module and without an item that is
/// outside of semantic versioning.
#[derive(Debug, Default)]
pub(crate) struct PublicPaths {
    /// The shortest path of each item.
    main: BTreeMap<u64, String>,
    /// Further paths of items that are exported several times: the path, and the item.
    pub(crate) aliases: Vec<(String, u64)>,
    /// Items of other crates that are exported again: the path, the item if rustdoc knows it, and the name in the
    /// source.
    pub(crate) foreign: Vec<(String, Option<u64>, String)>,
}

impl PublicPaths {
    pub(crate) fn of(docs: &CrateDocs) -> Self {
        let mut walk = Walk { docs, open: Vec::new(), found: Vec::new(), foreign: Vec::new() };
        if let Some(root) = docs.item(docs.root()) {
            walk.module(root, root.name());
        }
        let Walk { mut found, foreign, .. } = walk;
        found.sort_by_key(|(path, id)| (path.matches("::").count(), path.clone(), *id));
        found.dedup();
        let mut paths = Self { foreign, ..Self::default() };
        for (path, id) in found {
            match paths.main.contains_key(&id) {
                true => paths.aliases.push((path, id)),
                false => drop(paths.main.insert(id, path)),
            }
        }
        paths
    }

    /// The shortest public path of an item of this crate.
    pub(crate) fn path(&self, id: u64) -> Option<&str> {
        self.main.get(&id).map(String::as_str)
    }

    /// All items with their paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &str)> {
        self.main.iter().map(|(id, path)| (*id, path.as_str()))
    }
}

struct Walk<'a> {
    docs: &'a CrateDocs,
    /// Modules between the root and the current item. `pub use super::*` would otherwise not end.
    open: Vec<u64>,
    found: Vec<(String, u64)>,
    foreign: Vec<(String, Option<u64>, String)>,
}

impl Walk<'_> {
    /// Visits the items of a module, of which `path` is one path.
    fn module(&mut self, module: Item<'_>, path: &str) {
        if self.open.contains(&module.id()) {
            return;
        }
        self.open.push(module.id());
        let (_, content) = module.inner();
        for id in ids(&content["items"]) {
            if let Some(item) = self.docs.item(id) {
                self.item(item, path);
            }
        }
        self.open.pop();
    }

    fn item(&mut self, item: Item<'_>, parent: &str) {
        // Rustdoc leaves out items that cannot be reached, so what is not public here is an export for the crate
        // itself.
        if !item.is_public() || item.is_outside_versioning() {
            return;
        }
        match item.inner() {
            ("use", content) => {
                let name = content["name"].as_str().unwrap_or_default();
                let source = content["source"].as_str().unwrap_or_default();
                let is_glob = content["is_glob"] == true;
                let target = content["id"].as_u64();
                match target.and_then(|id| self.docs.item(id)) {
                    Some(target) if target.is_outside_versioning() => {}
                    Some(target) if is_glob && target.inner().0 == "module" => self.module(target, parent),
                    Some(target) if is_glob => self.found.push((format!("{parent}::*"), target.id())),
                    Some(target) => self.named(target, &format!("{parent}::{name}")),
                    None if is_glob => self.foreign.push((format!("{parent}::*"), target, source.to_owned())),
                    None => self.foreign.push((format!("{parent}::{name}"), target, source.to_owned())),
                }
            }
            ("impl", _) => {}
            _ => self.named(item, &format!("{parent}::{}", item.name())),
        }
    }

    fn named(&mut self, item: Item<'_>, path: &str) {
        self.found.push((path.to_owned(), item.id()));
        if item.inner().0 == "module" {
            self.module(item, path);
        }
    }
}
