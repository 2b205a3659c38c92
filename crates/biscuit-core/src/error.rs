use std::error::Error as StdError;
use std::fmt;

use crate::mask_secrets;

/// The result of everything in the family.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error. A new kind exists only where the caller would act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of Biscuit itself: report it.
    Internal,
    /// The job or its arguments are wrong: change them.
    Usage,
    /// The data is invalid, or the table does not match its journal. Another run would fail in the same way: look at the named file, column and row. Nothing
    /// was changed.
    Data,
    /// Another run was there first: run again.
    Conflict,
    /// The store did not answer, also after back-off: run again.
    Unavailable,
    /// The store refused: rights, encryption keys or settings have to be changed.
    Denied,
    /// The run was told to stop before its commit: nothing is visible.
    Interrupted,
}

impl ErrorKind {
    /// The kind in one lower-case word, as reports show it.
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

/// The one error type of the family: a kind to act on, a stable code, a message, and a hidden source.
///
/// ```
/// use biscuit_core::{Error, ErrorKind};
///
/// let e = Error::data("NullKey", "column `id` is null").at("changes/a.jsonl", 7);
/// assert_eq!(e.kind(), ErrorKind::Data);
/// assert_eq!(e.code(), "NullKey");
/// assert_eq!(e.to_string(), "NullKey: column `id` is null (changes/a.jsonl, row 7)");
/// assert_eq!((e.file(), e.row()), (Some("changes/a.jsonl"), Some(7)));
/// ```
pub struct Error(Box<ErrorParts>);

struct ErrorParts {
    kind: ErrorKind,
    code: &'static str,
    message: String,
    /// Where in the message its first place begins, if it has one.
    place: Option<usize>,
    details: Vec<(&'static str, String)>,
    column: Option<String>,
    file: Option<String>,
    row: Option<u64>,
    source: Option<ErrorSource>,
}

type BoxedCause = Box<dyn StdError + Send + Sync>;

/// A cause by what its message may hold.
enum ErrorSource {
    /// It quotes no values of rows.
    Plain(BoxedCause),
    /// It may quote them.
    Quoting(BoxedCause),
}

impl Error {
    /// An error of `kind` with a stable `code` (`NullKey`) and a message that names columns and files, never values. Secrets in it,
    /// such as passwords of URLs, are masked.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        let (message, details) = (masked(message.into()), Vec::new());
        let inner =
            ErrorParts { kind, code, message, place: None, details, column: None, file: None, row: None, source: None };
        Self(Box::new(inner))
    }

    /// A defect of Biscuit itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "Internal", message)
    }

