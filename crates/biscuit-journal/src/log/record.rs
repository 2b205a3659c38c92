//! Commit records and done marks, and how objects of the journal are written and read.
//!
//! Each object is JSON with a format number and ends in a CRC-32 of everything before it. An object that is damaged,
//! or that names a path outside of the table or its state root, is refused before anything is done with it.

use std::collections::BTreeMap;

use biscuit_core::{Error, Instant, ObjectRef, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes;

/// Format of records, done marks, checkpoints and the pointer that this crate writes and reads.
pub(crate) const FORMAT: u32 = 3;

/// A new file that a record makes part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedFile {
    /// Final path, relative to the table.
    pub path: String,
    /// Staged path, relative to the state root.
    pub staged: String,
    /// Size in bytes.
    pub size: u64,
    /// Checksum of the content: `crc32:` and eight hexadecimal digits. Empty for a copy that was made by the store.
    pub checksum: String,
    /// Number of rows, for formats that have rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Name of the content, if this file is a copy: the path of the file that had the content first, or the name of
    /// the content of an external file. See [`TableHead::content_name`](crate::TableHead::content_name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl PublishedFile {
    /// Creates a file with content of its own: its final path, its staged path, its size in bytes and its checksum.
    pub fn new(path: String, staged: String, size: u64, checksum: String) -> Self {
        Self { path, staged, size, checksum, rows: None, content: None }
    }
}

/// Returns the name of the content of an external file: its path and its ETag, because the other program may write a
/// different file with the same path later.
pub(crate) fn external_content(file: &ObjectRef) -> String {
    format!("{} {}", file.path, file.etag.as_deref().unwrap_or_default())
}

/// A file that a record replaces and retains for a time, so that readers of older versions can finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RetainedFile {
    /// The file, as observed. Its path is relative to the table.
    #[serde(flatten)]
    pub file: ObjectRef,
    /// Minimum time that the file is retained after the commit of the record, in seconds.
    pub seconds: u64,
}

/// A state file that belongs to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StateFile {
    /// Path, relative to the state root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Checksum of the content: `crc32:` and eight hexadecimal digits.
    pub checksum: String,
}

/// One version of the table as one immutable object. The record contains everything that a process needs to finish
/// the version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommitRecord {
    /// Format of the record.
    pub format: u32,
    /// Version that this record makes. Its base is the version before.
    pub version: u64,
    /// Writer id of the execution that wrote the record.
    pub writer_id: String,
    /// Commit id, the same for every attempt of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<String>,
    /// Id that the scheduler gave the run, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Files to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PublishedFile>,
    /// Files to delete, as observed. As in `retain` and `adopt`, their paths are relative to the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<ObjectRef>,
    /// Files that are no longer part of the table and are retained for a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retain: Vec<RetainedFile>,
    /// External files that become part of the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<ObjectRef>,
    /// Live files that no longer exist. Only a run that adopts a diverged table commits some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_files: Vec<String>,
    /// Whether this version reconciles a diverged table: its state files and properties match the rows again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reconciles: bool,
    /// Changed state files by name; null removes the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, Option<StateFile>>,
    /// Changed properties by name; null removes the name. Other properties carry on from the base.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Value>,
    /// Report of the run, for the history.
    #[serde(default)]
    pub report: Value,
}

/// A version of the table in its history.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PastVersion {
    /// Commit record of the version.
    pub record: CommitRecord,
    /// Time of the commit, on the clock of the store.
    pub at: Instant,
    /// Whether the version is finished: its files have their final names, and the files that it removed are deleted.
    pub finished: bool,
}

/// Something that a finished version could not do, and why. The rows are right; the run ends *with exceptions*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommitException {
    /// Path of the file, relative to the table.
    pub path: String,
    /// Stable code: `Changed` for a file to remove that was not deleted, because another program has changed it;
    /// `Lost` for a staged file that does not exist and was not published; `NotRemoved` for a file that remains part
    /// of the table, because a file of its partition is lost.
    pub code: String,
}

/// The done mark of a finished version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneMark {
    /// Format of the mark.
    pub(crate) format: u32,
    /// Writer id of the record that the mark finishes. A record of another writer that appears under this number
    /// later is void.
    pub(crate) writer_id: String,
    /// ETags of the published files at their final names, by path.
    pub(crate) etags: BTreeMap<String, String>,
    /// Exceptions of the version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exceptions: Vec<CommitException>,
}

