use arrow::datatypes::{Field, Schema};
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::contract::check::ContractCheck;
use crate::values::reading_rules::{ExtraColumns, OnError, ReadingRules};
use crate::{ColumnType, HiveType};

/// A column of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContractColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means.
    pub comment: Option<String>,
    /// What kind of personal data it holds, in the owner's words: `email`, `ssn`.
    pub pii: Option<String>,
    /// How values of other types become its own.
    pub reading: ReadingRules,
    /// Its type in Hive's grammar, where that says more than the Arrow type.
    pub(crate) hive: Option<HiveType>,
}

impl ContractColumn {
    /// A column of this name and type, which may be null.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Self {
        let (comment, pii, reading, hive) = (None, None, ReadingRules::default(), None);
        Self { name: name.into(), column_type, nullable: true, comment, pii, reading, hive }
    }

    /// A column of a type of Hive.
    pub fn of_hive(name: impl Into<String>, hive: HiveType) -> Self {
        let column_type = ColumnType::of_arrow(hive.arrow());
        Self { hive: Some(hive), ..Self::new(name, column_type) }
    }

    /// The same column, which is never null.
    pub fn required(mut self) -> Self {
        self.nullable = false;
        self
    }

    /// The same column with what it means.
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The same column with the kind of personal data it holds.
    pub fn with_pii(mut self, class: impl Into<String>) -> Self {
        self.pii = Some(class.into());
        self
    }

    /// The same column with how values become its own.
    pub fn with_reading(mut self, reading: ReadingRules) -> Self {
        self.reading = reading;
        self
    }

    /// Its type in Hive's grammar, as it was declared (`varchar(20)`), else the one by which Hive reads its Arrow type.
    ///
    /// # Errors
    /// `NoHiveType` for types that Hive does not have.
    pub fn hive_type(&self) -> Result<HiveType> {
        let derived = || HiveType::of_arrow(self.column_type.arrow());
        self.hive.clone().or_else(derived).ok_or_else(|| {
            let message = format!("column `{}` is {}, which Hive does not have", self.name, self.column_type.arrow());
            Error::usage("NoHiveType", message).with_column(&self.name)
        })
    }
}

/// How a Debezium connector was set, by the connector's own names and values; each default is the connector's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DebeziumSettings {
    /// `decimal.handling.mode`: `precise`, `double` or `string`.
    #[serde(rename = "decimal.handling.mode", default = "precise")]
    pub decimal: String,
    /// `time.precision.mode`: `adaptive`, `adaptive_time_microseconds`, `connect`, `isostring`, `microseconds`, `nanoseconds`.
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
            Some((name, v, all)) => Err(bad(format!("`{name}` is `{v}`; Debezium knows {}", all.join(", ")))),
            None => Ok(()),
        }
    }
}

/// How raw a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DatasetLayer {
    /// As it came: it is added to, and never replaced, merged into or purged.
    Raw,
    /// Typed and clean.
    Clean,
    /// Made for a purpose.
    Curated,
}

/// The declared schema of a table. The crate's front page has the file's form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contract {
    /// `schema.table`, where it matters.
    pub table: Option<String>,
    /// What it holds.
    pub comment: Option<String>,
    /// Its version, in the owner's words.
    pub version: Option<String>,
    /// How raw it is.
    pub layer: Option<DatasetLayer>,
    /// The columns, in order.
    pub columns: Vec<ContractColumn>,
    /// The columns that name the entity; empty if the contract does not say.
    pub key: Vec<String>,
    /// The columns that order its changes; empty if the contract does not say.
    pub order: Vec<String>,
    /// The columns of which no two rows have the same values: what one row stands for.
    pub grain: Vec<String>,
    /// The columns that make Hive folders.
    pub partition_by: Vec<String>,
    /// What happens to columns that it does not name.
    pub extra: ExtraColumns,
    /// What happens to values that do not become the column's type, where the column does not say.
    pub on_error: OnError,
    /// What rows have to comply with besides their types.
    pub checks: Vec<ContractCheck>,
    /// How the Debezium connector was set that writes its changes.
    pub debezium: DebeziumSettings,
}

