//! Two sinks of one's own.

mod csv;
mod sqlite;

pub use csv::CsvSink;
pub use sqlite::SqliteSink;

/// What a shop took in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The shop; never empty.
    pub shop: String,
    /// Cents.
    pub cents: i64,
}

/// The sales of one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// `YYYY-MM-DD`.
    pub day: String,
    /// In any order.
    pub sales: Vec<Sale>,
}
