//! Reads of a table of periods: the rows of one period, the history of keys, and the status of all periods.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_apply::report::PeriodReport;
use biscuit_core::{Error, Result};
use biscuit_dataset::internal::engine_error;
use biscuit_dataset::{Dataset, TableVersion};
use biscuit_journal::record::PastVersion;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::Expr;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes;
use crate::period::calendar::Period;
use crate::period::plan::{PeriodPlan, existing_periods};

/// Changes of a period by the last version that touched it. Version 0 if the history does not contain it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastTouch {
    /// Number of the version.
    pub version: u64,
    /// Rows that were inserted, updated or deleted.
    pub changed: u64,
    /// Keys with records of an earlier period.
    pub carried: u64,
    /// Files that the store copied from the previous period.
    pub copied: u64,
}

/// Status of a period of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeriodStatus {
    /// Value of the period's folder.
    pub period: String,
    /// First instant of the period.
    pub start: String,
    /// First instant after the period.
    pub end: String,
    /// Number of rows in files that the journal has a count for. Rows of external files are not counted.
    pub rows: u64,
    /// Number of files.
    pub files: u64,
    /// Number of files whose content is also in the previous period.
    pub shared: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of files whose content is not in the previous period.
    pub own_bytes: u64,
    /// Changes by the last version that touched the period.
    pub last: LastTouch,
}

/// Returns all periods of a version of the table, in ascending order.
pub(crate) fn periods_of(snapshot: &TableVersion, plan: &PeriodPlan) -> Result<Vec<Period>> {
    match existing_periods(snapshot, plan)? {
        Some((first, last)) => first.range(&last),
        None => Ok(vec![]),
    }
}

/// Returns the status of each period, in ascending order.
pub(crate) async fn states(dataset: &Dataset, plan: &PeriodPlan) -> Result<Vec<PeriodStatus>> {
    let snapshot = dataset.view().await?;
    let mut touches = last_touches(dataset).await?;
    let mut states = Vec::new();
    let mut before: Vec<String> = vec![];
    for period in periods_of(&snapshot, plan)? {
        let head = &snapshot.observed.head;
        let mut state = PeriodStatus {
            period: period.to_string(),
            start: period.start().to_string(),
            end: period.end().to_string(),
            rows: 0,
            files: 0,
            shared: 0,
            bytes: 0,
            own_bytes: 0,
            last: touches.remove(&period.to_string()).unwrap_or_default(),
        };
        let mut contents = Vec::new();
        for file in snapshot.files().iter().filter(|f| is_in(&f.partition, plan, &period)) {
            let content = head.content_name(&file.listed);
            let is_shared = before.contains(&content);
            state.rows += head.live.get(file.path()).and_then(|live| live.rows).unwrap_or(0);
            state.files += 1;
            state.shared += u64::from(is_shared);
            state.bytes += file.listed.size;
            state.own_bytes += if is_shared { 0 } else { file.listed.size };
            contents.push(content);
        }
        before = contents;
        states.push(state);
    }
    Ok(states)
}

/// Returns the last changes of each period in the history of the journal.
async fn last_touches(dataset: &Dataset) -> Result<BTreeMap<String, LastTouch>> {
    let mut last = BTreeMap::new();
    for PastVersion { record, .. } in dataset.journal().history().await? {
        let reports = record.report.get("periods").and_then(Value::as_array).into_iter().flatten();
        // A report in the format of another version of this crate is skipped; the numbers are only for display.
        let reports = reports.filter_map(|report| PeriodReport::deserialize(report).ok());
        for report in reports.filter(PeriodReport::is_touched) {
            let changed = report.inserted + report.updated + report.deleted;
            let (carried, copied) = (report.carried, report.files.copied);
            last.insert(report.period, LastTouch { version: record.version, changed, carried, copied });
        }
    }
    Ok(last)
}

fn is_in(partition: &[(String, Option<String>)], plan: &PeriodPlan, period: &Period) -> bool {
    let value = partition.iter().find(|(column, _)| *column == plan.column);
    value.is_some_and(|(_, value)| value.as_deref() == Some(period.to_string().as_str()))
}