pub(crate) const CHANGED: &str = "Changed";
pub(crate) const LOST: &str = "Lost";
pub(crate) const NOT_REMOVED: &str = "NotRemoved";

impl DoneMark {
    pub(crate) fn has_losses(&self) -> bool {
        self.exceptions.iter().any(|e| e.code == LOST)
    }
}

/// An object of the journal. [`parse`] checks the paths that it names before anything is done with them.
pub(crate) trait JournalObject: Serialize + for<'a> Deserialize<'a> {
    /// Paths relative to the table.
    fn table_paths(&self) -> Vec<&str>;

    /// Paths relative to the state root.
    fn state_paths(&self) -> Vec<&str>;
}

impl JournalObject for CommitRecord {
    fn table_paths(&self) -> Vec<&str> {
        let published = self.publish.iter().map(|f| f.path.as_str());
        let retained = self.retain.iter().map(|h| &h.file);
        let observed = self.remove.iter().chain(retained).chain(&self.adopt).map(|f| f.path.as_str());
        published.chain(observed).chain(self.missing_files.iter().map(String::as_str)).collect()
    }

    fn state_paths(&self) -> Vec<&str> {
        let staged = self.publish.iter().map(|f| f.staged.as_str());
        staged.chain(self.state.values().flatten().map(|f| f.path.as_str())).collect()
    }
}

impl JournalObject for DoneMark {
    fn table_paths(&self) -> Vec<&str> {
        self.etags.keys().chain(self.exceptions.iter().map(|e| &e.path)).map(String::as_str).collect()
    }

    fn state_paths(&self) -> Vec<&str> {
        vec![]
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    #[serde(default)]
    format: u32,
}

/// Start of the last member of an object: `…,"checksum":"crc32:0a1b2c3d"}`. The CRC-32 covers all bytes before it.
const CHECKSUM: &str = ",\"checksum\":\"crc32:";

/// Parses an object of the journal.
///
/// The order of the checks decides which error a reader gets. The format comes first, because an object of a newer
/// format may have another checksum or none. The checksum comes before the older formats, because a flipped bit in
/// the number must not be reported as an older format.
///
/// # Errors
/// `NewerFormat`; `OlderFormat`; `UnreadableRecord` if the object does not parse, its checksum does not match, or it
/// names a path that leads out of the table or its state root.
pub(crate) fn parse<T: JournalObject>(bytes: &[u8], place: &str) -> Result<T> {
    let damaged = |what: &str| {
        let message = format!(
            "`{place}` is damaged: {what}; nothing was changed; restore this object from an object version or a copy of the store"
        );
        Error::new(codes::UNREADABLE_RECORD, message)
    };
    let unreadable = |e: serde_json::Error| damaged("it is not JSON of the expected form").with_source(e);
    if !bytes.starts_with(b"{") {
        return Err(damaged("it is not a JSON object"));
    }
    let FormatOnly { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if format > FORMAT {
        return Err(Error::new(
            codes::NEWER_FORMAT,
            format!(
                "`{place}` has format {format}, and this version of Biscuit reads formats up to {FORMAT}; update it"
            ),
        ));
    }
    let older = || {
        let message = format!(
            "`{place}` has format {format}, which development versions of Biscuit before 0.1.0 wrote; this version reads format {FORMAT}; read the table with the version that wrote it, or move its state root away and adopt its files into a new journal with `biscuit adopt`"
        );
        Error::new(codes::OLDER_FORMAT, message)
    };
    // Format 1 had no checksum, so an object without one is of that format, or damaged in a way that nothing shows.
    if format < FORMAT && memchr::memmem::find(bytes, CHECKSUM.as_bytes()).is_none() {
        return Err(older());
    }
    if !is_whole(bytes) {
        return Err(damaged("its checksum does not match its content"));
    }
    if format < FORMAT {
        return Err(older());
    }
    let object: T = serde_json::from_slice(bytes).map_err(unreadable)?;
    let state = |path: &str| path.starts_with("staging/") || path.starts_with("state/");
    let wrong = object.table_paths().into_iter().find(|path| !is_relative(path));
    let wrong = wrong.or_else(|| object.state_paths().into_iter().find(|path| !is_relative(path) || !state(path)));
    match wrong {
        Some(_) => Err(damaged("it names a path outside of the table")),
        None => Ok(object),
    }
}

/// Whether a relative path remains below its folder (no `..`, no leading `/`) and is a valid path of a store.
pub(crate) fn is_relative(path: &str) -> bool {
    !path.is_empty() && object_store::path::Path::parse(path).is_ok_and(|parsed| parsed.as_ref() == path)
}

/// Whether the checksum at the end matches. The search begins at the end, because a value inside of the object, such
/// as the report of a run, may contain the same text.
fn is_whole(bytes: &[u8]) -> bool {
    let at = memchr::memmem::rfind(bytes, CHECKSUM.as_bytes());
    at.is_some_and(|at| bytes[at..] == *checksum(&bytes[..at]).as_bytes())
}

/// Returns the checksum member of the bytes `before` it, with the closing brace of the object.
fn checksum(before: &[u8]) -> String {
    format!("{CHECKSUM}{:08x}\"}}", crc32fast::hash(before))
}

/// Serializes an object as JSON with its checksum as the last member.
pub(crate) fn to_bytes<T: JournalObject>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|e| Error::internal("a record could not be written as JSON").with_source(e))?;
    // Removes the closing brace, which `checksum` adds again after the checksum.
    bytes.pop();
    let end = checksum(&bytes);
    bytes.extend_from_slice(end.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CommitRecord {
        serde_json::from_value(serde_json::json!({"format": FORMAT, "version": 1, "writer_id": "n"}))
            .expect("the record is valid")
    }

    fn code<T: JournalObject>(bytes: &[u8]) -> &'static str {
        parse::<T>(bytes, "journal/1.json").err().map_or("", |e| e.code())
    }

