//! Effect of a run, a write or a commit.

use std::fmt;

use serde::{Serialize, Serializer};

/// Effect of a run, a write or a commit, as reports state it.
///
/// Serializes as the text of [`as_str`](Self::as_str). Failures are an [`Error`](crate::Error), not an outcome.
///
/// ```
/// use biscuit_core::Outcome;
///
/// let outcome = Outcome::PurgedWithExceptions;
/// assert_eq!(outcome.to_string(), "purged with exceptions");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing was changed: there was nothing to do, or an earlier attempt with the same commit id has done it.
    #[default]
    Unchanged,
    /// A dry run found something to change, and changed nothing.
    Planned,
    /// A version of a table was committed, or a sink wrote what it was given.
    Committed,
    /// A version was committed in which a table agrees with the files in its folder.
    Adopted,
    /// A version that a dead run had committed was finished, objects of dead runs were deleted, or a fence was
    /// committed.
    Recovered,
    /// Lifecycle rules of a bucket were changed.
    Applied,
    /// Every object of a plan was deleted or was already absent.
    Purged,
    /// A plan was carried out, and some of its objects were kept or not deleted.
    PurgedWithExceptions,
    /// Something of the subjects was erased, or subjects were readmitted. The parts of an erasure have outcomes of
    /// their own.
    Done,
    /// An erasure found nothing of the subjects.
    NothingFound,
}

impl Outcome {
    /// Text of the outcome in reports, such as `committed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Planned => "planned",
            Self::Committed => "committed",
            Self::Adopted => "adopted",
            Self::Recovered => "recovered",
            Self::Applied => "applied",
            Self::Purged => "purged",
            Self::PurgedWithExceptions => "purged with exceptions",
            Self::Done => "done",
            Self::NothingFound => "nothing found",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
