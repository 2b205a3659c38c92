use crate::changes::change_set::ChangeSet;

/// Joins keys that key updates tie together.
#[derive(Debug)]
pub(crate) struct KeyUnionFind(Vec<u32>);

impl KeyUnionFind {
    /// All keys of a run, which are `sorted`, with the group they are in, groups together and by their first key: those that
    /// the key updates of its records, or these ties, bring together are one.
    pub(crate) fn of(set: &ChangeSet, ties: &[(u32, u32)], sorted: &[u32]) -> Vec<(u32, u32)> {
        let links = || set.records.iter().filter_map(|r| r.link.map(|(_, other)| (r.key, other)));
        if ties.is_empty() && links().next().is_none() {
            return sorted.iter().map(|k| (*k, *k)).collect();
        }
        let mut rank = vec![0_u32; sorted.len()];
        for (at, key) in (0..).zip(sorted) {
            rank[*key as usize] = at;
        }
        let mut groups = Self::new(sorted.len());
        links().chain(ties.iter().copied()).for_each(|(a, b)| groups.join(rank[a as usize], rank[b as usize]));
        let ranks = 0..u32::try_from(sorted.len()).expect("there are fewer than 2^32 keys");
        let mut by_root: Vec<(u32, u32)> = ranks.map(|r| (groups.root(r), r)).collect();
        by_root.sort_unstable();
        by_root.into_iter().map(|(root, r)| (sorted[root as usize], sorted[r as usize])).collect()
    }

    fn new(keys: usize) -> Self {
        Self((0..u32::try_from(keys).expect("there are fewer than 2^32 keys")).collect())
    }

    fn root(&mut self, key: u32) -> u32 {
        let mut at = key;
        while self.0[at as usize] != at {
            let up = self.0[at as usize];
            self.0[at as usize] = self.0[up as usize];
            at = up;
        }
        at
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}
