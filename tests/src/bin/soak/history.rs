use std::collections::BTreeMap;

/// Number of writers. Each has rows of its own.
pub(crate) const WRITERS: usize = 4;

/// Counter of the rows of each writer; 0 for a writer without rows.
pub(crate) type Counters = [u64; WRITERS];

/// Commits that writers know of: the version by writer and counter.
#[derive(Debug, Default)]
pub(crate) struct History {
    versions: BTreeMap<(usize, u64), u64>,
    /// The newest counter of each writer whose commit was reported.
    pub(crate) answered: Counters,
}

impl History {
    pub(crate) fn committed(&mut self, writer: usize, counter: u64, version: Option<u64>) {
        self.answered[writer] = self.answered[writer].max(counter);
        version.map(|version| self.versions.insert((writer, counter), version));
    }

    /// Returns the range of versions that may have these counters. A counter is in the table from its own version
    /// until the version of the next counter of its writer.
    fn versions(&self, seen: &Counters) -> (u64, u64) {
        let known = |writer: usize, counter: u64| self.versions.get(&(writer, counter)).copied();
        let first = (0..WRITERS).filter_map(|w| known(w, seen[w])).max().unwrap_or(0);
        let last = (0..WRITERS).filter_map(|w| known(w, seen[w] + 1)).min().map_or(u64::MAX, |next| next - 1);
        (first, last)
    }

    /// Returns a description if a read cannot be one committed version.
    pub(crate) fn check(&self, seen: &Counters) -> Option<String> {
        let (first, last) = self.versions(seen);
        (first > last)
            .then(|| format!("the rows {seen:?} are from version {first} or later and from version {last} or earlier"))
    }
}

/// Returns a description if two states cannot follow one another. Each version changes one counter, so of any two
/// states one is at least the other in all counters.
pub(crate) fn not_in_a_row(states: &[Counters]) -> Option<String> {
    let mut sorted = states.to_vec();
    sorted.sort_by_key(|counters| counters.iter().sum::<u64>());
    let before = |one: &Counters, other: &Counters| one.iter().zip(other).all(|(a, b)| a <= b);
    let apart = sorted.windows(2).find(|pair| !before(&pair[0], &pair[1]))?;
    Some(format!("{:?} and {:?} cannot be states of one history", apart[0], apart[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_versions_are_told_from_those_of_one() {
        let mut history = History::default();
        for (writer, counter, version) in [(0, 1, 1), (1, 1, 2), (0, 2, 3), (1, 2, 4)] {
            history.committed(writer, counter, Some(version));
        }
        for good in [[0; 4], [1, 0, 0, 0], [1, 1, 0, 0], [2, 1, 0, 0], [2, 2, 0, 0], [2, 2, 7, 0]] {
            assert_eq!(history.check(&good), None, "{good:?}");
        }
        for torn in [[0, 1, 0, 0], [2, 0, 0, 0], [1, 2, 0, 0]] {
            assert!(history.check(&torn).is_some(), "{torn:?}");
        }
        assert_eq!(history.answered, [2, 2, 0, 0]);
    }

    #[test]
    fn states_of_one_history_are_in_a_row() {
        assert_eq!(not_in_a_row(&[[2, 1, 0, 0], [0; 4], [1, 1, 0, 0]]), None);
        assert!(not_in_a_row(&[[2, 1, 0, 0], [1, 2, 0, 0]]).is_some());
    }
}
