//! A column of a contract.

use biscuit_core::{Error, Result};

use crate::codes;
use crate::types::column_type::ColumnType;
use crate::types::hive::HiveType;
use crate::values::reading_rules::ReadingRules;

/// Column of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ContractColumn {
    /// Name of the column.
    pub name: String,
    /// Type of the column.
    pub column_type: ColumnType,
    /// Whether the column may be null. Default: true.
    pub nullable: bool,
    /// Meaning of the column.
    pub comment: Option<String>,
    /// Class of the personal data in the column, in words of the owner, such as `email` or `ssn`.
    pub pii: Option<String>,
    /// Rules for the conversion of values of other types.
    pub reading: ReadingRules,
    /// Hive type, if it is more precise than the Arrow type, such as `varchar(20)`.
    pub(crate) hive: Option<HiveType>,
}

impl ContractColumn {
    /// Creates a nullable column with this name and type.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Self {
        let (comment, pii, reading, hive) = (None, None, ReadingRules::default(), None);
        Self { name: name.into(), column_type, nullable: true, comment, pii, reading, hive }
    }

    /// Creates a nullable column with a Hive type.
    pub fn of_hive(name: impl Into<String>, hive: HiveType) -> Self {
        let column_type = ColumnType::of_arrow(hive.arrow());
        Self { hive: Some(hive), ..Self::new(name, column_type) }
    }

    /// Makes the column not nullable.
    pub fn required(mut self) -> Self {
        self.nullable = false;
        self
    }

    /// Sets the comment. Default: none.
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Sets the class of the personal data in the column, such as `email`. Default: none.
    pub fn with_pii(mut self, class: impl Into<String>) -> Self {
        self.pii = Some(class.into());
        self
    }

    /// Sets the rules for the conversion of values. The default rules refuse each loss.
    pub fn with_reading(mut self, reading: ReadingRules) -> Self {
        self.reading = reading;
        self
    }

    /// Returns the declared Hive type (`varchar(20)`), or else the Hive type that corresponds to the Arrow type.
    ///
    /// # Errors
    /// `NoHiveType` for types that Hive does not have.
    pub fn hive_type(&self) -> Result<HiveType> {
        let derived = || HiveType::of_arrow(self.column_type.arrow());
        self.hive.clone().or_else(derived).ok_or_else(|| {
            let message =
                format!("column `{}` has the type {}, which Hive does not have", self.name, self.column_type.arrow());
            Error::new(codes::NO_HIVE_TYPE, message).with_column(&self.name)
        })
    }
}
