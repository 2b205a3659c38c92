use std::fmt;
use std::str::FromStr;

use biscuit_core::{Error, Instant, Result};

/// A run of a bookmark: by its number, or by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunRef {
    /// The number that the bookmark gave it, from 1; 0 is before the first.
    Number(u64),
    /// The id that the scheduler gave it.
    Id(String),
}

impl FromStr for RunRef {
    type Err = Error;

    /// Digits are a number, and everything else is an id; `id:7` is the id `7`.
    fn from_str(text: &str) -> Result<Self> {
        match (text.strip_prefix("id:"), text.parse()) {
            (Some(""), _) => Err(Error::usage("InvalidReplay", "`id:` names no run")),
            (Some(id), _) => Ok(Self::Id(id.to_owned())),
            (None, Ok(number)) => Ok(Self::Number(number)),
            (None, Err(_)) if text.is_empty() => Err(Error::usage("InvalidReplay", "an empty text names no run")),
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

/// What is read once more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayRange {
    /// What was read by the runs after the first (exclusive) through the second (inclusive).
    Runs {
        /// Exclusive.
        after: RunRef,
        /// Inclusive.
        through: RunRef,
    },
    /// What was last modified after the first (exclusive) through the second (inclusive), on the store's clock.
    Modified {
        /// Exclusive.
        after: Instant,
        /// Inclusive.
        through: Instant,
    },
    /// These objects, by URL.
    Objects(Vec<String>),
}

impl ReplayRange {
    /// A replay of runs from what a command line or Glue's `job-bookmark-from` and `-to` say: both ends or neither.
    ///
    /// # Errors
    /// `InvalidReplay` if one of the two is missing.
    pub fn runs(after: Option<&str>, through: Option<&str>) -> Result<Option<Self>> {
        match (after, through) {
            (None, None) => Ok(None),
            (Some(after), Some(through)) => Ok(Some(Self::Runs { after: after.parse()?, through: through.parse()? })),
            (Some(_), None) => Err(half("through which run", "after")),
            (None, Some(_)) => Err(half("after which run", "through")),
        }
    }
}

fn half(what: &str, has: &str) -> Error {
    Error::usage("InvalidReplay", format!("a replay needs both ends: it says `{has}`, and not {what}"))
}

/// What a run reads, and whether it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadMode {
    /// What is new or overwritten; it is remembered with the output.
    #[default]
    Advance,
    /// Everything; what is remembered stays as it is.
    Full,
    /// What [`Advance`](Self::Advance) would read; what is remembered stays as it is.
    ReadOnly,
    /// Something that was read before; what is remembered stays as it is.
    Replay(ReplayRange),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_is_no_replay() {
        for (after, through) in [(Some("3"), None), (None, Some("3"))] {
            assert_eq!(ReplayRange::runs(after, through).unwrap_err().code(), "InvalidReplay");
        }
        assert_eq!(ReplayRange::runs(None, None).unwrap(), None);
    }

    #[test]
    fn digits_are_a_number_unless_they_are_called_an_id() {
        assert_eq!("7".parse::<RunRef>().unwrap(), RunRef::Number(7));
        assert_eq!("id:7".parse::<RunRef>().unwrap(), RunRef::Id("7".into()));
        assert_eq!("jr_7".parse::<RunRef>().unwrap(), RunRef::Id("jr_7".into()));
    }
}
