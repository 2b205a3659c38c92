use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, interleave, is_null, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use biscuit_core::{Error, Result};
use serde::Serialize;

use crate::contract::definition::ContractColumn;
use crate::values::convert::{convert, convert_whole, place};
use crate::values::fault::ValueFault;
use crate::values::reading_rules::{ExtraColumns, OnError};
use crate::{ColumnType, Contract, check_names, plain_type, type_name, written_type};

/// Brings rows to the columns of a contract: by name, also within structs, and with every loss counted.
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
/// assert_eq!((coerced.refused[0].row, coerced.refused[0].code), (1, "Overflow"));
/// ```
#[derive(Debug, Clone)]
pub struct Coercion {
    contract: Arc<Contract>,
    defaults: Vec<Option<ArrayRef>>,
    kept: BTreeSet<String>,
}

/// Rows of a contract.
#[derive(Debug, Clone)]
pub struct CoercedRows {
    /// The rows, without those that were refused.
    pub batch: RecordBatch,
    /// Which of the input's rows they are; `None` if all of them are.
    pub kept: Option<BooleanArray>,
    /// Rows that were refused, ascending, each once.
    pub refused: Vec<RefusedRow>,
    /// What was lost, filled in, and left out.
    pub report: CoercionReport,
}

/// A row that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// Its place in the batch, from 0.
    pub row: usize,
    /// The column it is about.
    pub column: String,
    /// The stable code of the reason.
    pub code: &'static str,
    /// The reason as messages say it.
    pub message: Arc<str>,
}

impl RefusedRow {
    fn new(row: usize, column: &ContractColumn, fault: ValueFault) -> Self {
        let message = said(column, fault).into();
        Self { row, column: column.name.clone(), code: fault.code(), message }
    }

    /// The error that the row would have been.
    pub fn error(&self) -> Error {
        Error::data(self.code, self.message.as_ref()).with_column(&self.column)
    }
}

/// What became of the values of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ColumnLosses {
    /// Values that became null, by code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nulled: BTreeMap<&'static str, u64>,
    /// Rows that were refused for them, by code.
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
    /// Adds those of other values.
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

/// What a coercion lost, filled in, and left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CoercionReport {
    /// Rows that came.
    pub rows: u64,
    /// Rows that were refused.
    pub refused: u64,
    /// Columns of which something was lost or filled in.
    pub columns: BTreeMap<String, ColumnLosses>,
    /// Columns, and fields of structs, that the contract does not have and that were left out.
    pub dropped: BTreeSet<String>,
    /// Columns, and fields of structs, that the input does not have.
    pub missing: BTreeSet<String>,
    /// Columns that have another name in the input: that one, and the contract's.
    pub renamed: BTreeMap<String, String>,
}

