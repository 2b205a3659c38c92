use biscuit_aws::AwsOptions;
use clap::Args;

/// How S3 is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "S3")]
pub(crate) struct AwsArgs {
    /// The profile of the AWS profile files
    #[arg(long, global = true)]
    pub(crate) profile: Option<String>,

    /// The AWS region; from environment, profile or the bucket itself, if not given
    #[arg(long, global = true)]
    pub(crate) region: Option<String>,

    /// The endpoint of an S3-compatible store
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,

    /// Put the bucket into the path of URLs, not into the host
    #[arg(long, global = true)]
    pub(crate) path_style: bool,

    /// Pay for requests and transfer: `requester`
    #[arg(long, global = true, value_parser = ["requester"])]
    pub(crate) request_payer: Option<String>,

    /// Encrypt new objects with this KMS key
    #[arg(long, global = true, value_name = "KEY_ID")]
    pub(crate) sse_kms_key: Option<String>,

    /// Send checksums with uploads: `sha256`
    #[arg(long, global = true, value_parser = ["sha256"])]
    pub(crate) checksum: Option<String>,
}

impl AwsArgs {
    pub(crate) fn options(&self) -> AwsOptions {
        let mut options = AwsOptions::default()
            .with_path_style(self.path_style)
            .with_request_payer(self.request_payer.is_some())
            .with_checksum_sha256(self.checksum.is_some());
        options.profile.clone_from(&self.profile);
        options.region.clone_from(&self.region);
        options.endpoint_url.clone_from(&self.endpoint_url);
        options.sse_kms_key.clone_from(&self.sse_kms_key);
        options
    }
}
