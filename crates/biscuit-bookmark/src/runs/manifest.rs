//! Manifests: state files with the objects that one or more runs have read.
//!
//! A manifest is a line of JSON with the runs, followed by entries that are compressed with zstd. Numbers are
//! variable-length integers (LEB128), signed ones in zigzag encoding. Entries are sorted, so keys and times are
//! stored as differences.

use std::io::{Read, Write};

use biscuit_core::{Error, Instant, ObjectRef, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes;
use crate::object::{ObjectFingerprint, SourceObject};

/// Format of state files.
const FORMAT: u32 = 2;

/// Kind of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunKind {
    /// Read new objects, and overwritten objects again.
    Advance,
    /// Read objects of earlier runs again, and replaced the files that those runs had appended.
    Replay,
    /// Read objects again for some partitions, and replaced these partitions as a whole.
    Rebuild,
    /// Read nothing: all objects that existed count as read.
    SetToNow,
}

/// Output of a run, as far as its manifest remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunOutput {
    /// Files of the output that contain only rows of objects of this run, relative to the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Partition folders that contain rows of this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
    /// For single objects, by URL: the indexes of the `partitions` that contain their rows. For an object that is not
    /// listed here, the partitions are unknown.
    #[serde(skip)]
    pub reached: Vec<(String, Vec<u32>)>,
}

/// A run that a bookmark remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunRecord {
    /// Number of the run: 1 for the first, and one more for every run that the bookmark remembered.
    pub number: u64,
    /// Id that the scheduler gave the run.
    pub id: String,
    /// Number of the attempt of the run.
    pub attempt: u32,
    /// Start of the attempt in microseconds since 1970, on the clock of the host. It is never compared with other
    /// times.
    pub started: i64,
    /// Kind of the run.
    pub kind: RunKind,
    /// Number of objects that the run read.
    pub objects: u64,
    /// Sum of the sizes of these objects in bytes.
    pub bytes: u64,
    /// Newest time of modification of these objects, in microseconds since 1970.
    pub newest: i64,
    /// URLs of the places of the source.
    pub places: Vec<String>,
    /// Identity of objects, and the description of how they were read.
    pub reading: Value,
    /// Numbers of the runs whose output this run replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<u64>,
    /// Output of the run.
    #[serde(default)]
    pub output: RunOutput,
}

impl RunRecord {
    /// Start of the attempt, on the clock of the host.
    pub fn started(&self) -> Instant {
        Instant::from_micros(self.started)
    }
}

/// An object that a run read, remembered by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestEntry {
    pub(crate) object: SourceObject,
    pub(crate) run: u64,
    /// Indexes into the `partitions` of the run; empty if they are unknown.
    pub(crate) reached: Vec<u32>,
}

/// An object that a compacted run read: only its fingerprint is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CompactedEntry {
    pub(crate) fingerprint: ObjectFingerprint,
    pub(crate) run: u64,
}

#[derive(Serialize, Deserialize)]
struct ManifestHeader {
    format: u32,
    runs: Vec<RunRecord>,
    entries: u64,
    compacted: u64,
}

/// A state file: the objects of one or more runs.
///
/// The header is a line of JSON with the runs. The rest is compressed with zstd: first the entries of runs that are
/// remembered by name, sorted by URL and run, each with the part of its URL that differs from the URL before; then
/// the entries of compacted runs, as a fingerprint and the number of the run, sorted by the hash of the URL.
#[derive(Debug, Clone)]
pub(crate) struct RunManifest {
    /// Runs of the header, sorted by number. Entries refer to them by index.
    pub(crate) runs: Vec<RunRecord>,
    /// Number of entries by name.
    entries: u64,
    /// Number of compacted entries.
    compacted: u64,
    /// Compressed entries.
    packed: Bytes,
}

