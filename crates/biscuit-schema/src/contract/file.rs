//! The file format of contracts, TOML or JSON: `ContractFile` is the schema of the file, and `Contract` the checked
//! value.

use biscuit_core::{Error, Result, unquoted};
use serde::{Deserialize, Serialize};

use crate::contract::check::ContractCheck;
use crate::contract::definition::{Contract, ContractColumn, DatasetLayer, DebeziumSettings, bad};
use crate::types::column_type::WireType;
use crate::values::reading_rules::{BytesInText, DecimalRounding, EpochUnit, ExtraColumns, OnError, ReadingRules};
use crate::{ColumnType, HiveType, codes};

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
    layer: Option<DatasetLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    key: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    order: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grain: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    partition_by: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    extra: ExtraColumns,
    #[serde(default, skip_serializing_if = "is_default")]
    on_error: OnError,
    #[serde(default, skip_serializing_if = "is_default")]
    debezium: DebeziumSettings,
    columns: Vec<ColumnFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    checks: Vec<ContractCheck>,
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
    epoch: EpochUnit,
    #[serde(default, skip_serializing_if = "is_default")]
    rounding: DecimalRounding,
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

impl ContractColumn {
    /// Returns the type name for a contract file.
    fn type_text(&self) -> String {
        // `timestamptz` is preferred to Hive's name for an instant, because other readers of types know it.
        let named = self.hive.as_ref().filter(|h| **h != HiveType::TimestampLocalTz).map(ToString::to_string);
        named.or_else(|| self.column_type.name()).unwrap_or_else(|| self.column_type.arrow().to_string())
    }
}

impl Contract {
    /// Reads a contract from TOML.
    ///
    /// # Errors
    /// `InvalidContract` with the position of the mistake; `UnknownType` with the column.
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::from_file(toml::from_str(text).map_err(|e| bad(unquoted(&e.to_string())))?)
    }

    /// Reads a contract from JSON with the same structure.
    ///
    /// # Errors
    /// See [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_file(serde_json::from_str(text).map_err(|e| bad(unquoted(&e.to_string())))?)
    }

    /// Returns the contract as TOML, which [`from_toml`](Self::from_toml) reads back.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&self.to_file())
            .map_err(|e| Error::internal("cannot write the contract as TOML").with_source(e))
    }

    /// Returns the contract as JSON, which [`from_json`](Self::from_json) reads back.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(&self.to_file())
            .map_err(|e| Error::internal("cannot write the contract as JSON").with_source(e))
    }

    fn to_file(&self) -> ContractFile {
        let column = |c: &ContractColumn| {
            let ReadingRules { on_error, default, renamed_from, formats, epoch, rounding, .. } = c.reading.clone();
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
            // A type is parsed by both grammars. Only that of `ColumnType` knows PostgreSQL, and only that of Hive
            // keeps `varchar(20)`.
            let hive = c.column_type.parse::<HiveType>();
            let column_type = match (ColumnType::parse(&c.column_type), &hive) {
                (Ok(t), _) => t,
                // Only the Hive grammar accepts some characters in the names of struct fields.
                (Err(_), Ok(hive)) => ColumnType::of_arrow(hive.arrow()),
                (Err(e), Err(_)) => {
                    let message = format!("column `{}`: {}", c.name, e.message());
                    return Err(Error::new(codes::UNKNOWN_TYPE, message).with_column(&c.name));
                }
            };
            // A connector that writes intervals as text provides only that text.
            let is_text = column_type.wire() == WireType::Interval && file.debezium.interval == "string";
            let column_type = if is_text { ColumnType::parse("string")? } else { column_type };
            // The Hive type is stored only if it is more precise than the Arrow type, such as `varchar(20)`.
            let hive = hive.ok().filter(|h| {
                let plain = HiveType::of_arrow(column_type.arrow());
                h.arrow() == *column_type.arrow() && plain.as_ref() != Some(h) && *h != HiveType::TimestampLocalTz
            });
            Ok(ContractColumn {
                name: c.name,
                column_type,
                nullable: c.nullable,
                comment: c.comment,
                pii: c.pii,
                reading: ReadingRules {
                    on_error: c.on_error,
                    default: c.default,
                    renamed_from: c.renamed_from,
                    formats: c.formats,
                    epoch: c.epoch,
                    rounding: c.rounding,
                    bytes_in_text: BytesInText::Own,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_are_equivalent() {
        let toml = "key = ['id']\n[debezium]\n'decimal.handling.mode' = 'string'\n[[columns]]\nname = 'id'\ntype = 'int'\nnullable = false\n";
        let json = r#"{"key":["id"],"debezium":{"decimal.handling.mode":"string"},"columns":[{"name":"id","type":"int","nullable":false}]}"#;
        let contract = Contract::from_toml(toml).unwrap();
        assert_eq!(contract, Contract::from_json(json).unwrap());
        assert_eq!(contract.debezium.decimal, "string");
    }

    #[test]
    fn written_contract_is_read_back() {
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
    fn mistakes_are_reported_with_their_place() {
        let column = |name: &str, t: &str| format!(r#"{{"name":"{name}","type":"{t}"}}"#);
        let with =
            |head: &str, columns: &str| Contract::from_json(&format!("{{{head}\"columns\":[{columns}]}}")).unwrap_err();
        assert_eq!(
            with("", &column("feeling", "mood")).message(),
            "column `feeling`: unknown type `mood`, from `mood` on; use a type name of Hive or PostgreSQL"
        );
        assert_eq!(
            with("\"key\":[\"x\"],", &column("id", "int")).message(),
            "`x` is named in `key`, `grain` or `partition_by`, but is not a column"
        );
        assert_eq!(with("", &format!("{},{}", column("a", "int"), column("A", "int"))).code(), "InvalidContract");
        assert_eq!(
            with("\"debezium\":{\"time.precision.mode\":\"fuzzy\"},", &column("a", "int")).code(),
            "InvalidContract"
        );
        assert_eq!(with("\"keys\":[],", &column("a", "int")).code(), "InvalidContract");
    }
}
