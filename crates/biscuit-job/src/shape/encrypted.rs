//! Columns that the files of an output encrypt.

use std::collections::BTreeSet;

use biscuit_core::{Error, Result};
use biscuit_dataset::ParquetOptions;
use biscuit_schema::{Contract, ContractColumn};
use datafusion::arrow::datatypes::SchemaRef;

use crate::work::OutputWork;

impl OutputWork<'_> {
    /// Has the files of the output encrypt the columns that the policy wants so, and those that it had encrypted before. `sources` are the columns of the
    /// rows, and whether these may have more.
    ///
    /// # Errors
    /// `EncryptedColumn` where their values would be in other columns, too, which are not; `NoFileKeys`.
    pub(crate) async fn encrypt_files(&mut self, sources: &[(SchemaRef, bool)], own: Option<&Contract>) -> Result<()> {
        let root = |path: &str| path.split('.').next().unwrap_or(path).to_owned();
        let is_there =
            |path: &&str| sources.iter().any(|(schema, extra)| *extra || schema.index_of(&root(path)).is_ok());
        // A policy is one of all sources, of which this output need not have all columns.
        let columns = self.guards.iter().flat_map(|guard| guard.in_files()).filter(is_there);
        let columns: BTreeSet<String> = columns.map(str::to_owned).collect();
        if !columns.is_empty() {
            let keys = self.snapshot.dataset().encryption().cloned();
            let keys = keys.ok_or_else(|| Error::internal("columns without keys"))?;
            self.snapshot = self.snapshot.clone().with_encryption(keys.with_columns(columns));
        }
        (self.snapshot, self.parquet) = self.snapshot.clone().for_writing(&ParquetOptions::default(), &[]).await?;
        // Where everything is encrypted, no column is one where it would be in the clear.
        let encryption = self.parquet.encryption.as_ref().filter(|encryption| !encryption.encrypts_everything());
        let Some(encryption) = encryption else { return Ok(()) };
        let elsewhere = |column: &str, how: &str| {
            let message = format!(
                "column `{column}` is encrypted inside of the files of this output, and {how}: encrypt its values instead"
            );
            Err(Error::usage("EncryptedColumn", message).with_column(column))
        };
        let first = encryption.columns().first().map_or("", String::as_str);
        if self.spec.sql.is_some() {
            return elsewhere(first, "a query may put its values into any other column");
        }
        if let Some((name, derived)) = self.spec.derive.iter().find(|(_, derived)| encryption.covers(&derived.from)) {
            return elsewhere(&derived.from, &format!("`{name}` is derived from it, in the clear"));
        }
        // The output's own contract may give it another name.
        for path in encryption.columns() {
            let root = root(path);
            let takes = |c: &ContractColumn| {
                let was = std::iter::once(&c.name).chain(&c.reading.renamed_from);
                c.name != root && was.into_iter().any(|name| name.eq_ignore_ascii_case(&root))
            };
            if let Some(other) = own.and_then(|own| own.columns.iter().find(|c| takes(c))) {
                return elsewhere(path, &format!("the output's contract has it as `{}`", other.name));
            }
        }
        Ok(())
    }
}
