use serde_json::Value;

const SCHEMA: &[u8] = b"avro.schema";

/// An Avro file whose schema gives full names in one piece (`"name": "a.b.C"`), with these in two (`"namespace": "a.b"`):
/// the specification allows both, and arrow-avro finds only the latter again. None if there is nothing to change.
/// Form of the file: <https://avro.apache.org/docs/1.11.1/specification/#object-container-files>
pub(crate) fn with_split_names(file: &[u8]) -> Option<Vec<u8>> {
    let mut at = 4;
    let mut entries: Vec<(&[u8], &[u8])> = Vec::new();
    loop {
        let count = long(file, &mut at)?;
        if count == 0 {
            break;
        }
        // A negative count is followed by the size of the block.
        if count < 0 {
            long(file, &mut at)?;
        }
        for _ in 0..count.unsigned_abs() {
            entries.push((bytes(file, &mut at)?, bytes(file, &mut at)?));
        }
    }
    let written = entries.iter().find(|(k, _)| *k == SCHEMA)?.1;
    let mut schema: Value = serde_json::from_slice(written).ok()?;
    if !split(&mut schema) {
        return None;
    }
    let schema = schema.to_string();
    let mut out = file[..4].to_vec();
    put_long(entries.len() as i64, &mut out);
    for (key, value) in entries {
        put_bytes(key, &mut out);
        put_bytes(if key == SCHEMA { schema.as_bytes() } else { value }, &mut out);
    }
    put_long(0, &mut out);
    out.extend_from_slice(&file[at..]);
    Some(out)
}

/// Splits names wherever they are; answers whether there was one.
fn split(schema: &mut Value) -> bool {
    match schema {
        Value::Array(options) => options.iter_mut().map(split).fold(false, |a, b| a | b),
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
            inner.iter().filter_map(|k| fields.get_mut(*k).map(split)).fold(found, |a, b| a | b)
        }
        _ => false,
    }
}

fn long(file: &[u8], at: &mut usize) -> Option<i64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = *file.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
    }
}

fn bytes<'a>(file: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = usize::try_from(long(file, at)?).ok()?;
    let found = file.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some(found)
}

fn put_long(value: i64, out: &mut Vec<u8>) {
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
    fn numbers_are_read_as_they_are_written() {
        for n in [0, 1, -1, 63, 64, -64, -65, 300, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_long(n, &mut out);
            assert_eq!(long(&out, &mut 0), Some(n), "{n}");
        }
        assert_eq!(long(&[0x80], &mut 0), None);
    }

    #[test]
    fn full_names_are_split_and_all_else_stays() {
        let schema = r#"{"type":"record","name":"a.b.C","fields":[{"name":"x.y","type":["null",{"type":"enum","name":"d.E","symbols":["s"]}]}]}"#;
        let mut file = b"Obj\x01".to_vec();
        put_long(2, &mut file);
        for (k, v) in [("avro.codec", "null"), ("avro.schema", schema)] {
            put_bytes(k.as_bytes(), &mut file);
            put_bytes(v.as_bytes(), &mut file);
        }
        put_long(0, &mut file);
        file.extend_from_slice(b"0123456789abcdefblocks");
        let split = with_split_names(&file).expect("it has full names");
        assert!(split.ends_with(b"0123456789abcdefblocks"));
        let text = String::from_utf8_lossy(&split);
        for part in [r#""name":"C""#, r#""namespace":"a.b""#, r#""namespace":"d""#, r#""name":"x.y""#] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(with_split_names(&split).is_none(), "nothing is left to split");
        assert!(with_split_names(b"Obj\x01").is_none() && with_split_names(&file[..40]).is_none());
    }
}
