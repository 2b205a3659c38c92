use std::io::{Read, Write};

use biscuit_core::{Error, ErrorKind, Instant, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::{ObjectFingerprint, SourceObject};

/// The format of state files.
const FORMAT: u32 = 2;

/// What a run was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunKind {
    /// It read objects for the first time, or again since they were overwritten.
    Advance,
    /// It read objects again that earlier runs had read, and replaced what these had appended.
    Replay,
    /// It read objects again for some partitions, which it built anew.
    Rebuild,
    /// Nothing was read: everything that was there counts as read.
    SetToNow,
}

/// What a run wrote, as far as its manifest remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutput {
    /// Files of the output that hold rows of this run's objects and no others, relative to the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Partition folders that the run's rows are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
    /// Of single objects, by URL, the places of `partitions` that their rows are in; of others it is not known.
    #[serde(skip)]
    pub reached: Vec<(String, Vec<u32>)>,
}

/// A run that a bookmark remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunRecord {
    /// Its number: 1 for the first, and one more for every run that remembered something.
    pub number: u64,
    /// The scheduler's name for it.
    pub id: String,
    /// Which attempt of that it was.
    pub attempt: u32,
    /// When that attempt started, in microseconds since 1970 on the host's clock. Nothing is compared with it.
    pub started: i64,
    /// What it was.
    pub kind: RunKind,
    /// Objects it read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The newest time of modification among them.
    pub newest: i64,
    /// Where the source was, as URLs.
    pub places: Vec<String>,
    /// How the objects were read, in the caller's words, and by which identity.
    pub reading: Value,
    /// The runs whose output it replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<u64>,
    /// What it wrote.
    #[serde(default)]
    pub output: RunOutput,
}

impl RunRecord {
    /// When that attempt started.
    pub fn started(&self) -> Instant {
        Instant::from_micros(self.started)
    }
}

/// An object that a run read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestEntry {
    pub(crate) object: SourceObject,
    pub(crate) run: u64,
    /// Places in the run's `partitions`, where they are known.
    pub(crate) reached: Vec<u32>,
}

/// An object that a run read of which only this is kept.
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
/// A line of JSON with the runs; then, compressed with zstd: the objects of runs that are remembered by name, sorted by URL and run, each
/// by what of its URL differs from the one before; then those of runs that are in no head any more, as three numbers and the run's.
#[derive(Debug, Clone)]
pub(crate) struct RunManifest {
    pub(crate) runs: Vec<RunRecord>,
    entries: u64,
    compacted: u64,
    packed: Bytes,
}

impl RunManifest {
    /// Reads the head of a state file; the objects are read when they are asked for.
    pub(crate) fn parse(bytes: &Bytes, place: &str) -> Result<Self> {
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| unreadable(place))?;
        let line = &bytes[..end];
        let format: Value = serde_json::from_slice(line).map_err(|e| unreadable(place).with_source(e))?;
        let number = format["format"].as_u64().unwrap_or(0);
        if number > u64::from(FORMAT) {
            let message = format!("`{place}` has a newer format than this version of Biscuit knows: update it");
            return Err(Error::usage("NewerFormat", message));
        }
        if number < u64::from(FORMAT) {
            let message = format!(
                "`{place}` has format {number}, which development versions of Biscuit before 0.1.0 wrote; this version reads format {FORMAT}"
            );
            return Err(Error::usage("OlderFormat", message));
        }
        let ManifestHeader { runs, entries, compacted, .. } =
            serde_json::from_value(format).map_err(|e| unreadable(place).with_source(e))?;
        Ok(Self { runs, entries, compacted, packed: bytes.slice(end + 1..) })
    }

    /// How many objects it has.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.entries + self.compacted).unwrap_or(usize::MAX)
    }

    /// Bytes of its compressed part.
    pub(crate) fn bytes(&self) -> u64 {
        self.packed.len() as u64
    }

    /// Calls `entry` and `compacted` for all of them, the entries by URL and run.
    pub(crate) fn each(
        &self,
        entry: &mut dyn FnMut(ManifestEntry),
        compacted: &mut dyn FnMut(CompactedEntry),
    ) -> Result<()> {
        let mut reader = self.reader()?;
        while let Some(next) = reader.entry()? {
            entry(next);
        }
        while let Some(next) = reader.compacted()? {
            compacted(next);
        }
        Ok(())
    }

    pub(crate) fn reader(&self) -> Result<ManifestReader<'_>> {
        let zstd = zstd::stream::read::Decoder::with_buffer(self.packed.as_ref()).map_err(damaged)?;
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

/// Reads the objects of a manifest one after the other.
pub(crate) struct ManifestReader<'a> {
    input: PackedInput<'a>,
    numbers: Vec<u64>,
    entries: u64,
    compacted: u64,
    url: Vec<u8>,
    etag: Vec<u8>,
    has_etag: bool,
    modified: i64,
    last: u64,
}

