use std::path::{Path, PathBuf};
use std::sync::Arc;

use biscuit_bookmark::ReadMode;
use biscuit_core::{Error, Result, Run};
use biscuit_dataset::{Dataset, OpenByUrl, OpenLocation, ParquetOptions, check_input};
use biscuit_journal::{JournalOptions, RunInterrupt};
use biscuit_pii::{MemoryStore, PiiContext, Policy};
use biscuit_schema::Contract;

use crate::read::choose::{OpenByLocation, OpenSource, choose};
use crate::report::counts::{JobReport, OutputReport};
use crate::shape::treatment::{LocalPiiResolver, PiiResolver, TableKeys};
use crate::spec::{ContractSpec, JobSpec, OutputMode, OutputSpec, contract, invalid};
use crate::work::OutputWork;

/// Whether a run changes anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DryRun {
    /// It does.
    #[default]
    No,
    /// It says what it would do. Rows are not read, so that nothing is known of them.
    Plan,
    /// It reads the rows as well, and says what it would write.
    Read,
}

/// How a run goes.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// What is read of sources with a bookmark. Default: what is new.
    pub mode: ReadMode,
    /// Partitions that are built anew, by their folders: `day=2024-02-29`. Default: none, and new input is read.
    pub rebuild: Vec<String>,
    /// Whether nothing is changed, and the plan is told. Merges read their records in any case.
    pub dry_run: DryRun,
    /// The output that runs; all of them, if it is not given.
    pub output: Option<String>,
    /// Of snapshot: the instant for which the run is scheduled, which the current period holds, the same for each attempt: as `2024-03-01`
    /// in the output's time zone, or with an offset. Default: when the run started.
    pub as_of: Option<String>,
}

impl RunOptions {
    /// The same options with another mode.
    pub fn with_mode(mut self, mode: ReadMode) -> Self {
        self.mode = mode;
        self
    }

    /// The same options, for building these partitions anew.
    pub fn with_rebuild<S: Into<String>>(mut self, partitions: impl IntoIterator<Item = S>) -> Self {
        self.rebuild = partitions.into_iter().map(Into::into).collect();
        self
    }

    /// The same options, for a run that is scheduled for this instant.
    pub fn with_as_of(mut self, instant: impl Into<String>) -> Self {
        self.as_of = Some(instant.into());
        self
    }

    /// The same options; nothing is changed.
    pub fn with_dry_run(mut self, dry_run: DryRun) -> Self {
        self.dry_run = dry_run;
        self
    }

    pub(crate) fn is_dry(&self) -> bool {
        self.dry_run != DryRun::No
    }
}

/// A job that can run: what its file says, and how stores are reached.
#[derive(Debug, Clone)]
pub struct DeclarativeJob {
    pub(crate) spec: JobSpec,
    opener: Arc<dyn OpenLocation>,
    places: Arc<dyn OpenSource>,
    folder: PathBuf,
    interrupt: Arc<RunInterrupt>,
    means: Arc<dyn PiiResolver>,
    pub(crate) parallelism: usize,
}

