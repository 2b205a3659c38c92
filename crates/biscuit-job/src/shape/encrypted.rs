//! Columns that the Parquet files of an output encrypt: which they are, and the ways in which their values could
//! reach plain text.

use std::collections::BTreeSet;

use biscuit_core::{Error, Result};
use biscuit_dataset::ParquetOptions;
use biscuit_schema::{Contract, ContractColumn};
use datafusion::arrow::datatypes::SchemaRef;

use crate::work::OutputWork;

impl OutputWork<'_> {
    /// Sets the files of the output to encrypt the columns that the policy demands and the columns that the table
    /// encrypted before. `sources` are the columns of the rows of each source, and whether its rows may have more
    /// columns.
    ///
    /// # Errors
    /// `EncryptedColumn` if the values would also be in a column that is not encrypted; `NoFileKeys` without keys.
    pub(crate) async fn encrypt_files(&mut self, sources: &[(SchemaRef, bool)], own: Option<&Contract>) -> Result<()> {
        let root = |path: &str| path.split('.').next().unwrap_or(path).to_owned();
        let is_there =
            |path: &&str| sources.iter().any(|(schema, extra)| *extra || schema.index_of(&root(path)).is_ok());
        // The policy applies to all sources, so this output may lack some of its columns.
        let columns = self.guards.iter().flat_map(|guard| guard.in_files()).filter(is_there);
        let columns: BTreeSet<String> = columns.map(str::to_owned).collect();
        if !columns.is_empty() {
            let keys = self.snapshot.dataset().encryption().cloned();
            let keys = keys.ok_or_else(|| Error::internal("columns are encrypted without keys"))?;
            self.snapshot = self.snapshot.clone().with_encryption(keys.with_columns(columns));
        }
        (self.snapshot, self.parquet) = self.snapshot.clone().for_writing(&ParquetOptions::default(), &[]).await?;
        // If the whole file is encrypted, every column is, and no copy of a value is in plain text.
        let encryption = self.parquet.encryption.as_ref().filter(|encryption| !encryption.encrypts_everything());
        let Some(encryption) = encryption else { return Ok(()) };
        let elsewhere = |column: &str, how: &str| {
            let message = format!(
                "column `{column}` is encrypted in the files of this output, but {how}; encrypt its values instead"
            );
            Err(Error::new(biscuit_dataset::codes::ENCRYPTED_COLUMN, message).with_column(column))
        };
        let first = encryption.columns().first().map_or("", String::as_str);
        if self.spec.sql.is_some() {
            return elsewhere(first, "a query may copy its values to any other column");
        }
        if let Some((name, derived)) = self.spec.derive.iter().find(|(_, derived)| encryption.covers(&derived.from)) {
            return elsewhere(&derived.from, &format!("`{name}` is derived from it and is not encrypted"));
        }
        // The output's contract may rename the column. Encryption is by name, so the new name would be in plain text.
        for path in encryption.columns() {
            let root = root(path);
            let takes = |c: &ContractColumn| {
                let was = std::iter::once(&c.name).chain(&c.reading.renamed_from);
                c.name != root && was.into_iter().any(|name| name.eq_ignore_ascii_case(&root))
            };
            if let Some(other) = own.and_then(|own| own.columns.iter().find(|c| takes(c))) {
                return elsewhere(path, &format!("the output's contract renames it to `{}`", other.name));
            }
        }
        Ok(())
    }
}
