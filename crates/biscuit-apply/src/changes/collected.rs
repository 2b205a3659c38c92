//! Change records that a caller adds batch by batch, for a run that begins when all of them are there.

use biscuit_change::{ChangeBatch, ChangeRecords};
use biscuit_core::{Error, Result, async_trait};
use datafusion::arrow::datatypes::SchemaRef;

use crate::changes::files::ChangeBatchSink;
use crate::changes::intake::ChangeIntake;

/// Change records of a run, added batch by batch: in memory, and beyond the memory budget of the merge on the local disk.
/// There may be any number of them. [`Merge::collect`](crate::Merge::collect) creates it.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{ChangeColumns, row_changes};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
/// use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://collected/lake/customer")?, JournalOptions::default());
/// let options = MergeOptions::default().with_memory(256 << 20);
/// let merge = Merge::new(dataset, MergeSpec::new(["id"], ["seq"])?, options)?;
///
/// let mut records = merge.collect()?;
/// for seq in 1..=3 {
///     let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
///     let rows = RecordBatch::try_from_iter([("id", column(1)), ("seq", column(seq))])?;
///     let (batch, _) = row_changes(&rows, &"rows of a program".into(), vec![1], &ChangeColumns::default())?;
///     records.add(batch).await?;
/// }
/// let report = merge.input(records).run(RunMode::Commit).await?;
/// assert_eq!((report.records, report.rows.after), (3, 1));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct CollectedChanges {
    pub(crate) intake: ChangeIntake,
    /// Counts, quarantined records, key and order. It has no batches.
    pub(crate) rest: ChangeRecords,
}

impl CollectedChanges {
    pub(crate) fn new(intake: ChangeIntake) -> Self {
        Self { intake, rest: ChangeRecords::default() }
    }

    /// Adds change records.
    ///
    /// # Errors
    /// Errors of the records: those of their keys if they are written to the disk, and `NewServer`; `SpillFailed`.
    pub async fn add(&mut self, batch: ChangeBatch) -> Result<()> {
        self.intake.add_batch(batch).await
    }

    /// Adds change records, with the quarantined records and the counts that belong to them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn add_records(&mut self, mut records: ChangeRecords) -> Result<()> {
        for batch in std::mem::take(&mut records.batches) {
            self.add(batch).await?;
        }
        self.rest.append(records);
        Ok(())
    }

    /// Number of change records, without the quarantined ones.
    pub fn len(&self) -> u64 {
        self.intake.taken.records
    }

    /// Whether there are no change records. There may be quarantined ones.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key columns of the merge for which the records are collected.
    pub fn key(&self) -> &[String] {
        self.intake.key()
    }

    /// Different columns of the records.
    pub fn schemas(&self) -> impl Iterator<Item = &SchemaRef> {
        self.intake.taken.columns.iter().map(|(schema, _)| schema)
    }

    /// Quarantined records, counts, key and order of the input. It has no batches.
    pub fn rest(&self) -> &ChangeRecords {
        &self.rest
    }

    /// Checks that the records were divided by this key.
    pub(crate) fn check_key(&self, key: &[String]) -> Result<()> {
        if self.key() == key {
            return Ok(());
        }
        let message = "the records were collected for a merge with another key; collect them with the merge that runs";
        Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message))
    }
}

#[async_trait]
impl ChangeBatchSink for CollectedChanges {
    fn announce(&mut self, records: u64) {
        self.intake.announce_records(records);
    }

    fn parallel_groups(&self, bytes: usize) -> usize {
        self.intake.parallel_batches(bytes)
    }

    async fn take_batch(&mut self, batch: ChangeBatch) -> Result<()> {
        self.add(batch).await
    }
}
