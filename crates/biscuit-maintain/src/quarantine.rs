//! Quarantined records: their reasons in groups, and their sealed content.

use std::collections::BTreeMap;

use biscuit_apply::QuarantinedRecord;
use biscuit_core::Result;
use biscuit_job::unseal_record;
use biscuit_pii::PiiContext;
use biscuit_pii::tokens::AccessRequest;
use serde::Serialize;

/// Quarantined records of one file with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QuarantineGroup {
    /// Code of the reason.
    pub code: String,
    /// Column that the reason names.
    pub column: Option<String>,
    /// Input file of the records.
    pub file: String,
    /// Number of records.
    pub records: u64,
}

/// Groups quarantined records by code, column and file, in this order.
#[must_use]
pub fn group_quarantined(records: &[QuarantinedRecord]) -> Vec<QuarantineGroup> {
    let mut counts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for r in records.iter().map(|q| &q.refused) {
        *counts.entry((&r.code, r.column.as_deref().unwrap_or_default(), &r.file)).or_default() += 1;
    }
    let group = |((code, column, file), records): ((&str, &str, &str), u64)| QuarantineGroup {
        code: code.to_owned(),
        column: (!column.is_empty()).then(|| column.to_owned()),
        file: file.to_owned(),
        records,
    };
    counts.into_iter().map(group).collect()
}

/// Decrypts the records that a job has sealed. `table` is the name that sealed records are bound to.
///
/// The access is recorded before anything is decrypted, so that no access is missing in the audit.
///
/// # Errors
/// The errors of the audit; `CannotDecrypt` and `NoKeys` of [`unseal_record`].
pub async fn reveal_quarantined(
    mut records: Vec<QuarantinedRecord>,
    means: &PiiContext,
    table: &str,
    access: &AccessRequest,
) -> Result<Vec<QuarantinedRecord>> {
    access.record(table, "quarantine", records.len() as u64, records.len() as u64)?;
    for record in &mut records {
        record.refused.raw = unseal_record(means, table, &record.refused.raw).await?;
    }
    Ok(records)
}
