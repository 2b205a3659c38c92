//! Coercion of record batches to a contract.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, interleave, is_null, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use biscuit_core::{Error, ErrorCode, Result};
use serde::Serialize;

use crate::contract::column::ContractColumn;
use crate::types::common::plain_type;
use crate::types::common::written_type;
use crate::types::union::check_names;
use crate::values::convert::{convert, convert_whole};
use crate::values::fault::ValueFault;
use crate::values::nested::find_field;
use crate::values::reading_rules::{ExtraColumns, OnError};
use crate::{ColumnType, Contract, codes, type_name};

/// Converts rows to the columns of a contract. Columns and struct fields are matched by name, and each loss is
/// counted.
///
/// ```
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
/// use biscuit_schema::{Coercion, Contract};
/// use std::sync::Arc;
///
/// let contract = Contract::from_toml("
///     [[columns]]
///     name = 'id'
///     type = 'int'
///     on_error = 'quarantine'
///     [[columns]]
///     name = 'day'
///     type = 'date'
/// ").unwrap();
/// let day: ArrayRef = Arc::new(StringArray::from(vec!["2022-02-04", "2022-02-05"]));
/// let id: ArrayRef = Arc::new(Int64Array::from(vec![7, 3_000_000_000]));
/// let rows = RecordBatch::try_from_iter([("day", day), ("id", id)]).unwrap();
/// let coerced = Coercion::new(&contract).unwrap().coerce(&rows, "a.parquet", 1).unwrap();
/// assert_eq!(coerced.batch.num_rows(), 1);
/// assert_eq!((coerced.refused[0].row, coerced.refused[0].code.name()), (1, "Overflow"));
/// ```
#[derive(Debug, Clone)]
pub struct Coercion {
    contract: Arc<Contract>,
    defaults: Vec<Option<ArrayRef>>,
    kept: BTreeSet<String>,
}

/// Rows with the columns of a contract.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoercedRows {
    /// Rows that were not refused.
    pub batch: RecordBatch,
    /// Mask of the input rows that are in `batch`; `None` if all rows are.
    pub kept: Option<BooleanArray>,
    /// Refused rows, ascending, each once.
    pub refused: Vec<RefusedRow>,
    /// Counts of losses, defaults, and dropped columns.
    pub report: CoercionReport,
}

/// Refused row and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedRow {
    /// Index of the row in the batch, from 0.
    pub row: usize,
    /// Column with the invalid value.
    pub column: String,
    /// Code of the reason.
    pub code: ErrorCode,
    /// Message with the reason.
    pub message: Arc<str>,
}

impl RefusedRow {
    fn new(row: usize, column: &ContractColumn, fault: ValueFault) -> Self {
        let message = message_of(column, fault).into();
        Self { row, column: column.name.clone(), code: fault.code(), message }
    }

    /// Creates a row that is refused because of an error in one of its columns.
    pub fn of(row: usize, error: &Error) -> Self {
        let column = error.column().unwrap_or_default().to_owned();
        Self { row, column, code: error.error_code(), message: error.message().into() }
    }

    /// Returns the error with which the run would have stopped at this row.
    pub fn error(&self) -> Error {
        Error::new(self.code, self.message.as_ref()).with_column(&self.column)
    }
}

/// Losses and defaults of one column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ColumnLosses {
    /// Number of values that became null, by code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nulled: BTreeMap<&'static str, u64>,
    /// Number of rows that were refused because of a value, by code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<&'static str, u64>,
    /// Values that were rounded.
    #[serde(skip_serializing_if = "is_zero")]
    pub rounded: u64,
    /// Values that are the default, since there was none.
    #[serde(skip_serializing_if = "is_zero")]
    pub defaulted: u64,
}

