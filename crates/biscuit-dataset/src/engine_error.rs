//! Converts errors of Parquet, Arrow and DataFusion to `biscuit_core::Error`, with messages that contain no values of
//! rows.

use std::error::Error as StdError;
use std::sync::Arc;

use biscuit_core::{CaughtPanic, Error};
use biscuit_journal::store_error;
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

use crate::codes;

/// Converts an error of the Parquet library.
///
/// An error of the store or of Biscuit inside of it is returned as such; everything else means that the file is
/// damaged. The text of the library may quote the content of the file, so it is kept as the cause and is not part of
/// the message.
pub fn parquet_error(place: &str, e: ParquetError) -> Error {
    match e {
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(e) => store_error("read", place, *e),
            Err(inner) => match inner.downcast::<Error>() {
                Ok(e) if e.file().is_none() => e.in_file(place),
                Ok(e) => *e,
                Err(inner) => unreadable_error(place, ParquetError::External(inner)),
            },
        },
        e => unreadable_error(place, e),
    }
}

fn unreadable_error(place: &str, e: ParquetError) -> Error {
    let what = match &e {
        ParquetError::EOF(_) | ParquetError::NeedMoreData(_) | ParquetError::NeedMoreDataRange(_) => {
            "it is truncated, or its lengths are wrong"
        }
        ParquetError::NYI(_) => "it uses a part of the format that is not supported",
        ParquetError::ArrowError(_) => "its columns do not have the types that it declares",
        // The text of a panic does not describe the file.
        ParquetError::External(inner) if inner.is::<CaughtPanic>() => "it is damaged",
        _ => "it is damaged, or it is not a Parquet file",
    };
    Error::new(biscuit_schema::codes::UNREADABLE_PARQUET, format!("the file cannot be read as Parquet: {what}"))
        .in_file(place)
        .with_source(e)
}

/// Converts an error of Arrow or DataFusion that happened while rows of `place` were processed.
///
/// An error of Biscuit or of a store inside of it is returned as such. Messages of the engine may quote values of
/// rows. Therefore the message here only names the kind of the error, and the error of the engine is the [quoting
/// source](Error::quoting_source).
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
        // The same error, seen by several partitions of a plan that waited for one result.
        D::Shared(inner) => match Arc::try_unwrap(inner) {
            Ok(e) => engine_error(place, e),
            Err(shared) => match find_own_error(&shared) {
                Some(e) => e.without_source(),
                None => bad_rows(place, D::Shared(shared)),
            },
        },
        e @ D::ResourcesExhausted(_) => {
            Error::new(codes::MEMORY_EXHAUSTED, format!("the memory limit is too low for {place}; raise the limit"))
                .with_source(e)
        }
        D::IoError(e) => {
            let message = format!(
                "a temporary file for {place} cannot be written or read; check the space and permissions of the temporary folder"
            );
            Error::new(codes::SPILL_FAILED, message).with_source(e)
        }
        e => bad_rows(place, e),
    }
}

/// Finds an error of Biscuit in the chain of causes.
fn find_own_error(e: &DataFusionError) -> Option<&Error> {
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
    let message = format!("cannot process {rows}{place}: {}", describe_kind(&e));
    Error::new(codes::UNREADABLE_ROWS, message).with_source(e)
}

/// Returns a description of the kind of an error, which quotes nothing.
fn describe_kind(e: &DataFusionError) -> &'static str {
    use DataFusionError as D;
    match e {
        D::ArrowError(e, _) => match e.as_ref() {
            ArrowError::CastError(_) => "a value cannot be converted to the type that was asked for",
            ArrowError::ParseError(_) => "a text cannot be converted to the type that was asked for",
            ArrowError::DivideByZero => "a division by zero",
            ArrowError::ArithmeticOverflow(_) => "the result of a calculation does not fit its type",
            ArrowError::OffsetOverflowError(_) => "texts or lists are too long for their column",
            ArrowError::MemoryError(_) => "a buffer cannot be allocated",
            ArrowError::InvalidArgumentError(_) => "a function does not accept its argument",
            ArrowError::SchemaError(_) => "columns do not have the expected types",
            _ => "a function failed for a value",
        },
        D::NotImplemented(_) => "a function or type is not supported",
        D::Plan(_) | D::SchemaError(..) => "columns do not have the expected types",
        D::Shared(e) => describe_kind(e),
        _ => "a function failed for a value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_the_engine_are_not_in_messages() {
        let canary = "SECRET-VALUE-123";
        let text = || format!("cannot cast '{canary}'");
        let arrow = |e: fn(String) -> ArrowError| DataFusionError::from(e(text()));
        let errors = [
            arrow(ArrowError::CastError),
            arrow(ArrowError::ParseError),
            arrow(ArrowError::ComputeError),
            arrow(ArrowError::InvalidArgumentError),
            arrow(ArrowError::JsonError),
            arrow(ArrowError::CsvError),
            arrow(ArrowError::ParquetError),
            DataFusionError::from(ArrowError::ExternalError(text().into())),
            DataFusionError::Execution(text()),
            DataFusionError::Internal(text()),
            DataFusionError::Plan(text()),
            DataFusionError::Execution(text()).context(text()),
            DataFusionError::Shared(Arc::new(DataFusionError::Execution(text()))),
            DataFusionError::ResourcesExhausted(text()),
            DataFusionError::External(text().into()),
            DataFusionError::from(ParquetError::General(text())),
            DataFusionError::from(ParquetError::ArrowError(text())),
            DataFusionError::IoError(std::io::Error::other(text())),
        ];
        for e in errors {
            let e = engine_error("t", e);
            assert!(!format!("{e} {e:?}").contains(canary) && StdError::source(&e).is_none(), "{e:?}");
            assert!(e.quoting_source().is_some_and(|e| e.to_string().contains(canary)), "{e:?}");
        }
    }
}
