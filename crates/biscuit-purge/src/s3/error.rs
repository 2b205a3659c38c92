use std::error::Error as StdError;
use std::fmt::Display;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use biscuit_core::{Error, ErrorKind};

use crate::store::{DeleteFailure, DeleteOutcome, KeptReason};

/// Returns the kind and the code of an error for a code of S3, and whether another attempt may succeed.
fn meaning(code: &str) -> (ErrorKind, &'static str, bool) {
    match code {
        "SlowDown"
        | "ServiceUnavailable"
        | "InternalError"
        | "RequestTimeout"
        | "OperationAborted"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "BandwidthLimitExceeded"
        | "ConditionalRequestConflict" => (ErrorKind::Unavailable, "StoreUnavailable", true),
        "NoSuchBucket" => (ErrorKind::Denied, "NoSuchBucket", false),
        "NoSuchKey" | "NotFound" | "NoSuchVersion" => (ErrorKind::Data, "NotFound", false),
        "PreconditionFailed" => (ErrorKind::Conflict, "Conflict", false),
        "NotImplemented" | "MethodNotAllowed" => (ErrorKind::Denied, "NotSupported", false),
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "AllAccessDisabled"
        | "InvalidObjectState"
        | "AccountProblem"
        | "InvalidToken" => (ErrorKind::Denied, "Denied", false),
        // An unknown code means that S3 found the request wrong, and it would be wrong again.
        _ => (ErrorKind::Denied, "Refused", false),
    }
}

/// Returns the outcome for the error of a single object in the answer to a batch.
pub(super) fn answer(code: &str, message: &str, place: &str) -> DeleteOutcome {
    match code {
        "PreconditionFailed" => DeleteOutcome::Kept(KeptReason::Changed),
        "NoSuchKey" | "NoSuchVersion" | "NotFound" => DeleteOutcome::Absent,
        _ => {
            let (kind, name, again) = meaning(code);
            let error = Error::new(kind, name, format!("cannot delete `{place}`: {code}: {message}"));
            DeleteOutcome::Failed(DeleteFailure { code: code.to_owned(), error, again })
        }
    }
}

/// Converts the error of a whole request. The message contains the code, the text and the request id of S3.
pub(super) fn failure<E>(operation: &str, place: impl Display, e: SdkError<E>) -> DeleteFailure
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    let service = e.as_service_error();
    let code = service.and_then(|e| e.code()).unwrap_or("").to_owned();
    let (kind, name, again) = match &e {
        SdkError::ServiceError(_) if !code.is_empty() => match meaning(&code) {
            (_, "Refused", _) if e.raw_response().is_some_and(|r| r.status().is_server_error()) => {
                (ErrorKind::Unavailable, "StoreUnavailable", true)
            }
            known => known,
        },
        SdkError::ConstructionFailure(_) => (ErrorKind::Denied, "NoCredentials", false),
        // The request or its answer was lost on the way.
        _ => (ErrorKind::Unavailable, "StoreUnavailable", true),
    };
    let mut message = format!("cannot {operation} `{place}`");
    for (before, part) in [(": ", Some(code.as_str())), (": ", service.and_then(|e| e.message()))] {
        part.filter(|p| !p.is_empty()).into_iter().for_each(|p| message.push_str(&format!("{before}{p}")));
    }
    if let Some(id) = e.request_id() {
        message.push_str(&format!(" (request {id})"));
    }
    let code = if code.is_empty() { name.to_owned() } else { code };
    DeleteFailure { code, error: Error::new(kind, name, message).with_plain_source(e), again }
}

/// Converts the error of a whole request to an [`Error`].
pub(super) fn s3_error<E>(operation: &str, place: impl Display, e: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    failure(operation, place, e).error
}
