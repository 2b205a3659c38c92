//! Opens the place of a purge: a local folder, a folder of a bucket, or a whole bucket.

use std::sync::Arc;

use biscuit_aws::{AwsEnvironment, split_s3_url};
use biscuit_core::Result;
use biscuit_dataset::OpenLocation;
use biscuit_maintain::DeletePlace;
use biscuit_purge::AnyStore;

/// Opens the place of a purge: a folder, or a whole bucket.
pub(crate) async fn delete_place(environment: &AwsEnvironment, url: &str) -> Result<DeletePlace> {
    if let Some((bucket, path)) = split_s3_url(url) {
        let s3 = environment.purge_store(bucket).await?;
        let place = DeletePlace::new(Arc::new(s3.clone()), format!("s3://{bucket}/"), path);
        return Ok(place.with_s3(s3).with_name(url));
    }
    let location = environment.open(url).await?;
    let store = AnyStore::new(location.storage().store.clone());
    if let Some(("memory", rest)) = url.split_once("://") {
        let base = format!("memory://{}/", rest.split('/').next().unwrap_or_default());
        return Ok(DeletePlace::new(Arc::new(store), base, location.path()).with_name(url));
    }
    // Links are resolved: a link to a table is that table, and protected as such.
    let real = std::fs::canonicalize(format!("/{}", location.path())).ok();
    let real = real.as_deref().and_then(std::path::Path::to_str).map(|real| real.trim_start_matches('/').to_owned());
    let prefix = real.unwrap_or_else(|| location.path().to_string());
    Ok(DeletePlace::new(Arc::new(store.on_disk("/")), "/", prefix).with_name(url))
}
