//! Setters that the options of several readers have.

/// Setters of options that every reader has.
macro_rules! reader_setters {
    () => {
        /// Sets the contract, which declares the columns and their types.
        pub fn with_contract(mut self, contract: Contract) -> Self {
            self.contract = Some(contract);
            self
        }

        /// Sets the maximum size of one file after decompression or decoding, in bytes.
        pub fn with_max_decompressed(mut self, bytes: u64) -> Self {
            self.max_decompressed = Some(bytes);
            self
        }

        /// Sets the maximum size of one record in a text file, in bytes.
        pub fn with_max_record(mut self, bytes: u64) -> Self {
            self.max_record = Some(bytes);
            self
        }

        /// Sets the handling of records that cannot be used.
        pub fn with_bad_rows(mut self, bad_rows: BadRows) -> Self {
            self.bad_rows = bad_rows;
            self
        }
    };
}

/// Setters of options for records of several tables, which say to which table, key and order they belong.
macro_rules! table_setters {
    () => {
        /// Sets the table whose records are read, as `schema.table` or `table`. Records of other tables are counted.
        pub fn with_table(mut self, table: impl Into<String>) -> Self {
            self.table = Some(table.into());
            self
        }

        /// Sets the key columns. Keys in the records are then ignored.
        pub fn with_key<S: Into<String>>(mut self, key: impl IntoIterator<Item = S>) -> Self {
            self.key = key.into_iter().map(Into::into).collect();
            self
        }

        /// Sets the columns, or fields of `source`, that order the changes. A full load of DMS is then older than all
        /// changes, whatever its values are.
        pub fn with_order<S: Into<String>>(mut self, order: impl IntoIterator<Item = S>) -> Self {
            self.order = order.into_iter().map(Into::into).collect();
            self
        }
    };
}

/// Setters of options for text files.
macro_rules! text_setters {
    () => {
        /// Sets the dialect of CSV files.
        pub fn with_csv(mut self, dialect: CsvDialect) -> Self {
            self.csv = dialect;
            self
        }

        /// Sets the encoding of text without a byte order mark.
        pub fn with_encoding(mut self, encoding: TextEncoding) -> Self {
            self.encoding = Some(encoding);
            self
        }
    };
}

pub(crate) use {reader_setters, table_setters, text_setters};
