//! Layers around the content of a file, such as compression or checksums, so that damage reaches the content.

use std::io::{Read, Write};

use flate2::Compression;

use crate::bytes::{LARGEST, damage, zigzag};
use crate::node::{Form, damage_structure};
use crate::random::Random;

/// Layer around the content of a file. Most damage is done inside of it, where no checksum and no decompressor finds
/// it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Bytes without a layer.
    Plain,
    Text(Form),
    Gzip(Form),
    Zstd(Form),
    /// An Avro file: schema, counts, sizes and blocks.
    Avro,
    /// A line of JSON, then content that is compressed with zstd.
    LineAndZstd,
}

impl Layer {
    /// Damages a file inside or outside of its layer.
    pub(crate) fn damage(self, bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
        let inside = !random.once_in(4);
        let done = match self {
            Self::Plain => false,
            Self::Text(form) => inside && content(bytes, other, form, random),
            Self::Gzip(form) => inside && within(bytes, other, form, random, (gunzip, gzip)),
            Self::Zstd(form) => inside && within(bytes, other, form, random, (unzstd, zstd)),
            Self::Avro => inside && avro(bytes, random),
            Self::LineAndZstd => inside && line_and_zstd(bytes, random),
        };
        if !done {
            damage(bytes, other, random);
        }
    }
}

type Coder = fn(&[u8]) -> Option<Vec<u8>>;

fn within(bytes: &mut Vec<u8>, other: &[u8], form: Form, random: &mut Random, coders: (Coder, Coder)) -> bool {
    let (Some(mut plain), Some(other)) = (coders.0(bytes), coders.0(other)) else { return false };
    if !content(&mut plain, &other, form, random) {
        damage(&mut plain, &other, random);
    }
    coders.1(&plain).map(|packed| *bytes = packed).is_some()
}

/// Damages the structure of a text, or its bytes.
fn content(bytes: &mut Vec<u8>, other: &[u8], form: Form, random: &mut Random) -> bool {
    if random.once_in(3) || !damage_structure(bytes, form, random) {
        damage(bytes, other, random);
    }
    bytes.truncate(LARGEST);
    true
}

pub(crate) fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).ok()?;
    out.finish().ok()
}

fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).ok()?;
    Some(out)
}

pub(crate) fn zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    zstd::encode_all(bytes, 1).ok()
}

fn unzstd(bytes: &[u8]) -> Option<Vec<u8>> {
    zstd::decode_all(bytes).ok()
}

fn line_and_zstd(bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return false };
    let (mut line, packed) = (bytes[..end].to_vec(), bytes[end + 1..].to_vec());
    let packed = if random.once_in(2) {
        damage_structure(&mut line, Form::Json, random);
        Some(packed)
    } else {
        unzstd(&packed).and_then(|mut plain| {
            let other = plain.clone();
            damage(&mut plain, &other, random);
            zstd(&plain)
        })
    };
    let Some(packed) = packed else { return false };
    *bytes = [line, b"\n".to_vec(), packed].concat();
    true
}

/// The parts of an object container file of Avro.
struct Container {
    /// Names and values of the header's metadata.
    header: Vec<(Vec<u8>, Vec<u8>)>,
    sync: Vec<u8>,
    /// Number of rows and compressed bytes of each block.
    blocks: Vec<(i64, Vec<u8>)>,
}

fn avro(bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    let Some(mut file) = Container::parse(bytes) else { return false };
    let deflated = file.header.iter().any(|(name, value)| name == b"avro.codec" && value == b"deflate");
    let others: Vec<u8> = file.blocks.iter().flat_map(|(_, block)| block.clone()).collect();
    match random.below(6) {
        0 | 1 => {
            let Some((_, schema)) = file.header.iter_mut().find(|(name, _)| name == b"avro.schema") else {
                return false;
            };
            damage_structure(schema, Form::Json, random);
        }
        2 => {
            let at = random.below(file.header.len());
            damage(&mut file.header[at].1, b"zstandard", random);
        }
        _ => {
            let at = random.below(file.blocks.len());
            let Some((_, block)) = file.blocks.get_mut(at) else { return false };
            let mut plain = if deflated { inflate(block).unwrap_or_default() } else { block.clone() };
            damage(&mut plain, &others, random);
            *block = if deflated { deflate(&plain).unwrap_or_default() } else { plain };
        }
    }
    *bytes = file.bytes();
    true
}

fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::DeflateDecoder::new(bytes).read_to_end(&mut out).ok()?;
    Some(out)
}

fn deflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).ok()?;
    out.finish().ok()
}

impl Container {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(b"Obj\x01")?;
        let mut header = Vec::new();
        loop {
            let count = take_number(&mut rest)?;
            if count == 0 {
                break;
            }
            if count < 0 {
                take_number(&mut rest)?;
            }
            for _ in 0..count.unsigned_abs() {
                header.push((take_bytes(&mut rest)?, take_bytes(&mut rest)?));
            }
        }
        let sync = take(&mut rest, 16)?;
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            blocks.push((take_number(&mut rest)?, take_bytes(&mut rest)?));
            take(&mut rest, 16)?;
        }
        Some(Self { header, sync, blocks })
    }

    fn bytes(&self) -> Vec<u8> {
        let sized = |bytes: &[u8]| [zigzag(bytes.len() as i64), bytes.to_vec()].concat();
        let mut out = [b"Obj\x01".to_vec(), zigzag(self.header.len() as i64)].concat();
        self.header.iter().for_each(|(name, value)| out.extend([sized(name), sized(value)].concat()));
        out.push(0);
        out.extend_from_slice(&self.sync);
        for (count, block) in &self.blocks {
            out.extend([zigzag(*count), sized(block), self.sync.clone()].concat());
        }
        out
    }
}

fn take_number(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for at in 0..10 {
        let byte = *rest.get(at)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(take_number(rest)?).ok()?;
    take(rest, len)
}

fn take(rest: &mut &[u8], len: usize) -> Option<Vec<u8>> {
    let part = rest.get(..len)?.to_vec();
    *rest = &rest[len..];
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_avro_file_is_taken_apart_and_put_together() {
        let file = Container {
            header: vec![(b"avro.schema".to_vec(), b"\"long\"".to_vec())],
            sync: vec![7; 16],
            blocks: vec![(2, vec![2, 4]), (100, vec![9; 300])],
        };
        let parsed = Container::parse(&file.bytes()).expect("the file is valid");
        assert_eq!((parsed.bytes(), parsed.blocks.len()), (file.bytes(), 2));
    }

    #[test]
    fn damage_inside_leaves_the_layer_whole() {
        let lines = b"{\"id\":1}\n{\"id\":2}\n".repeat(10);
        let packed = gzip(&lines).expect("the text is compressed");
        let mut whole = 0;
        for n in 0..200 {
            let mut bytes = packed.clone();
            Layer::Gzip(Form::JsonLines).damage(&mut bytes, &packed, &mut Random::of_input(1, "gzip", n));
            whole += usize::from(gunzip(&bytes).is_some_and(|plain| plain != lines));
        }
        assert!(whole > 100, "{whole}");
    }
}
