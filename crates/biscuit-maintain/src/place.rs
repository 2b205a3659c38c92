//! The place of a purge: a folder or a whole bucket, with the store in which objects are listed and deleted.

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;

use biscuit_core::{Error, Result};
#[cfg(feature = "s3")]
use biscuit_purge::S3Store;
use biscuit_purge::{AllowedDeletes, PurgePlan, PurgeStore};
use biscuit_rewrite::RunMode;

use crate::codes;
use crate::partitions::emptied_folders;

/// A folder, or a whole store, in which a purge deletes objects.
#[derive(Debug, Clone)]
#[must_use]
pub struct DeletePlace {
    store: Arc<dyn PurgeStore>,
    base: String,
    prefix: String,
    name: Option<String>,
    #[cfg(feature = "s3")]
    s3: Option<S3Store>,
}

impl DeletePlace {
    /// Creates a place. `base` is the URL of the store's root, with a `/` at its end: `/` for the local disk,
    /// `memory://name/` or `s3://bucket/`. `prefix` is the path of the folder; empty for the whole store. The links of
    /// a local path have to be resolved, so that a link to a table is purged as that table.
    pub fn new(store: Arc<dyn PurgeStore>, base: impl Into<String>, prefix: impl AsRef<str>) -> Self {
        Self {
            store,
            base: base.into(),
            prefix: prefix.as_ref().trim_matches('/').to_owned(),
            name: None,
            #[cfg(feature = "s3")]
            s3: None,
        }
    }

    /// Sets the name of the place in messages, such as the URL that a user wrote. Default: its URL.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the S3 API of the store, for lifecycle rules. Default: none.
    #[cfg(feature = "s3")]
    pub fn with_s3(mut self, s3: S3Store) -> Self {
        self.s3 = Some(s3);
        self
    }

    /// Store in which objects are listed and deleted.
    #[must_use]
    pub fn store(&self) -> &dyn PurgeStore {
        &*self.store
    }

    /// S3 API of the store, if the place has one.
    #[cfg(feature = "s3")]
    #[must_use]
    pub fn s3(&self) -> Option<&S3Store> {
        self.s3.as_ref()
    }

    /// URL of the store's root, with a `/` at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Path of the folder, without a `/` at either end. Empty for the whole store.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Name of the place in messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.url(&self.prefix))
    }

    /// Name of the bucket, if the place is on S3.
    #[must_use]
    pub fn bucket(&self) -> Option<&str> {
        bucket_of(&self.base)
    }

    /// Returns the URL of a key or folder of the store.
    #[must_use]
    pub fn url(&self, key: &str) -> String {
        format!("{}{key}", self.base)
    }

    /// Returns whether a URL or path belongs to the same store.
    #[must_use]
    pub fn is_here(&self, url: &str) -> bool {
        match (bucket_of(url), self.bucket()) {
            (Some(bucket), Some(own)) => bucket == own,
            (None, None) => url.contains("://") == self.base.contains("://"),
            _ => false,
        }
    }

    /// Checks whether the place may be purged at all, before anything is listed.
    ///
    /// # Errors
    /// `NothingThere` for a local folder that does not exist; `EmptyPrefix` for a whole store, unless that is allowed.
    pub fn check_allowed(&self, allow: &AllowedDeletes) -> Result<()> {
        if self.base == "/" && !FilePath::new("/").join(&self.prefix).exists() {
            let message = format!("nothing exists at `{}`; check the path", self.name());
            return Err(Error::new(codes::NOTHING_THERE, message));
        }
        if self.prefix.is_empty() && !allow.bucket_root {
            // A plan for the root of a store is an error, which a plan without objects returns as well.
            PurgePlan::exact("", [])?;
        }
        Ok(())
    }

    /// Returns those of `folders` in which the plans delete something and no file remains that an engine reads.
    ///
    /// The folders are paths in the store, such as those of the partitions of a catalog. They may be outside of the
    /// place, such as an outer folder. With [`RunMode::Commit`] the plans have been carried out, and the listing
    /// decides; with [`RunMode::DryRun`] the planned deletes count as done. A folder that was empty before is not
    /// returned: the purge has not emptied it.
    ///
    /// # Errors
    /// The errors of the listing.
    pub async fn emptied_folders(
        &self,
        plans: &[PurgePlan],
        folders: impl IntoIterator<Item = &str> + Send,
        mode: RunMode,
    ) -> Result<BTreeSet<String>> {
        emptied_folders(&*self.store, &self.prefix, plans, folders, mode).await
    }
}

/// Returns the bucket of an S3 URL; `None` for other URLs and for paths.
pub(crate) fn bucket_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let is_s3 = matches!(scheme.to_lowercase().as_str(), "s3" | "s3a");
    is_s3.then(|| rest.split_once('/').map_or(rest, |(bucket, _)| bucket))
}

#[cfg(test)]
mod tests {
    use biscuit_purge::AnyStore;
    use object_store::memory::InMemory;

    use super::*;

    fn place(base: &str, prefix: &str) -> DeletePlace {
        DeletePlace::new(Arc::new(AnyStore::new(Arc::new(InMemory::new()))), base, prefix)
    }

    #[test]
    fn url_belongs_to_the_store_of_its_bucket_or_scheme() {
        let bucket = place("s3://b/", "lake/t");
        assert!(bucket.is_here("s3://b/x") && bucket.is_here("S3A://b") && !bucket.is_here("s3://c/x"));
        assert!(!bucket.is_here("/b/x") && !bucket.is_here("memory://b/x"));
        let disk = place("/", "tmp");
        assert!(disk.is_here("out.jsonl") && disk.is_here("/tmp/out") && !disk.is_here("s3://b/x"));
        assert!(place("memory://m/", "t").is_here("memory://m/out") && bucket.url("k") == "s3://b/k");
    }

    #[test]
    fn whole_store_is_refused_unless_it_is_allowed() {
        let mut allow = AllowedDeletes::default();
        assert_eq!(place("s3://b/", "/").check_allowed(&allow).unwrap_err().code(), "EmptyPrefix");
        allow.bucket_root = true;
        assert!(
            place("s3://b/", "").check_allowed(&allow).is_ok() && place("s3://b/", "t").check_allowed(&allow).is_ok()
        );
    }

    #[test]
    fn missing_local_folder_is_named_as_the_user_wrote_it() {
        let missing = place("/", "no/such/folder").with_name("lake/typo");
        let e = missing.check_allowed(&AllowedDeletes::default()).unwrap_err();
        assert_eq!((e.code(), e.message()), ("NothingThere", "nothing exists at `lake/typo`; check the path"));
    }
}
