//! Outputs of the modes `merge` and `snapshot`: turns the input into change records, and passes them to biscuit-apply
//! or biscuit-partition together with the bookmarks and the quarantine, so that all of it is one commit.

use std::sync::{Arc, Mutex, PoisonError};

use biscuit_apply::internal::partition_columns;
use biscuit_apply::report::{MergeRemarks, MergeReport, RecordVerdicts};
use biscuit_apply::{
    ChangeFiles, IgnoreNull, KeyAndOrderColumns, KeyAndOrderSources, Merge, MergeOptions, MergeSpec, RunMode,
    merged_by, quarantine_records,
};
use biscuit_bookmark::RunOutput;
use biscuit_change::{ChangeBatch, ChangeColumns, ChangeRecords, RefusedRecord, row_changes};
use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_journal::CommitExtras;
use biscuit_partition::PeriodTable;
use biscuit_partition::report::PeriodTableReport;
use biscuit_schema::Contract;
use datafusion::arrow::array::RecordBatch;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::output_run::OutputRun;
use crate::read::changes::{bad_rows, format_of};
use crate::read::choose::ChosenInput;
use crate::read::source::SourceFileRows;
use crate::report::counts::OutputReport;
use crate::run_options::RunOptions;
use crate::shape::encrypted::{WritableTable, encrypt_files};
use crate::shape::finisher::FinishReport;
use crate::shape::rows::OutputRows;
use crate::shape::treatment::{TreatedSource, needs_contract, seal_refused};
use crate::spec::{OutputMode, SourceFormat, invalid_spec};
use crate::write::writer::{QueryRows, process_rows};

/// Rows with the file that they come from and their numbers in it.
type PlacedRows = (RecordBatch, Arc<str>, Vec<u64>);

/// Merges the change records of the source.
pub(crate) async fn merge_changes(
    output: &OutputRun<'_>,
    chosen: &[ChosenInput],
    mut report: OutputReport,
    options: &RunOptions,
) -> Result<OutputReport> {
    let Some(source) = output.changes(chosen).cloned() else {
        return Err(Error::internal("the source has no change records"));
    };
    let contract = match output.contract(source.contract.as_ref())? {
        Some(contract) => Some(contract),
        None => output.contract(output.spec.contract.as_ref())?,
    };
    let expected = output.snapshot.current_schema().await?;
    let guard = output.guard_for(contract.as_ref())?;
    if guard.is_some() && contract.is_none() && source.format != SourceFormat::Debezium {
        return Err(needs_contract(&chosen[0].source));
    }
    let format = format_of(&source, output.spec, contract.clone(), Some(expected))?;
    let input = &chosen[0];
    let found = input.to_files(&input.selection.objects)?.iter().map(|file| file.found.clone()).collect();
    let mut changes = ChangeFiles::found(found, format.clone()).changes().await?;
    let guards = Vec::from_iter(guard);
    if let Some(guard) = guards.first() {
        changes = guard.treat_records(changes).await?;
        if !changes.is_empty() {
            output.check_policy(chosen, &guards)?;
        }
    }
    let sources: Vec<_> = changes.batches.iter().map(|batch| (batch.rows.schema(), false)).collect();
    let table = encrypt_files(output, &guards, &sources, None).await?;
    report.add_sources(chosen, &[])?;
    let sources = KeyAndOrderSources::default().with_records(&format, &changes.key, &changes.order);
    let sources = sources.with_contract(contract.as_ref());
    let input = RecordsToMerge {
        changes,
        sources,
        contract: contract.as_ref(),
        refused: vec![],
        table: &table,
        guards: &guards,
    };
    merge_records(output, chosen, input, report, options).await
}

