//! One output at work: checks that the mode of the run fits the output, decides the contract of each source, and
//! connects readers, query and finisher. `write/` does the rest by the mode of the output.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use biscuit_bookmark::{ReadMode, SourceObject};
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result, Run};
use biscuit_dataset::internal::refuse_raw;
use biscuit_dataset::{FileSizing, ParquetOptions, TableVersion, WriteOptions};
use biscuit_journal::TableCommit;
use biscuit_pii::PiiContext;
use biscuit_schema::{Coercion, Contract, ContractCompliance, DatasetLayer, ExtraColumns, OnError};
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::read::choose::ChosenInput;
use crate::read::infer::{InferScope, infer};
use crate::read::source::{ReadTask, SourceReader, TaskQueue};
use crate::report::counts::{OutputReport, SourceReport};
use crate::run_options::RunOptions;
use crate::shape::columns::AddedColumns;
use crate::shape::finisher::RowFinisher;
use crate::shape::query::{QuerySource, SourceQuery};
use crate::shape::treatment::{TreatedSource, all_seen};
use crate::spec::{ContractSpec, JobSpec, OutputMode, OutputSpec, SourceFormat, contract};
use crate::write::writer::{SourceRows, StagedOutput, WriteTarget, write_query, write_rows};

/// Everything that is needed to turn the input of an output into its rows.
pub(crate) struct OutputRows {
    pub(crate) readings: Vec<Arc<SourceReader>>,
    pub(crate) finish: Arc<RowFinisher>,
    pub(crate) partition_by: Vec<String>,
    pub(crate) contract: Option<Contract>,
}

/// The work on one output in one run.
pub(crate) struct OutputWork<'a> {
    pub(crate) job: &'a JobSpec,
    /// Folder of contract files.
    pub(crate) folder: &'a Path,
    /// Maximum number of threads that read and write.
    pub(crate) parallelism: usize,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a OutputSpec,
    pub(crate) run: &'a Run,
    pub(crate) snapshot: TableVersion,
    /// Options for the files of the output.
    pub(crate) parquet: ParquetOptions,
    pub(crate) chosen: Vec<ChosenInput>,
    pub(crate) report: OutputReport,
    /// Keys and stores for the policy on personal data.
    pub(crate) means: Option<PiiContext>,
    /// Treatment of personal data, one for each source.
    pub(crate) guards: Vec<Arc<TreatedSource>>,
}

