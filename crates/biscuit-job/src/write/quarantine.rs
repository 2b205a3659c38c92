//! Reads the quarantine of jobs with `[pii]`, whose records are sealed.

use biscuit_apply::quarantined_records;
use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_pii::PiiContext;
use biscuit_pii::encrypt::ValueEncryptor;
use serde_json::Value;

use crate::shape::treatment::{QUARANTINE, SEALED};

/// Returns the original text of a quarantined record. A record that is not sealed is returned unchanged.
///
/// # Errors
/// `CannotDecrypt` for a record that was sealed with other keys or for another table; `NoKeys`.
pub async fn unseal_record(means: &PiiContext, table: &str, raw: &[u8]) -> Result<Vec<u8>> {
    let sealed = std::str::from_utf8(raw).ok().and_then(|raw| raw.strip_prefix(SEALED));
    let Some(sealed) = sealed else { return Ok(raw.to_vec()) };
    let roots = means.roots.clone().ok_or_else(|| {
        Error::new(biscuit_pii::codes::NO_KEYS, "the records are sealed, but the policy names no key file; add `keys`")
    })?;
    Ok(ValueEncryptor::new(roots, table).unseal(QUARANTINE, sealed).await?.to_vec())
}

/// Quarantined records of subjects.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SubjectQuarantine {
    /// Records of the subjects.
    pub theirs: Vec<RefusedRecord>,
    /// Number of records whose subject is not known: they are not JSON, or cannot be decrypted.
    pub unknown: u64,
}

/// Finds the quarantined records of subjects in a table, sealed or not. A record belongs to a subject if it is JSON
/// and the field `column` has one of the values at any depth, such as before or after an update. `table` is the name
/// that sealed records are bound to.
///
/// # Errors
/// Errors of the journal.
pub async fn quarantined_of_subjects(
    dataset: &Dataset,
    means: &PiiContext,
    table: &str,
    column: &str,
    subjects: &[String],
) -> Result<SubjectQuarantine> {
    let mut all = SubjectQuarantine::default();
    for record in quarantined_records(dataset).await? {
        let raw = unseal_record(means, table, &record.refused.raw).await.ok();
        match raw.and_then(|raw| serde_json::from_slice::<Value>(&raw).ok()) {
            Some(json) if has_value(&json, column, subjects) => all.theirs.push(record.refused),
            Some(_) => {}
            None => all.unknown += 1,
        }
    }
    Ok(all)
}

/// Returns whether a field with this name has one of the values, at any depth.
fn has_value(json: &Value, column: &str, values: &[String]) -> bool {
    let is = |value: &Value| match value {
        Value::String(text) => values.contains(text),
        Value::Number(number) => values.contains(&number.to_string()),
        _ => false,
    };
    match json {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| (name == column && is(value)) || has_value(value, column, values))
        }
        Value::Array(items) => items.iter().any(|item| has_value(item, column, values)),
        _ => false,
    }
}
