//! One run of a merge, from the records to the commit.
//!
//! A run divides its records into parts that fit into memory. It decides all keys of one part after the other without
//! changing the table, checks the guards, and puts everything into one commit.

use std::sync::Arc;

use biscuit_change::{ChangeRecords, RefusedRecord};
use biscuit_core::{CommitId, Error, Outcome, Result};
use biscuit_dataset::internal::refuse_raw;
use biscuit_dataset::{OpenFile, TableVersion};
use biscuit_journal::{CommitExtras, FileStager, TableCommit};
use biscuit_merge::OrderAuthority;
use biscuit_rewrite::RunMode;
use biscuit_rewrite::unit::WrittenUnit;
use datafusion::execution::TaskContext;
use tokio::task::JoinHandle;

use crate::changes::intake::{ChangeIntake, InputSummary};
use crate::changes::spilled_ranges::InputParts;
use crate::merge_report::MergeRemarks;
use crate::merge_report::MergeReport;
use crate::part::encoded::EncodedPart;
use crate::part::lookup::{fetch_rows, scan_files};
use crate::part::progress::{PartInProgress, PeriodStep};
use crate::part::resolve::{groups_of_period, metadata_changes, resolve_groups, sorted_groups};
use crate::periods::by_period::PeriodsInRun;
use crate::periods::period_state::{PeriodBase, PeriodRunContext};
use crate::periods::retraction::RetractionSet;
use crate::plan::guards::{check_deletes, count_truncates, quarantine_update};
use crate::plan::merge_plan::{MergePlan, PlanInput};
use crate::plan::new_files::NewFiles;
use crate::plan::summary::{describe_periods, touched_files};
use crate::setup::MergeSetup;
use crate::state::commit::{CommitWork, commit_merge};
use crate::state::key_metadata::KeyTimeline;
use crate::state::quarantine::QuarantineChange;
use crate::state::segment_file::SegmentEntry;
use crate::table::context::TableContext;
use crate::table::open_files::OpenFiles;
use crate::table::scan::StoredRows;
use crate::table::truncate_marks::RunTruncates;

/// Runs a merge: divides the records into parts, decides all keys, and commits.
///
/// # Errors
/// As [`MergeRun::run`](crate::MergeRun::run).
pub(crate) async fn run_merge(
    setup: &MergeSetup,
    snapshot: Option<TableVersion>,
    mut intake: ChangeIntake,
    mut changes: ChangeRecords,
    run: RunSettings<'_>,
) -> Result<MergeReport> {
    for batch in std::mem::take(&mut changes.batches) {
        intake.add_batch(batch).await?;
    }
    let session = intake.session.clone();
    let (mut taken, parts) = intake.finish().await?;
    taken.columns.extend(run.period_run.columns.iter().cloned());
    let mut report = MergeReport {
        records: taken.records + changes.ignored + changes.refused.len() as u64,
        remarks: MergeRemarks {
            other_tables: changes.other_tables,
            dropped_columns: changes.dropped_columns,
            losses: changes.losses,
            passed_over: changes.passed_over,
            conflicts: changes.conflicts,
            ..MergeRemarks::default()
        },
        ..MergeReport::default()
    };
    report.verdicts.ignored = changes.ignored;
    let snapshot = match snapshot {
        Some(snapshot) => snapshot,
        None => setup.dataset.observe().await?,
    };
    report.version = snapshot.observed.head.version;
    let head = snapshot.observed.head.clone();
    let records = InputRecords { session, taken, parts, refused: changes.refused };
    match merge_records(setup, snapshot, records, run, &mut report).await {
        Ok(()) => Ok(report),
        Err(e) => Err(setup.dataset.journal().explain_error(e, &head).await),
    }
}

