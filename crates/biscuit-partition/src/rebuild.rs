//! Rebuilds and audits of periods from all events of a table.

use std::sync::Arc;

use biscuit_apply::internal::{ErasedKeys, PeriodBase, PeriodStates};
use biscuit_apply::{BufferedChanges, Merge, MergeSpec, RunMode};
use biscuit_change::{ChangeBatch, ChangeRecords};
use biscuit_core::{Error, Result};
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_schema::internal::conform;
use biscuit_schema::merge_schemas;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use hashbrown::HashMap;
use object_store::memory::InMemory;
use serde::Serialize;

use crate::period::calendar::Period;
use crate::period::plan::{PeriodBasis, existing_periods, period_state};
use crate::period::table_report::PeriodTableReport;
use crate::read::{periods_of, rows_of, unknown_period};
use crate::records_by_period::{DivisionRules, RecordsByPeriod};
use crate::retracted::RetractedKeys;
use crate::snapshots::PeriodMerge;

/// Differences between a period and the result of all events of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeriodAudit {
    /// Name of the period.
    pub period: String,
    /// Number of rows in the period.
    pub rows: u64,
    /// Number of rows that result from the events.
    pub expected: u64,
    /// Number of keys whose row is missing in the period.
    pub missing: u64,
    /// Number of rows in the period whose key has no row in the result of the events, or a duplicate row.
    pub surplus: u64,
    /// Number of keys whose row differs.
    pub different: u64,
}

impl PeriodAudit {
    /// Returns whether the period equals the result of the events.
    pub fn is_sound(&self) -> bool {
        self.missing == 0 && self.surplus == 0 && self.different == 0
    }
}

/// Rebuilds periods from all events of the table, without reading their current rows.
pub(crate) async fn rebuild(
    to: &PeriodMerge,
    periods: &[Period],
    events: ChangeRecords,
    mode: RunMode,
) -> Result<PeriodTableReport> {
    let snapshot = to.dataset.observe().await?;
    let all = existing_periods(&snapshot, &to.periods)?;
    let all = all.map_or(Ok(vec![]), |(first, last)| first.range(&last))?;
    let mut wanted = periods.to_vec();
    wanted.sort();
    wanted.dedup();
    if let Some(period) = wanted.iter().find(|p| !all.contains(p)) {
        return Err(unknown_period(&to.dataset, period, &all));
    }
    let Some((first, last)) = wanted.first().zip(all.last()) else {
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, "no period to rebuild; name at least one"));
    };
    let mut report = PeriodTableReport::new(first.start(), last, snapshot.observed.head.version);
    let until = wanted.last().unwrap_or(last);
    let records_by_period = events_until(to, &events, until, &all, &load_forgotten(&to.dataset).await?, &mut report)?;
    let mut used = ChangeRecords::from_batches(vec![]);
    used.refused = events.refused.into_iter().chain(records_by_period.refused).collect();
    // Events of periods between the rebuilt ones belong to the next rebuilt period, to which they are carried
    // forward.
    for (of_period, batches) in records_by_period.by_period {
        let period =
            u32::try_from(wanted.partition_point(|p| *p < of_period)).expect("there are fewer than 2^32 periods");
        for batch in batches.into_batches() {
            used.batches.push(ChangeBatch { period, ..batch? });
        }
    }
    report.records =
        report.verdicts.superseded + report.verdicts.forgotten + used.len() as u64 + used.refused.len() as u64;
    let all = wanted.iter().map(|period| period_state(period, PeriodBase::Rebuilt, last)).collect();
    let period_states = PeriodStates { column: to.periods.column.clone(), all };
    let merge = to.merge()?.with_periods(period_states)?;
    report.add_merge(merge.input(used).on(snapshot).run(mode).await?);
    Ok(report)
}

async fn load_forgotten(dataset: &Dataset) -> Result<ErasedKeys> {
    let journal = dataset.journal();
    ErasedKeys::load(journal, &journal.head().await?).await
}

/// Returns the events that take effect in the period `last` or earlier, by period, without retracted events and
/// events of forgotten keys. `before_first` of the plan decides about events before the table's first period.
fn events_until(
    to: &PeriodMerge,
    events: &ChangeRecords,
    last: &Period,
    all: &[Period],
    forgotten: &ErasedKeys,
    report: &mut PeriodTableReport,
) -> Result<RecordsByPeriod> {
    if to.periods.by == PeriodBasis::Ingestion {
        let message = "events of a table by ingestion do not contain their period; only tables by effective time can be rebuilt and audited";
        return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
    }
    let (events, theirs) = forgotten.without_all(events.batches.clone(), &to.spec)?;
    report.verdicts.forgotten += theirs;
    let mut retracted = RetractedKeys::default();
    for batch in &events {
        retracted.add_retractions(batch, &to.periods, &to.spec)?;
    }
    let (counting, taken_back) = retracted.remove_all_retracted(events, &to.periods, &to.spec)?;
    report.verdicts.superseded += taken_back;
    let rules = DivisionRules { periods: &to.periods, bad_rows: to.options.bad_rows };
    let mut records_by_period = RecordsByPeriod::sharing_memory_with(&BufferedChanges::unlimited());
    counting.iter().try_for_each(|batch| records_by_period.add_batch(batch, last, rules))?;
    records_by_period.first_period(all.first().copied().zip(all.last().copied()), last, rules)?;
    Ok(records_by_period)
}

