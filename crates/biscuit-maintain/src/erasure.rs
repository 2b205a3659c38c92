//! Erasure of subjects: stored values of tokens, rows, quarantined records, and keys.
//!
//! The order matters, and each step can be repeated:
//!
//! 1. Stored values of the tokens in the rows of the subjects. They are found by the rows, which are gone after the
//!    next step. An erasure that deletes the rows first and is then interrupted could never find these tokens again.
//! 2. Rows, state and quarantined records, in one commit of the table: see `forget` of biscuit-partition. The
//!    quarantine is searched after the version was observed. A record that is quarantined later conflicts with the
//!    commit, so that none is overlooked.
//! 3. Stored values of the subjects' own tokens, if the column of the subjects is tokenized. Up to here they identify
//!    the rows.
//! 4. Keys of the subjects. Nothing before needs them. That they have a store is checked before the first step.

use std::collections::BTreeSet;

use biscuit_apply::readmit;
use biscuit_core::{Error, Outcome, Result};
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_job::internal::quarantined_of_subjects;
use biscuit_partition::report::{ForgetReport, NotCovered};
use biscuit_partition::{ErasureSubjects, forget};
use biscuit_pii::encrypt::SubjectKeys;
use biscuit_pii::{PiiContext, Protector};
use biscuit_rewrite::{RunMode, SubjectRows};
use serde::{Serialize, Serializer};

use crate::place::bucket_of;

/// Erasure of subjects.
#[derive(Debug)]
#[must_use]
pub struct SubjectErasure {
    subjects: Vec<String>,
    table: Option<ErasureTable>,
    keys: Option<PiiContext>,
}

/// Table from which subjects are erased.
#[derive(Debug)]
#[must_use]
pub struct ErasureTable {
    dataset: Dataset,
    column: String,
    policy: Option<TablePolicy>,
    tokens: Vec<String>,
    rows: RowsOfSubjects,
}

/// Policy of a table: treatments of its columns, keys and stores, and the name that encrypted values are bound to.
#[derive(Debug)]
struct TablePolicy {
    protector: Protector,
    means: PiiContext,
    table: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowsOfSubjects {
    Erase,
    Keep,
}

/// Result of an erasure, or of its dry run.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct SubjectErasureReport {
    /// `Done`, `Planned` for a dry run, or `NothingFound`.
    pub outcome: Outcome,
    /// Number of subjects.
    pub subjects: u64,
    /// Columns of tokens in the order of the request. Empty if no column was given.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "counts_by_column")]
    pub tokens: Vec<ForgottenTokens>,
    /// Quarantined records. `None` if no rows were to be erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<DiscardedRecords>,
    /// Erased rows and state of the table. `None` if no rows were to be erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<ForgetReport>,
    /// Number of subjects whose keys were deleted, which is 0 in a dry run. `None` if there are no keys of subjects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_deleted: Option<u64>,
}

/// Tokens of a column whose stored values were deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForgottenTokens {
    /// Name of the column.
    pub column: String,
    /// Number of tokens whose values were deleted, or in a dry run of all tokens of the subjects.
    pub tokens: u64,
}

/// Quarantined records of an erasure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiscardedRecords {
    /// Number of records of the subjects, which are discarded.
    pub discarded: u64,
    /// Number of records whose subject is unknown, since they are not JSON or cannot be decrypted. They remain.
    pub unknown: u64,
}

impl SubjectErasureReport {
    /// Returns whether something is left for another run: files that another program has changed meanwhile.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.erased.as_ref().is_some_and(|report| !report.erased.exceptions.is_empty())
    }

    /// Returns whether anything of the subjects was found.
    fn has_found(&self) -> bool {
        let of_tokens = self.tokens.iter().any(|of| of.tokens > 0);
        let of_table = self.erased.as_ref().is_some_and(|report| {
            let erased = &report.erased;
            [erased.erased, erased.retained_files, report.pending, report.retracted, report.keys, report.quarantined]
                .iter()
                .any(|count| *count > 0)
        });
        of_tokens || of_table || self.keys_deleted.is_some()
    }
}

fn counts_by_column<S: Serializer>(tokens: &[ForgottenTokens], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tokens.iter().map(|of| (&of.column, of.tokens)))
}