impl Contract {
    /// A contract of these columns, which says nothing else.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn new(columns: impl IntoIterator<Item = ContractColumn>) -> Result<Self> {
        let contract = Self { columns: columns.into_iter().collect(), ..Self::default() };
        contract.check()?;
        Ok(contract)
    }

    /// The contract of rows with these columns. Comments are those under the key `comment` of a field's metadata.
    ///
    /// # Errors
    /// `UnknownType` for Arrow types that no column of a table has; `ColumnCase`, `TooManyColumns`, `TooDeep`.
    pub fn from_arrow(schema: &Schema) -> Result<Self> {
        crate::check_size(schema, "the schema")?;
        let columns = schema.fields().iter().map(|f| {
            let unknown = || {
                let message = format!(
                    "column `{}`: no table has the type {}; leave it out, or write it as another type",
                    f.name(),
                    f.data_type()
                );
                Error::usage("UnknownType", message).with_column(f.name())
            };
            let arrow =
                crate::stored_type(f.data_type()).filter(|t| crate::type_name(t).is_some()).ok_or_else(unknown)?;
            let column = ContractColumn::new(f.name(), ColumnType::of_arrow(arrow));
            let comment = f.metadata().get("comment").cloned();
            Ok(ContractColumn { nullable: f.is_nullable(), comment, ..column })
        });
        Self::new(columns.collect::<Result<Vec<_>>>()?)
    }

    /// Whether its parts fit together: no two columns of one name, no name of a key, grain, partition or check that is no column.
    ///
    /// # Errors
    /// `InvalidContract`; `TooManyColumns`, `TooDeep`.
    pub fn check(&self) -> Result<()> {
        let schema = self.to_arrow();
        crate::check_size(&schema, "the contract").map_err(|e| Error::usage(e.code(), e.message()))?;
        crate::check_names(&schema, "the contract").map_err(|e| bad(e.message().to_owned()))?;
        // Order columns may come from the change stream instead of the row, so they are not looked up.
        let named = self.key.iter().chain(&self.partition_by).chain(&self.grain);
        if let Some(name) = named.into_iter().find(|n| self.column(n).is_none()) {
            return Err(bad(format!("`{name}` is named as key, grain or partition, but is no column")));
        }
        for check in &self.checks {
            check.fits(self).map_err(|e| bad(e.message().to_owned()))?;
        }
        Ok(())
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&ContractColumn> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The column that a column of the input is: by its name, else by that in other letter case, else by one that it had.
    pub fn column_for(&self, name: &str) -> Option<&ContractColumn> {
        let like = |own: &String| own.eq_ignore_ascii_case(name);
        let by = |is: &dyn Fn(&ContractColumn) -> bool| self.columns.iter().find(|c| is(c));
        self.column(name)
            .or_else(|| by(&|c| like(&c.name)))
            .or_else(|| by(&|c| c.reading.renamed_from.iter().any(like)))
    }

    /// The effective `on_error` of a column: its own, or else that of the contract.
    pub fn on_error_of(&self, column: &ContractColumn) -> OnError {
        column.reading.on_error.unwrap_or(self.on_error)
    }

    /// Removes the defaults of the columns that the predicate selects.
    pub fn without_defaults(mut self, columns: impl Fn(&str) -> bool) -> Self {
        for column in self.columns.iter_mut().filter(|column| columns(&column.name)) {
            column.reading.default = None;
        }
        self
    }

    /// The schema of the stored rows.
    pub fn to_arrow(&self) -> Schema {
        let field = |c: &ContractColumn| Field::new(&c.name, c.column_type.arrow().clone(), c.nullable);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }
}

pub(crate) fn bad(message: String) -> Error {
    Error::usage("InvalidContract", message)
}
