//! Modes of a run: what it reads, and whether the bookmark remembers it.

use std::fmt;
use std::str::FromStr;

use biscuit_core::{Error, Instant, Result};

use crate::codes;

/// Reference to a run of a bookmark, by its number or by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunRef {
    /// Number that the bookmark gave the run, from 1; 0 stands for the time before the first run.
    Number(u64),
    /// Id that the scheduler gave the run.
    Id(String),
}

impl FromStr for RunRef {
    type Err = Error;

    /// Parses digits as a number and every other text as an id. `id:7` is the id `7`.
    fn from_str(text: &str) -> Result<Self> {
        match (text.strip_prefix("id:"), text.parse()) {
            (Some(""), _) => Err(Error::new(codes::INVALID_REPLAY, "`id:` does not name a run")),
            (Some(id), _) => Ok(Self::Id(id.to_owned())),
            (None, Ok(number)) => Ok(Self::Number(number)),
            (None, Err(_)) if text.is_empty() => {
                Err(Error::new(codes::INVALID_REPLAY, "an empty text does not name a run"))
            }
            (None, Err(_)) => Ok(Self::Id(text.to_owned())),
        }
    }
}

impl fmt::Display for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Id(id) => f.write_str(id),
        }
    }
}

/// Objects that a replay reads again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayRange {
    /// Objects that a range of runs has read.
    Runs {
        /// Run before the range (exclusive).
        after: RunRef,
        /// Last run of the range (inclusive).
        through: RunRef,
    },
    /// Objects that were last modified in a range of time, on the clock of the store.
    Modified {
        /// Start of the range (exclusive).
        after: Instant,
        /// End of the range (inclusive).
        through: Instant,
    },
    /// Objects with these URLs.
    Objects(Vec<String>),
}

impl ReplayRange {
    /// Parses a replay of runs from the two ends of a command line, or from `job-bookmark-from` and `job-bookmark-to`
    /// of AWS Glue. Returns `None` if both ends are missing.
    ///
    /// ```
    /// use biscuit_bookmark::{ReplayRange, RunRef};
    ///
    /// let range = ReplayRange::Runs { after: RunRef::Number(3), through: RunRef::Number(5) };
    /// assert_eq!(ReplayRange::parse_runs(Some("3"), Some("5"))?, Some(range)); // runs 4 and 5
    /// assert_eq!(ReplayRange::parse_runs(Some("3"), None).unwrap_err().code(), "InvalidReplay");
    /// # Ok::<(), biscuit_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidReplay` if one of the two is missing.
    pub fn parse_runs(after: Option<&str>, through: Option<&str>) -> Result<Option<Self>> {
        match (after, through) {
            (None, None) => Ok(None),
            (Some(after), Some(through)) => Ok(Some(Self::Runs { after: after.parse()?, through: through.parse()? })),
            (Some(_), None) => Err(incomplete_range("through which run", "after")),
            (None, Some(_)) => Err(incomplete_range("after which run", "through")),
        }
    }
}

fn incomplete_range(what: &str, has: &str) -> Error {
    Error::new(codes::INVALID_REPLAY, format!("a replay needs both ends: `{has}` is given, but not {what}"))
}

/// Mode of a run: which objects it reads, and whether the bookmark remembers them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadMode {
    /// Reads new and overwritten objects. The bookmark remembers them in the commit of the output.
    #[default]
    Advance,
    /// Reads all objects. The bookmark does not change.
    Full,
    /// Reads the objects that [`Advance`](Self::Advance) would read. The bookmark does not change.
    ReadOnly,
    /// Reads objects again that were read before. The bookmark does not change.
    Replay(ReplayRange),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_with_one_end_is_refused() {
        for (after, through) in [(Some("3"), None), (None, Some("3"))] {
            assert_eq!(ReplayRange::parse_runs(after, through).unwrap_err().code(), "InvalidReplay");
        }
        assert_eq!(ReplayRange::parse_runs(None, None).unwrap(), None);
    }

    #[test]
    fn digits_are_a_number_unless_prefixed_as_an_id() {
        assert_eq!("7".parse::<RunRef>().unwrap(), RunRef::Number(7));
        assert_eq!("id:7".parse::<RunRef>().unwrap(), RunRef::Id("7".into()));
        assert_eq!("jr_7".parse::<RunRef>().unwrap(), RunRef::Id("jr_7".into()));
    }
}
