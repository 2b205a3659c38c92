//! `[pii]`: rows are treated where they are read, so that nothing behind it has seen what they were: no query and what it spills, no merge and
//! its tombstones, no statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use biscuit_change::{ChangeBatch, ChangeRecords, RefusedRecord};
use biscuit_core::{Error, Result};
use biscuit_dataset::{FileEncryption, FileKey, FileKeys, FilePart};
use biscuit_pii::{
    HashKey, KeyProvider, ParquetKey, ParquetKeys, ParquetPart, PiiContext, Policy, Protector, TreatmentStats,
    ValueEncryptor,
};
use biscuit_schema::Contract;
use zeroize::Zeroizing;

use crate::spec::{OutputMode, invalid};

/// Opens what a policy names: its key file, and its store.
#[async_trait]
pub trait PiiResolver: std::fmt::Debug + Send + Sync {
    /// What a policy works with; paths are relative to the folder.
    async fn open(&self, policy: &Policy, folder: &Path) -> Result<PiiContext>;
}

const _: fn(&dyn PiiResolver) = |_| {};

/// Key files and stores on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalPiiResolver;

#[async_trait]
impl PiiResolver for LocalPiiResolver {
    async fn open(&self, policy: &Policy, folder: &Path) -> Result<PiiContext> {
        PiiContext::open_local(policy, folder).await
    }
}

/// The column that sealed records of the quarantine are bound to.
pub(crate) const QUARANTINE: &str = "quarantine";
/// What stands before the classes among the names that were not seen yet; no path begins so.
const CLASS: &str = "class ";
/// What a sealed record begins with.
pub(crate) const SEALED: &str = "biscuit-sealed:";

/// What becomes of the rows of a source.
#[derive(Debug)]
pub(crate) struct TreatedSource {
    protector: Protector,
    /// What seals rows that are put aside; none without keys.
    seal: Option<ValueEncryptor>,
    /// By column.
    tags: BTreeMap<String, HashKey>,
    /// The columns that the policy itself names, without those that were seen.
    unseen: Mutex<BTreeSet<String>>,
    done: Mutex<BTreeMap<String, TreatmentStats>>,
}

impl TreatedSource {
    /// What a policy says of the rows of a source with this contract, for an output.
    ///
    /// # Errors
    /// Those of [`Protector::new`] and [`Protector::repeatable`].
    pub(crate) fn new(
        policy: &Policy,
        means: &PiiContext,
        (output, mode): (&str, OutputMode),
        contract: Option<&Contract>,
    ) -> Result<Self> {
        let columns = contract.map(|c| c.columns.as_slice()).unwrap_or_default();
        let classes: Vec<(&str, &str)> =
            columns.iter().filter_map(|c| Some((c.name.as_str(), c.pii.as_deref()?))).collect();
        let mut protector = Protector::new(policy, output, classes.iter().copied(), means)?.encrypting_files();
        if matches!(mode, OutputMode::Merge | OutputMode::Snapshot) {
            protector = protector.repeatable(means)?;
        }
        let seal = means.roots.clone().map(|roots| ValueEncryptor::new(roots, protector.table()));
        let mut tags = BTreeMap::new();
        if let Some(roots) = &means.roots {
            for path in protector.columns() {
                let class = classes.iter().find(|(column, _)| *column == path).map_or(path, |(_, class)| class);
                tags.insert(path.to_owned(), HashKey::of(roots, class)?);
            }
        }
        // A class is seen where a column has it.
        let unmatched = policy.classes.keys().filter(|class| !classes.iter().any(|(_, of)| of == class));
        let unmatched = unmatched.map(|class| format!("{CLASS}{class}"));
        let unseen = Mutex::new(policy.columns.keys().cloned().chain(unmatched).collect());
        Ok(Self { protector, seal, tags, unseen, done: Mutex::default() })
    }

