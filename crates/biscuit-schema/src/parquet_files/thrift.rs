//! Reader for the Thrift compact protocol, as far as Parquet metadata uses it. Source: "Thrift compact protocol
//! encoding".
//!
//! A decoder allocates memory for the number of items that a list declares and recurses for each nested value. The
//! reader checks both before a decoder sees untrusted bytes.

/// Maximum nesting of values. Parquet metadata has at most ten levels.
const MAX_VALUES: usize = 32;

/// Checks Thrift bytes of any structure: no list declares more items than bytes follow, and values are not nested too
/// deep.
///
/// # Errors
/// The problem, as the end of a sentence.
pub fn check_thrift(structure: &[u8]) -> Result<(), String> {
    ThriftReader { rest: structure }.skip_value(STRUCT, 0)
}

/// Type codes of the compact protocol. Booleans have their value in the type code.
pub(crate) const TRUE: u8 = 1;
pub(crate) const FALSE: u8 = 2;
pub(crate) const BYTE: u8 = 3;
pub(crate) const I16: u8 = 4;
pub(crate) const I32: u8 = 5;
pub(crate) const I64: u8 = 6;
pub(crate) const DOUBLE: u8 = 7;
pub(crate) const BINARY: u8 = 8;
pub(crate) const LIST: u8 = 9;
pub(crate) const SET: u8 = 10;
pub(crate) const MAP: u8 = 11;
pub(crate) const STRUCT: u8 = 12;

pub(crate) type ThriftStep<T = ()> = Result<T, String>;

/// Position in bytes of the compact protocol: the bytes that are not read yet.
pub(crate) struct ThriftReader<'a> {
    pub(crate) rest: &'a [u8],
}

pub(crate) const ENDS: &str = "its metadata end too early";

/// Decoders read a field by its number and ignore the declared type, so that a different type would be misread.
pub(crate) const OTHER_TYPE: &str = "its metadata have a field with a type that the Parquet format does not allow";

impl ThriftReader<'_> {
    pub(crate) fn read_byte(&mut self) -> ThriftStep<u8> {
        let (first, rest) = self.rest.split_first().ok_or(ENDS)?;
        self.rest = rest;
        Ok(*first)
    }

    /// Reads a variable-length integer (ULEB128): seven bits in each byte, the lowest bits first, and a high bit that
    /// means that another byte follows.
    pub(crate) fn read_unsigned(&mut self) -> ThriftStep<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.read_byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("its metadata contain an invalid number".to_owned())
    }

    /// Reads a signed integer, which is zigzag-encoded: 0, -1, 1, -2 are stored as 0, 1, 2, 3.
    pub(crate) fn read_number(&mut self) -> ThriftStep<i64> {
        let value = self.read_unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn skip_bytes(&mut self, bytes: u64) -> ThriftStep {
        self.rest = usize::try_from(bytes).ok().and_then(|bytes| self.rest.get(bytes..)).ok_or(ENDS)?;
        Ok(())
    }

    /// Reads the header of a list: the type and the number of its items. Each item takes at least one byte, so a list
    /// with more items than remaining bytes is invalid.
    pub(crate) fn list(&mut self) -> ThriftStep<(u8, usize)> {
        let head = self.read_byte()?;
        let short = u64::from(head >> 4);
        let items = if short == 15 { self.read_unsigned()? } else { short };
        match usize::try_from(items) {
            Ok(items) if items <= self.rest.len() => Ok((head & 0x0f, items)),
            _ => Err("its metadata have a list with more items than bytes".to_owned()),
        }
    }

    /// Reads the fields of a structure. `step` gets the number and the type of each field, and has to read its value.
    pub(crate) fn read_fields(
        &mut self,
        depth: usize,
        step: &mut dyn FnMut(&mut Self, i64, u8) -> ThriftStep,
    ) -> ThriftStep {
        if depth > MAX_VALUES {
            return Err("its metadata are nested too deep".to_owned());
        }
        let mut id = 0_i64;
        loop {
            let head = self.read_byte()?;
            if head & 0x0f == 0 {
                return Ok(());
            }
            // The header contains the difference to the previous field number in four bits; 0 means that the number
            // itself follows.
            id = if head >> 4 == 0 { self.read_number()? } else { id.saturating_add(i64::from(head >> 4)) };
            step(self, id, head & 0x0f)?;
        }
    }

    pub(crate) fn skip_value(&mut self, kind: u8, depth: usize) -> ThriftStep {
        if depth > MAX_VALUES {
            return Err("its metadata are nested too deep".to_owned());
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.skip_bytes(1),
            I16 | I32 | I64 => self.read_unsigned().map(drop),
            DOUBLE => self.skip_bytes(8),
            BINARY => {
                let length = self.read_unsigned()?;
                self.skip_bytes(length)
            }
            LIST | SET => {
                let (kind, items) = self.list()?;
                (0..items).try_for_each(|_| self.skip_item(kind, depth + 1))
            }
            MAP => {
                let items = self.read_unsigned()?;
                if items == 0 {
                    return Ok(());
                }
                let kinds = self.read_byte()?;
                for _ in 0..items {
                    self.skip_item(kinds >> 4, depth + 1)?;
                    self.skip_item(kinds & 0x0f, depth + 1)?;
                }
                Ok(())
            }
            STRUCT => self.read_fields(depth, &mut |thrift, _, kind| thrift.skip_value(kind, depth + 1)),
            _ => Err("its metadata contain a value of an unknown type".to_owned()),
        }
    }

    /// Skips an item of a list or map. A boolean takes a byte there; in a field it is part of the type code.
    pub(crate) fn skip_item(&mut self, kind: u8, depth: usize) -> ThriftStep {
        match kind {
            TRUE | FALSE => self.skip_bytes(1),
            kind => self.skip_value(kind, depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_with_more_items_than_bytes_is_refused() {
        // Field 1: a list of 2^28 items of one byte.
        let huge = [0x19, 0xf3, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0];
        assert!(check_thrift(&huge).unwrap_err().contains("more items"));
        let fine = [0x19, 0x23, 1, 2, 0];
        assert_eq!(check_thrift(&fine), Ok(()));
        assert_eq!(check_thrift(&fine[..4]), Err(ENDS.to_owned()));
    }

    #[test]
    fn deeply_nested_thrift_is_refused() {
        assert!(check_thrift(&[0x1c; 1000]).unwrap_err().contains("too deep"));
        assert!(check_thrift(&[0x19; 1000]).is_err());
    }
}
