//! Forgotten keys: keys of erased rows, whose records are not stored any more.

use std::collections::BTreeSet;

use biscuit_change::{ChangeBatch, ChangeOp, RefusedRecord};
use biscuit_core::{Error, Result};
use biscuit_dataset::Dataset;
use biscuit_journal::{Journal, TableHead};
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{RawType, TupleEncoder, TuplePurpose, encode_integer, encode_raw, split_tuple};
use biscuit_schema::internal::{hex_bytes, hex_text};
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

use crate::codes;
use crate::table::stored_spec::stored_spec;

/// Name of the state file with the forgotten keys.
pub(crate) const FORGOTTEN: &str = "forgotten";

const FORMAT: u32 = 2;

/// Salted SHA-256 digest of a key, truncated to 16 bytes.
type KeyDigest = [u8; 16];

/// The forgotten keys of a table. Records of such a key change nothing, whatever their order is: neither old input
/// that is read again nor new input restores the subject.
///
/// A key is stored as a salted SHA-256 digest, so that no state contains its value. The salt is stored with the
/// digests: anyone with access to the state root can try all values of a small domain, such as the integers up to a
/// million.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErasedKeys {
    salt: String,
    marks: BTreeSet<KeyDigest>,
}

#[derive(Serialize, Deserialize)]
struct StoredErasedKeys {
    format: u32,
    salt: String,
    digests: Vec<String>,
}

impl ErasedKeys {
    /// Loads the forgotten keys of a version of a table.
    ///
    /// # Errors
    /// `Diverged` if they cannot be read, `NewerFormat` or `OlderFormat`, and the errors of the journal.
    pub async fn load(journal: &Journal, head: &TableHead) -> Result<Self> {
        let Some(file) = head.state.get(FORGOTTEN) else { return Ok(Self::default()) };
        let bytes = journal.read_state(head, file).await?;
        let damaged =
            || Error::new(biscuit_journal::codes::DIVERGED, "the state file of forgotten keys cannot be read");
        let stored: StoredErasedKeys = serde_json::from_slice(&bytes).map_err(|e| damaged().with_source(e))?;
        if stored.format > FORMAT {
            let message = format!(
                "the forgotten keys are in format {}, and this version reads up to {FORMAT}; use a newer version",
                stored.format
            );
            return Err(Error::new(biscuit_journal::codes::NEWER_FORMAT, message));
        }
        if stored.format < FORMAT {
            let message = format!(
                "the forgotten keys are in format {}, which development versions of Biscuit before 0.1.0 wrote; this version reads format {FORMAT}",
                stored.format
            );
            return Err(Error::new(biscuit_journal::codes::OLDER_FORMAT, message));
        }
        let marks = stored.digests.iter().map(|hex| decode_hex(hex)).collect::<Option<BTreeSet<KeyDigest>>>();
        Ok(Self { salt: stored.salt, marks: marks.ok_or_else(damaged)? })
    }

    /// Sets a salt if there is none yet. Digests depend on the salt, so it must never change.
    pub(crate) fn with_salt(mut self, salt: impl FnOnce() -> String) -> Self {
        if self.salt.is_empty() {
            self.salt = salt();
        }
        self
    }

