//! Parsers of single values: text to numbers, booleans, dates and times.
//!
//! Integers and decimals are read as [`DecimalDigits`] and never through a binary float, so that no digit changes
//! unnoticed.

use chrono::format::{Parsed, StrftimeItems, parse};

use crate::values::fault::ValueFault;
use crate::values::iso::{iso_date, iso_date_time, iso_time};
use crate::values::reading_rules::{DecimalRounding, EpochUnit, ReadingRules};

type ScalarResult<T> = Result<T, ValueFault>;

pub(crate) const DAY_NANOS: i128 = 86_400_000_000_000;

/// Decimal number with the value `value * 10^-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecimalDigits {
    pub(crate) value: i128,
    pub(crate) scale: i32,
}

impl DecimalDigits {
    /// Parses a number such as `-12.50`, `1e3` or `.5`. Spaces around the number are ignored.
    pub(crate) fn parse(text: &str) -> ScalarResult<Self> {
        let text = text.trim();
        let (negative, rest) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], parse_exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (mut value, mut scale, mut point, mut any, mut zeros) = (0i128, 0i32, false, false, 0);
        for b in mantissa.bytes() {
            match b {
                b'0'..=b'9' => {
                    any = true;
                    scale += i32::from(point);
                    // Trailing zeros are counted and multiplied in only if a digit follows, so that `1` with a
                    // hundred decimal zeros does not overflow.
                    if b == b'0' {
                        zeros += 1;
                        continue;
                    }
                    for _ in 0..zeros {
                        value = value.checked_mul(10).ok_or(ValueFault::Overflow)?;
                    }
                    zeros = 0;
                    value = value
                        .checked_mul(10)
                        .and_then(|v| v.checked_add(i128::from(b - b'0')))
                        .ok_or(ValueFault::Overflow)?;
                }
                b'.' if !point => point = true,
                _ => return Err(ValueFault::Unparseable),
            }
        }
        if !any {
            return Err(ValueFault::Unparseable);
        }
        let scale = if value == 0 { 0 } else { scale - zeros - exponent };
        Ok(Self { value: if negative { -value } else { value }, scale })
    }

    /// Returns the number as an integer with `scale` digits after the point, and whether it was rounded.
    pub(crate) fn at_scale(self, scale: i32, rounding: DecimalRounding) -> ScalarResult<(i128, bool)> {
        let shift = (scale - self.scale).unsigned_abs();
        if self.value == 0 {
            return Ok((0, false));
        }
        if scale >= self.scale {
            let power = 10i128.checked_pow(shift).ok_or(ValueFault::Overflow)?;
            return self.value.checked_mul(power).map(|v| (v, false)).ok_or(ValueFault::Overflow);
        }
        // More digits to remove than 128 bits have: the number is nearer to zero than to any other value.
        let Some(power) = 10i128.checked_pow(shift) else {
            return if rounding == DecimalRounding::HalfUp { Ok((0, true)) } else { Err(ValueFault::PrecisionLoss) };
        };
        let (whole, rest) = (self.value / power, self.value % power);
        match (rest, rounding) {
            (0, _) => Ok((whole, false)),
            (_, DecimalRounding::Fail) => Err(ValueFault::PrecisionLoss),
            (_, DecimalRounding::HalfUp) => {
                // `rest` has the sign of the value, so that the magnitude is compared and half is rounded away from
                // zero.
                let up = rest.unsigned_abs() >= power.unsigned_abs() / 2;
                Ok((whole + if up { self.value.signum() } else { 0 }, true))
            }
        }
    }
}

/// Parses an exponent. Exponents beyond 1000 are `Overflow`, so that the arithmetic on scales cannot overflow.
fn parse_exponent(text: &str) -> ScalarResult<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueFault::Unparseable);
    }
    text.parse::<i32>().ok().filter(|e| e.unsigned_abs() <= 1000).ok_or(ValueFault::Overflow)
}

/// Parses a whole number, and returns whether it was rounded.
pub(crate) fn parse_whole(text: &str, rounding: DecimalRounding) -> ScalarResult<(i128, bool)> {
    if let Ok(v) = text.parse::<i64>() {
        return Ok((v.into(), false));
    }
    DecimalDigits::parse(text)?.at_scale(0, rounding)
}

