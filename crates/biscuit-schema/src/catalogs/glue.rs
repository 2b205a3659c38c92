//! Contracts from and to Glue tables, and the DDL of Hive, Athena and Spark.
//!
//! Key, order, grain and version have no field in Glue. They are stored as the table parameters `biscuit.*`.

use biscuit_core::{Error, Result, remove_quoted_text};
use serde_json::{Map, Value, json};

use crate::codes;
use crate::contract::column::ContractColumn;
use crate::types::hive::HiveType;

/// Place of a table in a catalog and in storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct TablePlace {
    /// Name of the database.
    pub database: Option<String>,
    /// Name of the table in the database.
    pub name: String,
    /// URL of the folder of the table.
    pub location: String,
    /// Partition projection of Athena, one entry for each partition column; empty if Athena reads the partitions from
    /// the catalog.
    pub projection: Vec<PartitionProjection>,
}

impl TablePlace {
    /// Creates the place of a table with this name in a folder.
    pub fn new(name: impl Into<String>, location: impl Into<String>) -> Self {
        Self { name: name.into(), location: location.into(), ..Self::default() }
    }

    /// Sets the database.
    pub fn in_database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// Sets the partition projection of Athena. It needs one entry for each partition column.
    pub fn with_projection(mut self, projection: impl IntoIterator<Item = PartitionProjection>) -> Self {
        self.projection = projection.into_iter().collect();
        self
    }

    /// Returns the parameters of the table: its format, and the projection of each partition column.
    ///
    /// Source: "Set up partition projection" in the user guide of Athena.
    fn parameters(&self, partition_by: &[String]) -> Result<Vec<(String, String)>> {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let mut all = vec![pair("EXTERNAL", "TRUE"), pair("classification", "parquet")];
        if self.projection.is_empty() {
            return Ok(all);
        }
        all.push(pair("projection.enabled", "true"));
        for name in partition_by {
            let Some(projection) = self.projection.iter().find(|p| p.column == *name) else {
                let message = format!(
                    "the partition column `{name}` has no projection; Athena needs a projection for each partition column"
                );
                return Err(Error::new(codes::INVALID_PROJECTION, message).with_column(name));
            };
            projection.values.iter().for_each(|(k, v)| all.push((format!("projection.{name}.{k}"), v.clone())));
        }
        if let Some(p) = self.projection.iter().find(|p| !partition_by.contains(&p.column)) {
            let message = format!("`{}` has a projection but is not a partition column", p.column);
            return Err(Error::new(codes::INVALID_PROJECTION, message).with_column(&p.column));
        }
        let folders: Vec<String> = partition_by.iter().map(|c| format!("{c}=${{{c}}}")).collect();
        let template = format!("{}/{}/", self.location.trim_end_matches('/'), folders.join("/"));
        all.push(pair("storage.location.template", &template));
        Ok(all)
    }
}

/// Projection of a partition column: the rule by which Athena computes its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProjection {
    column: String,
    values: Vec<(&'static str, String)>,
}

impl PartitionProjection {
    /// Projects each day from this date to now.
    pub fn days_since(column: &str, first: &str) -> Self {
        Self::dates(column, "yyyy-MM-dd", first, "DAYS")
    }

    /// Projects each date from `first` to now in steps of one `unit`: `DAYS`, `MONTHS` or `HOURS`. `format` is a
    /// pattern of Java's `DateTimeFormatter`.
    pub fn dates(column: &str, format: &str, first: &str, unit: &str) -> Self {
        let values = vec![
            ("type", "date".to_owned()),
            ("format", format.to_owned()),
            ("range", format!("{first},NOW")),
            ("interval", "1".to_owned()),
            ("interval.unit", unit.to_owned()),
        ];
        Self { column: column.to_owned(), values }
    }

    /// Projects each whole number from `from` to `to`, both inclusive.
    pub fn integers(column: &str, from: i64, to: i64) -> Self {
        let values = vec![("type", "integer".to_owned()), ("range", format!("{from},{to}"))];
        Self { column: column.to_owned(), values }
    }

    /// Projects these values.
    pub fn one_of(column: &str, values: &[&str]) -> Self {
        let values = vec![("type", "enum".to_owned()), ("values", values.join(","))];
        Self { column: column.to_owned(), values }
    }

    /// Projects the values that a query contains. Each query must restrict the column.
    pub fn injected(column: &str) -> Self {
        Self { column: column.to_owned(), values: vec![("type", "injected".to_owned())] }
    }
}

/// The parts of a contract that a Glue table has.
pub(crate) struct GlueTable {
    /// Name of the table, with its database.
    pub(crate) table: Option<String>,
    pub(crate) comment: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) columns: Vec<ContractColumn>,
    pub(crate) key: Vec<String>,
    pub(crate) order: Vec<String>,
    pub(crate) grain: Vec<String>,
    pub(crate) partition_by: Vec<String>,
}

