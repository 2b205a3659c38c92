//! Conversion of errors of the AWS SDK to [`Error`].

use std::error::Error as StdError;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use biscuit_core::codes::{NO_CREDENTIALS, REFUSED};
use biscuit_core::{Error, ErrorCode};

use crate::codes::{NO_SUCH_RESOURCE, SERVICE_UNAVAILABLE};

/// Returns the code of the error for an error code of a service.
fn error_code_of(code: &str) -> ErrorCode {
    match code {
        "ResourceNotFoundException" | "NotFoundException" => NO_SUCH_RESOURCE,
        "ThrottlingException"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TooManyRequestsException"
        | "InternalServerError"
        | "InternalServerException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "DependencyTimeoutException"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException" => SERVICE_UNAVAILABLE,
        // Other errors would occur again with the next request: permissions, keys, settings.
        _ => REFUSED,
    }
}

/// Details of an error of a service.
pub(crate) struct ServiceError<'a> {
    pub(crate) code: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) request: Option<&'a str>,
}

/// Converts the error of a request. `doing` is the failed action in the infinitive. The message contains no values:
/// messages of services do not quote them, and keys of the table are keyed hashes.
pub(crate) fn service_error<E>(doing: &str, said: &ServiceError<'_>, e: &SdkError<E, HttpResponse>) -> Error
where
    E: StdError + Send + Sync + 'static,
{
    let code = said.code.unwrap_or_default();
    let listed = match e {
        SdkError::ServiceError(_) if !code.is_empty() => error_code_of(code),
        SdkError::ConstructionFailure(_) => NO_CREDENTIALS,
        // The request or its response was lost.
        _ => SERVICE_UNAVAILABLE,
    };
    let mut message = format!("cannot {doing}");
    for part in [Some(code), said.message].into_iter().flatten().filter(|part| !part.is_empty()) {
        message.push_str(&format!(": {part}"));
    }
    if code.is_empty() {
        // The reason is in the causes, none of which contains what was sent.
        let mut cause = e.source();
        while let Some(e) = cause {
            message.push_str(&format!(": {e}"));
            cause = e.source();
        }
    }
    if let Some(id) = said.request {
        message.push_str(&format!(" (request {id})"));
    }
    Error::new(listed, message)
}

/// Calls [`service_error`] with an error of one SDK client. It is a macro since each client has its own traits.
macro_rules! failed {
    ($client:ident, $doing:expr, $e:expr) => {{
        use $client::error::ProvideErrorMetadata as _;
        use $client::operation::RequestId as _;
        let e = $e;
        let service = e.as_service_error();
        let said = $crate::error::ServiceError {
            code: service.and_then(|s| s.code()),
            message: service.and_then(|s| s.message()),
            request: e.request_id(),
        };
        $crate::error::service_error($doing, &said, &e)
    }};
}
pub(crate) use failed;
