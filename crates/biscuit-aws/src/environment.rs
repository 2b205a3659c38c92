//! The environment: options, the credential chain, one store for each bucket, and the counters of requests.

use std::collections::HashMap;
use std::sync::Arc;

use aws_config::{Region, SdkConfig};
use biscuit_core::{Clock, Error, Result, SystemClock, mask_secrets};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use tokio::sync::{Mutex, OnceCell};
#[cfg(feature = "lake")]
use {
    biscuit_dataset::encryption::FileEncryption,
    biscuit_job::TableKeys,
    biscuit_journal::OtherTableFormats,
    biscuit_pii::keys::{KeyFile, KeyProvider, KeyWrapping},
    biscuit_pii_aws::{DynamoStore, KmsKeyProvider},
    std::path::Path,
};

#[cfg(feature = "catalog")]
use crate::catalog::catalog;
use crate::codes;
#[cfg(feature = "lake")]
use crate::key_file::key_file;
#[cfg(feature = "purge")]
use crate::purge::purge_store;
use crate::requests::counts::{RequestCounters, RequestCounts};
use crate::requests::metered_store::MeteredStore;
use crate::sdk::bucket_settings::BucketSettings;
use crate::sdk::options::AwsOptions;
use crate::sdk::region::{bucket_region, s3_endpoint};
use crate::sdk::settings::SdkSettings;

/// Region for S3-compatible stores that do not report one. They accept any region.
const ANY_REGION: &str = "us-east-1";

/// Stores and clients of AWS services with one credential chain, and the numbers of their requests.
///
/// Settings and credentials are looked up at the first use of AWS, so that a program on local folders needs none.
/// Clones share the credential chain, the stores and the counters.
///
/// Cargo features add methods: `purge` the S3 API for purges, `catalog` the Glue Data Catalog, and `lake` tables, jobs
/// and personal data (the traits `OpenLocation` of biscuit-dataset and `JobEnvironment` of biscuit-job).
#[derive(Debug, Clone)]
pub struct AwsEnvironment {
    options: AwsOptions,
    clock: Arc<dyn Clock>,
    sdk: Arc<OnceCell<SdkSettings>>,
    buckets: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
    counters: Arc<RequestCounters>,
    #[cfg(feature = "lake")]
    other_formats: OtherTableFormats,
}

impl AwsEnvironment {
    /// Creates an environment. Nothing is read and nothing is requested yet.
    pub fn new(options: AwsOptions) -> Self {
        Self {
            options,
            clock: Arc::new(SystemClock),
            sdk: Arc::default(),
            buckets: Arc::default(),
            counters: Arc::default(),
            #[cfg(feature = "lake")]
            other_formats: OtherTableFormats::default(),
        }
    }

    /// Sets the clock that decides when credentials are renewed. Default: the clock of the system. Call it before the
    /// first use of AWS.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Returns the numbers of requests and bytes so far, of all clones.
    pub fn counts(&self) -> RequestCounts {
        self.counters.counts()
    }

    /// Returns a store that passes all calls to `store` and counts them in [`counts`](Self::counts).
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use biscuit_aws::{AwsEnvironment, AwsOptions};
    /// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> object_store::Result<()> {
    /// let environment = AwsEnvironment::new(AwsOptions::default());
    /// let store = environment.counted(Arc::new(InMemory::new()));
    /// store.put(&Path::from("raw/1.json"), "{}".into()).await?;
    ///
    /// let counts = environment.counts();
    /// assert_eq!((counts.requests.put, counts.bytes_written), (1, 2));
    /// # Ok(()) }
    /// ```
    pub fn counted(&self, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(MeteredStore::new(store, self.counters.clone()))
    }

    /// Returns the settings for clients of the AWS SDK. Requests of such clients are not counted.
    pub async fn sdk_config(&self) -> &SdkConfig {
        &self.sdk_settings().await.config
    }

    /// Returns the store of a bucket. There is one store for each bucket, so that connections are reused. Its requests
    /// are counted.
    ///
    /// # Errors
    /// As [`amazon_s3`](Self::amazon_s3).
    pub async fn store(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
        // The lock is held while the store is created: two tasks at once do not create two stores.
        let mut buckets = self.buckets.lock().await;
        if let Some(store) = buckets.get(bucket) {
            return Ok(store.clone());
        }
        let store = self.counted(Arc::new(self.amazon_s3(bucket).await?));
        buckets.insert(bucket.to_owned(), store.clone());
        Ok(store)
    }

