//! Explains for one object why the next run reads it or does not.

use std::fmt;

use biscuit_core::{Instant, Result};
use serde::Serialize;

use crate::input::ListedInput;
use crate::options::{BookmarkOptions, LatePolicy, OverwrittenPolicy};
use crate::runs::remembered::RememberedRuns;
use crate::selection::ignored::IgnoredReason;
use crate::selection::select::{ObjectVerdict, lateness_horizon, object_verdict};

/// Reason why the next run reads an object or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
#[non_exhaustive]
pub enum ObjectExplanation {
    /// The object is new and is read.
    New,
    /// The object was overwritten after a run had read it.
    Overwritten {
        /// Number of that run.
        run: u64,
        /// Whether the next run reads the object again.
        read: bool,
    },
    /// The object was read by a run and has not changed since.
    Known {
        /// Number of that run.
        run: u64,
        /// Id that the scheduler gave the run, if it is remembered.
        id: Option<String>,
    },
    /// The object was read by a run that was rewound, and is read again.
    Rewound {
        /// Number of that run.
        run: u64,
    },
    /// The object appeared with a time of modification before the allowed lateness.
    TooLate {
        /// Time of the last modification of the object.
        #[serde(serialize_with = "serialize_instant")]
        modified: Instant,
        /// Start of the allowed lateness.
        #[serde(serialize_with = "serialize_instant")]
        than: Instant,
        /// Whether the next run reads the object.
        read: bool,
    },
    /// The object is of a kind that no run reads.
    Ignored {
        /// Reason why it is ignored.
        reason: IgnoredReason,
    },
    /// The object no longer exists; a run has read it.
    Gone {
        /// Number of that run.
        run: u64,
    },
    /// The object is not in the source, and no remembered run has read it.
    NotThere,
}

fn serialize_instant<S: serde::Serializer>(instant: &Instant, s: S) -> Result<S::Ok, S::Error> {
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
                write!(f, "run {run} read it; it was overwritten since, and the options exclude overwritten objects")
            }
            Self::Known { run, id: Some(id) } => write!(f, "run {run} ({id}) read it, and it has not changed since"),
            Self::Known { run, id: None } => write!(f, "run {run} read it, and it has not changed since"),
            Self::Rewound { run } => {
                write!(f, "run {run} read it, but the bookmark was rewound since, and the next run reads it")
            }
            Self::TooLate { modified, than, read } => {
                let then =
                    if *read { "the next run reads it nevertheless" } else { "it is not read without a backfill" };
                write!(f, "it was modified at {modified}, and the allowed lateness starts at {than}: {then}")
            }
            Self::Ignored { reason } => match reason {
                IgnoredReason::Hidden => f.write_str("it is a marker, a checksum or a staged file, which no run reads"),
                IgnoredReason::Empty => f.write_str("it is empty"),
                IgnoredReason::Archived => f.write_str("it is in an archive and has to be restored first"),
            },
            Self::Gone { run } => write!(f, "it no longer exists; run {run} read it"),
            Self::NotThere => f.write_str("it is not in the source, and no remembered run read it"),
        }
    }
}

/// Explains why the next run reads the object with this URL or does not.
pub(crate) fn explain(
    runs: &RememberedRuns,
    options: &BookmarkOptions,
    input: &ListedInput,
    url: &str,
) -> Result<ObjectExplanation> {
    let readings = runs.readings(url)?;
    let Some((object, ignored)) = input.objects().find(|(o, _)| o.url() == url) else {
        return Ok(readings
            .last()
            .map_or(ObjectExplanation::NotThere, |(run, _)| ObjectExplanation::Gone { run: *run }));
    };
    if let Some(reason) = ignored {
        return Ok(ObjectExplanation::Ignored { reason });
    }
    let horizon = lateness_horizon(runs, options, input);
    Ok(match object_verdict(&runs.known()?, &object, options.identity, horizon) {
        ObjectVerdict::Known(run) => {
            let id = runs.runs().find(|(r, _)| r.number == run).map(|(r, _)| r.id.clone());
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
