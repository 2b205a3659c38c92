//! Kinds of errors, by what the caller can do about them.

/// Kind of an error, by what the caller can do about it. A new kind is added only if the caller would act
/// differently.
///
/// ```
/// use biscuit_core::{Error, ErrorKind, codes};
///
/// fn may_run_again(e: &Error) -> bool {
///     matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Unavailable)
/// }
///
/// assert!(may_run_again(&Error::new(codes::CONFLICT, "version 7 of `orders` already exists")));
/// assert!(!may_run_again(&Error::new(codes::NOT_FOUND, "`raw/a.json` does not exist")));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of Biscuit itself. Report it.
    Internal,
    /// The job or its arguments are wrong. Change them.
    Usage,
    /// The data is invalid, or the table does not match its journal. Another run would fail in the same way: look at
    /// the file, column and row in the message. Nothing was changed.
    Data,
    /// Another run committed first. Run again.
    Conflict,
    /// The store did not respond, even after retries with back-off. Run again.
    Unavailable,
    /// The store refused the request. Permissions, encryption keys or settings have to be changed.
    Denied,
    /// The run was asked to stop before its commit. Nothing is visible.
    Interrupted,
}

impl ErrorKind {
    /// Returns the kind as one lower-case word, as reports show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Data => "data",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::Interrupted => "interrupted",
        }
    }
}
