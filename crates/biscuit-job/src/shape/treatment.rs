//! The `[pii]` section of a job. Rows are treated as soon as they are read, so nothing after it sees the original
//! values: not a query or its spill files, not a merge or its tombstones, not the statistics of files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use biscuit_change::{ChangeBatch, RefusedRecord};
use biscuit_core::{Error, Result};
use biscuit_dataset::encryption::{FileEncryption, FileKey, FileKeys, FilePart};
use biscuit_pii::encrypt::ValueEncryptor;
use biscuit_pii::keys::{KeyProvider, ParquetKey, ParquetKeys, ParquetPart};
use biscuit_pii::{HashKey, PiiContext, Policy, Protector, TreatmentStats};
use biscuit_schema::Contract;
use zeroize::Zeroizing;

use crate::codes;
use crate::spec::{OutputMode, invalid_spec};

/// Column name that sealed records of the quarantine are bound to, as associated data of the encryption.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Prefix of classes in the set of unseen names. No column path contains a space in this place.
const CLASS: &str = "class ";
/// Prefix of a sealed record.
pub(crate) const SEALED: &str = "biscuit-sealed:";

/// The treatment of the rows of one source.
#[derive(Debug)]
pub(crate) struct TreatedSource {
    protector: Protector,
    /// Encrypts quarantined records. `None` without keys.
    seal: Option<ValueEncryptor>,
    /// Keys of the tags that replace values in error details, by column.
    tags: BTreeMap<String, HashKey>,
    /// Columns and classes of the policy that no row has had so far.
    unseen: Mutex<BTreeSet<String>>,
    done: Mutex<BTreeMap<String, TreatmentStats>>,
}

impl TreatedSource {
    /// Compiles the policy for the rows of a source with this contract, and for an output.
    ///
    /// # Errors
    /// Errors of [`Protector::new`] and [`Protector::repeatable`].
    pub(crate) fn new(
        policy: &Policy,
        means: &PiiContext,
        output: &str,
        mode: OutputMode,
        contract: Option<&Contract>,
    ) -> Result<Self> {
        let columns = contract.map(|c| c.columns.as_slice()).unwrap_or_default();
        let classes: Vec<(&str, &str)> =
            columns.iter().filter_map(|c| Some((c.name.as_str(), c.pii.as_deref()?))).collect();
        let mut protector = Protector::new(policy, output, classes.iter().copied(), means)?.encrypting_files();
        if matches!(mode, OutputMode::Merge | OutputMode::Snapshot) {
            // A merge compares rows, and a rerun must produce the same rows: equal values must come out equal.
            protector = protector.repeatable(means)?;
        }
        let seal = means.roots.clone().map(|roots| ValueEncryptor::new(roots, protector.table()));
        let mut tags = BTreeMap::new();
        if let Some(roots) = &means.roots {
            for path in protector.columns() {
                let class = classes.iter().find(|(column, _)| *column == path).map_or(path, |(_, class)| class);
                tags.insert(path.to_owned(), HashKey::from_roots(roots, class)?);
            }
        }
        // A class counts as seen if the contract gives it to a column.
        let unmatched = policy.classes.keys().filter(|class| !classes.iter().any(|(_, of)| of == class));
        let unmatched = unmatched.map(|class| format!("{CLASS}{class}"));
        let unseen = Mutex::new(policy.columns.keys().cloned().chain(unmatched).collect());
        Ok(Self { protector, seal, tags, unseen, done: Mutex::default() })
    }

