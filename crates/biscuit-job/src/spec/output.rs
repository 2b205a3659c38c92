//! An output of a job: its table, how its rows are made, and what happens to the existing rows.

use std::collections::BTreeMap;

use biscuit_apply::NewServerPolicy;
use serde::{Deserialize, Serialize};

use crate::spec::added_columns::{AuditSpec, DerivedColumn};
use crate::spec::contract::ContractSpec;
use crate::spec::source::SourceSpec;

/// Handling of the existing rows of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OutputMode {
    /// They remain. The rows of each object are in the output once, even if the object is read again.
    Append,
    /// The partitions with new rows are replaced by the rows of all input that reaches them.
    ReplacePartitions,
    /// They are replaced by the rows of all input.
    Replace,
    /// The new rows are change records; the output has the current state.
    Merge,
    /// As [`Merge`](Self::Merge), with one full copy of the state for each period.
    Snapshot,
}

/// An output of a job.
///
/// ```
/// use biscuit_job::{JobSpec, OutputMode, OutputSpec, SourceFormat, SourceSpec};
///
/// let all = OutputSpec::new("lake/orders", OutputMode::ReplacePartitions).with_partition_by(["day"]);
/// let large = OutputSpec::new("lake/large_orders", OutputMode::Append)
///     .with_sql("SELECT id, amount FROM orders WHERE amount > 1000");
/// let job = JobSpec::builder("orders")
///     .with_source("orders", SourceSpec::new(["raw/orders"], SourceFormat::Json))
///     .with_output("all", all)
///     .with_output("large", large)
///     .build()?;
/// assert_eq!(job.outputs["all"].partition_by, ["day"]);
/// assert_eq!(job.outputs["large"].max_quarantined, 0.1); // percent
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OutputSpec {
    /// Path or URL of the table.
    pub url: String,
    /// State root of the table. Default: `_biscuit` in the table.
    pub state: Option<String>,
    /// Handling of existing rows.
    pub mode: OutputMode,
    /// Query over the sources, by their names.
    pub sql: Option<String>,
    /// Names of the sources that the output reads. Default: all sources.
    pub sources: Option<Vec<String>>,
    /// Contract of the rows: types, grain, checks, partition columns, layer.
    pub contract: Option<ContractSpec>,
    /// Partition columns.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Columns to derive from other columns, by name.
    #[serde(default)]
    pub derive: BTreeMap<String, DerivedColumn>,
    /// Columns about the run.
    #[serde(default)]
    pub audit: AuditSpec,
    /// For `merge` and `snapshot`: columns that identify an entity.
    #[serde(default)]
    pub key: Vec<String>,
    /// For `merge` and `snapshot`: columns that decide which of two records is newer.
    #[serde(default)]
    pub order: Vec<String>,
    /// For `merge` and `snapshot`: operation column of transformed rows.
    pub op: Option<String>,
    /// For `merge` and `snapshot`: operation codes from low to high rank. Among records of equal order, the highest
    /// rank wins.
    #[serde(default)]
    pub op_rank: Vec<String>,
    /// For `merge` and `snapshot`: columns in which null means an unchanged value; `*` for all columns.
    #[serde(default)]
    pub ignore_null: Vec<String>,
    /// For `merge` and `snapshot`: columns that the merge uses but does not store.
    #[serde(default)]
    pub drop_columns: Vec<String>,
    /// For `merge` and `snapshot`: maximum deleted rows, in percent of the rows of the table. Applies to tables of
    /// more than 1,000 rows. Default: 30.
    pub max_deleted: Option<f64>,
    /// For `merge` and `snapshot`: how log positions of a database server are ordered if no earlier record came from
    /// that server.
    pub new_server: Option<NewServerPolicy>,
    /// For `snapshot`: length of periods.
    pub granularity: Option<String>,
    /// For `snapshot`: time zone in which periods begin. Default: UTC.
    pub zone: Option<String>,
    /// For `snapshot`: column with the effective time of a record. Default: records count from the period of the run.
    pub effective_column: Option<String>,
    /// Maximum quarantined rows, in percent of all rows. Beyond it, the run stops. Default: 0.1.
    #[serde(default = "tenth")]
    pub max_quarantined: f64,
    /// Target size of files in bytes, such as `target_size = 268435456`.
    pub target_size: Option<u64>,
}

fn tenth() -> f64 {
    0.1
}

impl OutputSpec {
    /// Creates an output into the table at this path or URL.
    #[must_use]
    pub fn new(url: impl Into<String>, mode: OutputMode) -> Self {
        Self {
            url: url.into(),
            state: None,
            mode,
            sql: None,
            sources: None,
            contract: None,
            partition_by: vec![],
            derive: BTreeMap::new(),
            audit: AuditSpec::default(),
            key: vec![],
            order: vec![],
            op: None,
            op_rank: vec![],
            ignore_null: vec![],
            drop_columns: vec![],
            max_deleted: None,
            new_server: None,
            granularity: None,
            zone: None,
            effective_column: None,
            max_quarantined: tenth(),
            target_size: None,
        }
    }