/// Parses a double, including `NaN` and `Infinity`, and returns whether its shortest digits differ from those of the
/// text. A whole number must be exact.
pub(crate) fn parse_float(text: &str) -> ScalarResult<(f64, bool)> {
    let text = text.trim();
    let v: f64 = text.parse().map_err(|_| ValueFault::Unparseable)?;
    let mantissa = || text.bytes().take_while(|b| !matches!(b, b'e' | b'E')).filter(u8::is_ascii_digit);
    if v.is_infinite() && mantissa().next().is_some() {
        return Err(ValueFault::Overflow);
    }
    // Each decimal number of up to 15 digits survives the conversion to a double and back (`DBL_DIG`), if it is not
    // subnormal.
    let digits = mantissa().skip_while(|b| *b == b'0').count();
    match v {
        0.0 if digits > 0 => return Err(ValueFault::PrecisionLoss),
        v if !v.is_finite() || (digits <= 15 && v.is_normal()) || v == 0.0 => return Ok((v, false)),
        _ => {}
    }
    // The remaining numbers have more digits than a double guarantees. They are compared exactly, as decimals.
    match DecimalDigits::parse(text) {
        Ok(number) if number.scale <= 0 => match number.at_scale(0, DecimalRounding::Fail) {
            Ok((whole, _)) if v as i128 == whole => Ok((v, false)),
            Ok(_) => Err(ValueFault::PrecisionLoss),
            // A whole number of more than 38 digits: only its digits can be compared.
            Err(_) => Ok((v, DecimalDigits::parse(&format!("{v:e}")) != Ok(number))),
        },
        Ok(number) => Ok((v, DecimalDigits::parse(&format!("{v:e}")) != Ok(number))),
        Err(_) => Ok((v, true)),
    }
}

/// Parses a time of day as nanoseconds since midnight.
pub(crate) fn time_of_day(text: &str) -> ScalarResult<i128> {
    iso_time(text.trim()).map(i128::from).ok_or(ValueFault::BadTime)
}

pub(crate) fn parse_boolean(text: &str) -> ScalarResult<bool> {
    let text = text.trim();
    let is = |words: &[&str]| words.iter().any(|w| text.eq_ignore_ascii_case(w));
    if is(&["true", "t", "yes", "y", "1"]) {
        Ok(true)
    } else if is(&["false", "f", "no", "n", "0"]) {
        Ok(false)
    } else {
        Err(ValueFault::NotABoolean)
    }
}

/// Parses a date as days since 1970.
pub(crate) fn parse_date(text: &str, reading: &ReadingRules) -> ScalarResult<i32> {
    let text = text.trim();
    if let Some(days) = iso_date(text) {
        return Ok(days);
    }
    // A format of the contract may contain a time of day, which is dropped: the contract asks for it.
    if let Some(nanos) = by_formats(text, &reading.formats) {
        return i32::try_from(nanos.div_euclid(DAY_NANOS)).map_err(|_| ValueFault::Overflow);
    }
    if let Some((nanos, _)) = iso_date_time(text) {
        let days = i32::try_from(nanos.div_euclid(DAY_NANOS)).map_err(|_| ValueFault::Overflow)?;
        return if nanos.rem_euclid(DAY_NANOS) == 0 { Ok(days) } else { Err(ValueFault::PrecisionLoss) };
    }
    match (text.parse::<i64>(), reading.epoch) {
        (Ok(n), EpochUnit::Days) => i32::try_from(n).map_err(|_| ValueFault::Overflow),
        _ => Err(ValueFault::BadDate),
    }
}

/// Parses a timestamp as nanoseconds since 1970. A time with an offset is converted to UTC; a time without an offset
/// is not changed.
pub(crate) fn parse_timestamp(text: &str, reading: &ReadingRules) -> ScalarResult<i128> {
    let text = text.trim();
    if let Some((nanos, offset)) = iso_date_time(text) {
        return Ok(nanos - i128::from(offset.unwrap_or(0)) * 1_000_000_000);
    }
    if let Some(nanos) = by_formats(text, &reading.formats) {
        return Ok(nanos);
    }
    let Ok(digits) = DecimalDigits::parse(text) else { return Err(ValueFault::BadTime) };
    nanos_since_epoch(digits, reading.epoch)
}

/// Converts a number of units since 1970 to nanoseconds since 1970.
pub(crate) fn nanos_since_epoch(number: DecimalDigits, unit: EpochUnit) -> ScalarResult<i128> {
    let digits = match unit {
        EpochUnit::Days => {
            return number.at_scale(0, DecimalRounding::Fail)?.0.checked_mul(DAY_NANOS).ok_or(ValueFault::Overflow);
        }
        EpochUnit::Seconds => 9,
        EpochUnit::Millis => 6,
        EpochUnit::Micros => 3,
        EpochUnit::Nanos => 0,
        EpochUnit::Auto => {
            // The limits give each unit the range from 1e8 seconds (March 1973) to 1e11 seconds (November 5138): 1e11
            // is the end of the seconds, and as milliseconds it is March 1973 again.
            let size = number.value.unsigned_abs() as f64 / 10f64.powi(number.scale);
            match size {
                s if s < 1e8 => return Err(ValueFault::BadEpoch),
                s if s < 1e11 => 9,
                s if s < 1e14 => 6,
                s if s < 1e17 => 3,
                _ => 0,
            }
        }
    };
    number.at_scale(digits, DecimalRounding::Fail).map(|(nanos, _)| nanos)
}

