//! The merge of change records into a table: its table, rules and options, and its runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use biscuit_change::{BadRows, ChangeFormat, ChangeRecords, RefusedRecord};
use biscuit_core::{CommitId, Error, Result};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_journal::CommitExtras;
use biscuit_merge::MergeSpec;
use biscuit_rewrite::RunMode;
use biscuit_rewrite::internal::session;

use crate::changes::buffered::BufferedChanges;
use crate::changes::change_reader::reread_records;
use crate::changes::collected::CollectedChanges;
use crate::changes::files::ChangeFiles;
use crate::changes::intake::ChangeIntake;
use crate::changes::missing_rows::add_deletes_of_missing;
use crate::merge_report::MergeReport;
use crate::options::MergeOptions;
use crate::periods::period_state::{PeriodRunContext, PeriodStates};
use crate::run::{RunSettings, run_merge};
use crate::setup::MergeSetup;
use crate::state::quarantine::{QuarantineChange, quarantined_records};

/// Merges change records into a table in one commit.
///
/// ```
/// use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{ChangeRecords, RowsOptions, RowsReader};
/// use biscuit_core::Outcome;
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://merge/lake/customer")?, JournalOptions::default());
/// let merge = Merge::new(dataset, MergeSpec::new(["id"], ["seq"])?, MergeOptions::default())?;
/// let records = |lines: &'static str| -> biscuit_core::Result<ChangeRecords> {
///     let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
///     reader.read("changes.jsonl", lines.into())?;
///     reader.finish()
/// };
/// let update = r#"{"id": 1, "seq": 2, "name": "Anna", "op": "u"}"#;
/// let report = merge.run(records(update)?, RunMode::Commit).await?;
/// assert_eq!((report.outcome, report.rows.after), (Outcome::Committed, 1));
///
/// // An older record arrives in a later run. It changes nothing, and no version is written.
/// let late = r#"{"id": 1, "seq": 1, "name": "Ann", "op": "c"}"#;
/// let report = merge.run(records(late)?, RunMode::Commit).await?;
/// assert_eq!((report.outcome, report.version, report.verdicts.late), (Outcome::Unchanged, 1, 1));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Merge {
    setup: MergeSetup,
}

/// Input of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum MergeInput {
    /// Change records in memory.
    Records(ChangeRecords),
    /// Change files. Records that exceed the memory budget are written to the local disk, so that there may be any number
    /// of them.
    Files(ChangeFiles),
    /// Change records that the caller has added batch by batch. Records that exceed the memory budget are on the local
    /// disk.
    Collected(Box<CollectedChanges>),
    /// Change records that have waited, in memory or on the local disk, until this run was known.
    Buffered(BufferedChanges),
    /// The quarantined records of the table, in the format in which they came. Records that are still invalid remain
    /// in the quarantine, whatever [`MergeOptions::bad_rows`] is.
    Quarantined(ChangeFormat),
}

impl From<ChangeRecords> for MergeInput {
    fn from(records: ChangeRecords) -> Self {
        Self::Records(records)
    }
}

impl From<ChangeFiles> for MergeInput {
    fn from(files: ChangeFiles) -> Self {
        Self::Files(files)
    }
}

impl From<CollectedChanges> for MergeInput {
    fn from(records: CollectedChanges) -> Self {
        Self::Collected(Box::new(records))
    }
}

impl From<BufferedChanges> for MergeInput {
    fn from(records: BufferedChanges) -> Self {
        Self::Buffered(records)
    }
}

/// A run of a merge that has not begun: its input, and what it commits in addition to the rows.
///
/// ```
/// use biscuit_apply::{Merge, MergeOptions, MergeSpec, RunMode};
/// use biscuit_change::{RowsOptions, RowsReader};
/// use biscuit_core::{CommitId, Outcome};
/// use biscuit_dataset::{Dataset, Location};
/// use biscuit_journal::JournalOptions;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dataset = Dataset::new(Location::parse("memory://merge-run/lake/customer")?, JournalOptions::default());
/// let merge = Merge::new(dataset.clone(), MergeSpec::new(["id"], ["seq"])?, MergeOptions::default())?;
/// let mut reader = RowsReader::new(RowsOptions::default());
/// reader.read("customers.jsonl", r#"{"id": 1, "seq": 1, "name": "Ann"}"#.into())?;
/// let records = reader.finish()?;
///
/// let base = dataset.observe().await?;
/// let planned = merge.input(records.clone()).on(base.clone()).run(RunMode::DryRun).await?;
/// assert_eq!((planned.outcome, planned.rows.inserted), (Outcome::Planned, 1));
///
/// let id = CommitId::new("customers-2024-02-29");
/// merge.input(records).on(base).with_commit_id(id.clone()).run(RunMode::Commit).await?;
/// assert_eq!(dataset.view().await?.observed.head.version_of_commit(&id), Some(1));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a run does nothing until `run` is called"]
pub struct MergeRun<'a> {
    merge: &'a Merge,
    input: MergeInput,
    base: BaseVersion,
    commit_id: Option<CommitId>,
    extras: CommitExtras,
    period_run: PeriodRunContext,
}

