use std::time::Duration;

use biscuit_core::{Error, Result, parse_duration, unquoted};
use serde::{Deserialize, Serialize};

use crate::Contract;

/// What happens if rows do not comply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckSeverity {
    /// It is counted and said.
    Warn,
    /// The rows are put aside with the reason. Of rows as a whole, it stops the run.
    Quarantine,
    /// It stops the run before anything is written.
    #[default]
    Fail,
}

/// A value of a check: a number, a truth, or text, which is read as the column's type.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CheckValue {
    /// A truth.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
}

impl CheckValue {
    /// The value as text.
    pub fn text(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Float(x) => x.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

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

/// What rows have to comply with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum CheckRule {
    /// The column is never null.
    NotNull {
        /// The column.
        column: String,
    },
    /// No two rows have the same values in these columns; a row with a null in one of them is like no other.
    Unique {
        /// The columns.
        columns: Vec<String>,
    },
    /// The values are within these bounds, both inclusive. Nulls comply.
    Range {
        /// The column.
        column: String,
        /// The least value.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<CheckValue>,
        /// The greatest value.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<CheckValue>,
    },
    /// The values are among these. Nulls comply.
    OneOf {
        /// The column.
        column: String,
        /// The values.
        values: Vec<CheckValue>,
    },
    /// The texts match a regular expression, somewhere in them unless it is anchored. Nulls comply.
    Pattern {
        /// The column.
        column: String,
        /// The expression, in the syntax of the crate `regex`.
        pattern: String,
    },
    /// So many rows are written.
    Rows {
        /// At least.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<u64>,
        /// At most.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
    /// The newest time in a column is at most so long before the run began.
    Fresh {
        /// The column, of dates or times.
        column: String,
        /// How long, as `2d` or `6h`.
        within: String,
    },
}

/// A rule, and what happens if it is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractCheck {
    /// The rule.
    #[serde(flatten)]
    pub rule: CheckRule,
    /// What happens if it is broken. Default: the run stops.
    #[serde(default)]
    pub severity: CheckSeverity,
}

impl ContractCheck {
    /// A check that stops the run.
    pub fn new(rule: CheckRule) -> Self {
        Self { rule, severity: CheckSeverity::Fail }
    }

    /// The same check with another severity.
    pub fn with_severity(mut self, severity: CheckSeverity) -> Self {
        self.severity = severity;
        self
    }

    /// Whether it is about columns that there are, and says something about them.
    pub(crate) fn fits(&self, contract: &Contract) -> Result<()> {
        let wrong = |message: String| Err(Error::usage("InvalidContract", message));
        if let Some(name) = self.rule.columns().into_iter().find(|name| contract.column(name).is_none()) {
            return wrong(format!("`{name}` is named in a check, but is no column"));
        }
        match &self.rule {
            CheckRule::Unique { columns } if columns.is_empty() => {
                wrong("a check of uniqueness names no column".to_owned())
            }
            CheckRule::Range { column, min: None, max: None } => wrong(format!("the range of `{column}` has no bound")),
            CheckRule::Rows { min: None, max: None } => wrong("a check of the number of rows has no bound".to_owned()),
            CheckRule::Pattern { column, pattern } => match regex::Regex::new(pattern) {
                Ok(_) => Ok(()),
                Err(e) => wrong(format!("the pattern of `{column}` is none: {}", unquoted(&e.to_string()))),
            },
            CheckRule::Fresh { within, .. } => self::within(within).map(drop),
            _ => Ok(()),
        }
    }
}

pub(crate) fn within(text: &str) -> Result<Duration> {
    parse_duration(text)
}

impl CheckRule {
    /// The columns it is about.
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

    /// The stable code of a row, or of rows, that do not comply.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotNull { .. } => "NullNotAllowed",
            Self::Unique { .. } => "NotUnique",
            Self::Range { .. } => "OutOfRange",
            Self::OneOf { .. } => "NotInSet",
            Self::Pattern { .. } => "PatternMismatch",
            Self::Rows { .. } => "RowCount",
            Self::Fresh { .. } => "NotFresh",
        }
    }
}