/// Merges rows of other formats. Each row is an upsert, unless its operation column has another operation.
pub(crate) async fn merge_rows(
    output: &OutputRun<'_>,
    chosen: &[ChosenInput],
    mut report: OutputReport,
    options: &RunOptions,
) -> Result<OutputReport> {
    let objects: Vec<_> = chosen
        .iter()
        .map(|c| if c.bookmark.is_some() { c.selection.objects.clone() } else { c.input.all_objects() })
        .collect();
    let rows = OutputRows::prepare(output, chosen, &objects, vec![], &mut report).await?;
    let placed = match rows.query().await? {
        Some(query) => {
            let mut all: Vec<PlacedRows> = Vec::new();
            for stream in query.run().await? {
                let name: Arc<str> = format!("the rows of the output `{}`", output.name).into();
                let (mut made, mut seen) = (QueryRows::new(stream, output.name, rows.finish.clone()), 0);
                while let Some(batch) = made.next().await? {
                    let count = batch.num_rows() as u64;
                    // Rows of a query have no file; messages number them in the order of the result.
                    all.push((batch, name.clone(), (seen + 1..=seen + count).collect()));
                    seen += count;
                }
            }
            all
        }
        None => read_rows(&rows).await?,
    };
    let FinishReport { report: coercion, mut refused, findings } = rows.finish.finish()?;
    refused.extend(report.add_sources(chosen, &rows.readings)?);
    report.coercion = Some(coercion).filter(|coercion| rows.contract.is_some() || !coercion.columns.is_empty());
    report.findings.extend(findings);
    report.quarantined = refused.len() as u64;
    let count = placed.iter().map(|(b, ..)| b.num_rows() as u64).sum();
    output.check_quarantined(refused.len() as u64, count)?;
    let mut columns = ChangeColumns::default();
    columns.op.clone_from(&output.spec.op);
    let mut batches: Vec<ChangeBatch> = Vec::new();
    let mut ignored = 0;
    for (batch, file, numbers) in placed.into_iter().filter(|(b, ..)| b.num_rows() > 0) {
        let (changes, left_out) = row_changes(&batch, &file, numbers, &columns)?;
        ignored += left_out;
        batches.push(changes);
    }
    let mut changes = ChangeRecords::from_batches(batches);
    changes.ignored = ignored;
    let sources = KeyAndOrderSources::default().with_contract(rows.contract.as_ref());
    let (contract, table, guards) = (rows.contract.as_ref(), &rows.table, rows.guards.as_slice());
    let input = RecordsToMerge { changes, sources, contract, refused, table, guards };
    merge_records(output, chosen, input, report, options).await
}

/// Reads the rows of the only source into memory.
async fn read_rows(rows: &OutputRows<'_>) -> Result<Vec<PlacedRows>> {
    let all: Arc<Mutex<Vec<PlacedRows>>> = Arc::default();
    let into = all.clone();
    // After the output's contract refused a row, later rows of the batch have the number of a neighbour. Numbers
    // are used only in messages.
    let take = move |_: &mut (), _: &Handle, from: &SourceFileRows<'_>, batch: RecordBatch| {
        let numbers = (0..batch.num_rows()).map(|row| from.row_number(row)).collect();
        into.lock().unwrap_or_else(PoisonError::into_inner).push((batch, from.file.name().into(), numbers));
        Ok(())
    };
    process_rows(rows.only_source().await?, || (), take, |(), _| Ok(())).await?;
    Ok(std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Change records for the table of an output, and what decides how they are merged.
struct RecordsToMerge<'a> {
    changes: ChangeRecords,
    /// Places from which the key and the order may be taken, except the table and the options.
    sources: KeyAndOrderSources,
    contract: Option<&'a Contract>,
    refused: Vec<RefusedRecord>,
    table: &'a WritableTable,
    guards: &'a [Arc<TreatedSource>],
}

