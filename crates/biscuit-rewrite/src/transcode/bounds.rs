use crate::transcode::kind::ValueKind;

/// Bytes that a bound of text or binary values has at most.
const BOUND_BYTES: usize = 64;

/// The least and the greatest of some values.
#[derive(Debug, Clone, Default)]
pub(super) struct ValueBounds(pub(super) Option<(Vec<u8>, Vec<u8>)>);

impl ValueBounds {
    pub(super) fn widen(&mut self, value: &[u8], kind: ValueKind) {
        let Some((min, max)) = &mut self.0 else {
            self.0 = Some((value.to_vec(), value.to_vec()));
            return;
        };
        let bound = if kind.less(value, min) {
            min
        } else if kind.less(max, value) {
            max
        } else {
            return;
        };
        bound.clear();
        bound.extend_from_slice(value);
    }
}

/// A bound below these bytes, or they themselves, that is not too long; text stays text.
pub(super) fn lower(value: &[u8], text: bool) -> Vec<u8> {
    value[..cut(value, text)].to_vec()
}

/// A bound above these bytes, or they themselves, that is not too long; text stays text.
pub(super) fn upper(value: &[u8], text: bool) -> Vec<u8> {
    if value.len() <= BOUND_BYTES {
        return value.to_vec();
    }
    let start = &value[..cut(value, text)];
    if !text {
        let last = start.iter().rposition(|b| *b < 0xff);
        return last.map_or_else(|| value.to_vec(), |i| [&start[..i], &[start[i] + 1]].concat());
    }
    let Ok(start) = std::str::from_utf8(start) else { return value.to_vec() };
    // The character behind the last one that has one of its length, so that bytes compare as characters do.
    let next = |c: char| char::from_u32(u32::from(c) + 1).filter(|n| n.len_utf8() == c.len_utf8());
    let found = start.char_indices().rev().find_map(|(i, c)| Some((i, next(c)?)));
    found.map_or_else(|| value.to_vec(), |(i, c)| format!("{}{c}", &start[..i]).into_bytes())
}

/// How many bytes a bound has: between two characters in text.
fn cut(value: &[u8], text: bool) -> usize {
    let mut end = value.len().min(BOUND_BYTES);
    while text && end > 0 && end < value.len() && value[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_short_and_bounds() {
        let long = "é".repeat(50);
        for value in ["", "a", &"b".repeat(64), &"b".repeat(65), &long, &"\u{10ffff}".repeat(20)] {
            let (low, high) = (lower(value.as_bytes(), true), upper(value.as_bytes(), true));
            assert!(low.as_slice() <= value.as_bytes() && high.as_slice() >= value.as_bytes(), "{value}");
            assert!(std::str::from_utf8(&low).is_ok() && std::str::from_utf8(&high).is_ok(), "{value}");
            assert!(low.len() <= BOUND_BYTES && (high.len() <= BOUND_BYTES || high == value.as_bytes()));
        }
        assert_eq!(upper(&[0xff; 70], false), [0xff; 70]);
        assert_eq!(upper(&[[1; 63].as_slice(), &[0xff; 10]].concat(), false), [[1; 62].as_slice(), &[2]].concat());
    }
}
