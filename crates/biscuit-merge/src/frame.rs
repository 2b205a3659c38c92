//! The merge contract as a function on data frames, without a table and without memory of earlier runs.

use std::sync::Arc;

use biscuit_change::{BadRows, ChangeRecords, RowsOptions, row_changes};
use biscuit_core::{Error, Result};
use biscuit_dataset::conform;
use biscuit_schema::merge_schemas;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use futures::TryStreamExt;
use hashbrown::HashMap;

use crate::changes::change_set::{ChangeRecord, ChangeSet};
use crate::keys::record_order::RecordOrder;
use crate::keys::union_find::KeyUnionFind;
use crate::report::MergeReport;
use crate::resolve::key_state::KeyState;
use crate::resolve::outcome::RowChange;
use crate::resolve::resolver::{KeyResolver, PriorKeyState, ResolvedKeys};
use crate::spec::MergeSpec;
use crate::target::rows::{CellLocation, RowRef, TargetRows, known, without};
use crate::target::scan::RowOrders;

/// Merges change records into rows that are data frames. Returns the rows after the merge, and a report with the
/// verdicts of the records. `rows` names the columns of `changes` that hold the operation code and the delete flag.
///
/// The function does not remember earlier runs: it stores no tombstones and no orders of single columns. Both frames
/// are held in memory.
///
/// Rows of `current` keep their order; new rows follow, sorted by key. The result has the columns of `current`, then
/// the new columns of `changes`.
///
/// # Errors
/// The errors of invalid records, as in [`Merge::run`](crate::Merge::run), and errors of computing the frames.
pub async fn merge_and_retain_last(
    current: DataFrame,
    changes: DataFrame,
    spec: &MergeSpec,
    rows: &RowsOptions,
) -> Result<(DataFrame, MergeReport)> {
    spec.check()?;
    let (current_schema, current) = collect(current, "the current rows").await?;
    let (_, batches) = collect(changes, "the changes").await?;
    let mut records = ChangeRecords::default();
    let file: Arc<str> = "the changes".into();
    let mut row = 1;
    for batch in batches {
        let places = (row..row + batch.num_rows() as u64).collect();
        row += batch.num_rows() as u64;
        let (batch, ignored) = row_changes(&batch, &file, places, rows)?;
        records.ignored += ignored;
        records.batches.push(batch);
    }
    let mut schema = Arc::new(merge_schemas(&Schema::empty(), &current_schema, "the current rows")?);
    for batch in &records.batches {
        let stored = without(&batch.rows.schema(), &spec.drop_columns);
        schema = Arc::new(merge_schemas(&schema, &stored, "the changes")?);
    }
    let schema = known(&schema);
    let mut report = MergeReport { outcome: "merged", records: row - 1, ..MergeReport::default() };
    report.verdicts.ignored = records.ignored;
    let merged = merge(&current, records, spec, &schema, &mut report)?;
    let frame = SessionContext::new().read_batches(merged);
    Ok((frame.map_err(|e| Error::internal("the rows could not be turned into a frame").with_source(e))?, report))
}

async fn collect(frame: DataFrame, place: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let schema = frame.schema().inner().clone();
    let failed = |e| Error::data("UnreadableRows", format!("{place} cannot be computed")).with_source(e);
    let batches = frame.execute_stream().await.map_err(failed)?.try_collect().await.map_err(failed)?;
    Ok((schema, batches))
}

