//! Values of the settings of a source.

use serde::{Deserialize, Deserializer, Serialize};

/// Format of the objects of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SourceFormat {
    /// A stream of JSON objects: one a line, concatenated, over several lines, or in one array.
    Json,
    /// CSV.
    Csv,
    /// Parquet.
    Parquet,
    /// Change records: plain rows with an operation column.
    Rows,
    /// Change records: Debezium envelopes.
    Debezium,
    /// Change records: files of AWS DMS.
    Dms,
}

impl SourceFormat {
    /// Returns whether the objects are change records, which can be merged but not transformed.
    pub fn is_changes(self) -> bool {
        matches!(self, Self::Rows | Self::Debezium | Self::Dms)
    }
}

/// Meaning of folders with Hive names, such as `dt=2024-02-28`, in the input. In a job file, `true` or `false`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "bool")]
#[non_exhaustive]
pub enum HivePartitioning {
    /// They are columns of the rows below them.
    #[default]
    Columns,
    /// They are ordinary folders.
    Ignored,
}

impl From<bool> for HivePartitioning {
    fn from(columns: bool) -> Self {
        if columns { Self::Columns } else { Self::Ignored }
    }
}

/// Handling of a location without objects when a source is read for the first time, or without a bookmark. In a job
/// file, `true` or `false`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "bool")]
#[non_exhaustive]
pub enum EmptyLocation {
    /// The run stops.
    #[default]
    Refuse,
    /// The source has no rows.
    Allow,
}

impl From<bool> for EmptyLocation {
    fn from(allow: bool) -> Self {
        if allow { Self::Allow } else { Self::Refuse }
    }
}

/// Bookmark of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BookmarkText")]
pub(super) enum SourceBookmark {
    /// It has the name of the source.
    #[default]
    OfSource,
    Named(String),
    None,
}

/// Bookmark as written in a job file: its name, or whether there is one.
#[derive(Deserialize)]
#[serde(untagged)]
enum BookmarkText {
    Named(String),
    On(bool),
}

impl From<BookmarkText> for SourceBookmark {
    fn from(text: BookmarkText) -> Self {
        match text {
            BookmarkText::Named(name) => Self::Named(name),
            BookmarkText::On(true) => Self::OfSource,
            BookmarkText::On(false) => Self::None,
        }
    }
}

/// One value or a list of values.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Reads one text or a list of texts.
pub(super) fn deserialize_one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<String>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(value) => vec![value],
        OneOrMany::Many(values) => values,
    })
}
