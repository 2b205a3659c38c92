/// Random number generator SplitMix64 (Steele, Lea and Flood, 2014): small, and the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Creates the generator of one input. It depends only on the seed, the kind and the number of the input, so that
    /// a single input can be repeated.
    pub(crate) fn of_input(seed: u64, kind: &str, number: u64) -> Self {
        let mut random = Self(seed);
        for part in kind.bytes().map(u64::from).chain([number]) {
            random.0 = random.next() ^ part;
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`; 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Returns true with the probability of one in this many.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Returns a range within `0..len`; short ranges are more frequent than long ones.
    pub(crate) fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        let maximum = [4, 16, 256, len][self.below(4)].min(len - start);
        start..start + 1.min(maximum) + self.below(maximum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_has_its_own_numbers_whatever_came_before_it() {
        let numbers = |seed, kind, n| {
            let mut random = Random::of_input(seed, kind, n);
            [random.next(), random.next()]
        };
        assert_eq!(numbers(1, "avro", 7), numbers(1, "avro", 7));
        for other in [numbers(2, "avro", 7), numbers(1, "csv", 7), numbers(1, "avro", 8)] {
            assert_ne!(numbers(1, "avro", 7), other);
        }
    }

    #[test]
    fn ranges_are_inside() {
        let mut random = Random::of_input(1, "", 0);
        for len in (0..40).cycle().take(4000) {
            let range = random.range(len);
            assert!(range.start <= range.end && range.end <= len, "{range:?} of {len}");
        }
    }
}