/// Version of the table on which a run commits.
#[derive(Debug)]
enum BaseVersion {
    /// The newest one when the input was read.
    Newest,
    Given(TableVersion),
    /// A version that was observed at this time, and is used if the input is read soon after it.
    Recent(TableVersion, Instant),
}

/// How long an observed version is taken for the newest one. Reading small input takes less, and then the table need not be
/// observed twice. Whether it is the newest one is decided by the commit in any case, which otherwise fails with `Conflict`.
const RECENT: Duration = Duration::from_secs(1);

impl BaseVersion {
    fn after_reading(self) -> Option<TableVersion> {
        match self {
            Self::Given(version) => Some(version),
            Self::Recent(version, observed) => (observed.elapsed() < RECENT).then_some(version),
            Self::Newest => None,
        }
    }
}

impl Merge {
    /// Creates a merge into `dataset`.
    ///
    /// # Errors
    /// `InvalidArguments` if `spec` drops a key column.
    pub fn new(dataset: Dataset, spec: MergeSpec, options: MergeOptions) -> Result<Self> {
        spec.check()?;
        Ok(Self { setup: MergeSetup { dataset, spec: Arc::new(spec), options, periods: None } })
    }

    /// Merges into a table of periodic snapshots, which has one folder for each period. The records of a batch take
    /// effect in the period that [`ChangeBatch::period`](biscuit_change::ChangeBatch::period) names, and in all later
    /// periods.
    ///
    /// # Errors
    /// `InvalidArguments` if `periods` is empty or not in ascending order, or if a key, order or partition column has
    /// the name of the period column.
    pub fn with_periods(mut self, periods: PeriodStates) -> Result<Self> {
        let ascend = periods.all.windows(2).all(|pair| pair[0].number < pair[1].number);
        if periods.all.is_empty() || !ascend {
            return Err(Error::new(
                biscuit_core::codes::INVALID_ARGUMENTS,
                "periods must be in ascending order, and there must be at least one",
            ));
        }
        let named = self.setup.spec.key.iter().chain(&self.setup.spec.order).chain(&self.setup.options.partition_by);
        if named.into_iter().any(|n| *n == periods.column) {
            let message = format!(
                "`{}` is the column that names the periods; rename the key, order or partition column",
                periods.column
            );
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        self.setup.periods = Some(Arc::new(periods));
        Ok(self)
    }

    /// Begins to collect change records for a run of this merge. Records that exceed the memory budget of the options are
    /// written to the local disk.
    ///
    /// # Errors
    /// The errors of DataFusion's runtime.
    pub fn collect(&self) -> Result<CollectedChanges> {
        new_intake(&self.setup).map(CollectedChanges::new)
    }

    /// Prepares a run with this input.
    pub fn input(&self, input: impl Into<MergeInput>) -> MergeRun<'_> {
        let (extras, period_run) = (CommitExtras::default(), PeriodRunContext::default());
        MergeRun { merge: self, input: input.into(), base: BaseVersion::Newest, commit_id: None, extras, period_run }
    }

    /// Merges change records: [`input`](Self::input) and [`MergeRun::run`] in one call.
    ///
    /// # Errors
    /// As [`MergeRun::run`].
    pub async fn run(&self, changes: ChangeRecords, mode: RunMode) -> Result<MergeReport> {
        self.input(changes).run(mode).await
    }

    /// Adds deletes of the rows whose keys have no record in `changes`. A full load together with these deletes
    /// replaces all rows of the table. Each delete has the order of the row that it deletes.
    ///
    /// # Errors
    /// `MissingColumn` if the table does not store the order columns; `InvalidArguments` for a merge into periods;
    /// `SpillFailed`; the errors of the table and its files.
    pub async fn add_deletes_of_missing(&self, changes: &mut BufferedChanges) -> Result<()> {
        if self.setup.periods.is_some() {
            let message = "deletes of missing rows are not supported for a table of periodic snapshots";
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        add_deletes_of_missing(&self.setup, changes).await
    }
}

impl MergeRun<'_> {
    /// Merges on top of an observed version of the table. The run fails with `Conflict` if the table has a newer one.
    /// Default: the newest version when the input was read.
    pub fn on(mut self, snapshot: TableVersion) -> Self {
        self.base = BaseVersion::Given(snapshot);
        self
    }

