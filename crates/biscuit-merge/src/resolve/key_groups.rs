//! Groups of keys that key changes connect.

use crate::resolve::change_set::ChangeSet;

/// A disjoint-set forest (union-find) over the keys of a run. Key changes connect keys, and connected keys are
/// resolved together, because values follow a row from key to key.
///
/// Entry `r` is the parent of the key with rank `r` in the order of the keys; a root is its own parent. The root of a
/// set is always its least rank, so that groups are in the order of their first keys, whatever the order of the joins
/// was.
#[derive(Debug)]
pub struct KeyUnionFind(Vec<u32>);

impl KeyUnionFind {
    /// Returns all keys as pairs of the group and the key. The group is the least key of its set. Pairs are sorted by
    /// group, then by key, so that the keys of a group are adjacent.
    /// `sorted` has all keys in order. Keys are connected by the key changes of records in `set`, and by `ties` from
    /// the key metadata.
    /// Example: with the keys a, b, c, d and a key change from b to d, the result is (a, a), (b, b), (b, d), (c, c).
    pub fn group_keys(set: &ChangeSet, ties: &[(u32, u32)], sorted: &[u32]) -> Vec<(u32, u32)> {
        let links = || set.records.iter().filter_map(|r| r.link.map(|(_, other)| (r.key, other)));
        // Most runs have no key change: each key is its own group.
        if ties.is_empty() && links().next().is_none() {
            return sorted.iter().map(|k| (*k, *k)).collect();
        }
        let mut rank = vec![0_u32; sorted.len()];
        for (at, key) in (0..).zip(sorted) {
            rank[*key as usize] = at;
        }
        let mut groups = Self::new(sorted.len());
        links().chain(ties.iter().copied()).for_each(|(a, b)| groups.unite(rank[a as usize], rank[b as usize]));
        let ranks = 0..u32::try_from(sorted.len()).expect("there are fewer than 2^32 keys");
        let mut by_root: Vec<(u32, u32)> = ranks.map(|r| (groups.find_root(r), r)).collect();
        by_root.sort_unstable();
        by_root.into_iter().map(|(root, r)| (sorted[root as usize], sorted[r as usize])).collect()
    }

    /// Creates a forest in which each key is its own set.
    fn new(keys: usize) -> Self {
        Self((0..u32::try_from(keys).expect("there are fewer than 2^32 keys")).collect())
    }

    /// Returns the root of a key. Path halving: each visited key is linked to its grandparent, so that paths stay
    /// short.
    fn find_root(&mut self, key: u32) -> u32 {
        let mut at = key;
        while self.0[at as usize] != at {
            let up = self.0[at as usize];
            self.0[at as usize] = self.0[up as usize];
            at = up;
        }
        at
    }

    /// Unites the sets of two keys. The lesser root becomes the root of both.
    fn unite(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find_root(a), self.find_root(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}
