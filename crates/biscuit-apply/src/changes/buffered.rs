//! Change records that wait until it is known which run merges them.

use std::mem;
use std::sync::{Arc, OnceLock};

use biscuit_change::internal::parquet_row;
use biscuit_change::{ChangeBatch, ChangeRecords};
use biscuit_core::{Result, async_trait};
use biscuit_rewrite::{BufferedRows, SpillFolder};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation, UnboundedMemoryPool,
};

use crate::changes::files::ChangeBatchSink;
use crate::changes::intake::{RecordColumns, add_columns, parallel_batches};
use crate::changes::spilled_ranges::EACH;
use crate::options::MergeOptions;

/// Change records in the order of their arrival: in memory, and beyond a budget on the local disk. They wait here as long as
/// it is not known which run merges them, for example because their key, their period or their table is known only when
/// all of them are read.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_apply::{BufferedChanges, Merge, MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{ChangeColumns, row_changes};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
/// use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = MergeOptions::default().with_memory(256 << 20);
/// let mut records = BufferedChanges::new(&options);
/// for seq in 1..=3 {
///     let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
///     let rows = RecordBatch::try_from_iter([("id", column(1)), ("seq", column(seq))])?;
///     let (batch, _) = row_changes(&rows, &"rows of a program".into(), vec![1], &ChangeColumns::default())?;
///     records.add(batch)?;
/// }
/// assert_eq!(records.len(), 3);
///
/// let dataset = Dataset::new(Location::parse("memory://buffered/lake/customer")?, JournalOptions::default());
/// let report = Merge::new(dataset, MergeSpec::new(["id"], ["seq"])?, options)?.input(records).run(RunMode::Commit).await?;
/// assert_eq!((report.records, report.rows.after), (3, 1));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct BufferedChanges {
    budget: Arc<ChangeBudget>,
    batches: Vec<WaitingBatch>,
    records: u64,
    columns: RecordColumns,
    /// Counts, quarantined records, key and order. It has no batches.
    rest: ChangeRecords,
}

/// Memory for waiting records, and the temporary files for the others. Several buffers may share it.
#[derive(Debug)]
struct ChangeBudget {
    pool: Arc<dyn MemoryPool>,
    /// Maximum memory in bytes; `None` for no limit.
    limit: Option<usize>,
    /// Number of cores to use.
    cores: usize,
    spill: OnceLock<Arc<SpillFolder>>,
}

#[derive(Debug)]
enum WaitingBatch {
    Memory(Box<ChangeBatch>, #[expect(dead_code, reason = "frees the memory when it is dropped")] MemoryReservation),
    Disk(BufferedRows),
}

impl WaitingBatch {
    fn get(&self) -> Result<ChangeBatch> {
        match self {
            Self::Memory(batch, _) => Ok(ChangeBatch::clone(batch)),
            Self::Disk(rows) => ChangeBatch::unpack(&rows.get()?, parquet_row),
        }
    }
}

impl BufferedChanges {
    /// Creates an empty buffer, which keeps records in memory up to a quarter of the memory budget of `options`, or as
    /// many bytes as [`MergeOptions::change_memory`] says. Without a budget, all records stay in memory.
    pub fn new(options: &MergeOptions) -> Self {
        Self::with_limit(options.change_limit(), options.parallelism)
    }

    /// Creates an empty buffer that keeps all records in memory.
    pub fn unlimited() -> Self {
        Self::with_limit(None, MergeOptions::default().parallelism)
    }

    fn with_limit(limit: Option<usize>, cores: usize) -> Self {
        let pool: Arc<dyn MemoryPool> = match limit {
            Some(bytes) => Arc::new(GreedyMemoryPool::new(bytes)),
            None => Arc::new(UnboundedMemoryPool::default()),
        };
        Self::within(Arc::new(ChangeBudget { pool, limit, cores, spill: OnceLock::new() }))
    }

    fn within(budget: Arc<ChangeBudget>) -> Self {
        Self { budget, batches: vec![], records: 0, columns: vec![], rest: ChangeRecords::default() }
    }

    /// Creates an empty buffer that shares the memory of this one.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::within(self.budget.clone())
    }

