use std::fmt;

use biscuit_core::{Instant, Result};
use serde::Serialize;

use crate::bookmark::{LatePolicy, OverwrittenPolicy};
use crate::ignore::IgnoredReason;
use crate::input::ListedInput;
use crate::select::{ObjectVerdict, verdict};
use crate::state::BookmarkState;

/// Why the next run reads an object, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
#[non_exhaustive]
pub enum ObjectExplanation {
    /// It is read: it is new.
    New,
    /// It was read by this run and overwritten since.
    Overwritten {
        /// The run.
        run: u64,
        /// Whether it is read again.
        read: bool,
    },
    /// It was read by this run, as it is.
    Known {
        /// The run.
        run: u64,
        /// The scheduler's name for it, if that is remembered.
        id: Option<String>,
    },
    /// It was read by a run that was rewound, and is read again.
    Rewound {
        /// The run.
        run: u64,
    },
    /// It showed up with a time below the allowed lateness.
    TooLate {
        /// When it was last modified.
        #[serde(serialize_with = "text")]
        modified: Instant,
        /// What it would have to be newer than.
        #[serde(serialize_with = "text")]
        than: Instant,
        /// Whether it is read.
        read: bool,
    },
    /// Nobody reads such objects.
    Ignored {
        /// What it is.
        reason: IgnoredReason,
    },
    /// It is not there any more, and was read by this run.
    Gone {
        /// The run.
        run: u64,
    },
    /// It is not in the source, and never was as far as is remembered.
    NotThere,
}

fn text<S: serde::Serializer>(instant: &Instant, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(instant)
}

impl fmt::Display for ObjectExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("it is new, and the next run reads it"),
            Self::Overwritten { run, read: true } => {
                write!(f, "run {run} read it; it was overwritten since, and the next run reads it again")
            }
            Self::Overwritten { run, read: false } => {
                write!(f, "run {run} read it; it was overwritten since, which the options do not read again")
            }
            Self::Known { run, id: Some(id) } => write!(f, "run {run} ({id}) read it, and it is as it was"),
            Self::Known { run, id: None } => write!(f, "run {run} read it, and it is as it was"),
            Self::Rewound { run } => {
                write!(f, "run {run} read it, but the bookmark was rewound since, and the next run reads it")
            }
            Self::TooLate { modified, than, read } => {
                let then =
                    if *read { "the next run reads it all the same" } else { "it is not read without a backfill" };
                write!(
                    f,
                    "it was modified at {modified} and showed up later, when the allowed lateness began at {than}: {then}"
                )
            }
            Self::Ignored { reason } => match reason {
                IgnoredReason::Hidden => f.write_str("it is a mark, a checksum or staging, which nobody reads"),
                IgnoredReason::Empty => f.write_str("it has no byte"),
                IgnoredReason::Archived => f.write_str("it is in an archive and has to be restored first"),
            },
            Self::Gone { run } => write!(f, "it is not there any more; run {run} read it"),
            Self::NotThere => f.write_str("it is not in the source, and was not read by any run that is remembered"),
        }
    }
}

impl BookmarkState {
    /// Why the next run reads an object, or does not.
    ///
    /// # Errors
    /// `UnreadableBookmark` if the state is damaged.
    pub fn explain(&self, input: &ListedInput, url: &str) -> Result<ObjectExplanation> {
        let options = &self.bookmark.options;
        let readings = self.readings(url)?;
        let Some((object, ignored)) = input.objects().find(|(o, _)| o.url == url) else {
            return Ok(readings
                .last()
                .map_or(ObjectExplanation::NotThere, |(run, _)| ObjectExplanation::Gone { run: *run }));
        };
        if let Some(reason) = ignored {
            return Ok(ObjectExplanation::Ignored { reason });
        }
        let horizon = self.horizon(input);
        Ok(match verdict(&self.known()?, &object, self.identity(), horizon) {
            ObjectVerdict::Known(run) => {
                let id = self.runs().find(|(r, _)| r.number == run).map(|(r, _)| r.id.clone());
                ObjectExplanation::Known { run, id }
            }
            ObjectVerdict::Overwritten(run) => {
                ObjectExplanation::Overwritten { run, read: options.overwritten == OverwrittenPolicy::Read }
            }
            ObjectVerdict::TooLate => {
                let than = horizon.unwrap_or(object.modified());
                ObjectExplanation::TooLate { modified: object.modified(), than, read: options.late == LatePolicy::Read }
            }
            ObjectVerdict::New => match readings.last() {
                Some((run, _)) => ObjectExplanation::Rewound { run: *run },
                None => ObjectExplanation::New,
            },
        })
    }
}