async fn merge_records(
    setup: &MergeSetup,
    snapshot: TableVersion,
    records: InputRecords,
    run: RunSettings<'_>,
    report: &mut MergeReport,
) -> Result<()> {
    report.outcome = Outcome::Unchanged;
    let RunSettings { mode, commit_id, quarantine_change, extras, period_run } = run;
    // A new or rebuilt period changes the table even if no record takes effect in it.
    let grows = setup.periods.iter().flat_map(|s| &s.all).any(|s| s.base != PeriodBase::Own);
    let nothing = records.taken.records == 0 && records.refused.is_empty() && extras.is_empty();
    if nothing && !grows && period_run.retractions.all.is_empty() {
        report.rows.before = rows_of(setup, &snapshot).await?;
        report.rows.after = report.rows.before;
        return Ok(());
    }
    refuse_raw(&snapshot.observed.head, "merged into")?;
    let observed = snapshot.observed.clone();
    let session = records.session.clone();
    let (context, files) = TableContext::prepare(setup, snapshot, session, &records.taken, report).await?;
    let mut table = TableInRun::begin(&context, files, report).await?;
    let table_commit = (mode == RunMode::Commit).then(|| setup.dataset.journal().begin_commit(&observed));
    // With records on the disk, new files are staged before the guards are checked. If nothing is committed,
    // `abandon` has to delete the staged objects. Otherwise nothing is staged before `commit`.
    let stages_early = records.parts.on_disk().is_some();
    let stager = table_commit.as_ref().map(TableCommit::stager);
    let additions = CommitAdditions { quarantine_change, extras, period_run, stager };
    let work = plan_commit(&context, &mut table, records, additions, report).await;
    let (table_commit, work) = match (table_commit, work) {
        (Some(table_commit), Ok(Some(work))) => (table_commit, work),
        (Some(table_commit), nothing) if stages_early => {
            table_commit.abandon().await?;
            return nothing.map(drop);
        }
        (_, nothing) => return nothing.map(drop),
    };
    let committed =
        commit_merge(&context, &table.files, &table.periods, table_commit, work, report, commit_id.as_ref()).await?;
    report.outcome = committed.outcome;
    report.version = committed.version;
    report.files.adopted = committed.adopted;
    report.remarks.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
    Ok(())
}

/// Decides the whole run and checks its guards. Returns the work to commit; `None` if nothing changes, and for a
/// dry run.
async fn plan_commit(
    context: &TableContext,
    table: &mut TableInRun,
    records: InputRecords,
    additions: CommitAdditions<'_>,
    report: &mut MergeReport,
) -> Result<Option<CommitWork>> {
    let CommitAdditions { quarantine_change, mut extras, period_run, stager } = additions;
    let schema = &context.data;
    let dry_run = stager.is_none();
    let stager = stager.filter(|_| records.parts.on_disk().is_some());
    let mut new_files =
        stager.map(|stager| NewFiles::new(stager, context.session.clone(), schema.clone(), &context.options));
    let retractions = Arc::new(period_run.retractions);
    let decided = match decide_keys(context, table, records, retractions, new_files.as_mut(), report).await {
        Ok(decided) => decided,
        Err(e) => {
            if let Some(new_files) = new_files {
                new_files.stop().await;
            }
            return Err(e);
        }
    };
    // The guards come after all decisions and before the commit: what they compare is known only here.
    let DecidedRun { mut plan, written, kept, refused, truncates } = decided;
    let TableInRun { files, periods } = table;
    extras.extend(quarantine_update(context, refused, quarantine_change, period_run.of_records, report).await?);
    count_truncates(context, periods, &truncates, &plan, report);
    report.rows = plan.counts;
    check_deletes(context, periods, &plan)?;
    // Before `units`, which takes the edits out of the plan.
    let nothing = plan.is_empty() && periods.all.iter().all(|s| s.base == PeriodBase::Own);
    let units = plan.rewrite_units(&files.files, schema, &context.options);
    (report.partitions, report.files) = touched_files(&plan, context, files, periods, &units);
    let marks = periods.marks_after(&context.marks, &truncates);
    if nothing && kept.is_empty() && marks == context.marks && extras.is_empty() {
        return Ok(None);
    }
    report.outcome = Outcome::Planned;
    // `units` takes the edits out of the plan, `new_files` the new rows. `same` compares new rows, so it comes
    // before `new_files`.
    let same = plan.find_duplicates(&files.contents, &units);
    let added = plan.new_files(schema, &context.options);
    describe_periods(context, periods, &units, (&added, &written), &same, report);
    Ok((!dry_run).then_some(CommitWork { units, added, same, written, kept, marks, extras }))
}

