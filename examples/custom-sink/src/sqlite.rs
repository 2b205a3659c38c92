//! A sink for SQLite. The commit id in the transaction makes it safe against repeated writes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use biscuit_core::{CommitId, Error, Outcome, Result, Run, Sink, WriteReceipt, async_trait};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::Day;
use crate::codes::{DATABASE_UNAVAILABLE, EMPTY_SHOP};

/// Writes sales to a table of SQLite. The commit id is a row of the same transaction, so that a second write with
/// this id finds it and changes nothing.
#[derive(Debug, Clone)]
pub struct SqliteSink(PathBuf);

impl SqliteSink {
    /// Creates a sink for this database file. The file and its tables are created if they do not exist.
    pub fn new(file: impl AsRef<Path>) -> Self {
        Self(file.as_ref().to_owned())
    }

    fn insert(&self, commit: &CommitId, day: &Day) -> Result<(u64, Outcome)> {
        let mut connection = Connection::open(&self.0).map_err(unavailable)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(unavailable)?;
        // `Immediate` takes the write lock at once: the check of the commit id and the insert must not be separated.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unavailable)?;
        transaction
            .execute_batch(
                "create table if not exists commits (id text primary key, rows integer not null);
                 create table if not exists sales (day text not null, shop text not null, cents integer not null);",
            )
            .map_err(unavailable)?;
        let done: Option<u64> = transaction
            .query_row("select rows from commits where id = ?1", params![commit.as_str()], |r| r.get(0))
            .optional()
            .map_err(unavailable)?;
        if let Some(rows) = done {
            return Ok((rows, Outcome::Unchanged));
        }
        for (row, sale) in (1..).zip(&day.sales) {
            if sale.shop.is_empty() {
                // The transaction is rolled back when it is dropped without a commit.
                return Err(Error::new(EMPTY_SHOP, "the shop of a sale is empty")
                    .with_column("shop")
                    .at(&day.day, row));
            }
            let values = params![day.day, sale.shop, sale.cents];
            transaction.execute("insert into sales values (?1, ?2, ?3)", values).map_err(unavailable)?;
        }
        let rows = day.sales.len() as u64;
        let values = params![commit.as_str(), rows];
        transaction.execute("insert into commits values (?1, ?2)", values).map_err(unavailable)?;
        transaction.commit().map_err(unavailable)?;
        Ok((rows, Outcome::Committed))
    }
}

fn unavailable(e: rusqlite::Error) -> Error {
    Error::new(DATABASE_UNAVAILABLE, "SQLite failed").with_source(e)
}

#[async_trait]
impl Sink<Day> for SqliteSink {
    async fn write(&self, _: &Run, commit: &CommitId, day: Day) -> Result<WriteReceipt> {
        let (sink, id) = (self.clone(), commit.clone());
        let inserted = tokio::task::spawn_blocking(move || sink.insert(&id, &day)).await;
        let (rows, outcome) =
            inserted.map_err(|e| Error::internal("the task that writes was cancelled").with_source(e))??;
        Ok(WriteReceipt::new(commit.clone(), outcome, rows, self.0.display().to_string()))
    }
}
