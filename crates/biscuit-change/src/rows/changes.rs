//! Converts plain rows to change records: operation codes, delete flags and unchanged values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast_with_options, is_not_null, take_record_batch};
use arrow::datatypes::DataType;
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, check_names, iso_date_time, plain_type};

use crate::debezium::placeholder::UnchangedPlaceholder;
use crate::records::change_records::{AbsentColumns, ChangeBatch};
use crate::records::op::{ChangeOp, KNOWN_CODES, ParsedOp, is_update};
use crate::records::refused::{RawRows, RowsInProgress};
use crate::rows::reader::RowsOptions;
use crate::values::text::wrong_type;

/// Converts rows to change records. Returns the records and the number of rows that were left out, which are images
/// before an update.
///
/// The operation column and the delete flag are read and removed. Placeholders become unchanged values. `places` are
/// the row numbers in the file.
///
/// # Errors
/// `UnknownOp`, `WrongType` for an operation column or delete flag of another type, `AmbiguousPlaceholder`,
/// `DuplicateColumn`, `ColumnCase`, `NullValue` for a null in a column that the contract declares as not nullable.
pub fn row_changes(
    batch: &RecordBatch,
    file: &Arc<str>,
    places: Vec<u64>,
    options: &RowsOptions,
) -> Result<(ChangeBatch, u64)> {
    let part = RowsInProgress { batch: batch.clone(), places, raws: None, is_typed: false };
    part_changes(&part, file, options)
}

/// Same as [`row_changes`], for rows that keep their raw records.
pub(crate) fn part_changes(
    part: &RowsInProgress,
    file: &Arc<str>,
    options: &RowsOptions,
) -> Result<(ChangeBatch, u64)> {
    let RowsInProgress { batch, places, raws, .. } = part;
    check_names(&batch.schema(), &format!("`{file}`"))?;
    let codes = codes(batch, options.op.as_deref(), file)?;
    let deleted = delete_flags(batch, options.delete_column.as_deref(), file, places)?;
    let (ops, keep) = operations(places, codes.as_ref(), deleted.as_ref(), options, file)?;
    let ignored = batch.num_rows() - ops.len();
    let stored: Vec<usize> =
        (0..batch.num_columns()).filter(|&i| !options.is_input_only(batch.schema().field(i).name())).collect();
    let mut rows = batch.project(&stored).expect("the indices are of this batch");
    let (mut places, mut raws) = (places.clone(), raws.clone());
    if ignored > 0 {
        rows = take_record_batch(&rows, &UInt32Array::from(keep.clone()))
            .map_err(|e| Error::internal("cannot select rows of a batch").with_source(e))?;
        places = keep.iter().map(|&r| places[r as usize]).collect();
        raws = raws.map(|r| r.pick(&keep)).transpose()?;
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
    let completeness = AbsentColumns::Full;
    let file = file.clone();
    let raw = raws.map(RawRows);
    let batch = ChangeBatch {
        rows,
        ops,
        codes,
        present,
        completeness,
        rank: 1,
        period: 0,
        key_changes: vec![],
        server: None,
        file,
        places,
        raw,
    };
    let null = options.contract.as_ref().and_then(|c| null_rows(&batch, c).into_iter().next());
    match null {
        Some((_, e)) => Err(e),
        None => Ok((batch, ignored as u64)),
    }
}

/// Returns the operation of each row that becomes a record, and the numbers of these rows. The numbers are filled only if
/// there are codes, since rows are left out only because of their code.
fn operations(
    places: &[u64],
    codes: Option<&StringArray>,
    deleted: Option<&BooleanArray>,
    options: &RowsOptions,
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
                let e = Error::data("UnknownOp", message).with_column(column).at(file, *place);
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
fn codes(batch: &RecordBatch, column: Option<&str>, file: &Arc<str>) -> Result<Option<StringArray>> {
    let Some((name, array)) = column.and_then(|n| Some((n, batch.column_by_name(n)?))) else { return Ok(None) };
    let t = plain_type(array.data_type());
    if !matches!(t, DataType::Utf8 | DataType::Null) && !t.is_integer() {
        let message = format!("the operation column `{name}` is {t}; it must be text or a whole number");
        return Err(Error::data("WrongType", message).in_file(file));
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
        wrong_type(name, reason, file, places[row])
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
            return Err(Error::data("WrongType", message).in_file(file));
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
        for row in placeholder.rows(column).into_iter().filter(|&r| ops[r] == ChangeOp::Upsert) {
            match codes.get(row).map_or("", |code| code) {
                code if code.is_empty() || is_update(code) => missing.push(row),
                "r" => {}
                _ => return Err(ambiguous(rows.schema().field(i).name(), file, places[row])),
            }
        }
        all.push(
            (!missing.is_empty()).then(|| BooleanBuffer::collect_bool(rows.num_rows(), |r| !missing.contains(&r))),
        );
    }
    Ok(all)
}

pub(crate) fn ambiguous(column: &str, file: &Arc<str>, row: u64) -> Error {
    let message = format!(
        "column `{column}` of a create contains the placeholder for unchanged values, and without headers it may also be an ordinary value"
    );
    Error::data("AmbiguousPlaceholder", message).with_column(column).at(file, row)
}

/// Returns the rows with a null in a column that the contract declares as not nullable, each with its first error. An
/// unchanged value is not a null.
pub(crate) fn null_rows(batch: &ChangeBatch, contract: &Contract) -> Vec<(usize, Error)> {
    let mut bad: BTreeMap<usize, Error> = BTreeMap::new();
    for column in contract.columns.iter().filter(|c| !c.nullable) {
        let at = batch.rows.schema().index_of(&column.name).ok();
        let null = |row: usize| match at {
            None => true,
            Some(i) => batch.rows.column(i).is_null(row) && batch.present[i].as_ref().is_none_or(|g| g.value(row)),
        };
        for row in (0..batch.ops.len()).filter(|&r| batch.ops[r] == ChangeOp::Upsert && null(r)) {
            let message = format!("column `{}` is null, and the contract declares it as not nullable", column.name);
            let e = || Error::data("NullValue", message).with_column(&column.name).at(&batch.file, batch.places[row]);
            bad.entry(row).or_insert_with(e);
        }
    }
    bad.into_iter().collect()
}
