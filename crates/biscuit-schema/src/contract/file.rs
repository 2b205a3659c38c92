//! The file format of contracts, TOML or JSON: `ContractFile` is the schema of the file, and
//! [`Contract`](crate::Contract) the checked value.

use biscuit_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::contract::check::ContractCheck;
use crate::contract::column::ContractColumn;
use crate::contract::settings::{DatasetLayer, DebeziumSettings};
use crate::types::column_type::{ColumnType, WireType};
use crate::types::hive::HiveType;
use crate::values::reading_rules::{BytesInText, DecimalRounding, EpochUnit, ExtraColumns, OnError, ReadingRules};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContractFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<DatasetLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) key: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) order: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) grain: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) partition_by: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) extra: ExtraColumns,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) on_error: OnError,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) debezium: DebeziumSettings,
    pub(crate) columns: Vec<ColumnFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) checks: Vec<ContractCheck>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnFile {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) column_type: String,
    #[serde(default = "default_true", skip_serializing_if = "is_yes")]
    pub(crate) nullable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pii: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_error: Option<OnError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) renamed_from: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) formats: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) epoch: EpochUnit,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) rounding: DecimalRounding,
}

fn default_true() -> bool {
    true
}

fn is_yes(b: &bool) -> bool {
    *b
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ColumnFile {
    /// Returns a column as it is written in a contract file.
    pub(crate) fn of(c: &ContractColumn) -> Self {
        let ReadingRules { on_error, default, renamed_from, formats, epoch, rounding, .. } = c.reading.clone();
        Self {
            name: c.name.clone(),
            column_type: type_text(c),
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
    }

    /// Returns the column of a contract with these settings of Debezium.
    pub(crate) fn column(self, debezium: &DebeziumSettings) -> Result<ContractColumn> {
        // A type is parsed by both grammars. Only that of `ColumnType` knows PostgreSQL, and only that of Hive
        // keeps `varchar(20)`.
        let hive = self.column_type.parse::<HiveType>();
        let column_type = match (ColumnType::parse(&self.column_type), &hive) {
            (Ok(t), _) => t,
            // Only the Hive grammar accepts some characters in the names of struct fields.
            (Err(_), Ok(hive)) => ColumnType::of_arrow(hive.arrow()),
            (Err(e), Err(_)) => {
                let message = format!("column `{}`: {}", self.name, e.message());
                return Err(Error::new(codes::UNKNOWN_TYPE, message).with_column(&self.name));
            }
        };
        // A connector that writes intervals as text provides only that text.
        let is_text = column_type.wire() == WireType::Interval && debezium.interval == "string";
        let column_type = if is_text { ColumnType::parse("string")? } else { column_type };
        // The Hive type is stored only if it is more precise than the Arrow type, such as `varchar(20)`.
        let hive = hive.ok().filter(|h| {
            let plain = HiveType::of_arrow(column_type.arrow());
            h.arrow() == *column_type.arrow() && plain.as_ref() != Some(h) && *h != HiveType::TimestampLocalTz
        });
        Ok(ContractColumn {
            name: self.name,
            column_type,
            nullable: self.nullable,
            comment: self.comment,
            pii: self.pii,
            reading: ReadingRules {
                on_error: self.on_error,
                default: self.default,
                renamed_from: self.renamed_from,
                formats: self.formats,
                epoch: self.epoch,
                rounding: self.rounding,
                bytes_in_text: BytesInText::Own,
            },
            hive,
        })
    }
}

/// Returns the type name of a column for a contract file.
fn type_text(column: &ContractColumn) -> String {
    // `timestamptz` is preferred to Hive's name for an instant, because other readers of types know it.
    let named = column.hive.as_ref().filter(|h| **h != HiveType::TimestampLocalTz).map(ToString::to_string);
    named.or_else(|| column.column_type.name()).unwrap_or_else(|| column.column_type.arrow().to_string())
}

#[cfg(test)]
mod tests {
    use crate::Contract;

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
