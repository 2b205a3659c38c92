use std::collections::BTreeMap;

use biscuit_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::folder_of;

/// The newest format of records and checkpoints that this crate writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// A file that a record makes part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
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
pub struct Retired {
    /// The path, relative to the table.
    pub path: String,
    /// Bytes, as observed.
    pub size: u64,
    /// The ETag, as observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl Retired {
    /// The folder that it is in, relative to the table; empty for the table's own.
    pub fn folder(&self) -> &str {
        folder_of(&self.path)
    }
}

/// The content of a file that somebody else wrote, who may write another one of this name later.
pub(crate) fn foreign_content(file: &Retired) -> String {
    format!("{} {}", file.path, file.etag.as_deref().unwrap_or_default())
}

/// A file that is not part of the table any more, and stays in its folder for a while: for those that still read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The file, as observed.
    #[serde(flatten)]
    pub file: Retired,
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
pub struct Record {
    /// The record's format.
    pub format: u32,
    /// The version this record makes; it started from the one before.
    pub version: u64,
    /// The execution that wrote it.
    pub nonce: String,
    /// What the run calls this commit, the same for every attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<String>,
    /// Files to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Published>,
    /// Files to delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retire: Vec<Retired>,
    /// Files that are part of the table no more and stay for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hold: Vec<Held>,
    /// Foreign files that are part of the table from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<Retired>,
    /// Files that are part of the table no more, and were gone already: what a run that adopts a diverged table finds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forget: Vec<String>,
    /// Whether this version settles a divergence: what is kept besides the rows was brought into line with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settles: bool,
    /// State files by name; null drops the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, Option<StateFile>>,
    /// Small facts by name, kept from version to version; null drops the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, Value>,
    /// What the run reports of itself, for the history.
    #[serde(default)]
    pub report: Value,
}

/// Something a finished version could not do, and why: the run ends *with exceptions*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// The path, relative to the table.
    pub path: String,
    /// A stable code: `Changed` for a file that is not the observed one any more and was kept; `Lost` for a staged file
    /// that could not be published, `NotRetired` for one that stays in its place.
    pub code: String,
}

/// The mark of a finished version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The execution whose record it is: one that is put under this number later is void.
    pub(crate) nonce: String,
    /// The ETags of published files at their final names.
    pub(crate) etags: BTreeMap<String, String>,
    /// What could not be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exceptions: Vec<Exception>,
}

pub(crate) const CHANGED: &str = "Changed";
pub(crate) const LOST: &str = "Lost";
pub(crate) const NOT_RETIRED: &str = "NotRetired";

impl Done {
    pub(crate) fn has_losses(&self) -> bool {
        self.exceptions.iter().any(|e| e.code == LOST)
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    #[serde(default)]
    format: u32,
}

/// Reads an object of the journal; one of a newer format is refused before anything else of it is looked at.
pub(crate) fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8], place: &str) -> Result<T> {
    let unreadable = |e: serde_json::Error| {
        Error::new(ErrorKind::Unavailable, "UnreadableRecord", format!("`{place}` cannot be read")).with_source(e)
    };
    let FormatOnly { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if format > FORMAT {
        return Err(Error::usage(
            "NewerFormat",
            format!("`{place}` has format {format}; this version of Biscuit knows up to {FORMAT}: update it"),
        ));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal("a record could not be written as JSON").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_whatever_else_is_in_it() {
        let e = parse::<Record>(br#"{"format": 2, "entirely": "different"}"#, "journal/1.json").unwrap_err();
        assert_eq!(e.code(), "NewerFormat");
        assert_eq!(parse::<Record>(br#"{"format": 1"#, "x").unwrap_err().code(), "UnreadableRecord");
    }
}
