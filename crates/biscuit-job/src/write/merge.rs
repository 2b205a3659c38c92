//! Outputs of the modes `merge` and `snapshot`: turns the input into change records, and passes them to biscuit-apply
//! or biscuit-partition together with the bookmarks and the quarantine, so that all of it is one commit.

use std::sync::Arc;

use biscuit_apply::internal::partition_columns;
use biscuit_apply::report::{MergeRemarks, MergeReport, RecordVerdicts};
use biscuit_apply::{
    BufferedChanges, ChangeFiles, IgnoreNull, KeyAndOrderColumns, KeyAndOrderSources, Merge, MergeOptions, MergeSpec,
    RunMode, merged_by, quarantine_records,
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
use tokio::sync::mpsc;

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
use crate::write::records::{OutputRecords, TreatedRecords};
use crate::write::writer::{QueryRows, process_rows};

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
    let files = ChangeFiles::found(found, format.clone());
    let guards = Vec::from_iter(guard);
    let merge = MergeOfOutput::new(output, contract.as_ref(), &guards);
    let sources = KeyAndOrderSources::default().with_contract(contract.as_ref());
    // If the policy names a column that may not exist, it may be a misspelt one, whose values must not reach the disk.
    let known = contract.as_ref().is_some_and(|own| output.check_policy(chosen, &guards, Some(own)).is_ok());
    let mut records = match guards.is_empty() || known {
        false => OutputRecords::Buffered(Box::new(BufferedChanges::unlimited())),
        true => {
            let is_given = output.spec.mode == OutputMode::Snapshot || merge.is_determined(sources.clone());
            let (key, order) = if is_given { (vec![], vec![]) } else { files.key_and_order().await? };
            merge.collect(sources.clone().with_records(&format, &key, &order)).await?
        }
    };
    let mut treated = TreatedRecords { guard: guards.first(), records: &mut records };
    let mut rest = files.each_batch(&mut treated).await?;
    if let Some(guard) = guards.first() {
        rest.refused = guard.seal_refused(rest.refused)?;
    }
    records.add_records(rest).await?;
    if !records.is_empty() && !guards.is_empty() {
        output.check_policy(chosen, &guards, None)?;
    }
    let schemas: Vec<_> = records.schemas().into_iter().map(|schema| (schema, false)).collect();
    let table = encrypt_files(output, &guards, &schemas, None).await?;
    report.add_sources(chosen, &[])?;
    let sources = sources.with_records(&format, &records.rest().key, &records.rest().order);
    merge.run(chosen, RecordsToMerge { records, sources, refused: vec![], table: &table }, report, options).await
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
    let merge = MergeOfOutput::new(output, rows.contract.as_ref(), &rows.guards);
    let sources = KeyAndOrderSources::default().with_contract(rows.contract.as_ref());
    let mut records = merge.collect(sources.clone()).await?;
    let (mut count, mut ignored) = (0, 0);
    let mut columns = ChangeColumns::default();
    columns.op.clone_from(&output.spec.op);
    match rows.query().await? {
        Some(query) => {
            let name: Arc<str> = format!("the rows of the output `{}`", output.name).into();
            for stream in query.run().await? {
                let (mut made, mut seen) = (QueryRows::new(stream, output.name, rows.finish.clone()), 0);
                while let Some(batch) = made.next().await? {
                    // Rows of a query have no file; messages number them in the order of the result.
                    let end = seen + batch.num_rows() as u64;
                    let (batch, left_out) = row_changes(&batch, &name, (seen + 1..=end).collect(), &columns)?;
                    count += end - seen;
                    (seen, ignored) = (end, ignored + left_out);
                    records.add(batch).await?;
                }
            }
        }
        None => (count, ignored) = read_rows(&rows, columns, &mut records).await?,
    }
    let FinishReport { report: coercion, mut refused, findings } = rows.finish.finish()?;
    refused.extend(report.add_sources(chosen, &rows.readings)?);
    report.coercion = Some(coercion).filter(|coercion| rows.contract.is_some() || !coercion.columns.is_empty());
    report.findings.extend(findings);
    report.quarantined = refused.len() as u64;
    output.check_quarantined(refused.len() as u64, count)?;
    let mut rest = ChangeRecords::default();
    rest.ignored = ignored;
    records.add_records(rest).await?;
    merge.run(chosen, RecordsToMerge { records, sources, refused, table: &rows.table }, report, options).await
}

/// Reads the rows of the only source. Returns how many there are, and how many of them are not a change of the table.
async fn read_rows(rows: &OutputRows<'_>, columns: ChangeColumns, records: &mut OutputRecords) -> Result<(u64, u64)> {
    // Each thread waits until its rows are taken, so that rows do not pile up in memory.
    let (send, mut taken) = mpsc::channel::<(u64, ChangeBatch, u64)>(1);
    // After the output's contract refused a row, later rows of the batch have the number of a neighbour. Numbers
    // are used only in messages.
    let take = move |_: &mut (), handle: &Handle, from: &SourceFileRows<'_>, batch: RecordBatch| {
        let numbers = (0..batch.num_rows()).map(|row| from.row_number(row)).collect();
        let (changes, left_out) = row_changes(&batch, &from.file.name().into(), numbers, &columns)?;
        let sent = handle.block_on(send.send((batch.num_rows() as u64, changes, left_out)));
        sent.map_err(|e| Error::internal("the rows of a source are not merged any more").with_source(e))
    };
    let reading = process_rows(rows.only_source().await?, || (), take, |(), _| Ok(()));
    let (mut count, mut ignored) = (0, 0);
    let taking = async move {
        while let Some((rows, batch, left_out)) = taken.recv().await {
            (count, ignored) = (count + rows, ignored + left_out);
            records.add(batch).await?;
        }
        Ok((count, ignored))
    };
    // If a batch cannot be taken, the threads end with an error, too, which follows from that one.
    let (read, taken) = futures::join!(reading, taking);
    let taken = taken?;
    read.map(|_| taken)
}

