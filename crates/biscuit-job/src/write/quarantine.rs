//! Records that jobs with `[pii]` have put aside.

use biscuit_change::RefusedRecord;
use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_merge::quarantined;
use biscuit_pii::{PiiContext, ValueEncryptor};
use serde_json::Value;

use crate::shape::treatment::{QUARANTINE, SEALED};

/// A record of the quarantine of a job with a policy, as it came.
///
/// # Errors
/// `CannotDecrypt` for one that other keys have sealed, or for another table; `NoKeys`.
pub async fn unsealed(means: &PiiContext, table: &str, raw: &[u8]) -> Result<Vec<u8>> {
    let sealed = std::str::from_utf8(raw).ok().and_then(|raw| raw.strip_prefix(SEALED));
    let Some(sealed) = sealed else { return Ok(raw.to_vec()) };
    let roots = means
        .roots
        .clone()
        .ok_or_else(|| Error::usage("NoKeys", "records are sealed, and the policy names no key file"))?;
    Ok(ValueEncryptor::new(roots, table).unseal(QUARANTINE, sealed).await?.to_vec())
}

/// Whose records are in the quarantine of a table.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SubjectQuarantine {
    /// Those of the subjects.
    pub theirs: Vec<RefusedRecord>,
    /// How many there are of which it is not known whose they are: they are not JSON, or do not open.
    pub unknown: u64,
}

/// The records of subjects in the quarantine of a table: of JSON, whose column of this name has one of these values, however deep (before or after an
/// update); sealed or not. `table` is the name that is bound into what is sealed.
///
/// # Errors
/// Those of the journal.
pub async fn put_aside_of(
    dataset: &Dataset,
    (means, table): (&PiiContext, &str),
    column: &str,
    subjects: &[String],
) -> Result<SubjectQuarantine> {
    let mut all = SubjectQuarantine::default();
    for record in quarantined(dataset).await? {
        let raw = unsealed(means, table, &record.refused.raw).await.ok();
        match raw.and_then(|raw| serde_json::from_slice::<Value>(&raw).ok()) {
            Some(json) if has(&json, column, subjects) => all.theirs.push(record.refused),
            Some(_) => {}
            None => all.unknown += 1,
        }
    }
    Ok(all)
}

/// Whether a field of that name has one of these values, however deep.
fn has(json: &Value, column: &str, values: &[String]) -> bool {
    let is = |value: &Value| match value {
        Value::String(text) => values.contains(text),
        Value::Number(number) => values.contains(&number.to_string()),
        _ => false,
    };
    match json {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| (name == column && is(value)) || has(value, column, values))
        }
        Value::Array(items) => items.iter().any(|item| has(item, column, values)),
        _ => false,
    }
}
