//! Drops partitions of the Glue Data Catalog after a purge has deleted their last file.

use biscuit_catalog::{Catalog, CatalogPartition, TableName};
use biscuit_core::{Error, Result};
use biscuit_maintain::DeletePlace;
use biscuit_purge::PurgePlan;
use biscuit_rewrite::RunMode;

use crate::environment::context::CommandContext;
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
        let Some(bucket) = place.bucket() else {
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, "--drop-partitions needs a folder on S3"));
        };
        let catalog = context.stores.catalog(bucket).await?;
        let partitions = catalog.partitions(name).await?;
        Ok(Self { catalog, name: name.clone(), partitions })
    }

    /// Returns the partitions whose folders the plans empty, or have emptied.
    pub(crate) async fn emptied_partitions(
        &self,
        plans: &[PurgePlan],
        place: &DeletePlace,
        mode: RunMode,
    ) -> Result<Vec<CatalogPartition>> {
        let folders: Vec<&str> = self.partitions.iter().filter_map(|p| p.path_in(place.base())).collect();
        let emptied = place.emptied_folders(plans, folders, mode).await?;
        let is_emptied = |p: &&CatalogPartition| p.path_in(place.base()).is_some_and(|folder| emptied.contains(folder));
        Ok(self.partitions.iter().filter(is_emptied).cloned().collect())
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
                failed.record_result(Err(e));
                return vec![];
            }
        };
        // The catalog reports only failures; every other partition is dropped, or was absent already.
        let done = emptied.into_iter().filter(|p| dropped.iter().all(|(values, _)| *values != p.values)).collect();
        dropped.into_iter().for_each(|(_, e)| failed.record_result(Err(e)));
        done
    }
}
