//! Comparison of keys: which keys are below a prefix, and which ones look alike after decoding.

use std::collections::HashMap;

use biscuit_core::{Error, Result};

use crate::codes;

/// Normalises a prefix for comparison by whole segments: it ends with `/`, or is empty for the root of the bucket.
pub(crate) fn folder_prefix(prefix: &str) -> String {
    let trimmed = prefix.trim_matches('/');
    if trimmed.is_empty() { String::new() } else { format!("{trimmed}/") }
}

/// Whether a key is below a prefix, by whole segments: `t_backup/x` is not below `t`, and neither is `t` itself.
///
/// ```
/// use biscuit_purge::internal::is_below;
///
/// assert!(is_below("t/day=1/a", "t") && is_below("t/day=1/a", "t/"));
/// assert!(!is_below("t_backup/a", "t") && !is_below("t", "t"));
/// ```
pub fn is_below(key: &str, prefix: &str) -> bool {
    let prefix = folder_prefix(prefix);
    key.len() > prefix.len() && key.starts_with(&prefix)
}

/// Returns the key that a program sees that decodes a key once too often or treats it as a path: percent codes and
/// `+` are decoded, empty segments and `.` are dropped, and `..` drops the segment before it. None if that changes
/// nothing.
fn looks_like(key: &str) -> Option<String> {
    let bytes = key.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let hex = |i: usize| (*bytes.get(i)? as char).to_digit(16);
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    let decoded = String::from_utf8_lossy(&out);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let path = segments.join("/");
    (path != key).then_some(path)
}

/// Refuses keys that are equal after decoding, such as `a%2Fb` and `a/b`. A store, a proxy or a tool that decodes
/// once too often would delete one instead of the other.
///
/// The keys are read twice, since `keys` may be a listing of millions that is not in memory as text: the first pass
/// keeps only keys that change by decoding, which are few, and the second pass finds keys that are equal to one of
/// those.
///
/// # Errors
/// `LooksAlike`, with the first two such keys.
pub(crate) fn check_lookalikes<I: Iterator<Item = String>>(keys: impl Fn() -> I) -> Result<()> {
    let mut decoded: HashMap<String, String> = HashMap::new();
    let alike = |a: &str, b: &str| {
        Error::new(
            codes::LOOKS_ALIKE,
            format!(
                "`{a}` and `{b}` are different keys that are equal after decoding; nothing was deleted; allow `lookalikes` to go on"
            ),
        )
    };
    for key in keys() {
        let Some(path) = looks_like(&key) else { continue };
        // Versions of one object have the same key.
        if let Some(other) = decoded.insert(path, key.clone()).filter(|other| *other != key) {
            return Err(alike(&other, &key));
        }
    }
    if decoded.is_empty() {
        return Ok(());
    }
    for key in keys() {
        if let Some(other) = decoded.get(&key) {
            return Err(alike(other, &key));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_not_below_a_prefix() {
        assert!(is_below("t/a", "t") && is_below("t/a", "/t/") && is_below("a", ""));
        assert!(!is_below("t_backup/a", "t") && !is_below("t", "t") && !is_below("t/", "t"));
    }

    #[test]
    fn keys_that_are_equal_after_decoding_are_refused() {
        let check = |keys: &[&str]| check_lookalikes(|| keys.iter().map(|k| (*k).to_owned()));
        for alike in [["t/a%2Fb", "t/a/b"], ["t/a+b", "t/a%20b"], ["t/a//b", "t/a/b"], ["t/x/../a", "t/a"]] {
            let e = check(&alike).unwrap_err();
            assert_eq!(e.code(), "LooksAlike", "{alike:?}");
            assert!(alike.iter().all(|key| e.message().contains(key)), "{e}");
        }
        check(&["t/a%2Fb", "t/a%2fc", "t/a+b", "t/a", "t/a%2Fb", "t/100%"]).expect("all keys differ");
    }
}
