#![doc = include_str!("../README.md")]

mod credentials;
mod options;

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use biscuit_core::{Clock, Error, ErrorKind, Result, SystemClock, mask_secrets};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};

use crate::credentials::CredentialChain;
pub use crate::options::AwsOptions;
pub use aws_config::SdkConfig;

/// Region for S3-compatible stores that do not report one. They accept any region.
const ANY_REGION: &str = "us-east-1";
/// Timeout of the request for the region of a bucket.
const PATIENCE: Duration = Duration::from_secs(20);

/// Credentials and settings of AWS, for object_store and for clients of the AWS SDK.
#[derive(Debug, Clone)]
pub struct AwsEnvironment {
    options: AwsOptions,
    config: SdkConfig,
    credentials: Option<Arc<CredentialChain>>,
}

impl AwsEnvironment {
    /// Reads the environment, profile files, SSO, web identity, and the metadata of containers and instances, in the
    /// way of the AWS SDK. No credentials are requested yet.
    pub async fn load(options: AwsOptions) -> Self {
        Self::load_with_clock(options, Arc::new(SystemClock)).await
    }

    /// Like [`load`](Self::load), with a clock that decides when credentials are renewed.
    pub async fn load_with_clock(options: AwsOptions, clock: Arc<dyn Clock>) -> Self {
        // The HTTP client of the SDK is built here, so that its TLS uses ring.
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
                aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
        if let Some(profile) = &options.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &options.endpoint_url {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        let credentials = config.credentials_provider().map(|p| Arc::new(CredentialChain::new(p, clock)));
        Self { options, config, credentials }
    }

    /// Returns the settings for clients of the AWS SDK.
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }

    /// Opens a bucket. The region is that of the options, the environment or the profile, else the own region of the
    /// bucket.
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined, `NoCredentials` if no credential chain is
    /// configured, and `InvalidS3Settings` if object_store rejects the settings.
    pub async fn store(&self, bucket: &str) -> Result<AmazonS3> {
        let o = &self.options;
        let (region, endpoint) = self.place(bucket).await?;
        tracing::debug!(
            bucket,
            region,
            endpoint = endpoint.as_deref().map(|e| mask_secrets(e).into_owned()),
            "opening a bucket"
        );
        let chain = self.credentials.clone().ok_or_else(|| {
            Error::new(
                ErrorKind::Denied,
                "NoCredentials",
                "no source of AWS credentials is configured; set a profile, a role or the AWS_* environment variables",
            )
        })?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_credentials(chain)
            .with_virtual_hosted_style_request(!o.path_style && endpoint.is_none())
            .with_request_payer(o.request_payer);
        if let Some(endpoint) = &endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(key) = &o.sse_kms_key {
            builder = builder.with_sse_kms_encryption(key);
        }
        if o.checksum_sha256 {
            builder = builder.with_checksum_algorithm(Checksum::SHA256);
        }
        builder.build().map_err(|e| {
            Error::usage(
                "InvalidS3Settings",
                format!("cannot create a client for the bucket `{bucket}` from these settings"),
            )
            .with_plain_source(e)
        })
    }

    /// Returns the settings for an S3 client of the SDK for a bucket, with the same region and endpoint as
    /// [`store`](Self::store).
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined.
    pub async fn bucket(&self, bucket: &str) -> Result<BucketSettings> {
        let (region, endpoint) = self.place(bucket).await?;
        let mut config = self.config.to_builder().region(Region::new(region));
        config.set_endpoint_url(endpoint.clone());
        Ok(BucketSettings {
            config: config.build(),
            path_style: self.options.path_style || endpoint.is_some(),
            elsewhere: endpoint.is_some(),
            request_payer: self.options.request_payer,
        })
    }

    /// Returns the region and the endpoint of a bucket.
    async fn place(&self, bucket: &str) -> Result<(String, Option<String>)> {
        let endpoint = self.options.endpoint_url.clone();
        let endpoint = endpoint.or_else(s3_endpoint).or_else(|| self.config.endpoint_url().map(str::to_owned));
        let region = match (self.config.region(), &endpoint) {
            (Some(region), _) => region.to_string(),
            // S3-compatible stores may report no region. AWS rejects requests to a wrong region, so a missing one is
            // an error there.
            (None, Some(url)) => bucket_region(bucket, Some(url)).await.unwrap_or_else(|_| ANY_REGION.to_owned()),
            (None, None) => bucket_region(bucket, None).await?,
        };
        Ok((region, endpoint))
    }
}

/// Settings of an S3 client of the AWS SDK for one bucket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BucketSettings {
    /// Credentials, region and endpoint.
    pub config: SdkConfig,
    /// Whether the bucket is part of the path of URLs, as opposed to the host name.
    pub path_style: bool,
    /// Whether the bucket is at an endpoint other than that of AWS. S3-compatible stores may reject checksums that
    /// they do not know, so a client should not send them there.
    pub elsewhere: bool,
    /// Whether the caller pays for requests and transfer.
    pub request_payer: bool,
}

/// Endpoint of the environment that is only for S3. aws-config reads the general one (`AWS_ENDPOINT_URL`).
fn s3_endpoint() -> Option<String> {
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
        Error::new(ErrorKind::Denied, "NoRegion", message)
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
