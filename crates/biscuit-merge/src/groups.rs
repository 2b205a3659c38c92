use crate::change_set::ChangeSet;

/// Joins keys that key updates tie together.
#[derive(Debug)]
pub(crate) struct Groups(Vec<u32>);

impl Groups {
    /// All keys of a run with the group they are in, groups together: those that the key updates of its records, or these
    /// ties, bring together are one.
    pub(crate) fn of(set: &ChangeSet, ties: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut groups = Self::new(set.keys.len());
        for record in &set.records {
            record.link.inspect(|(_, other)| groups.join(record.key, *other));
        }
        ties.iter().for_each(|(a, b)| groups.join(*a, *b));
        let keys = u32::try_from(set.keys.len()).expect("there are fewer than 2^32 keys");
        let mut sorted: Vec<(u32, u32)> = (0..keys).map(|k| (groups.root(k), k)).collect();
        sorted.sort_unstable();
        sorted
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
