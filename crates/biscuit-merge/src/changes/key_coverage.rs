use std::sync::Arc;

use hashbrown::HashSet;

/// The keys, encoded, that a part of a run is about: a range of them, without those that have a part of their own since key
/// updates tie them to keys of other ranges.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyCoverage {
    /// The first key; none if the range has no beginning.
    pub(crate) from: Option<Vec<u8>>,
    /// The first key behind it; none if it has no end.
    pub(crate) to: Option<Vec<u8>>,
    pub(crate) linked: Arc<HashSet<Vec<u8>>>,
    /// Whether this is the part of the tied keys.
    pub(crate) is_linked: bool,
}

impl KeyCoverage {
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        let linked = || self.linked.contains(key);
        if self.is_linked {
            return linked();
        }
        let inside = self.from.as_ref().is_none_or(|from| from.as_slice() <= key)
            && self.to.as_ref().is_none_or(|to| key < to.as_slice());
        inside && !linked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_one_part() {
        let linked = Arc::new(HashSet::from([b"c".to_vec(), b"x".to_vec()]));
        let part = |from: Option<&[u8]>, to: Option<&[u8]>, is_linked| KeyCoverage {
            from: from.map(<[u8]>::to_vec),
            to: to.map(<[u8]>::to_vec),
            linked: linked.clone(),
            is_linked,
        };
        let parts = [
            part(None, Some(b"c"), false),
            part(Some(b"c"), Some(b"m"), false),
            part(Some(b"m"), None, false),
            part(None, None, true),
        ];
        for (key, at) in [("a", 0), ("c", 3), ("d", 1), ("m", 2), ("x", 3), ("z", 2)] {
            let found: Vec<usize> = (0..4).filter(|p| parts[*p].has(key.as_bytes())).collect();
            assert_eq!(found, [at], "{key}");
        }
        assert!(KeyCoverage::default().has(b"any"));
    }
}
