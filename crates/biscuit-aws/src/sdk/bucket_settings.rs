//! Settings of an S3 client of the AWS SDK for one bucket.

use aws_config::SdkConfig;

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
