//! A job and its runs: the stores that a job uses, and the loop over the outputs. `work.rs` runs one output.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_bookmark::MissingObjects;
use biscuit_core::{Error, Job, Outcome, Result, Run};
use biscuit_dataset::internal::check_input;
use biscuit_dataset::{Dataset, OpenLocation};
use biscuit_journal::{JournalOptions, RunInterrupt};
use biscuit_pii::tokens::MemoryStore;
use biscuit_pii::{PiiContext, Policy};

use crate::environment::{JobEnvironment, LocalEnvironment, OpenerEnvironment};
use crate::output_run::OutputRun;
use crate::read::choose::choose_input;
use crate::report::counts::{JobReport, OutputReport};
use crate::run_options::RunOptions;
use crate::shape::treatment::TableKeys;
use crate::spec::{JobSpec, OutputMode, OutputSpec, invalid_spec};
use crate::work::OutputWork;

/// A job that can run: a [`JobSpec`] and the way in which stores and keys are opened.
///
/// ```
/// use biscuit_core::{Instant, Job, Outcome, Run, RunId};
/// use biscuit_job::report::{JobReport};
/// use biscuit_job::{DeclarativeJob, JobSpec, OutputMode, OutputSpec, SourceFormat, SourceSpec};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("biscuit-declarative-job-{}", std::process::id()));
/// # std::fs::create_dir_all(folder.join("raw"))?;
/// # let at = |name: &str| folder.join(name).display().to_string();
/// std::fs::write(at("raw/1.json"), r#"{"id": 1}"#)?;
/// let spec = JobSpec::builder("orders")
///     .with_source("orders", SourceSpec::new([at("raw")], SourceFormat::Json))
///     .with_target(OutputSpec::new(at("lake"), OutputMode::Append))
///     .build()?;
///
/// // A program runs it as it runs its own jobs.
/// let job: Box<dyn Job<Output = JobReport>> = Box::new(DeclarativeJob::new(spec));
/// let report = job.run(&Run::new("orders", RunId::new("monday"), Instant::from_micros(0))).await?;
/// assert_eq!((report.outcome, report.outputs[0].rows), (Outcome::Committed, 1));
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct DeclarativeJob {
    spec: JobSpec,
    environment: Arc<dyn JobEnvironment>,
    folder: PathBuf,
    interrupt: Arc<RunInterrupt>,
    parallelism: usize,
    memory: Option<usize>,
}

impl DeclarativeJob {
    /// Creates a job that opens stores by their URLs and reads contracts and key files relative to the current
    /// folder.
    pub fn new(spec: JobSpec) -> Self {
        Self {
            spec,
            environment: Arc::new(LocalEnvironment),
            folder: PathBuf::new(),
            interrupt: Arc::default(),
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            memory: None,
        }
    }

    /// Opens tables, input, keys and token stores with `environment`. Default: [`LocalEnvironment`].
    pub fn with_environment(mut self, environment: Arc<dyn JobEnvironment>) -> Self {
        self.environment = environment;
        self
    }

    /// Opens tables and input with `opener`, and everything else like [`LocalEnvironment`]. Replaces the environment.
    pub fn with_opener(self, opener: Arc<dyn OpenLocation>) -> Self {
        self.with_environment(Arc::new(OpenerEnvironment(opener)))
    }

    /// Resolves the paths of contract files and key files relative to `folder`. Default: the current folder.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Lets `interrupt` stop the run before each of its commits.
    pub fn with_interrupt(mut self, interrupt: Arc<RunInterrupt>) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// Number of threads that read and write, at least 1. Default: the number of cores.
    pub fn with_parallelism(mut self, cores: usize) -> Self {
        self.parallelism = cores.max(1);
        self
    }

    /// Sets the memory budget of each output of the modes `merge` and `snapshot` in bytes, as
    /// [`MergeOptions::with_memory`](biscuit_apply::MergeOptions::with_memory). Default: no limit. The change records of a
    /// `snapshot` are in memory until they are divided by period.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Returns the parsed job file.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// Runs the outputs one after the other, with options. Each output has one commit, which also stores the bookmarks
    /// of its input. After an error, the outputs that were committed before remain, and the next run continues with the
    /// rest.
    ///
    /// # Errors
    /// Errors of the job file, of contracts, of rows (with file, row and column), of merges, of bookmarks and of
    /// stores. `Conflict` if another run committed first. The output that the error is about is not changed.
    pub async fn run_with(&self, run: &Run, options: &RunOptions) -> Result<JobReport> {
        let mut report = JobReport {
            outcome: Outcome::Unchanged,
            job: self.spec.name.clone(),
            run_id: run.id.to_string(),
            attempt: run.attempt,
            outputs: vec![],
        };
        if let Some(name) = options.output.as_ref().filter(|name| !self.spec.outputs.contains_key(*name)) {
            return Err(invalid_spec(format!("unknown output `{name}`; use the name of one of the job's outputs")));
        }
        let wanted = |name: &String| options.output.as_ref().is_none_or(|only| only == name);
        let wanted: Vec<_> = self.spec.outputs.iter().filter(|(name, _)| wanted(name)).collect();
        if options.as_of.is_some() && wanted.iter().all(|(_, spec)| spec.mode != OutputMode::Snapshot) {
            return Err(Error::new(
                biscuit_core::codes::INVALID_ARGUMENTS,
                "`as_of` applies only to outputs with the mode `snapshot`",
            ));
        }
        let means = match &self.spec.pii {
            Some(policy) if options.is_dry() => Some(open_for_dry_run(policy, &*self.environment, &self.folder).await?),
            Some(policy) => Some(self.environment.open_pii(policy, &self.folder).await?),
            None => None,
        };
        for (name, spec) in wanted {
            let output = Box::pin(self.run_output(name, spec, run, options, means.as_ref())).await?;
            if output.outcome != Outcome::Unchanged {
                report.outcome = output.outcome;
            }
            report.outputs.push(output);
        }
        Ok(report)
    }

