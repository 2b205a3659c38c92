//! Joins the rewrites of small files: a merge that changes many small files of a folder writes a few large ones.

use std::collections::BTreeMap;

use biscuit_dataset::OpenFile;
use biscuit_rewrite::RewriteUnit;
use biscuit_rewrite::unit::SmallGroups;
use datafusion::arrow::datatypes::SchemaRef;

use crate::options::MergeOptions;
use crate::plan::merge_plan::rewrite_of;
use crate::table::open_files::folder_of;

/// Number of changed small files of a folder from which they are joined. Fewer files are rewritten one by one, so that
/// a small change remains a small change.
const JOIN_FROM: usize = 8;

/// A file is small if it has less than this part of the target size.
const SMALL: u64 = 16;

/// Joins the rewrites of small files of the same folder to rewrites of up to the target size. Other small files of the
/// folder are joined with them, as long as they have at most as many bytes as the changed ones.
///
/// A joined rewrite is in the place of its first file; the other files are removed. The rows keep the order of the
/// files.
pub(crate) fn join_small_files(
    units: &mut BTreeMap<usize, Option<RewriteUnit>>,
    files: &[OpenFile],
    schema: &SchemaRef,
    options: &MergeOptions,
) {
    let is_small = |file: usize| files[file].size() < options.target_size / SMALL;
    let mut folders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for file in units.iter().filter(|(file, unit)| unit.is_some() && is_small(**file)).map(|(file, _)| *file) {
        folders.entry(folder_of(files[file].path())).or_default().push(file);
    }
    folders.retain(|_, changed| changed.len() >= JOIN_FROM);
    if folders.is_empty() {
        return;
    }
    let mut unchanged: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for file in (0..files.len()).filter(|file| !units.contains_key(file) && is_small(*file)) {
        if let Some((folder, _)) = folders.get_key_value(folder_of(files[file].path())) {
            unchanged.entry(folder).or_default().push(file);
        }
    }
    for (folder, mut joined) in folders {
        let mut allowed: u64 = joined.iter().map(|file| files[*file].size()).sum();
        let mut others = unchanged.remove(folder).unwrap_or_default();
        others.sort_by_key(|file| (files[*file].size(), *file));
        for file in others {
            match allowed.checked_sub(files[file].size()) {
                Some(left) => allowed = left,
                None => break,
            }
            joined.push(file);
        }
        joined.sort_unstable();
        join_files(&joined, units, files, schema, options);
    }
}

/// Joins files in their order, each time as many as fit into the target size.
fn join_files(
    joined: &[usize],
    units: &mut BTreeMap<usize, Option<RewriteUnit>>,
    files: &[OpenFile],
    schema: &SchemaRef,
    options: &MergeOptions,
) {
    let mut size = 0;
    let together = joined.chunk_by(|file, next| {
        size += files[*file].size();
        let fits = size + files[*next].size() <= options.target_size;
        if !fits {
            size = 0;
        }
        fits
    });
    for group in together.filter(|group| group.len() > 1) {
        let own = group.iter().map(|file| {
            let unit = units.insert(*file, None).flatten();
            unit.unwrap_or_else(|| rewrite_of(&files[*file], schema, options))
        });
        let unit = RewriteUnit::joined(own.collect::<Vec<_>>()).map(|unit| {
            let size = options.target_size.min(options.max_file_size);
            unit.with_small_groups(SmallGroups::Join).with_max_file_size(size)
        });
        units.insert(group[0], unit);
    }
}
