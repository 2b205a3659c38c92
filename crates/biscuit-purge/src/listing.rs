//! A compact list of objects: delta encoding of sorted keys and times, in the manner of a key block of an LSM tree.
//!
//! An entry is, in this order: a byte of flags; the length of the prefix that its key shares with the key before it;
//! the rest of the key; the size; the ETag; the version; the change of the time since the entry before; the number of
//! the storage class. Numbers are variable-length integers (LEB128), signed ones in zigzag encoding, and optional
//! fields have a flag.

use std::fmt;

use biscuit_core::Instant;

use crate::listed::{ListedObject, VersionKind};

/// Number of objects in a part. Each part begins with a complete key, so it can be read without the part before it.
const PART: usize = 1000;

/// A list of many objects in little memory. Keys share the prefix of the key before, and ETags of S3 are stored as
/// bytes. A million objects with keys of 100 characters, of which 60 differ from one key to the next, take 87 MB.
#[derive(Clone, Default)]
pub struct ObjectListing {
    /// Complete parts of [`PART`] objects each.
    parts: Vec<Box<[u8]>>,
    /// The part that is being written.
    last: Vec<u8>,
    /// Number of objects in `last`.
    in_last: usize,
    before: PreviousKey,
    /// Storage classes; entries contain an index into this list.
    classes: Vec<Box<str>>,
    len: usize,
    bytes: u64,
}

/// Key and time of the object before, which the next entry refers to. Writer and reader update it in the same way.
#[derive(Clone, Default)]
struct PreviousKey {
    key: String,
    modified: i64,
}

impl fmt::Debug for ObjectListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("len", &self.len).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl PartialEq for ObjectListing {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for ObjectListing {}

impl ObjectListing {
    /// Number of objects.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the list contains no objects.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sum of the sizes of all objects in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Memory that the list takes, in bytes.
    pub fn memory(&self) -> usize {
        self.parts.iter().map(|p| p.len()).sum::<usize>() + self.last.capacity()
    }

    /// Appends an object. Sorted keys take the least memory.
    pub fn push(&mut self, object: &ListedObject) {
        if self.in_last == PART {
            self.parts.push(std::mem::take(&mut self.last).into_boxed_slice());
            (self.in_last, self.before) = (0, PreviousKey::default());
        }
        let class = object.storage_class.as_deref().map(|class| self.intern_class(class));
        write(object, class, &mut self.before, &mut self.last);
        self.in_last += 1;
        self.len += 1;
        self.bytes = self.bytes.saturating_add(object.listed.size);
    }

    /// Appends all objects of another list.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else {
            other.iter().for_each(|object| self.push(&object));
        }
    }

    /// Returns the number of a storage class. A linear search is enough, because a store has few classes.
    fn intern_class(&mut self, name: &str) -> usize {
        self.classes.iter().position(|c| **c == *name).unwrap_or_else(|| {
            self.classes.push(name.into());
            self.classes.len() - 1
        })
    }

    /// Returns the objects in the order in which they were appended.
    pub fn iter(&self) -> Iter<'_> {
        Iter { listing: self, part: 0, rest: self.bytes_of(0), before: PreviousKey::default() }
    }

    fn bytes_of(&self, part: usize) -> &[u8] {
        match self.parts.get(part) {
            Some(bytes) => bytes,
            None if part == self.parts.len() => &self.last,
            None => &[],
        }
    }
}

impl FromIterator<ListedObject> for ObjectListing {
    fn from_iter<T: IntoIterator<Item = ListedObject>>(objects: T) -> Self {
        let mut listing = Self::default();
        objects.into_iter().for_each(|object| listing.push(&object));
        listing
    }
}

impl<'a> IntoIterator for &'a ObjectListing {
    type Item = ListedObject;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterator over the objects of an [`ObjectListing`].
pub struct Iter<'a> {
    listing: &'a ObjectListing,
    part: usize,
    rest: &'a [u8],
    before: PreviousKey,
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("part", &self.part).finish_non_exhaustive()
    }
}

