//! Columns that are declared by a contract or by the existing table. Values are converted to the declared types by
//! the same coercion that jobs use.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_merge::internal::UnchangedPlaceholder;
use biscuit_schema::coercion::ColumnLosses;
use biscuit_schema::internal::{default_values, plain_type, text_type, written_type};
use biscuit_schema::{ColumnType, Contract, ContractColumn, ExtraColumns, OnError, coerce_column};

/// Returns the declared column for a column of the input. If there is a contract, only its columns are declared, and
/// `expected` is ignored.
pub(crate) fn find_declared_column(
    contract: Option<&Contract>,
    expected: Option<&SchemaRef>,
    name: &str,
) -> Option<ContractColumn> {
    if let Some(contract) = contract {
        return contract.column_for(name).map(|column| of_contract(contract, column));
    }
    let fields = expected?.fields();
    let exact = fields.iter().find(|f| f.name() == name);
    let field = exact.or_else(|| fields.iter().find(|f| f.name().eq_ignore_ascii_case(name)))?;
    Some(of_type(field.name(), &plain_type(field.data_type())))
}

/// Returns a column of a contract with its effective `on_error`.
fn of_contract(contract: &Contract, column: &ContractColumn) -> ContractColumn {
    let mut column = column.clone();
    column.reading.on_error = Some(contract.on_error_of(&column));
    column
}

/// Returns the names of the columns that a contract declares as not nullable.
pub(crate) fn not_null_columns(contract: &Contract) -> Vec<String> {
    contract.columns.iter().filter(|column| !column.nullable).map(|column| column.name.clone()).collect()
}

/// Returns a column of this type whose values are converted without loss or refused.
pub(crate) fn of_type(name: &str, t: &DataType) -> ContractColumn {
    ContractColumn::new(name, ColumnType::of_arrow(t.clone()))
}

/// Counts the losses that the contract allows.
#[derive(Debug, Clone, Default)]
pub(crate) struct LossCounter {
    /// Columns, and fields of structs, that were dropped.
    pub(crate) dropped: Vec<String>,
    /// Number of rounded, nulled and defaulted values by column.
    pub(crate) columns: BTreeMap<String, ColumnLosses>,
}

impl LossCounter {
    pub(crate) fn drop(&mut self, name: &str) {
        push_once(&mut self.dropped, name.to_owned());
    }

    pub(crate) fn losses_of(&mut self, column: &str) -> &mut ColumnLosses {
        self.columns.entry(column.to_owned()).or_default()
    }

    /// Returns whether the contract sets an invalid value to null, and counts the value in this case. The placeholder
    /// of an unchanged value never becomes null, since the stored value would be lost.
    pub(crate) fn sets_null(&mut self, column: &ContractColumn, code: &'static str, is_placeholder: bool) -> bool {
        let is_null = column.reading.on_error == Some(OnError::Null) && !is_placeholder;
        if is_null {
            *self.losses_of(&column.name).nulled.entry(code).or_default() += 1;
        }
        is_null
    }

    /// Sets invalid values to null, although their columns have a default, and counts them.
    ///
    /// The values were nulls when they were coerced, so that the coercion filled them with the default and counted
    /// them as defaulted; both are undone here.
    pub(crate) fn restore_nulls(
        &mut self,
        rows: &RecordBatch,
        contract: &Contract,
        nulled: &NulledRows,
    ) -> Result<RecordBatch> {
        let failed = |e| Error::internal("cannot set values to null").with_source(e);
        let mut columns = rows.columns().to_vec();
        for (name, values) in nulled {
            let Some(column) = contract.column_for(name) else { continue };
            let mut is_null = vec![false; rows.num_rows()];
            values.iter().for_each(|(row, _)| is_null[*row] = true);
            if let Ok(at) = rows.schema().index_of(&column.name) {
                columns[at] = nullif(&columns[at], &BooleanArray::from(is_null)).map_err(failed)?;
            }
            let losses = self.losses_of(&column.name);
            values.iter().for_each(|(_, code)| *losses.nulled.entry(code).or_default() += 1);
            if column.reading.default.is_some() {
                losses.defaulted = losses.defaulted.saturating_sub(values.len() as u64);
            }
        }
        RecordBatch::try_new(rows.schema(), columns).map_err(failed)
    }
}