impl ColumnLosses {
    /// Adds the losses of other values.
    pub fn add(&mut self, other: &Self) {
        other.nulled.iter().for_each(|(code, n)| *self.nulled.entry(code).or_default() += n);
        other.refused.iter().for_each(|(code, n)| *self.refused.entry(code).or_default() += n);
        self.rounded += other.rounded;
        self.defaulted += other.defaulted;
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Report of a coercion: losses, defaults, and dropped columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CoercionReport {
    /// Number of input rows.
    pub rows: u64,
    /// Rows that were refused.
    pub refused: u64,
    /// Losses and defaults of each column that has any.
    pub columns: BTreeMap<String, ColumnLosses>,
    /// Columns and struct fields that the contract does not have and that were dropped.
    pub dropped: BTreeSet<String>,
    /// Columns and struct fields that the input does not have.
    pub missing: BTreeSet<String>,
    /// Renamed columns: the name in the input, and the name in the contract.
    pub renamed: BTreeMap<String, String>,
}

impl CoercionReport {
    /// Adds the report of another batch.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.refused += other.refused;
        for (column, losses) in &other.columns {
            self.columns.entry(column.clone()).or_default().add(losses);
        }
        self.dropped.extend(other.dropped.iter().cloned());
        self.missing.extend(other.missing.iter().cloned());
        self.renamed.extend(other.renamed.iter().map(|(a, b)| (a.clone(), b.clone())));
    }
}

/// Values after their conversion to one column.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoercedColumn {
    /// Values in the type of the column. A value that could not be converted is null.
    pub array: ArrayRef,
    /// Rows whose values could not be converted, ascending, each once. The caller decides how to treat them.
    pub refused: Vec<RefusedRow>,
    /// Number of values that were rounded, as the column allows.
    pub rounded: u64,
    /// Values that are the default, since there was none.
    pub defaulted: u64,
    /// Struct fields that the column does not have and that were dropped.
    pub dropped: Vec<String>,
}

/// Converts values to the type of a contract column, and replaces nulls by its default. Does not check whether the
/// column is nullable.
///
/// ```
/// use arrow::array::{ArrayRef, StringArray};
/// use biscuit_schema::{ColumnType, ContractColumn, coerce_column};
/// use std::sync::Arc;
///
/// let values: ArrayRef = Arc::new(StringArray::from(vec!["12.50", "99999999.99"]));
/// let amount = ContractColumn::new("amount", ColumnType::parse("decimal(9,2)").unwrap());
/// let coerced = coerce_column(&amount, &values).unwrap();
/// assert_eq!((coerced.refused[0].row, coerced.refused[0].code.name()), (1, "Overflow"));
/// ```
///
/// # Errors
/// `NoCoercion` for a type that has no conversion to the type of the column, `ColumnCase` for struct fields that
/// differ only in letter case.
pub fn coerce_column(column: &ContractColumn, array: &ArrayRef) -> Result<CoercedColumn> {
    let made = convert_whole(&column.name, array, column.column_type.arrow(), &column.reading)?;
    let mut refused: Vec<RefusedRow> = Vec::new();
    // The faults are ascending, and a nested value may have several. The first one is reported.
    for (row, fault) in made.faults {
        if refused.last().is_none_or(|last| last.row != row) {
            refused.push(RefusedRow::new(row, column, fault));
        }
    }
    let (array, defaulted) = match default_value(column)? {
        Some(value) => fill_nulls(made.array, array, &value)?,
        None => (made.array, 0),
    };
    Ok(CoercedColumn { array, refused, rounded: made.rounded, defaulted, dropped: made.dropped })
}

/// Returns the default of a column, repeated for this number of rows, or `None` for a column without a default.
///
/// # Errors
/// `InvalidContract` if the default does not have the type of the column, `TooLarge` if the result exceeds 2^31
/// bytes.
pub fn default_values(column: &ContractColumn, rows: usize) -> Result<Option<ArrayRef>> {
    default_value(column)?.map(|value| repeat_value(&value, rows)).transpose()
}

