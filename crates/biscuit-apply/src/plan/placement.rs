//! Placement: which existing file and row group a new row is written to.

use crate::table::key_statistics::KeyStatistics;

/// A file that may get new rows.
#[derive(Debug)]
pub(crate) struct FileCapacity {
    pub(crate) file: usize,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Whether the file is rewritten in any case.
    pub(crate) touched: bool,
    pub(crate) groups: Vec<RowGroupCapacity>,
}

/// A row group of the file.
#[derive(Debug)]
pub(crate) struct RowGroupCapacity {
    pub(crate) bounds: KeyStatistics,
    /// Number of further rows that fit into the row group.
    pub(crate) capacity: u64,
    /// Whether the row group is encoded again in any case.
    pub(crate) touched: bool,
}

/// The place of a new row: a file, and one of its row groups, or `None` for after the last one.
pub(crate) type RowPlacement = (usize, Option<usize>);

/// Places new rows in files and row groups; `None` for a row of a new file. `keys` are sorted.
///
/// The goals are few small files and row groups, few files that are rewritten, and neighbouring keys in the same row
/// group.
/// 1. If no two row groups have overlapping key ranges, a row is placed in the row group whose range contains its
///    key, or precedes it (see `by_key`).
/// 2. Other rows, and all rows of a table that is not ordered by key, are placed in a file that is rewritten in any
///    case, or else in a small file (see `filling`).
/// 3. The rest are written to a new file.
///
/// Each placed row uses up room and marks its file as touched, so that the next row prefers the same file. The result
/// depends on the order of the rows.
pub(crate) fn place_rows(
    keys: &[Option<&[u8]>],
    files: &mut [FileCapacity],
    target_size: u64,
) -> Vec<Option<RowPlacement>> {
    let ordered = order_by_keys(files);
    let mut out = Vec::with_capacity(keys.len());
    for key in keys {
        let by_key = match (key, &ordered) {
            (Some(key), Some(ordered)) => by_key(key, ordered, files, target_size),
            _ => None,
        };
        out.push(by_key.or_else(|| place_in_smallest(files, target_size)).map(|(h, group)| (files[h].file, group)));
    }
    out
}

/// Returns the row groups of all files in the order of their keys; `None` if two of them overlap or if the range of
/// one is not known.
fn order_by_keys(files: &[FileCapacity]) -> Option<Vec<(usize, usize)>> {
    let all = files.iter().enumerate().flat_map(|(h, file)| (0..file.groups.len()).map(move |g| (h, g)));
    let mut all: Vec<(usize, usize)> = all.collect();
    let bounds = |(h, g): &(usize, usize)| &files[*h].groups[*g].bounds;
    if all.is_empty() || !all.iter().all(|at| bounds(at).is_known()) {
        return None;
    }
    all.sort_by(|a, b| bounds(a).min().cmp(&bounds(b).min()));
    let apart = |pair: &[(usize, usize)]| bounds(&pair[0]).max() < bounds(&pair[1]).min();
    all.windows(2).all(apart).then_some(all)
}

/// Places a row by its key: binary search for the last row group that begins at or before the key, or else the first
/// one.
/// A key within the range of the row group belongs there, even if the file has to be rewritten for it. Any other key,
/// such as a new greatest one, is placed there only if the file is not full, and is rewritten in any case or is small
/// (below a quarter of the target size). If the row group is full, the row is placed elsewhere in the same file.
/// Example: with row groups a–c and m–p, the keys b and e both belong to a–c, b within the range and e after it.
fn by_key(
    key: &[u8],
    ordered: &[(usize, usize)],
    files: &mut [FileCapacity],
    target_size: u64,
) -> Option<RowPlacement> {
    let after = ordered.partition_point(|(h, g)| files[*h].groups[*g].bounds.min().is_some_and(|min| min <= key));
    let (h, g) = ordered[after.saturating_sub(1)];
    let file = &mut files[h];
    let inside = file.groups[g].bounds.covers(key);
    let free = file.touched || file.size < target_size / 4;
    let may_follow = free && file.size < target_size;
    if !(inside || may_follow) {
        return None;
    }
    file.touched = true;
    if take_room(&mut file.groups[g]) {
        return Some((h, Some(g)));
    }
    place_in_file(h, files, target_size)
}