impl GlueTable {
    /// Reads the parts from JSON: the reply of `get-table`, its `Table`, or a `TableInput`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| invalid_table(&remove_quoted_text(&e.to_string())).with_source(e))?;
        let table = ["Table", "TableInput"].iter().find_map(|k| value.get(*k)).unwrap_or(&value);
        Self::read(table)
    }

    /// Reads the parts from a `Table` or `TableInput`. Partition keys become the last columns.
    ///
    /// # Errors
    /// `InvalidGlueTable`, `UnknownType`.
    pub(crate) fn read(table: &Value) -> Result<Self> {
        let declared = table["StorageDescriptor"]["Columns"].as_array();
        let declared = declared.ok_or_else(|| invalid_table("it has no StorageDescriptor with Columns"))?;
        let keys = table["PartitionKeys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let columns = declared.iter().chain(keys).map(parse_column).collect::<Result<Vec<_>>>()?;
        let parameter = |name: &str| table["Parameters"][name].as_str().map(str::to_owned);
        let list = |name: &str| parameter(name).map(|l| l.split(',').map(str::to_owned).collect()).unwrap_or_default();
        Ok(Self {
            // The partition keys were appended after the columns.
            partition_by: columns[declared.len()..].iter().map(|c| c.name.clone()).collect(),
            columns,
            comment: table["Description"].as_str().map(str::to_owned),
            table: table["Name"].as_str().map(|name| match table["DatabaseName"].as_str() {
                Some(database) => format!("{database}.{name}"),
                None => name.to_owned(),
            }),
            version: parameter("biscuit.version"),
            key: list("biscuit.key"),
            order: list("biscuit.order"),
            grain: list("biscuit.grain"),
        })
    }

    /// Returns the `TableInput` of an external table of Parquet files.
    pub(crate) fn table_input(&self, place: &TablePlace) -> Result<Value> {
        let column = |c: &ContractColumn| {
            let mut column = json!({"Name": c.name, "Type": c.hive_type()?.to_string()});
            if let Some(comment) = &c.comment {
                column["Comment"] = json!(comment);
            }
            Ok(column)
        };
        let (keys, columns) = self.split_columns();
        let columns = columns.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let keys = keys.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let mut parameters: Map<String, Value> =
            place.parameters(&self.partition_by)?.into_iter().map(|(k, v)| (k, Value::String(v))).collect();
        let lists = [("biscuit.key", &self.key), ("biscuit.order", &self.order), ("biscuit.grain", &self.grain)];
        for (name, columns) in lists.iter().filter(|(_, columns)| !columns.is_empty()) {
            parameters.insert((*name).to_owned(), Value::String(columns.join(",")));
        }
        if let Some(version) = &self.version {
            parameters.insert("biscuit.version".to_owned(), Value::String(version.clone()));
        }
        let mut input = json!({
            "Name": place.name,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": parameters,
            "StorageDescriptor": {
                "Columns": columns,
                "Location": format!("{}/", place.location.trim_end_matches('/')),
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                "SerdeInfo": {
                    "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
                    "Parameters": {"serialization.format": "1"},
                },
            },
            "PartitionKeys": keys,
        });
        if let Some(comment) = &self.comment {
            input["Description"] = json!(comment);
        }
        Ok(input)
    }

    /// Returns the statement that creates the table in Hive, Athena and Spark.
    pub(crate) fn ddl(&self, place: &TablePlace) -> Result<String> {
        let text = |s: &str| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"));
        let name = |s: &str| format!("`{}`", s.replace('`', "``"));
        let lines = |columns: Vec<&ContractColumn>| {
            let line = |c: &ContractColumn| {
                let comment = c.comment.as_deref().map(|t| format!(" COMMENT {}", text(t))).unwrap_or_default();
                Ok(format!("  {} {}{comment}", name(&c.name), c.hive_type()?))
            };
            Ok(columns.into_iter().map(line).collect::<Result<Vec<_>>>()?.join(",\n"))
        };
        let (keys, columns) = self.split_columns();
        let of = place.database.as_deref().map(|d| format!("{}.", name(d))).unwrap_or_default();
        let mut ddl = format!("CREATE EXTERNAL TABLE {of}{} (\n{}\n)\n", name(&place.name), lines(columns)?);
        if let Some(comment) = &self.comment {
            ddl.push_str(&format!("COMMENT {}\n", text(comment)));
        }
        if !keys.is_empty() {
            ddl.push_str(&format!("PARTITIONED BY (\n{}\n)\n", lines(keys)?));
        }
        ddl.push_str(&format!(
            "STORED AS PARQUET\nLOCATION {}\n",
            text(&format!("{}/", place.location.trim_end_matches('/')))
        ));
        let parameters = place.parameters(&self.partition_by)?.into_iter().filter(|(k, _)| k != "EXTERNAL");
        let parameters: Vec<String> = parameters.map(|(k, v)| format!("  {} = {}", text(&k), text(&v))).collect();
        ddl.push_str(&format!("TBLPROPERTIES (\n{}\n);\n", parameters.join(",\n")));
        Ok(ddl)
    }

    /// Returns the partition columns in the order of `partition_by`, and the other columns. Catalogs declare them
    /// separately.
    fn split_columns(&self) -> (Vec<&ContractColumn>, Vec<&ContractColumn>) {
        let keys = self.partition_by.iter().filter_map(|name| self.columns.iter().find(|c| c.name == *name)).collect();
        (keys, self.columns.iter().filter(|c| !self.partition_by.contains(&c.name)).collect())
    }
}

fn parse_column(value: &Value) -> Result<ContractColumn> {
    let name = value["Name"].as_str().ok_or_else(|| invalid_table("a column has no Name"))?;
    // The type is optional in Glue, and its default is text.
    let t = value["Type"].as_str().unwrap_or("string");
    let hive: HiveType = t.parse().map_err(|e: Error| {
        Error::new(codes::UNKNOWN_TYPE, format!("column `{name}`: {}", e.message())).with_column(name)
    })?;
    let column = ContractColumn::of_hive(name, hive);
    Ok(match value["Comment"].as_str().filter(|c| !c.is_empty()) {
        Some(comment) => column.with_comment(comment),
        None => column,
    })
}

fn invalid_table(reason: &str) -> Error {
    Error::new(codes::INVALID_GLUE_TABLE, format!("not a Glue table: {reason}"))
}
