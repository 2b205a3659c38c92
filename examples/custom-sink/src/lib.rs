//! Two sinks of a program: CSV files through the journal, and SQLite by commit id.
#![expect(clippy::exhaustive_structs, reason = "an example has no users")]

pub mod codes;
mod csv;
mod sqlite;

pub use csv::CsvSink;
pub use sqlite::SqliteSink;

/// Sales of a shop on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// Name of the shop. Not empty.
    pub shop: String,
    /// Amount in cents.
    pub cents: i64,
}

/// Sales of one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// The day, as `YYYY-MM-DD`.
    pub day: String,
    /// Sales of the shops, in any order.
    pub sales: Vec<Sale>,
}
