//! Options of reading files of AWS DMS, and the names of their default order columns.

use arrow::datatypes::SchemaRef;
use biscuit_merge::{BadRows, OpMap};
use biscuit_schema::{Contract, ContractColumn};

use crate::csv::dialect::CsvDialect;
use crate::files::encoding::TextEncoding;
use crate::setters::{reader_setters, table_setters, text_setters};
use crate::values::declared::find_declared_column;

/// Default order columns: the time of the file, and the row in it. They are stored in the table.
pub(crate) const FILE: &str = "__dms_file";
pub(crate) const ROW: &str = "__dms_row";

/// Options of a [`DmsReader`](crate::DmsReader). Many of them repeat a setting of the S3 endpoint of the DMS task.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct DmsOptions {
    /// Table whose records are read, as `schema.table` or `table`. Default: the only table in the files.
    pub table: Option<String>,
    /// Declared columns and types. Required for files without a header.
    pub contract: Option<Contract>,
    /// Types of the columns if there is no contract, usually the schema of the table.
    pub expected: Option<SchemaRef>,
    /// Key columns. Default: the key of the contract.
    pub key: Vec<String>,
    /// Columns that order the changes. Default: the order of the contract, or else the file and the row in it, stored
    /// as `__dms_file` and `__dms_row`.
    pub order: Vec<String>,
    /// Column of operation codes. Default: `Op`.
    pub op: String,
    /// Operation codes other than the ones of [`parse_op`](crate::parse_op).
    pub op_map: OpMap,
    /// `TimestampColumnName` of the endpoint. Default: none.
    pub timestamp_column: Option<String>,
    /// `CsvNullValue` of the endpoint. Default: `NULL`.
    pub null: String,
    /// Prefix of the columns with the key before an update, which a rule of the task adds. Default: `BI_`.
    pub before_image: String,
    /// Handling of records that cannot be used. Default: the first one is an error.
    pub bad_rows: BadRows,
    /// Maximum size of one file after decompression or decoding, in bytes. A larger file is refused with `TooLarge`.
    ///
    /// Default: none for plain text; for compressed text 250 times the size of the file, or 64 MiB if that is more; for
    /// rows of Parquet and Avro 2,000 times the size of the file, or 256 MiB if that is more.
    pub max_decompressed: Option<u64>,
    /// Maximum size of one record in a text file, in bytes: a line of JSON, or a record of CSV. A larger record is
    /// refused with `TooLarge`. Default: 64 MiB. The limit cannot be raised above 1 GiB.
    pub max_record: Option<u64>,
    /// Dialect of CSV files.
    pub csv: CsvDialect,
    /// Encoding of text without a byte order mark. Default: UTF-8.
    pub encoding: Option<TextEncoding>,
}

impl Default for DmsOptions {
    fn default() -> Self {
        Self {
            table: None,
            contract: None,
            expected: None,
            key: vec![],
            order: vec![],
            op: "Op".to_owned(),
            op_map: OpMap::default(),
            timestamp_column: None,
            null: "NULL".to_owned(),
            before_image: "BI_".to_owned(),
            bad_rows: BadRows::Fail,
            max_decompressed: None,
            max_record: None,
            csv: CsvDialect::default(),
            encoding: None,
        }
    }
}

impl DmsOptions {
    reader_setters!();
    table_setters!();
    text_setters!();

    /// Sets the name of the timestamp column, `TimestampColumnName` of the endpoint.
    pub fn with_timestamp_column(mut self, name: impl Into<String>) -> Self {
        self.timestamp_column = Some(name.into());
        self
    }

    /// Sets the text for null, `CsvNullValue` of the endpoint.
    pub fn with_null(mut self, null: impl Into<String>) -> Self {
        self.null = null.into();
        self
    }

    /// Returns the key columns of the options, or else of the contract.
    pub(crate) fn key(&self) -> &[String] {
        match &self.contract {
            Some(contract) if self.key.is_empty() => &contract.key,
            _ => &self.key,
        }
    }

    /// Returns whether a name in a file means this column: in any letter case, or as a former name in the contract.
    pub(crate) fn is_called(&self, name: &str, column: &str) -> bool {
        let declared = self.contract.as_ref().and_then(|contract| contract.column_for(name));
        name.eq_ignore_ascii_case(column) || declared.is_some_and(|declared| declared.name == column)
    }

    /// Returns the key column whose before image a column of this name contains: `id` for `BI_id`.
    pub(crate) fn key_before(&self, name: &str) -> Option<String> {
        let prefix = &self.before_image;
        let of = name.get(..prefix.len()).filter(|begin| !prefix.is_empty() && begin.eq_ignore_ascii_case(prefix));
        let own = &name[of?.len()..];
        self.key().iter().find(|key| self.is_called(own, key)).cloned()
    }

    pub(crate) fn declared_column(&self, name: &str) -> Option<ContractColumn> {
        find_declared_column(self.contract.as_ref(), self.expected.as_ref(), name)
    }
}