/// Decides all keys, one part of the records after the other and `KEYS` keys at a time. Only the plan and the key
/// metadata of decided keys remain in memory.
async fn decide_keys(
    context: &TableContext,
    table: &mut TableInRun,
    records: InputRecords,
    retractions: Arc<RetractionSet>,
    mut new_files: Option<&mut NewFiles>,
    report: &mut MergeReport,
) -> Result<DecidedRun> {
    let InputRecords { mut parts, refused, .. } = records;
    let plan =
        MergePlan::begin(&table.files.files, &context.target, table.periods.has_periods(), parts.on_disk().cloned());
    let truncates = RunTruncates::default();
    let mut decided = DecidedRun { refused, kept: vec![], plan, written: vec![], truncates };
    if parts.on_disk().is_some() {
        // Key changes of earlier runs also connect keys of different ranges: these keys have to be in one part,
        // in which the union-find can join them.
        parts.connect_keys(context.segments.linked_keys()?);
    }
    if !table.files.files.is_empty() {
        parts.join_parts();
    }
    let mut next = next_part(context, parts);
    let parts = loop {
        let (part, parts) = next
            .await
            .map_err(|e| Error::internal("the task that reads a part of the records failed").with_source(e))??;
        let Some(part) = part else { break parts };
        next = next_part(context, parts);
        tracing::debug!(keys = part.keys(), "deciding");
        let retractions = retractions.clone();
        let mut part =
            PartInProgress::begin(part, context, &table.periods, &mut decided.truncates, retractions, report)?;
        decided.refused.append(&mut part.set.refused);
        let groups = sorted_groups(&part)?;
        // Periods in ascending order: a period inherits the overtaken records and the retracted states of the
        // period before it.
        for at in 0..table.periods.all.len() {
            if let Some(step) = part.enter_period(context, &mut table.periods, &decided.truncates, at) {
                decide_period(context, table, &mut part, &step, &groups, &mut decided, report).await?;
                part.end_period(&table.periods, &step);
            }
        }
        decided.kept.extend(part.changed_timelines(&table.periods));
        decided.plan.next_part();
        if let Some(new_files) = &mut new_files {
            new_files.write_rows(&mut decided.plan).await?;
        }
        decided.plan.spill_added()?;
    };
    decided.plan.finish();
    // Deleting a large temporary file takes as long as writing a part of it, so it happens in the background.
    drop(tokio::task::spawn_blocking(move || drop(parts)));
    if let Some(new_files) = new_files {
        decided.written = new_files.finish().await?;
    }
    Ok(decided)
}

/// Starts to read and encode the next part of the records, while the part before it is decided.
fn next_part(context: &TableContext, mut parts: InputParts) -> JoinHandle<Result<(Option<EncodedPart>, InputParts)>> {
    let (spec, bad_rows, target) = (context.spec.clone(), context.options.bad_rows, context.target.clone());
    let (forgotten, partition_by) = (context.forgotten.clone(), context.partition_by.clone());
    tokio::task::spawn_blocking(move || {
        let part = parts.next(&spec.key)?;
        let part = part.map(|part| EncodedPart::new(part, &spec, &partition_by, bad_rows, &target, &forgotten));
        let part = part.transpose()?;
        Ok((part, parts))
    })
}

/// Decides the keys of a part in one period.
async fn decide_period(
    context: &TableContext,
    table: &mut TableInRun,
    part: &mut PartInProgress,
    step: &PeriodStep,
    groups: &[(u32, u32)],
    decided: &mut DecidedRun,
    report: &mut MergeReport,
) -> Result<()> {
    let own = table.periods.open(context, &mut table.files, step.at).await?;
    let TableInRun { files, periods } = table;
    let within = periods.all[step.at].folder.as_str();
    // The order matters: the scan finds the stored rows of the keys, then the values are read that resolving may
    // compare, and resolving does no I/O.
    let stored = scan_files(context, files, own, part, step).await?;
    let groups = groups_of_period(part, step, groups);
    let counts = decided.plan.counts;
    let fetched = fetch_rows(context, files, part, step, &stored, &groups).await?;
    // Chunks are resolved and planned one after the other. `reconcile` then orders the rows of all chunks by file
    // and row group at once.
    let mut draft = new_planner(context, files, within, part, &stored).begin_part(&mut decided.plan);
    for groups in split_groups(&groups) {
        let resolved = resolve_groups(context, part, step, &stored, &fetched, groups)?;
        report.verdicts.add(&resolved.verdicts);
        let kept = metadata_changes(context, part, step, &resolved)?;
        part.exclude_keys(step, &resolved.outcomes, &kept, context.spec.authority == OrderAuthority::Reload);
        if !step.has_periods {
            let entry = |(key, kept)| (part.set.keys.bytes(key).into(), KeyTimeline::from_metadata(kept));
            decided.kept.extend(kept.into_iter().map(entry));
        }
        for (at, e) in resolved.refused {
            decided.refused.push(part.set.batches[at.table as usize].refuse_row(at.row as usize, e)?);
            part.exclude_record(step, at);
        }
        new_planner(context, files, within, part, &stored).add_outcomes(
            resolved.outcomes,
            &mut draft,
            &mut decided.plan,
        );
    }
    new_planner(context, files, within, part, &stored).reconcile(draft, &mut decided.plan)?;
    table.periods.all[step.at].report.count_changes(&counts, &decided.plan.counts);
    Ok(())
}