    /// The columns behind it.
    ///
    /// # Errors
    /// Those of the treatments, for columns that they do not go with.
    pub(crate) async fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        self.see(schema);
        // Only the columns that are there: a policy is one of all sources.
        let empty = self.protector.apply_to_present(&RecordBatch::new_empty(schema.clone())).await?.rows;
        Ok(empty.schema())
    }

    fn see(&self, schema: &SchemaRef) {
        let mut unseen = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        unseen.retain(|path| {
            path.starts_with(CLASS) || schema.column_with_name(path.split('.').next().unwrap_or(path)).is_none()
        });
    }

    /// Columns that the policy names and no row had.
    pub(crate) fn unseen(&self) -> BTreeSet<String> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was done, by column.
    pub(crate) fn done(&self) -> BTreeMap<String, TreatmentStats> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the policy says something about a column, if only that it stays.
    pub(crate) fn names(&self, column: &str) -> bool {
        self.protector.names(column)
    }

    /// Whether a column is treated.
    pub(crate) fn treats(&self, column: &str) -> bool {
        self.protector.treats(column)
    }

    /// Whether the policy says something about all of a column, or of a field by its path.
    pub(crate) fn names_all(&self, path: &str) -> bool {
        self.protector.names_all(path)
    }

    /// Whether a column has other values behind it.
    pub(crate) fn changes(&self, column: &str) -> bool {
        self.protector.changes(column)
    }

    /// The columns that the output's files encrypt.
    pub(crate) fn in_files(&self) -> impl Iterator<Item = &str> {
        self.protector.in_files()
    }

    /// Rows without personal data. `place` says where a row of them, from 0, comes from.
    ///
    /// # Errors
    /// Those of the treatments, with file and row.
    pub(crate) async fn rows(&self, rows: &RecordBatch, place: impl Fn(usize) -> (String, u64)) -> Result<RecordBatch> {
        self.see(rows.schema_ref());
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

    /// Change records without personal data: their rows, the keys of the other halves of key updates, and what is put aside of them.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub(crate) async fn records(&self, mut changes: ChangeRecords) -> Result<ChangeRecords> {
        let mut batches = Vec::with_capacity(changes.batches.len());
        for batch in changes.batches {
            batches.push(self.batch(batch).await?);
        }
        changes.batches = batches;
        changes.refused = self.refused(changes.refused)?;
        Ok(changes)
    }

    async fn batch(&self, mut batch: ChangeBatch) -> Result<ChangeBatch> {
        let place = |row: usize| (batch.file.to_string(), batch.places.get(row).copied().unwrap_or_default());
        let rows = self.rows(&batch.rows, place).await?;
        let present =
            |name: &str| batch.rows.schema_ref().index_of(name).ok().and_then(|at| batch.present.get(at).cloned());
        batch.present = rows.schema_ref().fields().iter().map(|field| present(field.name()).flatten()).collect();
        batch.rows = rows;
        for half in &mut batch.key_changes {
            half.key = self.protector.apply_to_present(&half.key).await?.rows;
        }
        if self.seal.is_none() {
            // There is nothing to seal a record with that would be put aside: it stops the run.
            batch.raw = None;
        }
        batch.map_raw(|raw| self.seal(&raw))
    }

    /// Records that are put aside, sealed.
    ///
    /// # Errors
    /// `NoKeys` if there is nothing to seal them with.
    pub(crate) fn refused(&self, refused: Vec<RefusedRecord>) -> Result<Vec<RefusedRecord>> {
        let seal = |mut refused: RefusedRecord| {
            refused.raw = self.seal(&refused.raw)?;
            Ok(refused)
        };
        refused.into_iter().map(seal).collect()
    }

    fn seal(&self, raw: &[u8]) -> Result<Vec<u8>> {
        let Some(cells) = &self.seal else {
            let message =
                "rows are put aside, and [pii] names no key file to seal them with; `biscuit pii keygen` makes one";
            return Err(Error::usage("NoKeys", message));
        };
        // Equal records stay equal: one that is put aside again, by a rerun, is there once.
        Ok(format!("{SEALED}{}", cells.seal(QUARANTINE, raw)?).into_bytes())
    }

    /// The error with keyed tags in the place of values, if it is about a column that is treated.
    pub(crate) fn tagged(&self, e: Error) -> Error {
        let Some(column) = e.column().map(str::to_owned).filter(|column| self.treats(column)) else { return e };
        match self.tags.get(&column) {
            Some(tag) => e.map_details(|value| tag.tag(value)),
            None => e.map_details(|_| format!("<{column}>")),
        }
    }

    /// What a merge needs of the columns that it works with.
    ///
    /// # Errors
    /// `TreatedColumn` for a column of the key or a partition whose equal values do not stay equal, and for one that orders.
    pub(crate) fn check(&self, key: &[String], order: &[String], partition_by: &[String]) -> Result<()> {
        for (what, columns) in [("key", key), ("partition", partition_by)] {
            if let Some(column) = columns.iter().find(|column| !self.protector.keeps_equality(column)) {
                return Err(not_equal(what, column));
            }
        }
        if let Some(column) = key.iter().chain(partition_by).find(|column| self.protector.changes_with_keys(column)) {
            let message = format!(
                "column `{column}` is one of the key or a partition, there are several versions of the keys, and it would come out otherwise with a new one: name the `version` that the table was begun with"
            );
            return Err(Error::usage("UnpinnedVersion", message).with_column(column));
        }
        match order.iter().find(|column| self.treats(column)) {
            Some(column) => {
                let message = format!("column `{column}` orders the changes, and [pii] treats it");
                Err(Error::usage("TreatedColumn", message).with_column(column))
            }
            None => Ok(()),
        }
    }
}

/// Keys of Parquet files by a key provider: what `{ encrypt = { key = "file" } }` works with.
#[derive(Debug)]
pub struct TableKeys(ParquetKeys);

impl TableKeys {
    /// Keys that this provider seals and unseals.
    pub fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self(ParquetKeys::new(provider))
    }

    /// What a dataset is to have that reads files with such keys, and encrypts in new ones what the table has encrypted.
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
        "column `{column}` is one of the {what}: it can be tokenized or hashed, so that equal values stay equal, or kept"
    );
    Error::usage("TreatedColumn", message).with_column(column)
}

/// Names that a policy has and no source. `others` are the contracts of sources that other outputs read.
///
/// # Errors
/// `MissingColumn`: a misspelt name would protect nothing.
pub(crate) fn all_seen(guards: &[Arc<TreatedSource>], others: &[Contract]) -> Result<()> {
    let Some(mut unseen) = guards.first().map(|guard| guard.unseen()) else { return Ok(()) };
    for guard in &guards[1..] {
        let also = guard.unseen();
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
                let message = format!(
                    "[pii] has the class `{class}`, and no contract of a source gives it to a column: nothing would be treated by it"
                );
                Err(Error::usage("UnusedClass", message))
            }
            None => {
                let message = format!("[pii] names `{path}`, and no source has such a column");
                Err(Error::usage("MissingColumn", message).with_column(path))
            }
        },
        None => Ok(()),
    }
}

/// Formats whose columns are typed by the table that they go to need a contract, since the table has other types behind a treatment.
pub(crate) fn needs_contract(source: &str) -> Error {
    invalid(format!(
        "source `{source}` needs a contract: with [pii], the table does not say which types its columns have"
    ))
}
