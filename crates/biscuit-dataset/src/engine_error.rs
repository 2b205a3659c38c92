use std::error::Error as StdError;
use std::sync::Arc;

use biscuit_core::{CaughtPanic, Error, ErrorKind};
use biscuit_journal::store_error;
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

/// What a failure of the Parquet library means: a store's error stays one, anything else is a file that is damaged. The library's own
/// words may quote what is in the file; they are the cause, and not in the message.
pub fn parquet_error(place: &str, e: ParquetError) -> Error {
    match e {
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(e) => store_error("read", place, *e),
            Err(inner) => match inner.downcast::<Error>() {
                Ok(e) if e.file().is_none() => e.in_file(place),
                Ok(e) => *e,
                Err(inner) => unreadable(place, ParquetError::External(inner)),
            },
        },
        e => unreadable(place, e),
    }
}

fn unreadable(place: &str, e: ParquetError) -> Error {
    let what = match &e {
        ParquetError::EOF(_) | ParquetError::NeedMoreData(_) | ParquetError::NeedMoreDataRange(_) => {
            "it ends too early, or its lengths are wrong"
        }
        ParquetError::NYI(_) => "it uses a part of the format that is not supported",
        ParquetError::ArrowError(_) => "its columns are not of the types that it declares",
        // A panic says nothing of the file.
        ParquetError::External(inner) if inner.is::<CaughtPanic>() => "it is damaged",
        _ => "it is damaged, or not Parquet",
    };
    Error::data("UnreadableParquet", format!("the file cannot be read as Parquet: {what}"))
        .in_file(place)
        .with_source(e)
}

/// What an error of arrow or DataFusion means while rows of `place` were worked on: an error of ours or of a store in it
/// stays one. Messages of the engine quote values of rows, so that the message here says what kind of error it is and no more; the
/// engine's own is the [quoting source](Error::quoting_source).
pub fn engine_error(place: &str, e: impl Into<DataFusionError>) -> Error {
    use DataFusionError as D;
    match e.into() {
        D::ObjectStore(e) => store_error("read", place, *e),
        D::ParquetError(e) => parquet_error(place, *e),
        D::ArrowError(e, _) => match *e {
            ArrowError::ExternalError(inner) => match inner.downcast::<ParquetError>() {
                Ok(e) => parquet_error(place, *e),
                Err(inner) => match inner.downcast::<Error>() {
                    Ok(e) => *e,
                    Err(inner) => bad_rows(place, D::from(ArrowError::ExternalError(inner))),
                },
            },
            e => bad_rows(place, D::from(e)),
        },
        D::External(inner) => match inner.downcast::<Error>() {
            Ok(e) => *e,
            Err(inner) => bad_rows(place, D::External(inner)),
        },
        D::Context(_, inner) | D::Diagnostic(_, inner) => engine_error(place, *inner),
        // What several parts of a plan have waited for.
        D::Shared(inner) => match Arc::try_unwrap(inner) {
            Ok(e) => engine_error(place, e),
            Err(shared) => match own(&shared) {
                Some(e) => e.without_source(),
                None => bad_rows(place, D::Shared(shared)),
            },
        },
        e @ D::ResourcesExhausted(_) => {
            Error::usage("MemoryExhausted", format!("the memory budget does not suffice for {place}")).with_source(e)
        }
        D::IoError(e) => {
            let message = format!("a temporary file for {place} cannot be written or read");
            Error::new(ErrorKind::Unavailable, "SpillFailed", message).with_source(e)
        }
        e => bad_rows(place, e),
    }
}

/// An error of the family in one of the engine's.
fn own(e: &DataFusionError) -> Option<&Error> {
    let mut at: Option<&(dyn StdError + 'static)> = Some(e);
    while let Some(e) = at {
        if let Some(own) = e.downcast_ref::<Error>() {
            return Some(own);
        }
        at = e.source();
    }
    None
}

fn bad_rows(place: &str, e: DataFusionError) -> Error {
    let rows = if place.starts_with("the rows") { "" } else { "the rows of " };
    let message = format!("{rows}{place} cannot be worked on: {}", kind(&e));
    Error::data("UnreadableRows", message).with_source(e)
}

/// The kind of an error of the engine, in words that quote nothing.
fn kind(e: &DataFusionError) -> &'static str {
    use DataFusionError as D;
    match e {
        D::ArrowError(e, _) => match e.as_ref() {
            ArrowError::CastError(_) => "a value cannot be converted to the type that is asked for",
            ArrowError::ParseError(_) => "a text cannot be read as the type that is asked for",
            ArrowError::DivideByZero => "a division by zero",
            ArrowError::ArithmeticOverflow(_) => "the result of a calculation does not fit its type",
            ArrowError::OffsetOverflowError(_) => "texts or lists are too long for their column",
            ArrowError::MemoryError(_) => "a buffer cannot be made",
            ArrowError::InvalidArgumentError(_) => "a function does not take its argument",
            ArrowError::SchemaError(_) => "columns are not of their types",
            _ => "a function fails for a value",
        },
        D::NotImplemented(_) => "a function or type is not supported",
        D::Plan(_) | D::SchemaError(..) => "columns are not of their types",
        D::Shared(e) => kind(e),
        _ => "a function fails for a value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_quotes_is_in_no_message() {
        let canary = "SECRET-VALUE-123";
        let said = || format!("cannot cast '{canary}'");
        let arrow = |e: fn(String) -> ArrowError| DataFusionError::from(e(said()));
        let errors = [
            arrow(ArrowError::CastError),
            arrow(ArrowError::ParseError),
            arrow(ArrowError::ComputeError),
            arrow(ArrowError::InvalidArgumentError),
            arrow(ArrowError::JsonError),
            arrow(ArrowError::CsvError),
            arrow(ArrowError::ParquetError),
            DataFusionError::from(ArrowError::ExternalError(said().into())),
            DataFusionError::Execution(said()),
            DataFusionError::Internal(said()),
            DataFusionError::Plan(said()),
            DataFusionError::Execution(said()).context(said()),
            DataFusionError::Shared(Arc::new(DataFusionError::Execution(said()))),
            DataFusionError::ResourcesExhausted(said()),
            DataFusionError::External(said().into()),
            DataFusionError::from(ParquetError::General(said())),
            DataFusionError::from(ParquetError::ArrowError(said())),
            DataFusionError::IoError(std::io::Error::other(said())),
        ];
        for e in errors {
            let e = engine_error("t", e);
            assert!(!format!("{e} {e:?}").contains(canary) && StdError::source(&e).is_none(), "{e:?}");
            assert!(e.quoting_source().is_some_and(|e| e.to_string().contains(canary)), "{e:?}");
        }
    }
}
