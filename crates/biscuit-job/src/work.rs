use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_bookmark::{ReadMode, SourceObject};
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result, Run};
use biscuit_dataset::{FileSizing, ParquetOptions, TableVersion, WriteOptions, refuse_raw};
use biscuit_journal::TableCommit;
use biscuit_pii::PiiContext;
use biscuit_schema::{Coercion, Contract, ContractCompliance, DatasetLayer, ExtraColumns, OnError};
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::job::{DeclarativeJob, RunOptions};
use crate::read::choose::ChosenInput;
use crate::read::infer::{InferScope, infer};
use crate::read::source::{ReadTask, SourceReader, TaskQueue};
use crate::report::counts::{OutputReport, SourceReport};
use crate::shape::columns::AddedColumns;
use crate::shape::finisher::RowFinisher;
use crate::shape::query::{QuerySource, SourceQuery};
use crate::shape::treatment::{TreatedSource, all_seen};
use crate::spec::{OutputMode, OutputSpec, SourceFormat};
use crate::write::writer::{SourceRows, StagedOutput, WriteTarget, write_query, write_rows};

/// The rows of an output, and how they become its own.
pub(crate) struct OutputRows {
    pub(crate) readings: Vec<Arc<SourceReader>>,
    pub(crate) finish: Arc<RowFinisher>,
    pub(crate) partition_by: Vec<String>,
    pub(crate) contract: Option<Contract>,
}

/// An output at work.
pub(crate) struct OutputWork<'a> {
    pub(crate) job: &'a DeclarativeJob,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a OutputSpec,
    pub(crate) run: &'a Run,
    pub(crate) snapshot: TableVersion,
    /// How its files are written.
    pub(crate) parquet: ParquetOptions,
    pub(crate) chosen: Vec<ChosenInput>,
    pub(crate) report: OutputReport,
    /// What the job's policy on personal data works with.
    pub(crate) means: Option<PiiContext>,
    /// What became of personal data, by source.
    pub(crate) guards: Vec<Arc<TreatedSource>>,
}

