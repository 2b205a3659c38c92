use biscuit_aws::AwsOptions;
use clap::Args;

/// Options of the access to S3.
#[derive(Debug, Args)]
#[command(next_help_heading = "S3")]
pub(crate) struct AwsArgs {
    /// Use this profile of the AWS configuration files
    #[arg(long, global = true)]
    pub(crate) profile: Option<String>,

    /// Use this AWS region [default: from the environment, the profile or the bucket]
    #[arg(long, global = true)]
    pub(crate) region: Option<String>,

    /// Use this endpoint, for an S3-compatible store
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,

    /// Put the bucket into the path of request URLs instead of the host name
    #[arg(long, global = true)]
    pub(crate) path_style: bool,

    /// Accept the charges for requests and data transfer: `requester`
    #[arg(long, global = true, value_parser = ["requester"])]
    pub(crate) request_payer: Option<String>,

    /// Encrypt new objects with this KMS key
    #[arg(long, global = true, value_name = "KEY_ID")]
    pub(crate) sse_kms_key: Option<String>,

    /// Send a checksum of this algorithm with each upload: `sha256`
    #[arg(long, global = true, value_parser = ["sha256"])]
    pub(crate) checksum: Option<String>,
}

impl AwsArgs {
    /// Converts the options of the command line to options of the AWS clients.
    pub(crate) fn options(&self) -> AwsOptions {
        let mut options = AwsOptions::default();
        options.path_style = self.path_style;
        options.request_payer = self.request_payer.is_some();
        options.checksum_sha256 = self.checksum.is_some();
        options.profile.clone_from(&self.profile);
        options.region.clone_from(&self.region);
        options.endpoint_url.clone_from(&self.endpoint_url);
        options.sse_kms_key.clone_from(&self.sse_kms_key);
        options
    }
}
