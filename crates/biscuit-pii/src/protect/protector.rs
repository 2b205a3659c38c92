//! Applies a policy to batches of rows, and reverses it for columns that are encrypted or tokenized. The treatments
//! were compiled in [`crate::protect::ready`]; this module finds the values, passes them to the treatment and puts the
//! result back.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use serde::Serialize;

use crate::codes;
use crate::detect::entity::EntityType;
use crate::encrypt::digests::RowDigests;
use crate::hash_key::HashKey;
use crate::keys::roots::RootKeys;
use crate::policy::{ColumnTreatment, Policy};
use crate::protect::action::mask_text;
use crate::protect::means::PiiContext;
use crate::protect::part::{NullRule, is_one_a_row, values_at, with_part};
use crate::protect::ready::{CompiledTreatment, compile_treatment};
use crate::protect::remove::remove_columns;
use crate::protect::texts::{as_text, distinct_texts, is_all_text, map_texts};
use crate::tokens::audit::AccessRequest;

/// Applies the treatments of a [`Policy`] to batches of rows.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
/// use biscuit_pii::{PiiContext, Policy, Protector};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let policy = Policy::parse("columns.phone = { partial = { last = 4 } }")?;
/// let protector = Protector::new(&policy, "customer", [], &PiiContext::new())?;
/// let phone: ArrayRef = Arc::new(StringArray::from(vec![Some("+1 212-555-0100"), None]));
/// let protected = protector.apply(&RecordBatch::try_from_iter([("phone", phone)])?).await?;
/// assert_eq!(protected.rows["phone"].as_string::<i32>().value(0), "+* ***-***-0100");
/// assert_eq!(protected.columns["phone"].values, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Protector {
    table: String,
    subject: Option<String>,
    columns: Vec<(String, CompiledTreatment)>,
    /// Columns whose values depend on the current version of the keys although there are several versions.
    unpinned: Vec<String>,
    /// Root keys of the row digests. Set if equal rows must have equal results.
    repeats: Option<RootKeys>,
    /// Whether the writer of the rows applies Parquet encryption to the columns that need it.
    encrypts_files: bool,
}

/// Rows after the treatment of their columns.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProtectedRows {
    /// The treated rows, in the order of the input.
    pub rows: RecordBatch,
    /// Statistics of each treated column by path.
    pub columns: BTreeMap<String, TreatmentStats>,
}

/// Statistics of the treatment of one column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TreatmentStats {
    /// Number of values that were treated; null is not counted.
    pub values: u64,
    /// Number of hits that were replaced, by entity type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<EntityType, u64>,
    /// Number of values that became null because their subject was forgotten.
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TreatmentStats {
    /// Adds the statistics of other rows.
    pub fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.forgotten += other.forgotten;
        for (entity, count) in &other.found {
            *self.found.entry(entity.clone()).or_default() += count;
        }
    }
}

impl Protector {
    /// Compiles a policy. `table` is the name that is authenticated with encrypted values unless the policy has one.
    /// `classes` are the pairs of column and class of the contract.
    ///
    /// # Errors
    /// `NoKeys`, `NoStore` or `NoSubject` if a treatment needs something that `means` or the policy
    /// does not have; the errors of [`Policy::treatments`].
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
            let ready = compile_treatment(&treatment, &table, &path, name, policy, means)?;
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

    /// Makes the treatment repeatable: equal rows have equal results. Merges and reruns need this. Encryption then
    /// derives a key for each value, which takes a few microseconds.
    ///
    /// # Errors
    /// `CannotRepeat` for messages of the AWS Encryption SDK, which differ each time, and for encrypted values inside
    /// of nested columns.
    pub fn repeatable(mut self, means: &PiiContext) -> Result<Self> {
        for (path, ready) in &self.columns {
            let why = match ready {
                CompiledTreatment::Messages(_) => "messages of the AWS Encryption SDK differ each time",
                CompiledTreatment::Cells(_) | CompiledTreatment::OfSubject(_) if path.contains('.') => {
                    "the column is a field of a nested column"
                }
                CompiledTreatment::Cells(_) | CompiledTreatment::OfSubject(_) => {
                    self.repeats = Some(means.load_roots(path)?);
                    continue;
                }
                _ => continue,
            };
            let message = format!(
                "column `{path}` cannot be encrypted so that equal rows have equal values, which a merge needs: {why}"
            );
            return Err(Error::new(codes::CANNOT_REPEAT, message).with_column(path));
        }
        Ok(self)
    }

