//! Options of an output, for programs that build a job. Each option has the name of its key in a job file.

use std::collections::BTreeMap;

use biscuit_apply::NewServerPolicy;

use super::{AuditSpec, ContractSpec, DatePart, DerivedColumn, OutputMode, OutputSpec, tenth};

impl DerivedColumn {
    /// Creates a column with a part of the time in the column `from`: a date, a timestamp, or text with a date or
    /// time.
    #[must_use]
    pub fn new(from: impl Into<String>, part: DatePart) -> Self {
        Self { from: from.into(), part }
    }
}

impl AuditSpec {
    /// Adds a column with the instant at which the run started. Default: none.
    #[must_use]
    pub fn with_processing_datetime(mut self, column: impl Into<String>) -> Self {
        self.processing_datetime = Some(column.into());
        self
    }

    /// Adds a column with the id of the run. Default: none.
    #[must_use]
    pub fn with_run_id(mut self, column: impl Into<String>) -> Self {
        self.run_id = Some(column.into());
        self
    }
}

fn texts<S: Into<String>>(all: impl IntoIterator<Item = S>) -> Vec<String> {
    all.into_iter().map(Into::into).collect()
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
        self.sources = Some(texts(names));
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
        self.partition_by = texts(columns);
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
        self.key = texts(columns);
        self
    }

    /// Sets the columns that decide which of two records is newer, for `merge` and `snapshot`. Default: those of the
    /// records, of the contract or of the table.
    #[must_use]
    pub fn with_order<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.order = texts(columns);
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
        self.op_rank = texts(codes);
        self
    }

    /// Sets the columns in which null means an unchanged value, for `merge` and `snapshot`; `*` for all columns.
    /// Default: none.
    #[must_use]
    pub fn with_ignore_null<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.ignore_null = texts(columns);
        self
    }

    /// Sets the columns that the merge uses but does not store, for `merge` and `snapshot`. Default: none.
    #[must_use]
    pub fn with_drop_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.drop_columns = texts(columns);
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
