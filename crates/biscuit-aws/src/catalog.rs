//! The Glue Data Catalog.

use biscuit_catalog::Catalog;
use biscuit_core::Result;

use crate::counted_client::CountRequests;
use crate::environment::AwsEnvironment;

impl AwsEnvironment {
    /// Returns the Glue Data Catalog in the region of a bucket. Its requests are counted. Needs the feature `catalog`.
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined.
    pub async fn catalog(&self, bucket: &str) -> Result<Catalog> {
        let region = self.bucket(bucket).await?.config.region().cloned();
        let config = aws_sdk_glue::config::Builder::from(self.sdk_config().await).region(region);
        let config = config.interceptor(CountRequests::new(self.counters.clone()));
        Ok(Catalog::new(aws_sdk_glue::Client::from_conf(config.build())))
    }
}