impl RunManifest {
    /// Parses the header of a state file. The entries are decompressed later, by a [`ManifestReader`].
    pub(crate) fn parse(bytes: &Bytes, place: &str) -> Result<Self> {
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| unreadable_manifest(place))?;
        let line = &bytes[..end];
        let format: Value = serde_json::from_slice(line).map_err(|e| unreadable_manifest(place).with_source(e))?;
        let number = format["format"].as_u64().ok_or_else(|| unreadable_manifest(place))?;
        if number > u64::from(FORMAT) {
            let message = format!("`{place}` has a newer format than this version of Biscuit reads; update it");
            return Err(Error::new(biscuit_journal::codes::NEWER_FORMAT, message));
        }
        if number < u64::from(FORMAT) {
            let message = format!(
                "`{place}` has format {number}, which development versions of Biscuit before 0.1.0 wrote; this version reads format {FORMAT}"
            );
            return Err(Error::new(biscuit_journal::codes::OLDER_FORMAT, message));
        }
        let ManifestHeader { runs, entries, compacted, .. } =
            serde_json::from_value(format).map_err(|e| unreadable_manifest(place).with_source(e))?;
        Ok(Self { runs, entries, compacted, packed: bytes.slice(end + 1..) })
    }

    /// Number of entries of both kinds.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.entries + self.compacted).unwrap_or(usize::MAX)
    }

    /// Size of the compressed part in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.packed.len() as u64
    }

    /// Calls `entry` for each entry by name, sorted by URL and run, and then `compacted` for each compacted entry.
    pub(crate) fn visit_entries(
        &self,
        entry: &mut dyn FnMut(ManifestEntry),
        compacted: &mut dyn FnMut(CompactedEntry),
    ) -> Result<()> {
        let mut reader = self.reader()?;
        while let Some(next) = reader.read_entry()? {
            entry(next);
        }
        while let Some(next) = reader.read_compacted()? {
            compacted(next);
        }
        Ok(())
    }

    pub(crate) fn reader(&self) -> Result<ManifestReader<'_>> {
        let zstd = zstd::stream::read::Decoder::with_buffer(self.packed.as_ref()).map_err(damaged_manifest)?;
        let numbers = self.runs.iter().map(|r| r.number).collect();
        Ok(ManifestReader {
            input: PackedInput { zstd, bytes: Vec::new(), at: 0, ended: false },
            numbers,
            entries: self.entries,
            compacted: self.compacted,
            url: Vec::new(),
            etag: Vec::new(),
            has_etag: false,
            modified: 0,
            last: 0,
        })
    }
}

/// Reads the entries of a manifest one after the other: all entries by name first, then all compacted entries.
pub(crate) struct ManifestReader<'a> {
    input: PackedInput<'a>,
    /// Numbers of the runs in the header.
    numbers: Vec<u64>,
    /// Number of entries by name that are not read yet.
    entries: u64,
    /// Number of compacted entries that are not read yet.
    compacted: u64,
    /// URL, ETag and time of the entry that was read last. The next URL and the next time are differences to them.
    url: Vec<u8>,
    etag: Vec<u8>,
    has_etag: bool,
    modified: i64,
    /// Hash of the URL of the compacted entry that was read last.
    last: u64,
}

impl ManifestReader<'_> {
    /// Reads the next entry by name.
    pub(crate) fn read_entry(&mut self) -> Result<Option<ManifestEntry>> {
        let Some((size, run)) = self.begin_entry()? else { return Ok(None) };
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).map_err(damaged_manifest);
        let url = text(&self.url)?;
        let etag = self.has_etag.then(|| text(&self.etag)).transpose()?;
        let reached = self.read_length()?;
        let reached = (0..reached).map(|_| self.read_length().map(|n| n as u32)).collect::<Result<_>>()?;
        let object = SourceObject { listed: ObjectRef::new(url, size, etag), modified: self.modified };
        Ok(Some(ManifestEntry { object, run, reached }))
    }

    /// Reads the next entry by name as a fingerprint, without allocating its texts.
    pub(crate) fn read_fingerprint(&mut self) -> Result<Option<(ObjectFingerprint, u64)>> {
        let Some((size, run)) = self.begin_entry()? else { return Ok(None) };
        for _ in 0..self.read_length()? {
            self.read_number()?;
        }
        let etag = self.has_etag.then_some(self.etag.as_slice());
        Ok(Some((ObjectFingerprint::new(&self.url, size, etag, self.modified), run)))
    }

    /// Reads an entry up to its partitions. Returns its size and its run.
    fn begin_entry(&mut self) -> Result<Option<(u64, u64)>> {
        if self.entries == 0 {
            return Ok(None);
        }
        self.entries -= 1;
        let shared = self.read_length()?;
        self.url.truncate(shared);
        let suffix = self.read_length()?;
        self.input.take_bytes(suffix, &mut self.url)?;
        let run = self.run()?;
        let size = self.read_number()?;
        self.modified = self.modified.wrapping_add(decode_zigzag(self.read_number()?));
        self.etag.clear();
        let etag = self.read_length()?;
        self.has_etag = etag > 0;
        self.input.take_bytes(etag.saturating_sub(1), &mut self.etag)?;
        Ok(Some((size, run)))
    }

    /// Reads the next compacted entry. All entries by name must have been read before.
    pub(crate) fn read_compacted(&mut self) -> Result<Option<CompactedEntry>> {
        if self.compacted == 0 {
            return Ok(None);
        }
        self.compacted -= 1;
        self.last = self.last.wrapping_add(self.read_number()?);
        let mut content = Vec::with_capacity(8);
        self.input.take_bytes(8, &mut content)?;
        let content = content.try_into().map_err(|_| damaged_manifest("it ends too early"))?;
        let modified = decode_zigzag(self.read_number()?);
        let fingerprint = ObjectFingerprint { url: self.last, content: u64::from_le_bytes(content), modified };
        Ok(Some(CompactedEntry { fingerprint, run: self.read_number()? }))
    }

    fn run(&mut self) -> Result<u64> {
        let at = self.read_length()?;
        self.numbers.get(at).copied().ok_or_else(|| damaged_manifest("an entry has a run that is not in the header"))
    }

    fn read_number(&mut self) -> Result<u64> {
        self.input.read_number()
    }

    fn read_length(&mut self) -> Result<usize> {
        usize::try_from(self.read_number()?).map_err(damaged_manifest)
    }
}