/// Returns the rows of a period, without the period column.
pub(crate) async fn rows_of(
    dataset: &Dataset,
    plan: &PeriodPlan,
    ctx: &SessionContext,
    period: &Period,
) -> Result<DataFrame> {
    let load = |snapshot: TableVersion| async move {
        let all = periods_of(&snapshot, plan)?;
        if !all.contains(period) {
            return Err(unknown_period(dataset, period, &all));
        }
        snapshot.only(|f| is_in(&f.partition, plan, period)).load(ctx).await
    };
    let (frame, place) = (dataset.read(load).await?, dataset.location().to_string());
    frame.drop_columns(&[&plan.column]).map_err(|e| engine_error(&place, e))
}

pub(crate) fn unknown_period(dataset: &Dataset, period: &Period, all: &[Period]) -> Error {
    let has = match (all.first(), all.last()) {
        (Some(first), Some(last)) => format!("it has the periods {first} to {last}"),
        _ => "it has no periods yet".to_owned(),
    };
    Error::new(codes::NO_SUCH_PERIOD, format!("`{}` has no period {period}; {has}", dataset.location()))
}

/// Returns the states of the keys that a filter selects, one row for each state, ordered by key and time.
pub(crate) async fn history(
    dataset: &Dataset,
    key: &[String],
    plan: &PeriodPlan,
    ctx: &SessionContext,
    filter: Expr,
) -> Result<DataFrame> {
    let place = dataset.location().to_string();
    let failed = |e| engine_error(&place, e);
    let frame = dataset.load(ctx).await?.filter(filter).map_err(failed)?;
    let schema = Arc::clone(frame.schema().inner());
    for name in ["period_from", "period_to"] {
        if schema.index_of(name).is_ok() {
            let message = format!("the table has a column `{name}`, a name that the history needs");
            return Err(Error::new(biscuit_change::codes::COLUMN_CLASH, message));
        }
    }
    let batches = frame.collect().await.map_err(failed)?;
    let internal = |e| Error::internal("cannot compare the states of a key").with_source(e);
    let rows = concat_batches(&schema, &batches).map_err(internal)?;
    let (states, first, last) = changes_of(&rows, key, plan)?;
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|i| *schema.field(*i).name() != plan.column).collect();
    let rows = take_record_batch(&rows, &UInt32Array::from(states)).and_then(|r| r.project(&kept)).map_err(internal)?;
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    for (name, periods) in [("period_from", first), ("period_to", last)] {
        fields.push(Arc::new(Field::new(name, DataType::Utf8, false)));
        columns.push(Arc::new(StringArray::from(periods)) as ArrayRef);
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(internal)?;
    ctx.read_batch(rows).map_err(failed)
}

/// Returns the row at which each state begins, with the first and the last period of the state. Run-length
/// encoding: consecutive periods with equal rows are one state.
fn changes_of(rows: &RecordBatch, key: &[String], plan: &PeriodPlan) -> Result<(Vec<u32>, Vec<String>, Vec<String>)> {
    let internal = |e| Error::internal("cannot compare the states of a key").with_source(e);
    let schema = rows.schema();
    let encoded = |wanted: &dyn Fn(&str) -> bool| {
        let columns: Vec<usize> = (0..schema.fields().len()).filter(|i| wanted(schema.field(*i).name())).collect();
        let fields = columns.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect();
        let columns: Vec<ArrayRef> = columns.iter().map(|i| rows.column(*i).clone()).collect();
        RowConverter::new(fields).and_then(|converter| converter.convert_columns(&columns)).map_err(internal)
    };
    let keys = encoded(&|name| key.iter().any(|k| k == name))?;
    let all = encoded(&|name| name != plan.column)?;
    let at = biscuit_schema::internal::column_index(&schema, &plan.column, "the table")?;
    let names = datafusion::arrow::compute::cast(rows.column(at), &DataType::Utf8).map_err(internal)?;
    let names = datafusion::arrow::array::AsArray::as_string::<i32>(&names).clone();
    let mut by_key: BTreeMap<(&[u8], Period), u32> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let period = plan.calendar.parse(names.value(row))?;
        by_key.insert((keys.row(row).data(), period), u32::try_from(row).unwrap_or(u32::MAX));
    }
    let (mut states, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let mut before: Option<(&[u8], Period, u32)> = None;
    for ((key, period), row) in by_key {
        let goes_on = before.is_some_and(|(of, until, at)| {
            of == key && until.end() == period.start() && all.row(at as usize) == all.row(row as usize)
        });
        if goes_on {
            last.pop();
        } else {
            states.push(row);
            first.push(period.to_string());
        }
        last.push(period.to_string());
        before = Some((key, period, row));
    }
    Ok((states, first, last))
}