/// Returns the default of a column as an array with one value of its type.
fn default_value(column: &ContractColumn) -> Result<Option<ArrayRef>> {
    let Some(text) = &column.reading.default else { return Ok(None) };
    let one: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
    let made = convert(&column.name, &one, column.column_type.arrow(), &column.reading)?;
    match made.faults.first() {
        None => Ok(Some(made.array)),
        Some((_, fault)) => {
            let message = format!("the default of column `{}` {}", column.name, fault.reason());
            Err(Error::new(codes::INVALID_CONTRACT, message).with_column(&column.name))
        }
    }
}

/// Replaces values by the default where the input is null, and returns the number of replaced values. A value that
/// became null by its conversion is lost data and does not get the default.
fn fill_nulls(array: ArrayRef, input: &ArrayRef, value: &ArrayRef) -> Result<(ArrayRef, u64)> {
    let missing = is_null(input).map_err(internal_error)?;
    let count = missing.true_count();
    if count == 0 {
        return Ok((array, 0));
    }
    // `interleave` takes for each row a pair: array 0 (the values) with the row, or array 1 (the default) with its
    // only index.
    let from: Vec<(usize, usize)> =
        missing.values().iter().enumerate().map(|(i, m)| if m { (1, 0) } else { (0, i) }).collect();
    let array = interleave(&[array.as_ref(), value.as_ref()], &from).map_err(internal_error)?;
    Ok((array, count as u64))
}

impl Coercion {
    /// Creates a coercion to this contract.
    ///
    /// # Errors
    /// `InvalidContract` if a default does not have the type of its column.
    pub fn new(contract: &Contract) -> Result<Self> {
        let defaults = contract.columns.iter().map(default_value).collect::<Result<_>>()?;
        Ok(Self { contract: Arc::new(contract.clone()), defaults, kept: BTreeSet::new() })
    }

