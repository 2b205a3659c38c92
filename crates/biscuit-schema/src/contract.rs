use arrow::datatypes::{Field, Schema};
use biscuit_core::{Error, Result};
use serde::Deserialize;

use crate::{ColumnType, Wire};

/// A column of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means.
    pub comment: Option<String>,
}

/// How a Debezium connector was set, by the connector's own names and values; each default is the connector's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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

/// The declared schema of a table. The crate's front page has the file's form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contract {
    /// `schema.table`, where it matters.
    pub table: Option<String>,
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// The columns that name the entity; empty if the contract does not say.
    pub key: Vec<String>,
    /// The columns that order its changes; empty if the contract does not say.
    pub order: Vec<String>,
    /// The columns that make Hive folders.
    pub partition_by: Vec<String>,
    /// How the Debezium connector was set that writes its changes.
    pub debezium: DebeziumSettings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractFile {
    table: Option<String>,
    #[serde(default)]
    key: Vec<String>,
    #[serde(default)]
    order: Vec<String>,
    #[serde(default)]
    partition_by: Vec<String>,
    #[serde(default)]
    debezium: DebeziumSettings,
    columns: Vec<ColumnFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnFile {
    name: String,
    #[serde(rename = "type")]
    column_type: String,
    #[serde(default = "yes")]
    nullable: bool,
    comment: Option<String>,
}

fn yes() -> bool {
    true
}

impl Contract {
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

    fn from_file(file: ContractFile) -> Result<Self> {
        file.debezium.check()?;
        let columns = file.columns.into_iter().map(|c| {
            let column_type = ColumnType::parse(&c.column_type)
                .map_err(|e| Error::usage("UnknownType", format!("column `{}`: {}", c.name, e.message())))?;
            // Connectors that write intervals as text leave nothing to store but that text.
            let is_text = column_type.wire() == Wire::Interval && file.debezium.interval == "string";
            let column_type = if is_text { ColumnType::parse("string")? } else { column_type };
            Ok(Column { name: c.name, column_type, nullable: c.nullable, comment: c.comment })
        });
        let contract = Self {
            table: file.table,
            columns: columns.collect::<Result<_>>()?,
            key: file.key,
            order: file.order,
            partition_by: file.partition_by,
            debezium: file.debezium,
        };
        crate::check_names(&contract.to_arrow(), "the contract").map_err(|e| bad(e.message().to_owned()))?;
        // Order columns may come from the change stream instead of the row, so only key and partition are looked up.
        match contract.key.iter().chain(&contract.partition_by).find(|n| contract.column(n).is_none()) {
            Some(name) => Err(bad(format!("`{name}` is named as key or partition, but is no column"))),
            None => Ok(contract),
        }
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

fn bad(message: String) -> Error {
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
            "`x` is named as key or partition, but is no column"
        );
        assert_eq!(with("", &format!("{},{}", column("a", "int"), column("A", "int"))).code(), "InvalidContract");
        assert_eq!(
            with("\"debezium\":{\"time.precision.mode\":\"fuzzy\"},", &column("a", "int")).code(),
            "InvalidContract"
        );
        assert_eq!(with("\"keys\":[],", &column("a", "int")).code(), "InvalidContract");
    }
}
