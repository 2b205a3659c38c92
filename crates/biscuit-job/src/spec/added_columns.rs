//! Columns that a job adds to the rows of an output.

use serde::{Deserialize, Serialize};

/// A column that is derived from another column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DerivedColumn {
    /// Source column: a date, a timestamp, or text with a date or time.
    pub from: String,
    /// Part of the time.
    #[serde(rename = "as")]
    pub part: DatePart,
}

impl DerivedColumn {
    /// Creates a column with a part of the time in the column `from`: a date, a timestamp, or text with a date or
    /// time.
    #[must_use]
    pub fn new(from: impl Into<String>, part: DatePart) -> Self {
        Self { from: from.into(), part }
    }
}

/// A part of a time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DatePart {
    /// Date.
    Date,
    /// Year, as a number.
    Year,
    /// Month, 1 to 12.
    Month,
    /// Day of the month.
    Day,
    /// Hour, 0 to 23.
    Hour,
}

/// Columns about the run that are added to every row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AuditSpec {
    /// Column for the instant at which the run started.
    pub processing_datetime: Option<String>,
    /// Column for the id of the run.
    pub run_id: Option<String>,
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