/// Decompressed bytes that are not read yet.
struct PackedInput<'a> {
    zstd: zstd::stream::read::Decoder<'static, &'a [u8]>,
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

impl PackedInput<'_> {
    /// Decompresses until `wanted` bytes are available, or all that remain.
    fn decompress_some(&mut self, wanted: usize) -> Result<()> {
        while self.bytes.len() - self.at < wanted && !self.ended {
            self.bytes.drain(..self.at);
            self.at = 0;
            let had = self.bytes.len();
            let more = wanted.max(1 << 16) as u64;
            (&mut self.zstd).take(more).read_to_end(&mut self.bytes).map_err(damaged_manifest)?;
            self.ended = self.bytes.len() == had;
        }
        Ok(())
    }

    fn read_number(&mut self) -> Result<u64> {
        if self.bytes.len() - self.at < MOST {
            self.decompress_some(MOST)?;
        }
        let mut value = 0u64;
        for (i, byte) in self.bytes[self.at..].iter().take(MOST).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(damaged_manifest("a number has no end"))
    }

    /// Appends the next `length` bytes to a buffer.
    fn take_bytes(&mut self, length: usize, to: &mut Vec<u8>) -> Result<()> {
        self.decompress_some(length)?;
        let bytes = self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end));
        to.extend_from_slice(bytes.ok_or_else(|| damaged_manifest("it ends too early"))?);
        self.at += length;
        Ok(())
    }
}

/// Maximum length of a number in bytes: 64 bits in groups of seven.
const MOST: usize = 10;

/// Writes a manifest. Entries by name must come first, sorted by URL and run, then compacted entries, sorted by the
/// hash of the URL.
pub(crate) struct ManifestWriter {
    runs: Vec<RunRecord>,
    out: zstd::stream::write::Encoder<'static, Vec<u8>>,
    entries: u64,
    compacted: u64,
    url: String,
    modified: i64,
    last: u64,
    scratch: Vec<u8>,
}

impl ManifestWriter {
    /// Begins a manifest of these runs, which must be sorted by number.
    pub(crate) fn new(runs: Vec<RunRecord>) -> Result<Self> {
        let out = zstd::stream::write::Encoder::new(Vec::new(), 3).map_err(unwritable_manifest)?;
        let (entries, compacted, modified, last) = (0, 0, 0, 0);
        Ok(Self { runs, out, entries, compacted, url: String::new(), modified, last, scratch: Vec::new() })
    }

    pub(crate) fn write_entry(&mut self, entry: &ManifestEntry) -> Result<()> {
        let at = self.run_index(entry.run)?;
        let (url, out) = (entry.object.url(), &mut self.scratch);
        let mut shared = self.url.bytes().zip(url.bytes()).take_while(|(a, b)| a == b).count();
        // The shared prefix must end at a character boundary, so that the rest is text.
        while !url.is_char_boundary(shared) {
            shared -= 1;
        }
        write_varint(out, shared as u64);
        write_varint(out, (url.len() - shared) as u64);
        out.extend_from_slice(&url.as_bytes()[shared..]);
        write_varint(out, at);
        write_varint(out, entry.object.listed.size);
        write_varint(out, encode_zigzag(entry.object.modified.wrapping_sub(self.modified)));
        let etag = entry.object.listed.etag.as_deref();
        // 0 is no ETag, and 1 is an empty one.
        write_varint(out, etag.map_or(0, |e| e.len() as u64 + 1));
        out.extend_from_slice(etag.unwrap_or_default().as_bytes());
        write_varint(out, entry.reached.len() as u64);
        entry.reached.iter().for_each(|n| write_varint(out, u64::from(*n)));
        url.clone_into(&mut self.url);
        self.modified = entry.object.modified;
        self.entries += 1;
        self.flush()
    }

    pub(crate) fn write_compacted(&mut self, compacted: CompactedEntry) -> Result<()> {
        let out = &mut self.scratch;
        write_varint(out, compacted.fingerprint.url.wrapping_sub(self.last));
        out.extend_from_slice(&compacted.fingerprint.content.to_le_bytes());
        write_varint(out, encode_zigzag(compacted.fingerprint.modified));
        write_varint(out, compacted.run);
        self.last = compacted.fingerprint.url;
        self.compacted += 1;
        self.flush()
    }

