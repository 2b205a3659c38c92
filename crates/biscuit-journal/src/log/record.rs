use std::collections::BTreeMap;

use biscuit_core::{Error, Instant, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::log::layout::folder_of;

/// The newest format of records and checkpoints that this crate writes and reads.
pub(crate) const FORMAT: u32 = 3;

/// A file that a record makes part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// The final path, relative to the table.
    pub path: String,
    /// The staged path, relative to the state root.
    pub staged: String,
    /// Bytes.
    pub size: u64,
    /// `crc32:` and eight hexadecimal digits.
    pub checksum: String,
    /// Rows, where the format has rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The content, by the file that had it first, where this one is a copy: see [`Head::content`](crate::Head::content).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A file that a record names as it was listed: to be deleted, or adopted into the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// The path, relative to the table.
    pub path: String,
    /// Bytes, as observed.
    pub size: u64,
    /// The ETag, as observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl FileRef {
    /// The folder that it is in, relative to the table; empty for the table's own.
    pub fn folder(&self) -> &str {
        folder_of(&self.path)
    }
}

/// The content of a file that somebody else wrote, who may write another one of this name later.
pub(crate) fn external_content(file: &FileRef) -> String {
    format!("{} {}", file.path, file.etag.as_deref().unwrap_or_default())
}

/// A file that is not part of the table any more, and stays in its folder for a while: for those that still read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedFile {
    /// The file, as observed.
    #[serde(flatten)]
    pub file: FileRef,
    /// How long it stays at least after the version that replaced it was committed, in seconds.
    pub seconds: u64,
}

/// A file of the state root that a record makes part of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// The path, relative to the state root.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// `crc32:` and eight hexadecimal digits.
    pub checksum: String,
}

/// One version of the table, as one immutable object: everything that is to be true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The record's format.
    pub format: u32,
    /// The version this record makes; it started from the one before.
    pub version: u64,
    /// The execution that wrote it.
    pub writer_id: String,
    /// What the run calls this commit, the same for every attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<String>,
    /// What the scheduler calls the run, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Files to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PublishedFile>,
    /// Files to delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<FileRef>,
    /// Files that are part of the table no more and stay for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retain: Vec<RetainedFile>,
    /// External files that are part of the table from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<FileRef>,
    /// Files that are part of the table no more, and were gone already: what a run that adopts a diverged table finds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_files: Vec<String>,
    /// Whether this version settles a divergence: what is kept besides the rows was brought into line with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reconciles: bool,
    /// State files by name; null drops the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, Option<StateFile>>,
    /// Small facts by name, kept from version to version; null drops the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Value>,
    /// What the run reports of itself, for the history.
    #[serde(default)]
    pub report: Value,
}

/// A version of the table, as the history shows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PastVersion {
    /// What was committed.
    pub record: CommitRecord,
    /// When the record was committed, by the store's clock.
    pub at: Instant,
    /// Whether the version is finished: its files are in their places, and those that it replaced are gone.
    pub finished: bool,
}

/// Something a finished version could not do, and why: the run ends *with exceptions*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitException {
    /// The path, relative to the table.
    pub path: String,
    /// A stable code: `Changed` for a file that is not the observed one any more and was kept; `Lost` for a staged file
    /// that could not be published, `NotRetired` for one that stays in its place.
    pub code: String,
}

/// The mark of a finished version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneMark {
    /// The mark's format.
    pub(crate) format: u32,
    /// The execution whose record it is: one that is put under this number later is void.
    pub(crate) writer_id: String,
    /// The ETags of published files at their final names.
    pub(crate) etags: BTreeMap<String, String>,
    /// What could not be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exceptions: Vec<CommitException>,
}

pub(crate) const CHANGED: &str = "Changed";
pub(crate) const LOST: &str = "Lost";
pub(crate) const NOT_RETIRED: &str = "NotRetired";

impl DoneMark {
    pub(crate) fn has_losses(&self) -> bool {
        self.exceptions.iter().any(|e| e.code == LOST)
    }
}

/// An object of the journal: what it names is looked at before anything is done with it.
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

/// The last member of an object of the journal is the CRC-32 of everything before it.
const CHECKSUM: &str = ",\"checksum\":\"crc32:";