impl OutputWork<'_> {
    /// Does what the output's mode asks for.
    pub(crate) async fn go(self, options: &RunOptions) -> Result<OutputReport> {
        // Values are details of errors, which are shown on request; those of personal data are not.
        let guard = self.guard_for(None)?;
        // On the heap: the futures of a job that goes through everything are larger than a thread's stack likes.
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

    fn check_mode(&self, options: &RunOptions) -> Result<()> {
        let wrong = |what: &str| Err(Error::usage("InvalidMode", what.to_owned()));
        let head = &self.snapshot.observed.head;
        let appends = self.spec.mode == OutputMode::Append;
        if !options.rebuild.is_empty() {
            if !matches!(self.spec.mode, OutputMode::Append | OutputMode::ReplacePartitions) {
                return wrong("partitions are rebuilt of outputs that append, or replace partitions");
            }
            if options.mode != ReadMode::Advance {
                return wrong("a rebuild reads what its partitions were made of, and goes with no other mode");
            }
            if self.chosen.iter().all(|c| c.bookmark.is_none()) {
                return wrong("without a bookmark it is not known what partitions were made of");
            }
            refuse_raw(head, "rebuilt")?;
        }
        if !appends {
            refuse_raw(head, "replaced or merged into")?;
        }
        if appends && self.chosen.iter().all(|c| c.bookmark.is_none()) {
            return wrong("an output that appends needs a bookmark, so that no input is in it twice");
        }
        let remembers = matches!(options.mode, ReadMode::Advance);
        match (self.spec.mode, &options.mode) {
            (OutputMode::Append, ReadMode::Full | ReadMode::ReadOnly) if !options.is_dry() => {
                wrong("an output that appends remembers what it read: reset or rewind its bookmark instead")
            }
            (OutputMode::ReplacePartitions | OutputMode::Replace, _) if !remembers && !options.is_dry() => {
                wrong("this output is made of all input that reaches it: rebuild partitions, or rewind its bookmark")
            }
            _ => Ok(()),
        }
    }

    /// What the report says of the sources.
    ///
    /// # Errors
    /// The rules of a source's contract that stop the run.
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

    /// The share of rows that are put aside has a limit.
    pub(crate) fn guard(&self, refused: u64, rows: u64) -> Result<()> {
        let share = refused as f64 * 100.0 / (refused + rows).max(1) as f64;
        if refused == 0 || share <= self.spec.max_quarantined {
            return Ok(());
        }
        let maximum = self.spec.max_quarantined;
        let message = format!(
            "{refused} of {} rows would be put aside, {share:.2} percent; at most {maximum} may be (`max_quarantined`)",
            refused + rows
        );
        Err(Error::data("TooManyQuarantined", message))
    }

    /// How the rows of the sources become the output's.
    pub(crate) async fn rows(&mut self, objects: &[Vec<SourceObject>]) -> Result<OutputRows> {
        let job = self.job;
        let own = job.contract(self.spec.contract.as_ref())?;
        if let Some(layer) = own.as_ref().and_then(|c| c.layer).filter(|l| *l == DatasetLayer::Raw)
            && self.spec.mode != OutputMode::Append
        {
            let message =
                format!("the contract of `{}` declares it {layer:?}: it is added to, and nothing else", self.name);
            return Err(Error::usage("RawLayer", message.replace("Raw", "raw")));
        }
        let known = match self.snapshot.known_schema()? {
            Some(known) => Some(known),
            // Files of others say their columns themselves.
            None if self.spec.mode == OutputMode::Replace => None,
            None => Some(self.snapshot.schema(&self.snapshot.open_files().await?)?),
        };
        let known = known.filter(|s| !s.fields().is_empty());
        // What is treated has another type in the table than where it comes from.
        let treated = match &known {
            Some(known) => self.treated(known)?,
            None => BTreeSet::new(),
        };
        let added = AddedColumns::new(&self.spec.audit, self.spec.derive.clone(), self.run);
        // The column that names periods is made by the table.
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
        // Rows that go there as they are go to the folders that their contract names.
        let declared = match (&own, readings.as_slice(), &self.spec.sql) {
            (Some(own), ..) => own.partition_by.clone(),
            (None, [one], None) => one.coercion.contract().partition_by.clone(),
            _ => vec![],
        };
        let partition_by = match self.spec.partition_by.as_slice() {
            [] => declared,
            present => present.to_vec(),
        };
        // Rows that go there as they are follow the policy of their own contract.
        let policy = own.as_ref().or(readings.first().map(|reading| reading.coercion.contract())).map(|c| c.on_error);
        let aside = policy == Some(OnError::Quarantine);
        let folders = if aside { partition_by.clone() } else { vec![] };
        let finish = Arc::new(
            RowFinisher::new(added, coercion, compliance).with_folders(folders).of_query(self.spec.sql.is_some()),
        );
        let sources: Vec<_> = readings.iter().map(|reading| (reading.schema.clone(), reading.keeps_extra())).collect();
        self.encrypt_files(&sources, own.as_ref()).await?;
        Ok(OutputRows { readings, finish, partition_by, contract: own })
    }

    /// The contract of a source's rows. `known` are the types of the output's columns that hold for rows which go there as they are.
    async fn contract_of(
        &mut self,
        at: usize,
        objects: &[SourceObject],
        known: Option<&SchemaRef>,
    ) -> Result<Contract> {
        let chosen = &self.chosen[at];
        let spec = &self.job.spec.sources[&chosen.source];
        match self.job.contract(spec.contract.as_ref())? {
            // What is kept besides has types of its own.
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

    /// How a source's objects become rows of its contract, without personal data.
    async fn reading(&mut self, at: usize, contract: &Contract, own: Option<&Contract>) -> Result<SourceReader> {
        let spec = &self.job.spec.sources[&self.chosen[at].source];
        let keys = self.snapshot.dataset().encryption().cloned();
        let reading = SourceReader::new(spec.format, spec.text(), contract, self.run.start)?.with_keys(keys);
        // Without a contract of its own and a query, the rows are the output's.
        let declared = match (&spec.contract, &self.spec.sql) {
            (None, None) => own.unwrap_or(contract),
            _ => contract,
        };
        let Some(guard) = self.guard_for(Some(declared))? else { return Ok(reading) };
        self.guards.push(guard.clone());
        reading.with_guard(guard).await
    }

    /// Whether the policy is about columns that are there, and about all that have a class.
    ///
    /// # Errors
    /// Those of [`all_seen`]; `UntreatedClass` for a column of the output whose class no source treats.
    fn check_classes(&self, own: Option<&Contract>) -> Result<()> {
        self.check_policy()?;
        let Some(own) = own.filter(|_| !self.guards.is_empty() && self.spec.sql.is_none()) else { return Ok(()) };
        let is_named = |name: &str| self.guards.iter().any(|guard| guard.names(name));
        match own.columns.iter().find(|c| c.pii.is_some() && !is_named(&c.name)) {
            Some(column) => {
                let message = format!(
                    "column `{}` of the output has a class, and the source's contract does not give it one",
                    column.name
                );
                Err(Error::usage("UntreatedClass", message).with_column(&column.name))
            }
            None => Ok(()),
        }
    }

    /// Whether all names of the policy are about something: in the sources of this output, or by the contracts of those that others read.
    pub(crate) fn check_policy(&self) -> Result<()> {
        let own = |name: &String| self.chosen.iter().any(|chosen| chosen.source == *name);
        let others = self.job.spec.sources.iter().filter(|(name, _)| !own(name));
        let others = others.filter_map(|(_, spec)| self.job.contract(spec.contract.as_ref()).transpose());
        all_seen(&self.guards, &others.collect::<Result<Vec<_>>>()?)
    }

    /// What becomes of personal data in rows of this contract, if the job has a policy.
    pub(crate) fn guard_for(&self, contract: Option<&Contract>) -> Result<Option<Arc<TreatedSource>>> {
        let (Some(policy), Some(means)) = (&self.job.spec.pii, &self.means) else { return Ok(None) };
        let guard = TreatedSource::new(policy, means, (self.name, self.spec.mode), contract)?;
        Ok(Some(Arc::new(guard)))
    }

    /// The columns of a table that are other ones in the sources.
    fn treated(&self, known: &SchemaRef) -> Result<BTreeSet<String>> {
        let Some(guard) = self.guard_for(None)? else { return Ok(BTreeSet::new()) };
        let names = known.fields().iter().map(|f| f.name().clone());
        Ok(names.filter(|name| guard.changes(name)).collect())
    }

    /// What is put aside, and what the report says of personal data.
    ///
    /// # Errors
    /// `NoKeys` if there is nothing to seal rows with that are put aside.
    pub(crate) fn sealed(&mut self, refused: Vec<RefusedRecord>) -> Result<Vec<RefusedRecord>> {
        for (path, treated) in self.guards.iter().flat_map(|guard| guard.done()) {
            self.report.pii.entry(path).or_default().add(&treated);
        }
        match self.guards.first() {
            Some(guard) => guard.refused(refused),
            None => Ok(refused),
        }
    }

    /// What the job itself names is in the rows, also where the output's contract does not have it: columns that it adds, those that make
    /// folders, and those that a merge uses and need not store.
    fn coercion(&self, contract: &Contract, added: &AddedColumns) -> Result<Coercion> {
        let spec = self.spec;
        let files = self.chosen.iter().filter_map(|c| self.job.spec.sources[&c.source].source_file.as_deref());
        let used = spec.partition_by.iter().chain(&spec.order).chain(&spec.drop_columns);
        let used = used.chain(&spec.op).chain(&spec.effective_column).map(String::as_str);
        let files = files.filter(|_| spec.sql.is_none());
        Ok(Coercion::new(contract)?.with_kept(added.names().chain(files).chain(used)))
    }

    /// The tasks of each source.
    async fn tasks(&self, rows: &OutputRows, objects: &[Vec<SourceObject>]) -> Result<Vec<Vec<ReadTask>>> {
        let mut tasks = Vec::new();
        for ((chosen, reading), objects) in self.chosen.iter().zip(&rows.readings).zip(objects) {
            tasks.push(reading.tasks(&chosen.files(objects)?).await?);
        }
        Ok(tasks)
    }

    pub(crate) async fn query(&self, rows: &OutputRows, objects: &[Vec<SourceObject>]) -> Result<Option<SourceQuery>> {
        let Some(sql) = &self.spec.sql else { return Ok(None) };
        let tasks = self.tasks(rows, objects).await?;
        let mut sources = Vec::new();
        for ((chosen, reading), tasks) in self.chosen.iter().zip(&rows.readings).zip(tasks) {
            let source_file = self.job.spec.sources[&chosen.source].source_file.as_deref();
            sources.push(QuerySource { name: &chosen.source, reading, source_file, tasks });
        }
        SourceQuery::plan(sql, sources, self.job.parallelism).await.map(Some)
    }

    /// Threads for so much input: each makes files of its own.
    fn workers(&self, objects: &[Vec<SourceObject>]) -> usize {
        let bytes: u64 = objects.iter().flatten().map(|o| o.size).sum();
        self.job.parallelism.min(usize::try_from(bytes / WORTH + 1).unwrap_or(1))
    }

    /// Stages the rows of these objects, or only counts them.
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

    /// The rows of the only source of an output without a query.
    pub(crate) async fn only_source<'b>(
        &'b self,
        rows: &'b OutputRows,
        objects: &[Vec<SourceObject>],
    ) -> Result<SourceRows<'b>> {
        let [tasks] = <[Vec<ReadTask>; 1]>::try_from(self.tasks(rows, objects).await?)
            .map_err(|_| Error::internal("several sources without a query"))?;
        Ok(SourceRows {
            reading: &rows.readings[0],
            source_file: self.job.spec.sources[&self.chosen[0].source].source_file.as_deref(),
            queue: TaskQueue::new(tasks),
            finish: &rows.finish,
            workers: self.workers(objects),
        })
    }
}

/// Input that another thread is worth its files for.
const WORTH: u64 = 32 << 20;

fn without(schema: &SchemaRef, names: &BTreeSet<&str>) -> SchemaRef {
    let fields = schema.fields().iter().filter(|f| !names.contains(f.name().as_str())).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
