//! Outputs of the modes `merge` and `snapshot`: turns the input into change records, and passes them to biscuit-apply
//! or biscuit-partition together with the bookmarks and the quarantine, so that all of it is one commit.

use std::sync::{Arc, Mutex, PoisonError};

use biscuit_apply::internal::partition_columns;
use biscuit_apply::report::{MergeRemarks, MergeReport, RecordVerdicts};
use biscuit_apply::{
    ChangeFiles, IgnoreNull, KeyAndOrderColumns, KeyAndOrderSources, Merge, MergeOptions, MergeSpec, RunMode,
    merged_by, quarantine_records,
};
use biscuit_bookmark::{RunOutput, SourceObject};
use biscuit_change::{ChangeBatch, ChangeColumns, ChangeRecords, RefusedRecord, row_changes};
use biscuit_core::{Error, Result};
use biscuit_journal::CommitExtras;
use biscuit_partition::report::PeriodTableReport;
use biscuit_partition::{PeriodBasis, PeriodCalendar, PeriodPlan, PeriodTable};
use biscuit_schema::Contract;
use datafusion::arrow::array::RecordBatch;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::read::changes::{bad_rows, format_of};
use crate::read::source::FileRows;
use crate::report::counts::OutputReport;
use crate::run_options::RunOptions;
use crate::shape::finisher::FinishReport;
use crate::shape::treatment::needs_contract;
use crate::spec::{OutputMode, SourceFormat, SourceSpec, invalid};
use crate::work::{OutputRows, OutputWork};
use crate::write::writer::{QueryRows, each_rows};

/// Rows with the file that they come from and their numbers in it.
type PlacedRows = (RecordBatch, Arc<str>, Vec<u64>);

