//! Drops partitions of the Glue Data Catalog after a purge has deleted their last file.

use std::collections::HashSet;

use biscuit_catalog::{Catalog, CatalogPartition, TableName};
use biscuit_core::{Error, Result};
use biscuit_journal::is_hidden;
use biscuit_purge::{PurgePlan, is_below};

use crate::environment::context::CommandContext;
use crate::environment::stores::DeletePlace;
use crate::render::purge::FailedDeletes;

/// Table of the catalog with its partitions, as read before anything is deleted.
#[derive(Debug)]
pub(crate) struct CatalogTable {
    catalog: Catalog,
    name: TableName,
    partitions: Vec<CatalogPartition>,
}

impl CatalogTable {
    /// Reads the partitions of a table from the catalog in the region of the bucket.
    ///
    /// # Errors
    /// `InvalidArguments` if the place is not on S3, and errors of Glue.
    pub(crate) async fn open(name: &TableName, place: &DeletePlace, context: &CommandContext) -> Result<Self> {
        let Some(s3) = &place.s3 else {
            return Err(Error::usage("InvalidArguments", "--drop-partitions needs a folder on S3"));
        };
        let catalog = context.stores.catalog(s3.bucket()).await?;
        let partitions = catalog.partitions(name).await?;
        Ok(Self { catalog, name: name.clone(), partitions })
    }

    /// Returns the partitions in which the plans delete something and no file remains.
    ///
    /// In a dry run the planned deletes count as done. A partition whose folder was empty before is not touched.
    pub(crate) async fn emptied(
        &self,
        plans: &[PurgePlan],
        place: &DeletePlace,
        dry_run: bool,
    ) -> Result<Vec<CatalogPartition>> {
        let deletes = || plans.iter().flat_map(PurgePlan::deletes);
        let touched = folders(deletes().map(|o| o.key));
        let gone: HashSet<String> = if dry_run { deletes().map(|o| o.key).collect() } else { HashSet::new() };
        let occupied = async |prefix: &str| -> Result<HashSet<String>> {
            let listing = place.store.list(prefix, false).await?;
            let hidden = |key: &str| is_hidden(key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/'));
            // Hidden files and markers of folders are not data: engines ignore them.
            let is_file = |key: &String| !key.ends_with('/') && !hidden(key) && !gone.contains(key);
            Ok(folders(listing.iter().map(|o| o.key).filter(is_file)))
        };
        let here = occupied(&place.prefix).await?;
        let mut emptied = Vec::new();
        for partition in &self.partitions {
            let Some(folder) = partition.path_in(&place.base).filter(|f| touched.contains(*f)) else { continue };
            let inside = place.prefix.is_empty() || folder == place.prefix || is_below(folder, &place.prefix);
            // The catalog may name folders outside of the purged one, such as an outer folder: these are listed
            // separately.
            let left = if inside { here.contains(folder) } else { occupied(folder).await?.contains(folder) };
            if !left {
                emptied.push(partition.clone());
            }
        }
        Ok(emptied)
    }

    /// Drops partitions from the catalog, and returns those that were dropped. Failures are recorded in `failed`.
    pub(crate) async fn drop(
        &self,
        emptied: Vec<CatalogPartition>,
        failed: &mut FailedDeletes,
    ) -> Vec<CatalogPartition> {
        let dropped = match self.catalog.drop_partitions(&self.name, &emptied).await {
            Ok(dropped) => dropped.failed,
            Err(e) => {
                failed.note(Err(e));
                return vec![];
            }
        };
        // The catalog reports only failures; every other partition is dropped, or was absent already.
        let done = emptied.into_iter().filter(|p| dropped.iter().all(|(values, _)| *values != p.values)).collect();
        dropped.into_iter().for_each(|(_, e)| failed.note(Err(e)));
        done
    }
}

/// Returns all folders that contain these keys, including outer folders.
fn folders(keys: impl Iterator<Item = String>) -> HashSet<String> {
    let mut folders = HashSet::new();
    for key in keys {
        let mut at = key.as_str();
        while let Some((folder, _)) = at.rsplit_once('/') {
            // If a folder is known, its outer folders are known, too.
            if !folders.insert(folder.to_owned()) {
                break;
            }
            at = folder;
        }
    }
    folders
}
