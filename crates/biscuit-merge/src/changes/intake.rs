use std::collections::VecDeque;
use std::sync::Arc;

use biscuit_change::{ChangeBatch, ChangeOp};
use biscuit_core::{Error, Result};
use biscuit_journal::Journal;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::task::JoinHandle;

use crate::changes::log_epochs::{LOG_SERVERS, LogEpochs, NewServerPolicy};
use crate::changes::spilled_ranges::{
    DividedBatch, EACH, InputParts, RANGES, SpilledRanges, bounds, ranges_for, sample,
};

/// The change records of a run as they come: in memory, and beyond a limit on the disk, divided by ranges of their keys.
///
/// What belongs to one key is in one range, so that ranges can be worked on one after the other. Records of keys that key
/// updates tie together may be in several, and are brought together in the end.
#[derive(Debug)]
pub(crate) struct ChangeIntake {
    /// Where the run works, in which memory.
    pub(crate) session: Arc<TaskContext>,
    key: Arc<[String]>,
    /// Bytes that records may take in memory.
    limit: usize,
    held: Vec<ChangeBatch>,
    held_bytes: usize,
    /// What records that are in memory take of the session's budget.
    memory: MemoryReservation,
    ranges: Option<SpilledRanges>,
    /// Batches that are being divided, in their order, with their bytes.
    dividing: VecDeque<(JoinHandle<Result<DividedBatch>>, usize)>,
    /// How many of them at a time.
    cores: usize,
    /// Records that there are at least, with those that are yet to come.
    expected: u64,
    /// Where it says which servers are known, and what becomes of others.
    servers: Option<(Journal, NewServerPolicy)>,
    pub(crate) taken: InputSummary,
}

/// What is known of all records.
#[derive(Debug, Default)]
pub(crate) struct InputSummary {
    pub(crate) records: u64,
    /// Whether one of them is an upsert.
    pub(crate) writes: bool,
    /// The columns of batches, and the first file that has them.
    pub(crate) columns: Vec<(SchemaRef, Arc<str>)>,
    /// The servers whose logs they are in, where they say them.
    pub(crate) epochs: Option<LogEpochs>,
}

impl ChangeIntake {
    pub(crate) fn new(key: &[String], limit: usize, cores: usize, session: Arc<TaskContext>) -> Self {
        let taken = InputSummary::default();
        let memory = MemoryConsumer::new("change records").register(session.memory_pool());
        Self {
            session,
            key: key.into(),
            limit,
            held: vec![],
            held_bytes: 0,
            memory,
            ranges: None,
            dividing: VecDeque::new(),
            cores,
            expected: 0,
            servers: None,
            taken,
        }
    }

    /// The same, for records of servers that this journal knows; others are taken so.
    pub(crate) fn with_servers(mut self, journal: &Journal, new: NewServerPolicy) -> Self {
        self.servers = Some((journal.clone(), new));
        self
    }

    /// So many more records are about to come.
    pub(crate) fn expect(&mut self, records: u64) {
        self.expected = self.taken.records + records;
    }

    /// How many row groups of so many bytes may be decoded side by side: one more than there are cores, since one waits for the batch
    /// before it to be taken, and no more than fit into what records may take.
    pub(crate) fn side_by_side(&self, bytes: usize) -> usize {
        (self.limit / bytes.max(1)).clamp(1, self.cores + 1)
    }

    pub(crate) async fn add(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        let batch = self.in_epoch(batch).await?;
        let taken = &mut self.taken;
        taken.records += batch.ops.len() as u64;
        taken.writes |= batch.ops.contains(&ChangeOp::Upsert);
        if taken.columns.iter().all(|(known, _)| known.fields() != batch.rows.schema_ref().fields()) {
            taken.columns.push((batch.rows.schema(), batch.file.clone()));
        }
        if self.ranges.is_some() {
            return self.divide(batch).await;
        }
        self.held_bytes += batch.memory() + EACH * batch.ops.len();
        self.held.push(batch);
        if self.held_bytes > self.limit || self.memory.try_resize(self.held_bytes).is_err() {
            tracing::info!(records = taken.records, "change records go on on the disk");
            let each = self.held_bytes / usize::try_from(taken.records).unwrap_or(usize::MAX);
            let known = usize::try_from(self.expected).unwrap_or(usize::MAX).saturating_mul(each);
            // Where the session has less room than the limit: one part is worked on while the next one is read.
            let limit = if self.held_bytes > self.limit { self.limit } else { self.held_bytes / 2 };
            let count = if known == 0 { RANGES } else { ranges_for(known, limit) };
            let bounds = bounds(&sample(&self.held, &self.key)?, count);
            self.ranges = Some(SpilledRanges::new(bounds, limit, self.memory.new_empty())?);
            self.memory.free();
            for batch in std::mem::take(&mut self.held) {
                self.divide(batch).await?;
            }
        }
        Ok(())
    }