    /// The treatments of a column and of the fields in it.
    fn treatments_of<'a>(&'a self, column: &'a str) -> impl Iterator<Item = &'a CompiledTreatment> {
        let is =
            move |path: &str| path.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.columns.iter().filter(move |(path, _)| is(path)).map(|(_, ready)| ready)
    }

    /// Returns whether two results are equal exactly if the values were equal. Keys and partition columns need this.
    pub fn keeps_equality(&self, column: &str) -> bool {
        self.treatments_of(column).all(|ready| {
            matches!(ready, CompiledTreatment::Keep | CompiledTreatment::Hash(_) | CompiledTreatment::Tokenize(_))
        })
    }

    /// Returns whether a new version of the keys changes the results of a column. A table with such a key column
    /// would then hold each entity twice.
    pub fn changes_with_keys(&self, column: &str) -> bool {
        self.unpinned.iter().any(|path| path == column)
    }

    /// Returns whether the policy has a treatment, including `keep`, for a column or for a field in it.
    pub fn names_column(&self, column: &str) -> bool {
        self.treatments_of(column).next().is_some()
    }

    /// Returns whether the policy has a treatment for a whole column, or for a whole field given by its path.
    pub fn names_whole(&self, path: &str) -> bool {
        let covers = |of: &str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.columns.iter().any(|(of, _)| covers(of))
    }

    /// Returns whether the treatment changes values of a column or of a field in it.
    pub fn changes_column(&self, column: &str) -> bool {
        self.treatments_of(column).any(|ready| !matches!(ready, CompiledTreatment::Keep | CompiledTreatment::InFiles))
    }

    /// Returns whether the treatment changes a column or a field in it, or leaves it for Parquet encryption.
    pub fn treats_column(&self, column: &str) -> bool {
        self.treatments_of(column).any(|ready| !matches!(ready, CompiledTreatment::Keep))
    }

    /// Declares that the writer of the rows encrypts the columns of [`in_files`](Self::in_files) inside of the files.
    /// Without this, [`apply`](Self::apply) refuses rows that have such columns.
    #[must_use]
    pub fn encrypting_files(mut self) -> Self {
        self.encrypts_files = true;
        self
    }

    /// Returns the paths whose values remain in clear for a writer that encrypts them with
    /// [`ParquetKeys`](crate::keys::ParquetKeys).
    pub fn in_files(&self) -> impl Iterator<Item = &str> {
        self.columns
            .iter()
            .filter(|(_, ready)| matches!(ready, CompiledTreatment::InFiles))
            .map(|(path, _)| path.as_str())
    }