    #[test]
    fn other_formats_are_refused_before_their_content_is_parsed() {
        assert_eq!(code::<CommitRecord>(br#"{"format": 4, "entirely": "different"}"#), "NewerFormat");
        assert_eq!(code::<CommitRecord>(br#"{"format": 1, "entirely": "different"}"#), "OlderFormat");
        assert_eq!(code::<CommitRecord>(br#"{"format": 3"#), "UnreadableRecord");
        // Format 2 had a checksum too.
        let older = to_bytes(&CommitRecord { format: 2, ..record() }).unwrap();
        assert_eq!(code::<CommitRecord>(&older), "OlderFormat");
    }

    #[test]
    fn every_changed_bit_and_every_truncation_is_detected() {
        let bytes = to_bytes(&record()).unwrap();
        assert_eq!(parse::<CommitRecord>(&bytes, "x").unwrap(), record());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let code = code::<CommitRecord>(&changed);
                assert!(
                    matches!(code, "UnreadableRecord" | "NewerFormat" | "OlderFormat"),
                    "byte {at}, bit {bit}: {code}"
                );
            }
            assert_eq!(code::<CommitRecord>(&bytes[..at]), "UnreadableRecord", "the first {at} bytes");
        }
    }

    #[test]
    fn record_with_a_path_outside_of_the_table_is_damaged() {
        let file = |path: &str| ObjectRef::new(path, 1, None);
        for path in ["../x", "a/../b", "/x", "a//b", "a/", "", "."] {
            let bytes = to_bytes(&CommitRecord { remove: vec![file(path)], ..record() }).unwrap();
            assert_eq!(code::<CommitRecord>(&bytes), "UnreadableRecord", "{path}");
        }
        let state = |path: &str| StateFile { path: path.to_owned(), size: 1, checksum: String::new() };
        let with = |path| CommitRecord { state: BTreeMap::from([("s".to_owned(), Some(state(path)))]), ..record() };
        assert_eq!(code::<CommitRecord>(&to_bytes(&with("state/0-n/s")).unwrap()), "");
        assert_eq!(code::<CommitRecord>(&to_bytes(&with("journal/1.json")).unwrap()), "UnreadableRecord");
    }

    #[test]
    fn retained_file_is_stored_as_one_flat_object() {
        let file = |etag: Option<&str>| ObjectRef::new("a", 1, etag.map(str::to_owned));
        for (file, json) in [
            (file(Some("\"e\"")), r#"{"path":"a","size":1,"etag":"\"e\"","seconds":60}"#),
            (file(None), r#"{"path":"a","size":1,"seconds":60}"#),
        ] {
            let retained = RetainedFile { file, seconds: 60 };
            assert_eq!(serde_json::to_string(&retained).unwrap(), json);
            assert_eq!(serde_json::from_str::<RetainedFile>(json).unwrap(), retained);
        }
    }
}