    /// Creates a client of object_store for a bucket, for example to sign URLs. Its requests are not counted. The
    /// region is that of the options, the environment or the profile, else the own region of the bucket.
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined, `NoCredentials` if no credential chain is
    /// configured, and `InvalidS3Settings` if object_store rejects the settings.
    pub async fn amazon_s3(&self, bucket: &str) -> Result<AmazonS3> {
        let o = &self.options;
        let (region, endpoint) = self.resolve_bucket(bucket).await?;
        tracing::debug!(
            bucket,
            region,
            endpoint = endpoint.as_deref().map(|e| mask_secrets(e).into_owned()),
            "opening a bucket"
        );
        let credentials = self.sdk_settings().await.credentials.clone().ok_or_else(|| {
            Error::new(
                biscuit_core::codes::NO_CREDENTIALS,
                "no source of AWS credentials is configured; set a profile, a role or the AWS_* environment variables",
            )
        })?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_credentials(credentials)
            .with_virtual_hosted_style_request(!o.path_style && endpoint.is_none())
            .with_request_payer(o.request_payer);
        if let Some(endpoint) = &endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(key) = &o.sse_kms_key {
            builder = builder.with_sse_kms_encryption(key);
        }
        if o.checksum_sha256 {
            builder = builder.with_checksum_algorithm(Checksum::SHA256);
        }
        builder.build().map_err(|e| {
            Error::new(
                codes::INVALID_S3_SETTINGS,
                format!("cannot create a client for the bucket `{bucket}` from these settings"),
            )
            .with_plain_source(e)
        })
    }

    /// Returns the settings for an S3 client of the SDK for a bucket, with the same region and endpoint as
    /// [`store`](Self::store). Requests of such clients are not counted.
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined.
    pub async fn bucket(&self, bucket: &str) -> Result<BucketSettings> {
        let (region, endpoint) = self.resolve_bucket(bucket).await?;
        let mut config = self.sdk_config().await.to_builder().region(Region::new(region));
        config.set_endpoint_url(endpoint.clone());
        Ok(BucketSettings {
            config: config.build(),
            path_style: self.options.path_style || endpoint.is_some(),
            elsewhere: endpoint.is_some(),
            request_payer: self.options.request_payer,
        })
    }

    /// Returns the region and the endpoint of a bucket.
    async fn resolve_bucket(&self, bucket: &str) -> Result<(String, Option<String>)> {
        let config = self.sdk_config().await;
        let endpoint = self.options.endpoint_url.clone();
        let endpoint = endpoint.or_else(s3_endpoint).or_else(|| config.endpoint_url().map(str::to_owned));
        let region = match (config.region(), &endpoint) {
            (Some(region), _) => region.to_string(),
            // S3-compatible stores may report no region. AWS rejects requests to a wrong region, so a missing one is
            // an error there.
            (None, Some(url)) => bucket_region(bucket, Some(url)).await.unwrap_or_else(|_| ANY_REGION.to_owned()),
            (None, None) => bucket_region(bucket, None).await?,
        };
        Ok((region, endpoint))
    }

    /// Returns the settings of the SDK, and loads them at the first call.
    async fn sdk_settings(&self) -> &SdkSettings {
        self.sdk.get_or_init(|| SdkSettings::load(&self.options, self.clock.clone())).await
    }

    /// Returns a bucket with the whole S3 API: versions, unfinished uploads, conditional deletes and lifecycle rules.
    /// Its requests are counted. Needs the feature `purge`.
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined.
    #[cfg(feature = "purge")]
    pub async fn purge_store(&self, bucket: &str) -> Result<biscuit_purge::S3Store> {
        let settings = self.bucket(bucket).await?;
        Ok(purge_store(bucket, &settings, self.counters.clone()))
    }

    /// Returns the Glue Data Catalog in the region of a bucket. Its requests are counted. Needs the feature `catalog`.
    ///
    /// # Errors
    /// `NoRegion` if the region of the bucket cannot be determined.
    #[cfg(feature = "catalog")]
    pub async fn catalog(&self, bucket: &str) -> Result<biscuit_catalog::Catalog> {
        let region = self.bucket(bucket).await?.config.region().cloned();
        Ok(catalog(self.sdk_config().await, region, self.counters.clone()))
    }
}

/// Tables, input and personal data. These methods need the feature `lake`. Requests to KMS, DynamoDB and Comprehend are
/// not counted.
#[cfg(feature = "lake")]
impl AwsEnvironment {
    /// Sets the handling of input in folders of Delta Lake, Iceberg, Hudi and Paimon. Default: such input is refused,
    /// because files that their logs have removed would be read. Needs the feature `lake`.
    #[must_use]
    pub fn with_other_formats(mut self, other_formats: OtherTableFormats) -> Self {
        self.other_formats = other_formats;
        self
    }

