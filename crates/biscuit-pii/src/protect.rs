use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use serde::Serialize;

use crate::action::masked;
use crate::encrypt::digests::RowDigests;
use crate::entity::EntityType;
use crate::hash_key::HashKey;
use crate::keys::roots::RootKeys;
use crate::means::PiiContext;
use crate::part::{NullRule, is_one_a_row, part, with_part};
use crate::policy::{ColumnTreatment, Policy};
use crate::ready::{CompiledTreatment, ready};
use crate::remove::remove;
use crate::texts::{as_text, distinct_texts, is_all_text, map_texts};
use crate::tokens::audit::AccessRequest;

/// A policy that is ready to be applied, batch by batch.
#[derive(Debug)]
pub struct Protector {
    table: String,
    subject: Option<String>,
    columns: Vec<(String, CompiledTreatment)>,
    /// Columns that come out otherwise with another version of the keys, of which there are several.
    unpinned: Vec<String>,
    /// Root keys, where equal rows are to be equal behind it.
    repeats: Option<RootKeys>,
    /// Whether whoever writes the rows encrypts columns inside of the files.
    encrypts_files: bool,
}

/// Rows without personal data.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProtectedRows {
    /// The rows, as many as before.
    pub rows: RecordBatch,
    /// What was done, by path.
    pub columns: BTreeMap<String, TreatmentStats>,
}

/// What was done to a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TreatmentStats {
    /// How many values were treated: those that are not null.
    pub values: u64,
    /// How many hits were replaced, by entity.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<EntityType, u64>,
    /// How many values are null because their subject was forgotten.
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TreatmentStats {
    /// Adds what was done to other rows.
    pub fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.forgotten += other.forgotten;
        for (entity, count) in &other.found {
            *self.found.entry(entity.clone()).or_default() += count;
        }
    }
}

