//! Contracts and their columns, and the checks that their parts are consistent.

use arrow::datatypes::{Field, Schema};
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::contract::check::ContractCheck;
use crate::values::reading_rules::{ExtraColumns, OnError, ReadingRules};
use crate::{ColumnType, HiveType, codes};

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

/// Settings of a Debezium connector, with the names and values of the connector. The connector has the same
/// defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DebeziumSettings {
    /// `decimal.handling.mode`: `precise`, `double` or `string`.
    #[serde(rename = "decimal.handling.mode", default = "precise")]
    pub decimal: String,
    /// `time.precision.mode`: `adaptive`, `adaptive_time_microseconds`, `connect`, `isostring`, `microseconds` or
    /// `nanoseconds`.
    #[serde(rename = "time.precision.mode", default = "adaptive")]
    pub time: String,
    /// `binary.handling.mode`: `bytes`, `base64`, `base64-url-safe` or `hex`.
    #[serde(rename = "binary.handling.mode", default = "bytes")]
    pub binary: String,
    /// `interval.handling.mode`: `numeric` or `string`.
    #[serde(rename = "interval.handling.mode", default = "numeric")]
    pub interval: String,
}

fn precise() -> String {
    "precise".into()
}

fn adaptive() -> String {
    "adaptive".into()
}

fn bytes() -> String {
    "bytes".into()
}

fn numeric() -> String {
    "numeric".into()
}

impl Default for DebeziumSettings {
    fn default() -> Self {
        Self { decimal: precise(), time: adaptive(), binary: bytes(), interval: numeric() }
    }
}

impl DebeziumSettings {
    pub(crate) fn check(&self) -> Result<()> {
        let known: [(&str, &str, &[&str]); 4] = [
            ("decimal.handling.mode", &self.decimal, &["precise", "double", "string"]),
            (
                "time.precision.mode",
                &self.time,
                &["adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"],
            ),
            ("binary.handling.mode", &self.binary, &["bytes", "base64", "base64-url-safe", "hex"]),
            ("interval.handling.mode", &self.interval, &["numeric", "string"]),
        ];
        match known.iter().find(|(_, v, all)| !all.contains(v)) {
            Some((name, v, all)) => {
                Err(bad(format!("`{name}` is `{v}`; the values of Debezium are {}", all.join(", "))))
            }
            None => Ok(()),
        }
    }
}

/// Layer of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DatasetLayer {
    /// Data as it arrived. Rows are added; the data is never replaced, merged into or purged.
    Raw,
    /// Typed and cleaned data.
    Clean,
    /// Data for a specific purpose.
    Curated,
}

/// Declared schema of a table. The front page of the crate describes the file format.
///
/// ```
/// use biscuit_schema::{ColumnType, Contract, ContractColumn};
///
/// let id = ContractColumn::new("id", ColumnType::parse("bigint")?).required();
/// let email = ContractColumn::new("email", ColumnType::parse("string")?).with_pii("email");
/// let mut contract = Contract::new([id, email])?;
/// contract.key = vec!["id".to_owned()];
/// contract.check()?;
/// assert_eq!(Contract::from_toml(&contract.to_toml()?)?, contract);
///
/// contract.key = vec!["number".to_owned()];
/// assert_eq!(contract.check().unwrap_err().code(), "InvalidContract");
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contract {
    /// Name as `schema.table`, for input files with several tables.
    pub table: Option<String>,
    /// Description of the table.
    pub comment: Option<String>,
    /// Version of the contract, in words of the owner.
    pub version: Option<String>,
    /// Layer of the dataset.
    pub layer: Option<DatasetLayer>,
    /// Columns, in order.
    pub columns: Vec<ContractColumn>,
    /// Columns that identify an entity; empty if the contract has no key.
    pub key: Vec<String>,
    /// Columns that decide which of two records of a key is newer; empty if the contract has no order.
    pub order: Vec<String>,
    /// Columns whose values together are unique. They define what a row stands for.
    pub grain: Vec<String>,
    /// Columns of the Hive path.
    pub partition_by: Vec<String>,
    /// Treatment of columns that are not in the contract. Default: drop.
    pub extra: ExtraColumns,
    /// Treatment of values that cannot be converted, for columns without their own setting. Default: fail.
    pub on_error: OnError,
    /// Rules for rows in addition to the types.
    pub checks: Vec<ContractCheck>,
    /// Settings of the Debezium connector that writes the changes of the table.
    pub debezium: DebeziumSettings,
}