    pub(crate) fn finish(self) -> Result<Bytes> {
        let packed = self.out.finish().map_err(unwritable_manifest)?;
        let header =
            ManifestHeader { format: FORMAT, runs: self.runs, entries: self.entries, compacted: self.compacted };
        let mut bytes = serde_json::to_vec(&header).map_err(unwritable_manifest)?;
        bytes.push(b'\n');
        bytes.extend(packed);
        Ok(bytes.into())
    }

    /// Returns the index of a run in the header.
    fn run_index(&self, run: u64) -> Result<u64> {
        let at = self.runs.binary_search_by_key(&run, |r| r.number);
        at.map(|at| at as u64).map_err(|_| Error::internal(format!("run {run} is not in its manifest")))
    }

    fn flush(&mut self) -> Result<()> {
        self.out.write_all(&self.scratch).map_err(unwritable_manifest)?;
        self.scratch.clear();
        Ok(())
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn encode_zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn decode_zigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

fn unreadable_manifest(place: &str) -> Error {
    Error::new(codes::UNREADABLE_BOOKMARK, format!("`{place}` is not the state of a bookmark"))
}

fn damaged_manifest(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(codes::UNREADABLE_BOOKMARK, "the state of a bookmark is damaged").with_source(source)
}

fn unwritable_manifest(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("the state of a bookmark could not be written").with_source(source)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(number: u64) -> RunRecord {
        RunRecord {
            number,
            id: format!("run-{number}"),
            attempt: 1,
            started: 0,
            kind: RunKind::Advance,
            objects: 0,
            bytes: 0,
            newest: 0,
            places: vec![],
            reading: Value::Null,
            replaced: vec![],
            output: RunOutput::default(),
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(
            mut entries in proptest::collection::vec(
                ("[a-zé/]{0,12}", 1u64..4, any::<u64>(), any::<i64>(), proptest::option::of("[\"a-f0-9-]{0,40}"),
                 proptest::collection::vec(any::<u32>(), 0..3)), 0..40),
            mut compacted in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<i64>(), 1u64..4), 0..40),
        ) {
            entries.sort();
            compacted.sort_unstable();
            let entries: Vec<ManifestEntry> = entries.into_iter().map(|(url, run, size, modified, etag, reached)| {
                ManifestEntry { object: SourceObject { listed: ObjectRef::new(url, size, etag), modified }, run, reached }
            }).collect();
            let compacted: Vec<CompactedEntry> = compacted.into_iter().map(|(url, content, modified, run)| {
                CompactedEntry { fingerprint: ObjectFingerprint { url, content, modified }, run }
            }).collect();
            let mut writer = ManifestWriter::new((1..4).map(record).collect()).unwrap();
            entries.iter().for_each(|e| writer.write_entry(e).unwrap());
            compacted.iter().for_each(|f| writer.write_compacted(*f).unwrap());
            let bytes = writer.finish().unwrap();
            let manifest = RunManifest::parse(&bytes, "x").unwrap();
            let (mut read, mut read_compacted) = (vec![], vec![]);
            manifest.visit_entries(&mut |e| read.push(e), &mut |f| read_compacted.push(f)).unwrap();
            prop_assert_eq!(read, entries);
            prop_assert_eq!(read_compacted, compacted);
        }
    }

    #[test]
    fn newer_format_and_damage_have_different_errors() {
        let e = RunManifest::parse(&Bytes::from_static(b"{\"format\": 3}\n"), "x").unwrap_err();
        assert_eq!(e.code(), "NewerFormat");
        let e = RunManifest::parse(&Bytes::from_static(b"{\"format\": 1}\n"), "x").unwrap_err();
        assert_eq!(e.code(), "OlderFormat");
        let e = RunManifest::parse(&Bytes::from_static(b"{\"runs\": []}\n"), "x").unwrap_err();
        assert_eq!(e.code(), unreadable_manifest("x").code());
        let e = RunManifest::parse(&Bytes::from_static(b"{}"), "x").unwrap_err();
        assert_eq!(e.code(), "UnreadableBookmark");
        let mut writer = ManifestWriter::new(vec![record(1)]).unwrap();
        let object = SourceObject { listed: ObjectRef::new("a", 1, None), modified: 1 };
        writer.write_entry(&ManifestEntry { object, run: 1, reached: vec![] }).unwrap();
        let bytes = writer.finish().unwrap();
        let cut = RunManifest::parse(&bytes.slice(..bytes.len() - 5), "x").unwrap();
        assert_eq!(cut.visit_entries(&mut |_| (), &mut |_| ()).unwrap_err().code(), "UnreadableBookmark");
    }
}
