//! Stores for purges, with the whole S3 API.

use aws_sdk_s3::config::RequestChecksumCalculation;
use biscuit_core::Result;
use biscuit_purge::S3Store;

use crate::counted_client::CountRequests;
use crate::environment::AwsEnvironment;

impl AwsEnvironment {
    /// Returns a bucket with the whole S3 API: versions, unfinished uploads, conditional deletes and lifecycle rules. Its
    /// requests are counted. Needs the feature `purge`.
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined.
    pub async fn purge_store(&self, bucket: &str) -> Result<S3Store> {
        let settings = self.bucket(bucket).await?;
        let mut config = aws_sdk_s3::config::Builder::from(&settings.config)
            .force_path_style(settings.path_style)
            .interceptor(CountRequests::new(self.counters.clone()));
        // Stores other than AWS often reject the checksums that the SDK adds by default.
        if settings.elsewhere {
            config = config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        }
        let client = aws_sdk_s3::Client::from_conf(config.build());
        let store = S3Store::new(client, bucket);
        Ok(if settings.request_payer { store.with_request_payer() } else { store })
    }
}