fn merge(
    current: &[RecordBatch],
    changes: ChangeRecords,
    spec: &MergeSpec,
    schema: &SchemaRef,
    report: &mut MergeReport,
) -> Result<Vec<RecordBatch>> {
    let mut tables = TargetRows::default();
    let set = ChangeSet::new(changes.batches, (spec, &[]), BadRows::Fail, schema, &mut tables)?;
    report.verdicts.duplicate = set.duplicates + set.truncate_records - set.truncates.len() as u64;
    let truncated = set.truncates.last().map(|(_, order)| order);
    report.rows.before = current.iter().map(|b| b.num_rows() as u64).sum();
    // `kept` has one entry for each stored row, in the order of the rows. Outcomes replace or clear entries by index,
    // so that the order of the rows is preserved.
    let (mut kept, stored) = stored_rows(current, &set, spec, schema, &mut tables, truncated, report)?;
    let resolver = KeyResolver {
        set: &set,
        spec,
        schema,
        tables: &tables,
        truncated,
        truncated_before: None,
        bad_rows: BadRows::Fail,
        period: 0,
    };
    let mut resolved = ResolvedKeys::default();
    let columns = schema.fields().len();
    let mut inserts = Vec::new();
    for group in KeyUnionFind::of(&set, &[], &set.keys.sorted()).chunk_by(|a, b| a.0 == b.0) {
        let keys: Vec<(u32, PriorKeyState)> = group.iter().map(|&(_, k)| (k, prior(stored.get(&k)))).collect();
        let records: Vec<&ChangeRecord> = group.iter().flat_map(|(_, k)| set.records_of(*k)).collect();
        resolver.group(&keys, &records, &mut resolved)?;
    }
    for outcome in &resolved.outcomes {
        let at = stored.get(&outcome.key).map(|s| s.0);
        match (outcome.row, at) {
            (RowChange::Replace, Some(at)) => kept[at] = Some(outcome.state.row(columns)),
            (RowChange::Remove, Some(at)) => kept[at] = None,
            (RowChange::Insert, _) => inserts.push((outcome.key, outcome.state.row(columns))),
            _ => {}
        }
        report.rows.updated += u64::from(outcome.row == RowChange::Replace);
        report.rows.deleted += u64::from(outcome.row == RowChange::Remove);
    }
    inserts.sort_by(|(a, _), (b, _)| set.keys.bytes(*a).cmp(set.keys.bytes(*b)));
    report.rows.inserted = inserts.len() as u64;
    report.verdicts.add(&resolved.verdicts);
    for (_, order) in &set.truncates {
        let v = &mut report.verdicts;
        let count = if Some(order) != truncated { &mut v.superseded } else { &mut v.deleted };
        *count += 1;
    }
    let rows: Vec<_> = kept.into_iter().flatten().chain(inserts.into_iter().map(|(_, r)| r)).collect();
    report.rows.after = rows.len() as u64;
    if rows.is_empty() {
        return Ok(vec![RecordBatch::new_empty(schema.clone())]);
    }
    rows.chunks(8192).map(|chunk| tables.gather(schema, schema, &chunk.iter().collect::<Vec<_>>())).collect()
}

type CurrentRows = HashMap<u32, (usize, RecordOrder, RowRef)>;

/// Returns all stored rows that remain if no record changes them, and the index of the row of each key of the run
/// among them. If the frame has several rows of a key, the newest one counts.
fn stored_rows(
    current: &[RecordBatch],
    set: &ChangeSet,
    spec: &MergeSpec,
    schema: &SchemaRef,
    tables: &mut TargetRows,
    truncated: Option<&RecordOrder>,
    report: &mut MergeReport,
) -> Result<(Vec<Option<CellLocation>>, CurrentRows)> {
    let place = "the current rows";
    let mut kept: Vec<Option<CellLocation>> = Vec::new();
    let mut stored: CurrentRows = HashMap::new();
    let (mut key, mut number) = (Vec::new(), 0);
    for batch in current {
        let orders = RowOrders::new(batch, spec, place)?;
        let table = tables.add(conform(batch, schema, place)?);
        for row in 0..batch.num_rows() {
            orders.key(row, spec, place, number, &mut key)?;
            let order = orders.order(row, spec, place, number)?;
            let at = RowRef { table, row: u32::try_from(row).expect("a batch has fewer than 2^32 rows") };
            number += 1;
            kept.push(Some(CellLocation::Row(at)));
            let Some(k) = set.keys.find(&key) else {
                // The resolver sees only keys of the run, so a truncate is applied here to the rows of all other
                // keys.
                if truncated.is_some_and(|t| order <= *t) {
                    kept.pop();
                    report.rows.deleted += 1;
                }
                continue;
            };
            match stored.get_mut(&k) {
                Some((_, best, _)) if order < *best => {
                    kept.pop();
                    report.rows.duplicate_target_keys += 1;
                }
                Some(s) => {
                    kept[s.0] = None;
                    *s = (kept.len() - 1, order, at);
                    report.rows.duplicate_target_keys += 1;
                }
                None => drop(stored.insert(k, (kept.len() - 1, order, at))),
            }
        }
    }
    Ok((kept, stored))
}

fn prior(stored: Option<&(usize, RecordOrder, RowRef)>) -> PriorKeyState {
    match stored {
        None => PriorKeyState { state: KeyState::unknown(), stored: false, is_new: false },
        Some((_, order, at)) => {
            let state =
                KeyState { live: Some(order.clone()), base: order.clone(), source: Some(*at), ..KeyState::unknown() };
            PriorKeyState { state, stored: true, is_new: false }
        }
    }
}
