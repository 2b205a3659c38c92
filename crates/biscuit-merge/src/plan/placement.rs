use crate::target::key_statistics::KeyStatistics;

/// A file of a folder that new rows may be put into.
#[derive(Debug)]
pub(crate) struct FileCapacity {
    pub(crate) file: usize,
    /// Bytes.
    pub(crate) size: u64,
    /// Whether it is written again anyway.
    pub(crate) touched: bool,
    pub(crate) groups: Vec<RowGroupCapacity>,
}

/// A row group of it.
#[derive(Debug)]
pub(crate) struct RowGroupCapacity {
    pub(crate) bounds: KeyStatistics,
    /// Rows that it can take.
    pub(crate) capacity: u64,
    /// Whether it is encoded again anyway.
    pub(crate) touched: bool,
}

/// Where a new row goes: a file, and a row group of it, or behind its last one.
pub(crate) type RowPlacement = (usize, Option<usize>);

/// Finds places for new rows, so that they leave no trail of small files and row groups, and so that keys that are near one
/// another stay so; rows without a place go to a new file. `keys` are sorted.
///
/// Where row groups have each their own range of keys, a row goes to the one whose range it is in, or that comes before it. The
/// others, and all rows of a table in no order, fill up what is written anyway; else a file that is small.
pub(crate) fn places(
    keys: &[Option<&[u8]>],
    placements: &mut [FileCapacity],
    target_size: u64,
) -> Vec<Option<RowPlacement>> {
    let ordered = in_order(placements);
    let mut out = Vec::with_capacity(keys.len());
    for key in keys {
        let by_key = match (key, &ordered) {
            (Some(key), Some(ordered)) => by_key(key, ordered, placements, target_size),
            _ => None,
        };
        out.push(
            by_key
                .or_else(|| filling(placements, target_size))
                .map(|(placement, group)| (placements[placement].file, group)),
        );
    }
    out
}

/// The row groups of all files by their keys, if no two of them overlap.
fn in_order(placements: &[FileCapacity]) -> Option<Vec<(usize, usize)>> {
    let all = placements.iter().enumerate().flat_map(|(h, placement)| (0..placement.groups.len()).map(move |g| (h, g)));
    let mut all: Vec<(usize, usize)> = all.collect();
    let bounds = |(h, g): &(usize, usize)| &placements[*h].groups[*g].bounds;
    if all.is_empty() || !all.iter().all(|at| bounds(at).is_known()) {
        return None;
    }
    all.sort_by(|a, b| bounds(a).min().cmp(&bounds(b).min()));
    let apart = |pair: &[(usize, usize)]| bounds(&pair[0]).max() < bounds(&pair[1]).min();
    all.windows(2).all(apart).then_some(all)
}

fn by_key(
    key: &[u8],
    ordered: &[(usize, usize)],
    placements: &mut [FileCapacity],
    target_size: u64,
) -> Option<RowPlacement> {
    let after = ordered.partition_point(|(h, g)| placements[*h].groups[*g].bounds.min().is_some_and(|min| min <= key));
    let (h, g) = ordered[after.saturating_sub(1)];
    let placement = &mut placements[h];
    let inside = placement.groups[g].bounds.covers(key);
    let free = placement.touched || placement.size < target_size / 4;
    let behind = free && placement.size < target_size;
    if !(inside || behind) {
        return None;
    }
    placement.touched = true;
    if take(&mut placement.groups[g]) {
        return Some((h, Some(g)));
    }
    into(h, placements, target_size)
}

/// Any row group of a file that has room, the last first; else behind it, if the file is not large already.
fn into(h: usize, placements: &mut [FileCapacity], target_size: u64) -> Option<RowPlacement> {
    let placement = &mut placements[h];
    for touched in [true, false] {
        let with_room = |r: &RowGroupCapacity| r.capacity > 0 && r.touched == touched;
        if let Some(g) = placement.groups.iter().rposition(with_room) {
            take(&mut placement.groups[g]);
            return Some((h, Some(g)));
        }
    }
    (placement.size < target_size).then_some((h, None))
}

fn take(group: &mut RowGroupCapacity) -> bool {
    if group.capacity == 0 {
        return false;
    }
    group.capacity -= 1;
    group.touched = true;
    true
}

/// What is written anyway and has room, else the smallest file if it is small.
fn filling(placements: &mut [FileCapacity], target_size: u64) -> Option<RowPlacement> {
    let smallest = |fits: &dyn Fn(&FileCapacity) -> bool| {
        (0..placements.len())
            .filter(|&h| fits(&placements[h]))
            .min_by_key(|&h| (placements[h].size, placements[h].file))
    };
    let touched = smallest(&|placement| placement.touched && placement.size < target_size);
    let h = touched.or_else(|| smallest(&|placement| placement.size < target_size / 4))?;
    placements[h].touched = true;
    into(h, placements, target_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(range: Option<(&str, &str)>, capacity: u64, touched: bool) -> RowGroupCapacity {
        RowGroupCapacity { bounds: KeyStatistics::between(range.map(|(a, b)| (a.into(), b.into()))), capacity, touched }
    }

    fn placement(file: usize, size: u64, touched: bool, groups: Vec<RowGroupCapacity>) -> FileCapacity {
        FileCapacity { file, size, touched, groups }
    }

    fn place(keys: &[&str], placements: &mut [FileCapacity]) -> Vec<Option<RowPlacement>> {
        let keys: Vec<Option<&[u8]>> = keys.iter().map(|k| Some(k.as_bytes())).collect();
        places(&keys, placements, 400)
    }

    #[test]
    fn rows_go_where_their_keys_are() {
        let mut placements = [
            placement(4, 90, true, vec![capacity(Some(("a", "c")), 1, true), capacity(Some(("e", "g")), 9, false)]),
            placement(7, 300, false, vec![capacity(Some(("m", "p")), 1, false)]),
        ];
        // The second of group `a` to `c` finds no room there any more; `z` is behind a large file that is written by now.
        let got = place(&["b", "c", "f", "n", "o", "z"], &mut placements);
        let last = Some((7, None));
        assert_eq!(got, [Some((4, Some(0))), Some((4, Some(1))), Some((4, Some(1))), Some((7, Some(0))), last, last]);
    }

    #[test]
    fn new_keys_behind_a_large_file_make_a_new_one() {
        let mut placements = [placement(0, 300, false, vec![capacity(Some(("a", "c")), 9, false)])];
        assert_eq!(place(&["x", "y"], &mut placements), [None, None]);
        let mut placements = [placement(0, 99, false, vec![capacity(Some(("a", "c")), 1, false)])];
        assert_eq!(place(&["x", "y"], &mut placements), [Some((0, Some(0))), Some((0, None))]);
    }

    #[test]
    fn without_an_order_rows_fill_what_is_written_anyway() {
        let overlapping = || vec![capacity(Some(("a", "z")), 1, true), capacity(None, 1, false)];
        let mut placements = [
            placement(0, 500, true, overlapping()),
            placement(1, 200, true, overlapping()),
            placement(2, 10, false, vec![]),
        ];
        let got = place(&["b", "c", "d"], &mut placements);
        assert_eq!(got, [Some((1, Some(0))), Some((1, Some(1))), Some((1, None))]);
        let mut placements = [placement(0, 200, false, overlapping()), placement(1, 90, false, overlapping())];
        assert_eq!(place(&["b"], &mut placements), [Some((1, Some(0)))]);
        assert_eq!(place(&["b"], &mut []), [None]);
    }
}
