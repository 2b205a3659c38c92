use biscuit_schema::Contract;

use crate::records::refused::BadRows;

/// Choices of a Debezium reader that have a default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DebeziumOptions {
    /// The table whose records are wanted, `schema.table` or `table`. Default: the one that the files have.
    pub table: Option<String>,
    /// Declared columns and types. Default: the embedded schemas.
    pub contract: Option<Contract>,
    /// The key columns. Default: the contract's, else those of the records' keys.
    pub key: Vec<String>,
    /// Fields of `source` (`source.lsn`) or columns that order the changes. Default: the contract's, else what the
    /// connector has: `source.lsn` of PostgreSQL, `source.file`, `source.pos`, `source.row` of MySQL and MariaDB,
    /// `source.scn` of Oracle, `source.commit_lsn`, `source.change_lsn`, `source.event_serial_no` of SQL Server, the first two of Db2, `source.ts_ms`, `source.ord` of MongoDB.
    pub order: Vec<String>,
    /// The names under which fields of `source` are stored. Default: `__` and the field.
    pub order_as: Vec<String>,
    /// What stands for a value that was not available, as the connector's `unavailable.value.placeholder` says it: a text,
    /// or `hex:` and hexadecimal digits; none if it is empty. Default: [`PLACEHOLDER`](crate::PLACEHOLDER).
    pub placeholder: Option<String>,
    /// What happens to records that cannot be used.
    pub bad_rows: BadRows,
    /// Bytes that one file may have when it is unpacked or decoded. Default: 4 GiB for text, and 250 times the bytes of a packed file where that is more
    /// than 64 MiB; for rows of Parquet and Avro 2,000 times the bytes of the file where that is more than 256 MiB.
    pub max_decompressed: Option<u64>,
}

impl DebeziumOptions {
    /// The same options for one table.
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// The same options with a contract.
    pub fn with_contract(mut self, contract: Contract) -> Self {
        self.contract = Some(contract);
        self
    }

    /// The same options with a key.
    pub fn with_key<S: Into<String>>(mut self, key: impl IntoIterator<Item = S>) -> Self {
        self.key = key.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with an order.
    pub fn with_order<S: Into<String>>(mut self, order: impl IntoIterator<Item = S>) -> Self {
        self.order = order.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with another placeholder.
    pub fn with_placeholder(mut self, placeholder: impl Into<String>) -> Self {
        self.placeholder = Some(placeholder.into());
        self
    }

    /// The same options with another limit for what one file is unpacked or decoded to, in bytes.
    pub fn with_max_decompressed(mut self, bytes: u64) -> Self {
        self.max_decompressed = Some(bytes);
        self
    }

    /// The same options with another choice for records that cannot be used.
    pub fn with_bad_rows(mut self, bad_rows: BadRows) -> Self {
        self.bad_rows = bad_rows;
        self
    }

    /// The same options with other names for stored fields of `source`.
    pub fn with_order_as<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.order_as = names.into_iter().map(Into::into).collect();
        self
    }
}