impl Protector {
    /// Makes everything ready. `table` is the name that is bound into what is encrypted, if the policy names none; `classes` are the columns of
    /// the contract that have one.
    ///
    /// # Errors
    /// `NoKeys`, `NoStore`, `NoProvider`, `NoSubject` for what a column needs and is not there; those of [`Policy::treatments`].
    pub fn new<'a>(
        policy: &Policy,
        table: &str,
        classes: impl IntoIterator<Item = (&'a str, &'a str)>,
        means: &PiiContext,
    ) -> Result<Self> {
        let table = policy.table.as_deref().unwrap_or(table).to_owned();
        let (mut columns, mut unpinned) = (vec![], vec![]);
        let several = means.roots.as_ref().is_some_and(|roots| roots.versions().count() > 1);
        for (path, (treatment, class)) in policy.treatments(classes)? {
            let name = class.as_deref().unwrap_or_else(|| path.rsplit('.').next().unwrap_or(&path));
            let ready = ready(&treatment, (&table, &path, name), policy, means)?;
            let of_a_version = match (&treatment, &ready) {
                (ColumnTreatment::Hash(how), _) => how.version.is_none(),
                (ColumnTreatment::Tokenize(how), CompiledTreatment::Tokenize(tokenizer)) => {
                    how.version.is_none() && !tokenizer.keeps_values()
                }
                _ => false,
            };
            if several && of_a_version {
                unpinned.push(path.clone());
            }
            columns.push((path, ready));
        }
        Ok(Self { table, subject: policy.subject.clone(), columns, unpinned, repeats: None, encrypts_files: false })
    }

    /// The same, of which equal rows come out equal: for rows that are merged, or made again by a rerun. Encrypting takes some microseconds a value then.
    ///
    /// # Errors
    /// `CannotRepeat` for messages, which are different each time, and for encrypted values inside of nested columns.
    pub fn repeatable(mut self, means: &PiiContext) -> Result<Self> {
        for (path, ready) in &self.columns {
            let why = match ready {
                CompiledTreatment::Messages(_) => "messages of the AWS Encryption SDK are different each time",
                CompiledTreatment::Cells(_) | CompiledTreatment::OfSubject(_) if path.contains('.') => {
                    "it is inside of another column"
                }
                CompiledTreatment::Cells(_) | CompiledTreatment::OfSubject(_) => {
                    self.repeats = Some(means.roots(path)?);
                    continue;
                }
                _ => continue,
            };
            let message = format!(
                "column `{path}` cannot be encrypted so that equal rows stay equal, which a merge needs: {why}"
            );
            return Err(Error::usage("CannotRepeat", message).with_column(path));
        }
        Ok(self)
    }

    /// What becomes of a column, and of parts of it.
    fn of<'a>(&'a self, column: &'a str) -> impl Iterator<Item = &'a CompiledTreatment> {
        let is =
            move |path: &str| path.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.columns.iter().filter(move |(path, _)| is(path)).map(|(_, ready)| ready)
    }

    /// Whether a column comes out so that equal values, and no others, stay equal: what a key or a partition needs.
    pub fn keeps_equality(&self, column: &str) -> bool {
        self.of(column).all(|ready| {
            matches!(ready, CompiledTreatment::Keep | CompiledTreatment::Hash(_) | CompiledTreatment::Tokenize(_))
        })
    }

    /// Whether new keys would give a column other values than it has: a table that has it as its key would hold each entity twice.
    pub fn changes_with_keys(&self, column: &str) -> bool {
        self.unpinned.iter().any(|path| path == column)
    }

    /// Whether it says something about a column, or a part of it, if only that it stays.
    pub fn names(&self, column: &str) -> bool {
        self.of(column).next().is_some()
    }

    /// Whether it says something about all of a column, or of a field by its path.
    pub fn names_all(&self, path: &str) -> bool {
        let covers = |of: &str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.columns.iter().any(|(of, _)| covers(of))
    }

    /// Whether a column, or a part of it, has other values behind it.
    pub fn changes(&self, column: &str) -> bool {
        self.of(column).any(|ready| !matches!(ready, CompiledTreatment::Keep | CompiledTreatment::InFiles))
    }

    /// Whether a column, or a part of it, is changed by it, or hidden by the files that it goes into.
    pub fn treats(&self, column: &str) -> bool {
        self.of(column).any(|ready| !matches!(ready, CompiledTreatment::Keep))
    }

    /// The same, for rows whose files encrypt the columns that are [`in_files`](Self::in_files): without this, rows that have them are refused.
    pub fn encrypting_files(mut self) -> Self {
        self.encrypts_files = true;
        self
    }

    /// The paths whose values it leaves as they are, for whoever writes the files to encrypt: with [`ParquetKeys`](crate::ParquetKeys).
    pub fn in_files(&self) -> impl Iterator<Item = &str> {
        self.columns
            .iter()
            .filter(|(_, ready)| matches!(ready, CompiledTreatment::InFiles))
            .map(|(path, _)| path.as_str())
    }

    /// The name that is bound into what is encrypted.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The paths that it treats.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(path, _)| path.as_str())
    }

    /// Treats all columns of some rows.
    ///
    /// # Errors
    /// `MissingColumn` for a path that is not there, so that a misspelt one protects nothing silently; `NotEncrypted` for a column that files are to
    /// encrypt, without [`encrypting_files`](Self::encrypting_files); those of each treatment.
    pub async fn apply(&self, rows: &RecordBatch) -> Result<ProtectedRows> {
        self.apply_to(rows, &|_| true).await
    }

    /// Treats the columns that some rows have: for rows that come in several shapes. Whoever uses it looks that each path is somewhere.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), but `MissingColumn` only for a part of a column that is there.
    pub async fn apply_to_present(&self, rows: &RecordBatch) -> Result<ProtectedRows> {
        let schema = rows.schema();
        self.apply_to(rows, &|path| schema.column_with_name(path.split('.').next().unwrap_or(path)).is_some()).await
    }

    async fn apply_to(&self, rows: &RecordBatch, wanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<ProtectedRows> {
        let (mut out, mut columns, mut gone) = (rows.clone(), BTreeMap::new(), vec![]);
        let digests = self.repeats.as_ref().map(|roots| RowDigests::of(roots, rows)).transpose()?;
        for (path, ready) in self.columns.iter().filter(|(path, _)| wanted(path)) {
            let values = part(rows, path)?;
            let mut treated =
                TreatmentStats { values: (values.len() - values.null_count()) as u64, ..TreatmentStats::default() };
            match ready {
                CompiledTreatment::InFiles if !self.encrypts_files => {
                    let message = format!(
                        "column `{path}` is to be encrypted inside of Parquet files, and nobody says that these rows go into such files"
                    );
                    return Err(Error::usage("NotEncrypted", message).with_column(path));
                }
                CompiledTreatment::Keep | CompiledTreatment::InFiles => {}
                CompiledTreatment::Remove => gone.push(path.as_str()),
                _ => {
                    let new = self.treat(path, ready, &values, (rows, digests.as_ref()), &mut treated).await?;
                    // A subject may be forgotten: also where none is yet, so that all batches have the same columns.
                    let nulls = if matches!(ready, CompiledTreatment::OfSubject(_)) {
                        NullRule::Allowed
                    } else {
                        NullRule::AsBefore
                    };
                    out = with_part(&out, path, new, nulls)?;
                }
            }
            columns.insert(path.clone(), treated);
        }
        Ok(ProtectedRows { rows: if gone.is_empty() { out } else { remove(&out, &gone)? }, columns })
    }

    async fn treat(
        &self,
        path: &str,
        ready: &CompiledTreatment,
        values: &ArrayRef,
        (rows, digests): (&RecordBatch, Option<&RowDigests>),
        treated: &mut TreatmentStats,
    ) -> Result<ArrayRef> {
        match ready {
            CompiledTreatment::Keep | CompiledTreatment::InFiles | CompiledTreatment::Remove => Ok(values.clone()),
            CompiledTreatment::Redact(redactor) => {
                if !is_all_text(values.data_type()) && values.data_type() != &DataType::Null {
                    let message = format!(
                        "column `{path}` is a {}; detectors read text: mask, hash, encrypt or tokenize it, or name the parts of it that are text",
                        values.data_type()
                    );
                    return Err(Error::usage("NotText", message).with_column(path));
                }
                let redacted = redactor.redact(path, values).await?;
                treated.found = redacted.counts;
                Ok(redacted.column)
            }
            CompiledTreatment::Mask { first, last } => mask_texts(path, values, *first, *last),
            CompiledTreatment::Hash(key) => hash_texts(path, values, key),
            CompiledTreatment::Tokenize(tokenizer) => tokenizer.tokenize(path, values).await,
            CompiledTreatment::Cells(cells) => match digests {
                Some(rows) => cells.encrypt_repeatably(path, values, rows),
                None => cells.encrypt(path, values),
            },
            CompiledTreatment::Messages(messages) => messages.encrypt(path, values).await,
            CompiledTreatment::OfSubject(cells) => {
                let subject = self.subject.as_deref().unwrap_or_default();
                let subjects = part(rows, subject)?;
                if !is_one_a_row(rows.schema_ref(), path) || !is_one_a_row(rows.schema_ref(), subject) {
                    let message = format!(
                        "column `{path}`, or `{subject}`, may have several values in a row: keys of subjects are for one"
                    );
                    return Err(Error::usage("CannotEncrypt", message).with_column(path));
                }
                let encrypted = cells.encrypt_of(path, values, &subjects, digests).await?;
                treated.forgotten = encrypted.forgotten;
                Ok(encrypted.column)
            }
        }
    }

    /// The rows with these columns as they were before: decrypted, and detokenized once that is written down. Values of those that were forgotten are
    /// null. `kinds` are the types of columns that were no text.
    ///
    /// # Errors
    /// `NoWayBack` for a column that was masked, redacted, hashed, removed or is not treated; `MissingColumn`; those of decrypting and detokenizing.
    pub async fn reveal<S: AsRef<str>>(
        &self,
        rows: &RecordBatch,
        columns: &[S],
        kinds: &BTreeMap<String, DataType>,
        access: &AccessRequest,
    ) -> Result<ProtectedRows> {
        let (mut out, mut done) = (rows.clone(), BTreeMap::new());
        for path in columns.iter().map(AsRef::as_ref) {
            let values = part(rows, path)?;
            let ready = self.columns.iter().find(|(of, _)| of == path).map(|(_, ready)| ready);
            let to = kinds.get(path).cloned().unwrap_or(DataType::Utf8);
            let counts = (values.len() - values.null_count()) as u64;
            let (column, forgotten) = match ready {
                Some(CompiledTreatment::Tokenize(tokenizer)) => {
                    let back = tokenizer.detokenize(path, &values, access).await?;
                    let column =
                        if back.column.data_type().is_nested() { back.column } else { kind(path, &back.column, &to)? };
                    (column, back.forgotten)
                }
                Some(CompiledTreatment::Cells(cells) | CompiledTreatment::OfSubject(cells)) => {
                    access.record(&self.table, path, counts, counts)?;
                    let back = cells.decrypt(path, &values, &to).await?;
                    (back.column, back.forgotten)
                }
                Some(CompiledTreatment::InFiles) => {
                    access.record(&self.table, path, counts, counts)?;
                    (values, 0)
                }
                Some(CompiledTreatment::Messages(messages)) => {
                    access.record(&self.table, path, counts, counts)?;
                    (messages.decrypt(path, &values, &to).await?, 0)
                }
                _ => {
                    let message = format!("column `{path}` is neither encrypted nor tokenized: there is no way back");
                    return Err(Error::usage("NoWayBack", message).with_column(path));
                }
            };
            out = with_part(&out, path, column, NullRule::Allowed)?;
            done.insert(path.to_owned(), TreatmentStats { values: counts, found: BTreeMap::new(), forgotten });
        }
        Ok(ProtectedRows { rows: out, columns: done })
    }

    /// The tokens in a column whose values were to be forgotten: of each, what is behind it is deleted.
    ///
    /// # Errors
    /// `NoWayBack` for a column that is not tokenized; those of [`Tokenizer::forget`](crate::Tokenizer::forget).
    pub async fn forget_tokens(&self, path: &str, tokens: &[&str]) -> Result<u64> {
        match self.columns.iter().find(|(of, _)| of == path) {
            Some((_, CompiledTreatment::Tokenize(tokenizer))) => tokenizer.forget(tokens).await,
            _ => {
                let message = format!("column `{path}` is not tokenized");
                Err(Error::usage("NoWayBack", message).with_column(path))
            }
        }
    }

    /// Whether a store has the values of a column, behind its tokens.
    pub fn keeps_values(&self, path: &str) -> bool {
        let tokenizes = |ready: &CompiledTreatment| matches!(ready, CompiledTreatment::Tokenize(tokenizer) if tokenizer.keeps_values());
        self.columns.iter().any(|(of, ready)| of == path && tokenizes(ready))
    }

    /// What stands in a column for these values; values that have no token yet get none, and are left out.
    ///
    /// # Errors
    /// `NoWayBack` for a column that is neither tokenized nor hashed; those of the store.
    pub async fn tokens_for(&self, path: &str, values: &[String]) -> Result<Vec<String>> {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        match self.columns.iter().find(|(of, _)| of == path).map(|(_, ready)| ready) {
            Some(CompiledTreatment::Tokenize(tokenizer)) => {
                Ok(tokenizer.known(&values).await?.into_iter().flatten().collect())
            }
            Some(CompiledTreatment::Hash(key)) => Ok(values.into_iter().map(|value| key.hash(value)).collect()),
            _ => {
                let message =
                    format!("column `{path}` is neither tokenized nor hashed, so that nothing is found by it");
                Err(Error::usage("NoWayBack", message).with_column(path))
            }
        }
    }

    /// The distinct tokens of a column that is tokenized in a store.
    ///
    /// # Errors
    /// `MissingColumn`.
    pub fn tokens_of(&self, rows: &RecordBatch, path: &str) -> Result<Vec<String>> {
        Ok(distinct_texts(&part(rows, path)?).into_iter().map(|(text, _)| text).collect())
    }
}

/// The texts of a column with a `*` for each letter and digit but so many at their ends; where that would show more than half of them, none is
/// shown. Numbers, dates and the like become text.
///
/// # Errors
/// `NotText` for a column whose values have no text.
pub fn mask_texts(column: &str, values: &ArrayRef, first: usize, last: usize) -> Result<ArrayRef> {
    map_texts(&as_text(column, values)?, &mut |text| masked(text, first, last))
}

/// Keyed hashes of the texts of a column.
///
/// # Errors
/// As for [`mask_texts`].
pub fn hash_texts(column: &str, values: &ArrayRef, key: &HashKey) -> Result<ArrayRef> {
    map_texts(&as_text(column, values)?, &mut |text| key.hash(text))
}

fn kind(path: &str, column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to, &strict).map_err(|_| {
        let message = format!("column `{path}` was detokenized, and a value in it is no {to}");
        Error::data("CannotDetokenize", message).with_column(path)
    })
}
