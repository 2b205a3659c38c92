//! The intake of change records: in memory, and beyond the budget on the local disk.

use std::collections::VecDeque;
use std::sync::Arc;

use biscuit_change::{ChangeBatch, ChangeOp};
use biscuit_core::{Error, Result};
use biscuit_journal::Journal;
use biscuit_rewrite::SpillFolder;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tokio::task::JoinHandle;

use crate::changes::log_epochs::{LOG_SERVERS, LogEpochs, NewServerPolicy};
use crate::changes::spilled_ranges::{
    DividedBatch, EACH, InputParts, PartLimits, RANGES, SpilledRanges, quantile_bounds, ranges_for, sample_keys,
};

/// Bytes of records above which they are divided by key ranges even if they fit into memory, and the bytes of a part
/// in this case.
const IN_PARTS: usize = 128 << 20;
const PART: usize = 64 << 20;

/// Collects the change records of a run: in memory, and beyond a limit on the disk, divided by key ranges.
///
/// All records of a key are in one range, so that ranges can be merged one after the other. Keys that key changes
/// connect may be in several ranges; their records are merged together in a last part.
#[derive(Debug)]
pub(crate) struct ChangeIntake {
    /// Memory pool and runtime of the run.
    pub(crate) session: Arc<TaskContext>,
    key: Arc<[String]>,
    /// Maximum memory for records in bytes.
    limit: usize,
    /// Batches in memory. Empty as soon as there are ranges.
    held: Vec<ChangeBatch>,
    held_bytes: usize,
    /// Part of the session's budget that batches in memory take.
    memory: MemoryReservation,
    /// Records by range; `None` while there are few.
    ranges: Option<SpilledRanges>,
    /// Batches that are being divided, in the order of input, with their sizes in bytes.
    dividing: VecDeque<(JoinHandle<Result<DividedBatch>>, usize)>,
    /// Maximum number of batches that are divided at a time.
    cores: usize,
    /// Minimum number of records of the run, counting announced ones.
    expected: u64,
    /// Journal with the known log servers, and the policy for other servers.
    servers: Option<(Journal, NewServerPolicy)>,
    pub(crate) taken: InputSummary,
}

/// Properties of all records of a run.
#[derive(Debug, Default)]
pub(crate) struct InputSummary {
    pub(crate) records: u64,
    /// Whether there is an upsert.
    pub(crate) writes: bool,
    pub(crate) columns: RecordColumns,
    /// Log epochs of the servers; `None` if no record names a server.
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

    /// Sets the journal that stores the known log servers, and the policy for records of other servers. Without it,
    /// records are taken as they are.
    pub(crate) fn with_servers(mut self, journal: &Journal, new: NewServerPolicy) -> Self {
        self.servers = Some((journal.clone(), new));
        self
    }

    /// Key columns by which the records are divided.
    pub(crate) fn key(&self) -> &[String] {
        &self.key
    }

    /// Announces that `records` further records follow.
    pub(crate) fn announce_records(&mut self, records: u64) {
        self.expected = self.taken.records + records;
    }

    /// Returns how many row groups of `bytes` bytes may be decoded at a time.
    pub(crate) fn parallel_batches(&self, bytes: usize) -> usize {
        parallel_batches(self.limit, bytes, self.cores)
    }

    /// Takes a batch. The batch that exceeds the limit begins the ranges: their bounds come from a sample of the keys
    /// in memory, then all batches are divided.
    pub(crate) async fn add_batch(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        let batch = self.in_epoch(batch).await?;
        let taken = &mut self.taken;
        taken.records += batch.ops.len() as u64;
        taken.writes |= batch.ops.contains(&ChangeOp::Upsert);
        add_columns(&mut taken.columns, batch.rows.schema_ref(), &batch.file);
        if self.ranges.is_some() {
            return self.start_division(batch).await;
        }
        self.held_bytes += batch.memory_size() + EACH * batch.ops.len();
        self.held.push(batch);
        let fits = self.held_bytes <= self.limit && self.memory.try_resize(self.held_bytes).is_ok();
        if !fits || self.held_bytes > IN_PARTS {
            let (in_memory, limits) = match fits {
                // Records that fit into memory are divided, too: the next part is encoded while one is decided, and
                // the parts fit into the caches of the processor.
                true => (self.limit, PartLimits { usual: PART, whole: self.limit }),
                false => {
                    let records = taken.records;
                    tracing::info!(records, "change records exceed the memory budget and are written to the disk");
                    // If the session has less memory than the limit, halve it, because one part is decided while the
                    // next one is read.
                    let limit = if self.held_bytes > self.limit { self.limit } else { self.held_bytes / 2 };
                    (0, PartLimits { usual: limit, whole: limit })
                }
            };
            let each = self.held_bytes / usize::try_from(taken.records).unwrap_or(usize::MAX);
            let known = usize::try_from(self.expected).unwrap_or(usize::MAX).saturating_mul(each);
            let count = if known == 0 { RANGES } else { ranges_for(known, limits.usual) };
            let bounds = quantile_bounds(&sample_keys(&self.held, &self.key)?, count);
            let spill = SpillFolder::in_memory(in_memory, self.memory.new_empty())?;
            self.ranges = Some(SpilledRanges::new(bounds, limits, self.memory.new_empty(), spill));
            // The batches are registered again, one by one, while they are divided.
            self.memory.free();
            for batch in std::mem::take(&mut self.held) {
                self.start_division(batch).await?;
            }
        }
        Ok(())
    }