    /// Returns the content of the state file.
    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        let digests = self.marks.iter().map(|mark| hex_text(mark)).collect();
        let stored = StoredErasedKeys { format: FORMAT, salt: self.salt.clone(), digests };
        let bytes = serde_json::to_vec(&stored);
        bytes.map(Into::into).map_err(|e| Error::internal("forgotten keys could not be written").with_source(e))
    }

    /// Returns whether no key was forgotten.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Returns the number of digests.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Returns the digest of an encoded key, or of some of its columns. Names of columns are separated by zero bytes,
    /// so that different names cannot give the same input.
    fn digest(&self, columns: &[&str], encoded: &[u8]) -> KeyDigest {
        let mut digest = Sha256::new();
        digest.update(&self.salt);
        for column in columns {
            digest.update([0]);
            digest.update(column);
        }
        digest.update([0, 0]);
        digest.update(encoded);
        let digest = digest.finalize();
        *digest.first_chunk().expect("a digest of SHA-256 has 32 bytes")
    }

    /// Forgets all keys with this value in a column, in all encodings of the value. Returns whether the value was not
    /// forgotten before.
    pub(crate) fn add_value(&mut self, column: &str, value: &str, kind: Option<&DataType>) -> bool {
        let mut new = false;
        for encoded in possible_encodings(value, kind) {
            new |= self.marks.insert(self.digest(&[column], &encoded));
        }
        new
    }

    /// Forgets a single key. Returns whether it was not forgotten before.
    pub(crate) fn add_key(&mut self, spec: &MergeSpec, key: &[u8]) -> bool {
        let columns: Vec<&str> = spec.key.iter().map(String::as_str).collect();
        !self.contains(spec, key) && self.marks.insert(self.digest(&columns, key))
    }

    /// Returns whether a key, encoded as by [`key_and_order`](crate::periods::retraction::key_and_order), was
    /// forgotten, as a whole or by the value of one of its columns.
    pub fn contains(&self, spec: &MergeSpec, key: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        let columns: Vec<&str> = spec.key.iter().map(String::as_str).collect();
        if self.marks.contains(&self.digest(&columns, key)) {
            return true;
        }
        let values = if columns.len() > 1 { split_tuple(key).unwrap_or_default() } else { vec![] };
        columns.iter().zip(values).any(|(column, value)| self.marks.contains(&self.digest(&[column], value)))
    }

    /// Returns a batch without the records of forgotten keys, and the number of removed records. If one half of a key
    /// change is of a forgotten key, the other half becomes an ordinary delete or create.
    ///
    /// # Errors
    /// `MissingColumn`, `KeyType`.
    pub fn without_forgotten(&self, batch: ChangeBatch, spec: &MergeSpec) -> Result<(ChangeBatch, u64)> {
        if self.is_empty() || batch.ops.is_empty() {
            return Ok((batch, 0));
        }
        let keys = TupleEncoder::new(&batch.rows, &spec.key, TuplePurpose::Key, &format!("`{}`", batch.file))?;
        let (mut others, mut key) = (Vec::with_capacity(batch.ops.len()), Vec::new());
        for (row, op) in (0..).zip(&batch.ops) {
            key.clear();
            // A record without a valid key is refused later, when it is merged.
            let known = *op != ChangeOp::Truncate && keys.encode(row as usize, &mut key).is_ok();
            if !(known && self.contains(spec, &key)) {
                others.push(row);
            }
        }
        let count = (batch.ops.len() - others.len()) as u64;
        let mut batch = if count == 0 { batch } else { batch.select_rows(&others)? };
        let mut links = Vec::with_capacity(batch.key_changes.len());
        for link in std::mem::take(&mut batch.key_changes) {
            let other = TupleEncoder::new(&link.key, &spec.key, TuplePurpose::Key, "the header of a key update")?;
            key.clear();
            if other.encode(0, &mut key).is_err() || !self.contains(spec, &key) {
                links.push(link);
            }
        }
        batch.key_changes = links;
        Ok((batch, count))
    }

    /// Removes the records of forgotten keys from several batches, as [`without_forgotten`](Self::without_forgotten).
    ///
    /// # Errors
    /// As [`without_forgotten`](Self::without_forgotten).
    pub fn without_all(&self, batches: Vec<ChangeBatch>, spec: &MergeSpec) -> Result<(Vec<ChangeBatch>, u64)> {
        let (mut others, mut count) = (Vec::with_capacity(batches.len()), 0);
        for batch in batches {
            let (batch, theirs) = self.without_forgotten(batch, spec)?;
            count += theirs;
            others.push(batch);
        }
        Ok((others, count))
    }

    /// Removes invalid records of forgotten keys. Only records in JSON are recognised.
    pub(crate) fn without_refused(&self, refused: Vec<RefusedRecord>, spec: &MergeSpec) -> Vec<RefusedRecord> {
        if self.is_empty() {
            return refused;
        }
        let theirs =
            |r: &RefusedRecord| serde_json::from_slice::<Value>(&r.raw).is_ok_and(|json| self.is_in(&json, spec));
        refused.into_iter().filter(|r| !theirs(r)).collect()
    }

    /// Whether an object at any depth has a forgotten key. In Debezium envelopes, for example, keys are in `before`
    /// and `after`.
    fn is_in(&self, json: &Value, spec: &MergeSpec) -> bool {
        match json {
            Value::Object(fields) => self.is_of(fields, spec) || fields.values().any(|value| self.is_in(value, spec)),
            Value::Array(items) => items.iter().any(|item| self.is_in(item, spec)),
            _ => false,
        }
    }

    /// Whether the fields of an object contain a forgotten key. The type of a field is not known, so all encodings of
    /// its value are tried.
    fn is_of(&self, fields: &Map<String, Value>, spec: &MergeSpec) -> bool {
        let of_column = |column: &String| match fields.get(column) {
            Some(Value::String(text)) => possible_encodings(text, None),
            Some(Value::Number(number)) => possible_encodings(&number.to_string(), None),
            _ => vec![],
        };
        let by_column: Vec<Vec<Vec<u8>>> = spec.key.iter().map(of_column).collect();
        let has = |column: &String, encoded: &Vec<u8>| self.marks.contains(&self.digest(&[column], encoded));
        let mut columns = spec.key.iter().zip(&by_column);
        if columns.any(|(column, all)| all.iter().any(|encoded| has(column, encoded))) {
            return true;
        }
        // All combinations of the encodings of the key columns (a Cartesian product). A missing column leaves none.
        let mut tuples: Vec<Vec<u8>> = vec![vec![]];
        for all in &by_column {
            tuples =
                tuples.iter().flat_map(|head| all.iter().map(move |tail| [&head[..], &tail[..]].concat())).collect();
        }
        tuples.iter().any(|tuple| self.contains(spec, tuple))
    }
}

