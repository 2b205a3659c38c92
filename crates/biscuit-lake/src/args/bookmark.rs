//! Options with which a run chooses its input files by a bookmark, and the choice itself.
//!
//! `merge` and `snapshot` share them. The bookmark is loaded on the version of the table that the run commits on, so
//! that the bookmark and the rows change in one commit.

use std::time::Duration;

use biscuit_apply::FoundFile;
use biscuit_bookmark::{
    Bookmark, BookmarkOptions, LatePolicy, MissingObjects, ObjectIdentity, OverwrittenPolicy, ReadMode, ReplayRange,
    RunLimit, RunOutput, SelectedInput, SourcePlace,
};
use biscuit_core::{Clock, Error, Instant, Result, Run, RunId, SystemClock};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_job::JobEnvironment;
use biscuit_journal::CommitExtras;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::args::duration::parse_duration;
use crate::args::parquet::parse_bytes;
use crate::environment::context::CommandContext;

/// Values of `--bookmark-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// Read new files, and remember them in the commit of the output
    Advance,
    /// Read all files, and remember nothing
    Full,
    /// Read new files, and remember nothing
    ReadOnly,
}

impl From<ModeName> for ReadMode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Advance => Self::Advance,
            ModeName::Full => Self::Full,
            ModeName::ReadOnly => Self::ReadOnly,
        }
    }
}

/// Values of `--identity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum IdentityName {
    /// A file is new if its size or ETag has changed
    #[default]
    Content,
    /// A file is new if its modification time has changed, as in AWS Glue
    Modified,
}

/// Values of `--overwritten`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OverwrittenName {
    /// Read the file again
    #[default]
    Read,
    /// Stop the run
    Fail,
    /// Skip the file
    Ignore,
}

/// Value of `--allowed-lateness`: a duration, or `None` for the word `none`, which sets no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookBackArg(Option<Duration>);

fn allowed_lateness(text: &str) -> Result<LookBackArg, String> {
    if text == "none" { Ok(LookBackArg(None)) } else { parse_duration(text).map(|d| LookBackArg(Some(d))) }
}

/// Options that select the input files of a run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bookmark")]
pub(crate) struct BookmarkArgs {
    /// Read each input file once, and remember it under this name in the commit of the output
    #[arg(long, value_name = "NAME")]
    pub(crate) bookmark: Option<String>,

    /// Identify the run by this id, the same for each attempt [default: start time of the run]
    #[arg(long, requires = "bookmark", value_name = "ID", env = "BISCUIT_RUN_ID", hide_env_values = true)]
    run_id: Option<String>,

    /// Record this number as the attempt of the run
    #[arg(long, requires = "bookmark", default_value_t = 1, value_name = "N")]
    attempt: u32,

    /// Choose which files are read, and whether they are remembered
    #[arg(long, requires = "bookmark", value_enum, default_value = "advance", value_name = "MODE")]
    bookmark_mode: ModeName,

    /// Replay: read again the files of the runs after this one, exclusive, by number or id; nothing is remembered
    #[arg(long, requires = "bookmark", value_name = "RUN", alias = "job-bookmark-from")]
    after: Option<String>,

    /// Replay: up to this run, inclusive
    #[arg(long, requires = "bookmark", value_name = "RUN", alias = "job-bookmark-to")]
    through: Option<String>,

    /// Replay: read files that were last modified after this instant, by the store's clock
    #[arg(long, requires_all = ["bookmark", "modified_through"], value_name = "INSTANT")]
    modified_after: Option<Instant>,

    /// Replay: up to this instant, inclusive
    #[arg(long, requires_all = ["bookmark", "modified_after"], value_name = "INSTANT")]
    modified_through: Option<Instant>,

    /// Replay: read exactly these input files
    #[arg(long, requires = "bookmark", num_args = 1.., value_name = "PATH_OR_URL")]
    replay_input: Vec<String>,

    /// Read at most this number of files, oldest first; the next run reads the rest
    #[arg(long, requires = "bookmark", value_name = "N")]
    limit_files: Option<usize>,

