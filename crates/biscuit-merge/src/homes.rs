use crate::bounds::Bounds;

/// A file of a folder that new rows may be put into.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) file: usize,
    /// Bytes.
    pub(crate) size: u64,
    /// Whether it is written again anyway.
    pub(crate) touched: bool,
    pub(crate) groups: Vec<Room>,
}

/// A row group of it.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) bounds: Bounds,
    /// Rows that it can take.
    pub(crate) room: u64,
    /// Whether it is encoded again anyway.
    pub(crate) touched: bool,
}

/// Where a new row goes: a file, and a row group of it, or behind its last one.
pub(crate) type Place = (usize, Option<usize>);

/// Finds places for new rows, so that they leave no trail of small files and row groups, and so that keys that are near one
/// another stay so; rows without a place go to a new file. `keys` are sorted.
///
/// Where row groups have each their own range of keys, a row goes to the one whose range it is in, or that comes before it. The
/// others, and all rows of a table in no order, fill up what is written anyway; else a file that is small.
pub(crate) fn places(keys: &[Option<&[u8]>], homes: &mut [Home], target_size: u64) -> Vec<Option<Place>> {
    let ordered = in_order(homes);
    let mut out = Vec::with_capacity(keys.len());
    for key in keys {
        let by_key = match (key, &ordered) {
            (Some(key), Some(ordered)) => by_key(key, ordered, homes, target_size),
            _ => None,
        };
        out.push(by_key.or_else(|| filling(homes, target_size)).map(|(home, group)| (homes[home].file, group)));
    }
    out
}

/// The row groups of all files by their keys, if no two of them overlap.
fn in_order(homes: &[Home]) -> Option<Vec<(usize, usize)>> {
    let all = homes.iter().enumerate().flat_map(|(h, home)| (0..home.groups.len()).map(move |g| (h, g)));
    let mut all: Vec<(usize, usize)> = all.collect();
    let bounds = |(h, g): &(usize, usize)| &homes[*h].groups[*g].bounds;
    if all.is_empty() || !all.iter().all(|at| bounds(at).is_known()) {
        return None;
    }
    all.sort_by(|a, b| bounds(a).min().cmp(&bounds(b).min()));
    let apart = |pair: &[(usize, usize)]| bounds(&pair[0]).max() < bounds(&pair[1]).min();
    all.windows(2).all(apart).then_some(all)
}

fn by_key(key: &[u8], ordered: &[(usize, usize)], homes: &mut [Home], target_size: u64) -> Option<Place> {
    let after = ordered.partition_point(|(h, g)| homes[*h].groups[*g].bounds.min().is_some_and(|min| min <= key));
    let (h, g) = ordered[after.saturating_sub(1)];
    let home = &mut homes[h];
    let inside = home.groups[g].bounds.covers(key);
    let free = home.touched || home.size < target_size / 4;
    let behind = free && home.size < target_size;
    if !(inside || behind) {
        return None;
    }
    home.touched = true;
    if take(&mut home.groups[g]) {
        return Some((h, Some(g)));
    }
    into(h, homes, target_size)
}

/// Any row group of a file that has room, the last first; else behind it, if the file is not large already.
fn into(h: usize, homes: &mut [Home], target_size: u64) -> Option<Place> {
    let home = &mut homes[h];
    for touched in [true, false] {
        let with_room = |r: &Room| r.room > 0 && r.touched == touched;
        if let Some(g) = home.groups.iter().rposition(with_room) {
            take(&mut home.groups[g]);
            return Some((h, Some(g)));
        }
    }
    (home.size < target_size).then_some((h, None))
}

fn take(group: &mut Room) -> bool {
    if group.room == 0 {
        return false;
    }
    group.room -= 1;
    group.touched = true;
    true
}

/// What is written anyway and has room, else the smallest file if it is small.
fn filling(homes: &mut [Home], target_size: u64) -> Option<Place> {
    let smallest = |fits: &dyn Fn(&Home) -> bool| {
        (0..homes.len()).filter(|&h| fits(&homes[h])).min_by_key(|&h| (homes[h].size, homes[h].file))
    };
    let touched = smallest(&|home| home.touched && home.size < target_size);
    let h = touched.or_else(|| smallest(&|home| home.size < target_size / 4))?;
    homes[h].touched = true;
    into(h, homes, target_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(range: Option<(&str, &str)>, room: u64, touched: bool) -> Room {
        Room { bounds: Bounds::between(range.map(|(a, b)| (a.into(), b.into()))), room, touched }
    }

    fn home(file: usize, size: u64, touched: bool, groups: Vec<Room>) -> Home {
        Home { file, size, touched, groups }
    }

    fn place(keys: &[&str], homes: &mut [Home]) -> Vec<Option<Place>> {
        let keys: Vec<Option<&[u8]>> = keys.iter().map(|k| Some(k.as_bytes())).collect();
        places(&keys, homes, 400)
    }

    #[test]
    fn rows_go_where_their_keys_are() {
        let mut homes = [
            home(4, 90, true, vec![room(Some(("a", "c")), 1, true), room(Some(("e", "g")), 9, false)]),
            home(7, 300, false, vec![room(Some(("m", "p")), 1, false)]),
        ];
        // The second of group `a` to `c` finds no room there any more; `z` is behind a large file that is written by now.
        let got = place(&["b", "c", "f", "n", "o", "z"], &mut homes);
        let last = Some((7, None));
        assert_eq!(got, [Some((4, Some(0))), Some((4, Some(1))), Some((4, Some(1))), Some((7, Some(0))), last, last]);
    }

    #[test]
    fn new_keys_behind_a_large_file_make_a_new_one() {
        let mut homes = [home(0, 300, false, vec![room(Some(("a", "c")), 9, false)])];
        assert_eq!(place(&["x", "y"], &mut homes), [None, None]);
        let mut homes = [home(0, 99, false, vec![room(Some(("a", "c")), 1, false)])];
        assert_eq!(place(&["x", "y"], &mut homes), [Some((0, Some(0))), Some((0, None))]);
    }

    #[test]
    fn without_an_order_rows_fill_what_is_written_anyway() {
        let overlapping = || vec![room(Some(("a", "z")), 1, true), room(None, 1, false)];
        let mut homes =
            [home(0, 500, true, overlapping()), home(1, 200, true, overlapping()), home(2, 10, false, vec![])];
        let got = place(&["b", "c", "d"], &mut homes);
        assert_eq!(got, [Some((1, Some(0))), Some((1, Some(1))), Some((1, None))]);
        let mut homes = [home(0, 200, false, overlapping()), home(1, 90, false, overlapping())];
        assert_eq!(place(&["b"], &mut homes), [Some((1, Some(0)))]);
        assert_eq!(place(&["b"], &mut []), [None]);
    }
}