/// Returns the encodings that a value may have in change records, each as a tuple of one value: as text, as an
/// integer, and in the type of the column. The integer and the typed value are included only if their text is exactly
/// the value: 007 is not the integer 7.
fn possible_encodings(value: &str, kind: Option<&DataType>) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    encode_raw(value.as_bytes(), RawType::Text, &mut text);
    let mut all = vec![text];
    if let Some(integer) = value.parse::<i64>().ok().filter(|integer| integer.to_string() == value) {
        let mut encoded = Vec::new();
        encode_integer(integer, &mut encoded);
        all.push(encoded);
    }
    let of_kind = kind.and_then(|kind| {
        let array: ArrayRef = Arc::new(StringArray::from(vec![value]));
        let typed = cast(&array, kind).ok().filter(|typed| typed.is_valid(0))?;
        let back = cast(&typed, &DataType::Utf8).ok()?;
        if back.as_string::<i32>().value(0) != value {
            return None;
        }
        let schema = Schema::new(vec![Field::new("key", kind.clone(), true)]);
        let row = RecordBatch::try_new(Arc::new(schema), vec![typed]).ok()?;
        let encoder = TupleEncoder::new(&row, &["key".to_owned()], TuplePurpose::Key, "a key").ok()?;
        let mut encoded = Vec::new();
        encoder.encode(0, &mut encoded).ok().map(|()| encoded)
    });
    all.extend(of_kind.filter(|encoded| !all.contains(encoded)));
    all
}

fn decode_hex(text: &str) -> Option<KeyDigest> {
    hex_bytes(text)?.try_into().ok()
}

