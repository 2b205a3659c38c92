//! Header of Avro files, and the variable-length numbers of Avro.

use serde_json::Value;

pub(crate) const SCHEMA: &str = "avro.schema";

/// Header of an Avro file: metadata, the sync marker that follows each block, and the position of the first block.
/// Format: <https://avro.apache.org/docs/1.11.1/specification/#object-container-files>
#[derive(Debug)]
pub(crate) struct AvroHeader<'a> {
    entries: Vec<(&'a [u8], &'a [u8])>,
    pub(crate) sync: [u8; 16],
    pub(crate) end: usize,
}

impl<'a> AvroHeader<'a> {
    /// Reads the header of a file that begins with the four magic bytes of Avro. Returns `None` if the file ends
    /// inside the header, or a length in the header is beyond the end of the file.
    pub(crate) fn read(file: &'a [u8]) -> Option<Self> {
        let mut at = 4;
        let mut entries: Vec<(&[u8], &[u8])> = Vec::new();
        loop {
            let count = read_long(file, &mut at)?;
            if count == 0 {
                break;
            }
            // A negative count is followed by the size of the block.
            if count < 0 {
                read_long(file, &mut at)?;
            }
            for _ in 0..count.unsigned_abs() {
                entries.push((read_bytes(file, &mut at)?, read_bytes(file, &mut at)?));
            }
        }
        let sync = file.get(at..)?.first_chunk::<16>()?;
        Some(Self { entries, sync: *sync, end: at + 16 })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.entries.iter().find(|(k, _)| *k == name.as_bytes()).map(|(_, v)| *v)
    }

    /// Writes the header of a file with uncompressed blocks.
    ///
    /// Full names in one piece (`"name": "a.b.C"`) are split into name and namespace (`"namespace": "a.b"`). The
    /// specification allows both forms, but arrow-avro resolves references only to the second form.
    pub(crate) fn without_compression(&self, mut schema: Value) -> Vec<u8> {
        let written = if split_full_names(&mut schema) {
            schema.to_string().into_bytes()
        } else {
            self.get(SCHEMA).unwrap_or_default().to_vec()
        };
        let mut out = b"Obj\x01".to_vec();
        put_long(1, &mut out);
        put_bytes(SCHEMA.as_bytes(), &mut out);
        put_bytes(&written, &mut out);
        put_long(0, &mut out);
        out.extend_from_slice(&self.sync);
        out
    }
}

/// Splits all full names in a schema; returns whether there was one.
fn split_full_names(schema: &mut Value) -> bool {
    match schema {
        Value::Array(options) => options.iter_mut().map(split_full_names).fold(false, |a, b| a | b),
        Value::Object(fields) => {
            let named =
                matches!(fields.get("type").and_then(Value::as_str), Some("record" | "enum" | "fixed" | "error"));
            let full = fields.get("name").and_then(Value::as_str).filter(|_| named).and_then(|n| n.rsplit_once('.'));
            let full = full.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
            let found = full.is_some();
            if let Some((namespace, name)) = full {
                fields.insert("name".to_owned(), Value::String(name));
                fields.insert("namespace".to_owned(), Value::String(namespace));
            }
            let inner = ["type", "fields", "items", "values"];
            inner.iter().filter_map(|k| fields.get_mut(*k).map(split_full_names)).fold(found, |a, b| a | b)
        }
        _ => false,
    }
}

/// Reads a number of at most ten bytes: zigzag encoding in base-128 groups, the lowest first. Advances `at`.
pub(crate) fn read_long(file: &[u8], at: &mut usize) -> Option<i64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = *file.get(*at)?;
        *at += 1;
        // The tenth byte can only contain the highest bit.
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
    }
}

fn read_bytes<'a>(file: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = usize::try_from(read_long(file, at)?).ok()?;
    let found = file.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some(found)
}

pub(crate) fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_numbers_round_trip() {
        for n in [0, 1, -1, 63, 64, -64, -65, 300, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_long(n, &mut out);
            assert_eq!(read_long(&out, &mut 0), Some(n), "{n}");
        }
        assert_eq!(read_long(&[0x80], &mut 0), None);
        assert_eq!(read_long(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &mut 0), None);
    }

    #[test]
    fn full_names_are_split_and_the_rest_is_unchanged() {
        let schema = r#"{"type":"record","name":"a.b.C","fields":[{"name":"x.y","type":["null",{"type":"enum","name":"d.E","symbols":["s"]}]}]}"#;
        let mut file = b"Obj\x01".to_vec();
        put_long(2, &mut file);
        for (k, v) in [("avro.codec", "null"), ("avro.schema", schema)] {
            put_bytes(k.as_bytes(), &mut file);
            put_bytes(v.as_bytes(), &mut file);
        }
        put_long(0, &mut file);
        file.extend_from_slice(b"0123456789abcdefblocks");
        let header = AvroHeader::read(&file).expect("the header is complete");
        assert_eq!((&file[header.end..], &header.sync), (&b"blocks"[..], b"0123456789abcdef"));
        assert_eq!(header.get("avro.codec"), Some(&b"null"[..]));
        let split = header.without_compression(serde_json::from_str(schema).unwrap());
        let text = String::from_utf8_lossy(&split);
        for part in [r#""name":"C""#, r#""namespace":"a.b""#, r#""namespace":"d""#, r#""name":"x.y""#] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let again = AvroHeader::read(&split).expect("the header is complete");
        let plain = serde_json::from_slice(again.get(SCHEMA).unwrap()).unwrap();
        assert_eq!(again.without_compression(plain), split, "nothing is left to split");
        for cut in 4..header.end {
            assert!(AvroHeader::read(&file[..cut]).is_none(), "{cut}");
        }
    }
}