/// Compares a period with the result of all events of the table.
pub(crate) async fn audit(to: &PeriodMerge, period: &Period, events: &ChangeRecords) -> Result<PeriodAudit> {
    let all = periods_of(&to.dataset.view().await?, &to.periods)?;
    let expected = reduce_events(to, period, events, &all).await?;
    let rows = rows_of(&to.dataset, &to.periods, &SessionContext::new(), period).await?;
    compare_rows(&to.spec, period, rows, expected).await
}

/// Returns the rows that result from the events at the end of a period, by a merge into an empty table in memory.
async fn reduce_events(to: &PeriodMerge, period: &Period, events: &ChangeRecords, all: &[Period]) -> Result<DataFrame> {
    let location = Location::new(TableStorage::durable(Arc::new(InMemory::new())), "t", "the events")?;
    let dataset = Dataset::new(location, JournalOptions::default());
    let records_by_period =
        events_until(to, events, period, all, &load_forgotten(&to.dataset).await?, &mut PeriodTableReport::default())?;
    // Invalid events are not in the table either, so their share has no limit here.
    let options = to.options.clone().with_bad_rows(to.options.bad_rows, 100.0);
    let merge = Merge::new(dataset.clone(), to.spec.clone(), options)?;
    let mut records = BufferedChanges::unlimited();
    records_by_period.by_period.into_values().for_each(|buffer| records.append(buffer));
    merge.input(records).run(RunMode::Commit).await?;
    dataset.load(&SessionContext::new()).await
}

async fn compare_rows(spec: &MergeSpec, period: &Period, rows: DataFrame, expected: DataFrame) -> Result<PeriodAudit> {
    let collected = |frame: DataFrame| async move {
        let schema = frame.schema().inner().clone();
        let batches = frame.collect().await.map_err(|e| biscuit_dataset::internal::engine_error("a period", e))?;
        Ok::<_, Error>((schema, batches))
    };
    let ((has, rows), (should, expected)) = (collected(rows).await?, collected(expected).await?);
    let schema = merge_schemas(&merge_schemas(&Schema::empty(), &has, "the period")?, &should, "the events")?;
    let compare = ComparableRows::new(Arc::new(schema), &spec.key)?;
    let mut audit = PeriodAudit { period: period.to_string(), ..PeriodAudit::default() };
    let mut there: HashMap<OwnedRow, OwnedRow> = HashMap::new();
    for batch in &rows {
        for (key, row) in compare.convert_rows(batch)? {
            audit.rows += 1;
            audit.surplus += u64::from(there.insert(key, row).is_some());
        }
    }
    for batch in &expected {
        for (key, row) in compare.convert_rows(batch)? {
            audit.expected += 1;
            match there.remove(&key) {
                None => audit.missing += 1,
                Some(has) => audit.different += u64::from(has != row),
            }
        }
    }
    audit.surplus += there.len() as u64;
    Ok(audit)
}

/// Converts rows to a comparable form, whatever the order and the width of their columns.
struct ComparableRows {
    schema: SchemaRef,
    key: Vec<usize>,
    keys: RowConverter,
    all: RowConverter,
}

impl ComparableRows {
    fn new(schema: SchemaRef, key: &[String]) -> Result<Self> {
        let internal = |e| Error::internal("cannot compare rows").with_source(e);
        let key = key.iter().map(|k| biscuit_schema::internal::column_index(&schema, k, "the period"));
        let key = key.collect::<Result<Vec<_>>>()?;
        let field = |i: usize| SortField::new(schema.field(i).data_type().clone());
        let keys = RowConverter::new(key.iter().map(|i| field(*i)).collect()).map_err(internal)?;
        let all = RowConverter::new((0..schema.fields().len()).map(field).collect()).map_err(internal)?;
        Ok(Self { schema, key, keys, all })
    }

    fn convert_rows(&self, batch: &RecordBatch) -> Result<Vec<(OwnedRow, OwnedRow)>> {
        let internal = |e| Error::internal("cannot compare rows").with_source(e);
        let batch = conform(batch, &self.schema, "a period")?;
        let key: Vec<ArrayRef> = self.key.iter().map(|i| batch.column(*i).clone()).collect();
        let keys = self.keys.convert_columns(&key).map_err(internal)?;
        let all = self.all.convert_columns(batch.columns()).map_err(internal)?;
        Ok(keys.iter().zip(all.iter()).map(|(key, row)| (key.owned(), row.owned())).collect())
    }
}