    /// Returns the names of the sources that the output reads. `all` are the sources of the job.
    pub fn sources(&self, all: &BTreeMap<String, SourceSpec>) -> Vec<String> {
        self.sources.clone().unwrap_or_else(|| all.keys().cloned().collect())
    }

    /// Sets the path or URL of the state root. Default: the default place for the table.
    #[must_use]
    pub fn with_state(mut self, url: impl Into<String>) -> Self {
        self.state = Some(url.into());
        self
    }

    /// Sets the query over the sources, by their names. Default: the rows of the only source.
    #[must_use]
    pub fn with_sql(mut self, query: impl Into<String>) -> Self {
        self.sql = Some(query.into());
        self
    }

    /// Sets the names of the sources that the output reads. Default: all sources.
    #[must_use]
    pub fn with_sources<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.sources = Some(to_texts(names));
        self
    }

    /// Sets the contract of the rows: a [`Contract`](biscuit_schema::Contract), or a file as [`ContractSpec::File`].
    /// Default: none.
    #[must_use]
    pub fn with_contract(mut self, contract: impl Into<ContractSpec>) -> Self {
        self.contract = Some(contract.into());
        self
    }

    /// Sets the partition columns. Default: those of the contract.
    #[must_use]
    pub fn with_partition_by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.partition_by = to_texts(columns);
        self
    }

    /// Adds a column that is derived from another column.
    #[must_use]
    pub fn with_derive(mut self, column: impl Into<String>, derived: DerivedColumn) -> Self {
        self.derive.insert(column.into(), derived);
        self
    }

    /// Sets the columns about the run. Default: none.
    #[must_use]
    pub fn with_audit(mut self, audit: AuditSpec) -> Self {
        self.audit = audit;
        self
    }

    /// Sets the columns that identify an entity, for `merge` and `snapshot`. Default: those of the contract, of the
    /// records or of the table.
    #[must_use]
    pub fn with_key<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.key = to_texts(columns);
        self
    }

    /// Sets the columns that decide which of two records is newer, for `merge` and `snapshot`. Default: those of the
    /// records, of the contract or of the table.
    #[must_use]
    pub fn with_order<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.order = to_texts(columns);
        self
    }

    /// Sets the operation column of transformed rows, for `merge` and `snapshot`. Default: every row is an upsert.
    #[must_use]
    pub fn with_op(mut self, column: impl Into<String>) -> Self {
        self.op = Some(column.into());
        self
    }

    /// Sets operation codes from low to high rank, for `merge` and `snapshot`. Among records of equal order, the
    /// highest rank wins.
    #[must_use]
    pub fn with_op_rank<S: Into<String>>(mut self, codes: impl IntoIterator<Item = S>) -> Self {
        self.op_rank = to_texts(codes);
        self
    }

    /// Sets the columns in which null means an unchanged value, for `merge` and `snapshot`; `*` for all columns.
    /// Default: none.
    #[must_use]
    pub fn with_ignore_null<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.ignore_null = to_texts(columns);
        self
    }

    /// Sets the columns that the merge uses but does not store, for `merge` and `snapshot`. Default: none.
    #[must_use]
    pub fn with_drop_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.drop_columns = to_texts(columns);
        self
    }

    /// Sets the maximum deleted rows, in percent of the rows of the table, for `merge` and `snapshot`. Applies to
    /// tables of more than 1,000 rows. Default: 30.
    #[must_use]
    pub fn with_max_deleted(mut self, percent: f64) -> Self {
        self.max_deleted = Some(percent);
        self
    }

    /// Sets how log positions of a database server are ordered if no earlier record came from that server, for
    /// `merge` and `snapshot`. Default: [`NewServerPolicy::Fail`].
    #[must_use]
    pub fn with_new_server(mut self, policy: NewServerPolicy) -> Self {
        self.new_server = Some(policy);
        self
    }

    /// Sets the length of periods, such as `month`, which `snapshot` requires.
    #[must_use]
    pub fn with_granularity(mut self, granularity: impl Into<String>) -> Self {
        self.granularity = Some(granularity.into());
        self
    }

    /// Sets the IANA name of the time zone in which periods begin, for `snapshot`. Default: UTC.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the column with the effective time of a record, for `snapshot`. Default: records count from the period
    /// of the run.
    #[must_use]
    pub fn with_effective_column(mut self, column: impl Into<String>) -> Self {
        self.effective_column = Some(column.into());
        self
    }

    /// Sets the maximum quarantined rows, in percent of all rows. Beyond it, the run stops. Default: 0.1.
    #[must_use]
    pub fn with_max_quarantined(mut self, percent: f64) -> Self {
        self.max_quarantined = percent;
        self
    }

    /// Sets the target size of files in bytes. Default: 256 MiB.
    #[must_use]
    pub fn with_target_size(mut self, bytes: u64) -> Self {
        self.target_size = Some(bytes);
        self
    }
}

fn to_texts<S: Into<String>>(all: impl IntoIterator<Item = S>) -> Vec<String> {
    all.into_iter().map(Into::into).collect()
}