    /// Opens the table of an output.
    async fn open_table(&self, spec: &OutputSpec) -> Result<Dataset> {
        let dataset = Dataset::new(self.environment.open(&spec.url).await?, JournalOptions::default());
        let journal = dataset.journal().clone().with_interrupt(self.interrupt.clone());
        let dataset = dataset.with_journal(journal);
        match &spec.state {
            Some(state) => dataset.with_state_root(&self.environment.open(state).await?),
            None => dataset.follow_pointer().await,
        }
    }

    async fn run_output(
        &self,
        name: &str,
        spec: &OutputSpec,
        run: &Run,
        options: &RunOptions,
        means: Option<&PiiContext>,
    ) -> Result<OutputReport> {
        // With `allow_missing`, an object that is deleted between the listing and the read starts the output again
        // with a new listing.
        for _ in 0..MISSING {
            let work = self.begin_output(name, spec, run, options, means).await?;
            let allowed =
                work.chosen.iter().filter(|c| self.spec.sources[&c.source].allow_missing == MissingObjects::Allow);
            let allowed: Vec<_> = allowed.map(|c| c.input.clone()).collect();
            let may_miss = |url: &str| allowed.iter().flat_map(|i| i.all_objects()).any(|o| o.url() == url);
            match work.run(options).await {
                // The next listing does not contain the object, so the bookmark does not record it as read.
                Err(e) if e.is(biscuit_apply::codes::INPUT_GONE) && e.file().is_some_and(may_miss) => {
                    tracing::warn!("{e}; the run continues without the file");
                }
                other => return other,
            }
        }
        // The last attempt reports a missing object as an error, so that the loop ends even if objects are deleted
        // all the time.
        self.begin_output(name, spec, run, options, means).await?.run(options).await
    }

    async fn begin_output<'a>(
        &'a self,
        name: &'a str,
        spec: &'a OutputSpec,
        run: &'a Run,
        options: &RunOptions,
        means: Option<&PiiContext>,
    ) -> Result<OutputWork<'a>> {
        let mut dataset = self.open_table(spec).await?;
        if let Some(provider) = means.and_then(|means| means.provider.clone()) {
            dataset = dataset.with_encryption(TableKeys::encryption(provider));
        }
        let sources = spec.sources(&self.spec.sources);
        // A table that is its own input would read the files that it has just written.
        for place in sources.iter().flat_map(|source| self.spec.sources[source].places()) {
            check_input(&place, dataset.location(), &*self.environment).await?;
        }
        // `view` does not finish the work of runs that died, `observe` does: a dry run changes nothing.
        let snapshot = if options.is_dry() { dataset.view().await? } else { dataset.observe().await? };
        let chosen =
            choose_input(&self.spec, &sources, &snapshot, &*self.environment, spec.mode, &options.mode).await?;
        let report = OutputReport {
            name: name.to_owned(),
            url: spec.url.clone(),
            outcome: Outcome::Unchanged,
            version: snapshot.observed.head.version,
            mode: Some(spec.mode),
            ..OutputReport::default()
        };
        let output = OutputRun {
            job: &self.spec,
            folder: &self.folder,
            parallelism: self.parallelism,
            memory: self.memory,
            name,
            spec,
            run,
            snapshot,
            means: means.cloned(),
        };
        Ok(OutputWork { output, chosen, report })
    }
}

#[async_trait]
impl Job for DeclarativeJob {
    type Output = JobReport;

    /// Runs all outputs with the default options: reads the new input and commits.
    ///
    /// # Errors
    /// As [`run_with`](Self::run_with).
    async fn run(&self, run: &Run) -> Result<JobReport> {
        self.run_with(run, &RunOptions::default()).await
    }
}

/// Opens what a policy needs for a dry run. A token store may be created by opening it, so a store in memory takes
/// its place.
async fn open_for_dry_run(policy: &Policy, environment: &dyn JobEnvironment, folder: &Path) -> Result<PiiContext> {
    let mut without = policy.clone();
    let stored = without.store.take().is_some();
    let means = environment.open_pii(&without, folder).await?;
    Ok(if stored { means.with_store(Arc::new(MemoryStore::new())) } else { means })
}

/// How often an output starts again because objects were deleted while it read them.
const MISSING: usize = 10;