/// Change records for the table of an output, and what belongs to them.
struct RecordsToMerge<'a> {
    records: OutputRecords,
    /// Places from which the key and the order may be taken, except the table and the options.
    sources: KeyAndOrderSources,
    refused: Vec<RefusedRecord>,
    table: &'a WritableTable,
}

/// How an output of the modes `merge` and `snapshot` merges.
struct MergeOfOutput<'a> {
    output: &'a OutputRun<'a>,
    options: MergeOptions,
    guards: &'a [Arc<TreatedSource>],
}

impl<'a> MergeOfOutput<'a> {
    fn new(output: &'a OutputRun<'a>, contract: Option<&Contract>, guards: &'a [Arc<TreatedSource>]) -> Self {
        let partition_by = partition_columns(&output.spec.partition_by, contract);
        let mut options = MergeOptions::default().with_partition_by(partition_by).with_parallelism(output.parallelism);
        options.memory = output.memory;
        options.max_quarantined = output.spec.max_quarantined;
        options.sealed = !guards.is_empty();
        options.bad_rows = bad_rows(contract);
        options.new_server = output.spec.new_server.unwrap_or_default();
        if let Some(percent) = output.spec.max_deleted {
            options = options.with_max_deleted(percent);
        }
        Self { output, options, guards }
    }

    /// Returns whether options and contract determine key and order, whatever the records and the table say.
    fn is_determined(&self, sources: KeyAndOrderSources) -> bool {
        self.resolve(sources).missing_option().is_none()
    }

    fn resolve(&self, mut sources: KeyAndOrderSources) -> KeyAndOrderColumns {
        let spec = self.output.spec;
        sources.options = KeyAndOrderColumns { key: spec.key.clone(), order: spec.order.clone() };
        sources.resolve()
    }

    async fn columns(&self, sources: KeyAndOrderSources, dataset: &Dataset) -> Result<KeyAndOrderColumns> {
        Ok(self.resolve(sources.with_table(merged_by(dataset).await?)))
    }

    fn spec(&self, columns: KeyAndOrderColumns) -> Result<MergeSpec> {
        let spec = MergeSpec::new(columns.key, columns.order)?
            .with_op_rank(&self.output.spec.op_rank)
            .with_ignore_null(IgnoreNull::named(&self.output.spec.ignore_null))
            .with_drop_columns(self.output.spec.drop_columns.clone());
        Ok(spec)
    }

    /// Begins to collect the records. For periods, and if the key is not known before they are read, they are divided when
    /// all of them are there.
    async fn collect(&self, sources: KeyAndOrderSources) -> Result<OutputRecords> {
        let dataset = Dataset::of_version(&self.output.snapshot);
        let columns = self.columns(sources, &dataset).await?;
        if self.output.spec.mode == OutputMode::Snapshot || columns.missing_option().is_some() {
            return Ok(OutputRecords::Buffered(Box::new(BufferedChanges::new(&self.options))));
        }
        let merge = Merge::new(dataset, self.spec(columns)?, self.options.clone())?;
        Ok(OutputRecords::Collected(Box::new(merge.collect()?)))
    }

    /// Merges the records into the table, or into its periods, together with the bookmarks and the quarantine.
    async fn run(
        self,
        chosen: &[ChosenInput],
        input: RecordsToMerge<'_>,
        mut report: OutputReport,
        run: &RunOptions,
    ) -> Result<OutputReport> {
        let RecordsToMerge { records, sources, refused, table } = input;
        let (output, guards) = (self.output, self.guards);
        let snapshot = table.snapshot.clone();
        let dataset = Dataset::of_version(&snapshot);
        let columns = self.columns(sources, &dataset).await?;
        if let Some(what) = columns.missing_option() {
            if records.is_empty() && records.rest().refused.is_empty() {
                return Ok(report);
            }
            let message = format!("output `{}` has no {what}; set `{what}` or declare it in a contract", output.name);
            return Err(invalid_spec(message));
        }
        guards
            .iter()
            .try_for_each(|guard| guard.check_columns(&columns.key, &columns.order, &self.options.partition_by))?;
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
        let spec = self.spec(columns)?;
        let mode = if run.is_dry() { RunMode::DryRun } else { RunMode::Commit };
        match records {
            OutputRecords::Buffered(changes) if output.spec.mode == OutputMode::Snapshot => {
                let periods = output.periods()?;
                let as_of = run.as_of.as_ref().map_or(Ok(output.run.start), |text| periods.calendar.read(text))?;
                let snapshots = PeriodTable::new(dataset, spec, self.options, periods)?;
                let merged = snapshots.run_on(snapshot, *changes, as_of, mode, extras).await?;
                report_snapshots(&merged, &mut report);
            }
            records => {
                records.check_key(&spec.key)?;
                let merge = Merge::new(dataset, spec, self.options)?;
                let merged = merge.input(records).on(snapshot).with_extras(extras).run(mode).await?;
                report_merge(&merged, &mut report);
            }
        }
        Ok(report)
    }
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