    /// Keeps these columns unchanged if the contract does not have them, regardless of its `extra` setting. Letter
    /// case does not matter. Default: none.
    #[must_use]
    pub fn with_kept<S: AsRef<str>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.kept.extend(columns.into_iter().map(|c| c.as_ref().to_ascii_lowercase()));
        self
    }

    /// Returns the contract.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Converts rows to the contract. `file` is the name of the input in messages, and `first` is the number of the
    /// first row of the batch in that input.
    ///
    /// # Errors
    /// - `Unparseable`, `Overflow`, `PrecisionLoss`, `BadDate`, `BadTime`, `BadEpoch`, `NotABoolean`, `NotANumber`
    ///   and `DuplicateKey`, with file and row, for a value in a column whose `on_error` is `fail`.
    /// - `NullNotAllowed`, with file and row, for a null in a column that is not nullable, unless its `on_error` is
    ///   `quarantine`.
    /// - `NoCoercion` for a type that has no conversion to the type of the column.
    /// - `MissingColumn` for an absent column that is not nullable and has no default.
    /// - `ExtraColumns` if columns are not in the contract and its `extra` is `refuse`.
    /// - `ColumnCase`, `DuplicateColumn` for the names of the input.
    pub fn coerce(&self, batch: &RecordBatch, file: &str, first: u64) -> Result<CoercedRows> {
        check_names(batch.schema_ref(), &format!("`{file}`"))?;
        let mut work = CoercionState {
            file,
            first,
            used: vec![false; batch.num_columns()],
            refused: BTreeMap::new(),
            report: CoercionReport { rows: batch.num_rows() as u64, ..CoercionReport::default() },
        };
        // Faults are collected over all columns, so a row is refused once, with the fault of its first column in the
        // order of the contract.
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (column, default) in self.contract.columns.iter().zip(&self.defaults) {
            let array = self.column(batch, column, default.as_ref(), &mut work)?;
            fields.push(Arc::new(Field::new(&column.name, column.column_type.arrow().clone(), column.nullable)));
            arrays.push(array);
        }
        self.treat_extra_columns(batch, &mut work, &mut fields, &mut arrays)?;
        let CoercionState { refused, mut report, .. } = work;
        report.refused = refused.len() as u64;
        for (column, fault) in refused.values() {
            let losses = report.columns.entry(column.name.clone()).or_default();
            *losses.refused.entry(fault.code().name()).or_default() += 1;
        }
        let kept = (!refused.is_empty())
            .then(|| BooleanArray::from((0..batch.num_rows()).map(|i| !refused.contains_key(&i)).collect::<Vec<_>>()));
        let batch = assemble_rows(fields, arrays, batch.num_rows(), kept.as_ref())?;
        let refused = refused.into_iter().map(|(row, (column, fault))| RefusedRow::new(row, column, fault)).collect();
        Ok(CoercedRows { batch, kept, refused, report })
    }

    fn column<'a>(
        &self,
        batch: &RecordBatch,
        column: &'a ContractColumn,
        default: Option<&ArrayRef>,
        work: &mut CoercionState<'a>,
    ) -> Result<ArrayRef> {
        let t = column.column_type.arrow();
        let Some(at) = self.find_input(batch.schema_ref(), column, work)? else {
            work.report.missing.insert(column.name.clone());
            return match default {
                Some(value) => {
                    work.losses(&column.name).defaulted += batch.num_rows() as u64;
                    repeat_value(value, batch.num_rows())
                }
                None if column.nullable => Ok(new_null_array(t, batch.num_rows())),
                None => {
                    let message = format!(
                        "`{}` has no column `{}`, which is not nullable and has no default",
                        work.file, column.name
                    );
                    Err(Error::new(codes::MISSING_COLUMN, message).with_column(&column.name).in_file(work.file))
                }
            };
        };
        let input = batch.column(at);
        let made = convert_whole(&column.name, input, t, &column.reading).map_err(|e| e.in_file(work.file))?;
        work.report.dropped.extend(made.dropped);
        work.report.missing.extend(made.missing);
        if made.rounded > 0 {
            work.losses(&column.name).rounded += made.rounded;
        }
        let policy = self.contract.on_error_of(column);
        for (row, fault) in &made.faults {
            work.record_fault(column, *row, *fault, policy)?;
        }
        let array = match default {
            Some(value) => {
                let (array, defaulted) = fill_nulls(made.array, input, value)?;
                if defaulted > 0 {
                    work.losses(&column.name).defaulted += defaulted;
                }
                array
            }
            None => made.array,
        };
        if !column.nullable && array.null_count() > 0 {
            for row in (0..array.len()).filter(|row| array.is_null(*row)) {
                // The column is not nullable, so `on_error = "null"` cannot be applied and the run stops.
                let policy = if policy == OnError::Null { OnError::Fail } else { policy };
                work.record_fault(column, row, ValueFault::NullNotAllowed, policy)?;
            }
        }
        Ok(array)
    }

    /// Finds a column in the input by its name, or else by one of its former names. Each input column is used once.
    fn find_input(
        &self,
        schema: &Schema,
        column: &ContractColumn,
        work: &mut CoercionState<'_>,
    ) -> Result<Option<usize>> {
        for name in std::iter::once(&column.name).chain(&column.reading.renamed_from) {
            let found = find_field(schema.fields().iter(), name, name).map_err(|e| e.in_file(work.file))?;
            if let Some(at) = found.filter(|at| !work.used[*at]) {
                work.used[at] = true;
                let there = schema.field(at).name();
                if *there != column.name {
                    work.report.renamed.insert(there.clone(), column.name.clone());
                }
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Treats the input columns that the contract does not have.
    fn treat_extra_columns(
        &self,
        batch: &RecordBatch,
        work: &mut CoercionState<'_>,
        fields: &mut Vec<Arc<Field>>,
        arrays: &mut Vec<ArrayRef>,
    ) -> Result<()> {
        let mut refused = Vec::new();
        for at in (0..batch.num_columns()).filter(|at| !work.used[*at]) {
            let field = batch.schema_ref().field(at).clone();
            match self.contract.extra {
                _ if self.kept.contains(&field.name().to_ascii_lowercase()) => {}
                ExtraColumns::Keep => {}
                ExtraColumns::Drop => {
                    work.report.dropped.insert(field.name().clone());
                    continue;
                }
                ExtraColumns::Refuse => {
                    refused.push(format!("`{}`", field.name()));
                    continue;
                }
            }
            // A kept column has no declared type. It is converted only if `written_type` changes its type.
            let written = written_type(&plain_type(field.data_type()));
            let made = match written == plain_type(field.data_type()) {
                true => batch.column(at).clone(),
                false => {
                    let own = ContractColumn::new(field.name(), ColumnType::of_arrow(written));
                    let made = coerce_column(&own, batch.column(at)).map_err(|e| e.in_file(work.file))?;
                    if let Some(refused) = made.refused.first() {
                        return Err(refused.error().at(work.file, work.first + refused.row as u64));
                    }
                    made.array
                }
            };
            fields.push(Arc::new(Field::new(field.name(), made.data_type().clone(), true)));
            arrays.push(made);
        }
        if refused.is_empty() {
            return Ok(());
        }
        let message = format!(
            "the contract does not have {}; add the columns, or set `extra` to `drop` or `keep`",
            refused.join(", ")
        );
        Err(Error::new(codes::EXTRA_COLUMNS, message).in_file(work.file))
    }
}

/// State of the coercion of one batch.
struct CoercionState<'a> {
    file: &'a str,
    first: u64,
    used: Vec<bool>,
    /// First fault of each refused row.
    refused: BTreeMap<usize, (&'a ContractColumn, ValueFault)>,
    report: CoercionReport,
}

impl<'a> CoercionState<'a> {
    fn losses(&mut self, column: &str) -> &mut ColumnLosses {
        self.report.columns.entry(column.to_owned()).or_default()
    }

    fn record_fault(
        &mut self,
        column: &'a ContractColumn,
        row: usize,
        fault: ValueFault,
        policy: OnError,
    ) -> Result<()> {
        match policy {
            OnError::Fail => {
                let code = fault.code();
                let e = Error::new(code, message_of(column, fault)).with_column(&column.name);
                Err(e.at(self.file, self.first + row as u64))
            }
            OnError::Null => {
                *self.losses(&column.name).nulled.entry(fault.code().name()).or_default() += 1;
                Ok(())
            }
            OnError::Quarantine => {
                // `or_insert` retains the fault of an earlier column.
                self.refused.entry(row).or_insert((column, fault));
                Ok(())
            }
        }
    }
}

/// Returns the message for a fault. It contains no value.
fn message_of(column: &ContractColumn, fault: ValueFault) -> String {
    let t = column.column_type.arrow();
    let t = type_name(t).unwrap_or_else(|| t.to_string());
    format!("a value of column `{}` ({t}) {}", column.name, fault.reason())
}

fn repeat_value(value: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    take(value, &UInt32Array::from(vec![0; rows]), None).map_err(internal_error)
}

fn assemble_rows(
    fields: Vec<Arc<Field>>,
    arrays: Vec<ArrayRef>,
    rows: usize,
    kept: Option<&BooleanArray>,
) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let loose: Vec<Arc<Field>> = fields.iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
    let strict: SchemaRef = Arc::new(Schema::new(fields));
    // Refused rows may have nulls in columns that are not nullable, so the rows are filtered before the strict schema
    // is applied.
    let batch =
        RecordBatch::try_new_with_options(Arc::new(Schema::new(loose)), arrays, &options).map_err(internal_error)?;
    let batch = match kept {
        Some(kept) => filter_record_batch(&batch, kept).map_err(internal_error)?,
        None => batch,
    };
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(strict, batch.columns().to_vec(), &options).map_err(internal_error)
}

fn internal_error(e: ArrowError) -> Error {
    match e {
        // A long default that is repeated in each row.
        ArrowError::OffsetOverflowError(_) => {
            let message =
                "the texts of a column would have more than 2^31 bytes in one batch; declare a shorter default";
            Error::new(codes::TOO_LARGE, message)
        }
        e => Error::internal("cannot assemble the rows").with_source(e),
    }
}