/// Parses a text by the first format that matches the whole text, as nanoseconds since 1970.
fn by_formats(text: &str, formats: &[String]) -> Option<i128> {
    formats.iter().find_map(|format| {
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, StrftimeItems::new(format)).ok()?;
        // A format with an offset is an instant. One without an offset is taken as it is, and one without a time is
        // midnight.
        if let Ok(t) = parsed.to_datetime() {
            return Some(nanos_of_date_time(t.naive_utc()));
        }
        if let Ok(t) = parsed.to_naive_datetime_with_offset(0) {
            return Some(nanos_of_date_time(t));
        }
        parsed.to_naive_date().ok().map(|d| i128::from(d.to_epoch_days()) * DAY_NANOS)
    })
}

fn nanos_of_date_time(t: chrono::NaiveDateTime) -> i128 {
    i128::from(t.and_utc().timestamp()) * 1_000_000_000 + i128::from(t.and_utc().timestamp_subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str, scale: i32) -> ScalarResult<i128> {
        DecimalDigits::parse(text)?.at_scale(scale, DecimalRounding::Fail).map(|(v, _)| v)
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, scale, want) in [
            ("123.45", 2, Ok(12_345)),
            (" -0.5 ", 2, Ok(-50)),
            ("1.500", 2, Ok(150)),
            ("1e3", 0, Ok(1000)),
            ("1.25e1", 1, Ok(125)),
            (".5", 1, Ok(5)),
            ("000", 2, Ok(0)),
            ("0.000000000000000000000000000000000000000000000000", 2, Ok(0)),
            ("123.456", 2, Err(ValueFault::PrecisionLoss)),
            ("1e-400", 2, Err(ValueFault::PrecisionLoss)),
            ("1e400", 2, Err(ValueFault::Overflow)),
            ("1e-2147483648", 2, Err(ValueFault::Overflow)),
            ("1e999999999999", 2, Err(ValueFault::Overflow)),
            ("1e", 2, Err(ValueFault::Unparseable)),
            ("1e+-3", 2, Err(ValueFault::Unparseable)),
            ("9999999999999999999999999999999999999999", 0, Err(ValueFault::Overflow)),
            ("1.2.3", 2, Err(ValueFault::Unparseable)),
            ("", 2, Err(ValueFault::Unparseable)),
            ("-", 2, Err(ValueFault::Unparseable)),
            ("0x1", 2, Err(ValueFault::Unparseable)),
        ] {
            assert_eq!(decimal(text, scale), want, "{text}");
        }
        let round = |text: &str| DecimalDigits::parse(text).unwrap().at_scale(2, DecimalRounding::HalfUp).unwrap();
        assert_eq!((round("1.005"), round("-1.005"), round("1.004")), ((101, true), (-101, true), (100, true)));
    }

    #[test]
    fn unit_of_an_epoch_is_determined_by_its_size() {
        let auto = |n: i128| nanos_since_epoch(DecimalDigits { value: n, scale: 0 }, EpochUnit::Auto);
        let want = Ok(1_486_500_577_000_000_000);
        for n in [1_486_500_577, 1_486_500_577_000, 1_486_500_577_000_000, 1_486_500_577_000_000_000] {
            assert_eq!(auto(n), want, "{n}");
        }
        for n in [0, 2022, 20_240_229, 99_999_999] {
            assert_eq!(auto(n), Err(ValueFault::BadEpoch), "{n}");
        }
        let seconds = DecimalDigits::parse("1486500577.691").unwrap();
        assert_eq!(nanos_since_epoch(seconds, EpochUnit::Auto), Ok(1_486_500_577_691_000_000));
        // Glue Biscuit, the predecessor, converts this number through a double and gets .008 at the end.
        assert_eq!(auto(253_402_300_799_999), Ok(253_402_300_799_999_000));
        let millis = nanos_since_epoch(DecimalDigits { value: 253_402_300_799_999, scale: 0 }, EpochUnit::Millis);
        assert_eq!(millis, Ok(253_402_300_799_999_000_000));
    }

    #[test]
    fn declared_formats_are_read() {
        let reading =
            ReadingRules { formats: vec!["%d/%m/%Y".into(), "%Y%m%d %H%M%S %z".into()], ..ReadingRules::default() };
        assert_eq!(parse_date("04/02/1970", &reading), Ok(34));
        assert_eq!(parse_timestamp("04/02/1970", &reading), Ok(34 * DAY_NANOS));
        assert_eq!(parse_timestamp("19700101 010000 +0100", &reading), Ok(0));
        assert_eq!(parse_date("31/02/1970", &reading), Err(ValueFault::BadDate));
    }
}
