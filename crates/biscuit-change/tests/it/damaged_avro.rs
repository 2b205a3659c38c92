//! Damaged, truncated and hostile Avro files.

use biscuit_change::{ChangeRecords, RowsOptions, RowsReader};
use biscuit_core::Result;
use bytes::Bytes;

const SCHEMA: &str =
    r#"{"type":"record","name":"r","fields":[{"name":"id","type":"long"},{"name":"v","type":["null","string"]}]}"#;

const MARKER: &[u8; 16] = b"0123456789abcdef";

fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn text(text: &[u8]) -> Vec<u8> {
    [long(text.len() as i64), text.to_vec()].concat()
}

fn head(schema: &str, codec: &str) -> Vec<u8> {
    let entries = [text(b"avro.schema"), text(schema.as_bytes()), text(b"avro.codec"), text(codec.as_bytes())];
    [b"Obj\x01".to_vec(), long(2), entries.concat(), long(0), MARKER.to_vec()].concat()
}

fn block(records: i64, content: &[u8]) -> Vec<u8> {
    [long(records), text(content), MARKER.to_vec()].concat()
}

/// Encodes records of which every other one has a null text.
fn records(ids: std::ops::Range<i64>) -> Vec<u8> {
    ids.flat_map(
        |id| if id % 2 == 0 { [long(id), long(0)].concat() } else { [long(id), long(1), text(b"text")].concat() },
    )
    .collect()
}

fn read(file: impl Into<Bytes>) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(RowsOptions::default());
    reader.read("in/a.avro", file.into())?;
    reader.finish()
}

fn code(file: Vec<u8>) -> &'static str {
    let e = read(file).expect_err("the file is damaged");
    assert_eq!(e.file(), Some("in/a.avro"), "{e}");
    e.code()
}

fn rows(file: Vec<u8>) -> usize {
    read(file).expect("the file is valid").batches.iter().map(|b| b.ops.len()).sum()
}

fn two_blocks() -> Vec<u8> {
    [head(SCHEMA, "null"), block(40, &records(0..40)), block(3, &records(40..43))].concat()
}

#[test]
fn truncated_avro_file_is_an_error() {
    let file = two_blocks();
    assert_eq!(rows(file.clone()), 43);
    // A file that is truncated between two blocks is a valid file with fewer blocks.
    let whole = [file.len(), head(SCHEMA, "null").len(), file.len() - block(3, &records(40..43)).len()];
    for cut in (4..file.len()).filter(|cut| !whole.contains(cut)) {
        assert_eq!(code(file[..cut].to_vec()), "TruncatedInput", "the first {cut} bytes");
    }
}

#[test]
fn bytes_after_the_last_block_are_an_error() {
    for tail in [&b"\n"[..], &[0], &[0; 40], b"Obj\x01"] {
        let file = [two_blocks(), tail.to_vec()].concat();
        assert!(matches!(code(file), "TruncatedInput" | "UnreadableAvro"), "{tail:?}");
    }
}

#[test]
fn block_must_contain_the_declared_number_of_records() {
    let of = |records_said, content: &[u8]| [head(SCHEMA, "null"), block(records_said, content)].concat();
    assert_eq!(rows(of(40, &records(0..40))), 40);
    for message in [-40, -1, 0, 1, 39, 41, 1000, i64::MAX, i64::MIN] {
        assert_eq!(code(of(message, &records(0..40))), "UnreadableAvro", "{message} records");
    }
    assert_eq!(code(of(40, &records(0..40)[..100])), "UnreadableAvro");
    // Records that take no bytes.
    let nothing = r#"{"type":"record","name":"r","fields":[{"name":"n","type":"null"}]}"#;
    assert_eq!(code([head(nothing, "null"), block(i64::MAX, b"")].concat()), "UnreadableAvro");
}

#[test]
fn block_must_end_with_the_sync_marker_of_the_file() {
    let mut file = two_blocks();
    let last = file.len() - 1;
    file[last] ^= 1;
    assert_eq!(code(file), "UnreadableAvro");
}

#[test]
fn lengths_beyond_the_end_of_a_block_allocate_no_memory() {
    let of = |content: Vec<u8>| [head(SCHEMA, "null"), block(1, &content)].concat();
    for length in [5, 1 << 20, i64::MAX, -1, i64::MIN] {
        let content = [long(1), long(1), long(length), b"text".to_vec()].concat();
        assert_eq!(code(of(content)), "UnreadableAvro", "a text of {length} bytes");
    }
    let size = [head(SCHEMA, "null"), long(1), long(i64::MAX), vec![0; 40]].concat();
    assert_eq!(code(size), "TruncatedInput");
    let header = [b"Obj\x01".to_vec(), long(i64::MAX), long(i64::MAX)].concat();
    assert_eq!(code(header), "TruncatedInput");
    let items = r#"{"type":"record","name":"r","fields":[{"name":"a","type":{"type":"array","items":"null"}}]}"#;
    assert_eq!(code([head(items, "null"), block(1, &[long(1 << 40), long(0)].concat())].concat()), "UnreadableAvro");
}

#[test]
fn flipping_any_bit_of_an_avro_file_yields_rows_or_an_error() {
    let file = two_blocks();
    for bit in 32..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match read(damaged) {
            Ok(changes) => assert!(changes.batches.iter().all(|b| b.ops.len() <= 43), "bit {bit}"),
            Err(e) => {
                assert_eq!((e.kind(), e.file()), (biscuit_core::ErrorKind::Data, Some("in/a.avro")), "bit {bit}: {e}");
            }
        }
    }
}

#[test]
fn block_must_be_compressed_with_the_declared_codec() {
    assert_eq!(code([head(SCHEMA, "deflate"), block(40, &records(0..40))].concat()), "UnreadableAvro");
    assert_eq!(code([head(SCHEMA, "snappy"), block(40, b"abc")].concat()), "UnreadableAvro");
    assert_eq!(code([head(SCHEMA, "lzo"), block(40, &records(0..40))].concat()), "UnreadableAvro");
    // The length that Snappy declares.
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0];
    assert_eq!(code([head(SCHEMA, "snappy"), block(40, &huge)].concat()), "TooLarge");
}

#[test]
fn depth_and_width_of_a_schema_are_limited() {
    let nested = |levels: usize| {
        let t = r#"{"type":"array","items":"#.repeat(levels) + "\"int\"" + &"}".repeat(levels);
        let schema = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{t}}}]}}"#);
        [head(&schema, "null"), block(1, &[0])].concat()
    };
    assert_eq!(rows(nested(63)), 1);
    for levels in [64, 100, 130, 100_000] {
        assert_eq!(code(nested(levels)), "TooDeep", "{levels} levels");
    }
    let doubled = (1..60).fold(r#"{"type":"record","name":"r0","fields":[]}"#.to_owned(), |t, i| {
        let before = i - 1;
        format!(r#"{{"type":"record","name":"r{i}","fields":[{{"name":"a","type":{t}}},{{"name":"b","type":"r{before}"}}]}}"#)
    });
    assert!(matches!(code([head(&doubled, "null"), block(1, &[])].concat()), "TooManyColumns" | "TooDeep"));
    let inside = r#"{"type":"record","name":"r","fields":[{"name":"a","type":["null","r"]}]}"#;
    assert_eq!(code([head(inside, "null"), block(1, &[0])].concat()), "UnsupportedType");
}