/// For each column, the rows whose values were set to null because they were invalid, each with the error code.
pub(crate) type NulledRows = BTreeMap<String, Vec<(usize, &'static str)>>;

/// Adds a name if it is not in the list.
pub(crate) fn push_once(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// Where rows come from, for messages: their file, and the number of each row in it.
#[derive(Clone, Copy)]
pub(crate) struct RowPlaces<'a> {
    pub(crate) file: &'a Arc<str>,
    pub(crate) places: &'a [u64],
}

/// Whether the columns of rows have been coerced to their declared types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowTyping {
    /// Columns that have the type of the contract were coerced, and are not coerced again.
    Coerced,
    /// The columns are as the file has them.
    AsRead,
}

/// Converts values to the type of a declared column. Returns the array and the rows that are refused because their
/// values do not fit.
///
/// # Errors
/// `NoCoercion`, `ColumnCase`.
pub(crate) fn coerce_values(
    column: &ContractColumn,
    values: &ArrayRef,
    at: RowPlaces<'_>,
    lost: &mut LossCounter,
) -> Result<(ArrayRef, Vec<(usize, Error)>)> {
    let RowPlaces { file, places } = at;
    let made = coerce_column(column, values).map_err(|e| e.in_file(file))?;
    made.dropped.iter().for_each(|name| lost.drop(name));
    if made.rounded > 0 || made.defaulted > 0 {
        let counted = lost.losses_of(&column.name);
        counted.rounded += made.rounded;
        counted.defaulted += made.defaulted;
    }
    // Sorted, so that a row can be found by binary search.
    let placeholders = match column.reading.on_error {
        Some(OnError::Null) => UnchangedPlaceholder::new(None)?.find_rows(values),
        _ => vec![],
    };
    let is_placeholder = |row: usize| placeholders.binary_search(&row).is_ok();
    let bad = made
        .refused
        .iter()
        .filter(|refused| !lost.sets_null(column, refused.code.name(), is_placeholder(refused.row)))
        .map(|refused| (refused.row, refused.error().at(file, places[refused.row])));
    Ok((made.array, bad.collect()))
}

/// Rows with the columns and types of a contract.
pub(crate) struct CompliantRows {
    pub(crate) rows: RecordBatch,
    /// Index of the input column of each column.
    pub(crate) kept: Vec<usize>,
    /// Rows with a value that does not fit its column, ascending, each with its first error.
    pub(crate) bad: Vec<(usize, Error)>,
    pub(crate) lost: LossCounter,
}

/// Converts rows of a Parquet or Avro file, for which there is no contract, to the types that are written by default.
/// A column that has the type of the table (`expected`) keeps it.
///
/// # Errors
/// `NoCoercion`, `ColumnCase`. Rows with invalid values are returned, for example with `PrecisionLoss`.
pub(crate) fn as_written_in(
    rows: &RecordBatch,
    expected: Option<&SchemaRef>,
    at: RowPlaces<'_>,
) -> Result<(RecordBatch, Vec<(usize, Error)>)> {
    let schema = rows.schema();
    let (mut fields, mut columns) = (schema.fields().to_vec(), rows.columns().to_vec());
    let mut bad = BTreeMap::new();
    for (field, values) in fields.iter_mut().zip(&mut columns) {
        let plain = plain_type(field.data_type());
        let known =
            || find_declared_column(None, expected, field.name()).map(|column| column.column_type.arrow().clone());
        let written = written_type(&plain);
        let is_of_table = known().is_some_and(|known| known == plain);
        // Maps are always checked, because a map of any type may have a duplicate key.
        if (written == plain || is_of_table) && !has_maps(&plain) {
            continue;
        }
        let written = if is_of_table { plain } else { written };
        let (array, faults) = coerce_values(&of_type(field.name(), &written), values, at, &mut LossCounter::default())?;
        for (row, e) in faults {
            bad.entry(row).or_insert(e);
        }
        *field = Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone()).with_nullable(true));
        *values = array;
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let rows = RecordBatch::try_new_with_options(
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())),
        columns,
        &options,
    );
    let rows = rows.map_err(|e| Error::internal("cannot convert the types of rows").with_source(e))?;
    Ok((rows, bad.into_iter().collect()))
}

