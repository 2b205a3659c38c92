//! Fake AWS service that answers in this process.

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use serde_json::Value;

type Answers = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

/// Function that answers requests, and the requests so far.
#[derive(Clone)]
pub(crate) struct Service {
    answer: Arc<Answers>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

impl HttpConnector for Service {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        let (status, answer) = (self.answer)(&operation, &body);
        self.asked.lock().expect("no other test panicked while it had the lock").push((operation, body));
        let status = status.try_into().expect("the status code is valid");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, answer.to_string().into())))
    }
}

macro_rules! client {
    ($service:expr, $sdk:ident) => {{
        let service = $service.clone();
        let http = http_client_fn(move |_, _| SharedHttpConnector::new(service.clone()));
        let config = $sdk::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url("http://127.0.0.1:9")
            .http_client(http)
            .build();
        $sdk::Client::from_conf(config)
    }};
}

impl Service {
    pub(crate) fn new(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), asked: Arc::default() }
    }

    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        client!(self, aws_sdk_dynamodb)
    }

    pub(crate) fn kms(&self) -> aws_sdk_kms::Client {
        client!(self, aws_sdk_kms)
    }

    pub(crate) fn comprehend(&self) -> aws_sdk_comprehend::Client {
        client!(self, aws_sdk_comprehend)
    }

    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().expect("no other test panicked while it had the lock").clone()
    }

    /// Returns the number of requests for an operation.
    pub(crate) fn times(&self, operation: &str) -> usize {
        self.asked().iter().filter(|(of, _)| of == operation).count()
    }
}
