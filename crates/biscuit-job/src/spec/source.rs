//! A source of a job: where its objects are, how they are read, and which of them a run reads.

use std::collections::BTreeMap;

use biscuit_bookmark::{BookmarkOptions, LatePolicy, MissingObjects, ObjectIdentity, OverwrittenPolicy};
use biscuit_change::{OpMap, TextEncoding};
use biscuit_core::{Result, parse_duration};
use serde::Deserialize;

use crate::spec::contract::{ContractSpec, RulesSpec};
use crate::spec::source_values::{
    EmptyLocation, HivePartitioning, SourceBookmark, SourceFormat, deserialize_one_or_many,
};
use crate::spec::text::{CsvSpec, TextSpec, deserialize_encoding};

/// A source of rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SourceSpec {
    /// Paths or URLs of files, folders or globs.
    #[serde(deserialize_with = "deserialize_one_or_many")]
    url: Vec<String>,
    /// Format of the objects.
    pub format: SourceFormat,
    /// Name of the bookmark, or `false` for none. Default: the name of the source.
    #[serde(default)]
    bookmark: SourceBookmark,
    /// Contract of the rows.
    pub contract: Option<ContractSpec>,
    /// How columns get their types without a contract.
    pub rules: Option<RulesSpec>,
    /// Dialect of CSV files.
    #[serde(default)]
    pub csv: CsvSpec,
    /// Encoding of CSV and JSON without a byte order mark, by a name such as `latin1`. Default: UTF-8.
    #[serde(default, deserialize_with = "deserialize_encoding")]
    pub encoding: Option<TextEncoding>,
    /// Column that gets the URL of the object of each row.
    pub source_file: Option<String>,
    /// Whether folders with Hive names, such as `dt=2024-02-28`, become columns of the rows below them. Change
    /// records never have such columns. Default: they become columns.
    #[serde(default)]
    pub hive_partitioning: HivePartitioning,
    /// How an overwritten object is recognized. Default: by its content.
    #[serde(default)]
    pub identity: ObjectIdentity,
    /// How far below the newest read object the modification time of an unread object may be, such as `24h`, or
    /// `none` for no limit. Default: 24 hours.
    pub allowed_lateness: Option<String>,
    /// Handling of objects beyond the allowed lateness. Default: they are reported and not read.
    #[serde(default)]
    pub late: LatePolicy,
    /// Handling of objects that were overwritten after they were read. Default: they are read again.
    #[serde(default)]
    pub overwritten: OverwrittenPolicy,
    /// Maximum number of objects in a run; the next run reads the rest. Default: no limit.
    pub limit_files: Option<usize>,
    /// Maximum bytes in a run; the next run reads the rest. At least one object is read. Default: no limit.
    pub limit_bytes: Option<u64>,
    /// Whether a run continues without objects that are deleted while it reads. Default: it stops.
    #[serde(default)]
    pub allow_missing: MissingObjects,
    /// Whether a location may have no objects when the source is read for the first time, or without a bookmark.
    /// Default: it must have objects.
    #[serde(default)]
    pub allow_empty: EmptyLocation,
    /// For `debezium` and `dms`: the table, as `schema.table`.
    pub table: Option<String>,
    /// For change records: the operation column.
    pub op: Option<String>,
    /// For change records: operation codes beyond those of common tools, with their meaning: `upsert`, `delete`,
    /// `truncate` or `ignore`.
    #[serde(default)]
    pub op_map: BTreeMap<String, String>,
    /// For `dms`: `TimestampColumnName` of the task.
    pub timestamp_column: Option<String>,
    /// For `dms`: `CsvNullValue` of the task.
    pub csv_null: Option<String>,
    /// For `dms`: prefix of the columns that contain the key before an update.
    pub before_image: Option<String>,
    /// For `debezium` and `rows`: text that stands for an unchanged value.
    pub placeholder: Option<String>,
    /// For change records: maximum bytes of one file after decompression and decoding; see
    /// [`RowsOptions::max_decompressed`](biscuit_change::RowsOptions::max_decompressed).
    pub max_decompressed: Option<u64>,
    /// Maximum bytes of one record in a text file. Default for change records:
    /// [`RowsOptions::max_record`](biscuit_change::RowsOptions::max_record); for `csv` and `json`: 256 MiB, where less than
    /// 8 MiB counts as 8 MiB. Maximum: 1 GiB.
    pub max_record: Option<u64>,
}

