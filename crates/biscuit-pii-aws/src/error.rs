use std::error::Error as StdError;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use biscuit_core::{Error, ErrorKind};

/// What a code of a service means to a job.
fn meaning(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "ResourceNotFoundException" | "NotFoundException" => (ErrorKind::Usage, "NotThere"),
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
        | "ReplicatedWriteConflictException" => (ErrorKind::Unavailable, "ServiceUnavailable"),
        // What a service finds wrong with a request is wrong with the next one, too: rights, keys, settings.
        _ => (ErrorKind::Denied, "Refused"),
    }
}

/// What an error of a service says of itself.
pub(crate) struct ServiceError<'a> {
    pub(crate) code: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) request: Option<&'a str>,
}

/// An error of a request. Messages of services do not quote values; keys of the table are keyed hashes.
pub(crate) fn service_error<E>(doing: &str, said: &ServiceError<'_>, e: &SdkError<E, HttpResponse>) -> Error
where
    E: StdError + Send + Sync + 'static,
{
    let code = said.code.unwrap_or_default();
    let (kind, name) = match e {
        SdkError::ServiceError(_) if !code.is_empty() => meaning(code),
        SdkError::ConstructionFailure(_) => (ErrorKind::Denied, "NoCredentials"),
        // It did not come through, or its answer did not.
        _ => (ErrorKind::Unavailable, "ServiceUnavailable"),
    };
    let mut message = format!("cannot {doing}");
    for part in [Some(code), said.message].into_iter().flatten().filter(|part| !part.is_empty()) {
        message.push_str(&format!(": {part}"));
    }
    if code.is_empty() {
        // Why it did not come through is in its causes, none of which has what was sent.
        let mut cause = e.source();
        while let Some(e) = cause {
            message.push_str(&format!(": {e}"));
            cause = e.source();
        }
    }
    if let Some(id) = said.request {
        message.push_str(&format!(" (request {id})"));
    }
    Error::new(kind, name, message)
}

/// The same for the errors of one client, whose traits are its own.
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
