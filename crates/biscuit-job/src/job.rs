use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use biscuit_bookmark::{Mode, Object, Output, Replaced};
use biscuit_change::Refused;
use biscuit_core::{Error, Result, Run};
use biscuit_dataset::{ByUrl, Dataset, FileSizing, LAYER, OpenLocation, Snapshot, WriteOptions, refuse_raw};
use biscuit_journal::{Interrupt, JournalOptions, Outcome, Replace};
use biscuit_merge::put_aside;
use biscuit_schema::{Coercion, Compliance, Contract, Extra, Layer, merge_schemas};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use serde_json::json;

use crate::choose::{Chosen, OpenPlace, PlaceByLocation, choose};
use crate::columns::AddedColumns;
use crate::finish::{Finish, Finished};
use crate::infer::infer;
use crate::query::{Query, QuerySource};
use crate::read::{Queue, Reading, Task};
use crate::report::{JobReport, OutputReport, SourceReport};
use crate::spec::{ContractSpec, JobSpec, OutputMode, OutputSpec, SourceFormat, contract, invalid};
use crate::write::{SourceRows, Target, Written, write_query, write_rows};

/// How a run goes.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// What is read of sources with a bookmark. Default: what is new.
    pub mode: Mode,
    /// Partitions that are built anew, by their folders: `day=2024-02-29`. Default: none, and new input is read.
    pub rebuild: Vec<String>,
    /// Whether nothing is read and changed, and the plan is told.
    pub dry_run: bool,
    /// The output that runs; all of them, if it is not given.
    pub output: Option<String>,
}

impl RunOptions {
    /// The same options with another mode.
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The same options, for building these partitions anew.
    pub fn with_rebuild<S: Into<String>>(mut self, partitions: impl IntoIterator<Item = S>) -> Self {
        self.rebuild = partitions.into_iter().map(Into::into).collect();
        self
    }

    /// The same options; nothing is changed.
    pub fn with_dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
}

/// A job that can run: what its file says, and how stores are reached.
#[derive(Debug, Clone)]
pub struct RawToClean {
    pub(crate) spec: JobSpec,
    opener: Arc<dyn OpenLocation>,
    places: Arc<dyn OpenPlace>,
    folder: PathBuf,
    interrupt: Arc<Interrupt>,
    parallelism: usize,
}

/// The rows of an output, and how they become its own.
pub(crate) struct Rows {
    pub(crate) readings: Vec<Arc<Reading>>,
    pub(crate) finish: Arc<Finish>,
    pub(crate) partition_by: Vec<String>,
    pub(crate) contract: Option<Contract>,
}

/// An output at work.
pub(crate) struct Work<'a> {
    pub(crate) job: &'a RawToClean,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a OutputSpec,
    pub(crate) run: &'a Run,
    pub(crate) snapshot: Snapshot,
    pub(crate) chosen: Vec<Chosen>,
    pub(crate) report: OutputReport,
}