impl SourceSpec {
    /// Creates a source of the objects at these paths or URLs of files, folders or globs.
    #[must_use]
    pub fn new<S: Into<String>>(url: impl IntoIterator<Item = S>, format: SourceFormat) -> Self {
        Self {
            url: url.into_iter().map(Into::into).collect(),
            format,
            bookmark: SourceBookmark::default(),
            contract: None,
            rules: None,
            csv: CsvSpec::default(),
            encoding: None,
            source_file: None,
            hive_partitioning: HivePartitioning::default(),
            identity: ObjectIdentity::default(),
            allowed_lateness: None,
            late: LatePolicy::default(),
            overwritten: OverwrittenPolicy::default(),
            limit_files: None,
            limit_bytes: None,
            allow_missing: MissingObjects::default(),
            allow_empty: EmptyLocation::default(),
            table: None,
            op: None,
            op_map: std::collections::BTreeMap::new(),
            timestamp_column: None,
            csv_null: None,
            before_image: None,
            placeholder: None,
            max_decompressed: None,
            max_record: None,
        }
    }

    /// Returns how the text files of the source are written.
    pub fn text(&self) -> TextSpec {
        TextSpec { csv: self.csv.clone(), encoding: self.encoding }
    }

    /// Returns the locations of the objects.
    pub fn places(&self) -> Vec<String> {
        self.url.clone()
    }

    /// Returns the name of the bookmark of the source `source`. `None` if every run reads all objects.
    pub fn bookmark<'a>(&'a self, source: &'a str) -> Option<&'a str> {
        match &self.bookmark {
            SourceBookmark::OfSource => Some(source),
            SourceBookmark::Named(name) => Some(name),
            SourceBookmark::None => None,
        }
    }

    pub(crate) fn op_map(&self) -> Result<OpMap> {
        OpMap::parse(self.op_map.iter().map(|(code, meaning)| format!("{code}={meaning}")))
    }

    pub(crate) fn allowed_lateness(&self) -> Result<Option<std::time::Duration>> {
        match self.allowed_lateness.as_deref() {
            None => Ok(BookmarkOptions::default().allowed_lateness),
            Some("none") => Ok(None),
            Some(text) => parse_duration(text).map(Some),
        }
    }

    /// Sets the name of the bookmark. Default: the name of the source.
    #[must_use]
    pub fn with_bookmark(mut self, name: impl Into<String>) -> Self {
        self.bookmark = SourceBookmark::Named(name.into());
        self
    }

    /// Reads all objects in every run, as `bookmark = false` in a job file.
    #[must_use]
    pub fn without_bookmark(mut self) -> Self {
        self.bookmark = SourceBookmark::None;
        self
    }

    /// Sets the contract of the rows: a [`Contract`](biscuit_schema::Contract), or a file as [`ContractSpec::File`].
    /// Default: types come from the values and from `rules`.
    #[must_use]
    pub fn with_contract(mut self, contract: impl Into<ContractSpec>) -> Self {
        self.contract = Some(contract.into());
        self
    }

    /// Sets how columns get their types without a contract. Default: [`RulesSpec::Usual`].
    #[must_use]
    pub fn with_rules(mut self, rules: RulesSpec) -> Self {
        self.rules = Some(rules);
        self
    }

    /// Sets the dialect of CSV files.
    #[must_use]
    pub fn with_csv(mut self, csv: CsvSpec) -> Self {
        self.csv = csv;
        self
    }

    /// Sets the encoding of CSV and JSON without a byte order mark. Default: UTF-8.
    #[must_use]
    pub fn with_encoding(mut self, encoding: TextEncoding) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// Adds a column with the URL of the object of each row.
    #[must_use]
    pub fn with_source_file(mut self, column: impl Into<String>) -> Self {
        self.source_file = Some(column.into());
        self
    }

    /// Sets the meaning of folders with Hive names. Default: [`HivePartitioning::Columns`].
    #[must_use]
    pub fn with_hive_partitioning(mut self, folders: HivePartitioning) -> Self {
        self.hive_partitioning = folders;
        self
    }

    /// Sets how an overwritten object is recognized. Default: by its content.
    #[must_use]
    pub fn with_identity(mut self, identity: ObjectIdentity) -> Self {
        self.identity = identity;
        self
    }

