//! How text files of a source are written: the dialect of CSV, and the encoding.

use biscuit_change::{CsvDialect, TextEncoding};
use serde::{Deserialize, Deserializer};

/// Whether CSV files begin with a line of column names. In a job file, `true` or `false`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "bool")]
#[non_exhaustive]
pub enum CsvHeader {
    /// The first line has the names of the columns.
    #[default]
    Present,
    /// The files have only rows. The columns are those of the contract, in its order.
    Absent,
}

impl From<bool> for CsvHeader {
    fn from(header: bool) -> Self {
        if header { Self::Present } else { Self::Absent }
    }
}

/// Dialect of CSV files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CsvFields")]
#[non_exhaustive]
pub struct CsvSpec {
    /// Delimiter, quote, escape and comment characters. In a job file, each is a character or a name such as `tab`;
    /// see [`CsvDialect::byte`].
    pub dialect: CsvDialect,
    /// Whether the first line has the names of the columns. Default: it has.
    pub header: CsvHeader,
    /// Cell that stands for null, in addition to the empty cell. Default: none.
    pub null: String,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self { dialect: CsvDialect::default(), header: CsvHeader::Present, null: String::new() }
    }
}

impl CsvSpec {
    /// Sets delimiter, quote, escape and comment characters. In a job file, these are four keys of `csv`. Default:
    /// commas, or tabs in `.tsv` files; quotes `"`, which are doubled inside of quotes; no comments.
    #[must_use]
    pub fn with_dialect(mut self, dialect: CsvDialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Sets whether the first line has the names of the columns. Default: [`CsvHeader::Present`].
    #[must_use]
    pub fn with_header(mut self, header: CsvHeader) -> Self {
        self.header = header;
        self
    }

    /// Sets the cell that stands for null, in addition to the empty cell. Default: none.
    #[must_use]
    pub fn with_null(mut self, cell: impl Into<String>) -> Self {
        self.null = cell.into();
        self
    }
}

/// [`CsvSpec`] as written in a job file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvFields {
    delimiter: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    comment: Option<String>,
    header: Option<CsvHeader>,
    null: Option<String>,
}

impl TryFrom<CsvFields> for CsvSpec {
    type Error = String;

    fn try_from(fields: CsvFields) -> std::result::Result<Self, String> {
        let defaults = Self::default();
        let byte = |name: &Option<String>, default: Option<u8>| match name {
            Some(name) => CsvDialect::byte(name).map_err(|e| e.message().to_owned()),
            None => Ok(default),
        };
        let mut dialect = defaults.dialect;
        dialect.delimiter = byte(&fields.delimiter, dialect.delimiter)?;
        dialect.quote = byte(&fields.quote, dialect.quote)?;
        dialect.escape = byte(&fields.escape, dialect.escape)?;
        dialect.comment = byte(&fields.comment, dialect.comment)?;
        if fields.delimiter.is_some() && dialect.delimiter.is_none() {
            return Err("CSV needs a delimiter".to_owned());
        }
        Ok(Self {
            dialect,
            header: fields.header.unwrap_or(defaults.header),
            null: fields.null.unwrap_or(defaults.null),
        })
    }
}

/// How text files are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextSpec {
    /// Dialect of CSV.
    pub csv: CsvSpec,
    /// Encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

/// Reads an encoding by its name.
pub(super) fn deserialize_encoding<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<TextEncoding>, D::Error> {
    let name = String::deserialize(deserializer)?;
    TextEncoding::from_label(&name).map(Some).map_err(|e| serde::de::Error::custom(e.message()))
}