    /// Returns the columns after the treatment.
    ///
    /// # Errors
    /// Errors of treatments that do not fit their columns.
    pub(crate) async fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        self.mark_seen(schema);
        // Only the columns that the source has: the policy applies to all sources.
        let empty = self.protector.apply_to_present(&RecordBatch::new_empty(schema.clone())).await?.rows;
        Ok(empty.schema())
    }

    /// Removes the columns of a schema from the unseen names.
    fn mark_seen(&self, schema: &SchemaRef) {
        let mut unseen = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        unseen.retain(|path| {
            path.starts_with(CLASS) || schema.column_with_name(path.split('.').next().unwrap_or(path)).is_none()
        });
    }

    /// Returns the columns and classes that the policy names and that no row has had.
    pub(crate) fn unseen_names(&self) -> BTreeSet<String> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the counts of treated values, by column.
    pub(crate) fn treated_counts(&self) -> BTreeMap<String, TreatmentStats> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the policy names a column, including with `keep`.
    pub(crate) fn names_column(&self, column: &str) -> bool {
        self.protector.names_column(column)
    }

    /// Returns whether the policy treats a column.
    pub(crate) fn treats_column(&self, column: &str) -> bool {
        self.protector.treats_column(column)
    }

    /// Returns whether the policy covers all of a column, or all of a field by its path.
    pub(crate) fn names_whole(&self, path: &str) -> bool {
        self.protector.names_whole(path)
    }

    /// Returns whether the treatment changes the values of a column.
    pub(crate) fn changes_column(&self, column: &str) -> bool {
        self.protector.changes_column(column)
    }

    /// Returns the columns that the output's files encrypt.
    pub(crate) fn in_files(&self) -> impl Iterator<Item = &str> {
        self.protector.in_files()
    }

    /// Treats the rows. `place` returns file and row of a row, counted from 0.
    ///
    /// # Errors
    /// Errors of the treatments, with file and row.
    pub(crate) async fn treat_rows(
        &self,
        rows: &RecordBatch,
        place: impl Fn(usize) -> (String, u64),
    ) -> Result<RecordBatch> {
        self.mark_seen(rows.schema_ref());
        let protected = self.protector.apply_to_present(rows).await.map_err(|e| match e.row() {
            Some(row) => {
                let (file, number) = place(usize::try_from(row).unwrap_or(usize::MAX).saturating_sub(1));
                e.relocated(file, number)
            }
            None => e,
        })?;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, treated) in &protected.columns {
            done.entry(path.clone()).or_default().add(treated);
        }
        Ok(protected.rows)
    }

    /// Treats a batch of change records: its rows, the keys in its key changes, and the records in their original form.
    ///
    /// # Errors
    /// As [`treat_rows`](Self::treat_rows).
    pub(crate) async fn treat_batch(&self, mut batch: ChangeBatch) -> Result<ChangeBatch> {
        let place = |row: usize| (batch.file.to_string(), batch.places.get(row).copied().unwrap_or_default());
        let rows = self.treat_rows(&batch.rows, place).await?;
        // The treatment may reorder or add columns, so the masks of present values are matched by name.
        let present =
            |name: &str| batch.rows.schema_ref().index_of(name).ok().and_then(|at| batch.present.get(at).cloned());
        batch.present = rows.schema_ref().fields().iter().map(|field| present(field.name()).flatten()).collect();
        batch.rows = rows;
        for half in &mut batch.key_changes {
            half.key = self.protector.apply_to_present(&half.key).await?.rows;
        }
        if self.seal.is_none() {
            // Without a key, a bad record could only be quarantined in plain text. Without its original text it stops
            // the run instead.
            batch.raw = None;
        }
        batch.map_raw(|raw| self.seal_raw(&raw))
    }

    /// Seals records for the quarantine.
    ///
    /// # Errors
    /// `NoKeys` if there is no key to seal them with.
    pub(crate) fn seal_refused(&self, refused: Vec<RefusedRecord>) -> Result<Vec<RefusedRecord>> {
        let seal = |mut refused: RefusedRecord| {
            refused.raw = self.seal_raw(&refused.raw)?;
            Ok(refused)
        };
        refused.into_iter().map(seal).collect()
    }

    fn seal_raw(&self, raw: &[u8]) -> Result<Vec<u8>> {
        let Some(cells) = &self.seal else {
            let message = "cannot quarantine rows: [pii] names no key file to seal them with; create one with `biscuit pii keygen`";
            return Err(Error::new(biscuit_pii::codes::NO_KEYS, message));
        };
        // The encryption is deterministic: a rerun that quarantines the same record again stores it once.
        Ok(format!("{SEALED}{}", cells.seal(QUARANTINE, raw)?).into_bytes())
    }

    /// Replaces the values in the details of an error by keyed tags, if the error is about a treated column.
    pub(crate) fn tag_values(&self, e: Error) -> Error {
        let Some(column) = e.column().map(str::to_owned).filter(|column| self.treats_column(column)) else { return e };
        match self.tags.get(&column) {
            Some(tag) => e.map_details(|value| tag.tag(value)),
            None => e.map_details(|_| format!("<{column}>")),
        }
    }

    /// Checks the treatments of the columns that a merge works with.
    ///
    /// # Errors
    /// `TreatedColumn` for a key or partition column whose treatment does not keep equality, and for a treated order
    /// column; `UnpinnedVersion` for a key or partition column whose values would change with new keys.
    pub(crate) fn check_columns(&self, key: &[String], order: &[String], partition_by: &[String]) -> Result<()> {
        for (what, columns) in [("key", key), ("partition", partition_by)] {
            if let Some(column) = columns.iter().find(|column| !self.protector.keeps_equality(column)) {
                return Err(not_equal(what, column));
            }
        }
        if let Some(column) = key.iter().chain(partition_by).find(|column| self.protector.changes_with_keys(column)) {
            let message = format!(
                "column `{column}` is a key or partition column, and its values would change with new versions of the keys; set `version` to the version that the table began with"
            );
            return Err(Error::new(codes::UNPINNED_VERSION, message).with_column(column));
        }
        match order.iter().find(|column| self.treats_column(column)) {
            Some(column) => {
                let message =
                    format!("column `{column}` is an order column and cannot be treated by [pii]; use `keep`");
                Err(Error::new(codes::TREATED_COLUMN, message).with_column(column))
            }
            None => Ok(()),
        }
    }
}

