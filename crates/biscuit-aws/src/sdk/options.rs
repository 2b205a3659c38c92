//! Settings of an environment.

use std::fmt;

use biscuit_core::mask_secrets;

/// Settings for access to S3. A setting that is absent comes from the environment and from the profile files.
///
/// ```
/// use biscuit_aws::AwsOptions;
///
/// let options = AwsOptions::default()
///     .with_region("us-east-1")
///     .with_endpoint_url("http://minio:minio-password@127.0.0.1:9000");
/// assert_eq!(options.region.as_deref(), Some("us-east-1"));
///
/// // The debug output, for example in a log, does not show the password.
/// assert!(!format!("{options:?}").contains("minio-password"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct AwsOptions {
    /// Name of the profile to use. Default: `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
    /// Region of all buckets. Default: the region of the environment or of the profile, else the region of each
    /// bucket.
    pub region: Option<String>,
    /// Endpoint of an S3-compatible store, such as `http://127.0.0.1:9000`. Default: the endpoint of the environment
    /// or of the profile, else AWS.
    pub endpoint_url: Option<String>,
    /// Whether the bucket is part of the path of URLs on AWS as well. At other endpoints it always is.
    pub path_style: bool,
    /// Whether the caller pays for requests and transfer (`x-amz-request-payer`). Default: the owner of the bucket
    /// pays.
    pub request_payer: bool,
    /// KMS key for the encryption of new objects (SSE-KMS). Default: the encryption that the bucket is configured
    /// with.
    pub sse_kms_key: Option<String>,
    /// Whether uploads have a SHA-256 checksum, which the store verifies. Default: no.
    pub checksum_sha256: bool,
}

impl AwsOptions {
    /// Sets the name of the profile to use.
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Sets the region of all buckets, so that the region of a bucket is not looked up.
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the endpoint of an S3-compatible store. An endpoint that begins with `http://` is used without TLS.
    pub fn with_endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint_url = Some(url.into());
        self
    }

    /// Makes the bucket part of the path of URLs on AWS as well. Default: it is part of the host name there.
    pub fn with_path_style(mut self) -> Self {
        self.path_style = true;
        self
    }

    /// Lets the caller pay for requests and transfer. Default: the owner of the bucket pays.
    pub fn with_request_payer(mut self) -> Self {
        self.request_payer = true;
        self
    }

    /// Sets the KMS key for the encryption of new objects.
    pub fn with_sse_kms_key(mut self, key: impl Into<String>) -> Self {
        self.sse_kms_key = Some(key.into());
        self
    }

    /// Adds a SHA-256 checksum to each upload. Default: no checksum.
    pub fn with_checksum_sha256(mut self) -> Self {
        self.checksum_sha256 = true;
        self
    }
}

impl fmt::Debug for AwsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each field is named, so that a new field does not compile until someone decides how it is shown.
        let Self { profile, region, endpoint_url, path_style, request_payer, sse_kms_key, checksum_sha256 } = self;
        f.debug_struct("AwsOptions")
            .field("profile", profile)
            .field("region", region)
            .field("endpoint_url", &endpoint_url.as_deref().map(mask_secrets))
            .field("path_style", path_style)
            .field("request_payer", request_payer)
            .field("sse_kms_key", sse_kms_key)
            .field("checksum_sha256", checksum_sha256)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_password_of_the_endpoint() {
        let options =
            AwsOptions::default().with_endpoint_url("http://user:S3CRETpw@127.0.0.1:9").with_region("eu-west-1");
        let shown = format!("{options:?}");
        assert!(
            !shown.contains("S3CRETpw") && shown.contains("***@127.0.0.1:9") && shown.contains("eu-west-1"),
            "{shown}"
        );
    }
}
