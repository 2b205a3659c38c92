//! Requests as Glue receives them, and the results of its responses.

use std::sync::{Arc, Mutex};

use aws_sdk_glue::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use biscuit_catalog::{Catalog, CatalogPartition, TableName};
use biscuit_core::ErrorKind;
use serde_json::{Value, json};

type Answers = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

/// Fake of Glue inside the process, with a log of the requests.
#[derive(Clone)]
struct Glue {
    answer: Arc<Answers>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl std::fmt::Debug for Glue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Glue")
    }
}

impl HttpConnector for Glue {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.strip_prefix("AWSGlue.").unwrap_or(target).to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        let (status, answer) = (self.answer)(&operation, &body);
        self.asked.lock().expect("no other test panicked while it had the lock").push((operation, body));
        let status = status.try_into().expect("the status is valid");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, answer.to_string().into())))
    }
}

impl Glue {
    fn new(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), asked: Arc::default() }
    }

    fn catalog(&self) -> Catalog {
        let glue = self.clone();
        let http = http_client_fn(move |_, _| SharedHttpConnector::new(glue.clone()));
        let config = aws_sdk_glue::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url("http://127.0.0.1:9")
            .http_client(http)
            .build();
        Catalog::new(aws_sdk_glue::Client::from_conf(config))
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().expect("no other test panicked while it had the lock").clone()
    }
}

fn table() -> TableName {
    "lake.orders".parse().expect("the name is valid")
}

fn day(day: usize) -> CatalogPartition {
    CatalogPartition::new([format!("2024-02-{day:02}")], None)
}

#[tokio::test]
async fn partitions_are_listed_from_all_pages_without_column_schemas() {
    let glue = Glue::new(|_, body| {
        let page = |day: &str, next: Value| {
            let location = format!("s3://b/orders/day={day}/");
            json!({"Partitions": [{"Values": [day], "StorageDescriptor": {"Location": location}}], "NextToken": next})
        };
        match body.get("NextToken") {
            None => (200, page("2024-02-28", json!("more"))),
            Some(_) => (200, page("2024-02-29", Value::Null)),
        }
    });
    let found = glue.catalog().with_id("123456789012").partitions(&table()).await.unwrap();
    assert_eq!(found.iter().map(|p| p.values[0].as_str()).collect::<Vec<_>>(), ["2024-02-28", "2024-02-29"]);
    assert_eq!(found[1].path_in("s3://b/"), Some("orders/day=2024-02-29"));
    let asked = glue.asked();
    assert_eq!((asked.len(), asked[0].0.as_str()), (2, "GetPartitions"));
    let want = json!({
        "CatalogId": "123456789012", "DatabaseName": "lake", "TableName": "orders", "ExcludeColumnSchema": true,
    });
    assert_eq!(asked[0].1, want);
}

#[tokio::test]
async fn partitions_are_dropped_25_at_a_time_with_a_result_for_each() {
    let glue = Glue::new(|_, body| {
        let values: Vec<&Value> =
            body["PartitionsToDelete"].as_array().into_iter().flatten().map(|p| &p["Values"]).collect();
        let failed = |day: &str, code: &str| {
            let it = values.iter().find(|v| v[0] == day)?;
            Some(json!({"PartitionValues": it, "ErrorDetail": {"ErrorCode": code, "ErrorMessage": "so it is"}}))
        };
        let errors =
            [failed("2024-02-03", "EntityNotFoundException"), failed("2024-02-27", "InternalServiceException")];
        (200, json!({"Errors": errors.into_iter().flatten().collect::<Vec<_>>()}))
    });
    let days: Vec<CatalogPartition> = (1..=30).map(day).collect();
    let dropped = glue.catalog().drop_partitions(&table(), &days).await.unwrap();
    assert_eq!((dropped.dropped, dropped.absent), (28, 1));
    let (values, e) = &dropped.failed[0];
    assert_eq!((values[0].as_str(), e.code(), e.kind()), ("2024-02-27", "CatalogUnavailable", ErrorKind::Unavailable));
    assert!(e.message().contains("2024-02-27") && e.message().contains("so it is"), "{e}");
    let sizes: Vec<usize> =
        glue.asked().iter().map(|(_, body)| body["PartitionsToDelete"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(sizes, [25, 5]);
    assert_eq!(glue.catalog().drop_partitions(&table(), &[]).await.unwrap().dropped, 0);
}

#[tokio::test]
async fn glue_error_codes_map_to_kinds_and_codes() {
    for (status, code, name, kind) in [
        (400, "EntityNotFoundException", "NoSuchTable", ErrorKind::Usage),
        (400, "AccessDeniedException", "Denied", ErrorKind::Denied),
        (400, "ExpiredTokenException", "Denied", ErrorKind::Denied),
        (400, "InvalidInputException", "Refused", ErrorKind::Denied),
        (400, "OperationTimeoutException", "CatalogUnavailable", ErrorKind::Unavailable),
    ] {
        let glue = Glue::new(move |_, _| (status, json!({"__type": code, "Message": "a reason"})));
        let e = glue.catalog().partitions(&table()).await.unwrap_err();
        assert_eq!((e.code(), e.kind()), (name, kind), "{code}");
        assert!(e.message().contains("lake.orders") && e.message().contains("a reason"), "{e}");
    }
}