fn has_maps(t: &DataType) -> bool {
    match t {
        DataType::Map(..) => true,
        DataType::List(item) => has_maps(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_maps(f.data_type())),
        _ => false,
    }
}

/// Converts rows to the columns and types of a contract. Columns that the contract does not have are dropped, kept or
/// refused as its `extra` tells, and columns for which `passed` returns true are unchanged.
///
/// # Errors
/// `NoCoercion`, `ColumnCase`, `ExtraColumns`.
pub(crate) fn coerce_to_contract(
    batch: &RecordBatch,
    typing: RowTyping,
    contract: &Contract,
    passed: &dyn Fn(&str) -> bool,
    at: RowPlaces<'_>,
) -> Result<CompliantRows> {
    let (mut fields, mut columns, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bad, mut lost) = (BTreeMap::new(), LossCounter::default());
    for (i, (field, values)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let name = field.name();
        let column = match (contract.column_for(name), contract.extra) {
            _ if passed(name) => None,
            (Some(column), _) if typing == RowTyping::Coerced && values.data_type() == column.column_type.arrow() => {
                fields.push(Arc::new(Field::new(&column.name, values.data_type().clone(), true)));
                columns.push(values.clone());
                kept.push(i);
                continue;
            }
            (Some(column), _) => Some(of_contract(contract, column)),
            (None, ExtraColumns::Keep) => Some(of_type(name, &written_type(&plain_type(values.data_type())))),
            (None, ExtraColumns::Refuse) => {
                let message = format!("the contract does not have column `{name}`");
                return Err(Error::new(biscuit_schema::codes::EXTRA_COLUMNS, message)
                    .with_column(name)
                    .in_file(at.file));
            }
            (None, _) => {
                lost.drop(name);
                continue;
            }
        };
        if let Some(column) = column {
            let (array, faults) = coerce_values(&column, values, at, &mut lost)?;
            fields.push(Arc::new(Field::new(&column.name, array.data_type().clone(), true)));
            columns.push(array);
            for (row, e) in faults {
                bad.entry(row).or_insert(e);
            }
        } else {
            fields.push(field.clone());
            columns.push(values.clone());
        }
        kept.push(i);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|e| Error::internal("cannot put rows into the columns of the contract").with_source(e))?;
    Ok(CompliantRows { rows, kept, bad: bad.into_iter().collect(), lost })
}

/// Adds the columns of the contract that are missing and have a default, and counts their values as defaulted.
///
/// # Errors
/// `InvalidContract`, `TooLarge`.
pub(crate) fn with_defaults(rows: &RecordBatch, contract: &Contract, lost: &mut LossCounter) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (rows.schema().fields().to_vec(), rows.columns().to_vec());
    for column in &contract.columns {
        if rows.column_by_name(&column.name).is_some() {
            continue;
        }
        let Some(all) = default_values(column, rows.num_rows())? else { continue };
        lost.losses_of(&column.name).defaulted += rows.num_rows() as u64;
        fields.push(Arc::new(Field::new(&column.name, all.data_type().clone(), true)));
        columns.push(all);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|e| Error::internal("cannot put rows into the columns of the contract").with_source(e))
}

/// Returns the type in which text is read before it is coerced to `t`. Bytes are decoded directly, since they have no
/// text form of their own.
pub(crate) fn as_written(t: &DataType) -> DataType {
    text_type(t, &|t| matches!(t, DataType::Null | DataType::Binary))
}
