use crate::transcode::kind::ValueKind;

/// Maximum length of a bound of text or binary values, in bytes.
const BOUND_BYTES: usize = 64;

/// Minimum and maximum of some values, or `None` before the first value.
#[derive(Debug, Clone, Default)]
pub(super) struct ValueBounds(pub(super) Option<(Vec<u8>, Vec<u8>)>);

impl ValueBounds {
    pub(super) fn widen(&mut self, value: &[u8], kind: ValueKind) {
        let Some((min, max)) = &mut self.0 else {
            self.0 = Some((value.to_vec(), value.to_vec()));
            return;
        };
        let bound = if kind.is_less(value, min) {
            min
        } else if kind.is_less(max, value) {
            max
        } else {
            return;
        };
        bound.clear();
        bound.extend_from_slice(value);
    }
}

/// Returns a lower bound of `value` of at most `BOUND_BYTES` bytes: the value, or a prefix of it. A bound of text is
/// valid text.
pub(super) fn lower_bound(value: &[u8], text: bool) -> Vec<u8> {
    value[..prefix_length(value, text)].to_vec()
}

/// Returns an upper bound of `value` of at most `BOUND_BYTES` bytes: the value, or a prefix whose last byte or
/// character is incremented. With a limit of two bytes, the bound of `abc` would be `ac`. Returns the whole value if
/// nothing can be incremented. A bound of text is valid text.
pub(super) fn upper_bound(value: &[u8], text: bool) -> Vec<u8> {
    if value.len() <= BOUND_BYTES {
        return value.to_vec();
    }
    let start = &value[..prefix_length(value, text)];
    if !text {
        // Bytes that are 0xff cannot be incremented; the bound ends at the last byte that can.
        let last = start.iter().rposition(|b| *b < 0xff);
        return last.map_or_else(|| value.to_vec(), |i| [&start[..i], &[start[i] + 1]].concat());
    }
    let Ok(start) = std::str::from_utf8(start) else { return value.to_vec() };
    // Increment the last character whose successor has the same length in UTF-8, so that the bound does not get
    // longer.
    let next = |c: char| char::from_u32(u32::from(c) + 1).filter(|n| n.len_utf8() == c.len_utf8());
    let found = start.char_indices().rev().find_map(|(i, c)| Some((i, next(c)?)));
    found.map_or_else(|| value.to_vec(), |(i, c)| format!("{}{c}", &start[..i]).into_bytes())
}

/// Returns the length of the prefix that is a bound. A character of text is not cut.
fn prefix_length(value: &[u8], text: bool) -> usize {
    let mut end = value.len().min(BOUND_BYTES);
    // 0b10xxxxxx is a continuation byte of UTF-8.
    while text && end > 0 && end < value.len() && value[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_short_and_enclose_the_value() {
        let long = "é".repeat(50);
        for value in ["", "a", &"b".repeat(64), &"b".repeat(65), &long, &"\u{10ffff}".repeat(20)] {
            let (low, high) = (lower_bound(value.as_bytes(), true), upper_bound(value.as_bytes(), true));
            assert!(low.as_slice() <= value.as_bytes() && high.as_slice() >= value.as_bytes(), "{value}");
            assert!(std::str::from_utf8(&low).is_ok() && std::str::from_utf8(&high).is_ok(), "{value}");
            assert!(low.len() <= BOUND_BYTES && (high.len() <= BOUND_BYTES || high == value.as_bytes()));
        }
        assert_eq!(upper_bound(&[0xff; 70], false), [0xff; 70]);
        assert_eq!(
            upper_bound(&[[1; 63].as_slice(), &[0xff; 10]].concat(), false),
            [[1; 62].as_slice(), &[2]].concat()
        );
    }
}
