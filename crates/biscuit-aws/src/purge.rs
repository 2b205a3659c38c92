//! Stores for purges, with the whole S3 API.

use std::sync::Arc;

use aws_sdk_s3::config::RequestChecksumCalculation;
use biscuit_purge::S3Store;

use crate::counted_client::CountRequests;
use crate::requests::counts::RequestCounters;
use crate::sdk::bucket_settings::BucketSettings;

/// Returns a bucket with the whole S3 API, whose requests are counted.
pub(crate) fn purge_store(bucket: &str, settings: &BucketSettings, counters: Arc<RequestCounters>) -> S3Store {
    let mut config = aws_sdk_s3::config::Builder::from(&settings.config)
        .force_path_style(settings.path_style)
        .interceptor(CountRequests::new(counters));
    // Stores other than AWS often reject the checksums that the SDK adds by default.
    if settings.elsewhere {
        config = config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
    }
    let client = aws_sdk_s3::Client::from_conf(config.build());
    let store = S3Store::new(client, bucket);
    if settings.request_payer { store.with_request_payer() } else { store }
}