impl Iterator for Iter<'_> {
    type Item = ListedObject;

    fn next(&mut self) -> Option<ListedObject> {
        while self.rest.is_empty() {
            self.part += 1;
            if self.part > self.listing.parts.len() {
                return None;
            }
            (self.rest, self.before) = (self.listing.bytes_of(self.part), PreviousKey::default());
        }
        Some(read(&mut self.rest, &mut self.before, &self.listing.classes))
    }
}

/// Hexadecimal digits of ETags.
const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

/// The two lowest bits of the flags are the kind of the ETag. This one: none.
const NO_ETAG: u8 = 0;
/// An ETag of 32 hexadecimal digits in quotes, stored as 16 bytes.
const MD5: u8 = 1;
/// An ETag of a multipart upload, `"<32 digits>-<parts>"`, stored as 16 bytes and the number of parts.
const MD5_OF_PARTS: u8 = 2;
/// Any other ETag, stored as text.
const TEXT: u8 = 3;
/// Mask of the kind of the ETag. Each of the other bits is a flag of its own.
const ETAG: u8 = 3;
const NONCURRENT: u8 = 4;
const DELETE_MARKER: u8 = 8;
const VERSION: u8 = 16;
const MODIFIED: u8 = 32;
const CLASS: u8 = 64;

/// Appends an entry. [`read`] is its exact inverse.
fn write(object: &ListedObject, class: Option<usize>, before: &mut PreviousKey, out: &mut Vec<u8>) {
    let etag = object.listed.etag.as_deref().map(|text| (parse_md5(text), text));
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        match etag {
            None => NO_ETAG,
            Some((Some((_, None)), _)) => MD5,
            Some((Some((_, Some(_))), _)) => MD5_OF_PARTS,
            Some((None, _)) => TEXT,
        } | flag(object.form == VersionKind::Noncurrent, NONCURRENT)
            | flag(object.form == VersionKind::DeleteMarker, DELETE_MARKER)
            | flag(object.version.is_some(), VERSION)
            | flag(object.modified.is_some(), MODIFIED)
            | flag(class.is_some(), CLASS),
    );
    let key = object.key();
    let same = key.bytes().zip(before.key.bytes()).take_while(|(a, b)| a == b).count();
    // The shared prefix ends at a character boundary, so that the rest is valid UTF-8 too.
    let same = (0..=same).rev().find(|&at| key.is_char_boundary(at)).unwrap_or(0);
    push(same as u64, out);
    write_text(&key[same..], out);
    push(object.listed.size, out);
    match etag {
        Some((Some((digest, parts)), _)) => {
            out.extend_from_slice(&digest);
            parts.into_iter().for_each(|parts| push(parts, out));
        }
        Some((None, text)) => write_text(text, out),
        None => {}
    }
    object.version.iter().for_each(|version| write_text(version, out));
    if let Some(modified) = object.modified {
        let change = modified.as_micros().wrapping_sub(before.modified);
        // Zigzag encoding: small changes of either sign become small numbers.
        push((change.wrapping_shl(1) ^ (change >> 63)) as u64, out);
        before.modified = modified.as_micros();
    }
    class.into_iter().for_each(|class| push(class as u64, out));
    before.key.truncate(same);
    before.key.push_str(&key[same..]);
}

/// Reads one entry and removes it from `bytes`.
fn read(bytes: &mut &[u8], before: &mut PreviousKey, classes: &[Box<str>]) -> ListedObject {
    let flags = take_bytes(bytes, 1)[0];
    let same = read_varint(bytes) as usize;
    before.key.truncate(same);
    before.key.push_str(read_text(bytes));
    let size = read_varint(bytes);
    let etag = match flags & ETAG {
        NO_ETAG => None,
        TEXT => Some(read_text(bytes).to_owned()),
        kind => {
            let mut etag = String::with_capacity(34);
            etag.push('"');
            for byte in take_bytes(bytes, 16) {
                etag.push(DIGITS[usize::from(byte >> 4)]);
                etag.push(DIGITS[usize::from(byte & 15)]);
            }
            if kind == MD5_OF_PARTS {
                etag.push('-');
                etag.push_str(&read_varint(bytes).to_string());
            }
            etag.push('"');
            Some(etag)
        }
    };
    let version = (flags & VERSION != 0).then(|| read_text(bytes).to_owned());
    let modified = (flags & MODIFIED != 0).then(|| {
        let change = read_varint(bytes);
        before.modified = before.modified.wrapping_add((change >> 1) as i64 ^ -((change & 1) as i64));
        Instant::from_micros(before.modified)
    });
    let storage_class = (flags & CLASS != 0).then(|| classes[read_varint(bytes) as usize].to_string());
    let form = match flags & (NONCURRENT | DELETE_MARKER) {
        NONCURRENT => VersionKind::Noncurrent,
        DELETE_MARKER => VersionKind::DeleteMarker,
        _ => VersionKind::Current,
    };
    ListedObject { version, modified, storage_class, form, ..ListedObject::new(before.key.as_str(), size, etag) }
}