    /// Returns the table name that is authenticated with encrypted values.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Returns the paths that have a treatment.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(path, _)| path.as_str())
    }

    /// Treats all columns of the policy.
    ///
    /// # Errors
    /// `UnknownColumn` for a path that the rows do not have, so that a misspelt path never leaves a column
    /// unprotected; `NotEncrypted` for a column that files have to encrypt, unless
    /// [`encrypting_files`](Self::encrypting_files) was called; the errors of each treatment.
    pub async fn apply(&self, rows: &RecordBatch) -> Result<ProtectedRows> {
        self.apply_to(rows, &|_| true).await
    }

    /// Treats the columns of the policy that are present. Use it for rows of several shapes; the caller checks that
    /// each path occurs in at least one of them.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply), except that `UnknownColumn` is returned only for a missing field of a present
    /// column.
    pub async fn apply_to_present(&self, rows: &RecordBatch) -> Result<ProtectedRows> {
        let schema = rows.schema();
        self.apply_to(rows, &|path| schema.column_with_name(path.split('.').next().unwrap_or(path)).is_some()).await
    }

    async fn apply_to(&self, rows: &RecordBatch, wanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<ProtectedRows> {
        let (mut out, mut columns, mut gone) = (rows.clone(), BTreeMap::new(), vec![]);
        // Digests are of the rows as they came, so that they do not depend on the order of the treatments.
        let digests = self.repeats.as_ref().map(|roots| RowDigests::hash_rows(roots, rows)).transpose()?;
        for (path, ready) in self.columns.iter().filter(|(path, _)| wanted(path)) {
            let values = values_at(rows, path)?;
            let mut treated =
                TreatmentStats { values: (values.len() - values.null_count()) as u64, ..TreatmentStats::default() };
            match ready {
                CompiledTreatment::InFiles if !self.encrypts_files => {
                    let message = format!(
                        "column `{path}` must be encrypted inside of Parquet files, and these rows are not \
                        written to such files"
                    );
                    return Err(Error::new(codes::NOT_ENCRYPTED, message).with_column(path));
                }
                CompiledTreatment::Keep | CompiledTreatment::InFiles => {}
                // Removed in one step at the end. Treatments read the original rows, so that a removed column may be
                // the subject.
                CompiledTreatment::Remove => gone.push(path.as_str()),
                _ => {
                    let new = self.treat_column(path, ready, &values, rows, digests.as_ref(), &mut treated).await?;
                    // The result is nullable even if no subject was forgotten yet, so that all batches have the same
                    // schema.
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
        Ok(ProtectedRows { rows: if gone.is_empty() { out } else { remove_columns(&out, &gone)? }, columns })
    }

    async fn treat_column(
        &self,
        path: &str,
        ready: &CompiledTreatment,
        values: &ArrayRef,
        rows: &RecordBatch,
        digests: Option<&RowDigests>,
        treated: &mut TreatmentStats,
    ) -> Result<ArrayRef> {
        match ready {
            CompiledTreatment::Keep | CompiledTreatment::InFiles | CompiledTreatment::Remove => Ok(values.clone()),
            CompiledTreatment::Redact(redactor) => {
                if !is_all_text(values.data_type()) && values.data_type() != &DataType::Null {
                    let message = format!(
                        "column `{path}` has type {}, and only text can be redacted; mask, hash, encrypt or \
                        tokenize the column, or name its text fields",
                        values.data_type()
                    );
                    return Err(Error::new(biscuit_core::codes::NOT_TEXT, message).with_column(path));
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
                let subjects = values_at(rows, subject)?;
                if !is_one_a_row(rows.schema_ref(), path) || !is_one_a_row(rows.schema_ref(), subject) {
                    let message = format!(
                        "column `{path}` or `{subject}` can have several values in a row; keys of subjects \
                        need exactly one"
                    );
                    return Err(Error::new(codes::INVALID_POLICY, message).with_column(path));
                }
                let encrypted = cells.encrypt_of(path, values, &subjects, digests).await?;
                treated.forgotten = encrypted.forgotten;
                Ok(encrypted.column)
            }
        }
    }

    /// Reverses the treatment of columns that are encrypted or tokenized, after the access was recorded. Values of
    /// forgotten subjects and forgotten tokens are null. `kinds` are the original types of columns that were not
    /// text.
    ///
    /// # Errors
    /// `NoWayBack` for a column whose treatment cannot be reversed, or that has none; `UnknownColumn`; the errors of
    /// decryption and detokenization.
    pub async fn reveal<S: AsRef<str>>(
        &self,
        rows: &RecordBatch,
        columns: &[S],
        kinds: &BTreeMap<String, DataType>,
        access: &AccessRequest,
    ) -> Result<ProtectedRows> {
        let (mut out, mut done) = (rows.clone(), BTreeMap::new());
        for path in columns.iter().map(AsRef::as_ref) {
            let values = values_at(rows, path)?;
            let ready = self.columns.iter().find(|(of, _)| of == path).map(|(_, ready)| ready);
            let to = kinds.get(path).cloned().unwrap_or(DataType::Utf8);
            let counts = (values.len() - values.null_count()) as u64;
            let (column, forgotten) = match ready {
                Some(CompiledTreatment::Tokenize(tokenizer)) => {
                    let back = tokenizer.detokenize(path, &values, access).await?;
                    let column = if back.column.data_type().is_nested() {
                        back.column
                    } else {
                        convert_column(path, &back.column, &to)?
                    };
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
                    let message =
                        format!("column `{path}` is neither encrypted nor tokenized, so its values cannot be restored");
                    return Err(Error::new(codes::NO_WAY_BACK, message).with_column(path));
                }
            };
            out = with_part(&out, path, column, NullRule::Allowed)?;
            done.insert(path.to_owned(), TreatmentStats { values: counts, found: BTreeMap::new(), forgotten });
        }
        Ok(ProtectedRows { rows: out, columns: done })
    }

    /// Deletes the stored values of tokens of a column and returns their number. The tokens remain and still join.
    ///
    /// # Errors
    /// `NoWayBack` for a column that is not tokenized; the errors of
    /// [`Tokenizer::forget`](crate::tokens::Tokenizer::forget).
    pub async fn forget_tokens(&self, path: &str, tokens: &[&str]) -> Result<u64> {
        match self.columns.iter().find(|(of, _)| of == path) {
            Some((_, CompiledTreatment::Tokenize(tokenizer))) => tokenizer.forget(tokens).await,
            _ => {
                let message = format!("column `{path}` is not tokenized");
                Err(Error::new(codes::NO_WAY_BACK, message).with_column(path))
            }
        }
    }

    /// Returns whether a store holds the values of the tokens of a column.
    pub fn keeps_values(&self, path: &str) -> bool {
        let tokenizes = |ready: &CompiledTreatment| matches!(ready, CompiledTreatment::Tokenize(tokenizer) if tokenizer.keeps_values());
        self.columns.iter().any(|(of, ready)| of == path && tokenizes(ready))
    }

    /// Returns the tokens or hashes that a column has for these values. Creates no tokens: a value without a token is
    /// left out.
    ///
    /// # Errors
    /// `NoWayBack` for a column that is neither tokenized nor hashed; the errors of the store.
    pub async fn tokens_for(&self, path: &str, values: &[String]) -> Result<Vec<String>> {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        match self.columns.iter().find(|(of, _)| of == path).map(|(_, ready)| ready) {
            Some(CompiledTreatment::Tokenize(tokenizer)) => {
                Ok(tokenizer.known_tokens(&values).await?.into_iter().flatten().collect())
            }
            Some(CompiledTreatment::Hash(key)) => Ok(values.into_iter().map(|value| key.hash(value)).collect()),
            _ => {
                let message =
                    format!("column `{path}` is neither tokenized nor hashed, so its rows cannot be found by value");
                Err(Error::new(codes::NO_WAY_BACK, message).with_column(path))
            }
        }
    }

    /// Returns the distinct tokens of a tokenized column.
    ///
    /// # Errors
    /// `UnknownColumn`.
    pub fn tokens_of(&self, rows: &RecordBatch, path: &str) -> Result<Vec<String>> {
        Ok(distinct_texts(&values_at(rows, path)?).into_iter().map(|(text, _)| text).collect())
    }
}

/// Replaces each letter and digit of the texts of a column by `*`, except the `first` at the beginning and the `last`
/// at the end. A text of which this would show more than half is masked completely. Numbers, dates and similar values
/// become text.
///
/// # Errors
/// `NotText` for a column whose values have no text form.
pub fn mask_texts(column: &str, values: &ArrayRef, first: usize, last: usize) -> Result<ArrayRef> {
    map_texts(&as_text(column, values)?, &mut |text| mask_text(text, first, last))
}

/// Replaces the texts of a column by keyed hashes.
///
/// # Errors
/// Those of [`mask_texts`].
pub fn hash_texts(column: &str, values: &ArrayRef, key: &HashKey) -> Result<ArrayRef> {
    map_texts(&as_text(column, values)?, &mut |text| key.hash(text))
}

fn convert_column(path: &str, column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    // The cause is dropped on purpose: it quotes the value.
    cast_with_options(column, to, &strict).map_err(|_| {
        let message = format!("column `{path}` was detokenized, but a value in it cannot be converted to {to}");
        Error::new(codes::CANNOT_DETOKENIZE, message).with_column(path)
    })
}