    /// Adds change records.
    ///
    /// # Errors
    /// `SpillFailed` if they cannot be written to the disk.
    pub fn add(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        self.records += batch.ops.len() as u64;
        add_columns(&mut self.columns, batch.rows.schema_ref(), &batch.file);
        // Several buffers have records of one text.
        let batch = batch.detach_raw();
        let memory = MemoryConsumer::new("waiting change records").register(&self.budget.pool);
        let waiting = match memory.try_grow(batch.memory_size() + EACH * batch.ops.len()) {
            Ok(()) => WaitingBatch::Memory(Box::new(batch), memory),
            Err(_) => WaitingBatch::Disk(self.budget.spill()?.write(&batch.pack()?)?),
        };
        self.batches.push(waiting);
        Ok(())
    }

    /// Adds change records, with the quarantined records and the counts that belong to them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_records(&mut self, mut records: ChangeRecords) -> Result<()> {
        mem::take(&mut records.batches).into_iter().try_for_each(|batch| self.add(batch))?;
        self.rest.append(records);
        Ok(())
    }

    /// Adds the records of another buffer after those of this one.
    pub fn append(&mut self, other: Self) {
        let Self { batches, records, columns, rest, .. } = other;
        self.batches.extend(batches);
        self.records += records;
        columns.iter().for_each(|(schema, file)| add_columns(&mut self.columns, schema, file));
        self.rest.append(rest);
    }

    /// Maximum memory of the records in bytes; `None` for no limit.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.budget.limit
    }

    /// Number of change records, without the quarantined ones.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there are no change records. There may be quarantined ones.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Different columns of the records, each with the first file that has them.
    pub fn columns(&self) -> &[(SchemaRef, Arc<str>)] {
        &self.columns
    }

    /// Quarantined records, counts, key and order of the input. It has no batches.
    pub fn rest(&self) -> &ChangeRecords {
        &self.rest
    }

    /// Takes quarantined records, counts, key and order of the input.
    pub fn take_rest(&mut self) -> ChangeRecords {
        mem::take(&mut self.rest)
    }

    /// Returns the batches one by one, in the order of their arrival. Each is read when it is asked for.
    ///
    /// # Errors
    /// `SpillFailed` for a batch that cannot be read from the disk.
    pub fn batches(&self) -> impl Iterator<Item = Result<ChangeBatch>> {
        self.batches.iter().map(WaitingBatch::get)
    }

    /// Takes the batches out, one by one, in the order of their arrival. Each frees its memory when the next is asked for.
    ///
    /// # Errors
    /// As [`batches`](Self::batches).
    pub fn into_batches(self) -> impl Iterator<Item = Result<ChangeBatch>> {
        self.batches.into_iter().map(|waiting| waiting.get())
    }

    /// Replaces each batch by what `change` makes of it, for example fewer records.
    ///
    /// # Errors
    /// Errors of `change`, and as [`add`](Self::add) and [`batches`](Self::batches).
    pub fn map(mut self, mut change: impl FnMut(ChangeBatch) -> Result<ChangeBatch>) -> Result<Self> {
        let mut changed = self.another();
        changed.rest = self.take_rest();
        self.into_batches().try_for_each(|batch| changed.add(change(batch?)?))?;
        Ok(changed)
    }
}

impl ChangeBudget {
    fn spill(&self) -> Result<&Arc<SpillFolder>> {
        if let Some(spill) = self.spill.get() {
            return Ok(spill);
        }
        tracing::info!("change records exceed the memory budget and are written to the disk");
        let spill = SpillFolder::new()?;
        Ok(self.spill.get_or_init(|| spill))
    }
}

impl From<ChangeRecords> for BufferedChanges {
    /// Keeps the records in memory, where they are already.
    fn from(mut records: ChangeRecords) -> Self {
        let mut buffer = Self::unlimited();
        for batch in mem::take(&mut records.batches) {
            buffer.add(batch).expect("records in memory are not written to the disk");
        }
        buffer.rest = records;
        buffer
    }
}

#[async_trait]
impl ChangeBatchSink for BufferedChanges {
    fn announce(&mut self, _: u64) {}

    fn parallel_groups(&self, bytes: usize) -> usize {
        parallel_batches(self.budget.limit.unwrap_or(usize::MAX), bytes, self.budget.cores)
    }

    async fn take_batch(&mut self, batch: ChangeBatch) -> Result<()> {
        self.add(batch)
    }
}
