use biscuit_merge::BadRows;
use biscuit_schema::Contract;

use crate::setters::{reader_setters, table_setters};

/// Options of a [`DebeziumReader`](crate::DebeziumReader).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct DebeziumOptions {
    /// Table whose records are read, as `schema.table` or `table`. Default: the only table in the files.
    pub table: Option<String>,
    /// Declared columns and types. Default: the embedded schemas.
    pub contract: Option<Contract>,
    /// Key columns. Default: the key of the contract, or else the columns in the keys of the records.
    pub key: Vec<String>,
    /// Fields of `source` (such as `source.lsn`) or columns that order the changes.
    ///
    /// Default: the order of the contract, or else the position in the log of the database:
    ///
    /// - PostgreSQL: `source.lsn`
    /// - MySQL and MariaDB: `source.file`, `source.pos`, `source.row`
    /// - Oracle: `source.scn`
    /// - SQL Server: `source.commit_lsn`, `source.change_lsn`, `source.event_serial_no`
    /// - Db2: `source.commit_lsn`, `source.change_lsn`
    /// - MongoDB: `source.ts_ms`, `source.ord`
    pub order: Vec<String>,
    /// Names of the columns in which fields of `source` are stored, in the sequence of `order`. Default: `__` and the
    /// name of the field.
    pub order_as: Vec<String>,
    /// Placeholder for unchanged values, `unavailable.value.placeholder` of the connector: a text, or `hex:` and
    /// hexadecimal digits. Empty means no placeholder. Default: [`PLACEHOLDER`](crate::PLACEHOLDER).
    pub placeholder: Option<String>,
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
}

impl DebeziumOptions {
    reader_setters!();
    table_setters!();

    /// Sets the placeholder for unchanged values; empty text means that there is none.
    pub fn with_placeholder(mut self, placeholder: impl Into<String>) -> Self {
        self.placeholder = Some(placeholder.into());
        self
    }

    /// Sets the names of the columns in which fields of `source` are stored, in the sequence of the order.
    pub fn with_order_as<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.order_as = names.into_iter().map(Into::into).collect();
        self
    }
}
