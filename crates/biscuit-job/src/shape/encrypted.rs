//! Columns that the Parquet files of an output encrypt: which they are, and the ways in which their values could
//! reach plain text.

use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{ParquetOptions, TableVersion};
use biscuit_schema::{Contract, ContractColumn};
use datafusion::arrow::datatypes::SchemaRef;

use crate::output_run::OutputRun;
use crate::shape::treatment::TreatedSource;
use crate::spec::OutputSpec;

/// The table of an output, after it was decided which columns its new files encrypt.
///
/// Only [`encrypt_files`] makes one, so no file is written before that decision.
pub(crate) struct WritableTable {
    pub(crate) snapshot: TableVersion,
    /// Options for the files of the output.
    pub(crate) parquet: ParquetOptions,
}

/// Returns the table with the encryption of its new files: they encrypt the columns that the policy demands and the
/// columns that the table encrypted before. `sources` are the columns of the rows of each source, and whether its rows
/// may have more columns; `own` is the contract of the output.
///
/// # Errors
/// `EncryptedColumn` if the values would also be in a column that is not encrypted; `NoFileKeys` without keys.
pub(crate) async fn encrypt_files(
    output: &OutputRun<'_>,
    guards: &[Arc<TreatedSource>],
    sources: &[(SchemaRef, bool)],
    own: Option<&Contract>,
) -> Result<WritableTable> {
    let is_there = |path: &&str| sources.iter().any(|(schema, extra)| *extra || schema.index_of(&root(path)).is_ok());
    // The policy applies to all sources, so this output may lack some of its columns.
    let columns = guards.iter().flat_map(|guard| guard.in_files()).filter(is_there);
    let columns: BTreeSet<String> = columns.map(str::to_owned).collect();
    let mut snapshot = output.snapshot.clone();
    if !columns.is_empty() {
        let keys = snapshot.dataset_encryption().cloned();
        let keys = keys.ok_or_else(|| Error::internal("columns are encrypted without keys"))?;
        snapshot = snapshot.with_encryption(keys.with_columns(columns));
    }
    let (snapshot, parquet) = snapshot.for_writing(&ParquetOptions::default(), &[]).await?;
    let table = WritableTable { snapshot, parquet };
    check_copies(output.spec, &table.parquet, own)?;
    Ok(table)
}

/// Checks that no value of an encrypted column is also in a column that is not encrypted.
fn check_copies(spec: &OutputSpec, parquet: &ParquetOptions, own: Option<&Contract>) -> Result<()> {
    // If the whole file is encrypted, every column is, and no copy of a value is in plain text.
    let encryption = parquet.encryption.as_ref().filter(|encryption| !encryption.encrypts_everything());
    let Some(encryption) = encryption else { return Ok(()) };
    let elsewhere = |column: &str, how: &str| {
        let message = format!(
            "column `{column}` is encrypted in the files of this output, but {how}; encrypt its values instead"
        );
        Err(Error::new(biscuit_dataset::codes::ENCRYPTED_COLUMN, message).with_column(column))
    };
    let first = encryption.columns().first().map_or("", String::as_str);
    if spec.sql.is_some() {
        return elsewhere(first, "a query may copy its values to any other column");
    }
    if let Some((name, derived)) = spec.derive.iter().find(|(_, derived)| encryption.covers(&derived.from)) {
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

/// Returns the top-level column of a path.
fn root(path: &str) -> String {
    path.split('.').next().unwrap_or(path).to_owned()
}