    /// Read at most this number of bytes, such as `10GB`, but at least one file; the next run reads the rest
    #[arg(long, requires = "bookmark", value_parser = parse_bytes, value_name = "BYTES")]
    limit_bytes: Option<usize>,

    /// Choose how a file that has changed since it was read is recognised
    #[arg(long, requires = "bookmark", value_enum, default_value = "content")]
    identity: IdentityName,

    /// Choose what happens to a file that was overwritten after it was read
    #[arg(long, requires = "bookmark", value_enum, default_value = "read")]
    overwritten: OverwrittenName,

    /// Read new files that are up to this much older than the newest file already read, such as 24h; `none` for no
    /// limit. A local disk never has a limit
    #[arg(long, requires = "bookmark", value_parser = allowed_lateness, default_value = "24h", value_name = "DURATION")]
    allowed_lateness: LookBackArg,

    /// Also read files that are older than the allowed lateness
    #[arg(long, requires = "bookmark")]
    backfill: bool,

    /// Continue without files that are deleted during the run; they are not remembered as read
    #[arg(long, requires = "bookmark")]
    allow_missing: bool,
}

impl BookmarkArgs {
    /// Returns the read mode. The three kinds of replay exclude one another, and `--bookmark-mode full`.
    fn read_mode(&self) -> Result<ReadMode> {
        let runs = ReplayRange::parse_runs(self.after.as_deref(), self.through.as_deref())?;
        let modified = self.modified_after.zip(self.modified_through);
        let modified = modified.map(|(after, through)| ReplayRange::Modified { after, through });
        let objects = (!self.replay_input.is_empty()).then(|| ReplayRange::Objects(vec![]));
        let mut replays = runs.into_iter().chain(modified).chain(objects);
        let replay = replays.next();
        if replays.next().is_some() || (replay.is_some() && self.bookmark_mode == ModeName::Full) {
            let message = "more than one selection of input: replay runs, a time range or named files, one of them, and without --bookmark-mode full";
            return Err(Error::new(biscuit_bookmark::codes::INVALID_REPLAY, message));
        }
        Ok(replay.map_or_else(|| self.bookmark_mode.into(), ReadMode::Replay))
    }

    fn bookmark_options(&self, reading: Value) -> BookmarkOptions {
        let mut limit = RunLimit::default();
        limit.files = self.limit_files;
        limit.bytes = self.limit_bytes.map(|b| b as u64);
        BookmarkOptions::default()
            .with_identity(match self.identity {
                IdentityName::Content => ObjectIdentity::Content,
                IdentityName::Modified => ObjectIdentity::Modified,
            })
            .with_overwritten(match self.overwritten {
                OverwrittenName::Read => OverwrittenPolicy::Read,
                OverwrittenName::Fail => OverwrittenPolicy::Fail,
                OverwrittenName::Ignore => OverwrittenPolicy::Ignore,
            })
            .with_allowed_lateness(self.allowed_lateness.0)
            .with_late(if self.backfill { LatePolicy::Read } else { LatePolicy::Report })
            .with_limit(limit)
            .with_reading(reading)
    }

    /// Returns the input files of this run among those at `places`, or `None` without a bookmark.
    pub(crate) async fn choose_inputs(
        &self,
        places: &[String],
        reading: InputReading,
        dataset: &Dataset,
        context: &CommandContext,
    ) -> Result<Option<ChosenInputs>> {
        let Some(name) = &self.bookmark else { return Ok(None) };
        let mut options = self.bookmark_options(reading.format);
        options.allow_empty = reading.allow_empty;
        let bookmark = Bookmark::new(name)?.with_options(options);
        let mut mode = self.read_mode()?;
        // `mode` has no access to stores, so that the named files are turned into URLs here.
        if let ReadMode::Replay(ReplayRange::Objects(urls)) = &mut mode {
            for place in &self.replay_input {
                urls.push(open_place(place, context).await?.url());
            }
        }
        // The run commits on the version that is observed here, before the input is listed.
        let snapshot = dataset.observe().await?;
        let places = open_places(places, context).await?;
        let (journal, head) = (dataset.journal(), &snapshot.observed.head);
        let input = bookmark.select(journal, head, &places, &mode, self.allow_missing.into()).await?;
        input.selection.warnings.iter().for_each(|w| tracing::warn!("{w}"));
        let run = run_named("biscuit", self.run_id.as_deref(), self.attempt);
        Ok(Some(ChosenInputs { snapshot, input, run, missing: self.allow_missing.into() }))
    }
}

