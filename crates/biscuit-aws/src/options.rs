use std::fmt;

use biscuit_core::mask_secrets;

/// How S3 is reached. What is not set comes from the environment and the profile files.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwsOptions {
    /// The profile of the profile files.
    pub profile: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The endpoint of an S3-compatible store: `http://127.0.0.1:9000`.
    pub endpoint_url: Option<String>,
    /// The bucket is a part of the path, on AWS too; at other endpoints it is one in any case.
    pub path_style: bool,
    /// The caller pays for requests and transfer (`x-amz-request-payer`).
    pub request_payer: bool,
    /// The KMS key that new objects are encrypted with (SSE-KMS).
    pub sse_kms_key: Option<String>,
    /// Uploads carry a SHA-256 checksum, which the store verifies.
    pub checksum_sha256: bool,
}

impl AwsOptions {
    /// The same options with a profile.
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// The same options with a region.
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The same options with an endpoint.
    pub fn with_endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint_url = Some(url.into());
        self
    }

    /// The same options with buckets in paths.
    pub fn with_path_style(mut self, path_style: bool) -> Self {
        self.path_style = path_style;
        self
    }

    /// The same options with the caller as the payer.
    pub fn with_request_payer(mut self, pays: bool) -> Self {
        self.request_payer = pays;
        self
    }

    /// The same options with a KMS key for new objects.
    pub fn with_sse_kms_key(mut self, key: impl Into<String>) -> Self {
        self.sse_kms_key = Some(key.into());
        self
    }

    /// The same options with checksums of uploads.
    pub fn with_checksum_sha256(mut self, checksum: bool) -> Self {
        self.checksum_sha256 = checksum;
        self
    }
}

impl fmt::Debug for AwsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    fn a_password_in_the_endpoint_is_not_in_debug() {
        let options =
            AwsOptions::default().with_endpoint_url("http://user:S3CRETpw@127.0.0.1:9").with_region("eu-west-1");
        let shown = format!("{options:?}");
        assert!(
            !shown.contains("S3CRETpw") && shown.contains("***@127.0.0.1:9") && shown.contains("eu-west-1"),
            "{shown}"
        );
    }
}
