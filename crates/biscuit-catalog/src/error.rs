use std::error::Error as StdError;

use aws_sdk_glue::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_glue::operation::RequestId;
use aws_sdk_glue::types::ErrorDetail;
use biscuit_core::{Error, ErrorKind};

use crate::table::TableName;

/// What a code of Glue means to a job.
fn meaning(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "EntityNotFoundException" => (ErrorKind::Usage, "NoSuchTable"),
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "GlueEncryptionException" => (ErrorKind::Denied, "Denied"),
        "InternalServiceException"
        | "OperationTimeoutException"
        | "ThrottlingException"
        | "ResourceNumberLimitExceededException"
        | "ConcurrentModificationException"
        | "ResourceNotReadyException" => (ErrorKind::Unavailable, "CatalogUnavailable"),
        // What the catalog finds wrong with a request is wrong with the next one, too.
        _ => (ErrorKind::Denied, "Refused"),
    }
}

/// An error of a whole request.
pub(crate) fn glue_error<E>(operation: &str, table: &TableName, e: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    let service = e.as_service_error();
    let code = service.and_then(|e| e.code()).unwrap_or_default().to_owned();
    let (kind, name) = match &e {
        SdkError::ServiceError(_) if !code.is_empty() => meaning(&code),
        SdkError::ConstructionFailure(_) => (ErrorKind::Denied, "NoCredentials"),
        // It did not come through, or its answer did not.
        _ => (ErrorKind::Unavailable, "CatalogUnavailable"),
    };
    let mut message = format!("cannot {operation} `{table}`");
    for part in [Some(code.as_str()), service.and_then(|e| e.message())] {
        part.filter(|p| !p.is_empty()).into_iter().for_each(|p| message.push_str(&format!(": {p}")));
    }
    if let Some(id) = e.request_id() {
        message.push_str(&format!(" (request {id})"));
    }
    Error::new(kind, name, message).with_plain_source(e)
}

/// Why a partition was not dropped; none if the catalog does not have it.
pub(crate) fn partition_error(table: &TableName, values: &[String], detail: Option<ErrorDetail>) -> Option<Error> {
    let detail = detail.unwrap_or_else(|| ErrorDetail::builder().build());
    let code = detail.error_code().unwrap_or("no reason given");
    if code == "EntityNotFoundException" {
        return None;
    }
    let (kind, name) = meaning(code);
    let reason = detail.error_message().map(|m| format!(": {m}")).unwrap_or_default();
    Some(Error::new(kind, name, format!("cannot drop the partition {values:?} of `{table}`: {code}{reason}")))
}