impl CoercionReport {
    /// Adds what another batch lost.
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

/// Values as those of one column.
#[derive(Debug, Clone)]
pub struct CoercedColumn {
    /// The values in the column's type; null where one did not become it.
    pub array: ArrayRef,
    /// The rows whose values did not, ascending, each once. What becomes of them is not decided here.
    pub refused: Vec<RefusedRow>,
    /// Values that were rounded, as the column allows it.
    pub rounded: u64,
    /// Values that are the default, since there was none.
    pub defaulted: u64,
    /// Fields of structs that the column does not have, and that were left out.
    pub dropped: Vec<String>,
}

/// Converts values to the type of a contract's column and fills nulls with its default. Does not check whether the column may be null.
///
/// ```
/// use arrow::array::{ArrayRef, StringArray};
/// use biscuit_schema::{Column, ColumnType, coerce_column};
/// use std::sync::Arc;
///
/// let values: ArrayRef = Arc::new(StringArray::from(vec!["12.50", "99999999.99"]));
/// let amount = Column::new("amount", ColumnType::parse("decimal(9,2)").unwrap());
/// let coerced = coerce_column(&amount, &values).unwrap();
/// assert_eq!((coerced.refused[0].row, coerced.refused[0].code), (1, "Overflow"));
/// ```
///
/// # Errors
/// `NoCoercion` for a type that cannot become the column's, `ColumnCase` for fields of structs that differ only in letter case.
pub fn coerce_column(column: &ContractColumn, array: &ArrayRef) -> Result<CoercedColumn> {
    let made = convert_whole(&column.name, array, column.column_type.arrow(), &column.reading)?;
    let mut refused: Vec<RefusedRow> = Vec::new();
    for (row, fault) in made.faults {
        if refused.last().is_none_or(|last| last.row != row) {
            refused.push(RefusedRow::new(row, column, fault));
        }
    }
    let (array, defaulted) = match default_value(column)? {
        Some(value) => filled(made.array, array, &value)?,
        None => (made.array, 0),
    };
    Ok(CoercedColumn { array, refused, rounded: made.rounded, defaulted, dropped: made.dropped })
}

/// The default of a column, repeated for this number of rows; `None` for a column without a default.
///
/// # Errors
/// `InvalidContract` if it is not of the column's type, `TooLarge`.
pub fn default_values(column: &ContractColumn, rows: usize) -> Result<Option<ArrayRef>> {
    default_value(column)?.map(|value| repeat(&value, rows)).transpose()
}

/// The default of a column, as an array of one value of its type.
fn default_value(column: &ContractColumn) -> Result<Option<ArrayRef>> {
    let Some(text) = &column.reading.default else { return Ok(None) };
    let one: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
    let made = convert(&column.name, &one, column.column_type.arrow(), &column.reading)?;
    match made.faults.first() {
        None => Ok(Some(made.array)),
        Some((_, fault)) => {
            let message = format!("the default of column `{}` {}", column.name, fault.reason());
            Err(Error::usage("InvalidContract", message).with_column(&column.name))
        }
    }
}

/// Fills in the default where the input is null, but not where a value was lost; returns the number of filled values as well.
fn filled(array: ArrayRef, input: &ArrayRef, value: &ArrayRef) -> Result<(ArrayRef, u64)> {
    let missing = is_null(input).map_err(internal)?;
    let count = missing.true_count();
    if count == 0 {
        return Ok((array, 0));
    }
    let from: Vec<(usize, usize)> =
        missing.values().iter().enumerate().map(|(i, m)| if m { (1, 0) } else { (0, i) }).collect();
    let array = interleave(&[array.as_ref(), value.as_ref()], &from).map_err(internal)?;
    Ok((array, count as u64))
}

impl Coercion {
    /// A coercion to this contract.
    ///
    /// # Errors
    /// `InvalidContract` if a default is not of its column's type.
    pub fn new(contract: &Contract) -> Result<Self> {
        let defaults = contract.columns.iter().map(default_value).collect::<Result<_>>()?;
        Ok(Self { contract: Arc::new(contract.clone()), defaults, kept: BTreeSet::new() })
    }

    /// The same coercion; these columns stay as they are where the contract does not have them, whatever it says of others.
    pub fn with_kept<S: AsRef<str>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.kept.extend(columns.into_iter().map(|c| c.as_ref().to_ascii_lowercase()));
        self
    }

