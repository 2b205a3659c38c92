use std::error::Error as StdError;
use std::fmt::Display;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use biscuit_core::{Error, ErrorCode, codes};

use crate::stores::store::{DeleteFailure, DeleteOutcome, KeptReason};

/// Returns the code of an error for a code of S3, and whether another attempt may succeed.
fn error_code_of(code: &str) -> (ErrorCode, bool) {
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
        | "ConditionalRequestConflict" => (codes::STORE_UNAVAILABLE, true),
        "NoSuchBucket" => (codes::NO_SUCH_BUCKET, false),
        "NoSuchKey" | "NotFound" | "NoSuchVersion" => (codes::NOT_FOUND, false),
        "PreconditionFailed" => (codes::CONFLICT, false),
        "NotImplemented" | "MethodNotAllowed" => (codes::NOT_SUPPORTED, false),
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "AllAccessDisabled"
        | "InvalidObjectState"
        | "AccountProblem"
        | "InvalidToken" => (codes::DENIED, false),
        // An unknown code means that S3 found the request wrong, and it would be wrong again.
        _ => (codes::REFUSED, false),
    }
}

/// Returns the outcome for the error of a single object in the answer to a batch.
pub(super) fn object_outcome(code: &str, message: &str, place: &str) -> DeleteOutcome {
    match code {
        "PreconditionFailed" => DeleteOutcome::Kept(KeptReason::Changed),
        "NoSuchKey" | "NoSuchVersion" | "NotFound" => DeleteOutcome::Absent,
        _ => {
            let (listed, again) = error_code_of(code);
            let message = format!("cannot delete `{place}`: {code}: {message}");
            let error = Error::new(listed, message);
            DeleteOutcome::Failed(DeleteFailure { code: code.to_owned(), error, again })
        }
    }
}

/// Converts the error of a whole request. The message contains the code, the text and the request id of S3.
pub(super) fn request_failure<E>(operation: &str, place: impl Display, e: SdkError<E>) -> DeleteFailure
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    let service = e.as_service_error();
    let code = service.and_then(|e| e.code()).unwrap_or("").to_owned();
    let (listed, again) = match &e {
        SdkError::ServiceError(_) if !code.is_empty() => match error_code_of(&code) {
            (codes::REFUSED, _) if e.raw_response().is_some_and(|r| r.status().is_server_error()) => {
                (codes::STORE_UNAVAILABLE, true)
            }
            known => known,
        },
        SdkError::ConstructionFailure(_) => (codes::NO_CREDENTIALS, false),
        // The request or its answer was lost on the way.
        _ => (codes::STORE_UNAVAILABLE, true),
    };
    let mut message = format!("cannot {operation} `{place}`");
    for (before, part) in [(": ", Some(code.as_str())), (": ", service.and_then(|e| e.message()))] {
        part.filter(|p| !p.is_empty()).into_iter().for_each(|p| message.push_str(&format!("{before}{p}")));
    }
    if let Some(id) = e.request_id() {
        message.push_str(&format!(" (request {id})"));
    }
    let code = if code.is_empty() { listed.name().to_owned() } else { code };
    DeleteFailure { code, error: Error::new(listed, message).with_plain_source(e), again }
}

/// Converts the error of a whole request to an [`Error`].
pub(super) fn s3_error<E>(operation: &str, place: impl Display, e: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    request_failure(operation, place, e).error
}