impl RawToClean {
    /// A job, whose stores are reached by their URLs, and whose files are in the current folder.
    pub fn new(spec: JobSpec) -> Self {
        let opener: Arc<dyn OpenLocation> = Arc::new(ByUrl);
        Self {
            spec,
            places: Arc::new(PlaceByLocation(opener.clone())),
            opener,
            folder: PathBuf::new(),
            interrupt: Arc::default(),
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// The same job, its stores reached in another way.
    pub fn with_opener(mut self, opener: Arc<dyn OpenLocation>) -> Self {
        self.places = Arc::new(PlaceByLocation(opener.clone()));
        self.opener = opener;
        self
    }

    /// The same job, its input listed in another way.
    pub fn with_places(mut self, places: Arc<dyn OpenPlace>) -> Self {
        self.places = places;
        self
    }

    /// The same job; the files of its contracts are relative to this folder.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// The same job; its commits can be stopped by this.
    pub fn with_interrupt(mut self, interrupt: Arc<Interrupt>) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// The same job on so many cores.
    pub fn with_parallelism(mut self, cores: usize) -> Self {
        self.parallelism = cores.max(1);
        self
    }

    /// What its file says.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// Runs the outputs one after the other, each with a commit of its own: what an output has read is remembered in that commit. An error
    /// leaves the outputs before it as they are, and the next run goes on from there.
    ///
    /// # Errors
    /// Those of the job's file and contracts, of the rows (with file, row and column), of a merge, of a bookmark, `Conflict` if another run
    /// was first, and those of the stores. The output that it is about is as it was.
    pub async fn run(&self, run: &Run, options: &RunOptions) -> Result<JobReport> {
        let mut report = JobReport {
            outcome: "unchanged",
            job: self.spec.name.clone(),
            run_id: run.id.to_string(),
            attempt: run.attempt,
            outputs: vec![],
        };
        if let Some(name) = options.output.as_ref().filter(|name| !self.spec.outputs.contains_key(*name)) {
            return Err(invalid(format!("the job has no output `{name}`")));
        }
        let wanted = |name: &String| options.output.as_ref().is_none_or(|only| only == name);
        for (name, spec) in self.spec.outputs.iter().filter(|(name, _)| wanted(name)) {
            let output = self.output(name, spec, run, options).await?;
            if output.outcome != "unchanged" {
                report.outcome = output.outcome;
            }
            report.outputs.push(output);
        }
        Ok(report)
    }

    /// The table of an output.
    pub(crate) async fn dataset(&self, spec: &OutputSpec) -> Result<Dataset> {
        let dataset = Dataset::new(self.opener.open(&spec.url).await?, JournalOptions::default());
        let journal = dataset.journal().clone().with_interrupt(self.interrupt.clone());
        let dataset = dataset.with_journal(journal);
        match &spec.state {
            Some(state) => dataset.with_state_root(&self.opener.open(state).await?),
            None => dataset.follow_pointer().await,
        }
    }

    pub(crate) fn contract(&self, spec: Option<&ContractSpec>) -> Result<Option<Contract>> {
        let read = |path: &str| {
            let path = self.folder.join(path);
            std::fs::read_to_string(&path).map_err(|e| {
                let message = format!("the contract `{}` cannot be read: {e}", path.display());
                Error::usage("InvalidContract", message).with_source(e)
            })
        };
        spec.map(|spec| contract(spec, read)).transpose()
    }

    async fn output(&self, name: &str, spec: &OutputSpec, run: &Run, options: &RunOptions) -> Result<OutputReport> {
        for _ in 0..MISSING {
            let work = self.begin(name, spec, run, options).await?;
            let allowed = work.chosen.iter().any(|c| self.spec.sources[&c.source].allow_missing);
            match work.go(options).await {
                // It is not in the next listing, and does not count as read.
                Err(e) if e.code() == "InputGone" && allowed => tracing::warn!("{e}; going on without it"),
                other => return other,
            }
        }
        self.begin(name, spec, run, options).await?.go(options).await
    }

    async fn begin<'a>(
        &'a self,
        name: &'a str,
        spec: &'a OutputSpec,
        run: &'a Run,
        options: &RunOptions,
    ) -> Result<Work<'a>> {
        let dataset = self.dataset(spec).await?;
        let snapshot = if options.dry_run { dataset.view().await? } else { dataset.observe().await? };
        let chosen = choose(&self.spec, &spec.sources(&self.spec), &snapshot, &*self.places, &options.mode).await?;
        let report = OutputReport {
            name: name.to_owned(),
            url: spec.url.clone(),
            outcome: "unchanged",
            version: snapshot.observed.head.version,
            mode: Some(spec.mode),
            ..OutputReport::default()
        };
        Ok(Work { job: self, name, spec, run, snapshot, chosen, report })
    }
}

