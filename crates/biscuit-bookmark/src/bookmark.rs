use std::time::Duration;

use biscuit_core::{Error, Result};
use biscuit_journal::{Journal, TableHead};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::BookmarkState;

/// When an object that is remembered is the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectIdentity {
    /// If size and ETag are the same; size and time of modification where the store has no ETags.
    #[default]
    Content,
    /// If the time of modification is the same: what is uploaded again is read again, as AWS Glue does it.
    Modified,
}

/// What happens to an object that was read and has been overwritten since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverwrittenPolicy {
    /// It is read again, as a whole.
    #[default]
    Read,
    /// It stops the run.
    Fail,
    /// It is passed over and counted.
    Ignore,
}

/// What happens to an object that shows up with a time below the allowed lateness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatePolicy {
    /// It is reported and not read.
    #[default]
    Report,
    /// It is read: a backfill.
    Read,
}

/// How much a run reads at most. What is left is read by the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RunLimit {
    /// Objects.
    pub files: Option<usize>,
    /// Bytes; one object is read whatever its size.
    pub bytes: Option<u64>,
}

/// Choices of a bookmark that have a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BookmarkOptions {
    /// What makes two objects of one URL the same. Default: the content.
    pub identity: ObjectIdentity,
    /// How far below the newest object that was read one may show up and be read, on the store's clock. None: without limit, as always
    /// on a local disk. Default: 24 hours.
    pub allowed_lateness: Option<Duration>,
    /// What happens to what shows up below it. Default: it is reported.
    pub late: LatePolicy,
    /// What happens to overwritten objects. Default: they are read again.
    pub overwritten: OverwrittenPolicy,
    /// How much a run reads. Default: everything.
    pub limit: RunLimit,
    /// The newest runs whose objects are remembered by name, so that they can be replayed. Default: 1,000.
    pub keep_runs: u64,
    /// Whether the first run may find a place without an object. Default: no; later runs may in any case.
    pub allow_empty: bool,
    /// How the objects are read, in the caller's words: a run with others is warned about. Default: nothing.
    pub reading: Value,
}

impl Default for BookmarkOptions {
    fn default() -> Self {
        Self {
            identity: ObjectIdentity::default(),
            allowed_lateness: Some(Duration::from_secs(24 * 3600)),
            late: LatePolicy::default(),
            overwritten: OverwrittenPolicy::default(),
            limit: RunLimit::default(),
            keep_runs: 1000,
            allow_empty: false,
            reading: Value::Null,
        }
    }
}

impl BookmarkOptions {
    /// The same options with another identity.
    pub fn with_identity(mut self, identity: ObjectIdentity) -> Self {
        self.identity = identity;
        self
    }

    /// The same options with another allowed lateness; none is without limit.
    pub fn with_allowed_lateness(mut self, allowed_lateness: Option<Duration>) -> Self {
        self.allowed_lateness = allowed_lateness;
        self
    }

    /// The same options with another choice for late objects.
    pub fn with_late(mut self, late: LatePolicy) -> Self {
        self.late = late;
        self
    }

    /// The same options with another choice for overwritten objects.
    pub fn with_overwritten(mut self, overwritten: OverwrittenPolicy) -> Self {
        self.overwritten = overwritten;
        self
    }

    /// The same options with a limit.
    pub fn with_limit(mut self, limit: RunLimit) -> Self {
        self.limit = limit;
        self
    }

    /// The same options; the objects of so many runs are remembered by name (at least 1).
    pub fn with_keep_runs(mut self, runs: u64) -> Self {
        self.keep_runs = runs.max(1);
        self
    }

    /// The same options with another choice for places without an object.
    pub fn with_allow_empty(mut self, allow: bool) -> Self {
        self.allow_empty = allow;
        self
    }

    /// The same options with how the objects are read.
    pub fn with_reading(mut self, reading: Value) -> Self {
        self.reading = reading;
        self
    }
}

/// A bookmark of an output: a name for what was read of one source.
#[derive(Debug, Clone)]
pub struct Bookmark {
    pub(crate) name: String,
    pub(crate) options: BookmarkOptions,
}

impl Bookmark {
    /// The bookmark of this name: letters, digits, `_`, `-` and `.`, up to 100.
    ///
    /// # Errors
    /// `InvalidBookmark` for any other name.
    pub fn new(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(fits) {
            let message = format!("`{name}` is no name of a bookmark: letters, digits, `_`, `-` and `.`, up to 100");
            return Err(Error::usage("InvalidBookmark", message));
        }
        Ok(Self { name: name.to_owned(), options: BookmarkOptions::default() })
    }

    /// The same bookmark with other options.
    pub fn with_options(mut self, options: BookmarkOptions) -> Self {
        self.options = options;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its options.
    pub fn options(&self) -> &BookmarkOptions {
        &self.options
    }

    /// What is remembered in this version of the output.
    ///
    /// # Errors
    /// `NewerFormat`, `Conflict` if a newer version has replaced the state meanwhile, `Diverged` if it is lost, and those of the store.
    pub async fn load(&self, journal: &Journal, head: &TableHead) -> Result<BookmarkState> {
        BookmarkState::load(self.clone(), journal, head).await
    }
}