impl OutputWork<'_> {
    /// Returns the source if its format is change records.
    pub(crate) fn changes(&self) -> Option<&SourceSpec> {
        let source = self.chosen.first().map(|c| &self.job.sources[&c.source])?;
        source.format.is_changes().then_some(source)
    }

    /// Merges the change records of the source.
    pub(crate) async fn merge_changes(mut self, options: &RunOptions) -> Result<OutputReport> {
        let Some(source) = self.changes().cloned() else {
            return Err(Error::internal("the source has no change records"));
        };
        let contract = match self.contract(source.contract.as_ref())? {
            Some(contract) => Some(contract),
            None => self.contract(self.spec.contract.as_ref())?,
        };
        let expected = self.snapshot.current_schema().await?;
        let guard = self.guard_for(contract.as_ref())?;
        if guard.is_some() && contract.is_none() && source.format != SourceFormat::Debezium {
            return Err(needs_contract(&self.chosen[0].source));
        }
        let format = format_of(&source, self.spec, contract.clone(), Some(expected))?;
        let chosen = &self.chosen[0];
        let found = chosen.files(&chosen.selection.objects)?.iter().map(|file| file.found.clone()).collect();
        let mut changes = ChangeFiles::found(found, format.clone()).changes().await?;
        if let Some(guard) = guard {
            changes = guard.records(changes).await?;
            self.guards.push(guard);
            if !changes.is_empty() {
                self.check_policy()?;
            }
        }
        let sources: Vec<_> = changes.batches.iter().map(|batch| (batch.rows.schema(), false)).collect();
        self.encrypt_files(&sources, None).await?;
        self.say_sources(&[])?;
        let sources = KeyAndOrderSources::default().with_records(&format, &changes.key, &changes.order);
        self.merge(changes, sources.with_contract(contract.as_ref()), contract.as_ref(), vec![], options).await
    }

    /// Merges rows of other formats. Each row is an upsert, unless its operation column has another operation.
    pub(crate) async fn merge_rows(mut self, options: &RunOptions) -> Result<OutputReport> {
        let objects: Vec<_> = self
            .chosen
            .iter()
            .map(|c| if c.bookmark.is_some() { c.selection.objects.clone() } else { c.input.everything() })
            .collect();
        let rows = self.rows(&objects).await?;
        let placed = match self.query(&rows, &objects).await? {
            Some(query) => {
                let mut all: Vec<PlacedRows> = Vec::new();
                for stream in query.run().await? {
                    let name: Arc<str> = format!("the rows of the output `{}`", self.name).into();
                    let (mut made, mut seen) = (QueryRows::new(stream, self.name, rows.finish.clone()), 0);
                    while let Some(batch) = made.next().await? {
                        let count = batch.num_rows() as u64;
                        // Rows of a query have no file; messages number them in the order of the result.
                        all.push((batch, name.clone(), (seen + 1..=seen + count).collect()));
                        seen += count;
                    }
                }
                all
            }
            None => self.placed(&rows, &objects).await?,
        };
        let FinishReport { report, mut refused, findings } = rows.finish.finish()?;
        refused.extend(self.say_sources(&rows.readings)?);
        self.report.coercion = Some(report).filter(|report| rows.contract.is_some() || !report.columns.is_empty());
        self.report.findings.extend(findings);
        self.report.quarantined = refused.len() as u64;
        let count = placed.iter().map(|(b, ..)| b.num_rows() as u64).sum();
        self.guard(refused.len() as u64, count)?;
        let mut columns = ChangeColumns::default();
        columns.op.clone_from(&self.spec.op);
        let mut batches: Vec<ChangeBatch> = Vec::new();
        let mut ignored = 0;
        for (batch, file, numbers) in placed.into_iter().filter(|(b, ..)| b.num_rows() > 0) {
            let (changes, left_out) = row_changes(&batch, &file, numbers, &columns)?;
            ignored += left_out;
            batches.push(changes);
        }
        let mut changes = ChangeRecords::of(batches);
        changes.ignored = ignored;
        let sources = KeyAndOrderSources::default().with_contract(rows.contract.as_ref());
        self.merge(changes, sources, rows.contract.as_ref(), refused, options).await
    }

    /// Reads the rows of the only source into memory.
    async fn placed(&self, rows: &OutputRows, objects: &[Vec<SourceObject>]) -> Result<Vec<PlacedRows>> {
        let all: Arc<Mutex<Vec<PlacedRows>>> = Arc::default();
        let into = all.clone();
        // After the output's contract refused a row, later rows of the batch have the number of a neighbour. Numbers
        // are used only in messages.
        let take = move |_: &mut (), _: &Handle, from: &FileRows<'_>, batch: RecordBatch| {
            let numbers = (0..batch.num_rows()).map(|row| from.number(row)).collect();
            into.lock().unwrap_or_else(PoisonError::into_inner).push((batch, from.file.name().into(), numbers));
            Ok(())
        };
        each_rows(self.only_source(rows, objects).await?, || (), take, |(), _| Ok(())).await?;
        Ok(std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    async fn merge(
        mut self,
        changes: ChangeRecords,
        sources: KeyAndOrderSources,
        contract: Option<&Contract>,
        refused: Vec<RefusedRecord>,
        run: &RunOptions,
    ) -> Result<OutputReport> {
        let dataset = self.snapshot.dataset().clone();
        let mut sources = sources.with_table(merged_by(&dataset).await?);
        sources.options = KeyAndOrderColumns { key: self.spec.key.clone(), order: self.spec.order.clone() };
        let columns = sources.resolve();
        if let Some(what) = columns.missing() {
            if changes.is_empty() && changes.refused.is_empty() {
                return Ok(self.report);
            }
            let message = format!("output `{}` has no {what}; set `{what}` or declare it in a contract", self.name);
            return Err(invalid(message));
        }
        let KeyAndOrderColumns { key, order } = columns;
        let partition_by = partition_columns(&self.spec.partition_by, contract);
        self.guards.iter().try_for_each(|guard| guard.check(&key, &order, &partition_by))?;
        let mut extras = CommitExtras::default().with_run(self.run.id.to_string());
        // The bookmarks advance in the commit of the merge: read once, or not at all.
        for chosen in self.chosen.iter().filter(|c| c.bookmark.is_some()) {
            if let Some(change) = chosen.state.advance(&chosen.selection, self.run, RunOutput::default())? {
                extras.extend(change);
            }
        }
        let refused = self.sealed(refused)?;
        let head = &self.snapshot.observed.head;
        extras.extend(quarantine_records(dataset.journal(), head, refused).await?);
        let mut options = MergeOptions::default().with_partition_by(partition_by);
        options.max_quarantined = self.spec.max_quarantined;
        options.sealed = !self.guards.is_empty();
        options.bad_rows = bad_rows(contract);
        options.new_server = self.spec.new_server.unwrap_or_default();
        if let Some(percent) = self.spec.max_deleted {
            options = options.with_max_deleted(percent);
        }
        let spec = MergeSpec::new(key, order)?
            .with_op_rank(&self.spec.op_rank)
            .with_ignore_null(IgnoreNull::named(&self.spec.ignore_null))
            .with_drop_columns(self.spec.drop_columns.clone());
        let mode = if run.is_dry() { RunMode::DryRun } else { RunMode::Commit };
        if self.spec.mode == OutputMode::Snapshot {
            let periods = self.periods()?;
            let as_of = run.as_of.as_ref().map_or(Ok(self.run.start), |text| periods.calendar.read(text))?;
            let snapshots = PeriodTable::new(dataset, spec, options, periods)?;
            let report = snapshots.run_on(self.snapshot.clone(), changes, as_of, mode, extras).await?;
            self.snapshot_report(&report);
        } else {
            let merge = Merge::new(dataset, spec, options)?;
            let report = merge.input(changes).on(self.snapshot.clone()).with_extras(extras).run(mode).await?;
            self.merge_report(&report);
        }
        Ok(self.report)
    }

    /// Returns the periods of an output of the mode `snapshot`.
    pub(crate) fn periods(&self) -> Result<PeriodPlan> {
        let granularity = self.spec.granularity.as_deref().unwrap_or_default().parse()?;
        let calendar = PeriodCalendar::new(granularity, self.spec.zone.as_deref().unwrap_or("UTC"))?;
        let by = self.spec.effective_column.clone().map_or(PeriodBasis::Ingestion, PeriodBasis::Effective);
        Ok(PeriodPlan::new(calendar, by))
    }

    fn merge_report(&mut self, report: &MergeReport) {
        let p = &report.partitions;
        let all = p.added.iter().chain(&p.changed).chain(&p.emptied).filter(|n| !n.is_empty());
        self.report.partitions = all.cloned().collect();
        (self.report.outcome, self.report.version) = (report.outcome, report.version);
        self.take_merge(report.records, &report.verdicts, &report.remarks, json!(report));
    }

    fn snapshot_report(&mut self, report: &PeriodTableReport) {
        self.report.partitions = report.periods.iter().filter(|p| p.is_touched()).map(|p| p.period.clone()).collect();
        (self.report.outcome, self.report.version) = (report.outcome, report.version);
        self.take_merge(report.records, &report.verdicts, &report.remarks, json!(report));
    }
    /// Takes into the report of the output what the reports of both kinds of merges have.
    fn take_merge(&mut self, records: u64, verdicts: &RecordVerdicts, remarks: &MergeRemarks, merge: Value) {
        self.report.rows = records;
        self.report.quarantined += verdicts.quarantined;
        self.report.exceptions.clone_from(&remarks.exceptions);
        self.report.merge = merge;
    }
}
