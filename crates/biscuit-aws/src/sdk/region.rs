//! Endpoint of S3 and region of a bucket.

use std::time::Duration;

use biscuit_core::{Error, Result};

use crate::codes;

/// Timeout of the request for the region of a bucket.
const PATIENCE: Duration = Duration::from_secs(20);

/// Endpoint of the environment that is only for S3. aws-config reads the general one (`AWS_ENDPOINT_URL`).
pub(crate) fn s3_endpoint() -> Option<String> {
    std::env::var("AWS_ENDPOINT_URL_S3").ok().filter(|url| !url.is_empty())
}

/// Looks up the region of a bucket. A store reports the region in the header `x-amz-bucket-region` of the response to
/// `HeadBucket`, also if the request is not permitted, so no credentials are needed (`HeadBucket` in the API
/// reference of S3). Without an endpoint, the request is sent to AWS.
///
/// # Errors
/// `NoRegion` if there is no response, or if the response does not contain a region.
pub async fn bucket_region(bucket: &str, endpoint: Option<&str>) -> Result<String> {
    let url = match endpoint {
        Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        None => format!("https://{bucket}.s3.amazonaws.com"),
    };
    let unknown = || {
        let message = format!(
            "no region is configured, and the region of the bucket `{bucket}` cannot be determined; set the region or check the bucket name"
        );
        Error::new(codes::NO_REGION, message)
    };
    // A redirect to another region also contains the header, so redirects are not followed.
    let asked = async {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()?;
        client.head(&url).send().await
    };
    let answer = asked.await.map_err(|e| unknown().with_plain_source(e))?;
    let region = answer.headers().get("x-amz-bucket-region").and_then(|r| r.to_str().ok());
    region.map(str::to_owned).ok_or_else(unknown)
}
