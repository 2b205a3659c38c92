//! Tables and input of jobs, on S3, on local disks and in memory.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_bookmark::SourcePlace;
use biscuit_core::Result;
use biscuit_core::internal::hide_password_of;
use biscuit_dataset::{Location, OpenLocation};
use biscuit_job::JobEnvironment;
use biscuit_job::internal::source_place;
use biscuit_journal::TableStorage;
use biscuit_pii::{PiiContext, Policy};

use crate::environment::AwsEnvironment;
use crate::s3_url::split_s3_url;

/// Opens S3 URLs with the credential chain, and everything else with [`Location::parse`]. Requests to all of these
/// stores are counted.
#[async_trait]
impl OpenLocation for AwsEnvironment {
    async fn open(&self, url: &str) -> Result<Location> {
        // Before the first error can quote the URL.
        hide_password_of(url);
        if let Some((bucket, path)) = split_s3_url(url) {
            return Location::new(TableStorage::durable(self.store(bucket).await?), path, url);
        }
        let location = Location::parse(url)?;
        let storage = location.storage();
        let counted = storage.with_store(self.counted(storage.store.clone()));
        Ok(location.with_storage(counted))
    }
}

/// Input on S3 is listed with the S3 API, which reports storage classes. The keys and token stores of policies may be
/// on AWS.
#[async_trait]
impl JobEnvironment for AwsEnvironment {
    async fn open_source(&self, url: &str) -> Result<SourcePlace> {
        let place = source_place(self, url).await?.with_other_formats(self.other_formats());
        match split_s3_url(url) {
            Some((bucket, _)) => Ok(place.with_lister(Arc::new(self.purge_store(bucket).await?))),
            None => Ok(place),
        }
    }

    async fn open_pii(&self, policy: &Policy, folder: &Path) -> Result<PiiContext> {
        pii_context(self, policy, folder).await
    }
}

/// Opens a policy whose key file, KMS key and token store may be on AWS. Paths are relative to `folder`.
async fn pii_context(environment: &AwsEnvironment, policy: &Policy, folder: &Path) -> Result<PiiContext> {
    let mut context = PiiContext::new();
    if let Some(keys) = &policy.keys {
        let file = environment.key_file(keys, folder).await?;
        let provider = environment.key_provider(&file).await?;
        context = context.with_roots(file.roots(&*provider).await?).with_provider(provider);
    }
    if let Some(table) = policy.dynamodb_table() {
        return Ok(context.with_store(Arc::new(environment.dynamodb(table).await)));
    }
    Ok(match policy.file_store(folder).await? {
        Some(store) => context.with_store(Arc::new(store)),
        None => context,
    })
}
