//! Columns declared by a contract or by the existing table. Values are brought to their types by the coercion that jobs use too.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use biscuit_core::{Error, Result};
use biscuit_schema::{
    ColumnLosses, ColumnType, Contract, ContractColumn, ExtraColumns, OnError, coerce_column, default_values,
    plain_type, text_type, written_type,
};

use crate::debezium::placeholder::UnchangedPlaceholder;

/// The column that was declared for one of the input; under a contract there are no others.
pub(crate) fn declared(
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

/// A column of a contract with its effective `on_error`.
fn of_contract(contract: &Contract, column: &ContractColumn) -> ContractColumn {
    let mut column = column.clone();
    column.reading.on_error = Some(contract.on_error_of(&column));
    column
}

/// A column of this type, whose values become it without a loss or not at all.
pub(crate) fn of_type(name: &str, t: &DataType) -> ContractColumn {
    ContractColumn::new(name, ColumnType::of_arrow(t.clone()))
}

/// What was lost of values as columns allow it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LossCounter {
    /// Columns, and fields of structs, that were left out.
    pub(crate) dropped: Vec<String>,
    /// What became of values, by column.
    pub(crate) columns: BTreeMap<String, ColumnLosses>,
}

impl LossCounter {
    pub(crate) fn drop(&mut self, name: &str) {
        push_once(&mut self.dropped, name.to_owned());
    }

    pub(crate) fn of(&mut self, column: &str) -> &mut ColumnLosses {
        self.columns.entry(column.to_owned()).or_default()
    }

    /// Returns whether the contract makes an invalid value null, and counts it then. A placeholder for a value that was not sent never becomes null, since
    /// the stored value would be lost.
    pub(crate) fn null(&mut self, column: &ContractColumn, code: &'static str, is_placeholder: bool) -> bool {
        let is_null = column.reading.on_error == Some(OnError::Null) && !is_placeholder;
        if is_null {
            *self.of(&column.name).nulled.entry(code).or_default() += 1;
        }
        is_null
    }

    /// Sets invalid values to null, although their columns have a default, and counts them. They arrive as nulls, which the coercion has filled with the
    /// default and counted as such.
    pub(crate) fn nulled_in(
        &mut self,
        rows: &RecordBatch,
        contract: &Contract,
        nulled: &NulledRows,
    ) -> Result<RecordBatch> {
        let failed = |e| Error::internal("values could not become null").with_source(e);
        let mut columns = rows.columns().to_vec();
        for (name, values) in nulled {
            let Some(column) = contract.column_for(name) else { continue };
            let mut is_null = vec![false; rows.num_rows()];
            values.iter().for_each(|(row, _)| is_null[*row] = true);
            if let Ok(at) = rows.schema().index_of(&column.name) {
                columns[at] = nullif(&columns[at], &BooleanArray::from(is_null)).map_err(failed)?;
            }
            let losses = self.of(&column.name);
            values.iter().for_each(|(_, code)| *losses.nulled.entry(code).or_default() += 1);
            if column.reading.default.is_some() {
                losses.defaulted = losses.defaulted.saturating_sub(values.len() as u64);
            }
        }
        RecordBatch::try_new(rows.schema(), columns).map_err(failed)
    }
}