/// Ends the forgetting of these values in a key column: records with them change the table again. Old input that is
/// read again also restores their rows, because their deletes are not remembered any more. Returns the number of
/// values that had been forgotten.
///
/// # Errors
/// `NotForgotten` if none of them was forgotten; `Conflict` if another run committed first; the errors of the
/// journal.
pub async fn readmit(dataset: &Dataset, column: &str, values: &[String]) -> Result<u64> {
    let snapshot = dataset.observe().await?;
    let (journal, head) = (dataset.journal(), &snapshot.observed.head);
    let mut forgotten = ErasedKeys::load(journal, head).await?;
    let schema = snapshot.schema(&snapshot.open_files().await?)?;
    let kind = schema.field_with_name(column).ok().map(Field::data_type);
    let mut count = 0;
    for value in values {
        let marks: Vec<KeyDigest> =
            possible_encodings(value, kind).iter().map(|e| forgotten.digest(&[column], e)).collect();
        count += u64::from(marks.iter().filter(|mark| forgotten.marks.remove(*mark)).count() > 0);
    }
    if count == 0 || stored_spec(&head.properties)?.is_none() {
        let message = format!("none of the values of `{column}` is a forgotten key of the table");
        return Err(Error::new(codes::NOT_FORGOTTEN, message).with_column(column));
    }
    let snapshot = snapshot.with_encryption_of_files(&[]).await?;
    let mut table_commit = journal.begin_commit(&snapshot.observed);
    let (name, encrypted) = snapshot.encrypted_property();
    table_commit.with_property(name, encrypted);
    match forgotten.is_empty() {
        true => table_commit.without_state(FORGOTTEN),
        false => table_commit.with_state(FORGOTTEN, forgotten.to_bytes()?).await?,
    }
    table_commit.with_report(json!({"readmitted": count}));
    table_commit.commit().await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(key: &[&str]) -> MergeSpec {
        MergeSpec::new(key.to_vec(), ["seq"]).expect("the specification is valid")
    }

    fn forgotten() -> ErasedKeys {
        ErasedKeys::default().with_salt(|| "salt".to_owned())
    }

    #[test]
    fn value_is_forgotten_as_text_and_number_and_in_the_type_of_its_column() {
        let mut all = forgotten();
        assert!(all.add_value("id", "7", Some(&DataType::Decimal128(10, 0))));
        assert!(!all.add_value("id", "7", None));
        assert!(all.add_value("day", "2024-01-02", Some(&DataType::Date32)));
        let has = |key: &str, kind: &DataType, value: &str| {
            possible_encodings(value, Some(kind)).iter().all(|encoded| all.contains(&spec(&[key]), encoded))
        };
        assert!(has("id", &DataType::Utf8, "7") && has("id", &DataType::Int16, "7"));
        assert!(has("day", &DataType::Date32, "2024-01-02"));
        assert!(!has("id", &DataType::Int64, "8") && !has("day", &DataType::Int64, "7"));
    }

    #[test]
    fn keys_are_forgotten_by_one_column_or_as_a_whole() {
        let mut all = forgotten();
        let spec = spec(&["tenant", "id"]);
        let tuple = |tenant: &str, id: i64| {
            let mut key = Vec::new();
            encode_raw(tenant.as_bytes(), RawType::Text, &mut key);
            encode_integer(id, &mut key);
            key
        };
        all.add_value("id", "7", None);
        all.add_key(&spec, &tuple("a", 9));
        assert!(
            all.contains(&spec, &tuple("a", 7))
                && all.contains(&spec, &tuple("b", 7))
                && all.contains(&spec, &tuple("a", 9))
        );
        assert!(!all.contains(&spec, &tuple("b", 9)) && !all.contains(&spec, &tuple("7", 8)));
        for (json, theirs) in [
            (r#"{"before":{"id":7}}"#, true),
            (r#"{"after":{"id":9,"tenant":"a"}}"#, true),
            (r#"{"after":{"id":9,"tenant":"b"}}"#, false),
            (r#"[{"id":"7"}]"#, true),
            (r#"{"other":7}"#, false),
        ] {
            assert_eq!(all.is_in(&serde_json::from_str(json).expect("the JSON is valid"), &spec), theirs, "{json}");
        }
    }

    #[test]
    fn stored_digests_are_loaded_and_contain_no_value() {
        let mut all = forgotten();
        all.add_value("email", "canary@example.com", None);
        let bytes = all.to_bytes().expect("the bytes are written");
        assert!(!String::from_utf8_lossy(&bytes).contains("canary"));
        let stored: StoredErasedKeys = serde_json::from_slice(&bytes).expect("the JSON is valid");
        let marks = stored.digests.iter().map(|m| decode_hex(m).expect("the mark is valid")).collect();
        assert_eq!(ErasedKeys { salt: stored.salt, marks }, all);
        assert_eq!([decode_hex("0"), decode_hex("zz"), decode_hex(&"é".repeat(16))], [None; 3]);
    }
}