    /// Wrong use: arguments, options, a job that cannot be.
    pub fn usage(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, code, message)
    }

    /// Invalid data, or a table that does not match its journal.
    pub fn data(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, code, message)
    }

    /// Another run was there first.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    /// Adds a cause whose message may quote values of rows, as those of engines, decoders and parsers do. It is in no message,
    /// no `Debug`, and not what [`source`](StdError::source) returns: only [`quoting_source`](Self::quoting_source) does. Errors of the
    /// family and of the operating system are [plain](Self::with_plain_source) all the same.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        // These are known to be plain: an error of the family hides its own cause, and one of the operating system is a number.
        let of_the_system = source.downcast_ref::<std::io::Error>().is_some_and(|e| e.raw_os_error().is_some());
        let plain = source.is::<Self>() || of_the_system;
        self.0.source = Some(if plain { ErrorSource::Plain(source) } else { ErrorSource::Quoting(source) });
        self
    }

    /// Adds a cause that quotes no values of rows: an error of a store, a service or the operating system. Reports that walk
    /// [`source`](StdError::source) print it; [`mask_secrets`] masks what it has of URLs.
    pub fn with_plain_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(ErrorSource::Plain(source.into()));
        self
    }

    /// Adds a detail that may hold a key or a value of a row; shown only where values may be shown.
    pub fn with_detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.details.push((name, value.into()));
        self
    }

    /// The same error with other details: where values are not to be shown even on request.
    pub fn map_details(mut self, f: impl Fn(&str) -> String) -> Self {
        self.0.details.iter_mut().for_each(|(_, value)| *value = f(value));
        self
    }

    /// Says which column it is about; the message names it already.
    pub fn with_column(mut self, column: impl Into<String>) -> Self {
        self.0.column = Some(column.into());
        self
    }

    /// Appends the place in the input: the file, and the row or line, counted from 1.
    pub fn at(mut self, file: impl fmt::Display, row: u64) -> Self {
        self.placed(&format!(" ({file}, row {row})"));
        (self.0.file, self.0.row) = (Some(file.to_string()), Some(row));
        self
    }

    /// The same error at this place in the input, in place of any it had: where it was found in a part, and told from that.
    pub fn relocated(mut self, file: impl fmt::Display, row: u64) -> Self {
        if let Some(place) = self.0.place.take() {
            self.0.message.truncate(place);
        }
        self.at(file, row)
    }

    fn placed(&mut self, place: &str) {
        self.0.place.get_or_insert(self.0.message.len());
        self.0.message.push_str(&mask_secrets(place));
    }

    /// Appends the place in the input where only the file is known.
    pub fn in_file(mut self, file: impl fmt::Display) -> Self {
        self.placed(&format!(" ({file})"));
        self.0.file = Some(file.to_string());
        self
    }

    /// The same error without its cause: for several that wait for what failed once.
    pub fn without_source(&self) -> Self {
        let i = &self.0;
        Self(Box::new(ErrorParts {
            kind: i.kind,
            code: i.code,
            message: i.message.clone(),
            place: i.place,
            details: i.details.clone(),
            column: i.column.clone(),
            file: i.file.clone(),
            row: i.row,
            source: None,
        }))
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The message without the code.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The column it is about, if it is about one.
    pub fn column(&self) -> Option<&str> {
        self.0.column.as_deref()
    }

    /// The file of the input it is about.
    pub fn file(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// The row or line of that file, from 1.
    pub fn row(&self) -> Option<u64> {
        self.0.row
    }

    /// The cause, if its message may quote values of rows: for those who may see them.
    pub fn quoting_source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(ErrorSource::Quoting(e)) => Some(e.as_ref()),
            _ => None,
        }
    }

    /// Names and values that may hold data of the rows.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.0.details
    }
}

fn masked(text: String) -> String {
    match mask_secrets(&text) {
        std::borrow::Cow::Borrowed(_) => text,
        std::borrow::Cow::Owned(masked) => masked,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("source", &StdError::source(self).map(|e| masked(format!("{e:?}"))))
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(ErrorSource::Plain(e)) => Some(e.as_ref()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_out_of_display_and_debug() {
        let e = Error::data("NullKey", "column `id` is null").with_detail("key", "secret-42");
        assert!(!e.to_string().contains("secret-42") && !format!("{e:?}").contains("secret-42"));
        assert_eq!(e.details(), [("key", "secret-42".to_owned())]);
    }

    #[test]
    fn a_cause_that_may_quote_values_is_reached_by_its_own_name_only() {
        let quoting = || std::io::Error::other("cannot cast 'secret-42'");
        let e = Error::data("UnreadableRows", "the rows cannot be read").with_source(quoting());
        assert!(StdError::source(&e).is_none() && !format!("{e:?} {e}").contains("secret-42"));
        assert_eq!(e.quoting_source().map(ToString::to_string).as_deref(), Some("cannot cast 'secret-42'"));
        let plain = Error::data("NotFound", "cannot read `a`").with_plain_source(std::io::Error::other("no such file"));
        assert!(plain.quoting_source().is_none() && format!("{plain:?}").contains("no such file"));
    }

    #[test]
    fn passwords_of_urls_are_masked_in_messages_and_places() {
        let e = Error::usage("InvalidUrl", "`s3://me:pw@b/x` cannot be used").in_file("http://me:pw@host/a.jsonl");
        assert_eq!(e.message(), "`s3://***@b/x` cannot be used (http://***@host/a.jsonl)");
    }

    #[test]
    fn an_error_is_moved_to_another_place() {
        let e = Error::data("NullKey", "column `id` is null").at("part", 2).relocated("a.jsonl", 7);
        assert_eq!(e.to_string(), "NullKey: column `id` is null (a.jsonl, row 7)");
        assert_eq!((e.file(), e.row()), (Some("a.jsonl"), Some(7)));
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