    /// Records in an order that those of other servers have, too.
    async fn in_epoch(&mut self, batch: ChangeBatch) -> Result<ChangeBatch> {
        let Some((journal, new)) = self.servers.as_ref().filter(|_| batch.server.is_some()) else { return Ok(batch) };
        if self.taken.epochs.is_none() {
            let head = journal.head().await?;
            self.taken.epochs = Some(LogEpochs::new(head.properties.get(LOG_SERVERS), *new)?);
        }
        match &mut self.taken.epochs {
            Some(epochs) => epochs.enter(batch),
            None => Ok(batch),
        }
    }

    /// Has a batch divided on another core, and takes in what was begun before as many others.
    async fn divide(&mut self, batch: ChangeBatch) -> Result<()> {
        let Some(ranges) = &self.ranges else { return Err(Error::internal("there are no ranges")) };
        let (bounds, spill, key) = (ranges.bounds.clone(), ranges.spill.clone(), self.key.clone());
        let bytes = batch.memory();
        self.memory.grow(bytes);
        let divided = tokio::task::spawn_blocking(move || DividedBatch::new(&batch, &key, &bounds, &spill));
        self.dividing.push_back((divided, bytes));
        while self.dividing.len() > self.cores {
            self.take_in().await?;
        }
        Ok(())
    }

    async fn take_in(&mut self) -> Result<()> {
        if let Some((divided, bytes)) = self.dividing.pop_front() {
            let divided = divided.await.map_err(|e| Error::internal("a batch was cut off").with_source(e))??;
            self.memory.shrink(bytes);
            self.ranges.iter_mut().for_each(|ranges| ranges.take_in(&divided));
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<(InputSummary, InputParts)> {
        while !self.dividing.is_empty() {
            self.take_in().await?;
        }
        let parts = match self.ranges {
            Some(ranges) => InputParts::Ranges(ranges),
            None => InputParts::Whole(Some((self.held, self.memory))),
        };
        Ok((self.taken, parts))
    }
}

#[cfg(test)]
mod tests {
    use biscuit_change::{AbsentColumns, row_changes};
    use biscuit_rewrite::session;
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn row_groups_are_decoded_side_by_side_as_far_as_they_fit() {
        let session = session(2, None).expect("a session");
        let intake = |limit| ChangeIntake::new(&["id".to_owned()], limit, 2, session.clone());
        let asked = [0, 10, 40, 90, 1000].map(|bytes| intake(100).side_by_side(bytes));
        assert_eq!((asked, intake(usize::MAX).side_by_side(1 << 40)), ([3, 3, 2, 1, 1], 3));
    }

    fn batch(from: i64) -> ChangeBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 1000));
        let rows = RecordBatch::try_from_iter([("id", ids)]).expect("a batch");
        let options = biscuit_change::RowsOptions::default();
        let (batch, _) = row_changes(&rows, &"a".into(), (1..=1000).collect(), &options).expect("records");
        assert_eq!(batch.completeness, AbsentColumns::Full);
        batch
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn records_count_against_the_session_and_leave_memory_where_it_ends() {
        for (memory, on_disk) in [(100 << 20, false), (3 << 20, true)] {
            let session = session(2, Some(memory)).expect("a session");
            let reserved = || session.memory_pool().reserved();
            let mut intake = ChangeIntake::new(&["id".to_owned()], usize::MAX, 2, session.clone());
            for n in 0..20 {
                intake.add(batch(n * 1000)).await.expect("records are taken");
            }
            let (taken, mut parts) = intake.finish().await.expect("all of them");
            assert_eq!((taken.records, parts.on_disk().is_some()), (20_000, on_disk));
            assert_eq!(reserved() > 0, !on_disk);
            let mut records = 0;
            while let Some(part) = parts.next(&["id".to_owned()]).expect("a part") {
                let own: usize = part.batches.iter().map(|b| b.ops.len()).sum();
                assert!(reserved() >= own * EACH && reserved() <= memory);
                records += own;
            }
            assert_eq!((records, reserved()), (20_000, 0));
        }
    }
}
