//! Decimals as change files encode them: numbers, texts, and unscaled big-endian bytes.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::json::object;
use crate::values::text::InvalidValue;
use crate::values::text_value::TextValue;

/// Maximum number of digits of a number that is stored as text, including zeros for its scale, and maximum absolute
/// power of ten of any number. A declared `numeric` of PostgreSQL has at most 1,000 digits.
const MAX_DIGITS: usize = 20_000;

/// Maximum number of bytes of such a number: a byte is about 2.4 decimal digits.
const MAX_DECIMAL_BYTES: usize = MAX_DIGITS * 5 / 12;

/// Decodes a decimal: text is base64 of unscaled big-endian bytes in two's complement, anything else is a number.
pub(super) fn decode_decimal(raw: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let Some(text) = object::parse_string(raw) else { return decimal_text(raw, scale) };
    let bytes = STANDARD.decode(&text).map_err(|_| "the value is not base64")?;
    match bytes.len() {
        0 => Ok(TextValue::Decimal(0)),
        1..=16 => Ok(TextValue::Decimal(from_big_endian(&bytes))),
        _ => Err(InvalidValue::overflow("the value has more digits than a decimal can hold")),
    }
}

/// Returns the text of a decimal: base64 is decoded with this scale, and a number keeps its text.
pub(super) fn decimal_in_full(raw: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let Some(text) = object::parse_string(raw) else {
        return split_number(raw).map(|_| TextValue::Text(raw.to_owned()));
    };
    let bytes = STANDARD.decode(&text).map_err(|_| "the value is not base64")?;
    match bytes.len() {
        0..=MAX_DECIMAL_BYTES => Ok(TextValue::Text(place_point(&big_integer_text(&bytes), scale.into()))),
        _ => Err(too_many_digits()),
    }
}

/// Converts at most 16 bytes in two's complement, with sign extension.
fn from_big_endian(bytes: &[u8]) -> i128 {
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    i128::from_be_bytes(all)
}

/// Parses a decimal, exactly or not at all.
///
/// The value is `digits * 10^exponent`. The unscaled number is `digits * 10^(exponent + scale)`: for a negative
/// shift, digits are cut off, which must be zeros; for a positive one, zeros are appended. `1.230` with scale 2 has
/// the digits `1230`, exponent -3 and shift -1, and becomes 123.
pub(super) fn decimal_text(text: &str, scale: i8) -> Result<TextValue, InvalidValue> {
    let (negative, digits, exponent) = split_number(text)?;
    let shift = exponent + i64::from(scale);
    let kept = match usize::try_from(-shift) {
        Ok(cut) => {
            let (keep, rest) = digits.split_at(digits.len().saturating_sub(cut));
            if rest.bytes().any(|b| b != b'0') {
                return Err(format!("the value has more than {scale} digits after the decimal point").into());
            }
            keep.to_owned()
        }
        // More zeros cannot fit in 38 digits, and a huge shift must not allocate memory.
        Err(_) if shift > 76 => return Err(InvalidValue::overflow("the value is out of range")),
        Err(_) => format!("{digits}{}", "0".repeat(shift as usize)),
    };
    let kept = kept.trim_start_matches('0');
    let value: i128 = if kept.is_empty() {
        0
    } else {
        kept.parse().map_err(|_| InvalidValue::overflow("the value has more than 38 digits"))?
    };
    Ok(TextValue::Decimal(if negative { -value } else { value }))
}

/// Splits a number into sign, digits and power of ten: `-1.50e3` is (true, `150`, 1).
fn split_number(text: &str) -> Result<(bool, String, i64), InvalidValue> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, power) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let all_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(&digits) || !all_digits(power.strip_prefix(['+', '-']).unwrap_or(power)) {
        return Err("the value is not a number".into());
    }
    let power = power.parse::<i64>().ok().filter(|e| e.unsigned_abs() <= MAX_DIGITS as u64);
    let power =
        power.ok_or_else(|| InvalidValue::overflow(format!("the power of ten of the value is beyond {MAX_DIGITS}")))?;
    if digits.len() > MAX_DIGITS {
        return Err(too_many_digits());
    }
    Ok((negative, digits, power - fraction.len() as i64))
}

fn too_many_digits() -> InvalidValue {
    InvalidValue::overflow(format!("the value has more than {MAX_DIGITS} digits"))
}

