//! Options of a source, for programs that build a job. Each option has the name of its key in a job file.

use biscuit_bookmark::{LatePolicy, MissingObjects, ObjectIdentity, OverwrittenPolicy};
use biscuit_change::{CsvDialect, TextEncoding};
use serde::Deserialize;

use super::{ContractSpec, CsvSpec, RulesSpec, SourceBookmark, SourceFormat, SourceSpec};

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
}
