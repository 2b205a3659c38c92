//! The Glue Data Catalog.

use std::sync::Arc;

use aws_config::{Region, SdkConfig};
use biscuit_catalog::Catalog;

use crate::counted_client::CountRequests;
use crate::requests::counts::RequestCounters;

/// Returns the Glue Data Catalog in a region, whose requests are counted.
pub(crate) fn catalog(config: &SdkConfig, region: Option<Region>, counters: Arc<RequestCounters>) -> Catalog {
    let config = aws_sdk_glue::config::Builder::from(config).region(region);
    let config = config.interceptor(CountRequests::new(counters));
    Catalog::new(aws_sdk_glue::Client::from_conf(config.build()))
}
