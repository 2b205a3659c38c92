use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_aws::{Aws, AwsOptions};
use biscuit_core::Result;
use biscuit_dataset::{Location, OpenLocation};
use biscuit_journal::Storage;
use object_store::ObjectStore;
use tokio::sync::{Mutex, OnceCell};

use crate::meter::{Counts, Metered};

/// How a command reaches stores: S3 by one credential chain, and everything counted.
#[derive(Debug)]
pub(crate) struct Stores {
    options: AwsOptions,
    aws: OnceCell<Aws>,
    buckets: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    counts: Arc<Counts>,
}

impl Stores {
    pub(crate) fn new(options: AwsOptions) -> Self {
        Self { options, aws: OnceCell::new(), buckets: Mutex::default(), counts: Arc::default() }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    async fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>> {
        let mut buckets = self.buckets.lock().await;
        if let Some(store) = buckets.get(name) {
            return Ok(store.clone());
        }
        let aws = self.aws.get_or_init(|| Aws::load(self.options.clone())).await;
        let store: Arc<dyn ObjectStore> = Arc::new(aws.store(name).await?);
        buckets.insert(name.to_owned(), store.clone());
        Ok(store)
    }
}

#[async_trait]
impl OpenLocation for Stores {
    async fn open(&self, url: &str) -> Result<Location> {
        let on_s3 = url.split_once("://").filter(|(scheme, _)| matches!(scheme.to_lowercase().as_str(), "s3" | "s3a"));
        let location = match on_s3 {
            Some((_, rest)) => {
                let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
                Location::new(Storage::durable(self.bucket(bucket).await?), path, url)?
            }
            None => Location::parse(url)?,
        };
        let storage = location.storage();
        let metered = storage.with_store(Arc::new(Metered::new(storage.store.clone(), self.counts.clone())));
        Ok(location.with_storage(metered))
    }
}
