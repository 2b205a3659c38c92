//! Counts the requests of clients of the AWS SDK.

use std::sync::Arc;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use crate::requests::counts::{RequestCounters, add_to};

/// Interceptor that counts the requests of an AWS SDK client. Each attempt counts, including retries.
#[derive(Debug)]
pub(crate) struct CountRequests(Arc<RequestCounters>);

impl CountRequests {
    pub(crate) fn new(counts: Arc<RequestCounters>) -> Self {
        Self(counts)
    }
}

impl Intercept for CountRequests {
    fn name(&self) -> &'static str {
        "CountRequests"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let counts = &self.0;
        let counter = match config.load::<Metadata>().map_or("", Metadata::name) {
            name if name.starts_with("List") => &counts.list,
            name if name.starts_with("Delete") || name.starts_with("Abort") => &counts.delete,
            name if name.starts_with("Head") => &counts.head,
            name if name.starts_with("Get") => &counts.get,
            name if name.starts_with("Copy") => &counts.copy,
            _ => &counts.put,
        };
        add_to(counter, 1);
        Ok(())
    }
}

#[cfg(all(test, feature = "purge"))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::time::Duration;

    use aws_sdk_s3::Client;
    use aws_sdk_s3::config::retry::RetryConfig;
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    use aws_sdk_s3::types::{Delete, ObjectIdentifier};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};

    use super::*;
    use crate::requests::counts::{RequestCounts, RequestsByKind};

    /// Fake of S3 inside the process. It answers with the given statuses, and then with 200.
    #[derive(Debug, Clone, Default)]
    struct FakeS3(Arc<Mutex<VecDeque<u16>>>);

    impl HttpConnector for FakeS3 {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let status = self.0.lock().expect("no holder of this lock panics").pop_front().unwrap_or(200);
            let status = status.try_into().expect("the status is valid");
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, "<Result/>".into())))
        }
    }

    fn client(statuses: &[u16]) -> (Client, Arc<RequestCounters>) {
        let counters = Arc::new(RequestCounters::default());
        let fake = FakeS3(Arc::new(Mutex::new(statuses.iter().copied().collect())));
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url("http://127.0.0.1:9")
            .force_path_style(true)
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(fake.clone())))
            .interceptor(CountRequests::new(counters.clone()))
            .build();
        (Client::from_conf(config), counters)
    }

    fn requests(counters: &RequestCounters) -> RequestsByKind {
        let RequestCounts { requests, bytes_read, bytes_written } = counters.counts();
        assert_eq!((bytes_read, bytes_written), (0, 0), "bytes are counted by stores only");
        requests
    }

    #[tokio::test]
    async fn calls_of_the_sdk_count_by_their_kind() {
        let (s3, counters) = client(&[]);
        let id = ObjectIdentifier::builder().key("k").build().unwrap();
        let ids = Delete::builder().objects(id).build().unwrap();
        // The answers are not those of S3, so some calls fail after their request.
        drop(s3.get_object().bucket("b").key("k").send().await);
        drop(s3.head_object().bucket("b").key("k").send().await);
        drop(s3.list_objects_v2().bucket("b").send().await);
        drop(s3.list_object_versions().bucket("b").send().await);
        drop(s3.delete_object().bucket("b").key("k").send().await);
        drop(s3.delete_objects().bucket("b").delete(ids).send().await);
        drop(s3.abort_multipart_upload().bucket("b").key("k").upload_id("u").send().await);
        drop(s3.copy_object().bucket("b").key("k").copy_source("b/j").send().await);
        drop(s3.put_object().bucket("b").key("k").send().await);
        drop(s3.create_multipart_upload().bucket("b").key("k").send().await);
        let counted = RequestsByKind { get: 1, head: 1, put: 2, list: 2, delete: 3, copy: 1 };
        assert_eq!(requests(&counters), counted);
    }

    #[tokio::test]
    async fn retries_count() {
        let (s3, counters) = client(&[503, 503]);
        s3.put_object().bucket("b").key("k").send().await.unwrap();
        assert_eq!(requests(&counters), RequestsByKind { put: 3, ..RequestsByKind::default() });
    }
}
