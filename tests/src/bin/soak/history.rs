use std::collections::BTreeMap;

/// Writers, each with a set of rows of its own.
pub(crate) const WRITERS: usize = 4;

/// The counter of each writer's rows; 0 where there are none.
pub(crate) type Counters = [u64; WRITERS];

/// What writers know of the commits that they made: the version by writer and counter.
#[derive(Debug, Default)]
pub(crate) struct History {
    versions: BTreeMap<(usize, u64), u64>,
    /// The newest counter of each writer whose commit was answered.
    pub(crate) answered: Counters,
}

impl History {
    pub(crate) fn committed(&mut self, writer: usize, counter: u64, version: Option<u64>) {
        self.answered[writer] = self.answered[writer].max(counter);
        version.map(|version| self.versions.insert((writer, counter), version));
    }

    /// The versions that may have these counters, as far as it is known: a counter is there from its version on, until the next one
    /// of its writer.
    fn versions(&self, seen: &Counters) -> (u64, u64) {
        let known = |writer: usize, counter: u64| self.versions.get(&(writer, counter)).copied();
        let first = (0..WRITERS).filter_map(|w| known(w, seen[w])).max().unwrap_or(0);
        let last = (0..WRITERS).filter_map(|w| known(w, seen[w] + 1)).min().map_or(u64::MAX, |next| next - 1);
        (first, last)
    }

    /// Says if a read cannot be one committed version.
    pub(crate) fn check(&self, seen: &Counters) -> Option<String> {
        let (first, last) = self.versions(seen);
        (first > last)
            .then(|| format!("the rows {seen:?} are of version {first} at least and of version {last} at most"))
    }
}

/// Says if states cannot follow one another: each version changes one counter, so of two states one is at least the other in all
/// counters.
pub(crate) fn not_in_a_row(states: &[Counters]) -> Option<String> {
    let mut sorted = states.to_vec();
    sorted.sort_by_key(|counters| counters.iter().sum::<u64>());
    let before = |one: &Counters, other: &Counters| one.iter().zip(other).all(|(a, b)| a <= b);
    let apart = sorted.windows(2).find(|pair| !before(&pair[0], &pair[1]))?;
    Some(format!("{:?} and {:?} are states of no common history", apart[0], apart[1]))
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
