//! Listing and planning of a million objects, in a separate process whose memory is measured.

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use biscuit_core::Instant;
use biscuit_purge::{ListedObject, ListedVersions, ObjectListing, PurgeRules, PurgeStore, S3Store};

const OBJECTS: usize = 1_000_000;
const PAGE: usize = 1_000;

/// A bucket that lists a million objects under one prefix without storing them.
#[derive(Debug, Clone)]
struct Many;

fn key(n: usize) -> String {
    format!("lake/events/year=2024/month=02/part-{n:08}-5a1c1e2d-0000-4000-8000-000000000000-c000.snappy.parquet")
}

impl HttpConnector for Many {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (_, token) = request.uri().split_once("continuation-token=").unwrap_or(("", "0"));
        let from: usize = token.split('&').next().and_then(|n| n.parse().ok()).expect("the value is a number");
        let to = (from + PAGE).min(OBJECTS);
        let mut body = "<ListBucketResult>".to_owned();
        for n in from..to {
            let (key, etag, day) = (key(n), etag(n), 1 + n % 28);
            body.push_str(&format!(
                "<Contents><Key>{key}</Key><Size>{n}</Size><ETag>&quot;{etag}&quot;</ETag><LastModified>2024-02-{day:02}T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            ));
        }
        let more = to < OBJECTS;
        body.push_str(&format!(
            "<IsTruncated>{more}</IsTruncated><NextContinuationToken>{to}</NextContinuationToken></ListBucketResult>"
        ));
        HttpConnectorFuture::ready(Ok(HttpResponse::new(
            200.try_into().expect("the status is complete"),
            SdkBody::from(body),
        )))
    }
}

/// Returns the peak memory of the process in bytes, if the operating system reports it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn etag(n: usize) -> String {
    format!("{:032x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn check(listing: ObjectListing, objects: usize) {
    let cutoff: Instant = "2024-02-15".parse().expect("the day is valid");
    let (len, memory) = (listing.len(), listing.memory());
    let plan = PurgeRules::older_than("lake/events", cutoff, cutoff).plan(listing).expect("the plan is valid");
    let summary = plan.summary();
    assert_eq!(len, objects);
    assert_eq!(summary.objects + summary.kept["after-listing"], objects as u64);
    assert_eq!(plan.deletes().next().expect("some objects are old").key(), key(0));
    println!("{memory} bytes of memory for the listing, {:?} at the peak of the process", peak());
    assert!(memory < 100 * objects, "{memory} bytes of memory for the listing of {objects} objects");
}

#[test]
fn object_in_a_listing_takes_less_memory_than_its_key() {
    let object = |n: usize| {
        let mut object = ListedObject::new(key(n), n as u64, Some(format!("\"{}\"", etag(n))));
        object.modified = format!("2024-02-{:02}", 1 + n % 28).parse().ok();
        object.storage_class = Some("STANDARD".to_owned());
        object
    };
    check((0..20_000).map(object).collect(), 20_000);
}

#[tokio::test]
#[ignore = "takes a minute without optimisation: cargo test --release -p biscuit-purge --features s3 --test million -- --ignored"]
async fn million_keys_are_listed_and_planned_in_less_than_200_megabytes() {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .endpoint_url("http://127.0.0.1:9")
        .force_path_style(true)
        .http_client(http_client_fn(|_, _| SharedHttpConnector::new(Many)))
        .build();
    let store = S3Store::new(aws_sdk_s3::Client::from_conf(config), "b");
    check(store.list("lake/events", ListedVersions::Current).await.expect("the listing succeeds"), OBJECTS);
    if let Some(peak) = peak() {
        assert!(peak < 200_000_000, "{peak} bytes");
    }
}