    /// Merges on top of a version that was observed at this time, if the input is read within a second after it. If that
    /// takes longer, the newest version when the input was read counts, as by default. This saves the requests of a second
    /// observation.
    pub fn on_recent(mut self, snapshot: TableVersion, observed: Instant) -> Self {
        self.base = BaseVersion::Recent(snapshot, observed);
        self
    }

    /// Sets the id of the commit in the record of the journal. Default: none.
    pub fn with_commit_id(mut self, id: CommitId) -> Self {
        self.commit_id = Some(id);
        self
    }

    /// Sets state that is committed together with the rows, such as a bookmark. Default: none.
    pub fn with_extras(mut self, extras: CommitExtras) -> Self {
        self.extras = extras;
        self
    }

    /// Sets what the commit has to know of a run into periods with several commits. Default: the run has this commit
    /// alone.
    pub fn with_period_run(mut self, period_run: PeriodRunContext) -> Self {
        self.period_run = period_run;
        self
    }

    /// Runs the merge. If the input changes nothing, the run writes no version and no file.
    ///
    /// Periods in which no record takes effect are not opened. The files of a new period that no record changes are
    /// copied from its predecessor by the store.
    ///
    /// # Errors
    /// - Invalid records: `NullKey`, `NullOrder`, `TextOrder`, `KeyType`, `OrderType`, `MissingColumn`, `UnknownOp`,
    ///   `AmbiguousOrder`, `UnavailableWithoutPrior`, `NoCommonType`, `ColumnCase`; `ColumnClash` if the records have
    ///   the column that names the periods.
    /// - Files: the errors of [`ChangeFiles::changes`].
    /// - A specification that differs from the one the table was made with: `SpecDrift`, `PartitioningDiffers`.
    /// - Columns that the files encrypt: `NoFileKeys`, `MissingColumn`, `EncryptedColumn`.
    /// - Guards: `TooManyDeleted`, `TooManyQuarantined`.
    /// - Resources: `MemoryExhausted` if not even one row group fits into the budget, `SpillFailed` if the disk for
    ///   temporary files is full.
    /// - `Conflict` if another run committed first, `Diverged`, and the errors of the store.
    ///
    /// After each of them the table is as it was before.
    pub async fn run(self, mode: RunMode) -> Result<MergeReport> {
        let Self { merge, input, base, commit_id, extras, period_run } = self;
        let mut setup = merge.setup.clone();
        let tried: Vec<RefusedRecord>;
        let mut quarantine_change = QuarantineChange::Add;
        let (intake, changes) = match input {
            MergeInput::Records(changes) => (new_intake(&setup)?, changes),
            MergeInput::Files(files) => {
                let mut intake = new_intake(&setup)?;
                let changes = read(&files, &mut intake).await?;
                (intake, changes)
            }
            MergeInput::Collected(records) => {
                records.check_key(&setup.spec.key)?;
                (records.intake, records.rest)
            }
            MergeInput::Buffered(mut records) => {
                setup.options = setup.options.sharing_memory_with(&records);
                let (mut intake, rest) = (new_intake(&setup)?, records.take_rest());
                intake.announce_records(records.len());
                for batch in records.into_batches() {
                    intake.add_batch(batch?).await?;
                }
                (intake, rest)
            }
            MergeInput::Quarantined(format) => {
                setup.options = setup.options.with_bad_rows(BadRows::Quarantine, 100.0);
                tried = quarantined_records(&setup.dataset).await?.into_iter().map(|q| q.refused).collect();
                quarantine_change = QuarantineChange::Take(&tried);
                (new_intake(&setup)?, reread_records(&tried, &format)?)
            }
        };
        let settings = RunSettings { mode, commit_id, quarantine_change, extras, period_run };
        run_merge(&setup, base.after_reading(), intake, changes, settings).await
    }
}

/// Creates the intake of a run, with a quarter of the memory budget for pending records: a part is decoded while the
/// part before it is decided, and rewriting files needs the rest.
fn new_intake(setup: &MergeSetup) -> Result<ChangeIntake> {
    let options = &setup.options;
    let session = session(options.parallelism, options.memory)?;
    let limit = options.change_limit().unwrap_or(usize::MAX);
    let intake = ChangeIntake::new(&setup.spec.key, limit, options.parallelism, session);
    Ok(intake.with_servers(setup.dataset.journal(), options.new_server))
}

/// Reads change files into the intake. Returns the rest of the result.
async fn read(files: &ChangeFiles, intake: &mut ChangeIntake) -> Result<ChangeRecords> {
    let changes = files.each_batch(intake).await?;
    tracing::info!(records = intake.taken.records, "read all changes");
    if changes.without_op > 0 {
        let records = changes.without_op;
        tracing::warn!(records, "the change files have no operation column: all their records are upserts");
    }
    Ok(changes)
}