impl ErasureTable {
    /// Creates the table. `column` is the column that identifies the subjects.
    pub fn new(dataset: Dataset, column: impl Into<String>) -> Self {
        Self { dataset, column: column.into(), policy: None, tokens: vec![], rows: RowsOfSubjects::Erase }
    }

    /// Sets the policy of the table. `means` are its keys and stores, and `table` is the name that sealed records are
    /// bound to. If the policy tokenizes or hashes the column of the subjects, their rows are found by tokens or
    /// hashes. Default: no policy, so that the column has the subjects as they are.
    pub fn with_policy(mut self, protector: Protector, means: PiiContext, table: impl Into<String>) -> Self {
        self.policy = Some(TablePolicy { protector, means, table: table.into() });
        self
    }

    /// First deletes the stored values of the tokens in these columns; the tokens remain and still join. Without a
    /// policy this has no effect. Default: no column.
    pub fn with_tokens(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tokens.extend(columns.into_iter().map(Into::into));
        self
    }

    /// Keeps the rows, and only deletes the stored values of tokens. Default: the rows are erased.
    pub fn keeping_rows(mut self) -> Self {
        self.rows = RowsOfSubjects::Keep;
        self
    }

    /// Returns the subjects as the column stores them.
    async fn stored_values(&self, subjects: &[String]) -> Result<Vec<String>> {
        match self.policy.as_ref().map(|policy| &policy.protector).filter(|p| p.changes_column(&self.column)) {
            Some(protector) => protector.tokens_for(&self.column, subjects).await,
            None => Ok(subjects.to_vec()),
        }
    }

    /// Carries out steps 1 to 3.
    async fn erase_subjects(
        &self,
        subjects: &[String],
        mode: RunMode,
        report: &mut SubjectErasureReport,
    ) -> Result<()> {
        let values = self.stored_values(subjects).await?;
        let rows_of = ErasureSubjects::new(&self.column, &values);
        let protector = self.policy.as_ref().map(|policy| &policy.protector);
        for column in self.tokens.iter().filter(|_| protector.is_some()) {
            let tokens = self.forget_tokens_in_rows(column, &rows_of, mode).await?;
            report.tokens.push(ForgottenTokens { column: column.clone(), tokens });
        }
        if self.rows == RowsOfSubjects::Erase {
            self.erase_rows(subjects, &rows_of, mode, report).await?;
        }
        // The tokens of the subjects themselves are deleted last: up to here they identify the rows.
        if let Some(protector) = protector.filter(|p| mode == RunMode::Commit && p.keeps_values(&self.column)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            protector.forget_tokens(&self.column, &values).await?;
        }
        Ok(())
    }

    /// Deletes the stored values of the tokens that the rows of the subjects have in a column, and returns the number
    /// of tokens.
    async fn forget_tokens_in_rows(&self, column: &str, rows_of: &ErasureSubjects, mode: RunMode) -> Result<u64> {
        let Some(policy) = &self.policy else { return Ok(0) };
        let found =
            |snapshot: TableVersion| async move { SubjectRows::find(&snapshot, rows_of).await?.read(None).await };
        let mut tokens = BTreeSet::new();
        for rows in self.dataset.read(found).await? {
            tokens.extend(policy.protector.tokens_of(&rows, column)?);
        }
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        match mode {
            RunMode::DryRun => Ok(tokens.len() as u64),
            RunMode::Commit => policy.protector.forget_tokens(column, &tokens).await,
        }
    }

    /// Erases the rows of subjects, and their entries in the state of the table, in one commit.
    async fn erase_rows(
        &self,
        subjects: &[String],
        rows_of: &ErasureSubjects,
        mode: RunMode,
        report: &mut SubjectErasureReport,
    ) -> Result<()> {
        let dataset = &self.dataset;
        // `observe` recovers the table first, which writes. A dry run has to use `view`.
        let snapshot = if mode == RunMode::DryRun { dataset.view().await? } else { dataset.observe().await? };
        let none = PiiContext::new();
        let (means, table) = self.policy.as_ref().map_or((&none, ""), |policy| (&policy.means, policy.table.as_str()));
        let aside = quarantined_of_subjects(dataset, means, table, rows_of.column(), subjects).await?;
        let mut erased = forget(snapshot, rows_of, &aside.theirs, mode).await?;
        if aside.unknown > 0 {
            let message = format!(
                "the subject of {} quarantined records is unknown, since they are not JSON or cannot be decrypted; inspect them with `biscuit quarantine show`, and merge those that are valid by now with `biscuit quarantine retry`",
                aside.unknown
            );
            erased.not_covered.push(NotCovered::new("Quarantine", message));
        }
        if bucket_of(&dataset.location().to_string()).is_some() {
            let message = "in a bucket with versioning, earlier versions of deleted objects still contain the rows; delete them with `biscuit purge --versions` or a lifecycle rule";
            erased.not_covered.push(NotCovered::new("ObjectVersions", message));
        }
        report.quarantine = Some(DiscardedRecords { discarded: erased.quarantined, unknown: aside.unknown });
        report.erased = Some(erased);
        Ok(())
    }
}

