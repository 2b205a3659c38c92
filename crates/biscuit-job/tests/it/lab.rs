//! A lake in memory for the tests of this crate, and helpers to run jobs and to read tables.

use std::fmt;
use std::path::Path as Folder;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use biscuit_core::{Instant, Result, Run, RunId};
use biscuit_dataset::{Dataset, Location, OpenLocation};
use biscuit_job::report::JobReport;
use biscuit_job::{DeclarativeJob, JobEnvironment, JobSpec, RunOptions};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_pii::{PiiContext, Policy};
use biscuit_testkit::frame_text;
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

/// A lake in memory. The scheme of URLs is ignored.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub(crate) storage: TableStorage,
}

#[async_trait]
impl OpenLocation for Lab {
    async fn open(&self, url: &str) -> Result<Location> {
        Location::new(self.storage.clone(), url, url)
    }
}

/// The lake with a function that resolves policies.
struct LabWithPii<F> {
    lab: Lab,
    resolve: F,
}

impl<F> fmt::Debug for LabWithPii<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabWithPii").finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Send + Sync> OpenLocation for LabWithPii<F> {
    async fn open(&self, url: &str) -> Result<Location> {
        self.lab.open(url).await
    }
}

#[async_trait]
impl<F: Fn(&Policy) -> Result<PiiContext> + Send + Sync> JobEnvironment for LabWithPii<F> {
    async fn open_pii(&self, policy: &Policy, _: &Folder) -> Result<PiiContext> {
        (self.resolve)(policy)
    }
}

static RUNS: AtomicU64 = AtomicU64::new(1);

/// Returns a run that starts at 12:00 on 2024-03-10.
pub(crate) fn run() -> Run {
    let id = RunId::new(format!("run-{}", RUNS.fetch_add(1, Ordering::Relaxed)));
    Run::new("job", id, "2024-03-10T12:00:00Z".parse().expect("the instant is valid"))
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::of(TableStorage::durable(Arc::new(InMemory::new())))
    }

    pub(crate) fn of(storage: TableStorage) -> Self {
        Self { storage }
    }

    pub(crate) async fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        let content: Vec<u8> = content.into();
        self.storage.store.put(&Path::from(path), content.into()).await.expect("writing to memory succeeds");
    }

    pub(crate) async fn get(&self, path: &str) -> Vec<u8> {
        let got = self.storage.store.get(&Path::from(path)).await.expect("the object exists");
        got.bytes().await.expect("the object exists").to_vec()
    }

    pub(crate) async fn remove(&self, path: &str) {
        self.storage.store.delete(&Path::from(path)).await.expect("the delete succeeds");
    }

    pub(crate) fn job(&self, toml: &str) -> DeclarativeJob {
        let spec = JobSpec::from_toml(toml, &[]).expect("the job is valid");
        DeclarativeJob::new(spec).with_opener(Arc::new(self.clone())).with_parallelism(2)
    }

    /// Returns a job whose policy on personal data is resolved by `resolve`.
    pub(crate) fn job_with_pii<F>(&self, toml: &str, resolve: F) -> DeclarativeJob
    where
        F: Fn(&Policy) -> Result<PiiContext> + Send + Sync + 'static,
    {
        self.job(toml).with_environment(Arc::new(LabWithPii { lab: self.clone(), resolve }))
    }

    pub(crate) async fn run(&self, toml: &str) -> Result<JobReport> {
        self.run_with(toml, &RunOptions::default()).await
    }

    pub(crate) async fn run_with(&self, toml: &str, options: &RunOptions) -> Result<JobReport> {
        self.job(toml).run_with(&run(), options).await
    }

    pub(crate) fn dataset(&self, path: &str) -> Dataset {
        let location = Location::new(self.storage.clone(), path, path).expect("the path is valid");
        Dataset::new(location, JournalOptions::default())
    }

    /// Returns the rows of a table, read from the plain Parquet files in its folder, sorted.
    pub(crate) async fn rows(&self, path: &str) -> String {
        let frame = self.dataset(path).load(&SessionContext::new()).await.expect("the table is readable");
        frame_text(frame).await.expect("the rows are readable")
    }

    /// Returns the values of one column, sorted.
    pub(crate) async fn column(&self, path: &str, column: &str) -> Vec<String> {
        self.try_column(path, column).await.expect("the rows are readable")
    }

    pub(crate) async fn try_column(&self, path: &str, column: &str) -> Result<Vec<String>> {
        let frame = self.dataset(path).load(&SessionContext::new()).await?;
        let frame = frame.select_columns(&[column]).expect("the column exists");
        let text = frame_text(frame).await?;
        let mut values: Vec<String> =
            text.lines().skip(1).map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
        values.sort();
        Ok(values)
    }

    pub(crate) async fn paths(&self, path: &str) -> Vec<String> {
        let observed = self.dataset(path).journal().observe().await.expect("the table is readable");
        observed.files.into_iter().map(|f| f.path).collect()
    }
}

/// Returns the instant of the runs, as it is in rows.
pub(crate) fn start() -> Instant {
    "2024-03-10T12:00:00Z".parse().expect("the instant is valid")
}
