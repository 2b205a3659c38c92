//! Formats of change files, and their settings by the names that the command and job files use.

use arrow::datatypes::SchemaRef;
use biscuit_merge::{BadRows, IgnoreNull, OpMap};
use biscuit_schema::Contract;

use crate::csv::dialect::CsvDialect;
use crate::debezium::options::DebeziumOptions;
use crate::dms::options::DmsOptions;
use crate::files::encoding::TextEncoding;
use crate::rows::reader::RowsOptions;

/// Format of change files, with the options of its reader.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "a new format does not compile until each match has a reader for it")]
pub enum ChangeFormat {
    /// Plain rows in Parquet, JSON lines or CSV.
    Rows(RowsOptions),
    /// Debezium envelopes, complete or flattened.
    Debezium(DebeziumOptions),
    /// Files that AWS DMS writes to S3.
    Dms(DmsOptions),
}

impl ChangeFormat {
    /// Sets the maximum size in bytes to which one file may be decompressed or decoded. `None` is the default limit
    /// of the format.
    #[must_use]
    pub fn with_max_decompressed(mut self, bytes: Option<u64>) -> Self {
        *match &mut self {
            Self::Rows(options) => &mut options.max_decompressed,
            Self::Debezium(options) => &mut options.max_decompressed,
            Self::Dms(options) => &mut options.max_decompressed,
        } = bytes;
        self
    }

    /// Returns the maximum size of one file after decompression in bytes, if it was set.
    pub fn max_decompressed(&self) -> Option<u64> {
        match self {
            Self::Rows(options) => options.max_decompressed,
            Self::Debezium(options) => options.max_decompressed,
            Self::Dms(options) => options.max_decompressed,
        }
    }

    /// Sets the maximum size of one record in a text file in bytes. `None` is the default limit.
    #[must_use]
    pub fn with_max_record(mut self, bytes: Option<u64>) -> Self {
        *match &mut self {
            Self::Rows(options) => &mut options.max_record,
            Self::Debezium(options) => &mut options.max_record,
            Self::Dms(options) => &mut options.max_record,
        } = bytes;
        self
    }

    /// Sets what happens to invalid records. Default: they stop the run.
    #[must_use]
    pub fn with_bad_rows(self, bad_rows: BadRows) -> Self {
        match self {
            Self::Rows(options) => Self::Rows(options.with_bad_rows(bad_rows)),
            Self::Debezium(options) => Self::Debezium(options.with_bad_rows(bad_rows)),
            Self::Dms(options) => Self::Dms(options.with_bad_rows(bad_rows)),
        }
    }
}

/// Settings of all formats. A format uses the settings that it has and ignores the others, so that one set of options
/// or one section of a job file can describe any format.
///
/// ```
/// use biscuit_change::{ChangeFormat, FormatSettings};
///
/// let mut settings = FormatSettings::default();
/// settings.op = Some("kind".into());
/// let ChangeFormat::Dms(options) = settings.dms() else { unreachable!() };
/// assert_eq!((options.op.as_str(), options.null.as_str()), ("kind", "NULL"));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FormatSettings {
    /// Table whose records are read, as `schema.table` or `table`. Default: the table of the contract, or else the
    /// only table in the files. Debezium and DMS.
    pub table: Option<String>,
    /// Declared columns and types. A null that means *unchanged value* is not replaced by the default of its column.
    pub contract: Option<Contract>,
    /// Types of the columns if there is no contract, usually the schema of the table. Rows and DMS.
    pub expected: Option<SchemaRef>,
    /// Key columns. Debezium and DMS.
    pub key: Vec<String>,
    /// Columns or fields of `source` that order the changes. Debezium and DMS.
    pub order: Vec<String>,
    /// Names of the columns in which fields of `source` are stored. Debezium.
    pub order_as: Vec<String>,
    /// Column of operation codes. Default: `Op` for DMS, none for rows.
    pub op: Option<String>,
    /// Operation codes other than the ones of [`parse_op`](crate::parse_op). Rows and DMS.
    pub op_map: OpMap,
    /// Column with the delete flag. Rows.
    pub delete_column: Option<String>,
    /// Placeholder for unchanged values. Rows and Debezium.
    pub placeholder: Option<String>,
    /// `TimestampColumnName` of the endpoint. DMS.
    pub timestamp_column: Option<String>,
    /// `CsvNullValue` of the endpoint. Default: `NULL`. DMS.
    pub csv_null: Option<String>,
    /// Prefix of the columns with the key before an update. Default: `BI_`. DMS.
    pub before_image: Option<String>,
    /// Columns in which a null is an unchanged value.
    pub ignore_null: IgnoreNull,
    /// Dialect of CSV files. Rows and DMS.
    pub csv: CsvDialect,
    /// Encoding of text without a byte order mark. Rows and DMS.
    pub encoding: Option<TextEncoding>,
    /// Handling of records that cannot be used.
    pub bad_rows: BadRows,
    /// Maximum size of one file after decompression or decoding, in bytes.
    pub max_decompressed: Option<u64>,
    /// Maximum size of one record in a text file, in bytes.
    pub max_record: Option<u64>,
}