impl Contract {
    /// Creates a contract with these columns and defaults for all other fields.
    ///
    /// # Errors
    /// See [`check`](Self::check).
    pub fn new(columns: impl IntoIterator<Item = ContractColumn>) -> Result<Self> {
        let contract = Self { columns: columns.into_iter().collect(), ..Self::default() };
        contract.check()?;
        Ok(contract)
    }

    /// Creates a contract from an Arrow schema. The metadata key `comment` of a field becomes the comment of the
    /// column.
    ///
    /// # Errors
    /// `UnknownType` for an Arrow type that cannot be stored in a table; `ColumnCase`, `TooManyColumns`, `TooDeep`.
    pub fn from_arrow(schema: &Schema) -> Result<Self> {
        crate::types::limits::check_size(schema, "the schema")?;
        let columns = schema.fields().iter().map(|f| {
            let unknown = || {
                let message = format!(
                    "column `{}`: the type {} cannot be stored in a table; remove the column or convert it to another type",
                    f.name(),
                    f.data_type()
                );
                Error::new(codes::UNKNOWN_TYPE, message).with_column(f.name())
            };
            let arrow =
                crate::types::common::stored_type(f.data_type()).filter(|t| crate::type_name(t).is_some()).ok_or_else(unknown)?;
            let column = ContractColumn::new(f.name(), ColumnType::of_arrow(arrow));
            let comment = f.metadata().get("comment").cloned();
            Ok(ContractColumn { nullable: f.is_nullable(), comment, ..column })
        });
        Self::new(columns.collect::<Result<Vec<_>>>()?)
    }

    /// Checks the consistency of the contract: column names are unique, and the columns of key, grain, partitioning
    /// and checks exist.
    ///
    /// # Errors
    /// `InvalidContract`; `SchemaTooLarge`.
    pub fn check(&self) -> Result<()> {
        let schema = self.to_arrow();
        crate::types::limits::check_size(&schema, "the contract")
            .map_err(|e| Error::new(codes::SCHEMA_TOO_LARGE, e.message()))?;
        crate::types::union::check_names(&schema, "the contract").map_err(|e| bad(e.message().to_owned()))?;
        // Order columns may come from the change stream instead of the row, so they are not checked.
        let named = self.key.iter().chain(&self.partition_by).chain(&self.grain);
        if let Some(name) = named.into_iter().find(|n| self.column(n).is_none()) {
            return Err(bad(format!("`{name}` is named in `key`, `grain` or `partition_by`, but is not a column")));
        }
        for check in &self.checks {
            check.fits(&|name| self.column(name).is_some()).map_err(|e| bad(e.message().to_owned()))?;
        }
        Ok(())
    }

    /// Returns the column with this name.
    pub fn column(&self, name: &str) -> Option<&ContractColumn> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Returns the contract column for a column of the input. The name is compared exactly, then without letter case,
    /// then with the former names.
    pub fn column_for(&self, name: &str) -> Option<&ContractColumn> {
        let like = |own: &String| own.eq_ignore_ascii_case(name);
        let by = |is: &dyn Fn(&ContractColumn) -> bool| self.columns.iter().find(|c| is(c));
        self.column(name)
            .or_else(|| by(&|c| like(&c.name)))
            .or_else(|| by(&|c| c.reading.renamed_from.iter().any(like)))
    }

    /// Returns the effective `on_error` of a column: its own setting, or else that of the contract.
    pub fn on_error_of(&self, column: &ContractColumn) -> OnError {
        column.reading.on_error.unwrap_or(self.on_error)
    }

    /// Removes the defaults of the columns that the predicate selects.
    #[must_use]
    pub fn without_defaults(mut self, columns: impl Fn(&str) -> bool) -> Self {
        for column in self.columns.iter_mut().filter(|column| columns(&column.name)) {
            column.reading.default = None;
        }
        self
    }

    /// Returns the Arrow schema of the stored rows.
    pub fn to_arrow(&self) -> Schema {
        let field = |c: &ContractColumn| Field::new(&c.name, c.column_type.arrow().clone(), c.nullable);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }
}

pub(crate) fn bad(message: String) -> Error {
    Error::new(codes::INVALID_CONTRACT, message)
}
