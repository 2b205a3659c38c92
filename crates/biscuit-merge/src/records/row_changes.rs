//! Converts plain rows to change records: operation codes, delete flags and unchanged values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast_with_options, is_not_null, take_record_batch};
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use biscuit_schema::internal::{check_names, iso_date_time, plain_type};

use crate::codes;
use crate::records::change_batch::ChangeBatch;
use crate::records::op::{ChangeOp, KNOWN_CODES, OpMap, ParsedOp, is_update};
use crate::records::placeholder::UnchangedPlaceholder;
use crate::records::refused::{RawRows, RawSource};

/// Columns of plain rows that say how each row changes the table.
///
/// ```
/// use biscuit_merge::{ChangeColumns, OpMap};
///
/// let columns = ChangeColumns::default().with_op("op").with_op_map(OpMap::parse(["X=delete"])?);
/// assert_eq!(columns.op.as_deref(), Some("op"));
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ChangeColumns {
    /// Column of operation codes, which is not stored. Default: none, so that every row is an upsert.
    pub op: Option<String>,
    /// Operation codes other than the ones of [`parse_op`](crate::parse_op).
    pub op_map: OpMap,
    /// Column with the delete flag, which is not stored: true, or the time of the delete, means that the row is
    /// deleted. Default: none.
    pub delete_column: Option<String>,
    /// Placeholder for unchanged values: a text, or `hex:` and hexadecimal digits. Empty means no placeholder.
    /// Default: [`PLACEHOLDER`](crate::PLACEHOLDER).
    pub placeholder: Option<String>,
    /// Columns in which an upsert must not have a null. Default: none.
    pub not_null: Vec<String>,
}

impl ChangeColumns {
    /// Sets the column of operation codes. Rows without this column are upserts.
    #[must_use]
    pub fn with_op(mut self, column: impl Into<String>) -> Self {
        self.op = Some(column.into());
        self
    }

    /// Sets operation codes other than the ones of [`parse_op`](crate::parse_op).
    #[must_use]
    pub fn with_op_map(mut self, map: OpMap) -> Self {
        self.op_map = map;
        self
    }

    /// Sets the column with the delete flag.
    #[must_use]
    pub fn with_delete_column(mut self, column: impl Into<String>) -> Self {
        self.delete_column = Some(column.into());
        self
    }

    /// Sets the placeholder for unchanged values.
    #[must_use]
    pub fn with_placeholder(mut self, placeholder: impl Into<String>) -> Self {
        self.placeholder = Some(placeholder.into());
        self
    }

    /// Sets the columns in which an upsert must not have a null.
    #[must_use]
    pub fn with_not_null<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.not_null = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Returns whether a column is read but not stored.
    pub fn is_input_only(&self, name: &str) -> bool {
        self.op.as_deref() == Some(name) || self.delete_column.as_deref() == Some(name)
    }
}

/// Converts rows to change records. Returns the records and the number of rows that were left out, which are images
/// before an update.
///
/// The operation column and the delete flag are read and removed. Placeholders become unchanged values. `places` are
/// the row numbers in the file.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
/// use biscuit_merge::{ChangeColumns, ChangeOp, row_changes};
///
/// let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2]));
/// let ops: ArrayRef = Arc::new(StringArray::from(vec!["-U", "+U", "-D"]));
/// let rows = RecordBatch::try_from_iter([("id", ids), ("op", ops)])?;
///
/// let columns = ChangeColumns::default().with_op("op");
/// let (changes, ignored) = row_changes(&rows, &"a.parquet".into(), vec![1, 2, 3], &columns)?;
///
/// assert_eq!(changes.ops, [ChangeOp::Upsert, ChangeOp::Delete]);
/// assert_eq!(changes.places, [2, 3]);
/// assert_eq!(changes.rows.num_columns(), 1); // the operation is not stored
/// assert_eq!(ignored, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `UnknownOp`, `WrongType` for an operation column or delete flag of another type, `AmbiguousPlaceholder`,
/// `DuplicateColumn`, `ColumnCase`, `NullNotAllowed` for a null in a column of [`ChangeColumns::not_null`].
pub fn row_changes(
    batch: &RecordBatch,
    file: &Arc<str>,
    places: Vec<u64>,
    columns: &ChangeColumns,
) -> Result<(ChangeBatch, u64)> {
    raw_row_changes(batch, file, places, None, columns)
}

