//! The error type of all Biscuit crates.
//!
//! Invariant: no value of a row reaches `Display`, `Debug` or `source()`. Values are only in the details and in
//! causes that may quote them, which have their own accessors.

use std::error::Error as StdError;
use std::fmt;

use crate::{ErrorCode, ErrorKind, codes, mask_secrets};

/// Result type of all Biscuit crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of all Biscuit crates: a listed code with its kind to act on, a message, and a cause.
///
/// ```
/// use biscuit_core::{Error, ErrorKind, codes};
///
/// let e = Error::new(codes::NOT_TEXT, "column `id` is binary").at("changes/a.jsonl", 7);
/// assert!(e.is(codes::NOT_TEXT));
/// assert_eq!(e.kind(), ErrorKind::Usage);
/// assert_eq!(e.to_string(), "NotText: column `id` is binary (changes/a.jsonl, row 7)");
/// assert_eq!((e.file(), e.row()), (Some("changes/a.jsonl"), Some(7)));
/// ```
pub struct Error(Box<ErrorParts>);

struct ErrorParts {
    code: ErrorCode,
    message: String,
    /// Offset in `message` at which the first place (file and row) begins, so that [`Error::relocated`] can replace
    /// it.
    place: Option<usize>,
    details: Vec<(&'static str, String)>,
    column: Option<String>,
    file: Option<String>,
    row: Option<u64>,
    source: Option<ErrorSource>,
}

type BoxedCause = Box<dyn StdError + Send + Sync>;

/// Cause of an error, by whether its message may quote values of rows.
enum ErrorSource {
    /// The message quotes no values of rows.
    Plain(BoxedCause),
    /// The message may quote values of rows.
    Quoting(BoxedCause),
}

impl Error {
    /// Creates an error with a listed code, which decides its kind. The message names columns and files, never values.
    /// Secrets in the message, such as passwords of URLs, are masked.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let (message, details) = (mask_text(message.into()), Vec::new());
        let inner =
            ErrorParts { code, message, place: None, details, column: None, file: None, row: None, source: None };
        Self(Box::new(inner))
    }

    /// Creates an error for a defect of Biscuit itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(codes::INTERNAL, message)
    }

    /// Adds a cause whose message may quote values of rows, such as an error of an engine, a decoder or a parser. The
    /// cause is not in the message, in `Debug` or in [`source`](StdError::source); only
    /// [`quoting_source`](Self::quoting_source) returns it. An [`Error`] and an error of the operating system are
    /// known to be [plain](Self::with_plain_source) and are treated so.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        // An error of the family hides its own quoting cause, and an error of the operating system has only a number.
        let of_the_system = source.downcast_ref::<std::io::Error>().is_some_and(|e| e.raw_os_error().is_some());
        let plain = source.is::<Self>() || of_the_system;
        self.0.source = Some(if plain { ErrorSource::Plain(source) } else { ErrorSource::Quoting(source) });
        self
    }

    /// Adds a cause whose message quotes no values of rows: an error of a store, a service or the operating system.
    /// Reports that walk [`source`](StdError::source) print it. [`mask_secrets`] masks secrets in the URLs of its
    /// `Debug` text.
    #[must_use]
    pub fn with_plain_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(ErrorSource::Plain(source.into()));
        self
    }

    /// Adds a named detail, which may contain a key or a value of a row. Details are shown only if values may be
    /// shown.
    #[must_use]
    pub fn with_detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.details.push((name, value.into()));
        self
    }

    /// Replaces the value of each detail by the result of `f`, for places where values must not be shown even on
    /// request.
    #[must_use]
    pub fn map_details(mut self, f: impl Fn(&str) -> String) -> Self {
        self.0.details.iter_mut().for_each(|(_, value)| *value = f(value));
        self
    }

    /// Sets the column that the error is about. The message should already name it.
    #[must_use]
    pub fn with_column(mut self, column: impl Into<String>) -> Self {
        self.0.column = Some(column.into());
        self
    }

    /// Appends the place in the input to the message: the file, and the row or line, counted from 1.
    #[must_use]
    pub fn at(mut self, file: impl fmt::Display, row: u64) -> Self {
        self.append_place(&format!(" ({file}, row {row})"));
        (self.0.file, self.0.row) = (Some(file.to_string()), Some(row));
        self
    }

    /// Replaces the place of the error by this one. Use it if the error was found in a part of the input with its own
    /// row numbers, and its place in the whole input is known only later.
    #[must_use]
    pub fn relocated(mut self, file: impl fmt::Display, row: u64) -> Self {
        if let Some(place) = self.0.place.take() {
            self.0.message.truncate(place);
        }
        self.at(file, row)
    }

    fn append_place(&mut self, place: &str) {
        self.0.place.get_or_insert(self.0.message.len());
        self.0.message.push_str(&mask_secrets(place));
    }

    /// Appends the file to the message, if the row is not known.
    #[must_use]
    pub fn in_file(mut self, file: impl fmt::Display) -> Self {
        self.append_place(&format!(" ({file})"));
        self.0.file = Some(file.to_string());
        self
    }

    /// Returns a copy without the cause, for several callers that wait for the operation that failed once.
    #[must_use]
    pub fn without_source(&self) -> Self {
        // A cause is a boxed `dyn Error` and cannot be cloned.
        let i = &self.0;
        Self(Box::new(ErrorParts {
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

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.code.kind()
    }

    /// Returns the name of the code, such as `NullKey`, for reports. Programs ask with [`is`](Self::is).
    pub fn code(&self) -> &'static str {
        self.0.code.name()
    }

    /// Returns the code, for an error that replaces this one and for `match`.
    pub fn error_code(&self) -> ErrorCode {
        self.0.code
    }

    /// Returns whether the error has this code.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.0.code == code
    }

    /// Returns the message without the code.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the column that the error is about, if there is one.
    pub fn column(&self) -> Option<&str> {
        self.0.column.as_deref()
    }

    /// Returns the input file that the error is about, if there is one.
    pub fn file(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// Returns the row or line of that file, counted from 1, if it is known.
    pub fn row(&self) -> Option<u64> {
        self.0.row
    }

    /// Returns the cause if its message may quote values of rows. Show it only to a reader who may see values.
    pub fn quoting_source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(ErrorSource::Quoting(e)) => Some(e.as_ref()),
            _ => None,
        }
    }

    /// Returns the details: names and values, which may contain data of rows.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.0.details
    }
}