impl SubjectErasure {
    /// Creates an erasure of subjects, as the subject column had them before treatment. Without a table and without
    /// keys it does nothing.
    pub fn new(subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { subjects: subjects.into_iter().map(Into::into).collect(), table: None, keys: None }
    }

    /// Erases the subjects from a table. Default: no table.
    pub fn with_table(mut self, table: ErasureTable) -> Self {
        self.table = Some(table);
        self
    }

    /// Deletes the keys of the subjects from the store of `means`, which makes everything unreadable that was encrypted
    /// with them. Default: no keys are deleted.
    pub fn with_subject_keys(mut self, means: PiiContext) -> Self {
        self.keys = Some(means);
        self
    }

    /// Carries out the erasure. An erasure that ended with an error, or that was interrupted, is completed by another
    /// run.
    ///
    /// # Errors
    /// `NotFound` if there is no table; `MissingColumn`, `NotText`, `NoFileKeys`, `RawLayer`; `NoWayBack` for a column
    /// that is not tokenized; `NoStore` for means without a store or without keys; `Conflict` if another run committed
    /// first; errors of the stores.
    pub async fn run(&self, mode: RunMode) -> Result<SubjectErasureReport> {
        let mut report = SubjectErasureReport { subjects: self.subjects.len() as u64, ..Default::default() };
        // A missing store of keys is an error before anything is changed, not after the rows are erased.
        let keys = self.subject_keys()?;
        if let Some(table) = &self.table {
            table.erase_subjects(&self.subjects, mode, &mut report).await?;
        }
        if let Some(keys) = &keys {
            report.keys_deleted = Some(self.delete_keys(keys, mode).await?);
        }
        report.outcome = match (mode, report.has_found()) {
            (RunMode::DryRun, _) => Outcome::Planned,
            (RunMode::Commit, true) => Outcome::Done,
            (RunMode::Commit, false) => Outcome::NothingFound,
        };
        Ok(report)
    }

    /// Returns the keys of the subjects; `None` if no keys are to be deleted.
    ///
    /// # Errors
    /// `NoStore` if the means have no store or no keys.
    fn subject_keys(&self) -> Result<Option<SubjectKeys>> {
        let Some(means) = &self.keys else { return Ok(None) };
        let (Some(store), Some(roots)) = (means.store.clone(), means.roots.clone()) else {
            return Err(Error::new(
                biscuit_pii::codes::NO_STORE,
                "the policy has no `store` or no `keys`, and so no keys of subjects; add both, or use --erase-from",
            ));
        };
        Ok(Some(SubjectKeys::new(store, roots)))
    }

    async fn delete_keys(&self, keys: &SubjectKeys, mode: RunMode) -> Result<u64> {
        if mode == RunMode::DryRun {
            return Ok(0);
        }
        for subject in &self.subjects {
            keys.forget(subject).await?;
        }
        Ok(self.subjects.len() as u64)
    }

    /// Readmits forgotten subjects to the table: their records change it again. Returns the number of subjects.
    ///
    /// # Errors
    /// `NotForgotten`, and the other errors of [`readmit`]; `NotFound` if no table is set.
    pub async fn readmit(&self) -> Result<u64> {
        let Some(table) = &self.table else {
            return Err(Error::new(
                biscuit_core::codes::NO_INPUT,
                "no table is given; name the table that readmits the subjects",
            ));
        };
        let values = table.stored_values(&self.subjects).await?;
        readmit(&table.dataset, &table.column, &values).await
    }
}
