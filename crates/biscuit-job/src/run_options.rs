//! Options of one run of a job.

use biscuit_bookmark::ReadMode;

/// How far a run goes: it commits, or only plans or reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DryRun {
    /// Reads the input and commits the output.
    #[default]
    No,
    /// Reports the plan. Rows are not read, so errors in their values are not found.
    Plan,
    /// Reads the rows as well and reports what the run would write. Nothing is written.
    Read,
}

/// Options of one run of a job.
///
/// ```
/// use biscuit_core::{Instant, Outcome, Run, RunId};
/// use biscuit_job::{DeclarativeJob, DryRun, JobSpec, OutputMode, OutputSpec, RunOptions, SourceFormat, SourceSpec};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("biscuit-run-options-{}", std::process::id()));
/// # std::fs::create_dir_all(folder.join("raw"))?;
/// # let at = |name: &str| folder.join(name).display().to_string();
/// std::fs::write(at("raw/1.json"), r#"{"id": 1}"#)?;
/// let spec = JobSpec::builder("orders")
///     .with_source("orders", SourceSpec::new([at("raw")], SourceFormat::Json))
///     .with_target(OutputSpec::new(at("lake"), OutputMode::Append))
///     .build()?;
/// let job = DeclarativeJob::new(spec);
/// let run = Run::new("orders", RunId::new("monday"), Instant::from_micros(0));
///
/// // The rows are read, and nothing is written.
/// let options = RunOptions::default().with_dry_run(DryRun::Read);
/// let report = job.run_with(&run, &options).await?;
/// assert_eq!((report.outcome, report.outputs[0].rows), (Outcome::Planned, 1));
/// assert!(!folder.join("lake").exists());
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct RunOptions {
    /// Which objects are read from sources with a bookmark. Default: objects that the bookmark does not contain.
    pub mode: ReadMode,
    /// Partitions to rebuild, by their folders, such as `day=2024-02-29`. Default: none, and the run reads new input.
    pub rebuild: Vec<String>,
    /// Whether the run changes anything. A dry run of the modes `merge` and `snapshot` always reads its records.
    pub dry_run: DryRun,
    /// Name of the only output to run. Default: all outputs.
    pub output: Option<String>,
    /// Instant for which the run is scheduled, for outputs of the mode `snapshot`: the current period is the one that
    /// contains this instant. Every attempt of a run passes the same instant: a time in the zone of the output, such
    /// as `2024-03-01`, or a time with an offset. Default: the start of the run.
    pub as_of: Option<String>,
}

impl RunOptions {
    /// Sets which objects are read from sources with a bookmark. Default: [`ReadMode::Advance`], the new objects.
    pub fn with_mode(mut self, mode: ReadMode) -> Self {
        self.mode = mode;
        self
    }

    /// Rebuilds these partitions, by their folders such as `day=2024-02-29`, from the input that their rows came
    /// from. New input is not read. Only the modes `append` and `replace-partitions` can rebuild.
    pub fn with_rebuild<S: Into<String>>(mut self, partitions: impl IntoIterator<Item = S>) -> Self {
        self.rebuild = partitions.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the instant for which the run is scheduled. It decides the current period of outputs of the mode
    /// `snapshot`. Default: the start of the run.
    pub fn with_as_of(mut self, instant: impl Into<String>) -> Self {
        self.as_of = Some(instant.into());
        self
    }

    /// Sets whether the run only plans, only reads, or commits. Default: [`DryRun::No`].
    pub fn with_dry_run(mut self, dry_run: DryRun) -> Self {
        self.dry_run = dry_run;
        self
    }

    pub(crate) fn is_dry(&self) -> bool {
        self.dry_run != DryRun::No
    }
}