/// Converts rows like [`row_changes`], and keeps their raw records, one for each row.
///
/// # Errors
/// The errors of [`row_changes`].
pub fn raw_row_changes(
    batch: &RecordBatch,
    file: &Arc<str>,
    mut places: Vec<u64>,
    mut raws: Option<RawSource>,
    options: &ChangeColumns,
) -> Result<(ChangeBatch, u64)> {
    check_names(&batch.schema(), &format!("`{file}`"))?;
    let codes = operation_codes(batch, options.op.as_deref(), file)?;
    let deleted = delete_flags(batch, options.delete_column.as_deref(), file, &places)?;
    let (ops, keep) = row_operations(&places, codes.as_ref(), deleted.as_ref(), options, file)?;
    let ignored = batch.num_rows() - ops.len();
    let stored: Vec<usize> =
        (0..batch.num_columns()).filter(|&i| !options.is_input_only(batch.schema().field(i).name())).collect();
    let mut rows = batch.project(&stored).expect("the indices are of this batch");
    if ignored > 0 {
        rows = take_record_batch(&rows, &UInt32Array::from(keep.clone()))
            .map_err(|e| Error::internal("cannot select rows of a batch").with_source(e))?;
        places = keep.iter().map(|&r| places[r as usize]).collect();
        raws = raws.map(|r| r.select_rows(&keep)).transpose()?;
    }
    let codes: Vec<Arc<str>> = match codes {
        None => vec![],
        Some(codes) => {
            let code = |r: &u32| if codes.is_valid(*r as usize) { codes.value(*r as usize) } else { "" };
            keep.iter().map(|r| code(r).trim().to_lowercase().into()).collect()
        }
    };
    let placeholder = UnchangedPlaceholder::new(options.placeholder.as_deref())?;
    let present = present_records(&rows, &ops, &codes, &placeholder, file, &places)?;
    let raw = raws.map(RawRows);
    let batch = ChangeBatch { codes, present, raw, ..ChangeBatch::new(rows, ops, file.clone(), places) };
    match null_rows(&batch, &options.not_null).into_iter().next() {
        Some((_, e)) => Err(e),
        None => Ok((batch, ignored as u64)),
    }
}

/// Returns the operation of each row that becomes a record, and the numbers of these rows. The numbers are filled only
/// if there are codes, since rows are left out only because of their code.
fn row_operations(
    places: &[u64],
    codes: Option<&StringArray>,
    deleted: Option<&BooleanArray>,
    options: &ChangeColumns,
    file: &Arc<str>,
) -> Result<(Vec<ChangeOp>, Vec<u32>)> {
    let is_deleted = |row: usize| deleted.is_some_and(|d| d.value(row));
    // Without codes, only the delete flag decides.
    let Some(codes) = codes else {
        let op = |row| if is_deleted(row) { ChangeOp::Delete } else { ChangeOp::Upsert };
        return Ok(((0..places.len()).map(op).collect(), vec![]));
    };
    let mut ops = Vec::with_capacity(places.len());
    let mut keep = Vec::with_capacity(places.len());
    for (row, place) in places.iter().enumerate() {
        let code = codes.is_valid(row).then(|| codes.value(row).trim()).filter(|c| !c.is_empty());
        match options.op_map.read(code) {
            ParsedOp::Ignored => continue,
            ParsedOp::Unknown => {
                let column = options.op.as_deref().unwrap_or_default();
                let message = format!(
                    "column `{column}` contains an unknown operation code; known codes are {KNOWN_CODES}; define others with `--op-map CODE=delete` or `op_map` of the source"
                );
                let e = Error::new(codes::UNKNOWN_OP, message).with_column(column).at(file, *place);
                return Err(e.with_detail("op", code.unwrap_or_default()));
            }
            ParsedOp::Change(_) if is_deleted(row) => ops.push(ChangeOp::Delete),
            ParsedOp::Change(op) => ops.push(op),
        }
        keep.push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
    }
    Ok((ops, keep))
}

/// Returns the operation codes as text; `None` if the batch has no operation column.
fn operation_codes(batch: &RecordBatch, column: Option<&str>, file: &Arc<str>) -> Result<Option<StringArray>> {
    let Some((name, array)) = column.and_then(|n| Some((n, batch.column_by_name(n)?))) else { return Ok(None) };
    let t = plain_type(array.data_type());
    if !matches!(t, DataType::Utf8 | DataType::Null) && !t.is_integer() {
        let message = format!("the operation column `{name}` is {t}; it must be text or a whole number");
        return Err(Error::new(biscuit_schema::codes::WRONG_TYPE, message).in_file(file));
    }
    let text = cast_with_options(array, &DataType::Utf8, &CastOptions::default())
        .map_err(|e| Error::internal("cannot read the operation codes").with_source(e))?;
    Ok(Some(text.as_string::<i32>().clone()))
}