/// How a command reads its input.
#[derive(Debug)]
pub(crate) struct InputReading {
    /// Description of the format, which is recorded in the bookmark.
    pub(crate) format: Value,
    /// Whether the input may be empty in the first run.
    pub(crate) allow_empty: bool,
}

/// Input files of a run, chosen by a bookmark, with the table version on which they were chosen.
#[derive(Debug)]
pub(crate) struct ChosenInputs {
    pub(crate) snapshot: TableVersion,
    input: SelectedInput,
    run: Run,
    missing: MissingObjects,
}

impl ChosenInputs {
    /// Returns the chosen files, each with the store that has it.
    pub(crate) fn files(&self) -> Result<Vec<FoundFile>> {
        let found = self.input.selection.objects.iter().map(|object| {
            let (store, path) = self.input.listed.find(object)?;
            Ok(FoundFile::new(object.listed.clone(), store, path))
        });
        found.collect()
    }

    /// Returns the state files and properties of the advanced bookmark, for the commit of the rows.
    pub(crate) fn commit_extras(&self) -> Result<CommitExtras> {
        let extras =
            self.input.state.advance(&self.input.selection, &self.run, RunOutput::default())?.unwrap_or_default();
        Ok(extras.with_run(self.run.id.to_string()))
    }

    /// Removes the missing file from the choice if the run failed because of it and `--allow-missing` is given.
    ///
    /// Returns whether the run can be tried again.
    pub(crate) fn remove_missing(&mut self, e: &Error) -> bool {
        let gone = self.missing == MissingObjects::Allow && e.is(biscuit_apply::codes::INPUT_GONE);
        let found = gone && e.file().is_some_and(|file| self.input.selection.remove_missing(file));
        if found {
            tracing::warn!("{e}; continuing without this file");
        }
        found
    }

    /// Adds the choice to a report: counts, the name of the bookmark and the first five late files.
    pub(crate) fn add_to_report(&self, json: &mut Value, text: &mut String) {
        let SelectedInput { state, selection, .. } = &self.input;
        let mut chosen = json!(selection);
        chosen["name"] = json!(state.name());
        chosen["run_id"] = json!(self.run.id.as_str());
        chosen["attempt"] = json!(self.run.attempt);
        json["bookmark"] = chosen;
        text.push_str(&format!("  bookmark    {} reads {}\n", state.name(), selection.counts));
        for url in selection.too_late.iter().take(5) {
            text.push_str(&format!("  late file   {url}\n"));
        }
    }
}

/// Returns the run with this id. Without an id, the start time of the run is its id.
pub(crate) fn run_named(job: &str, id: Option<&str>, attempt: u32) -> Run {
    // The clock is read once: the id of a run without `--run-id` is its start time.
    let start = SystemClock.now();
    let id = id.map_or_else(|| start.to_string(), str::to_owned);
    Run::new(job, RunId::new(id), start).with_attempt(attempt)
}

/// Opens the input places, in their order.
pub(crate) async fn open_places(places: &[String], context: &CommandContext) -> Result<Vec<SourcePlace>> {
    let mut opened = Vec::with_capacity(places.len());
    for place in places {
        opened.push(open_place(place, context).await?);
    }
    Ok(opened)
}

/// Opens one input place: a file, a folder or a glob, as path or URL.
pub(crate) async fn open_place(place: &str, context: &CommandContext) -> Result<SourcePlace> {
    context.stores.open_source(place).await
}