fn new_planner<'a>(
    context: &'a TableContext,
    files: &'a OpenFiles,
    within: &'a str,
    part: &'a PartInProgress,
    stored: &'a StoredRows,
) -> PlanInput<'a> {
    PlanInput {
        files: &files.files,
        starts: &files.starts,
        target: &context.target,
        data: context.data.clone(),
        partition_by: &context.partition_by,
        spelling: &context.spelling,
        within,
        tables: &part.tables,
        keys: &part.set.keys,
        stored,
        key: &context.spec.key,
        target_size: context.options.target_size,
        row_group_rows: context.options.parquet.row_group_rows.map(|rows| rows as u64),
        cores: context.options.parallelism.max(1),
    }
}

/// Returns the number of rows of the whole table.
async fn rows_of(setup: &MergeSetup, snapshot: &TableVersion) -> Result<u64> {
    if setup.periods.is_some() {
        return Ok(snapshot.observed.head.live.values().filter_map(|live| live.rows).sum());
    }
    Ok(snapshot.open_files().await?.iter().map(OpenFile::rows).sum())
}

/// How one run is executed and what it commits.
pub(crate) struct RunSettings<'a> {
    pub(crate) mode: RunMode,
    pub(crate) commit_id: Option<CommitId>,
    pub(crate) quarantine_change: QuarantineChange<'a>,
    pub(crate) extras: CommitExtras,
    pub(crate) period_run: PeriodRunContext,
}

/// Contents of a commit in addition to the outcomes of keys, and the stager of its files.
struct CommitAdditions<'a> {
    quarantine_change: QuarantineChange<'a>,
    extras: CommitExtras,
    period_run: PeriodRunContext,
    /// Stager of the commit; `None` for a dry run.
    stager: Option<FileStager>,
}

/// The input of one run.
struct InputRecords {
    /// Memory pool and runtime of the run.
    session: Arc<TaskContext>,
    taken: InputSummary,
    parts: InputParts,
    /// Records that the reader refused.
    refused: Vec<RefusedRecord>,
}

/// The decisions of a run, before anything is committed.
struct DecidedRun {
    plan: MergePlan,
    /// New files that were staged while the run was deciding.
    written: Vec<WrittenUnit>,
    /// Changes of key metadata.
    kept: Vec<SegmentEntry>,
    refused: Vec<RefusedRecord>,
    truncates: RunTruncates,
}

/// The opened files and the periods of the table during a run.
struct TableInRun {
    files: OpenFiles,
    periods: PeriodsInRun,
}

impl TableInRun {
    /// Determines the periods. If a column becomes wider, the files of all periods are opened, since all of them are
    /// rewritten.
    ///
    /// # Errors
    /// `NoCommonType` if a column would become wider in rebuilt periods only.
    async fn begin(context: &TableContext, mut files: OpenFiles, report: &MergeReport) -> Result<Self> {
        let mut periods = PeriodsInRun::begin(context, &files)?;
        if let (true, Some(wider)) = (periods.has_periods(), report.remarks.widened_columns.first()) {
            if periods.is_rebuild() {
                let message = format!(
                    "the column `{wider}` would become wider in the rebuilt periods, and not in the others; a rebuild cannot make a column wider"
                );
                return Err(Error::new(biscuit_schema::codes::NO_COMMON_TYPE, message));
            }
            for at in 0..periods.all.len() {
                periods.open(context, &mut files, at).await?;
            }
        }
        Ok(Self { files, periods })
    }
}

/// Number of keys that are resolved at a time. Their states fit into the cache of a core until they are planned.
const KEYS: usize = 1024;

/// Divides sorted groups into chunks of at least `KEYS` keys. A group is never divided, because its keys are resolved
/// together.
fn split_groups(groups: &[(u32, u32)]) -> impl Iterator<Item = &[(u32, u32)]> {
    let mut rest = groups;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(KEYS);
        while end > 0 && end < rest.len() && rest[end - 1].0 == rest[end].0 {
            end += 1;
        }
        let (chunk, others) = rest.split_at(end);
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}