impl ManifestReader<'_> {
    /// The next object that is remembered by name.
    pub(crate) fn entry(&mut self) -> Result<Option<ManifestEntry>> {
        let Some((size, run)) = self.begin()? else { return Ok(None) };
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).map_err(damaged);
        let url = text(&self.url)?;
        let etag = self.has_etag.then(|| text(&self.etag)).transpose()?;
        let reached = self.length()?;
        let reached = (0..reached).map(|_| self.length().map(|n| n as u32)).collect::<Result<_>>()?;
        Ok(Some(ManifestEntry { object: SourceObject { url, size, etag, modified: self.modified }, run, reached }))
    }

    /// The next object that is remembered by name, as numbers.
    pub(crate) fn fingerprint(&mut self) -> Result<Option<(ObjectFingerprint, u64)>> {
        let Some((size, run)) = self.begin()? else { return Ok(None) };
        for _ in 0..self.length()? {
            self.number()?;
        }
        let etag = self.has_etag.then_some(self.etag.as_slice());
        Ok(Some((ObjectFingerprint::of(&self.url, size, etag, self.modified), run)))
    }

    /// Reads all of an entry but the partitions; answers with its size and run.
    fn begin(&mut self) -> Result<Option<(u64, u64)>> {
        if self.entries == 0 {
            return Ok(None);
        }
        self.entries -= 1;
        let shared = self.length()?;
        self.url.truncate(shared);
        let suffix = self.length()?;
        self.input.take(suffix, &mut self.url)?;
        let run = self.run()?;
        let size = self.number()?;
        self.modified = self.modified.wrapping_add(unzigzag(self.number()?));
        self.etag.clear();
        let etag = self.length()?;
        self.has_etag = etag > 0;
        self.input.take(etag.saturating_sub(1), &mut self.etag)?;
        Ok(Some((size, run)))
    }

    /// The next one of the others, behind all that are remembered by name.
    pub(crate) fn compacted(&mut self) -> Result<Option<CompactedEntry>> {
        if self.compacted == 0 {
            return Ok(None);
        }
        self.compacted -= 1;
        self.last = self.last.wrapping_add(self.number()?);
        let mut content = Vec::with_capacity(8);
        self.input.take(8, &mut content)?;
        let content = content.try_into().map_err(|_| damaged("it ends too early"))?;
        let modified = unzigzag(self.number()?);
        let fingerprint = ObjectFingerprint { url: self.last, content: u64::from_le_bytes(content), modified };
        Ok(Some(CompactedEntry { fingerprint, run: self.number()? }))
    }

    fn run(&mut self) -> Result<u64> {
        let at = self.length()?;
        self.numbers.get(at).copied().ok_or_else(|| damaged("a run that is not in the head"))
    }

    fn number(&mut self) -> Result<u64> {
        self.input.number()
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.number()?).map_err(damaged)
    }
}

/// What is decompressed and not read yet.
struct PackedInput<'a> {
    zstd: zstd::stream::read::Decoder<'static, &'a [u8]>,
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

impl PackedInput<'_> {
    /// Has so many bytes at hand, or all that are left.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        while self.bytes.len() - self.at < wanted && !self.ended {
            self.bytes.drain(..self.at);
            self.at = 0;
            let had = self.bytes.len();
            let more = wanted.max(1 << 16) as u64;
            (&mut self.zstd).take(more).read_to_end(&mut self.bytes).map_err(damaged)?;
            self.ended = self.bytes.len() == had;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64> {
        if self.bytes.len() - self.at < MOST {
            self.fill(MOST)?;
        }
        let mut value = 0u64;
        for (i, byte) in self.bytes[self.at..].iter().take(MOST).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(damaged("a number has no end"))
    }

    /// Appends so many bytes.
    fn take(&mut self, length: usize, to: &mut Vec<u8>) -> Result<()> {
        self.fill(length)?;
        let bytes = self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end));
        to.extend_from_slice(bytes.ok_or_else(|| damaged("it ends too early"))?);
        self.at += length;
        Ok(())
    }
}

/// The most bytes of a number.
const MOST: usize = 10;

