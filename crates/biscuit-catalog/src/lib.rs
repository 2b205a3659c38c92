#![doc = include_str!("../README.md")]

pub mod codes;
mod error;
mod partition;
mod table;

use aws_sdk_glue::Client;
use aws_sdk_glue::types::PartitionValueList;
use biscuit_core::{Error, Result};

use crate::error::{glue_error, partition_error};
pub use crate::partition::CatalogPartition;
pub use crate::table::TableName;

/// Maximum number of partitions in one `BatchDeletePartition` request (API reference of Glue).
const BATCH: usize = 25;

/// A Glue Data Catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    client: Client,
    id: Option<String>,
}

/// Result of [`Catalog::drop_partitions`]. The three parts add up to the number of partitions in the call.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct DroppedPartitions {
    /// Number of partitions that the catalog dropped.
    pub dropped: u64,
    /// Number of partitions that the catalog did not have (any more).
    pub absent: u64,
    /// Values of each partition that was not dropped, with the reason.
    pub failed: Vec<(Vec<String>, Error)>,
}

impl Catalog {
    /// Creates a catalog for the account and region of the client.
    pub fn new(client: Client) -> Self {
        Self { client, id: None }
    }

    /// Sets the catalog id: the id of the AWS account that owns the catalog. Default: the account of the client.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Lists all partitions of a table, in the order of the catalog.
    ///
    /// # Errors
    /// `NoSuchTable`, `Denied`, `CatalogUnavailable`, `Refused`, `NoCredentials`.
    pub async fn partitions(&self, table: &TableName) -> Result<Vec<CatalogPartition>> {
        let ask = self.client.get_partitions().set_catalog_id(self.id.clone());
        // Each partition repeats the columns of the table; without them the responses are much smaller.
        let ask = ask.database_name(&table.database).table_name(&table.table).exclude_column_schema(true);
        let mut pages = ask.into_paginator().send();
        let mut partitions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| glue_error("list the partitions of", table, e))?;
            partitions.extend(page.partitions.unwrap_or_default().into_iter().map(CatalogPartition::from));
        }
        Ok(partitions)
    }

    /// Drops partitions from the catalog, identified by their values. The files of the partitions are not touched.
    ///
    /// A partition that the catalog does not have is not an error, so that the call can be repeated.
    ///
    /// # Errors
    /// `NoSuchTable`, `Denied`, `CatalogUnavailable`, `Refused`, `NoCredentials` if a request fails as a whole.
    /// Earlier requests have dropped their partitions by then; repeat the call with all partitions.
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
                Error::new(codes::INVALID_PARTITION, "cannot drop a partition without values").with_source(e)
            })?;
            let ask = self.client.batch_delete_partition().set_catalog_id(self.id.clone());
            let ask = ask.database_name(&table.database).table_name(&table.table);
            let answer = ask.set_partitions_to_delete(Some(values)).send().await;
            let answer = answer.map_err(|e| glue_error("drop partitions of", table, e))?;
            // The response lists failures only; every other partition of the batch was dropped.
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
        tracing::debug!(%table, dropped = all.dropped, absent = all.absent, "dropped partitions from the catalog");
        Ok(all)
    }
}
