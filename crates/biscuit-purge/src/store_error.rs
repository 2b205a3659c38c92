use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use biscuit_core::{Error, ErrorKind};

/// Converts an error of `object_store` to an [`Error`]. The kind is `Denied` if rights are missing, `Data` with the
/// code `NotFound` if the object does not exist, and `Unavailable` for everything unknown, which the store has
/// already retried.
///
/// The message is ``cannot <operation> `<place>` ``, so `operation` is a verb such as `read`.
pub fn store_error(operation: &str, place: impl Display, e: object_store::Error) -> Error {
    use object_store::Error as E;
    let (kind, code) = match &e {
        E::NotFound { .. } => (ErrorKind::Data, "NotFound"),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (ErrorKind::Denied, "Denied"),
        E::AlreadyExists { .. } | E::Precondition { .. } => (ErrorKind::Conflict, "Conflict"),
        E::NotSupported { .. } | E::NotImplemented { .. } => (ErrorKind::Denied, "NotSupported"),
        E::InvalidPath { .. } => (ErrorKind::Usage, "InvalidPath"),
        _ => match io_kind(&e) {
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => (ErrorKind::Denied, "Denied"),
            Some(io::ErrorKind::NotADirectory) => (ErrorKind::Denied, "NotAFolder"),
            Some(io::ErrorKind::InvalidFilename) => (ErrorKind::Data, "NameTooLong"),
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => (ErrorKind::Unavailable, "StorageFull"),
            // `object_store` has no error for a missing bucket, which running again does not repair.
            _ if mentions(&e, "NoSuchBucket") => (ErrorKind::Denied, "NoSuchBucket"),
            _ => (ErrorKind::Unavailable, "StoreUnavailable"),
        },
    };
    let what_to_do = match code {
        "NotAFolder" => ": a file has the name of one of its folders; move that file away",
        "NameTooLong" => ": a name in the path is too long for the file system",
        "StorageFull" => ": the disk is full; free space and run again",
        _ => "",
    };
    Error::new(kind, code, format!("cannot {operation} `{place}`{what_to_do}")).with_plain_source(e)
}

/// Finds the first I/O error in the chain of sources.
fn io_kind(e: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut at = Some(e);
    while let Some(e) = at {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        at = e.source();
    }
    None
}

/// Whether the text of an error in the chain of sources contains a code.
fn mentions(e: &(dyn StdError + 'static), code: &str) -> bool {
    let mut at = Some(e);
    while let Some(e) = at {
        if e.to_string().contains(code) {
            return true;
        }
        at = e.source();
    }
    false
}
