use std::error::Error as StdError;

use aws_sdk_glue::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_glue::operation::RequestId;
use aws_sdk_glue::types::ErrorDetail;
use biscuit_core::codes::{DENIED, NO_CREDENTIALS, REFUSED};
use biscuit_core::{Error, ErrorCode};

use crate::codes::{CATALOG_UNAVAILABLE, NO_SUCH_TABLE};
use crate::table::TableName;

/// Maps an error code of Glue to the code of Biscuit.
///
/// The kinds `Usage` and `Denied` do not change if the request is sent again; `Unavailable` may.
fn error_code_of(code: &str) -> ErrorCode {
    match code {
        "EntityNotFoundException" => NO_SUCH_TABLE,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "GlueEncryptionException" => DENIED,
        "InternalServiceException"
        | "OperationTimeoutException"
        | "ThrottlingException"
        | "ResourceNumberLimitExceededException"
        | "ConcurrentModificationException"
        | "ResourceNotReadyException" => CATALOG_UNAVAILABLE,
        // All other codes describe the request itself, so that the same request fails again.
        _ => REFUSED,
    }
}

/// Converts the error of a whole request, with Glue's code, message and request id.
pub(crate) fn glue_error<E>(operation: &str, table: &TableName, e: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    let service = e.as_service_error();
    let code = service.and_then(|e| e.code()).unwrap_or_default().to_owned();
    let listed = match &e {
        SdkError::ServiceError(_) if !code.is_empty() => error_code_of(&code),
        SdkError::ConstructionFailure(_) => NO_CREDENTIALS,
        // The request did not reach Glue, or the response was lost or unreadable.
        _ => CATALOG_UNAVAILABLE,
    };
    let mut message = format!("cannot {operation} `{table}`");
    for part in [Some(code.as_str()), service.and_then(|e| e.message())] {
        part.filter(|p| !p.is_empty()).into_iter().for_each(|p| message.push_str(&format!(": {p}")));
    }
    if let Some(id) = e.request_id() {
        message.push_str(&format!(" (request {id})"));
    }
    Error::new(listed, message).with_plain_source(e)
}

/// Converts the error of one partition in a batch; `None` if the catalog does not have the partition.
pub(crate) fn partition_error(table: &TableName, values: &[String], detail: Option<ErrorDetail>) -> Option<Error> {
    let detail = detail.unwrap_or_else(|| ErrorDetail::builder().build());
    let code = detail.error_code().unwrap_or("no reason given");
    if code == "EntityNotFoundException" {
        return None;
    }
    let listed = error_code_of(code);
    let message = detail.error_message().map(|m| format!(": {m}")).unwrap_or_default();
    let message = format!("cannot drop the partition {values:?} of `{table}`: {code}{message}");
    Some(Error::new(listed, message))
}
