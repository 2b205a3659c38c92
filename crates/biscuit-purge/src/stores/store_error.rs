use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use biscuit_core::{Error, codes};

/// Converts an error of `object_store` to an [`Error`]. The kind is `Denied` if rights are missing, `Data` with the
/// code `NotFound` if the object does not exist, and `Unavailable` for everything unknown, which the store has
/// already retried.
///
/// The message is ``cannot <operation> `<place>` ``, so `operation` is a verb such as `read`.
pub fn store_error(operation: &str, place: impl Display, e: object_store::Error) -> Error {
    use object_store::Error as E;
    let code = match &e {
        E::NotFound { .. } => codes::NOT_FOUND,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => codes::DENIED,
        E::AlreadyExists { .. } | E::Precondition { .. } => codes::CONFLICT,
        E::NotSupported { .. } | E::NotImplemented { .. } => codes::NOT_SUPPORTED,
        E::InvalidPath { .. } => codes::INVALID_PATH,
        _ => match io_kind(&e) {
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => codes::DENIED,
            Some(io::ErrorKind::NotADirectory) => codes::NOT_A_FOLDER,
            Some(io::ErrorKind::InvalidFilename) => codes::NAME_TOO_LONG,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => codes::STORAGE_FULL,
            // `object_store` has no error for a missing bucket, which running again does not repair.
            _ if mentions_code(&e, "NoSuchBucket") => codes::NO_SUCH_BUCKET,
            _ => codes::STORE_UNAVAILABLE,
        },
    };
    let what_to_do = match code {
        codes::NOT_A_FOLDER => ": a file has the name of one of its folders; move that file away",
        codes::NAME_TOO_LONG => ": a name in the path is too long for the file system",
        codes::STORAGE_FULL => ": the disk is full; free space and run again",
        _ => "",
    };
    let message = format!("cannot {operation} `{place}`{what_to_do}");
    Error::new(code, message).with_plain_source(e)
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
fn mentions_code(e: &(dyn StdError + 'static), code: &str) -> bool {
    let mut at = Some(e);
    while let Some(e) = at {
        if e.to_string().contains(code) {
            return true;
        }
        at = e.source();
    }
    false
}