    /// Returns the handling of input in folders of other table formats. Needs the feature `lake`.
    pub fn other_formats(&self) -> OtherTableFormats {
        self.other_formats
    }

    /// Reads a key file from a path relative to `folder`, or from a URL.
    ///
    /// # Errors
    /// `InvalidKeyFile` for a file that is not a key file or has more than 1 MiB, and errors of the store.
    pub async fn key_file(&self, url: &str, folder: &Path) -> Result<KeyFile> {
        key_file(self, url, folder).await
    }

    /// Returns the provider that seals and opens the root keys of a key file: a KMS key, or the keys in the file.
    ///
    /// # Errors
    /// `InvalidKeyFile` if the file is sealed by a method that this version does not support.
    pub async fn key_provider(&self, file: &KeyFile) -> Result<Arc<dyn KeyProvider>> {
        match file.wrapping() {
            KeyWrapping::Kms(key) => Ok(Arc::new(self.kms(key).await)),
            KeyWrapping::Local(keys) => Ok(Arc::new(keys.clone())),
            _ => Err(Error::new(
                biscuit_pii::codes::INVALID_KEY_FILE,
                "the key file is sealed by a method that this version of `biscuit` does not support",
            )),
        }
    }

    /// Returns the keys for encrypted Parquet files from a key file: a path, or a URL.
    ///
    /// # Errors
    /// As [`key_file`](Self::key_file) and [`key_provider`](Self::key_provider).
    pub async fn file_encryption(&self, url: &str) -> Result<FileEncryption> {
        let file = self.key_file(url, Path::new("")).await?;
        Ok(TableKeys::encryption(self.key_provider(&file).await?))
    }

    /// Returns a provider for a KMS key, by its id, ARN or alias.
    pub async fn kms(&self, key: &str) -> KmsKeyProvider {
        KmsKeyProvider::new(aws_sdk_kms::Client::new(self.sdk_config().await), key)
    }

    /// Returns the token store in a DynamoDB table.
    pub async fn dynamodb(&self, table: &str) -> DynamoStore {
        DynamoStore::new(aws_sdk_dynamodb::Client::new(self.sdk_config().await), table)
    }

    /// Returns a client of Amazon Comprehend, for a `ComprehendDetector` of biscuit-pii-aws.
    pub async fn comprehend(&self) -> aws_sdk_comprehend::Client {
        aws_sdk_comprehend::Client::new(self.sdk_config().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bucket_has_one_store_and_other_buckets_have_others() {
        let options = AwsOptions::default().with_region("eu-west-1").with_endpoint_url("http://127.0.0.1:9");
        let environment = AwsEnvironment::new(options);
        let first = environment.store("a").await.unwrap();
        let (again, other) = tokio::join!(environment.store("a"), environment.store("b"));
        assert!(Arc::ptr_eq(&first, &again.unwrap()));
        assert!(!Arc::ptr_eq(&first, &other.unwrap()));
        // A clone has the same stores.
        assert!(Arc::ptr_eq(&first, &environment.clone().store("a").await.unwrap()));
        assert_eq!(environment.counts(), RequestCounts::default(), "opening a store sends no request");
    }

    #[tokio::test]
    async fn settings_of_aws_are_loaded_at_the_first_use() {
        let environment = AwsEnvironment::new(AwsOptions::default().with_region("eu-west-1"));
        assert!(environment.sdk.get().is_none());
        let region = environment.sdk_config().await.region().map(ToString::to_string);
        assert_eq!(region.as_deref(), Some("eu-west-1"));
        assert!(environment.clone().sdk.get().is_some(), "clones share the settings");
    }

    #[cfg(feature = "lake")]
    #[tokio::test]
    async fn local_folders_and_memory_are_opened_without_aws() {
        use biscuit_dataset::OpenLocation;
        use biscuit_job::JobEnvironment;
        use biscuit_pii::Policy;

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1.json"), "{}").unwrap();
        let environment = AwsEnvironment::new(AwsOptions::default());
        let url = folder.path().to_str().unwrap();
        environment.open(url).await.unwrap();
        environment.open("memory://environment/lake").await.unwrap();
        drop(environment.open_source(&format!("{url}/*.json")).await.unwrap());
        drop(environment.open_pii(&Policy::default(), folder.path()).await.unwrap());
        assert!(environment.sdk.get().is_none(), "no settings and no credentials were looked up");
    }
}
