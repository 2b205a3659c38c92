use biscuit_core::{Error, Result, unquoted};
use serde_json::{Map, Value, json};

use crate::{Contract, ContractColumn, HiveType};

/// Where a table is, for those who look it up in a catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TablePlace {
    /// The database.
    pub database: Option<String>,
    /// The table's name there.
    pub name: String,
    /// The URL of its folder.
    pub location: String,
    /// How Athena knows partitions without a catalog of them; empty if it does not.
    pub projection: Vec<PartitionProjection>,
}

impl TablePlace {
    /// A table of this name in a folder.
    pub fn new(name: impl Into<String>, location: impl Into<String>) -> Self {
        Self { name: name.into(), location: location.into(), ..Self::default() }
    }

    /// The same table in a database.
    pub fn in_database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// The same table, whose partitions Athena projects.
    pub fn with_projection(mut self, projection: impl IntoIterator<Item = PartitionProjection>) -> Self {
        self.projection = projection.into_iter().collect();
        self
    }

    /// The table's parameters: its format, and the projection of every partition column.
    ///
    /// Source: "Set up partition projection" of Athena's user guide.
    fn parameters(&self, contract: &Contract) -> Result<Vec<(String, String)>> {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let mut all = vec![pair("EXTERNAL", "TRUE"), pair("classification", "parquet")];
        if self.projection.is_empty() {
            return Ok(all);
        }
        all.push(pair("projection.enabled", "true"));
        for name in &contract.partition_by {
            let Some(projection) = self.projection.iter().find(|p| p.column == *name) else {
                let message = format!("the partition column `{name}` has no projection, and Athena needs one for each");
                return Err(Error::usage("InvalidProjection", message).with_column(name));
            };
            projection.values.iter().for_each(|(k, v)| all.push((format!("projection.{name}.{k}"), v.clone())));
        }
        if let Some(p) = self.projection.iter().find(|p| !contract.partition_by.contains(&p.column)) {
            let message = format!("`{}` has a projection, and is no partition column", p.column);
            return Err(Error::usage("InvalidProjection", message).with_column(&p.column));
        }
        let folders: Vec<String> = contract.partition_by.iter().map(|c| format!("{c}=${{{c}}}")).collect();
        let template = format!("{}/{}/", self.location.trim_end_matches('/'), folders.join("/"));
        all.push(pair("storage.location.template", &template));
        Ok(all)
    }
}

/// How Athena knows the values of a partition column by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProjection {
    column: String,
    values: Vec<(&'static str, String)>,
}

impl PartitionProjection {
    /// Every day from this date to now.
    pub fn days_since(column: &str, first: &str) -> Self {
        Self::dates(column, "yyyy-MM-dd", first, "DAYS")
    }

    /// Every date of a form (as Java's `DateTimeFormatter` has it) from the first to now, in steps of a unit: `DAYS`, `MONTHS`, `HOURS`.
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

    /// Every whole number from one to another.
    pub fn integers(column: &str, from: i64, to: i64) -> Self {
        let values = vec![("type", "integer".to_owned()), ("range", format!("{from},{to}"))];
        Self { column: column.to_owned(), values }
    }

    /// These values.
    pub fn one_of(column: &str, values: &[&str]) -> Self {
        let values = vec![("type", "enum".to_owned()), ("values", values.join(","))];
        Self { column: column.to_owned(), values }
    }

    /// Whatever a query asks for.
    pub fn injected(column: &str) -> Self {
        Self { column: column.to_owned(), values: vec![("type", "injected".to_owned())] }
    }
}