    /// The contract.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Brings rows to the contract. `file` is what messages call where they come from, and `first` the number of the first row there.
    ///
    /// # Errors
    /// Of a column whose values stop the run: `Unparseable`, `Overflow`, `PrecisionLoss`, `BadDate`, `BadTime`, `BadEpoch`, `NotABoolean`,
    /// `NotANumber`, `NullNotAllowed`, with file and row; `NoCoercion` for a type that cannot become the column's; `MissingColumn` for one that
    /// cannot be null and has no default; `ExtraColumns` if these are refused; `ColumnCase`, `DuplicateColumn`.
    pub fn coerce(&self, batch: &RecordBatch, file: &str, first: u64) -> Result<CoercedRows> {
        check_names(batch.schema_ref(), &format!("`{file}`"))?;
        let mut work = CoercionState {
            file,
            first,
            used: vec![false; batch.num_columns()],
            refused: BTreeMap::new(),
            report: CoercionReport { rows: batch.num_rows() as u64, ..CoercionReport::default() },
        };
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (column, default) in self.contract.columns.iter().zip(&self.defaults) {
            let array = self.column(batch, column, default.as_ref(), &mut work)?;
            fields.push(Arc::new(Field::new(&column.name, column.column_type.arrow().clone(), column.nullable)));
            arrays.push(array);
        }
        self.extra(batch, &mut work, &mut fields, &mut arrays)?;
        let CoercionState { refused, mut report, .. } = work;
        report.refused = refused.len() as u64;
        for (column, fault) in refused.values() {
            let losses = report.columns.entry(column.name.clone()).or_default();
            *losses.refused.entry(fault.code()).or_default() += 1;
        }
        let kept = (!refused.is_empty())
            .then(|| BooleanArray::from((0..batch.num_rows()).map(|i| !refused.contains_key(&i)).collect::<Vec<_>>()));
        let batch = assemble(fields, arrays, batch.num_rows(), kept.as_ref())?;
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
        let Some(at) = self.find(batch.schema_ref(), column, work)? else {
            work.report.missing.insert(column.name.clone());
            return match default {
                Some(value) => {
                    work.losses(&column.name).defaulted += batch.num_rows() as u64;
                    repeat(value, batch.num_rows())
                }
                None if column.nullable => Ok(new_null_array(t, batch.num_rows())),
                None => {
                    let message = format!("`{}` has no column `{}`, which cannot be null", work.file, column.name);
                    Err(Error::data("MissingColumn", message).with_column(&column.name).in_file(work.file))
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
            work.fault(column, *row, *fault, policy)?;
        }
        let array = match default {
            Some(value) => {
                let (array, defaulted) = filled(made.array, input, value)?;
                if defaulted > 0 {
                    work.losses(&column.name).defaulted += defaulted;
                }
                array
            }
            None => made.array,
        };
        if !column.nullable && array.null_count() > 0 {
            for row in (0..array.len()).filter(|row| array.is_null(*row)) {
                // What became null is no better than what was.
                let policy = if policy == OnError::Null { OnError::Fail } else { policy };
                work.fault(column, row, ValueFault::NullNotAllowed, policy)?;
            }
        }
        Ok(array)
    }

    /// The place of a column in the input, by its name or one that it had.
    fn find(&self, schema: &Schema, column: &ContractColumn, work: &mut CoercionState<'_>) -> Result<Option<usize>> {
        for name in std::iter::once(&column.name).chain(&column.reading.renamed_from) {
            let found = place(schema.fields().iter(), name, name).map_err(|e| e.in_file(work.file))?;
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

    fn extra(
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
        let message = format!("the contract does not have {}", refused.join(", "));
        Err(Error::data("ExtraColumns", message).in_file(work.file))
    }
}

/// A batch on its way.
struct CoercionState<'a> {
    file: &'a str,
    first: u64,
    used: Vec<bool>,
    refused: BTreeMap<usize, (&'a ContractColumn, ValueFault)>,
    report: CoercionReport,
}

impl<'a> CoercionState<'a> {
    fn losses(&mut self, column: &str) -> &mut ColumnLosses {
        self.report.columns.entry(column.to_owned()).or_default()
    }

    fn fault(&mut self, column: &'a ContractColumn, row: usize, fault: ValueFault, policy: OnError) -> Result<()> {
        match policy {
            OnError::Fail => {
                let e = Error::data(fault.code(), said(column, fault)).with_column(&column.name);
                Err(e.at(self.file, self.first + row as u64))
            }
            OnError::Null => {
                *self.losses(&column.name).nulled.entry(fault.code()).or_default() += 1;
                Ok(())
            }
            OnError::Quarantine => {
                self.refused.entry(row).or_insert((column, fault));
                Ok(())
            }
        }
    }
}

fn said(column: &ContractColumn, fault: ValueFault) -> String {
    let t = column.column_type.arrow();
    let t = type_name(t).unwrap_or_else(|| t.to_string());
    format!("a value of column `{}` ({t}) {}", column.name, fault.reason())
}

fn repeat(value: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    take(value, &UInt32Array::from(vec![0; rows]), None).map_err(internal)
}

fn assemble(
    fields: Vec<Arc<Field>>,
    arrays: Vec<ArrayRef>,
    rows: usize,
    kept: Option<&BooleanArray>,
) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let loose: Vec<Arc<Field>> = fields.iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))).collect();
    let strict: SchemaRef = Arc::new(Schema::new(fields));
    // Rows that are refused may have nulls where the schema has none.
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(loose)), arrays, &options).map_err(internal)?;
    let batch = match kept {
        Some(kept) => filter_record_batch(&batch, kept).map_err(internal)?,
        None => batch,
    };
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(strict, batch.columns().to_vec(), &options).map_err(internal)
}

fn internal(e: ArrowError) -> Error {
    match e {
        // A default that is long, in every row.
        ArrowError::OffsetOverflowError(_) => {
            let message =
                "the texts of a column would have more than 2^31 bytes in one batch; declare a shorter default";
            Error::data("TooLarge", message)
        }
        e => Error::internal("rows could not be put together").with_source(e),
    }
}
