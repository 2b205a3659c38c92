//! Partitions of the Glue Data Catalog whose last files a purge takes.

use std::collections::HashSet;

use biscuit_catalog::{Catalog, CatalogPartition, TableName};
use biscuit_core::{Error, Result};
use biscuit_journal::is_hidden;
use biscuit_purge::{PurgePlan, is_below};

use crate::environment::context::CommandContext;
use crate::environment::stores::DeletePlace;
use crate::render::purge::FailedDeletes;

/// A table of a catalog, and its partitions before anything is deleted.
#[derive(Debug)]
pub(crate) struct CatalogTable {
    catalog: Catalog,
    name: TableName,
    partitions: Vec<CatalogPartition>,
}

impl CatalogTable {
    pub(crate) async fn open(name: &TableName, place: &DeletePlace, context: &CommandContext) -> Result<Self> {
        let Some(s3) = &place.s3 else {
            return Err(Error::usage("InvalidArguments", "--drop-partitions goes with folders on S3"));
        };
        let catalog = context.stores.catalog(s3.bucket()).await?;
        let partitions = catalog.partitions(name).await?;
        Ok(Self { catalog, name: name.clone(), partitions })
    }

    /// Those in which these plans delete something and nothing is left; of a dry run, in which nothing will be left. Entries whose folders
    /// were empty before are none of the purge's business.
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
            // What engines pass over is no file of a partition, nor is the mark of a folder.
            let is_file = |key: &String| !key.ends_with('/') && !hidden(key) && !gone.contains(key);
            Ok(folders(listing.iter().map(|o| o.key).filter(is_file)))
        };
        let here = occupied(&place.prefix).await?;
        let mut emptied = Vec::new();
        for partition in &self.partitions {
            let Some(folder) = partition.path_in(&place.base).filter(|f| touched.contains(*f)) else { continue };
            let inside = place.prefix.is_empty() || folder == place.prefix || is_below(folder, &place.prefix);
            let left = if inside { here.contains(folder) } else { occupied(folder).await?.contains(folder) };
            if !left {
                emptied.push(partition.clone());
            }
        }
        Ok(emptied)
    }

    /// Drops them, and returns those that the catalog has no more.
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
        let done = emptied.into_iter().filter(|p| dropped.iter().all(|(values, _)| *values != p.values)).collect();
        dropped.into_iter().for_each(|(_, e)| failed.note(Err(e)));
        done
    }
}

/// All folders that these keys are in, the outer ones too.
fn folders(keys: impl Iterator<Item = String>) -> HashSet<String> {
    let mut folders = HashSet::new();
    for key in keys {
        let mut at = key.as_str();
        while let Some((folder, _)) = at.rsplit_once('/') {
            if !folders.insert(folder.to_owned()) {
                break;
            }
            at = folder;
        }
    }
    folders
}