impl FormatSettings {
    /// Returns the format of Debezium envelopes.
    pub fn debezium(self) -> ChangeFormat {
        let (table, contract) = (self.table(), self.contract());
        let mut options = DebeziumOptions::default();
        (options.table, options.contract) = (table, contract);
        (options.key, options.order, options.order_as) = (self.key, self.order, self.order_as);
        options.placeholder = self.placeholder;
        let limits = (self.max_decompressed, self.max_record);
        ChangeFormat::Debezium(options)
            .with_bad_rows(self.bad_rows)
            .with_max_decompressed(limits.0)
            .with_max_record(limits.1)
    }

    /// Returns the format of files of AWS DMS.
    pub fn dms(self) -> ChangeFormat {
        let (table, contract) = (self.table(), self.contract());
        let mut options = DmsOptions::default();
        (options.table, options.contract, options.expected) = (table, contract, self.expected);
        (options.key, options.order) = (self.key, self.order);
        (options.csv, options.encoding) = (self.csv, self.encoding);
        (options.op_map, options.timestamp_column) = (self.op_map, self.timestamp_column);
        let settings = [
            (self.op, &mut options.op),
            (self.csv_null, &mut options.null),
            (self.before_image, &mut options.before_image),
        ];
        for (setting, option) in settings {
            if let Some(setting) = setting {
                *option = setting;
            }
        }
        let limits = (self.max_decompressed, self.max_record);
        ChangeFormat::Dms(options)
            .with_bad_rows(self.bad_rows)
            .with_max_decompressed(limits.0)
            .with_max_record(limits.1)
    }

    /// Returns the format of plain rows.
    pub fn rows(self) -> ChangeFormat {
        let mut options = RowsOptions::default();
        (options.contract, options.expected) = (self.contract(), self.expected);
        (options.csv, options.encoding) = (self.csv, self.encoding);
        (options.op, options.op_map, options.delete_column) = (self.op, self.op_map, self.delete_column);
        options.placeholder = self.placeholder;
        let limits = (self.max_decompressed, self.max_record);
        ChangeFormat::Rows(options)
            .with_bad_rows(self.bad_rows)
            .with_max_decompressed(limits.0)
            .with_max_record(limits.1)
    }

    fn table(&self) -> Option<String> {
        self.table.clone().or_else(|| self.contract.as_ref()?.table.clone())
    }

    /// Returns the contract without the defaults of columns in which a null means an unchanged value: a default would
    /// overwrite the stored value.
    fn contract(&self) -> Option<Contract> {
        self.contract.clone().map(|contract| contract.without_defaults(|name| self.ignore_null.covers(name)))
    }
}