/// Reads an object of the journal; one of a newer format is refused before anything else of it is looked at.
///
/// # Errors
/// `NewerFormat`; `UnreadableRecord` for an object that is not what was written: it does not parse, its checksum is
/// another one, or it names a path that leads out of the table or its state root.
pub(crate) fn parse<T: JournalObject>(bytes: &[u8], place: &str) -> Result<T> {
    let damaged = |what: &str| {
        let message = format!(
            "`{place}` is damaged: {what}; nothing was changed. Restore this object from a version or a copy of the store"
        );
        Error::data("UnreadableRecord", message)
    };
    let unreadable = |e: serde_json::Error| damaged("it is not the JSON that is expected").with_source(e);
    if !bytes.starts_with(b"{") {
        return Err(damaged("it is not a JSON object"));
    }
    let FormatOnly { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if format > FORMAT {
        return Err(Error::usage(
            "NewerFormat",
            format!("`{place}` has format {format}; this version of Biscuit knows up to {FORMAT}: update it"),
        ));
    }
    let older = || {
        let message = format!(
            "`{place}` has format {format}, which development versions of Biscuit before 0.1.0 wrote; this version reads format {FORMAT}. Read the table with the version that wrote it, or move its state root away and take its files into a new journal with `biscuit adopt`"
        );
        Error::usage("OlderFormat", message)
    };
    // Format 1 had no checksum: without one, the number is all that there is to go by.
    if format < FORMAT && memchr::memmem::find(bytes, CHECKSUM.as_bytes()).is_none() {
        return Err(older());
    }
    if !is_whole(bytes) {
        return Err(damaged("its checksum does not fit its content"));
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

/// Whether a path stays below the folder that it is relative to, and is one that a store can name.
pub(crate) fn is_relative(path: &str) -> bool {
    !path.is_empty() && object_store::path::Path::parse(path).is_ok_and(|parsed| parsed.as_ref() == path)
}

fn is_whole(bytes: &[u8]) -> bool {
    let at = memchr::memmem::rfind(bytes, CHECKSUM.as_bytes());
    at.is_some_and(|at| bytes[at..] == *checksum(&bytes[..at]).as_bytes())
}

/// The checksum of what comes before it, with the end of the object.
fn checksum(before: &[u8]) -> String {
    format!("{CHECKSUM}{:08x}\"}}", crc32fast::hash(before))
}

/// The object as JSON, its checksum last.
pub(crate) fn to_bytes<T: JournalObject>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|e| Error::internal("a record could not be written as JSON").with_source(e))?;
    // The closing brace comes after the checksum.
    bytes.pop();
    let end = checksum(&bytes);
    bytes.extend_from_slice(end.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CommitRecord {
        serde_json::from_value(serde_json::json!({"format": FORMAT, "version": 1, "writer_id": "n"})).expect("a record")
    }

    fn code<T: JournalObject>(bytes: &[u8]) -> &'static str {
        parse::<T>(bytes, "journal/1.json").err().map_or("", |e| e.code())
    }

    #[test]
    fn other_formats_are_refused_whatever_else_is_in_them() {
        assert_eq!(code::<CommitRecord>(br#"{"format": 4, "entirely": "different"}"#), "NewerFormat");
        assert_eq!(code::<CommitRecord>(br#"{"format": 1, "entirely": "different"}"#), "OlderFormat");
        assert_eq!(code::<CommitRecord>(br#"{"format": 3"#), "UnreadableRecord");
        // Format 2 had a checksum too.
        let older = to_bytes(&CommitRecord { format: 2, ..record() }).unwrap();
        assert_eq!(code::<CommitRecord>(&older), "OlderFormat");
    }

    #[test]
    fn every_changed_byte_is_found() {
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
    fn paths_that_lead_out_of_the_table_are_damage() {
        let file = |path: &str| FileRef { path: path.to_owned(), size: 1, etag: None };
        for path in ["../x", "a/../b", "/x", "a//b", "a/", "", "."] {
            let bytes = to_bytes(&CommitRecord { remove: vec![file(path)], ..record() }).unwrap();
            assert_eq!(code::<CommitRecord>(&bytes), "UnreadableRecord", "{path}");
        }
        let state = |path: &str| StateFile { path: path.to_owned(), size: 1, checksum: String::new() };
        let with = |path| CommitRecord { state: BTreeMap::from([("s".to_owned(), Some(state(path)))]), ..record() };
        assert_eq!(code::<CommitRecord>(&to_bytes(&with("state/0-n/s")).unwrap()), "");
        assert_eq!(code::<CommitRecord>(&to_bytes(&with("journal/1.json")).unwrap()), "UnreadableRecord");
    }
}
