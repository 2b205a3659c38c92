use std::time::Duration;

use biscuit_bookmark::{
    Bookmark, BookmarkOptions, BookmarkState, BookmarkUpdate, InputSelection, LatePolicy, ListedInput, ObjectIdentity,
    OverwrittenPolicy, ReadMode, ReplayRange, RunLimit, RunOutput, SourcePlace, list,
};
use biscuit_core::{Clock, Error, Instant, Result, Run, RunId, SystemClock};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_job::OpenSource;
use biscuit_merge::{CommitExtras, FoundFile};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::args::command::duration;
use crate::args::parquet::bytes;
use crate::environment::context::CommandContext;
use crate::environment::stores::CliSources;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// Read what is new, and remember it with the output
    Advance,
    /// Read everything, and remember nothing
    Full,
    /// Read what is new, and remember nothing
    ReadOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum IdentityName {
    /// If size or ETag differ
    #[default]
    Content,
    /// If the time of modification differs, as AWS Glue does it
    Modified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OverwrittenName {
    /// It is read again
    #[default]
    Read,
    /// It stops the run
    Fail,
    /// It is passed over
    Ignore,
}

/// How far back objects may show up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookBackArg(Option<Duration>);

fn allowed_lateness(text: &str) -> Result<LookBackArg, String> {
    if text == "none" { Ok(LookBackArg(None)) } else { duration(text).map(|d| LookBackArg(Some(d))) }
}

/// Which of the input files a run reads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bookmark")]
pub(crate) struct BookmarkArgs {
    /// Read each input file once: what was read is remembered under this name, in the commit of the output
    #[arg(long, value_name = "NAME")]
    pub(crate) bookmark: Option<String>,

    /// The scheduler's name for this run, the same for each attempt [default: the time at which it starts]
    #[arg(long, requires = "bookmark", value_name = "ID", env = "BISCUIT_RUN_ID", hide_env_values = true)]
    run_id: Option<String>,

    /// Which attempt of the run this is
    #[arg(long, requires = "bookmark", default_value_t = 1, value_name = "N")]
    attempt: u32,

    /// What is read, and whether it is remembered
    #[arg(long, requires = "bookmark", value_enum, default_value = "advance", value_name = "MODE")]
    bookmark_mode: ModeName,

    /// Replay: read again what the runs after this one read, by number or id; nothing is remembered
    #[arg(long, requires = "bookmark", value_name = "RUN", alias = "job-bookmark-from")]
    after: Option<String>,

    /// Replay: through this run, inclusive
    #[arg(long, requires = "bookmark", value_name = "RUN", alias = "job-bookmark-to")]
    through: Option<String>,

    /// Replay: read what was last modified after this instant, on the store's clock
    #[arg(long, requires_all = ["bookmark", "modified_through"], value_name = "INSTANT")]
    modified_after: Option<Instant>,

    /// Replay: through this instant, inclusive
    #[arg(long, requires_all = ["bookmark", "modified_after"], value_name = "INSTANT")]
    modified_through: Option<Instant>,

    /// Replay: read these input files, by path or URL
    #[arg(long, requires = "bookmark", num_args = 1.., value_name = "PATH_OR_URL")]
    replay_input: Vec<String>,

    /// Read at most so many files, the oldest first
    #[arg(long, requires = "bookmark", value_name = "N")]
    limit_files: Option<usize>,

    /// Read at most so many bytes, such as `10GB`, but one file at least
    #[arg(long, requires = "bookmark", value_parser = bytes, value_name = "BYTES")]
    limit_bytes: Option<usize>,

    /// When a file that was read is another one
    #[arg(long, requires = "bookmark", value_enum, default_value = "content")]
    identity: IdentityName,

    /// What happens to a file that was read and overwritten since
    #[arg(long, requires = "bookmark", value_enum, default_value = "read")]
    overwritten: OverwrittenName,

    /// How far below the newest file that was read one may show up, such as 24h; `none` for any; on a local disk it always is
    #[arg(long, requires = "bookmark", value_parser = allowed_lateness, default_value = "24h", value_name = "DURATION")]
    allowed_lateness: LookBackArg,

    /// Also read files that showed up with a time below the allowed lateness
    #[arg(long, requires = "bookmark")]
    backfill: bool,

    /// Go on without files that are deleted while the run reads; they do not count as read
    #[arg(long, requires = "bookmark")]
    allow_missing: bool,
}

impl BookmarkArgs {
    fn mode(&self) -> Result<ReadMode> {
        let runs = ReplayRange::runs(self.after.as_deref(), self.through.as_deref())?;
        let modified = self.modified_after.zip(self.modified_through);
        let modified = modified.map(|(after, through)| ReplayRange::Modified { after, through });
        let objects = (!self.replay_input.is_empty()).then(|| ReplayRange::Objects(vec![]));
        let mut replays = runs.into_iter().chain(modified).chain(objects);
        let replay = replays.next();
        if replays.next().is_some() || (replay.is_some() && self.bookmark_mode == ModeName::Full) {
            let message = "a replay is of runs, of times or of named files, and of one of them";
            return Err(Error::usage("InvalidReplay", message));
        }
        Ok(match (replay, self.bookmark_mode) {
            (Some(replay), _) => ReadMode::Replay(replay),
            (None, ModeName::Advance) => ReadMode::Advance,
            (None, ModeName::Full) => ReadMode::Full,
            (None, ModeName::ReadOnly) => ReadMode::ReadOnly,
        })
    }

    fn options(&self, reading: Value) -> BookmarkOptions {
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
            .with_limit(RunLimit { files: self.limit_files, bytes: self.limit_bytes.map(|b| b as u64) })
            .with_reading(reading)
    }

    fn run(&self) -> Run {
        let start = SystemClock.now();
        let id = self.run_id.clone().unwrap_or_else(|| start.to_string());
        Run::new("biscuit", RunId::new(id), start).with_attempt(self.attempt)
    }

    /// What a run reads of these places; none without a bookmark. `reading` is how it is read.
    pub(crate) async fn choose(
        &self,
        places: &[String],
        (reading, allow_empty): (Value, bool),
        dataset: &Dataset,
        context: &CommandContext,
    ) -> Result<Option<ChosenInputs>> {
        let Some(name) = &self.bookmark else { return Ok(None) };
        let bookmark = Bookmark::new(name)?.with_options(self.options(reading).with_allow_empty(allow_empty));
        let snapshot = dataset.observe().await?;
        let state = bookmark.load(dataset.journal(), &snapshot.observed.head).await?;
        let input = list(&open_places(places, context).await?).await?;
        let mut mode = self.mode()?;
        if let ReadMode::Replay(ReplayRange::Objects(urls)) = &mut mode {
            for place in &self.replay_input {
                urls.push(open_place(place, context).await?.url());
            }
        }
        let selection = state.select(&input, &mode)?;
        selection.warnings.iter().for_each(|w| tracing::warn!("{w}"));
        if let Some(url) = selection.gone.first().filter(|_| !self.allow_missing) {
            let message = format!(
                "{} of the files to replay are not there any more; --allow-missing goes on without them",
                selection.counts.gone
            );
            return Err(Error::data("InputGone", message).in_file(url));
        }
        let run = self.run();
        Ok(Some(ChosenInputs { snapshot, state, input, selection, run, allow_missing: self.allow_missing }))
    }
}

/// The input files of a run, by its bookmark, and the version of the output that they were chosen on.
#[derive(Debug)]
pub(crate) struct ChosenInputs {
    pub(crate) snapshot: TableVersion,
    state: BookmarkState,
    input: ListedInput,
    selection: InputSelection,
    run: Run,
    allow_missing: bool,
}

impl ChosenInputs {
    pub(crate) fn files(&self) -> Result<Vec<FoundFile>> {
        let found = self.selection.objects.iter().map(|object| {
            let (store, path) = self.input.find(object)?;
            Ok(FoundFile { name: object.url.clone(), store, path, size: object.size, etag: object.etag.clone() })
        });
        found.collect()
    }

    /// What the commit makes true besides the rows.
    pub(crate) fn extras(&self) -> Result<CommitExtras> {
        let BookmarkUpdate { state, properties } =
            self.state.advance(&self.selection, &self.run, RunOutput::default())?.unwrap_or_default();
        Ok(CommitExtras { state, properties, run: Some(self.run.id.to_string()), ..CommitExtras::default() })
    }

    /// Whether a run that failed like this may go on without a file, which is no longer chosen then.
    pub(crate) fn without(&mut self, e: &Error) -> bool {
        let gone = self.allow_missing && e.code() == "InputGone";
        let found = gone && e.file().is_some_and(|file| self.selection.without(file));
        if found {
            tracing::warn!("{e}; going on without it");
        }
        found
    }

    /// Adds to a report what was chosen.
    pub(crate) fn report(&self, json: &mut Value, text: &mut String) {
        let selection = &self.selection;
        let mut said = json!(selection);
        said["name"] = json!(self.state.name());
        said["run_id"] = json!(self.run.id.as_str());
        said["attempt"] = json!(self.run.attempt);
        json["bookmark"] = said;
        let c = &selection.counts;
        let others = [
            (c.overwritten, "of them overwritten"),
            (c.known, "read before"),
            (c.passed_over, "overwritten and passed over"),
            (c.too_late, "too late"),
            (c.left, "left for the next run"),
            (c.gone, "gone"),
            (c.ignored.values().sum(), "ignored"),
        ];
        let mut said = format!("reads {} files of {}, {} bytes", c.selected, c.listed, c.bytes);
        for (n, what) in others.iter().filter(|(n, _)| *n > 0) {
            said.push_str(&format!(", {n} {what}"));
        }
        text.push_str(&format!("  bookmark    {} {said}\n", self.state.name()));
        for url in selection.too_late.iter().take(5) {
            text.push_str(&format!("  too late    {url}\n"));
        }
    }
}

/// The places of a source, opened.
pub(crate) async fn open_places(places: &[String], context: &CommandContext) -> Result<Vec<SourcePlace>> {
    let mut opened = Vec::with_capacity(places.len());
    for place in places {
        opened.push(open_place(place, context).await?);
    }
    Ok(opened)
}

pub(crate) async fn open_place(place: &str, context: &CommandContext) -> Result<SourcePlace> {
    CliSources(context.stores.clone()).place(place).await
}
