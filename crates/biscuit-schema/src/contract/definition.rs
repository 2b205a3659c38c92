//! Contracts, the checks that their parts are consistent, and their conversion from and to other forms.

use arrow::datatypes::{Field, Schema};
use biscuit_core::{Error, Result, remove_quoted_text};
use serde_json::Value;

use crate::catalogs::glue::{GlueTable, TablePlace};
use crate::catalogs::{avro, cloudformation};
use crate::codes;
use crate::contract::check::ContractCheck;
use crate::contract::column::ContractColumn;
use crate::contract::file::{ColumnFile, ContractFile};
use crate::contract::settings::{DatasetLayer, DebeziumSettings, invalid_contract};
use crate::types::column_type::ColumnType;
use crate::values::reading_rules::{ExtraColumns, OnError};

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

    /// Reads a contract from TOML.
    ///
    /// # Errors
    /// `InvalidContract` with the position of the mistake; `UnknownType` with the column.
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::from_file(toml::from_str(text).map_err(|e| invalid_contract(remove_quoted_text(&e.to_string())))?)
    }

    /// Reads a contract from JSON with the same structure.
    ///
    /// # Errors
    /// See [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_file(serde_json::from_str(text).map_err(|e| invalid_contract(remove_quoted_text(&e.to_string())))?)
    }

    /// Reads a contract from an Avro schema, which must be a record. `doc` becomes the comment of a column, `default`
    /// its default, and `aliases` its former names.
    ///
    /// Source: Avro specification 1.12, "Schema Declaration" and "Logical Types".
    ///
    /// # Errors
    /// `InvalidAvro` for JSON that is not the schema of a record, for a name that is not declared, and for a union of
    /// several types other than null; `SchemaTooLarge`.
    pub fn from_avro(text: &str) -> Result<Self> {
        let avro::AvroRecord { columns, comment, table } = avro::read_record(text)?;
        let mut contract = Self::new(columns)?;
        (contract.comment, contract.table) = (comment, Some(table));
        Ok(contract)
    }

    /// Reads the contract of a Glue table from JSON: the reply of `get-table`, its `Table`, or a `TableInput`.
    /// Partition keys become the last columns.
    ///
    /// # Errors
    /// `InvalidGlueTable` for other JSON; `UnknownType` with the column.
    pub fn from_glue_json(text: &str) -> Result<Self> {
        Self::of_glue(GlueTable::read_json(text)?)
    }

    /// Reads the contract of a table from a CloudFormation or SAM template in YAML or JSON. The table is identified
    /// by its `Name`, or else by the logical id of its resource.
    ///
    /// # Errors
    /// `InvalidTemplate` for text that is not a template. `UnknownTable`, which names the existing tables; a table
    /// whose name is computed by an intrinsic function is named by its logical id, because the name is known only
    /// after the stack is created. `UnknownType` with the column.
    pub fn from_cloudformation(template: &str, table: &str) -> Result<Self> {
        Self::of_glue(GlueTable::read(&cloudformation::table_input(template, table)?)?)
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
        crate::types::union::check_names(&schema, "the contract")
            .map_err(|e| invalid_contract(e.message().to_owned()))?;
        // Order columns may come from the change stream instead of the row, so they are not checked.
        let named = self.key.iter().chain(&self.partition_by).chain(&self.grain);
        if let Some(name) = named.into_iter().find(|n| self.column(n).is_none()) {
            return Err(invalid_contract(format!(
                "`{name}` is named in `key`, `grain` or `partition_by`, but is not a column"
            )));
        }
        for check in &self.checks {
            check
                .check_rule(&|name| self.column(name).is_some())
                .map_err(|e| invalid_contract(e.message().to_owned()))?;
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

    /// Returns the `TableInput` for `create-table` and `update-table` of Glue: an external table of Parquet files.
    ///
    /// # Errors
    /// `NoHiveType`, `InvalidProjection`.
    pub fn to_glue_json(&self, place: &TablePlace) -> Result<Value> {
        self.as_glue().table_input(place)
    }

    /// Returns the statement that creates the table in Hive, Athena and Spark.
    ///
    /// # Errors
    /// `NoHiveType`, `InvalidProjection`.
    pub fn to_ddl(&self, place: &TablePlace) -> Result<String> {
        self.as_glue().ddl(place)
    }

    /// Returns a template as JSON, with the table as a resource with this logical id. The database is that of
    /// `place`.
    ///
    /// # Errors
    /// `NoHiveType`, `InvalidProjection`; `InvalidTemplate` if `place` has no database.
    pub fn to_cloudformation(&self, logical: &str, place: &TablePlace) -> Result<Value> {
        cloudformation::template(logical, &self.as_glue(), place)
    }

    fn to_file(&self) -> ContractFile {
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
            columns: self.columns.iter().map(ColumnFile::of).collect(),
            checks: self.checks.clone(),
        }
    }

    fn from_file(file: ContractFile) -> Result<Self> {
        file.debezium.check()?;
        let columns = file.columns.into_iter().map(|column| column.column(&file.debezium));
        let columns = columns.collect::<Result<_>>()?;
        let contract = Self {
            table: file.table,
            comment: file.comment,
            version: file.version,
            layer: file.layer,
            columns,
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

    /// Creates the contract of a Glue table.
    fn of_glue(table: GlueTable) -> Result<Self> {
        let GlueTable { table, comment, version, columns, key, order, grain, partition_by } = table;
        let contract = Self { table, comment, version, columns, key, order, grain, partition_by, ..Self::default() };
        contract.check()?;
        Ok(contract)
    }

    /// Returns the parts that a Glue table has.
    fn as_glue(&self) -> GlueTable {
        GlueTable {
            table: self.table.clone(),
            comment: self.comment.clone(),
            version: self.version.clone(),
            columns: self.columns.clone(),
            key: self.key.clone(),
            order: self.order.clone(),
            grain: self.grain.clone(),
            partition_by: self.partition_by.clone(),
        }
    }
}
