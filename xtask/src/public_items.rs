//! The public items of crates, with one line of text each.

use crate::impls;
use crate::lines::{Lines, PublicItem};
use crate::public_paths::{PathNames, PublicPaths, SiblingPaths};
use crate::rustdoc::CrateDocs;

/// All public items of each crate, in the order of their paths.
pub(crate) fn public_items(crates: &[CrateDocs]) -> Vec<Vec<PublicItem>> {
    let siblings = SiblingPaths::of(crates);
    crates.iter().map(|docs| items_of(docs, &siblings)).collect()
}

fn items_of(docs: &CrateDocs, siblings: &SiblingPaths) -> Vec<PublicItem> {
    let paths = PublicPaths::of(docs);
    let mut list = Lines { names: PathNames { docs, paths: &paths, siblings }, lines: Vec::new() };
    for (id, path) in paths.iter() {
        if let Some(item) = docs.item(id) {
            list.item(item, path);
        }
    }
    for (alias, id) in &paths.aliases {
        list.add(alias, |_| format!("pub use {alias} = {}", paths.path(*id).unwrap_or_default()));
    }
    for (path, id, source) in &paths.foreign {
        list.foreign(path, *id, source);
    }
    impls::add(&mut list);
    let mut lines = list.lines;
    lines.sort();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests;
