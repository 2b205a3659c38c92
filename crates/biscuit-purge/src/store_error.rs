use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use biscuit_core::{Error, ErrorKind};

/// An object store's error as an error of the family: `Denied` where rights are missing, `NotFound` where the object is
/// not there, `Unavailable` for the rest, since the store has retried what it could.
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
            // object_store has no error of its own for it, and running again does not help.
            _ if says(&e, "NoSuchBucket") => (ErrorKind::Denied, "NoSuchBucket"),
            _ => (ErrorKind::Unavailable, "StoreUnavailable"),
        },
    };
    let what_to_do = match code {
        "NotAFolder" => ": a file has the name of one of its folders; move that file away",
        "NameTooLong" => ": a name in it is too long for the file system",
        "StorageFull" => ": the disk is full; run again when there is room",
        _ => "",
    };
    Error::new(kind, code, format!("cannot {operation} `{place}`{what_to_do}")).with_plain_source(e)
}

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

fn says(e: &(dyn StdError + 'static), code: &str) -> bool {
    let mut at = Some(e);
    while let Some(e) = at {
        if e.to_string().contains(code) {
            return true;
        }
        at = e.source();
    }
    false
}
