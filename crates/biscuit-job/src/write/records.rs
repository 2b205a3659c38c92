//! Change records of an output while they are read.

use std::sync::Arc;

use async_trait::async_trait;
use biscuit_apply::{BufferedChanges, ChangeBatchSink, CollectedChanges, MergeInput};
use biscuit_change::{ChangeBatch, ChangeRecords};
use biscuit_core::{Error, Result};
use datafusion::arrow::datatypes::SchemaRef;

use crate::shape::treatment::TreatedSource;

/// Change records of an output.
pub(crate) enum OutputRecords {
    /// For a merge that is known: divided by its key beyond the memory budget.
    Collected(Box<CollectedChanges>),
    /// Until key or periods are known: in the order of arrival.
    Buffered(Box<BufferedChanges>),
}

impl OutputRecords {
    pub(crate) async fn add(&mut self, batch: ChangeBatch) -> Result<()> {
        match self {
            Self::Collected(records) => records.add(batch).await,
            Self::Buffered(records) => records.add(batch),
        }
    }

    /// Adds records, with the quarantined records and the counts that belong to them.
    pub(crate) async fn add_records(&mut self, more: ChangeRecords) -> Result<()> {
        match self {
            Self::Collected(records) => records.add_records(more).await,
            Self::Buffered(records) => records.add_records(more),
        }
    }

    /// Whether there are no change records. There may be quarantined ones.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Collected(records) => records.is_empty(),
            Self::Buffered(records) => records.is_empty(),
        }
    }

    /// Counts, quarantined records, key and order.
    pub(crate) fn rest(&self) -> &ChangeRecords {
        match self {
            Self::Collected(records) => records.rest(),
            Self::Buffered(records) => records.rest(),
        }
    }

    /// Checks that the records were collected by this key. They were collected by the key of the table, if the records
    /// name their key only after all of them are read.
    ///
    /// # Errors
    /// `SpecDrift` for another key.
    pub(crate) fn check_key(&self, key: &[String]) -> Result<()> {
        match self {
            Self::Collected(records) if records.key() != key => {
                let (then, now) = (records.key().join(", "), key.join(", "));
                let message = format!("the key of this table is `{then}`, and the records have `{now}`; set `key`");
                Err(Error::new(biscuit_apply::codes::SPEC_DRIFT, message))
            }
            _ => Ok(()),
        }
    }

    /// Columns of the records.
    pub(crate) fn schemas(&self) -> Vec<SchemaRef> {
        match self {
            Self::Collected(records) => records.schemas().cloned().collect(),
            Self::Buffered(records) => records.columns().iter().map(|(schema, _)| schema.clone()).collect(),
        }
    }
}

impl From<OutputRecords> for MergeInput {
    fn from(records: OutputRecords) -> Self {
        match records {
            OutputRecords::Collected(records) => Self::Collected(records),
            OutputRecords::Buffered(records) => Self::Buffered(*records),
        }
    }
}

/// Takes the records of change files, and treats their personal data.
pub(crate) struct TreatedRecords<'a> {
    pub(crate) guard: Option<&'a Arc<TreatedSource>>,
    pub(crate) records: &'a mut OutputRecords,
}

#[async_trait]
impl ChangeBatchSink for TreatedRecords<'_> {
    fn announce(&mut self, records: u64) {
        if let OutputRecords::Collected(collected) = self.records {
            collected.announce(records);
        }
    }

    fn parallel_groups(&self, bytes: usize) -> usize {
        match &self.records {
            OutputRecords::Collected(collected) => collected.parallel_groups(bytes),
            OutputRecords::Buffered(records) => records.parallel_groups(bytes),
        }
    }

    async fn take_batch(&mut self, batch: ChangeBatch) -> Result<()> {
        let batch = match self.guard {
            Some(guard) => guard.treat_batch(batch).await?,
            None => batch,
        };
        self.records.add(batch).await
    }
}
