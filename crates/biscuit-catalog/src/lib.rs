#![doc = include_str!("../README.md")]

mod error;
mod partition;
mod table;

use aws_sdk_glue::Client;
use aws_sdk_glue::types::PartitionValueList;
use biscuit_core::{Error, Result};

use crate::error::{glue_error, partition_error};
pub use crate::partition::CatalogPartition;
pub use crate::table::TableName;

/// What `BatchDeletePartition` takes at once (Glue's API reference).
const BATCH: usize = 25;

/// A Glue Data Catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    client: Client,
    id: Option<String>,
}

/// What became of partitions that were to be dropped.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct DroppedPartitions {
    /// How many the catalog has dropped.
    pub dropped: u64,
    /// How many it did not have any more.
    pub absent: u64,
    /// The values of those that it has not dropped, each with its reason.
    pub failed: Vec<(Vec<String>, Error)>,
}

impl Catalog {
    /// The catalog of the client's account and region.
    pub fn new(client: Client) -> Self {
        Self { client, id: None }
    }

    /// The catalog of another account.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The partitions of a table, in the order of the catalog.
    ///
    /// # Errors
    /// `NoSuchTable`, `Denied`, `CatalogUnavailable`, `Refused`, `NoCredentials`.
    pub async fn partitions(&self, table: &TableName) -> Result<Vec<CatalogPartition>> {
        let ask = self.client.get_partitions().set_catalog_id(self.id.clone());
        let ask = ask.database_name(&table.database).table_name(&table.table).exclude_column_schema(true);
        let mut pages = ask.into_paginator().send();
        let mut partitions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| glue_error("list the partitions of", table, e))?;
            partitions.extend(page.partitions.unwrap_or_default().into_iter().map(CatalogPartition::from));
        }
        Ok(partitions)
    }

    /// Drops partitions from the catalog, by their values. Their files are not touched.
    ///
    /// # Errors
    /// Those of a whole request: `NoSuchTable`, `Denied`, `CatalogUnavailable`, `Refused`. Those before it are dropped by then, and to drop all of
    /// them again is right.
    pub async fn drop_partitions(
        &self,
        table: &TableName,
        partitions: &[CatalogPartition],
    ) -> Result<DroppedPartitions> {
        let mut all = DroppedPartitions::default();
        for batch in partitions.chunks(BATCH) {
            let values =
                |p: &CatalogPartition| PartitionValueList::builder().set_values(Some(p.values.clone())).build();
            let values: Vec<_> = batch.iter().map(values).collect::<Result<_, _>>().map_err(|e| {
                Error::usage("InvalidPartition", "a partition without values cannot be dropped").with_source(e)
            })?;
            let ask = self.client.batch_delete_partition().set_catalog_id(self.id.clone());
            let ask = ask.database_name(&table.database).table_name(&table.table);
            let answer = ask.set_partitions_to_delete(Some(values)).send().await;
            let answer = answer.map_err(|e| glue_error("drop partitions of", table, e))?;
            all.dropped += batch.len() as u64;
            for failed in answer.errors.unwrap_or_default() {
                all.dropped -= 1;
                let values = failed.partition_values.unwrap_or_default();
                match partition_error(table, &values, failed.error_detail) {
                    None => all.absent += 1,
                    Some(e) => all.failed.push((values, e)),
                }
            }
        }
        tracing::debug!(%table, dropped = all.dropped, absent = all.absent, "dropped partitions of the catalog");
        Ok(all)
    }
}
