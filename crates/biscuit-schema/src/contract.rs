use arrow::datatypes::{Field, Schema};
use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::reading::{Extra, OnError, Reading};
use crate::{ColumnType, HiveType, Wire};

/// A column of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Column {
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
    pub reading: Reading,
    /// Its type in Hive's grammar, where that says more than the Arrow type.
    pub(crate) hive: Option<HiveType>,
}

impl Column {
    /// A column of this name and type, which may be null.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Self {
        let (comment, pii, reading, hive) = (None, None, Reading::default(), None);
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
    pub fn with_reading(mut self, reading: Reading) -> Self {
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

    /// The text by which a contract file names its type.
    fn type_text(&self) -> String {
        // An instant has a name here that other readers of types know too.
        let named = self.hive.as_ref().filter(|h| **h != HiveType::TimestampLocalTz).map(ToString::to_string);
        named.or_else(|| self.column_type.name()).unwrap_or_else(|| self.column_type.arrow().to_string())
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
    fn check(&self) -> Result<()> {
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
pub enum Layer {
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
    pub layer: Option<Layer>,
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// The columns that name the entity; empty if the contract does not say.
    pub key: Vec<String>,
    /// The columns that order its changes; empty if the contract does not say.
    pub order: Vec<String>,
    /// The columns of which no two rows have the same values: what one row stands for.
    pub grain: Vec<String>,
    /// The columns that make Hive folders.
    pub partition_by: Vec<String>,
    /// What happens to columns that it does not name.
    pub extra: Extra,
    /// What happens to values that do not become the column's type, where the column does not say.
    pub on_error: OnError,
    /// What rows have to comply with besides their types.
    pub checks: Vec<Check>,
    /// How the Debezium connector was set that writes its changes.
    pub debezium: DebeziumSettings,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<Layer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    key: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    order: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grain: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    partition_by: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    extra: Extra,
    #[serde(default, skip_serializing_if = "is_default")]
    on_error: OnError,
    #[serde(default, skip_serializing_if = "is_default")]
    debezium: DebeziumSettings,
    columns: Vec<ColumnFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnFile {
    name: String,
    #[serde(rename = "type")]
    column_type: String,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    nullable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pii: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_error: Option<OnError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    renamed_from: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    formats: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    epoch: crate::reading::Epoch,
    #[serde(default, skip_serializing_if = "is_default")]
    rounding: crate::reading::Rounding,
}

fn yes() -> bool {
    true
}

fn is_yes(b: &bool) -> bool {
    *b
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Contract {
    /// A contract of these columns, which says nothing else.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Result<Self> {
        let contract = Self { columns: columns.into_iter().collect(), ..Self::default() };
        contract.check()?;
        Ok(contract)
    }

    /// The contract of rows with these columns. Comments are those under the key `comment` of a field's metadata.
    ///
    /// # Errors
    /// `UnknownType` for Arrow types that no column of a table has; `ColumnCase`.
    pub fn from_arrow(schema: &Schema) -> Result<Self> {
        let columns = schema.fields().iter().map(|f| {
            let arrow = crate::plain_type(f.data_type());
            if crate::type_name(&arrow).is_none() {
                let message = format!("column `{}`: no table has the type {}", f.name(), f.data_type());
                return Err(Error::usage("UnknownType", message).with_column(f.name()));
            }
            let column = Column::new(f.name(), ColumnType::of_arrow(arrow));
            let comment = f.metadata().get("comment").cloned();
            Ok(Column { nullable: f.is_nullable(), comment, ..column })
        });
        Self::new(columns.collect::<Result<Vec<_>>>()?)
    }

    /// Reads a contract from TOML.
    ///
    /// # Errors
    /// `InvalidContract` with the place of the mistake; `UnknownType` with the column.
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::from_file(toml::from_str(text).map_err(|e| bad(e.to_string()))?)
    }

    /// Reads a contract from JSON of the same form.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_file(serde_json::from_str(text).map_err(|e| bad(e.to_string()))?)
    }

    /// The contract as TOML, as [`from_toml`](Self::from_toml) reads it back.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&self.to_file()).map_err(|e| Error::internal("a contract as TOML").with_source(e))
    }

    /// The contract as JSON.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(&self.to_file()).map_err(|e| Error::internal("a contract as JSON").with_source(e))
    }

    fn to_file(&self) -> ContractFile {
        let column = |c: &Column| {
            let Reading { on_error, default, renamed_from, formats, epoch, rounding } = c.reading.clone();
            ColumnFile {
                name: c.name.clone(),
                column_type: c.type_text(),
                nullable: c.nullable,
                comment: c.comment.clone(),
                pii: c.pii.clone(),
                on_error,
                default,
                renamed_from,
                formats,
                epoch,
                rounding,
            }
        };
        ContractFile {
            table: self.table.clone(),
            comment: self.comment.clone(),
            version: self.version.clone(),
            layer: self.layer,
            key: self.key.clone(),
            order: self.order.clone(),
            grain: self.grain.clone(),
            partition_by: self.partition_by.clone(),
            extra: self.extra,
            on_error: self.on_error,
            debezium: self.debezium.clone(),
            columns: self.columns.iter().map(column).collect(),
            checks: self.checks.clone(),
        }
    }

    fn from_file(file: ContractFile) -> Result<Self> {
        file.debezium.check()?;
        let columns = file.columns.into_iter().map(|c| {
            let hive = c.column_type.parse::<HiveType>();
            let column_type = match (ColumnType::parse(&c.column_type), &hive) {
                (Ok(t), _) => t,
                // Names of struct fields with characters that only Hive's grammar knows.
                (Err(_), Ok(hive)) => ColumnType::of_arrow(hive.arrow()),
                (Err(e), Err(_)) => {
                    let message = format!("column `{}`: {}", c.name, e.message());
                    return Err(Error::usage("UnknownType", message).with_column(&c.name));
                }
            };
            // Connectors that write intervals as text leave nothing to store but that text.
            let is_text = column_type.wire() == Wire::Interval && file.debezium.interval == "string";
            let column_type = if is_text { ColumnType::parse("string")? } else { column_type };
            // Only what the Arrow type does not say by itself is worth keeping.
            let hive = hive.ok().filter(|h| {
                let plain = HiveType::of_arrow(column_type.arrow());
                h.arrow() == *column_type.arrow() && plain.as_ref() != Some(h) && *h != HiveType::TimestampLocalTz
            });
            Ok(Column {
                name: c.name,
                column_type,
                nullable: c.nullable,
                comment: c.comment,
                pii: c.pii,
                reading: Reading {
                    on_error: c.on_error,
                    default: c.default,
                    renamed_from: c.renamed_from,
                    formats: c.formats,
                    epoch: c.epoch,
                    rounding: c.rounding,
                },
                hive,
            })
        });
        let contract = Self {
            table: file.table,
            comment: file.comment,
            version: file.version,
            layer: file.layer,
            columns: columns.collect::<Result<_>>()?,
            key: file.key,
            order: file.order,
            grain: file.grain,
            partition_by: file.partition_by,
            extra: file.extra,
            on_error: file.on_error,
            checks: file.checks,
            debezium: file.debezium,
        };
        contract.check()?;
        Ok(contract)
    }

    /// Whether its parts fit together: no two columns of one name, no name of a key, grain, partition or check that is no column.
    ///
    /// # Errors
    /// `InvalidContract`.
    pub fn check(&self) -> Result<()> {
        crate::check_names(&self.to_arrow(), "the contract").map_err(|e| bad(e.message().to_owned()))?;
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
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The schema of the stored rows.
    pub fn to_arrow(&self) -> Schema {
        let field = |c: &Column| Field::new(&c.name, c.column_type.arrow().clone(), c.nullable);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }
}

pub(crate) fn bad(message: String) -> Error {
    Error::usage("InvalidContract", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = "key = ['id']\n[debezium]\n'decimal.handling.mode' = 'string'\n[[columns]]\nname = 'id'\ntype = 'int'\nnullable = false\n";
        let json = r#"{"key":["id"],"debezium":{"decimal.handling.mode":"string"},"columns":[{"name":"id","type":"int","nullable":false}]}"#;
        let contract = Contract::from_toml(toml).unwrap();
        assert_eq!(contract, Contract::from_json(json).unwrap());
        assert_eq!(contract.debezium.decimal, "string");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = r#"
            table = "public.orders"
            comment = "what was ordered"
            version = "3"
            layer = "clean"
            key = ["id"]
            order = ["seq"]
            grain = ["id"]
            partition_by = ["day"]
            extra = "refuse"
            on_error = "quarantine"
            [[columns]]
            name = "id"
            type = "bigint"
            nullable = false
            [[columns]]
            name = "mail"
            type = "varchar(20)"
            pii = "email"
            comment = "as 'typed'"
            renamed_from = ["e_mail"]
            [[columns]]
            name = "tags"
            type = "array<struct<user-name:char(3),at:timestamp>>"
            [[columns]]
            name = "amount"
            type = "numeric"
            [[columns]]
            name = "day"
            type = "date"
            formats = ["%d/%m/%Y"]
            on_error = "null"
            default = "2024-01-01"
            [[checks]]
            rule = "range"
            column = "id"
            min = 1
            severity = "quarantine"
            [[checks]]
            rule = "pattern"
            column = "mail"
            pattern = ".@."
        "#;
        let contract = Contract::from_toml(text).unwrap();
        assert_eq!(Contract::from_toml(&contract.to_toml().unwrap()).unwrap(), contract);
        assert_eq!(Contract::from_json(&contract.to_json().unwrap()).unwrap(), contract);
        assert_eq!(contract.column("mail").unwrap().hive_type().unwrap().to_string(), "varchar(20)");
        let nested = contract.column("tags").unwrap().hive_type().unwrap().to_string();
        assert_eq!(nested, "array<struct<user-name:char(3),at:timestamp>>");
        let arrow = Contract::from_arrow(&contract.to_arrow()).unwrap();
        assert_eq!(arrow.to_arrow(), contract.to_arrow());
    }

    #[test]
    fn mistakes_name_their_place() {
        let column = |name: &str, t: &str| format!(r#"{{"name":"{name}","type":"{t}"}}"#);
        let with =
            |head: &str, columns: &str| Contract::from_json(&format!("{{{head}\"columns\":[{columns}]}}")).unwrap_err();
        assert_eq!(
            with("", &column("feeling", "mood")).message(),
            "column `feeling`: `mood` is not a type that is known here, from `mood` on"
        );
        assert_eq!(
            with("\"key\":[\"x\"],", &column("id", "int")).message(),
            "`x` is named as key, grain or partition, but is no column"
        );
        assert_eq!(with("", &format!("{},{}", column("a", "int"), column("A", "int"))).code(), "InvalidContract");
        assert_eq!(
            with("\"debezium\":{\"time.precision.mode\":\"fuzzy\"},", &column("a", "int")).code(),
            "InvalidContract"
        );
        assert_eq!(with("\"keys\":[],", &column("a", "int")).code(), "InvalidContract");
    }
}
