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

        /// Sets the handling of records that cannot be used.
        pub fn with_bad_rows(mut self, bad_rows: BadRows) -> Self {
            self.bad_rows = bad_rows;
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

pub(crate) use {reader_setters, text_setters};
