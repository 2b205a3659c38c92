//! Settings and credentials of the AWS SDK.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use biscuit_core::Clock;

use crate::sdk::credentials::CredentialChain;
use crate::sdk::options::AwsOptions;

/// Settings and credentials of the AWS SDK, after they were looked up.
#[derive(Debug)]
pub(crate) struct SdkSettings {
    pub(crate) config: SdkConfig,
    pub(crate) credentials: Option<Arc<CredentialChain>>,
}

impl SdkSettings {
    /// Reads the environment, profile files, SSO, web identity, and the metadata of containers and instances, in the
    /// way of the AWS SDK. No credentials are requested yet.
    pub(crate) async fn load(options: &AwsOptions, clock: Arc<dyn Clock>) -> Self {
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
        Self { config, credentials }
    }
}
