use std::collections::VecDeque;
use std::sync::Arc;

use biscuit_change::{ChangeBatch, Op};
use biscuit_core::{Error, Result};
use datafusion::arrow::datatypes::SchemaRef;
use tokio::task::JoinHandle;

use crate::ranges::{Divided, EACH, Parts, RANGES, Ranges, bounds, ranges_for, sample};

/// The change records of a run as they come: in memory, and beyond a limit on the disk, divided by ranges of their keys.
///
/// What belongs to one key is in one range, so that ranges can be worked on one after the other. Records of keys that key
/// updates tie together may be in several, and are brought together in the end.
#[derive(Debug)]
pub(crate) struct Intake {
    key: Arc<[String]>,
    /// Bytes that records may take in memory.
    limit: usize,
    held: Vec<ChangeBatch>,
    held_bytes: usize,
    ranges: Option<Ranges>,
    /// Batches that are being divided, in their order.
    dividing: VecDeque<JoinHandle<Result<Divided>>>,
    /// How many of them at a time.
    cores: usize,
    /// Records that there are at least, with those that are yet to come.
    expected: u64,
    pub(crate) taken: Taken,
}

/// What is known of all records.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) records: u64,
    /// Whether one of them is an upsert.
    pub(crate) writes: bool,
    /// The columns of batches, and the first file that has them.
    pub(crate) columns: Vec<(SchemaRef, Arc<str>)>,
}

impl Intake {
    pub(crate) fn new(key: &[String], limit: usize, cores: usize) -> Self {
        let taken = Taken::default();
        Self {
            key: key.into(),
            limit,
            held: vec![],
            held_bytes: 0,
            ranges: None,
            dividing: VecDeque::new(),
            cores,
            expected: 0,
            taken,
        }
    }

    /// So many more records are about to come.
    pub(crate) fn expect(&mut self, records: u64) {
        self.expected = self.taken.records + records;
    }

    pub(crate) async fn add(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        let taken = &mut self.taken;
        taken.records += batch.ops.len() as u64;
        taken.writes |= batch.ops.contains(&Op::Upsert);
        if taken.columns.iter().all(|(known, _)| known.fields() != batch.rows.schema_ref().fields()) {
            taken.columns.push((batch.rows.schema(), batch.file.clone()));
        }
        if self.ranges.is_some() {
            return self.divide(batch).await;
        }
        self.held_bytes += batch.memory() + EACH * batch.ops.len();
        self.held.push(batch);
        if self.held_bytes > self.limit {
            tracing::info!(records = taken.records, "change records go on on the disk");
            let each = self.held_bytes / usize::try_from(taken.records).unwrap_or(usize::MAX);
            let known = usize::try_from(self.expected).unwrap_or(usize::MAX).saturating_mul(each);
            let count = if known == 0 { RANGES } else { ranges_for(known, self.limit) };
            let bounds = bounds(&sample(&self.held, &self.key)?, count);
            self.ranges = Some(Ranges::new(bounds, self.limit)?);
            for batch in std::mem::take(&mut self.held) {
                self.divide(batch).await?;
            }
        }
        Ok(())
    }

    /// Has a batch divided on another core, and takes in what was begun before as many others.
    async fn divide(&mut self, batch: ChangeBatch) -> Result<()> {
        let Some(ranges) = &self.ranges else { return Err(Error::internal("there are no ranges")) };
        let (bounds, spill, key) = (ranges.bounds.clone(), ranges.spill.clone(), self.key.clone());
        self.dividing.push_back(tokio::task::spawn_blocking(move || Divided::new(&batch, &key, &bounds, &spill)));
        while self.dividing.len() > self.cores {
            self.take_in().await?;
        }
        Ok(())
    }

    async fn take_in(&mut self) -> Result<()> {
        if let Some(divided) = self.dividing.pop_front() {
            let divided = divided.await.map_err(|e| Error::internal("a batch was cut off").with_source(e))??;
            self.ranges.iter_mut().for_each(|ranges| ranges.take_in(&divided));
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<(Taken, Parts)> {
        while !self.dividing.is_empty() {
            self.take_in().await?;
        }
        let parts = match self.ranges {
            Some(ranges) => Parts::Ranges(ranges),
            None => Parts::Whole(Some(self.held)),
        };
        Ok((self.taken, parts))
    }
}
