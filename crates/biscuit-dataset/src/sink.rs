//! The sink of a table: writes the rows of a job, once for each commit id.

use async_trait::async_trait;
use biscuit_core::{CommitId, Outcome, Result, Run, Sink, WriteReceipt};
use datafusion::dataframe::DataFrame;

use crate::dataset::Dataset;
use crate::engine_error::engine_error;
use crate::table_writer::WriteOptions;
use crate::version::table_version::{EmptyWrite, WriteMode};

/// Sink that writes rows to a table, once for each commit id.
///
/// Rows without a row change nothing, whatever the mode is: missing input must not empty a table. The journal remembers
/// the last 1,000 commit ids; an older id writes again.
///
/// ```
/// use biscuit_core::{Instant, Outcome, Run, RunId, Sink};
/// use biscuit_dataset::{Dataset, Location, TableSink, WriteMode, WriteOptions};
/// use biscuit_journal::JournalOptions;
/// use datafusion::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://sink/lake/sales")?, JournalOptions::default());
/// let options = WriteOptions::default().with_partition_by(["day"]);
/// let sales = TableSink::new(dataset.clone(), WriteMode::Append).with_options(options);
///
/// let run = Run::new("daily", RunId::new("2024-02-29"), Instant::from_micros(0));
/// let rows = dataframe!("day" => ["2024-02-29", "2024-02-29"], "amount" => [1, 2])?;
/// let receipt = sales.write(&run, &run.commit_id("sales"), rows.clone()).await?;
/// assert_eq!((receipt.outcome, receipt.rows), (Outcome::Committed, 2));
///
/// // A second attempt of the run changes nothing.
/// let again = run.clone().with_attempt(2);
/// let receipt = sales.write(&again, &again.commit_id("sales"), rows).await?;
/// assert_eq!((receipt.outcome, receipt.rows), (Outcome::Unchanged, 2));
/// assert_eq!(dataset.load(&SessionContext::new()).await?.count().await?, 2);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TableSink {
    dataset: Dataset,
    mode: WriteMode,
    options: WriteOptions,
}

impl TableSink {
    /// Creates a sink that writes to `dataset`. `mode` decides what happens to the existing rows.
    pub fn new(dataset: Dataset, mode: WriteMode) -> Self {
        Self { dataset, mode, options: WriteOptions::default() }
    }

    /// Sets the options of the writes, such as the partition columns. Default: [`WriteOptions::default`].
    #[must_use]
    pub fn with_options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }
}

#[async_trait]
impl Sink<DataFrame> for TableSink {
    /// Writes the rows in one commit.
    ///
    /// # Errors
    /// As [`TableVersion::write`](crate::TableVersion::write), except for `EmptyReplacement`.
    async fn write(&self, _: &Run, commit: &CommitId, rows: DataFrame) -> Result<WriteReceipt> {
        let version = self.dataset.observe().await?;
        let receipt = |version, outcome, rows| {
            let place = format!("{} version {version}", self.dataset.location());
            WriteReceipt::new(commit.clone(), outcome, rows, place)
        };
        if let Some(version) = version.observed.head.version_of_commit(commit) {
            // The receipt of a retry names the rows of the first write, which had the same value.
            let count = rows.count().await.map_err(|e| engine_error("the rows to write", e))?;
            return Ok(receipt(version, Outcome::Unchanged, count as u64));
        }
        let (summary, count) =
            version.write_rows(rows, self.mode, &self.options, Some(commit), EmptyWrite::Nothing).await?;
        Ok(receipt(summary.version, summary.outcome, count))
    }
}
