//! Damage to bytes: flipped bits, cut and repeated ranges, and numbers at the bounds of lengths and counts.

use crate::random::Random;

/// Maximum size of a damaged input in bytes: enough for output that grows faster than its input, and little enough
/// for thousands of inputs.
pub(crate) const LARGEST: usize = 4 << 20;

/// Numbers at the bounds of lengths and counts.
const EXTREMES: [i64; 14] = [
    0,
    1,
    -1,
    i8::MIN as i64,
    i16::MAX as i64,
    u16::MAX as i64,
    1 << 24,
    1 << 30,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    1 << 40,
    i64::MAX,
    i64::MIN,
];

/// Numbers in text that are larger, longer or more unusual than a reader expects.
const TEXTS: [&str; 14] = [
    "0",
    "-1",
    "65535",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "170141183460469231731687303715884105728",
    "1e308",
    "1e999",
    "-0.0",
    "1e-999999999",
    "NaN",
];

/// Texts that open and close a level of nesting.
const LEVELS: [(&str, &str); 6] = [
    ("[", "]"),
    ("{\"a\":", "}"),
    ("(", ")"),
    ("array<", ">"),
    ("struct<a:", ">"),
    ("{\"type\":\"array\",\"items\":", "}"),
];

/// Damages bytes once or a few times. `other` is a valid input of the same kind, from which parts are taken.
pub(crate) fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..*random.pick(&[1, 1, 1, 2, 3]) {
        match random.below(16) {
            0..=2 => flip(bytes, random),
            3 | 4 => set(bytes, random),
            5 => bytes.truncate(random.below(bytes.len())),
            6 => bytes.truncate(bytes.len().saturating_sub(1 + random.below(16))),
            7 => duplicate(bytes, random),
            8 => drop(bytes.drain(random.range(bytes.len()))),
            9 => swap(bytes, random),
            10 => splice(bytes, other, random),
            11 => fixed_width(bytes, random),
            12 | 13 => varint(bytes, random),
            14 => number_in_text(bytes, random),
            _ => nest(bytes, random),
        }
        bytes.truncate(LARGEST);
    }
}

/// Returns a position: in headers and footers more often than between them.
fn place(bytes: &[u8], random: &mut Random) -> usize {
    let len = bytes.len();
    match random.below(4) {
        0 => random.below(len.min(96)),
        1 => len.saturating_sub(1 + random.below(len.min(512))),
        _ => random.below(len),
    }
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = place(bytes, random);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn set(bytes: &mut [u8], random: &mut Random) {
    let at = place(bytes, random);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]);
    }
}

fn duplicate(bytes: &mut Vec<u8>, random: &mut Random) {
    let range = random.range(bytes.len());
    let part = bytes[range.clone()].repeat(*random.pick(&[1, 1, 2, 50]));
    bytes.splice(range.end..range.end, part);
}

fn swap(bytes: &mut [u8], random: &mut Random) {
    let (one, other) = (random.range(bytes.len()), random.below(bytes.len()));
    for (offset, at) in one.enumerate() {
        if other + offset < bytes.len() {
            bytes.swap(at, other + offset);
        }
    }
}

fn splice(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    match random.below(3) {
        0 => {
            bytes.truncate(random.below(bytes.len()));
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
        1 => drop(bytes.splice(random.range(bytes.len()), other[random.range(other.len())].iter().copied())),
        _ => bytes.extend_from_slice(other),
    }
}

fn fixed_width(bytes: &mut [u8], random: &mut Random) {
    let (at, value) = (place(bytes, random), *random.pick(&EXTREMES));
    let mut number = value.to_le_bytes();
    let width = *random.pick(&[2, 4, 8]);
    if random.once_in(4) {
        number[..width].reverse();
    }
    bytes.iter_mut().skip(at).zip(&number[..width]).for_each(|(byte, new)| *byte = *new);
}

/// Returns an integer in the encoding of Avro and the compact protocol of Thrift.
fn varint(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = place(bytes, random);
    let number = zigzag(*random.pick(&EXTREMES));
    // Replaces the number that may be at this position.
    let end = (at..bytes.len()).find(|&i| bytes[i] < 0x80).map_or(bytes.len(), |i| i + 1);
    bytes.splice(at.min(end)..end, number);
}

/// Returns a signed integer as a zigzag-encoded variable-length integer.
pub(crate) fn zigzag(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn number_in_text(bytes: &mut Vec<u8>, random: &mut Random) {
    let from = random.below(bytes.len());
    let Some(start) = (from..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else { return };
    let end = (start..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
    bytes.splice(start..end, strange_number(random).into_bytes());
}

/// Returns a number as text, sometimes with many digits.
pub(crate) fn strange_number(random: &mut Random) -> String {
    if random.once_in(8) { "9".repeat(*random.pick(&[40, 400, 20_000])) } else { (*random.pick(&TEXTS)).to_owned() }
}

/// Returns nested brackets, or nested types of schemas.
pub(crate) fn nested(random: &mut Random) -> String {
    let (open, close) = *random.pick(&LEVELS);
    let depth = *random.pick(&[50, 130, 1000, 30_000]);
    let closing = if random.once_in(2) { close.repeat(depth) } else { String::new() };
    format!("{}1{closing}", open.repeat(depth))
}

fn nest(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = place(bytes, random);
    bytes.splice(at..at, nested(random).into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_can_be_damaged_and_the_same_numbers_damage_alike() {
        for n in 0..2000 {
            let mut input = b"{\"id\":12,\"v\":[1,2]}".repeat(n % 4);
            let (before, mut again) = (input.clone(), input.clone());
            damage(&mut input, &before, &mut Random::of_input(3, "bytes", n as u64));
            damage(&mut again, &before, &mut Random::of_input(3, "bytes", n as u64));
            assert_eq!(input, again);
        }
    }

    #[test]
    fn integers_of_avro_are_written_as_its_specification_has_them() {
        assert_eq!(
            [zigzag(0), zigzag(-1), zigzag(1), zigzag(-64), zigzag(64)],
            [vec![0], vec![1], vec![2], vec![0x7f], vec![0x80, 1]]
        );
        assert_eq!(zigzag(i64::MIN).len(), 10);
    }
}