pub(super) fn variable_decimal(raw: &str) -> Result<TextValue, InvalidValue> {
    // `numeric` of PostgreSQL has these three special values.
    let special = ["NaN", "Infinity", "-Infinity"].into_iter().find(|s| raw.trim_matches('"').eq_ignore_ascii_case(s));
    if let Some(special) = special {
        return Ok(TextValue::Text(special.to_owned()));
    }
    let Ok(object) = object::parse_object(raw) else {
        let text = object::parse_string(raw).unwrap_or_else(|| raw.to_owned());
        return split_number(&text).map(|_| TextValue::Text(text));
    };
    let scale = object.get("scale").ok_or("the value has no scale")?.get();
    if !scale.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) {
        return Err("the scale of the value is not a whole number".into());
    }
    let scale = scale.parse::<i64>().ok();
    let value = object.get("value").and_then(|v| object::parse_string(v.get())).ok_or("the decimal has no `value`")?;
    let bytes = STANDARD.decode(value).map_err(|_| "the value is not base64")?;
    // The scale adds up to as many zeros before or after the number, which count as digits.
    let scale = scale.filter(|s| s.unsigned_abs() <= MAX_DIGITS as u64);
    let scale =
        scale.ok_or_else(|| InvalidValue::overflow(format!("the scale of the value is beyond {MAX_DIGITS}")))?;
    if bytes.len() > MAX_DECIMAL_BYTES {
        return Err(too_many_digits());
    }
    Ok(TextValue::Text(place_point(&big_integer_text(&bytes), scale)))
}

/// Formats a big-endian number in two's complement as decimal digits: schoolbook division by 10^19, the greatest
/// power of ten in a word, until nothing remains. Each remainder is 19 digits of the result, the lowest first. Takes
/// quadratic time, which [`MAX_DECIMAL_BYTES`] bounds.
fn big_integer_text(bytes: &[u8]) -> String {
    const POWER: u64 = 10_000_000_000_000_000_000;
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let mut words: Vec<u64> = Vec::with_capacity(bytes.len() / 8 + 1);
    for chunk in bytes.rchunks(8) {
        let mut word = [fill; 8];
        word[8 - chunk.len()..].copy_from_slice(chunk);
        words.push(u64::from_be_bytes(word));
    }
    // Negate: invert all bits and add one.
    if negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
        // A carry out of the highest word happens only if all words are zero, which a negative number never is.
        words.extend(carry.then_some(1));
    }
    let mut parts = Vec::new();
    while let Some(top) = words.last() {
        if *top == 0 {
            words.pop();
            continue;
        }
        let mut rest = 0_u64;
        for word in words.iter_mut().rev() {
            let value = u128::from(rest) << 64 | u128::from(*word);
            *word = u64::try_from(value / u128::from(POWER))
                .expect("the remainder is less than the divisor, so the quotient fits in a word");
            rest = (value % u128::from(POWER)) as u64;
        }
        parts.push(rest);
    }
    let Some(first) = parts.pop() else { return "0".to_owned() };
    let mut text = format!("{}{first}", if negative { "-" } else { "" });
    parts.iter().rev().for_each(|part| write!(text, "{part:019}").expect("writing to a String does not fail"));
    text
}

/// Places the decimal point: `-125` is `-1.25` with scale 2, `-0.0125` with scale 4, and `-12500` with scale -2.
fn place_point(integer: &str, scale: i64) -> String {
    let (sign, digits) = integer.strip_prefix('-').map_or(("", integer), |d| ("-", d));
    let zeros = |n: usize| "0".repeat(n);
    match usize::try_from(scale) {
        Ok(0) => integer.to_owned(),
        Ok(scale) => {
            let padded = format!("{}{digits}", zeros((scale + 1).saturating_sub(digits.len())));
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) if digits == "0" => "0".to_owned(),
        Err(_) => format!("{sign}{digits}{}", zeros(usize::try_from(scale.unsigned_abs()).unwrap_or(0))),
    }
}

/// Refuses a decimal with more digits than its column. Parquet would store only the lower bytes of such a number.
pub(super) fn check_precision(cell: TextValue, precision: u8) -> Result<TextValue, InvalidValue> {
    match &cell {
        TextValue::Decimal(d)
            if 10i128
                .checked_pow(precision.into())
                .is_some_and(|maximum| d.unsigned_abs() >= maximum.unsigned_abs()) =>
        {
            Err(InvalidValue::overflow(format!("the value has more than {precision} digits")))
        }
        _ => Ok(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_is_parsed_exactly_or_refused() {
        assert_eq!(decimal_text("1.230", 2), Ok(TextValue::Decimal(123)));
        assert_eq!(decimal_text("1e3", 2), Ok(TextValue::Decimal(100_000)));
        assert_eq!(decimal_text("-0.05", 2), Ok(TextValue::Decimal(-5)));
        for bad in ["1.234", "", "1.2.3", "abc", "1e99", "0x10"] {
            assert!(decimal_text(bad, 2).is_err(), "{bad}");
        }
    }
}