    /// Puts the log positions of a batch into the order of epochs, in which positions of several servers compare.
    async fn in_epoch(&mut self, batch: ChangeBatch) -> Result<ChangeBatch> {
        let Some((journal, new)) = self.servers.as_ref().filter(|_| batch.server.is_some()) else { return Ok(batch) };
        if self.taken.epochs.is_none() {
            let head = journal.head().await?;
            self.taken.epochs = Some(LogEpochs::new(head.properties.get(LOG_SERVERS), *new)?);
        }
        match &mut self.taken.epochs {
            Some(epochs) => epochs.add_epochs(batch),
            None => Ok(batch),
        }
    }

    /// Starts to divide a batch on another core. Waits for the oldest batches if more than `cores` are being divided.
    /// Batches are taken in the order of input, so that the order of records in a range does not depend on timing.
    async fn start_division(&mut self, batch: ChangeBatch) -> Result<()> {
        let Some(ranges) = &self.ranges else {
            return Err(Error::internal("a batch was divided before there were ranges"));
        };
        let (bounds, spill, key) = (ranges.bounds.clone(), ranges.spill.clone(), self.key.clone());
        let bytes = batch.memory_size();
        self.memory.grow(bytes);
        let divided = tokio::task::spawn_blocking(move || DividedBatch::new(&batch, &key, &bounds, &spill));
        self.dividing.push_back((divided, bytes));
        while self.dividing.len() > self.cores {
            self.take_in().await?;
        }
        Ok(())
    }

    /// Adds the oldest divided batch to its ranges.
    async fn take_in(&mut self) -> Result<()> {
        if let Some((divided, bytes)) = self.dividing.pop_front() {
            let divided =
                divided.await.map_err(|e| Error::internal("the task that divides a batch failed").with_source(e))??;
            self.memory.shrink(bytes);
            self.ranges.iter_mut().for_each(|ranges| ranges.take_in(&divided));
        }
        Ok(())
    }

    /// Ends the intake. Returns the properties of all records, and the parts of the run.
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

/// Different schemas of batches, each with the first file that has it.
pub(crate) type RecordColumns = Vec<(SchemaRef, Arc<str>)>;

/// Adds the schema of a batch, unless its columns are known.
pub(crate) fn add_columns(known: &mut RecordColumns, schema: &SchemaRef, file: &Arc<str>) {
    if known.iter().all(|(known, _)| known.fields() != schema.fields()) {
        known.push((schema.clone(), file.clone()));
    }
}

/// Returns how many row groups of `bytes` bytes may be decoded at a time. It is one more than there are cores, because one
/// waits for the batch before it to be taken, and at most as many as fit into `limit` bytes.
pub(crate) fn parallel_batches(limit: usize, bytes: usize, cores: usize) -> usize {
    (limit / bytes.max(1)).clamp(1, cores + 1)
}

#[cfg(test)]
mod tests {
    use biscuit_change::{AbsentColumns, row_changes};
    use biscuit_rewrite::internal::session;
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn as_many_row_groups_are_decoded_at_a_time_as_fit_into_memory() {
        let session = session(2, None).expect("the session is created");
        let intake = |limit| ChangeIntake::new(&["id".to_owned()], limit, 2, session.clone());
        let asked = [0, 10, 40, 90, 1000].map(|bytes| intake(100).parallel_batches(bytes));
        assert_eq!((asked, intake(usize::MAX).parallel_batches(1 << 40)), ([3, 3, 2, 1, 1], 3));
    }

    fn batch(from: i64) -> ChangeBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 1000));
        let rows = RecordBatch::try_from_iter([("id", ids)]).expect("the batch is valid");
        let columns = biscuit_change::ChangeColumns::default();
        let (batch, _) =
            row_changes(&rows, &"a".into(), (1..=1000).collect(), &columns).expect("the records are valid");
        assert_eq!(batch.completeness, AbsentColumns::Full);
        batch
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn records_count_against_the_session_and_spill_beyond_its_memory() {
        for (memory, on_disk) in [(100 << 20, false), (3 << 20, true)] {
            let session = session(2, Some(memory)).expect("the session is created");
            let reserved = || session.memory_pool().reserved();
            let mut intake = ChangeIntake::new(&["id".to_owned()], usize::MAX, 2, session.clone());
            for n in 0..20 {
                intake.add_batch(batch(n * 1000)).await.expect("records are taken");
            }
            let (taken, mut parts) = intake.finish().await.expect("all of them are complete");
            assert_eq!((taken.records, parts.on_disk().is_some()), (20_000, on_disk));
            assert_eq!(reserved() > 0, !on_disk);
            let mut records = 0;
            while let Some(part) = parts.next(&["id".to_owned()]).expect("there is a next part") {
                let own: usize = part.batches.iter().map(|b| b.ops.len()).sum();
                assert!(reserved() >= own * EACH && reserved() <= memory);
                records += own;
            }
            assert_eq!((records, reserved()), (20_000, 0));
        }
    }
}