    /// Sets how far below the newest read object the modification time of an unread object may be, such as `24h`, or
    /// `none` for no limit. Default: 24 hours.
    #[must_use]
    pub fn with_allowed_lateness(mut self, duration: impl Into<String>) -> Self {
        self.allowed_lateness = Some(duration.into());
        self
    }

    /// Sets the handling of objects beyond the allowed lateness. Default: they are reported and not read.
    #[must_use]
    pub fn with_late(mut self, late: LatePolicy) -> Self {
        self.late = late;
        self
    }

    /// Sets the handling of objects that were overwritten after they were read. Default: they are read again.
    #[must_use]
    pub fn with_overwritten(mut self, overwritten: OverwrittenPolicy) -> Self {
        self.overwritten = overwritten;
        self
    }

    /// Sets the maximum number of objects in a run; the next run reads the rest. Default: no limit.
    #[must_use]
    pub fn with_limit_files(mut self, objects: usize) -> Self {
        self.limit_files = Some(objects);
        self
    }

    /// Sets the maximum bytes in a run; the next run reads the rest. At least one object is read. Default: no limit.
    #[must_use]
    pub fn with_limit_bytes(mut self, bytes: u64) -> Self {
        self.limit_bytes = Some(bytes);
        self
    }

    /// Sets the handling of objects that are deleted while a run reads. Default: [`MissingObjects::Refuse`].
    #[must_use]
    pub fn with_allow_missing(mut self, missing: MissingObjects) -> Self {
        self.allow_missing = missing;
        self
    }

    /// Sets the handling of a location without objects. Default: [`EmptyLocation::Refuse`].
    #[must_use]
    pub fn with_allow_empty(mut self, empty: EmptyLocation) -> Self {
        self.allow_empty = empty;
        self
    }

    /// Sets the table of `debezium` and `dms` records, as `schema.table`. Default: none is named, as for files with
    /// one table.
    #[must_use]
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// Sets the operation column of `rows` and `dms` records.
    #[must_use]
    pub fn with_op(mut self, column: impl Into<String>) -> Self {
        self.op = Some(column.into());
        self
    }

    /// Adds an operation code of `rows` and `dms` records with its meaning: `upsert`, `delete`, `truncate` or
    /// `ignore`. Default: the codes of common tools.
    #[must_use]
    pub fn with_op_map(mut self, code: impl Into<String>, meaning: impl Into<String>) -> Self {
        self.op_map.insert(code.into(), meaning.into());
        self
    }

    /// Sets `TimestampColumnName` of the task of `dms` records.
    #[must_use]
    pub fn with_timestamp_column(mut self, column: impl Into<String>) -> Self {
        self.timestamp_column = Some(column.into());
        self
    }

    /// Sets `CsvNullValue` of the task of `dms` records.
    #[must_use]
    pub fn with_csv_null(mut self, text: impl Into<String>) -> Self {
        self.csv_null = Some(text.into());
        self
    }

    /// Sets the prefix of the columns of `dms` records that contain the key before an update.
    #[must_use]
    pub fn with_before_image(mut self, prefix: impl Into<String>) -> Self {
        self.before_image = Some(prefix.into());
        self
    }

    /// Sets the text that stands for an unchanged value in `debezium` and `rows` records.
    #[must_use]
    pub fn with_placeholder(mut self, text: impl Into<String>) -> Self {
        self.placeholder = Some(text.into());
        self
    }

    /// Sets the maximum bytes of one file of change records after decompression and decoding. Default:
    /// [`RowsOptions::max_decompressed`](biscuit_change::RowsOptions::max_decompressed).
    #[must_use]
    pub fn with_max_decompressed(mut self, bytes: u64) -> Self {
        self.max_decompressed = Some(bytes);
        self
    }

    /// Sets the maximum bytes of one record in a text file. Default for change records:
    /// [`RowsOptions::max_record`](biscuit_change::RowsOptions::max_record); for `csv` and `json`: 256 MiB, where less than
    /// 8 MiB counts as 8 MiB. Maximum: 1 GiB.
    #[must_use]
    pub fn with_max_record(mut self, bytes: u64) -> Self {
        self.max_record = Some(bytes);
        self
    }
}
