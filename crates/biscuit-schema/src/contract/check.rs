//! Rules that rows of a contract have to comply with, and the consequences of a broken rule.

use std::time::Duration;

use biscuit_core::{Error, ErrorCode, Result, parse_duration, remove_quoted_text};
use serde::{Deserialize, Serialize};

use crate::codes;

/// Consequence of a broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckSeverity {
    /// The rows are counted and reported.
    Warn,
    /// The rows are quarantined with the reason. If the rule is about all rows, the run stops.
    Quarantine,
    /// The run stops before anything is written.
    #[default]
    Fail,
}

/// Value in a check: a number, a boolean, or text, which is converted to the type of the column.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum CheckValue {
    /// Boolean.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
}

impl CheckValue {
    /// Returns the value as text.
    pub fn text(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Float(x) => x.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

// Values are compared as text: `min = 1` and `min = "1"` are the same bound. This also makes equality total for
// floats.
impl PartialEq for CheckValue {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for CheckValue {}

impl From<&str> for CheckValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for CheckValue {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

/// Rule that rows have to comply with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum CheckRule {
    /// The column is never null.
    NotNull {
        /// The column.
        column: String,
    },
    /// No two rows have the same values in these columns. A row with a null in one of the columns is not equal to any
    /// row.
    Unique {
        /// The columns.
        columns: Vec<String>,
    },
    /// The values are between these bounds, both inclusive. Nulls comply.
    Range {
        /// The column.
        column: String,
        /// Minimum value.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<CheckValue>,
        /// Maximum value.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<CheckValue>,
    },
    /// The values are elements of this list. Nulls comply.
    OneOf {
        /// The column.
        column: String,
        /// The values.
        values: Vec<CheckValue>,
    },
    /// A regular expression matches a part of the text, or the whole text if it is anchored. Nulls comply.
    Pattern {
        /// The column.
        column: String,
        /// Regular expression in the syntax of the crate `regex`.
        pattern: String,
    },
    /// The number of written rows is between these bounds.
    Rows {
        /// Minimum number of rows.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<u64>,
        /// Maximum number of rows.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// The newest time in a column is at most this age at the start of the run.
    Fresh {
        /// The column, with dates or timestamps.
        column: String,
        /// Maximum age, such as `2d` or `6h`.
        within: String,
    },
}

/// Rule, and the consequence if it is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
#[non_exhaustive]
pub struct ContractCheck {
    /// The rule.
    #[serde(flatten)]
    pub rule: CheckRule,
    /// Consequence if the rule is broken. Default: the run stops.
    #[serde(default)]
    pub severity: CheckSeverity,
}

impl ContractCheck {
    /// Creates a check that stops the run if the rule is broken.
    pub fn new(rule: CheckRule) -> Self {
        Self { rule, severity: CheckSeverity::Fail }
    }

    /// Sets the consequence of a broken rule. Default: the run stops.
    pub fn with_severity(mut self, severity: CheckSeverity) -> Self {
        self.severity = severity;
        self
    }

    /// Checks that the columns of the rule exist in the contract, and that the rule is complete.
    pub(crate) fn check_rule(&self, has_column: &dyn Fn(&str) -> bool) -> Result<()> {
        let wrong = |message: String| Err(Error::new(codes::INVALID_CONTRACT, message));
        if let Some(name) = self.rule.columns().into_iter().find(|name| !has_column(name)) {
            return wrong(format!("`{name}` is named in a check, but is not a column"));
        }
        match &self.rule {
            CheckRule::Unique { columns } if columns.is_empty() => {
                wrong("a check with the rule `unique` has no columns".to_owned())
            }
            CheckRule::Range { column, min: None, max: None } => {
                wrong(format!("the range of `{column}` has no bound; set `min` or `max`"))
            }
            CheckRule::Rows { min: None, max: None } => {
                wrong("a check with the rule `rows` has no bound; set `min` or `max`".to_owned())
            }
            CheckRule::Pattern { column, pattern } => match regex::Regex::new(pattern) {
                Ok(_) => Ok(()),
                Err(e) => wrong(format!(
                    "the pattern of `{column}` is not a regular expression: {}",
                    remove_quoted_text(&e.to_string())
                )),
            },
            CheckRule::Fresh { within, .. } => self::parse_within(within).map(drop),
            _ => Ok(()),
        }
    }
}

pub(crate) fn parse_within(text: &str) -> Result<Duration> {
    parse_duration(text)
}

impl CheckRule {
    /// Returns the columns of the rule; empty for a rule about all rows.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::NotNull { column }
            | Self::Range { column, .. }
            | Self::OneOf { column, .. }
            | Self::Pattern { column, .. }
            | Self::Fresh { column, .. } => vec![column],
            Self::Unique { columns } => columns.iter().map(String::as_str).collect(),
            Self::Rows { .. } => vec![],
        }
    }

    /// Returns the code of the error for rows that break the rule.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotNull { .. } => codes::NULL_NOT_ALLOWED,
            Self::Unique { .. } => codes::NOT_UNIQUE,
            Self::Range { .. } => codes::OUT_OF_RANGE,
            Self::OneOf { .. } => codes::NOT_IN_SET,
            Self::Pattern { .. } => codes::PATTERN_MISMATCH,
            Self::Rows { .. } => codes::ROW_COUNT,
            Self::Fresh { .. } => codes::NOT_FRESH,
        }
    }
}
