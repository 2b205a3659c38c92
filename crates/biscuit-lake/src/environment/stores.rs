//! Opens the stores of a command: local folders, S3 buckets and the Glue catalog, all with one credential chain.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::config::RequestChecksumCalculation;
use biscuit_aws::{AwsEnvironment, AwsOptions};
use biscuit_bookmark::SourcePlace as InputPlace;
use biscuit_catalog::Catalog;
use biscuit_core::{Result, hide_password_of};
use biscuit_dataset::{Location, OpenLocation};
use biscuit_job::{OpenByLocation, OpenSource};
use biscuit_journal::{OtherTableFormats, TableStorage};
use biscuit_maintain::DeletePlace;
use biscuit_purge::{AnyStore, S3Store};
use object_store::ObjectStore;
use tokio::sync::{Mutex, OnceCell};

use crate::environment::meter::{CountRequests, MeteredStore, RequestCounts};

/// Opener of the stores of a command. S3 uses one credential chain, and every request is counted.
#[derive(Debug)]
pub(crate) struct StoreOpener {
    options: AwsOptions,
    // Loaded at the first use of AWS, so that a command on local folders never looks for credentials.
    aws: OnceCell<AwsEnvironment>,
    buckets: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    counts: Arc<RequestCounts>,
    /// Handling of folders of other table formats.
    pub(crate) other_formats: OtherTableFormats,
}

impl StoreOpener {
    pub(crate) fn new(options: AwsOptions, other_formats: OtherTableFormats) -> Self {
        Self { options, aws: OnceCell::new(), buckets: Mutex::default(), counts: Arc::default(), other_formats }
    }

    pub(crate) fn counts(&self) -> &RequestCounts {
        &self.counts
    }

    async fn aws(&self) -> &AwsEnvironment {
        self.aws.get_or_init(|| AwsEnvironment::load(self.options.clone())).await
    }

    /// Returns a bucket with the whole S3 API: versions, unfinished uploads, conditional deletes and lifecycle rules.
    pub(crate) async fn s3(&self, bucket: &str) -> Result<S3Store> {
        let settings = self.aws().await.bucket(bucket).await?;
        let mut config = aws_sdk_s3::config::Builder::from(&settings.config)
            .force_path_style(settings.path_style)
            .interceptor(CountRequests::new(self.counts.clone()));
        // Stores other than AWS often reject the checksums that the SDK adds by default.
        if settings.elsewhere {
            config = config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        }
        let client = aws_sdk_s3::Client::from_conf(config.build());
        Ok(S3Store::new(client, bucket).with_request_payer(settings.request_payer))
    }

    /// Returns the Glue Data Catalog in the region of a bucket.
    pub(crate) async fn catalog(&self, bucket: &str) -> Result<Catalog> {
        let aws = self.aws().await;
        let region = aws.bucket(bucket).await?.config.region().cloned();
        let config = aws_sdk_glue::config::Builder::from(aws.sdk_config()).region(region);
        let config = config.interceptor(CountRequests::new(self.counts.clone()));
        Ok(Catalog::new(aws_sdk_glue::Client::from_conf(config.build())))
    }

    /// Returns the settings for clients of other AWS services.
    pub(crate) async fn sdk_config(&self) -> &biscuit_aws::SdkConfig {
        self.aws().await.sdk_config()
    }

    /// Returns a client of Amazon Comprehend.
    pub(crate) async fn comprehend(&self) -> aws_sdk_comprehend::Client {
        aws_sdk_comprehend::Client::new(self.sdk_config().await)
    }

    /// Opens the place of a purge: a folder, or a whole bucket.
    pub(crate) async fn place(&self, url: &str) -> Result<DeletePlace> {
        if let Some((bucket, path)) = on_s3(url) {
            let s3 = self.s3(bucket).await?;
            let place = DeletePlace::new(Arc::new(s3.clone()), format!("s3://{bucket}/"), path);
            return Ok(place.with_s3(s3).with_name(url));
        }
        let location = self.open(url).await?;
        let store = AnyStore::new(location.storage().store.clone());
        if let Some(("memory", rest)) = url.split_once("://") {
            let base = format!("memory://{}/", rest.split('/').next().unwrap_or_default());
            return Ok(DeletePlace::new(Arc::new(store), base, location.path()).with_name(url));
        }
        // Links are resolved: a link to a table is that table, and protected as such.
        let real = std::fs::canonicalize(format!("/{}", location.path())).ok();
        let real =
            real.as_deref().and_then(std::path::Path::to_str).map(|real| real.trim_start_matches('/').to_owned());
        let prefix = real.unwrap_or_else(|| location.path().to_string());
        Ok(DeletePlace::new(Arc::new(store.on_disk("/")), "/", prefix).with_name(url))
    }

    /// Returns the store of a bucket. There is one store for each bucket, so that connections are reused.
    async fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>> {
        // The lock is held while the store is created: two tasks at once do not create two stores.
        let mut buckets = self.buckets.lock().await;
        if let Some(store) = buckets.get(name) {
            return Ok(store.clone());
        }
        let store: Arc<dyn ObjectStore> = Arc::new(self.aws().await.store(name).await?);
        buckets.insert(name.to_owned(), store.clone());
        Ok(store)
    }
}

/// Splits an S3 URL into bucket and path. Returns `None` for other URLs.
pub(crate) fn on_s3(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_s3 = matches!(scheme.to_lowercase().as_str(), "s3" | "s3a");
    is_s3.then(|| rest.split_once('/').unwrap_or((rest, "")))
}

#[async_trait]
impl OpenLocation for StoreOpener {
    async fn open(&self, url: &str) -> Result<Location> {
        // Before the first error can quote the URL.
        hide_password_of(url);
        let location = match on_s3(url) {
            Some((bucket, path)) => Location::new(TableStorage::durable(self.bucket(bucket).await?), path, url)?,
            None => Location::parse(url)?,
        };
        let storage = location.storage();
        let metered = storage.with_store(Arc::new(MeteredStore::new(storage.store.clone(), self.counts.clone())));
        Ok(location.with_storage(metered))
    }
}

/// Opener of input places. Places on S3 are listed with the S3 API, which reports storage classes.
#[derive(Debug)]
pub(crate) struct CliSources(pub(crate) Arc<StoreOpener>);

#[async_trait]
impl OpenSource for CliSources {
    async fn place(&self, url: &str) -> Result<InputPlace> {
        let place = OpenByLocation(self.0.clone()).place(url).await?.with_other_formats(self.0.other_formats);
        match on_s3(url) {
            Some((bucket, _)) => Ok(place.with_lister(Arc::new(self.0.s3(bucket).await?))),
            None => Ok(place),
        }
    }
}