impl Contract {
    /// The contract of a table of Glue: the reply of `get-table`, its `Table`, or a `TableInput`. Partition keys are its last columns.
    ///
    /// # Errors
    /// `InvalidGlueTable` for JSON that is none; `UnknownType` with the column.
    pub fn from_glue_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|e| invalid(&unquoted(&e.to_string())).with_source(e))?;
        let table = ["Table", "TableInput"].iter().find_map(|k| value.get(*k)).unwrap_or(&value);
        Self::from_glue(table)
    }

    pub(crate) fn from_glue(table: &Value) -> Result<Self> {
        let columns = table["StorageDescriptor"]["Columns"].as_array();
        let columns = columns.ok_or_else(|| invalid("it has no StorageDescriptor with Columns"))?;
        let keys = table["PartitionKeys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all = columns.iter().chain(keys).map(column).collect::<Result<Vec<_>>>()?;
        let mut contract = Self::new(all)?;
        contract.partition_by = contract.columns[columns.len()..].iter().map(|c| c.name.clone()).collect();
        contract.comment = table["Description"].as_str().map(str::to_owned);
        contract.table = table["Name"].as_str().map(|name| match table["DatabaseName"].as_str() {
            Some(database) => format!("{database}.{name}"),
            None => name.to_owned(),
        });
        let parameter = |name: &str| table["Parameters"][name].as_str().map(str::to_owned);
        contract.version = parameter("biscuit.version");
        let list = |name: &str| parameter(name).map(|l| l.split(',').map(str::to_owned).collect()).unwrap_or_default();
        (contract.key, contract.order, contract.grain) =
            (list("biscuit.key"), list("biscuit.order"), list("biscuit.grain"));
        contract.check()?;
        Ok(contract)
    }

    /// The `TableInput` by which Glue's `create-table` and `update-table` know the table: an external one of Parquet.
    ///
    /// # Errors
    /// `NoHiveType`, `InvalidProjection`.
    pub fn to_glue_json(&self, place: &TablePlace) -> Result<Value> {
        let column = |c: &ContractColumn| {
            let mut column = json!({"Name": c.name, "Type": c.hive_type()?.to_string()});
            if let Some(comment) = &c.comment {
                column["Comment"] = json!(comment);
            }
            Ok(column)
        };
        let (keys, columns) = self.divided();
        let columns = columns.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let keys = keys.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let mut parameters: Map<String, Value> =
            place.parameters(self)?.into_iter().map(|(k, v)| (k, Value::String(v))).collect();
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

    /// The statement by which Hive, Athena and Spark know the table.
    ///
    /// # Errors
    /// `NoHiveType`, `InvalidProjection`.
    pub fn to_ddl(&self, place: &TablePlace) -> Result<String> {
        let text = |s: &str| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"));
        let name = |s: &str| format!("`{}`", s.replace('`', "``"));
        let lines = |columns: Vec<&ContractColumn>| {
            let line = |c: &ContractColumn| {
                let comment = c.comment.as_deref().map(|t| format!(" COMMENT {}", text(t))).unwrap_or_default();
                Ok(format!("  {} {}{comment}", name(&c.name), c.hive_type()?))
            };
            Ok(columns.into_iter().map(line).collect::<Result<Vec<_>>>()?.join(",\n"))
        };
        let (keys, columns) = self.divided();
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
        let parameters = place.parameters(self)?.into_iter().filter(|(k, _)| k != "EXTERNAL");
        let parameters: Vec<String> = parameters.map(|(k, v)| format!("  {} = {}", text(&k), text(&v))).collect();
        ddl.push_str(&format!("TBLPROPERTIES (\n{}\n);\n", parameters.join(",\n")));
        Ok(ddl)
    }

    /// The partition columns in their order, and the others.
    fn divided(&self) -> (Vec<&ContractColumn>, Vec<&ContractColumn>) {
        let keys = self.partition_by.iter().filter_map(|name| self.column(name)).collect();
        (keys, self.columns.iter().filter(|c| !self.partition_by.contains(&c.name)).collect())
    }
}

fn column(value: &Value) -> Result<ContractColumn> {
    let name = value["Name"].as_str().ok_or_else(|| invalid("a column has no Name"))?;
    // Glue lets the type be left out and means text.
    let t = value["Type"].as_str().unwrap_or("string");
    let hive: HiveType = t.parse().map_err(|e: Error| {
        Error::usage("UnknownType", format!("column `{name}`: {}", e.message())).with_column(name)
    })?;
    let column = ContractColumn::of_hive(name, hive);
    Ok(match value["Comment"].as_str().filter(|c| !c.is_empty()) {
        Some(comment) => column.with_comment(comment),
        None => column,
    })
}

fn invalid(reason: &str) -> Error {
    Error::usage("InvalidGlueTable", format!("this is no table of Glue: {reason}"))
}