/// Keys of encrypted Parquet files, generated by a key provider: for the treatment `{ encrypt = { key = "file" } }`.
#[derive(Debug)]
pub struct TableKeys(ParquetKeys);

impl TableKeys {
    /// Creates keys that this provider wraps and unwraps.
    pub fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self(ParquetKeys::new(provider))
    }

    /// Returns the encryption options of a dataset that reads files with such keys. New files encrypt the columns
    /// that the table already encrypts.
    pub fn encryption(provider: Arc<dyn KeyProvider>) -> FileEncryption {
        FileEncryption::new(Arc::new(Self::new(provider)))
    }
}

#[async_trait]
impl FileKeys for TableKeys {
    async fn new_key(&self, of: FilePart) -> Result<FileKey> {
        let of = match of {
            FilePart::Footer => ParquetPart::Footer,
            FilePart::Column => ParquetPart::Column,
        };
        let ParquetKey { secret, metadata, .. } = self.0.new_key(of).await?;
        Ok(FileKey { key: Zeroizing::new(secret.expose().to_vec()), metadata })
    }

    async fn key(&self, metadata: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(self.0.key(metadata).await?.expose().to_vec()))
    }
}

fn not_equal(what: &str, column: &str) -> Error {
    let message = format!(
        "column `{column}` is a {what} column; use a treatment that keeps equal values equal (tokenize or hash), or `keep`"
    );
    Error::new(codes::TREATED_COLUMN, message).with_column(column)
}

/// Seals the refused records, and adds the treated values of all sources to `pii`.
///
/// # Errors
/// `NoKeys` if records must be sealed and there is no key.
pub(crate) fn seal_refused(
    guards: &[Arc<TreatedSource>],
    refused: Vec<RefusedRecord>,
    pii: &mut BTreeMap<String, TreatmentStats>,
) -> Result<Vec<RefusedRecord>> {
    for (path, treated) in guards.iter().flat_map(|guard| guard.treated_counts()) {
        pii.entry(path).or_default().add(&treated);
    }
    match guards.first() {
        Some(guard) => guard.seal_refused(refused),
        None => Ok(refused),
    }
}

/// Checks that every name of the policy exists in some source. `others` are the contracts of sources that only other
/// outputs read.
///
/// # Errors
/// `UnknownColumn` for an unknown column and `UnusedClass` for an unused class: a misspelt name would protect
/// nothing.
pub(crate) fn check_all_seen(guards: &[Arc<TreatedSource>], others: &[Contract]) -> Result<()> {
    let Some(mut unseen) = guards.first().map(|guard| guard.unseen_names()) else { return Ok(()) };
    for guard in &guards[1..] {
        let also = guard.unseen_names();
        unseen.retain(|path| also.contains(path));
    }
    let columns = || others.iter().flat_map(|contract| &contract.columns);
    unseen.retain(|path| match path.strip_prefix(CLASS) {
        Some(class) => columns().all(|c| c.pii.as_deref() != Some(class)),
        None => columns().all(|c| Some(c.name.as_str()) != path.split('.').next()),
    });
    match unseen.first() {
        Some(path) => match path.strip_prefix(CLASS) {
            Some(class) => {
                let message =
                    format!("no source contract gives a column the class `{class}` of [pii]; nothing would be treated");
                Err(Error::new(codes::UNUSED_CLASS, message))
            }
            None => {
                let message = format!("[pii] names `{path}`, but no source has such a column; check the spelling");
                Err(Error::new(biscuit_core::codes::UNKNOWN_COLUMN, message).with_column(path))
            }
        },
        None => Ok(()),
    }
}

/// Error for a format whose columns get their types from the target table. The table has the types after the
/// treatment, so these cannot describe the input.
pub(crate) fn needs_contract(source: &str) -> Error {
    invalid_spec(format!(
        "source `{source}` needs a contract: with [pii], the types of its columns cannot be taken from the table"
    ))
}
