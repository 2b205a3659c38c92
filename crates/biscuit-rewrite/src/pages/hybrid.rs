//! The hybrid of run-length encoding and bit packing in which Parquet stores levels and dictionary indices
//! (parquet-format, Encodings.md, "RLE = 3").

/// Decodes `count` values of `width` bits. Returns `None` if the bytes are too few or not valid.
pub(crate) fn decode(mut bytes: &[u8], width: u32, count: usize, out: &mut Vec<u32>) -> Option<()> {
    if width > 32 {
        return None;
    }
    let (mut left, value_bytes) = (count, width.div_ceil(8) as usize);
    while left > 0 {
        let header = read_varint(&mut bytes)?;
        let length = usize::try_from(header >> 1).ok()?;
        // The lowest bit of the header selects the kind of the run: 0 is a repeated value, 1 are groups of eight
        // packed values.
        if header & 1 == 0 {
            let mut value = [0; 4];
            value[..value_bytes].copy_from_slice(bytes.get(..value_bytes)?);
            bytes = &bytes[value_bytes..];
            let run = length.min(left);
            out.resize(out.len() + run, u32::from_le_bytes(value));
            left -= run;
            if length == 0 {
                return None;
            }
        } else {
            let packed = length.checked_mul(width as usize)?;
            let run = length.checked_mul(8)?.min(left);
            // Writers may cut off the zeros after the last value.
            let own = bytes.get(..packed.min(bytes.len()))?;
            if own.len() * 8 < run * width as usize || run == 0 {
                return None;
            }
            unpack_bits(own, width, run, out);
            bytes = &bytes[own.len()..];
            left -= run;
        }
    }
    Some(())
}

fn unpack_bits(bytes: &[u8], width: u32, count: usize, out: &mut Vec<u32>) {
    let (mut buffer, mut bits, mut at) = (0_u64, 0_u32, 0);
    let mask = (1_u64 << width) - 1;
    out.reserve(count);
    for _ in 0..count {
        while bits < width {
            buffer |= u64::from(bytes[at]) << bits;
            bits += 8;
            at += 1;
        }
        out.push((buffer & mask) as u32);
        buffer >>= width;
        bits -= width;
    }
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Encodes values of `width` bits: eight or more equal values as a run, all others packed. `literal` is the first
/// value that is not written yet.
pub(crate) fn encode(values: &[u32], width: u32, out: &mut Vec<u8>) {
    let (mut at, mut literal) = (0, 0);
    while at < values.len() {
        let eight = &values[at..values.len().min(at + 8)];
        if eight.len() == 8 && eight.iter().all(|v| *v == eight[0]) {
            pack_bits(&values[literal..at], width, out);
            let run = 8 + values[at + 8..].iter().take_while(|v| **v == eight[0]).count();
            push_varint((run as u64) << 1, out);
            out.extend_from_slice(&eight[0].to_le_bytes()[..width.div_ceil(8) as usize]);
            at += run;
            literal = at;
        } else {
            at += eight.len();
        }
    }
    pack_bits(&values[literal..], width, out);
}

/// Packs values in groups of eight. The last group is filled with zeros.
fn pack_bits(values: &[u32], width: u32, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    push_varint((groups as u64) << 1 | 1, out);
    let end = out.len() + groups * width as usize;
    let (mut buffer, mut bits) = (0_u64, 0_u32);
    for &value in values {
        buffer |= u64::from(value) << bits;
        bits += width;
        while bits >= 8 {
            out.push(buffer as u8);
            buffer >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(buffer as u8);
    }
    out.resize(end, 0);
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Returns the number of bits that a number needs, at least 1.
pub(crate) fn bit_width(maximum: u32) -> u32 {
    (32 - maximum.leading_zeros()).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples_of_the_format_are_decoded() {
        // The example of Encodings.md: 0 to 7, packed in three bits.
        let mut out = Vec::new();
        decode(&[0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010], 3, 8, &mut out).unwrap();
        assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
        let mut packed = Vec::new();
        encode(&out, 3, &mut packed);
        assert_eq!(packed, [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
        let mut run = Vec::new();
        encode(&[5; 100], 3, &mut run);
        assert_eq!(run, [200, 1, 5]);
    }

    #[test]
    fn truncated_input_is_not_decoded() {
        assert_eq!(decode(&[0b11, 1], 3, 8, &mut vec![]), None);
        assert_eq!(decode(&[], 3, 1, &mut vec![]), None);
        assert_eq!(decode(&[0, 5], 3, 1, &mut vec![]), None);
    }

    proptest! {
        #[test]
        fn encoded_values_decode_to_the_same_values(runs in prop::collection::vec((any::<u32>(), 1..40_usize), 0..30), bits in 1..=32_u32) {
            let mask = u32::MAX >> (32 - bits);
            let values: Vec<u32> = runs.iter().flat_map(|(v, n)| std::iter::repeat_n(v & mask, if v % 3 == 0 { *n } else { 1 })).collect();
            let (mut bytes, mut out) = (Vec::new(), Vec::new());
            encode(&values, bits, &mut bytes);
            decode(&bytes, bits, values.len(), &mut out).unwrap();
            prop_assert_eq!(out, values);
        }
    }
}