/// Merges change records into the table, or into its periods, together with the bookmarks and the quarantine.
async fn merge_records(
    output: &OutputRun<'_>,
    chosen: &[ChosenInput],
    input: RecordsToMerge<'_>,
    mut report: OutputReport,
    run: &RunOptions,
) -> Result<OutputReport> {
    let RecordsToMerge { changes, sources, contract, refused, table, guards } = input;
    let snapshot = table.snapshot.clone();
    let dataset = Dataset::of_version(&snapshot);
    let mut sources = sources.with_table(merged_by(&dataset).await?);
    sources.options = KeyAndOrderColumns { key: output.spec.key.clone(), order: output.spec.order.clone() };
    let columns = sources.resolve();
    if let Some(what) = columns.missing_option() {
        if changes.is_empty() && changes.refused.is_empty() {
            return Ok(report);
        }
        let message = format!("output `{}` has no {what}; set `{what}` or declare it in a contract", output.name);
        return Err(invalid_spec(message));
    }
    let KeyAndOrderColumns { key, order } = columns;
    let partition_by = partition_columns(&output.spec.partition_by, contract);
    guards.iter().try_for_each(|guard| guard.check_columns(&key, &order, &partition_by))?;
    let mut extras = CommitExtras::default().with_run(output.run.id.to_string());
    // The bookmarks advance in the commit of the merge: read once, or not at all.
    for input in chosen.iter().filter(|c| c.bookmark.is_some()) {
        if let Some(change) = input.state.advance(&input.selection, output.run, RunOutput::default())? {
            extras.extend(change);
        }
    }
    let refused = seal_refused(guards, refused, &mut report.pii)?;
    let head = &snapshot.observed.head;
    extras.extend(quarantine_records(dataset.journal(), head, refused).await?);
    let mut options = MergeOptions::default().with_partition_by(partition_by);
    options.max_quarantined = output.spec.max_quarantined;
    options.sealed = !guards.is_empty();
    options.bad_rows = bad_rows(contract);
    options.new_server = output.spec.new_server.unwrap_or_default();
    if let Some(percent) = output.spec.max_deleted {
        options = options.with_max_deleted(percent);
    }
    let spec = MergeSpec::new(key, order)?
        .with_op_rank(&output.spec.op_rank)
        .with_ignore_null(IgnoreNull::named(&output.spec.ignore_null))
        .with_drop_columns(output.spec.drop_columns.clone());
    let mode = if run.is_dry() { RunMode::DryRun } else { RunMode::Commit };
    if output.spec.mode == OutputMode::Snapshot {
        let periods = output.periods()?;
        let as_of = run.as_of.as_ref().map_or(Ok(output.run.start), |text| periods.calendar.read(text))?;
        let snapshots = PeriodTable::new(dataset, spec, options, periods)?;
        report_snapshots(&snapshots.run_on(snapshot, changes, as_of, mode, extras).await?, &mut report);
    } else {
        let merge = Merge::new(dataset, spec, options)?;
        report_merge(&merge.input(changes).on(snapshot).with_extras(extras).run(mode).await?, &mut report);
    }
    Ok(report)
}

/// Adds the result of a merge to the report of the output.
fn report_merge(merged: &MergeReport, report: &mut OutputReport) {
    let p = &merged.partitions;
    let all = p.added.iter().chain(&p.changed).chain(&p.emptied).filter(|n| !n.is_empty());
    report.partitions = all.cloned().collect();
    (report.outcome, report.version) = (merged.outcome, merged.version);
    take_merge(merged.records, &merged.verdicts, &merged.remarks, json!(merged), report);
}

/// Adds the result of a run on periods to the report of the output.
fn report_snapshots(merged: &PeriodTableReport, report: &mut OutputReport) {
    report.partitions = merged.periods.iter().filter(|p| p.is_touched()).map(|p| p.period.clone()).collect();
    (report.outcome, report.version) = (merged.outcome, merged.version);
    take_merge(merged.records, &merged.verdicts, &merged.remarks, json!(merged), report);
}

/// Takes into the report of the output what the reports of both kinds of merges have.
fn take_merge(
    records: u64,
    verdicts: &RecordVerdicts,
    remarks: &MergeRemarks,
    merge: Value,
    report: &mut OutputReport,
) {
    report.rows = records;
    report.quarantined += verdicts.quarantined;
    report.exceptions.clone_from(&remarks.exceptions);
    report.merge = merge;
}