impl DeclarativeJob {
    /// A job, whose stores are reached by their URLs, and whose files are in the current folder.
    pub fn new(spec: JobSpec) -> Self {
        let opener: Arc<dyn OpenLocation> = Arc::new(OpenByUrl);
        Self {
            spec,
            places: Arc::new(OpenByLocation(opener.clone())),
            opener,
            folder: PathBuf::new(),
            interrupt: Arc::default(),
            means: Arc::new(LocalPiiResolver),
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// The same job, its stores reached in another way.
    pub fn with_opener(mut self, opener: Arc<dyn OpenLocation>) -> Self {
        self.places = Arc::new(OpenByLocation(opener.clone()));
        self.opener = opener;
        self
    }

    /// The same job, its input listed in another way.
    pub fn with_places(mut self, places: Arc<dyn OpenSource>) -> Self {
        self.places = places;
        self
    }

    /// The same job; the files of its contracts are relative to this folder.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// The same job; its commits can be stopped by this.
    pub fn with_interrupt(mut self, interrupt: Arc<RunInterrupt>) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// The same job; what its policy on personal data names is opened in another way.
    pub fn with_means(mut self, means: Arc<dyn PiiResolver>) -> Self {
        self.means = means;
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
        let wanted: Vec<_> = self.spec.outputs.iter().filter(|(name, _)| wanted(name)).collect();
        if options.as_of.is_some() && wanted.iter().all(|(_, spec)| spec.mode != OutputMode::Snapshot) {
            return Err(Error::usage(
                "InvalidMode",
                "only outputs of mode `snapshot` have a period that holds `as_of`",
            ));
        }
        let means = match &self.spec.pii {
            Some(policy) if options.is_dry() => Some(unstored(policy, &*self.means, &self.folder).await?),
            Some(policy) => Some(self.means.open(policy, &self.folder).await?),
            None => None,
        };
        for (name, spec) in wanted {
            let output = Box::pin(self.output(name, spec, run, (options, means.as_ref()))).await?;
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

    async fn output(
        &self,
        name: &str,
        spec: &OutputSpec,
        run: &Run,
        (options, means): (&RunOptions, Option<&PiiContext>),
    ) -> Result<OutputReport> {
        for _ in 0..MISSING {
            let work = self.begin(name, spec, run, (options, means)).await?;
            let allowed = work.chosen.iter().filter(|c| self.spec.sources[&c.source].allow_missing);
            let allowed: Vec<_> = allowed.map(|c| c.input.clone()).collect();
            let may_miss = |url: &str| allowed.iter().flat_map(|i| i.everything()).any(|o| o.url == url);
            match work.go(options).await {
                // It is not in the next listing, and does not count as read.
                Err(e) if e.code() == "InputGone" && e.file().is_some_and(may_miss) => {
                    tracing::warn!("{e}; going on without it");
                }
                other => return other,
            }
        }
        self.begin(name, spec, run, (options, means)).await?.go(options).await
    }

    async fn begin<'a>(
        &'a self,
        name: &'a str,
        spec: &'a OutputSpec,
        run: &'a Run,
        (options, means): (&RunOptions, Option<&PiiContext>),
    ) -> Result<OutputWork<'a>> {
        let mut dataset = self.dataset(spec).await?;
        if let Some(provider) = means.and_then(|means| means.provider.clone()) {
            dataset = dataset.with_encryption(TableKeys::encryption(provider));
        }
        let sources = spec.sources(&self.spec);
        for place in sources.iter().flat_map(|source| self.spec.sources[source].places()) {
            check_input(&place, dataset.location(), &*self.opener).await?;
        }
        let snapshot = if options.is_dry() { dataset.view().await? } else { dataset.observe().await? };
        let chosen = choose(&self.spec, &sources, &snapshot, &*self.places, (spec.mode, &options.mode)).await?;
        let report = OutputReport {
            name: name.to_owned(),
            url: spec.url.clone(),
            outcome: "unchanged",
            version: snapshot.observed.head.version,
            mode: Some(spec.mode),
            ..OutputReport::default()
        };
        let (means, parquet) = (means.cloned(), ParquetOptions::default());
        Ok(OutputWork { job: self, name, spec, run, snapshot, parquet, chosen, report, means, guards: vec![] })
    }
}

/// What a policy works with where nothing is changed: a store that is made when it is opened is not opened.
async fn unstored(policy: &Policy, means: &dyn PiiResolver, folder: &Path) -> Result<PiiContext> {
    let mut without = policy.clone();
    let stored = without.store.take().is_some();
    let means = means.open(&without, folder).await?;
    Ok(if stored { means.with_store(Arc::new(MemoryStore::new())) } else { means })
}

/// How often a run begins again without files that went while it read.
const MISSING: usize = 10;
