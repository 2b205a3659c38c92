//! The environment of a job: how tables, input, keys and token stores are opened.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use biscuit_bookmark::SourcePlace;
use biscuit_core::Result;
use biscuit_dataset::internal::OpenByUrl;
use biscuit_dataset::{Location, OpenLocation};
use biscuit_pii::{PiiContext, Policy};

/// Opens everything that a job file names: tables, input, keys and token stores.
///
/// Only [`OpenLocation::open`] is required. The other methods have defaults for stores without storage classes and for
/// keys on this machine. `biscuit_aws::AwsEnvironment` opens S3 buckets, KMS keys and DynamoDB tables.
#[async_trait]
pub trait JobEnvironment: OpenLocation {
    /// Opens the location of input: the path or URL of a file, a folder or a glob. Default: [`source_place`], which
    /// does not know the storage classes of objects.
    ///
    /// # Errors
    /// Errors of [`OpenLocation::open`], and `InvalidGlob` for a pattern that is not valid.
    async fn open_source(&self, url: &str) -> Result<SourcePlace> {
        source_place(self, url).await
    }

    /// Opens the keys and the token store of a policy. Paths are relative to `folder`. Default: key files and token
    /// stores on this machine.
    ///
    /// # Errors
    /// Errors of key files, of key services and of token stores.
    async fn open_pii(&self, policy: &Policy, folder: &Path) -> Result<PiiContext> {
        PiiContext::open_local(policy, folder).await
    }
}

const _: fn(&dyn JobEnvironment) = |_| {};

/// Opens paths and URLs with [`Location::parse`], and key files and token stores on this machine.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "a value without fields")]
pub struct LocalEnvironment;

#[async_trait]
impl OpenLocation for LocalEnvironment {
    async fn open(&self, url: &str) -> Result<Location> {
        OpenByUrl.open(url).await
    }
}

impl JobEnvironment for LocalEnvironment {}

/// Environment with an opener of the caller for locations, and the defaults for everything else.
#[derive(Debug)]
pub(crate) struct OpenerEnvironment(pub(crate) Arc<dyn OpenLocation>);

#[async_trait]
impl OpenLocation for OpenerEnvironment {
    async fn open(&self, url: &str) -> Result<Location> {
        self.0.open(url).await
    }
}

impl JobEnvironment for OpenerEnvironment {}

/// Opens the location of input through an opener of locations. `url` is the path or URL of a file, a folder or a glob.
///
/// # Errors
/// Errors of the opener, and `InvalidGlob` for a pattern that is not valid.
pub async fn source_place<O: OpenLocation + ?Sized>(opener: &O, url: &str) -> Result<SourcePlace> {
    // The store lists the longest folder without a wildcard; the rest is the pattern. `raw/2024-*/x` lists `raw/`
    // with `2024-*/x`.
    let wild = url.find(['*', '?', '[']).map(|at| url[..at].rfind('/').map_or(0, |i| i + 1));
    let (folder, pattern) = url.split_at(wild.unwrap_or(url.len()));
    let location = opener.open(if folder.is_empty() { "." } else { folder }).await?;
    let base = match url.split_once("://") {
        None | Some(("file", _)) => "/".to_owned(),
        Some((scheme, rest)) => {
            let scheme = if scheme.eq_ignore_ascii_case("s3a") { "s3" } else { scheme };
            format!("{}://{}/", scheme.to_lowercase(), rest.split('/').next().unwrap_or_default())
        }
    };
    SourcePlace::new(location.storage(), &base, &format!("{}/{pattern}", location.path()))
}