/// By column: the rows whose values became null because they were invalid, and the error code of each.
pub(crate) type NulledRows = BTreeMap<String, Vec<(usize, &'static str)>>;

/// Adds a name that is not in the list.
pub(crate) fn push_once(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// Values in the type of a declared column, and the rows that are refused because their values do not fit it.
///
/// # Errors
/// `NoCoercion`, `ColumnCase`.
pub(crate) fn in_column(
    column: &ContractColumn,
    values: &ArrayRef,
    (file, places): (&Arc<str>, &[u64]),
    lost: &mut LossCounter,
) -> Result<(ArrayRef, Vec<(usize, Error)>)> {
    let made = coerce_column(column, values).map_err(|e| e.in_file(file))?;
    made.dropped.iter().for_each(|name| lost.drop(name));
    if made.rounded > 0 || made.defaulted > 0 {
        let counted = ColumnLosses { rounded: made.rounded, defaulted: made.defaulted, ..ColumnLosses::default() };
        lost.of(&column.name).add(&counted);
    }
    let placeholders = match column.reading.on_error {
        Some(OnError::Null) => UnchangedPlaceholder::new(None)?.rows(values),
        _ => vec![],
    };
    let is_placeholder = |row: usize| placeholders.binary_search(&row).is_ok();
    let bad = made
        .refused
        .iter()
        .filter(|refused| !lost.null(column, refused.code, is_placeholder(refused.row)))
        .map(|refused| (refused.row, refused.error().at(file, places[refused.row])));
    Ok((made.array, bad.collect()))
}

/// Rows in the columns and types of a contract.
pub(crate) struct CompliantRows {
    pub(crate) rows: RecordBatch,
    /// Which of the columns that came they are.
    pub(crate) kept: Vec<usize>,
    /// Rows with values that do not fit their columns, ascending, each once.
    pub(crate) bad: Vec<(usize, Error)>,
    pub(crate) lost: LossCounter,
}

/// Rows of a file that holds columns in the types in which they are written where nothing asks for others. `expected` are those of the table.
///
/// # Errors
/// `PrecisionLoss` with the row.
pub(crate) fn as_written_in(
    rows: &RecordBatch,
    expected: Option<&SchemaRef>,
    at: (&Arc<str>, &[u64]),
) -> Result<(RecordBatch, Vec<(usize, Error)>)> {
    let schema = rows.schema();
    let (mut fields, mut columns) = (schema.fields().to_vec(), rows.columns().to_vec());
    let mut bad = BTreeMap::new();
    for (field, values) in fields.iter_mut().zip(&mut columns) {
        let plain = plain_type(field.data_type());
        let known = || declared(None, expected, field.name()).map(|column| column.column_type.arrow().clone());
        let written = written_type(&plain);
        let is_of_table = known().is_some_and(|known| known == plain);
        // A map may have a key twice whatever its type is.
        if (written == plain || is_of_table) && !has_maps(&plain) {
            continue;
        }
        let written = if is_of_table { plain } else { written };
        let (array, faults) = in_column(&of_type(field.name(), &written), values, at, &mut LossCounter::default())?;
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
    let rows = rows.map_err(|e| Error::internal("rows could not be put in other types").with_source(e))?;
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

/// Brings rows to a contract; columns that it does not have are left out and named, and those that are `passed` stay as they are.
///
/// With `is_typed`, columns that have the contract's type already were coerced before, and are taken as they are.
///
/// # Errors
/// `NoCoercion`, `ColumnCase`.
pub(crate) fn comply(
    (batch, is_typed): (&RecordBatch, bool),
    contract: &Contract,
    passed: &dyn Fn(&str) -> bool,
    at: (&Arc<str>, &[u64]),
) -> Result<CompliantRows> {
    let (mut fields, mut columns, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bad, mut lost) = (BTreeMap::new(), LossCounter::default());
    for (i, (field, values)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let name = field.name();
        let column = match (contract.column_for(name), contract.extra) {
            _ if passed(name) => None,
            (Some(column), _) if is_typed && values.data_type() == column.column_type.arrow() => {
                fields.push(Arc::new(Field::new(&column.name, values.data_type().clone(), true)));
                columns.push(values.clone());
                kept.push(i);
                continue;
            }
            (Some(column), _) => Some(of_contract(contract, column)),
            (None, ExtraColumns::Keep) => Some(of_type(name, &written_type(&plain_type(values.data_type())))),
            (None, ExtraColumns::Refuse) => {
                let message = format!("the contract does not have `{name}`");
                return Err(Error::data("ExtraColumns", message).with_column(name).in_file(at.0));
            }
            (None, _) => {
                lost.drop(name);
                continue;
            }
        };
        if let Some(column) = column {
            let (array, faults) = in_column(&column, values, at, &mut lost)?;
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
        .map_err(|e| Error::internal("rows could not be put in the contract's columns").with_source(e))?;
    Ok(CompliantRows { rows, kept, bad: bad.into_iter().collect(), lost })
}

/// Adds the contract's columns that are missing and have a default, and counts the values.
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
        lost.of(&column.name).defaulted += rows.num_rows() as u64;
        fields.push(Arc::new(Field::new(&column.name, all.data_type().clone(), true)));
        columns.push(all);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|e| Error::internal("rows could not be put in the contract's columns").with_source(e))
}

/// The type in which text is read before it becomes of this type. Bytes have no text of their own.
pub(crate) fn as_written(t: &DataType) -> DataType {
    text_type(t, &|t| matches!(t, DataType::Null | DataType::Binary))
}