/// Writes a manifest: entries by URL and run, then the others by their numbers.
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
    /// A manifest of these runs, by number.
    pub(crate) fn new(runs: Vec<RunRecord>) -> Result<Self> {
        let out = zstd::stream::write::Encoder::new(Vec::new(), 3).map_err(unwritable)?;
        let (entries, compacted, modified, last) = (0, 0, 0, 0);
        Ok(Self { runs, out, entries, compacted, url: String::new(), modified, last, scratch: Vec::new() })
    }

    pub(crate) fn entry(&mut self, entry: &ManifestEntry) -> Result<()> {
        let at = self.place(entry.run)?;
        let (url, out) = (entry.object.url.as_str(), &mut self.scratch);
        let mut shared = self.url.bytes().zip(url.bytes()).take_while(|(a, b)| a == b).count();
        while !url.is_char_boundary(shared) {
            shared -= 1;
        }
        put(out, shared as u64);
        put(out, (url.len() - shared) as u64);
        out.extend_from_slice(&url.as_bytes()[shared..]);
        put(out, at);
        put(out, entry.object.size);
        put(out, zigzag(entry.object.modified.wrapping_sub(self.modified)));
        let etag = entry.object.etag.as_deref();
        put(out, etag.map_or(0, |e| e.len() as u64 + 1));
        out.extend_from_slice(etag.unwrap_or_default().as_bytes());
        put(out, entry.reached.len() as u64);
        entry.reached.iter().for_each(|n| put(out, u64::from(*n)));
        url.clone_into(&mut self.url);
        self.modified = entry.object.modified;
        self.entries += 1;
        self.flush()
    }

    pub(crate) fn compacted(&mut self, compacted: CompactedEntry) -> Result<()> {
        let out = &mut self.scratch;
        put(out, compacted.fingerprint.url.wrapping_sub(self.last));
        out.extend_from_slice(&compacted.fingerprint.content.to_le_bytes());
        put(out, zigzag(compacted.fingerprint.modified));
        put(out, compacted.run);
        self.last = compacted.fingerprint.url;
        self.compacted += 1;
        self.flush()
    }

    pub(crate) fn finish(self) -> Result<Bytes> {
        let packed = self.out.finish().map_err(unwritable)?;
        let header =
            ManifestHeader { format: FORMAT, runs: self.runs, entries: self.entries, compacted: self.compacted };
        let mut bytes = serde_json::to_vec(&header).map_err(unwritable)?;
        bytes.push(b'\n');
        bytes.extend(packed);
        Ok(bytes.into())
    }

    fn place(&self, run: u64) -> Result<u64> {
        let at = self.runs.binary_search_by_key(&run, |r| r.number);
        at.map(|at| at as u64).map_err(|_| Error::internal(format!("run {run} is not in its manifest")))
    }

    fn flush(&mut self) -> Result<()> {
        self.out.write_all(&self.scratch).map_err(unwritable)?;
        self.scratch.clear();
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

fn unreadable(place: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "UnreadableBookmark", format!("`{place}` is no state of a bookmark"))
}

fn damaged(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, "UnreadableBookmark", "the state of a bookmark is damaged").with_source(reason)
}

fn unwritable(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("the state of a bookmark could not be written").with_source(reason)
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
        fn what_is_written_is_read(
            mut entries in proptest::collection::vec(
                ("[a-zé/]{0,12}", 1u64..4, any::<u64>(), any::<i64>(), proptest::option::of("[\"a-f0-9-]{0,40}"),
                 proptest::collection::vec(any::<u32>(), 0..3)), 0..40),
            mut compacted in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<i64>(), 1u64..4), 0..40),
        ) {
            entries.sort();
            compacted.sort_unstable();
            let entries: Vec<ManifestEntry> = entries.into_iter().map(|(url, run, size, modified, etag, reached)| {
                ManifestEntry { object: SourceObject { url, size, etag, modified }, run, reached }
            }).collect();
            let compacted: Vec<CompactedEntry> = compacted.into_iter().map(|(url, content, modified, run)| {
                CompactedEntry { fingerprint: ObjectFingerprint { url, content, modified }, run }
            }).collect();
            let mut writer = ManifestWriter::new((1..4).map(record).collect()).unwrap();
            entries.iter().for_each(|e| writer.entry(e).unwrap());
            compacted.iter().for_each(|f| writer.compacted(*f).unwrap());
            let bytes = writer.finish().unwrap();
            let manifest = RunManifest::parse(&bytes, "x").unwrap();
            let (mut read, mut read_faded) = (vec![], vec![]);
            manifest.each(&mut |e| read.push(e), &mut |f| read_faded.push(f)).unwrap();
            prop_assert_eq!(read, entries);
            prop_assert_eq!(read_faded, compacted);
        }
    }

    #[test]
    fn a_newer_format_and_damage_are_told_apart() {
        let e = RunManifest::parse(&Bytes::from_static(b"{\"format\": 3}\n"), "x").unwrap_err();
        assert_eq!(e.code(), "NewerFormat");
        let e = RunManifest::parse(&Bytes::from_static(b"{\"format\": 1}\n"), "x").unwrap_err();
        assert_eq!(e.code(), "OlderFormat");
        let e = RunManifest::parse(&Bytes::from_static(b"{}"), "x").unwrap_err();
        assert_eq!(e.code(), "UnreadableBookmark");
        let mut writer = ManifestWriter::new(vec![record(1)]).unwrap();
        let object = SourceObject { url: "a".into(), size: 1, etag: None, modified: 1 };
        writer.entry(&ManifestEntry { object, run: 1, reached: vec![] }).unwrap();
        let bytes = writer.finish().unwrap();
        let cut = RunManifest::parse(&bytes.slice(..bytes.len() - 5), "x").unwrap();
        assert_eq!(cut.each(&mut |_| (), &mut |_| ()).unwrap_err().code(), "UnreadableBookmark");
    }
}