impl OutputWork<'_> {
    /// Runs the output in its mode.
    pub(crate) async fn go(self, options: &RunOptions) -> Result<OutputReport> {
        // Values of rows are in the details of an error, which are shown on request. Values of personal data must not
        // be, even then.
        let guard = self.guard_for(None)?;
        // The future is large, since a job may use everything. It is on the heap to keep the stack of the thread
        // small.
        Box::pin(self.work(options)).await.map_err(|e| match &guard {
            Some(guard) => guard.tagged(e),
            None => e,
        })
    }

    async fn work(mut self, options: &RunOptions) -> Result<OutputReport> {
        self.check_mode(options)?;
        let reads = self.chosen.iter().any(|c| c.bookmark.is_none() || !c.selection.objects.is_empty());
        let by_bookmark = self.chosen.iter().any(|c| c.bookmark.is_some());
        let new = self.chosen.iter().any(|c| c.bookmark.is_some() && !c.selection.objects.is_empty());
        // A source without a bookmark is read in every run, but alone it does not cause a run if another source has
        // a bookmark and no new objects.
        let nothing = options.rebuild.is_empty() && (!reads || (by_bookmark && !new));
        if nothing {
            self.say_sources(&[])?;
            return Ok(self.report);
        }
        if self.changes().is_some() {
            return Box::pin(self.merge_changes(options)).await;
        }
        match self.spec.mode {
            OutputMode::Merge | OutputMode::Snapshot => Box::pin(self.merge_rows(options)).await,
            _ => Box::pin(self.write(options)).await,
        }
    }

    /// Checks that the options of the run fit the mode of the output, and that no input would be lost or stored
    /// twice.
    fn check_mode(&self, options: &RunOptions) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, what.to_owned()));
        let head = &self.snapshot.observed.head;
        let appends = self.spec.mode == OutputMode::Append;
        if !options.rebuild.is_empty() {
            if !matches!(self.spec.mode, OutputMode::Append | OutputMode::ReplacePartitions) {
                return wrong("only outputs with the mode `append` or `replace-partitions` can rebuild partitions");
            }
            if options.mode != ReadMode::Advance {
                return wrong(
                    "a rebuild reads the input of its partitions and cannot be combined with another read mode",
                );
            }
            if self.chosen.iter().all(|c| c.bookmark.is_none()) {
                return wrong("a rebuild needs a bookmark: without one, the input of partitions is not known");
            }
            refuse_raw(head, "rebuilt")?;
        }
        if !appends {
            refuse_raw(head, "replaced or merged into")?;
        }
        if appends && self.chosen.iter().all(|c| c.bookmark.is_none()) {
            return wrong(
                "an output with the mode `append` needs a bookmark; without one, input would be stored twice",
            );
        }
        let remembers = matches!(options.mode, ReadMode::Advance);
        match (self.spec.mode, &options.mode) {
            (OutputMode::Append, ReadMode::Full | ReadMode::ReadOnly) if !options.is_dry() => {
                wrong("an output with the mode `append` records what it read; reset or rewind its bookmark instead")
            }
            (OutputMode::ReplacePartitions | OutputMode::Replace, _) if !remembers && !options.is_dry() => wrong(
                "an output that replaces rows always reads all input that reaches it; rebuild partitions, or rewind its bookmark",
            ),
            _ => Ok(()),
        }
    }

    /// Adds the sources to the report. Returns the refused records.
    ///
    /// # Errors
    /// `NotUnique` and other rules of a source's contract that stop the run.
    pub(crate) fn say_sources(&mut self, readings: &[Arc<SourceReader>]) -> Result<Vec<RefusedRecord>> {
        let mut refused = Vec::new();
        for (at, chosen) in self.chosen.iter().enumerate() {
            let source = self.report.sources.entry(chosen.source.clone()).or_default();
            source.bookmark.clone_from(&chosen.bookmark);
            source.selection = chosen.selection.clone();
            if let Some(reading) = readings.get(at) {
                let found = reading.found()?;
                source.read = Some(found.report);
                self.report.findings.extend(found.findings);
                refused.extend(found.refused);
            }
        }
        Ok(refused)
    }

    /// Stops the run if more rows are quarantined than `max_quarantined` allows.
    pub(crate) fn guard(&self, refused: u64, rows: u64) -> Result<()> {
        let share = refused as f64 * 100.0 / (refused + rows).max(1) as f64;
        if refused == 0 || share <= self.spec.max_quarantined {
            return Ok(());
        }
        let maximum = self.spec.max_quarantined;
        let message = format!(
            "{refused} of {} rows ({share:.2} percent) would be quarantined; the maximum is {maximum} percent (`max_quarantined`)",
            refused + rows
        );
        Err(Error::new(biscuit_apply::codes::TOO_MANY_QUARANTINED, message))
    }

    /// Returns how the rows of the sources become the rows of the output.
    pub(crate) async fn rows(&mut self, objects: &[Vec<SourceObject>]) -> Result<OutputRows> {
        let own = self.contract(self.spec.contract.as_ref())?;
        if let Some(layer) = own.as_ref().and_then(|c| c.layer).filter(|l| *l == DatasetLayer::Raw)
            && self.spec.mode != OutputMode::Append
        {
            let message =
                format!("the contract of `{}` declares the layer {layer:?}, so its mode must be `append`", self.name);
            return Err(Error::new(biscuit_dataset::codes::RAW_LAYER, message.replace("Raw", "raw")));
        }
        // Without a commit, the types of the table are only in its files. A mode that replaces the table ignores them.
        let known = match self.spec.mode {
            OutputMode::Replace => self.snapshot.known_schema()?,
            _ => Some(self.snapshot.current_schema().await?),
        };
        let known = known.filter(|s| !s.fields().is_empty());
        // A treated column has another type in the table than in the source, so the table does not tell the type in
        // the source.
        let treated = match &known {
            Some(known) => self.treated(known)?,
            None => BTreeSet::new(),
        };
        let added = AddedColumns::new(&self.spec.audit, self.spec.derive.clone(), self.run);
        // The table adds the column that names the period.
        let period = if self.spec.mode == OutputMode::Snapshot { Some(self.periods()?.column) } else { None };
        let made = treated.iter().chain(&period).map(String::as_str);
        let names: BTreeSet<&str> = added.names().chain(made).collect();
        let known = known.as_ref().filter(|_| self.spec.sql.is_none()).map(|s| without(s, &names));
        let mut readings = Vec::new();
        for (at, objects) in objects.iter().enumerate() {
            let contract = self.contract_of(at, objects, known.as_ref()).await?;
            readings.push(Arc::new(self.reading(at, &contract, own.as_ref()).await?));
        }
        self.check_classes(own.as_ref())?;
        let coercion = own.as_ref().map(|c| self.coercion(c, &added)).transpose()?;
        let compliance = ContractCompliance::new(own.as_ref().unwrap_or(&Contract::default()), self.run.start)?;
        // Without a query and a contract of the output, the source's contract names the partition columns.
        let declared = match (&own, readings.as_slice(), &self.spec.sql) {
            (Some(own), ..) => own.partition_by.clone(),
            (None, [one], None) => one.coercion.contract().partition_by.clone(),
            _ => vec![],
        };
        let partition_by = match self.spec.partition_by.as_slice() {
            [] => declared,
            columns => columns.to_vec(),
        };
        // Without a contract of the output, the `on_error` of the source's contract applies.
        let policy = own.as_ref().or(readings.first().map(|reading| reading.coercion.contract())).map(|c| c.on_error);
        let quarantines = policy == Some(OnError::Quarantine);
        let folders = if quarantines { partition_by.clone() } else { vec![] };
        let finish = Arc::new(
            RowFinisher::new(added, coercion, compliance).with_folders(folders).of_query(self.spec.sql.is_some()),
        );
        let sources: Vec<_> = readings.iter().map(|reading| (reading.schema.clone(), reading.keeps_extra())).collect();
        self.encrypt_files(&sources, own.as_ref()).await?;
        Ok(OutputRows { readings, finish, partition_by, contract: own })
    }

    /// Returns the declared contract of a source or of the output.
    pub(crate) fn contract(&self, spec: Option<&ContractSpec>) -> Result<Option<Contract>> {
        let read = |path: &str| {
            let path = self.folder.join(path);
            std::fs::read_to_string(&path).map_err(|e| {
                let message = format!("cannot read the contract `{}`: {e}", path.display());
                Error::new(biscuit_schema::codes::INVALID_CONTRACT, message).with_source(e)
            })
        };
        spec.map(|spec| contract(spec, read)).transpose()
    }

    /// Returns the contract of the rows of a source. `known` has the types of the output's columns, for rows without
    /// a query.
    async fn contract_of(
        &mut self,
        at: usize,
        objects: &[SourceObject],
        known: Option<&SchemaRef>,
    ) -> Result<Contract> {
        let chosen = &self.chosen[at];
        let spec = &self.job.sources[&chosen.source];
        match self.contract(spec.contract.as_ref())? {
            // Columns that the contract does not declare but keeps get types from their values.
            Some(mut contract) if contract.extra == ExtraColumns::Keep && spec.format != SourceFormat::Parquet => {
                let files = chosen.files(objects)?;
                let (found, _) =
                    infer(&files, spec.format, &spec.text(), spec.rules.as_ref(), (None, None), InferScope::All)
                        .await?;
                let own = |name: &str| {
                    let is = |n: &String| n.eq_ignore_ascii_case(name);
                    contract.columns.iter().any(|c| is(&c.name) || c.reading.renamed_from.iter().any(is))
                };
                let more: Vec<_> = found.columns.into_iter().filter(|c| !own(&c.name)).collect();
                contract.columns.extend(more);
                Ok(contract)
            }
            Some(contract) => Ok(contract),
            None => {
                let files = chosen.files(objects)?;
                let file = spec.source_file.as_deref();
                let known = known.map(|known| without(known, &file.into_iter().collect()));
                let keys = self.snapshot.dataset().encryption();
                let (contract, conflicts) = infer(
                    &files,
                    spec.format,
                    &spec.text(),
                    spec.rules.as_ref(),
                    (known.as_ref(), keys),
                    InferScope::All,
                )
                .await?;
                conflicts.iter().for_each(|c| tracing::warn!("{c}"));
                let report: &mut SourceReport = self.report.sources.entry(chosen.source.clone()).or_default();
                report.conflicts = conflicts;
                Ok(contract)
            }
        }
    }

    /// Creates the reader of a source, which also treats personal data.
    async fn reading(&mut self, at: usize, contract: &Contract, own: Option<&Contract>) -> Result<SourceReader> {
        let spec = &self.job.sources[&self.chosen[at].source];
        let keys = self.snapshot.dataset().encryption().cloned();
        let reading = SourceReader::new(spec.format, spec.text(), contract, self.run.start)?.with_keys(keys);
        // Without a query and a contract of the source, the rows are those of the output, so the classes of the
        // output's contract apply.
        let declared = match (&spec.contract, &self.spec.sql) {
            (None, None) => own.unwrap_or(contract),
            _ => contract,
        };
        let Some(guard) = self.guard_for(Some(declared))? else { return Ok(reading) };
        self.guards.push(guard.clone());
        reading.with_guard(guard).await
    }

    /// Checks that the policy names only existing columns, and covers every column with a class.
    ///
    /// # Errors
    /// Errors of [`all_seen`]; `UntreatedClass` for a column of the output whose class no source treats.
    fn check_classes(&self, own: Option<&Contract>) -> Result<()> {
        self.check_policy()?;
        let Some(own) = own.filter(|_| !self.guards.is_empty() && self.spec.sql.is_none()) else { return Ok(()) };
        let is_named = |name: &str| self.guards.iter().any(|guard| guard.names(name));
        match own.columns.iter().find(|c| c.pii.is_some() && !is_named(&c.name)) {
            Some(column) => {
                let message = format!(
                    "column `{}` has a class in the output's contract but not in the source's contract; add the class there",
                    column.name
                );
                Err(Error::new(biscuit_pii::codes::UNTREATED_CLASS, message).with_column(&column.name))
            }
            None => Ok(()),
        }
    }

    /// Checks that every name in the policy exists, in the sources of this output or in the contracts of the other
    /// sources.
    pub(crate) fn check_policy(&self) -> Result<()> {
        let own = |name: &String| self.chosen.iter().any(|chosen| chosen.source == *name);
        let others = self.job.sources.iter().filter(|(name, _)| !own(name));
        let others = others.filter_map(|(_, spec)| self.contract(spec.contract.as_ref()).transpose());
        all_seen(&self.guards, &others.collect::<Result<Vec<_>>>()?)
    }

    /// Returns the treatment of rows with this contract, if the job has a policy.
    pub(crate) fn guard_for(&self, contract: Option<&Contract>) -> Result<Option<Arc<TreatedSource>>> {
        let (Some(policy), Some(means)) = (&self.job.pii, &self.means) else { return Ok(None) };
        let guard = TreatedSource::new(policy, means, (self.name, self.spec.mode), contract)?;
        Ok(Some(Arc::new(guard)))
    }

    /// Returns the columns of the table whose values the policy changes.
    fn treated(&self, known: &SchemaRef) -> Result<BTreeSet<String>> {
        let Some(guard) = self.guard_for(None)? else { return Ok(BTreeSet::new()) };
        let names = known.fields().iter().map(|f| f.name().clone());
        Ok(names.filter(|name| guard.changes(name)).collect())
    }

    /// Seals the refused records, and adds the treated values to the report.
    ///
    /// # Errors
    /// `NoKeys` if records must be sealed and there is no key.
    pub(crate) fn sealed(&mut self, refused: Vec<RefusedRecord>) -> Result<Vec<RefusedRecord>> {
        for (path, treated) in self.guards.iter().flat_map(|guard| guard.done()) {
            self.report.pii.entry(path).or_default().add(&treated);
        }
        match self.guards.first() {
            Some(guard) => guard.refused(refused),
            None => Ok(refused),
        }
    }

    /// Returns the coercion to the output's contract. Columns that the job itself names remain even if the contract
    /// does not declare them: added columns, partition columns, and columns that a merge uses but need not store.
    fn coercion(&self, contract: &Contract, added: &AddedColumns) -> Result<Coercion> {
        let spec = self.spec;
        let files = self.chosen.iter().filter_map(|c| self.job.sources[&c.source].source_file.as_deref());
        let used = spec.partition_by.iter().chain(&spec.order).chain(&spec.drop_columns);
        let used = used.chain(&spec.op).chain(&spec.effective_column).map(String::as_str);
        let files = files.filter(|_| spec.sql.is_none());
        Ok(Coercion::new(contract)?.with_kept(added.names().chain(files).chain(used)))
    }

    /// Returns the tasks of each source.
    async fn tasks(&self, rows: &OutputRows, objects: &[Vec<SourceObject>]) -> Result<Vec<Vec<ReadTask>>> {
        let mut tasks = Vec::new();
        for ((chosen, reading), objects) in self.chosen.iter().zip(&rows.readings).zip(objects) {
            tasks.push(reading.tasks(&chosen.files(objects)?).await?);
        }
        Ok(tasks)
    }

    /// Plans the query of the output, if it has one.
    pub(crate) async fn query(&self, rows: &OutputRows, objects: &[Vec<SourceObject>]) -> Result<Option<SourceQuery>> {
        let Some(sql) = &self.spec.sql else { return Ok(None) };
        let tasks = self.tasks(rows, objects).await?;
        let mut sources = Vec::new();
        for ((chosen, reading), tasks) in self.chosen.iter().zip(&rows.readings).zip(tasks) {
            let source_file = self.job.sources[&chosen.source].source_file.as_deref();
            sources.push(QuerySource { name: &chosen.source, reading, source_file, tasks });
        }
        SourceQuery::plan(sql, sources, self.parallelism).await.map(Some)
    }

    /// Returns the number of threads for the input. Each thread writes its own files, so small input uses few
    /// threads.
    fn workers(&self, objects: &[Vec<SourceObject>]) -> usize {
        let bytes: u64 = objects.iter().flatten().map(|o| o.listed.size).sum();
        self.parallelism.min(usize::try_from(bytes / WORTH + 1).unwrap_or(1))
    }

    /// Stages the rows of these objects, or only counts them. `only` limits the folders that are written.
    pub(crate) async fn stage(
        &self,
        rows: &OutputRows,
        objects: &[Vec<SourceObject>],
        replace: &TableCommit<'_>,
        (only, discard): (Option<BTreeSet<String>>, bool),
    ) -> Result<StagedOutput> {
        let mut options = WriteOptions::default().with_partition_by(rows.partition_by.clone());
        options.parquet = self.parquet.clone();
        if let Some(size) = self.spec.target_size {
            options = options.with_sizing(FileSizing::TargetSize(size));
        }
        let journal = self.snapshot.dataset().journal().clone();
        let spelling = self.snapshot.folder_spelling()?;
        let target = WriteTarget { journal, stager: replace.stager(), options, only, spelling, discard };
        if let Some(query) = self.query(rows, objects).await? {
            return write_query(query.run().await?, self.name, &rows.finish, &target).await;
        }
        write_rows(self.only_source(rows, objects).await?, &target).await
    }

    /// Returns the rows of the only source of an output without a query.
    pub(crate) async fn only_source<'b>(
        &'b self,
        rows: &'b OutputRows,
        objects: &[Vec<SourceObject>],
    ) -> Result<SourceRows<'b>> {
        let [tasks] = <[Vec<ReadTask>; 1]>::try_from(self.tasks(rows, objects).await?)
            .map_err(|_| Error::internal("the output has several sources without a query"))?;
        Ok(SourceRows {
            reading: &rows.readings[0],
            source_file: self.job.sources[&self.chosen[0].source].source_file.as_deref(),
            queue: TaskQueue::new(tasks),
            finish: &rows.finish,
            workers: self.workers(objects),
        })
    }
}

/// Bytes of input for each additional thread.
const WORTH: u64 = 32 << 20;

/// Returns the schema without the named columns.
fn without(schema: &SchemaRef, names: &BTreeSet<&str>) -> SchemaRef {
    let fields = schema.fields().iter().filter(|f| !names.contains(f.name().as_str())).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