impl Work<'_> {
    async fn go(mut self, options: &RunOptions) -> Result<OutputReport> {
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
            return self.merge_changes(options.dry_run).await;
        }
        match self.spec.mode {
            OutputMode::Merge | OutputMode::Snapshot => self.merge_rows(options.dry_run).await,
            _ => self.write(options).await,
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
            if options.mode != Mode::Advance {
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
        let remembers = matches!(options.mode, Mode::Advance);
        match (self.spec.mode, &options.mode) {
            (OutputMode::Append, Mode::Full | Mode::ReadOnly) if !options.dry_run => {
                wrong("an output that appends remembers what it read: reset or rewind its bookmark instead")
            }
            (OutputMode::ReplacePartitions | OutputMode::Replace, _) if !remembers && !options.dry_run => {
                wrong("this output is made of all input that reaches it: rebuild partitions, or rewind its bookmark")
            }
            _ => Ok(()),
        }
    }

    /// What the report says of the sources.
    ///
    /// # Errors
    /// The rules of a source's contract that stop the run.
    pub(crate) fn say_sources(&mut self, readings: &[Arc<Reading>]) -> Result<Vec<Refused>> {
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
        let most = self.spec.max_quarantined;
        let message = format!(
            "{refused} of {} rows would be put aside, {share:.2} percent; at most {most} may be (`max_quarantined`)",
            refused + rows
        );
        Err(Error::data("TooManyQuarantined", message))
    }

    /// How the rows of the sources become the output's.
    pub(crate) async fn rows(&mut self, objects: &[Vec<Object>]) -> Result<Rows> {
        let job = self.job;
        let own = job.contract(self.spec.contract.as_ref())?;
        if let Some(layer) = own.as_ref().and_then(|c| c.layer).filter(|l| *l == Layer::Raw)
            && self.spec.mode != OutputMode::Append
        {
            let message =
                format!("the contract of `{}` declares it {layer:?}: it is added to, and nothing else", self.name);
            return Err(Error::usage("RawLayer", message.replace("Raw", "raw")));
        }
        let known = self.snapshot.known_schema()?.filter(|s| !s.fields().is_empty());
        let added = AddedColumns::new(&self.spec.audit, self.spec.derive.clone(), self.run);
        let mut readings = Vec::new();
        for (chosen, objects) in self.chosen.iter().zip(objects) {
            let spec = &job.spec.sources[&chosen.source];
            let contract = match job.contract(spec.contract.as_ref())? {
                // What is kept besides has types of its own.
                Some(mut contract) if contract.extra == Extra::Keep && spec.format != SourceFormat::Parquet => {
                    let files = chosen.files(objects)?;
                    let rules = spec.rules.as_ref();
                    let (found, _) = infer(&files, spec.format, &spec.csv, rules, None).await?;
                    let own = |name: &str| {
                        let is = |n: &String| n.eq_ignore_ascii_case(name);
                        contract.columns.iter().any(|c| is(&c.name) || c.reading.renamed_from.iter().any(is))
                    };
                    let more: Vec<_> = found.columns.into_iter().filter(|c| !own(&c.name)).collect();
                    contract.columns.extend(more);
                    contract
                }
                Some(contract) => contract,
                None => {
                    let files = chosen.files(objects)?;
                    // Types of the output's columns hold for rows that go there as they are.
                    let names: BTreeSet<&str> = added.names().chain(spec.source_file.as_deref()).collect();
                    let known = known.as_ref().filter(|_| self.spec.sql.is_none()).map(|s| without(s, &names));
                    let (contract, conflicts) =
                        infer(&files, spec.format, &spec.csv, spec.rules.as_ref(), known.as_ref()).await?;
                    conflicts.iter().for_each(|c| tracing::warn!("{c}"));
                    let report: &mut SourceReport = self.report.sources.entry(chosen.source.clone()).or_default();
                    report.conflicts = conflicts;
                    contract
                }
            };
            readings.push(Arc::new(Reading::new(spec.format, spec.csv.clone(), &contract, self.run.start)?));
        }
        let coercion = own.as_ref().map(Coercion::new).transpose()?;
        let compliance = Compliance::new(own.as_ref().unwrap_or(&Contract::default()), self.run.start)?;
        // Rows that go there as they are go to the folders that their contract names.
        let declared = match (&own, readings.as_slice(), &self.spec.sql) {
            (Some(own), ..) => own.partition_by.clone(),
            (None, [one], None) => one.coercion.contract().partition_by.clone(),
            _ => vec![],
        };
        let partition_by = match self.spec.partition_by.as_slice() {
            [] => declared,
            given => given.to_vec(),
        };
        let finish = Arc::new(Finish::new(added, coercion, compliance));
        Ok(Rows { readings, finish, partition_by, contract: own })
    }

    /// The tasks of each source.
    async fn tasks(&self, rows: &Rows, objects: &[Vec<Object>]) -> Result<Vec<Vec<Task>>> {
        let mut tasks = Vec::new();
        for ((chosen, reading), objects) in self.chosen.iter().zip(&rows.readings).zip(objects) {
            tasks.push(reading.tasks(&chosen.files(objects)?).await?);
        }
        Ok(tasks)
    }

    pub(crate) async fn query(&self, rows: &Rows, objects: &[Vec<Object>]) -> Result<Option<Query>> {
        let Some(sql) = &self.spec.sql else { return Ok(None) };
        let tasks = self.tasks(rows, objects).await?;
        let mut sources = Vec::new();
        for ((chosen, reading), tasks) in self.chosen.iter().zip(&rows.readings).zip(tasks) {
            let source_file = self.job.spec.sources[&chosen.source].source_file.as_deref();
            sources.push(QuerySource { name: &chosen.source, reading, source_file, tasks });
        }
        Query::plan(sql, sources, self.job.parallelism).await.map(Some)
    }

    /// Threads for so much input: each makes files of its own.
    pub(crate) fn workers(&self, objects: &[Vec<Object>]) -> usize {
        let bytes: u64 = objects.iter().flatten().map(|o| o.size).sum();
        self.job.parallelism.min(usize::try_from(bytes / WORTH + 1).unwrap_or(1))
    }

    /// Stages the rows of these objects.
    async fn stage(
        &self,
        rows: &Rows,
        objects: &[Vec<Object>],
        replace: &Replace<'_>,
        only: Option<BTreeSet<String>>,
    ) -> Result<Written> {
        let mut options = WriteOptions::default().with_partition_by(rows.partition_by.clone());
        if let Some(size) = self.spec.target_size {
            options = options.with_sizing(FileSizing::TargetSize(size));
        }
        let journal = self.snapshot.dataset().journal().clone();
        let target = Target { journal, stager: replace.stager(), options, only };
        if let Some(query) = self.query(rows, objects).await? {
            return write_query(query.run().await?, self.name, &rows.finish, &target).await;
        }
        let [tasks] = <[Vec<Task>; 1]>::try_from(self.tasks(rows, objects).await?)
            .map_err(|_| Error::internal("several sources without a query"))?;
        let source_file = self.job.spec.sources[&self.chosen[0].source].source_file.as_deref();
        let source = SourceRows {
            reading: &rows.readings[0],
            source_file,
            queue: Queue::new(tasks),
            finish: &rows.finish,
            workers: self.workers(objects),
        };
        write_rows(source, &target).await
    }

    async fn write(mut self, options: &RunOptions) -> Result<OutputReport> {
        let plan = self.plan(options)?;
        let mut rows = self.rows(&plan.objects).await?;
        if options.dry_run {
            return self.say_plan(&rows, &plan.objects, options).await;
        }
        self.snapshot.check_partitioning(&rows.partition_by, write_mode(self.spec.mode))?;
        let journal = self.snapshot.dataset().journal().clone();
        let observed = self.snapshot.observed.clone();
        let mut replace = journal.replace(&observed);
        match self.put_together(&mut replace, &mut rows, plan).await {
            Ok(()) => {}
            Err(e) => {
                replace.abandon().await?;
                return Err(journal.explain(e, &observed.head).await);
            }
        }
        let report = serde_json::to_value(&self.report).map_err(|e| Error::internal("a report").with_source(e))?;
        replace.with_report(report);
        let committed = replace.commit().await?;
        self.report.version = committed.version;
        self.report.outcome = if committed.outcome == Outcome::Committed { "committed" } else { "unchanged" };
        self.report.exceptions = committed.exceptions.into_iter().map(|e| format!("{}: {}", e.code, e.path)).collect();
        Ok(self.report)
    }

    /// Which objects are read, and what goes.
    fn plan(&mut self, options: &RunOptions) -> Result<Plan> {
        let mut plan = Plan::default();
        let rebuild: BTreeSet<String> = options.rebuild.iter().map(|p| p.trim_matches('/').to_owned()).collect();
        for chosen in &mut self.chosen {
            let incremental = chosen.bookmark.is_some();
            let mut replaced = Replaced::default();
            let objects = match self.spec.mode {
                _ if !incremental => chosen.everything(),
                _ if !rebuild.is_empty() => chosen.state.inputs_of(&rebuild, &chosen.input)?,
                OutputMode::Append => {
                    replaced = chosen.state.replaced(&mut chosen.selection, &chosen.input)?;
                    chosen.selection.objects.clone()
                }
                OutputMode::Replace => chosen.everything(),
                _ => chosen.selection.objects.clone(),
            };
            plan.objects.push(objects);
            plan.replaced.push(replaced);
        }
        plan.rebuild = (!rebuild.is_empty()).then_some(rebuild);
        Ok(plan)
    }

    async fn put_together(&mut self, replace: &mut Replace<'_>, rows: &mut Rows, plan: Plan) -> Result<()> {
        let by_partition = self.spec.mode == OutputMode::ReplacePartitions;
        let mut written = self.stage(rows, &plan.objects, replace, plan.rebuild.clone()).await?;
        let mut gone: BTreeSet<String> = plan.rebuild.clone().unwrap_or_default();
        if by_partition && plan.rebuild.is_none() {
            gone.extend(written.folders.iter().cloned());
            gone.extend(self.former_partitions()?);
            if let Some(all) = self.others_of(&gone, &plan.objects)? {
                written = self.stage_again(rows, all, written, replace, &gone).await?;
            }
        }
        let Finished { report, mut refused, findings } = rows.finish.finish()?;
        refused.extend(self.say_sources(&rows.readings)?);
        self.guard(refused.len() as u64, written.rows)?;
        self.report.coercion = rows.contract.as_ref().map(|_| report);
        self.report.findings.extend(findings);
        self.report.quarantined = refused.len() as u64;
        (self.report.rows, self.report.files) = (written.rows, written.staged.len() as u64);
        self.retire(replace, &plan, &gone)?;
        let mut partitions = written.folders.clone();
        partitions.extend(gone);
        self.report.partitions = partitions.into_iter().filter(|p| !p.is_empty()).collect();
        self.remember(replace, &written, &plan).await?;
        self.facts(replace, rows, &written)?;
        let journal = self.snapshot.dataset().journal();
        for (name, content) in put_aside(journal, &self.snapshot.observed.head, refused).await? {
            match content {
                Some(content) => replace.with_state(&name, content).await?,
                None => replace.without_state(&name),
            }
        }
        written.staged.into_iter().for_each(|file| replace.publish(file));
        Ok(())
    }

    /// Partitions that older versions of overwritten objects have rows in.
    fn former_partitions(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for chosen in self.chosen.iter().filter(|c| c.bookmark.is_some()) {
            let old: BTreeSet<&str> = chosen.selection.overwritten.iter().map(String::as_str).collect();
            if !old.is_empty() {
                all.extend(chosen.state.partitions_of(&|url, _| old.contains(url))?);
            }
        }
        Ok(all)
    }

    /// All objects that reach these partitions, with those that are new; none if these are all.
    fn others_of(&self, partitions: &BTreeSet<String>, new: &[Vec<Object>]) -> Result<Option<Vec<Vec<Object>>>> {
        let (mut all, mut more) = (new.to_vec(), false);
        for (chosen, all) in self.chosen.iter().zip(&mut all).filter(|(c, _)| c.bookmark.is_some()) {
            let own: BTreeSet<String> = all.iter().map(|o| o.url.clone()).collect();
            let others = chosen.state.inputs_besides(partitions, &chosen.input, &|url| own.contains(url))?;
            more |= !others.is_empty();
            all.extend(others);
        }
        Ok(more.then_some(all))
    }

    /// Stages partitions of all their input: what is staged of the new objects holds where rows are written as they are.
    async fn stage_again(
        &mut self,
        rows: &mut Rows,
        all: Vec<Vec<Object>>,
        written: Written,
        replace: &Replace<'_>,
        partitions: &BTreeSet<String>,
    ) -> Result<Written> {
        let mut again = self.rows(&all).await?;
        std::mem::swap(rows, &mut again);
        let mut staged = self.stage(rows, &all, replace, Some(partitions.clone())).await?;
        staged.reached = written.reached;
        Ok(staged)
    }

    fn retire(&mut self, replace: &mut Replace<'_>, plan: &Plan, gone: &BTreeSet<String>) -> Result<()> {
        let observed = &self.snapshot.observed;
        let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let mut retired: BTreeSet<&str> = BTreeSet::new();
        match self.spec.mode {
            OutputMode::Replace => retired.extend(observed.files.iter().map(|f| f.path.as_str())),
            _ => {
                let there = observed.files.iter().filter(|f| gone.contains(&folder(&f.path)));
                retired.extend(there.map(|f| f.path.as_str()));
            }
        }
        for (chosen, replaced) in self.chosen.iter().zip(&plan.replaced) {
            let rebuilt = chosen.state.rebuilt_partitions(&replaced.runs);
            for path in &replaced.files {
                match observed.file(path) {
                    Some(file) => drop(retired.insert(&file.path)),
                    None if rebuilt.contains(&folder(path)) => {}
                    None => {
                        let message = format!(
                            "`{path}`, which holds rows of objects that are read again, is not there any more: it was compacted or replaced; rebuild its partition"
                        );
                        return Err(Error::usage("FilesRewritten", message));
                    }
                }
            }
        }
        self.report.replaced = retired.len() as u64;
        observed.files.iter().filter(|f| retired.contains(f.path.as_str())).for_each(|f| replace.retire(f));
        Ok(())
    }

    async fn remember(&self, replace: &mut Replace<'_>, written: &Written, plan: &Plan) -> Result<()> {
        let partitions: Vec<String> = written.folders.iter().cloned().collect();
        let at = |folder: &String| partitions.binary_search(folder).ok().and_then(|at| u32::try_from(at).ok());
        let reached = written.reached.iter().map(|(url, f)| (url.clone(), f.iter().filter_map(at).collect())).collect();
        let files = match self.spec.mode {
            OutputMode::Append => written.staged.iter().map(|f| f.path().to_owned()).collect(),
            _ => vec![],
        };
        let output = Output { files, partitions, reached };
        for ((chosen, replaced), objects) in self.chosen.iter().zip(&plan.replaced).zip(&plan.objects) {
            if chosen.bookmark.is_none() {
                continue;
            }
            let change = match &plan.rebuild {
                Some(_) if objects.is_empty() => None,
                Some(_) => Some(chosen.state.rebuild(objects, &chosen.input.places(), self.run, output.clone())?),
                None => chosen.state.replace(&chosen.selection, self.run, output.clone(), replaced)?,
            };
            if let Some(change) = change {
                change.apply(replace).await?;
            }
        }
        Ok(())
    }

    fn facts(&self, replace: &mut Replace<'_>, rows: &Rows, written: &Written) -> Result<()> {
        if let Some(layer) = rows.contract.as_ref().and_then(|c| c.layer) {
            replace.with_meta(LAYER, json!(layer));
        }
        let Some(schema) = &written.schema else { return Ok(()) };
        let all = match self.spec.mode {
            OutputMode::Replace => schema.clone(),
            _ => match self.snapshot.known_schema()?.filter(|s| !s.fields().is_empty()) {
                Some(known) => Arc::new(merge_schemas(&known, schema, &format!("the rows of `{}`", self.name))?),
                None => schema.clone(),
            },
        };
        // Partition columns are last in a table's rows.
        let (last, first): (Vec<_>, Vec<_>) =
            all.fields().iter().cloned().partition(|f| rows.partition_by.contains(f.name()));
        let all: SchemaRef = Arc::new(Schema::new(first.into_iter().chain(last).collect::<Vec<_>>()));
        for (name, value) in self.snapshot.facts(&all, &rows.partition_by)? {
            replace.with_meta(name, value);
        }
        Ok(())
    }

    async fn say_plan(mut self, rows: &Rows, objects: &[Vec<Object>], options: &RunOptions) -> Result<OutputReport> {
        let mut lines = Vec::new();
        for (chosen, objects) in self.chosen.iter().zip(objects) {
            let bytes: u64 = objects.iter().map(|o| o.size).sum();
            lines.push(format!("reads {} files of `{}`, {bytes} bytes", objects.len(), chosen.source));
            lines.extend(objects.iter().take(20).map(|o| format!("  {}", o.url)));
            if objects.len() > 20 {
                lines.push(format!("  and {} more", objects.len() - 20));
            }
        }
        let query = self.query(rows, objects).await?;
        let schema = match &query {
            Some(query) => query.schema(),
            None => {
                let source = &self.job.spec.sources[&self.chosen[0].source];
                crate::table::source_schema(&rows.readings[0], source.source_file.as_deref())
            }
        };
        if let Some(query) = query {
            lines.push("by the query".to_owned());
            lines.extend(query.explain().await?.into_iter().map(|l| format!("  {l}")));
        }
        let columns: Vec<String> = match &rows.contract {
            Some(contract) => {
                contract.columns.iter().map(|c| format!("{} {}", c.name, shown(c.column_type.arrow()))).collect()
            }
            None => schema.fields().iter().map(|f| format!("{} {}", f.name(), shown(f.data_type()))).collect(),
        };
        lines.push(format!("into columns {}", columns.join(", ")));
        let how = match (self.spec.mode, options.rebuild.as_slice()) {
            (_, [_, ..]) => format!("builds {} anew", options.rebuild.join(", ")),
            (OutputMode::Append, _) => "adds them to the table".to_owned(),
            (OutputMode::ReplacePartitions, _) => {
                "replaces the partitions that they reach, with all input of these".to_owned()
            }
            (OutputMode::Replace, _) => "replaces the table".to_owned(),
            (OutputMode::Merge, _) => "merges them into the table".to_owned(),
            (OutputMode::Snapshot, _) => "brings them to the table's periods".to_owned(),
        };
        let by =
            if rows.partition_by.is_empty() { String::new() } else { format!(", by {}", rows.partition_by.join(", ")) };
        lines.push(format!("{how}{by}"));
        self.say_sources(&[])?;
        (self.report.plan, self.report.outcome) = (lines, "planned");
        Ok(self.report)
    }
}

/// How often a run begins again without files that went while it read.
const MISSING: usize = 10;

/// Input that another thread is worth its files for.
const WORTH: u64 = 32 << 20;

/// Which objects are read, and what goes.
#[derive(Debug, Default)]
struct Plan {
    objects: Vec<Vec<Object>>,
    replaced: Vec<Replaced>,
    rebuild: Option<BTreeSet<String>>,
}

fn write_mode(mode: OutputMode) -> biscuit_dataset::WriteMode {
    match mode {
        OutputMode::Replace => biscuit_dataset::WriteMode::ReplaceAll,
        OutputMode::ReplacePartitions => biscuit_dataset::WriteMode::ReplacePartitions,
        _ => biscuit_dataset::WriteMode::Append,
    }
}

fn without(schema: &SchemaRef, names: &BTreeSet<&str>) -> SchemaRef {
    let fields = schema.fields().iter().filter(|f| !names.contains(f.name().as_str())).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn shown(t: &datafusion::arrow::datatypes::DataType) -> String {
    biscuit_schema::type_name(&biscuit_schema::plain_type(t)).unwrap_or_else(|| t.to_string())
}