/// Returns for each row whether its delete flag is set; `None` if the batch has no delete flag.
fn delete_flags(
    batch: &RecordBatch,
    column: Option<&str>,
    file: &Arc<str>,
    places: &[u64],
) -> Result<Option<BooleanArray>> {
    let Some((name, array)) = column.and_then(|n| Some((n, batch.column_by_name(n)?))) else { return Ok(None) };
    let wrong = |row: usize| {
        let reason =
            "the value is not a delete flag; it must be true or false, 1 or 0, Y or N, or the time of the delete";
        Error::new(biscuit_schema::codes::WRONG_TYPE, format!("column `{name}`: {reason}"))
            .with_column(name)
            .at(file, places[row])
    };
    let t = plain_type(array.data_type());
    let flags = match &t {
        DataType::Null => return Ok(None),
        DataType::Boolean => array.as_boolean().clone(),
        DataType::Timestamp(..) | DataType::Date32 => {
            is_not_null(array).map_err(|e| Error::internal("cannot read the delete flags").with_source(e))?
        }
        t if t.is_integer() || *t == DataType::Utf8 => {
            let text = cast_with_options(array, &DataType::Utf8, &CastOptions::default())
                .map_err(|e| Error::internal("cannot read the delete flags").with_source(e))?;
            let flag = |(row, v): (usize, Option<&str>)| match v.map(str::to_lowercase).as_deref() {
                None | Some("") => Ok(false),
                Some("true" | "1" | "y" | "t" | "yes") => Ok(true),
                Some("false" | "0" | "n" | "f" | "no") => Ok(false),
                // Some tools write the time of the delete as the flag, or null if the row exists.
                Some(_) if v.is_some_and(|v| iso_date_time(v).is_some()) => Ok(true),
                Some(_) => Err(wrong(row)),
            };
            let flags = text.as_string::<i32>().iter().enumerate().map(flag).collect::<Result<Vec<bool>>>()?;
            return Ok(Some(BooleanArray::from(flags)));
        }
        t => {
            let message = format!(
                "the delete flag `{name}` is {t}; it must be boolean, a whole number, text, or the time of the delete"
            );
            return Err(Error::new(biscuit_schema::codes::WRONG_TYPE, message).in_file(file));
        }
    };
    // Null means not deleted.
    Ok(Some(flags.iter().map(|f| Some(f.unwrap_or(false))).collect()))
}

/// Returns for each column the records in which it is present. The placeholder is an unchanged value in an update and
/// in a record without a code, an ordinary value in a snapshot row, and ambiguous in a create.
fn present_records(
    rows: &RecordBatch,
    ops: &[ChangeOp],
    codes: &[Arc<str>],
    placeholder: &UnchangedPlaceholder,
    file: &Arc<str>,
    places: &[u64],
) -> Result<Vec<Option<BooleanBuffer>>> {
    let mut all = Vec::with_capacity(rows.num_columns());
    for (i, column) in rows.columns().iter().enumerate() {
        let mut missing: Vec<usize> = Vec::new();
        for row in placeholder.find_rows(column).into_iter().filter(|&r| ops[r] == ChangeOp::Upsert) {
            match codes.get(row).map_or("", |code| code) {
                code if code.is_empty() || is_update(code) => missing.push(row),
                "r" => {}
                _ => return Err(ambiguous_placeholder(rows.schema().field(i).name(), file, places[row])),
            }
        }
        all.push(
            (!missing.is_empty()).then(|| BooleanBuffer::collect_bool(rows.num_rows(), |r| !missing.contains(&r))),
        );
    }
    Ok(all)
}

/// Returns the error of a placeholder that may be an ordinary value.
pub fn ambiguous_placeholder(column: &str, file: &Arc<str>, row: u64) -> Error {
    let message = format!(
        "column `{column}` of a create contains the placeholder for unchanged values, and without headers it may also be an ordinary value"
    );
    Error::new(codes::AMBIGUOUS_PLACEHOLDER, message).with_column(column).at(file, row)
}

/// Returns the rows with a null in a column that the contract declares as not nullable, each with its first error. An
/// unchanged value is not a null.
pub fn null_rows(batch: &ChangeBatch, not_null: &[String]) -> Vec<(usize, Error)> {
    let mut bad: BTreeMap<usize, Error> = BTreeMap::new();
    for name in not_null {
        let at = batch.rows.schema().index_of(name).ok();
        // Logical nulls: a column without any value may have the type null, whose rows `is_null` does not count.
        let nulls = at.and_then(|i| batch.rows.column(i).logical_nulls());
        let null = |row: usize| match at {
            None => true,
            Some(i) => {
                nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
                    && batch.present[i].as_ref().is_none_or(|g| g.value(row))
            }
        };
        for row in (0..batch.ops.len()).filter(|&r| batch.ops[r] == ChangeOp::Upsert && null(r)) {
            let message = format!("column `{name}` is null, and the contract declares it as not nullable");
            let e = || {
                Error::new(biscuit_schema::codes::NULL_NOT_ALLOWED, message)
                    .with_column(name)
                    .at(&batch.file, batch.places[row])
            };
            bad.entry(row).or_insert_with(e);
        }
    }
    bad.into_iter().collect()
}