// Avoids a copy of the message in the usual case, in which it contains no secret.
fn mask_text(text: String) -> String {
    match mask_secrets(&text) {
        std::borrow::Cow::Borrowed(_) => text,
        std::borrow::Cow::Owned(masked) => masked,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.name(), self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind())
            .field("code", &self.code())
            .field("message", &self.0.message)
            .field("source", &StdError::source(self).map(|e| mask_text(format!("{e:?}"))))
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

    const NULL_KEY: ErrorCode = ErrorCode::new("NullKey", ErrorKind::Data, "A key is null.", "Correct the record.");

    #[test]
    fn details_are_not_in_display_or_debug() {
        let e = Error::new(NULL_KEY, "column `id` is null").with_detail("key", "secret-42");
        assert!(!e.to_string().contains("secret-42") && !format!("{e:?}").contains("secret-42"));
        assert_eq!(e.details(), [("key", "secret-42".to_owned())]);
    }

    #[test]
    fn cause_that_may_quote_values_is_reached_only_by_quoting_source() {
        let quoting = || std::io::Error::other("cannot cast 'secret-42'");
        let e = Error::new(NULL_KEY, "the rows cannot be read").with_source(quoting());
        assert!(StdError::source(&e).is_none() && !format!("{e:?} {e}").contains("secret-42"));
        assert_eq!(e.quoting_source().map(ToString::to_string).as_deref(), Some("cannot cast 'secret-42'"));
        let plain =
            Error::new(codes::NOT_FOUND, "cannot read `a`").with_plain_source(std::io::Error::other("no such file"));
        assert!(plain.quoting_source().is_none() && format!("{plain:?}").contains("no such file"));
    }

    #[test]
    fn passwords_of_urls_are_masked_in_messages_and_places() {
        let e = Error::new(codes::INVALID_ARGUMENTS, "`s3://me:pw@b/x` cannot be used")
            .in_file("http://me:pw@host/a.jsonl");
        assert_eq!(e.message(), "`s3://***@b/x` cannot be used (http://***@host/a.jsonl)");
    }

    #[test]
    fn relocated_error_has_only_the_new_place() {
        let e = Error::new(NULL_KEY, "column `id` is null").at("part", 2).relocated("a.jsonl", 7);
        assert_eq!(e.to_string(), "NullKey: column `id` is null (a.jsonl, row 7)");
        assert_eq!((e.file(), e.row()), (Some("a.jsonl"), Some(7)));
    }

    #[test]
    fn error_has_the_size_of_a_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