/// Places a row in any row group of a file that has room: those that are encoded in any case first, the last one
/// first. Otherwise after the last row group, if the file is below the target size.
fn place_in_file(h: usize, files: &mut [FileCapacity], target_size: u64) -> Option<RowPlacement> {
    let file = &mut files[h];
    for touched in [true, false] {
        let with_room = |r: &RowGroupCapacity| r.capacity > 0 && r.touched == touched;
        if let Some(g) = file.groups.iter().rposition(with_room) {
            take_room(&mut file.groups[g]);
            return Some((h, Some(g)));
        }
    }
    (file.size < target_size).then_some((h, None))
}

/// Uses the room of one row. Returns false if the row group is full.
fn take_room(group: &mut RowGroupCapacity) -> bool {
    if group.capacity == 0 {
        return false;
    }
    group.capacity -= 1;
    group.touched = true;
    true
}

/// Places a row in the smallest file that is rewritten in any case and is not full, or else in the smallest file
/// below a quarter of the target size.
fn place_in_smallest(files: &mut [FileCapacity], target_size: u64) -> Option<RowPlacement> {
    let smallest = |fits: &dyn Fn(&FileCapacity) -> bool| {
        (0..files.len()).filter(|&h| fits(&files[h])).min_by_key(|&h| (files[h].size, files[h].file))
    };
    let touched = smallest(&|file| file.touched && file.size < target_size);
    let h = touched.or_else(|| smallest(&|file| file.size < target_size / 4))?;
    files[h].touched = true;
    place_in_file(h, files, target_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(range: Option<(&str, &str)>, capacity: u64, touched: bool) -> RowGroupCapacity {
        RowGroupCapacity { bounds: KeyStatistics::between(range.map(|(a, b)| (a.into(), b.into()))), capacity, touched }
    }

    fn file(file: usize, size: u64, touched: bool, groups: Vec<RowGroupCapacity>) -> FileCapacity {
        FileCapacity { file, size, touched, groups }
    }

    fn place(keys: &[&str], files: &mut [FileCapacity]) -> Vec<Option<RowPlacement>> {
        let keys: Vec<Option<&[u8]>> = keys.iter().map(|k| Some(k.as_bytes())).collect();
        place_rows(&keys, files, 400)
    }

    #[test]
    fn new_rows_are_placed_by_key() {
        let mut files = [
            file(4, 90, true, vec![group(Some(("a", "c")), 1, true), group(Some(("e", "g")), 9, false)]),
            file(7, 300, false, vec![group(Some(("m", "p")), 1, false)]),
        ];
        // Row group a–c has room for one row only. The file after which `z` is placed is large, but rewritten in any
        // case.
        let got = place(&["b", "c", "f", "n", "o", "z"], &mut files);
        let last = Some((7, None));
        assert_eq!(got, [Some((4, Some(0))), Some((4, Some(1))), Some((4, Some(1))), Some((7, Some(0))), last, last]);
    }

    #[test]
    fn new_keys_after_a_large_file_make_a_new_file() {
        let mut files = [file(0, 300, false, vec![group(Some(("a", "c")), 9, false)])];
        assert_eq!(place(&["x", "y"], &mut files), [None, None]);
        let mut files = [file(0, 99, false, vec![group(Some(("a", "c")), 1, false)])];
        assert_eq!(place(&["x", "y"], &mut files), [Some((0, Some(0))), Some((0, None))]);
    }

    #[test]
    fn without_key_order_new_rows_fill_files_that_are_rewritten_anyway() {
        let overlapping = || vec![group(Some(("a", "z")), 1, true), group(None, 1, false)];
        let mut files =
            [file(0, 500, true, overlapping()), file(1, 200, true, overlapping()), file(2, 10, false, vec![])];
        let got = place(&["b", "c", "d"], &mut files);
        assert_eq!(got, [Some((1, Some(0))), Some((1, Some(1))), Some((1, None))]);
        let mut files = [file(0, 200, false, overlapping()), file(1, 90, false, overlapping())];
        assert_eq!(place(&["b"], &mut files), [Some((1, Some(0)))]);
        assert_eq!(place(&["b"], &mut []), [None]);
    }
}