/// Parses an ETag of S3 as a digest and the number of parts of a multipart upload. Returns `None` for any text that
/// would not be formatted to exactly the same ETag again, such as one with upper-case digits.
fn parse_md5(etag: &str) -> Option<([u8; 16], Option<u64>)> {
    let inner = etag.strip_prefix('"')?.strip_suffix('"')?;
    let (hex, parts) = match inner.split_once('-') {
        // A number with leading zeros would lose them.
        Some((hex, parts)) => (hex, Some(parts.parse::<u64>().ok().filter(|n| n.to_string() == parts)?)),
        None => (inner, None),
    };
    let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if hex.len() != 32 || !hex.bytes().all(lower) {
        return None;
    }
    let mut digest = [0; 16];
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some((digest, parts))
}

/// Appends a variable-length integer (LEB128): seven bits in a byte, lowest first.
fn push(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a text with its length in bytes.
fn write_text(text: &str, out: &mut Vec<u8>) {
    push(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn take_bytes<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, rest) = bytes.split_at(n);
    *bytes = rest;
    head
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let (mut n, mut shift) = (0, 0);
    loop {
        let byte = take_bytes(bytes, 1)[0];
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return n;
        }
        shift += 7;
    }
}

fn read_text<'a>(bytes: &mut &'a [u8]) -> &'a str {
    let n = read_varint(bytes) as usize;
    std::str::from_utf8(take_bytes(bytes, n)).expect("only text is written")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn etags() -> impl Strategy<Value = Option<String>> {
        prop_oneof![
            Just(None),
            "\"[0-9a-f]{32}\"".prop_map(Some),
            "\"[0-9a-f]{32}-[0-9]{1,6}\"".prop_map(Some),
            "\"[0-9A-F]{32}\"".prop_map(Some),
            ".*".prop_map(Some),
        ]
    }

    fn objects() -> impl Strategy<Value = ListedObject> {
        let form =
            prop_oneof![Just(VersionKind::Current), Just(VersionKind::Noncurrent), Just(VersionKind::DeleteMarker)];
        let class = prop::option::of(prop_oneof![Just("STANDARD".to_owned()), Just("GLACIER".to_owned())]);
        let key = prop_oneof!["t/day=[0-9]{1,3}/part-[0-9]{1,4}", "[aäß€/]{0,8}", ".*"];
        let modified = prop::option::of(any::<i64>().prop_map(Instant::from_micros));
        let numbers = (any::<u64>().prop_map(|n| n >> (n % 60)), modified);
        (key, numbers, etags(), prop::option::of(".*"), class, form).prop_map(
            |(key, (size, modified), etag, version, storage_class, form)| ListedObject {
                version,
                modified,
                storage_class,
                form,
                ..ListedObject::new(key, size >> 12, etag)
            },
        )
    }

    proptest! {
        #[test]
        fn objects_round_trip(objects in prop::collection::vec(objects(), 0..40), times in 1..80_usize) {
            let all: Vec<ListedObject> = std::iter::repeat_n(objects, times).flatten().collect();
            let listing: ObjectListing = all.iter().cloned().collect();
            prop_assert_eq!(listing.len(), all.len());
            prop_assert_eq!(listing.bytes(), all.iter().map(|o| o.listed.size).sum::<u64>());
            prop_assert_eq!(listing.iter().collect::<Vec<_>>(), all);
        }
    }
}
