//! The keys that one part of a run covers.

use std::sync::Arc;

use hashbrown::HashSet;

/// The encoded keys that a part of a run covers: a key range without linked keys, or all linked keys. Linked keys are
/// connected to other keys by key changes and have a part of their own.
///
/// Invariant: each key is covered by exactly one part. Deciding a key twice would apply its records and count its
/// rows twice.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyCoverage {
    /// First key of the range; `None` if the range has no beginning.
    pub(crate) from: Option<Vec<u8>>,
    /// First key after the range; `None` if the range has no end.
    pub(crate) to: Option<Vec<u8>>,
    /// Keys that are connected by key changes. The part of a range excludes them, the part of linked keys has only
    /// these.
    pub(crate) linked: Arc<HashSet<Vec<u8>>>,
    /// Whether this is the part of the linked keys.
    pub(crate) is_linked: bool,
}

impl KeyCoverage {
    /// Returns whether the part covers an encoded key.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
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
    fn each_key_is_covered_by_exactly_one_part() {
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
            let found: Vec<usize> = (0..4).filter(|p| parts[*p].contains(key.as_bytes())).collect();
            assert_eq!(found, [at], "{key}");
        }
        assert!(KeyCoverage::default().contains(b"any"));
    }
}
