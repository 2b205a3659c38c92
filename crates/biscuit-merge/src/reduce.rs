//! The merge contract as a function on batches, without a table and without memory of earlier runs.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use biscuit_core::Result;
use biscuit_schema::internal::conform;
use biscuit_schema::merge_schemas;
use hashbrown::HashMap;

use crate::keys::record_order::RecordOrder;
use crate::keys::row_keys::RowOrders;
use crate::records::change_batch::ChangeBatch;
use crate::records::refused::BadRows;
use crate::records::row_changes::{ChangeColumns, row_changes};
use crate::report::ReductionReport;
use crate::resolve::change_set::{ChangeRecord, ChangeSet};
use crate::resolve::key_groups::KeyUnionFind;
use crate::resolve::key_state::KeyState;
use crate::resolve::outcome::RowChange;
use crate::resolve::resolver::{KeyResolver, PriorKeyState, ResolvedKeys};
use crate::resolve::target_rows::{CellLocation, RowRef, TargetRows, schema_without, schema_without_null_columns};
use crate::spec::MergeSpec;

/// Merges change records into rows. Returns the rows after the merge, and a report with the verdicts of the records.
/// `columns` names the columns of `changes` that hold the operation code and the delete flag.
///
/// The function does not remember earlier runs: it stores no tombstones and no orders of single columns.
///
/// Rows of `current` keep their order; new rows follow, sorted by key. The result has the columns of `current`, then
/// the new columns of `changes`. An empty table is one empty batch with the schema of the table, or no batch at all if
/// the table has no columns yet. The result has at least one batch.
///
/// # Errors
/// `NullKey`, `NullOrder`, `TextOrder`, `KeyType`, `OrderType`, `MissingColumn`, `AmbiguousOrder` for invalid records,
/// with column and row; the errors of [`row_changes`](crate::row_changes); `NoCommonType` for columns whose types
/// cannot be united; `InvalidArguments`.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
/// use biscuit_merge::{ChangeColumns, MergeSpec, merge_and_retain_last};
///
/// let rows = |ids: Vec<i64>, seq: Vec<i64>, op: Option<Vec<&str>>| {
///     let ids: ArrayRef = Arc::new(Int64Array::from(ids));
///     let seq: ArrayRef = Arc::new(Int64Array::from(seq));
///     let mut columns = vec![("id", ids), ("seq", seq)];
///     if let Some(op) = op {
///         columns.push(("op", Arc::new(StringArray::from(op)) as ArrayRef));
///     }
///     RecordBatch::try_from_iter(columns)
/// };
/// let current = [rows(vec![1, 2], vec![10, 20], None)?];
/// let changes = [rows(vec![1, 2], vec![5, 21], Some(vec!["u", "d"]))?];
/// let spec = MergeSpec::new(["id"], ["seq"])?;
///
/// let (merged, report) = merge_and_retain_last(&current, &changes, &spec, &ChangeColumns::default().with_op("op"))?;
///
/// assert_eq!(merged[0].num_rows(), 1);
/// assert_eq!((report.verdicts.late, report.verdicts.deleted), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn merge_and_retain_last(
    current: &[RecordBatch],
    changes: &[RecordBatch],
    spec: &MergeSpec,
    columns: &ChangeColumns,
) -> Result<(Vec<RecordBatch>, ReductionReport)> {
    spec.check()?;
    let mut report = ReductionReport::default();
    let file: Arc<str> = "the changes".into();
    let mut records = Vec::with_capacity(changes.len());
    for batch in changes {
        let first = report.records + 1;
        report.records += batch.num_rows() as u64;
        let (batch, ignored) = row_changes(batch, &file, (first..=report.records).collect(), columns)?;
        report.verdicts.ignored += ignored;
        records.push(batch);
    }
    let mut schema = Arc::new(Schema::empty());
    for batch in current {
        schema = Arc::new(merge_schemas(&schema, &batch.schema(), "the current rows")?);
    }
    for batch in &records {
        let stored = schema_without(&batch.rows.schema(), &spec.drop_columns);
        schema = Arc::new(merge_schemas(&schema, &stored, "the changes")?);
    }
    let rows = merge_batches(current, records, spec, &schema_without_null_columns(&schema), &mut report)?;
    Ok((rows, report))
}

/// Merges change records into rows in the columns of `schema`.
fn merge_batches(
    current: &[RecordBatch],
    changes: Vec<ChangeBatch>,
    spec: &MergeSpec,
    schema: &SchemaRef,
    report: &mut ReductionReport,
) -> Result<Vec<RecordBatch>> {
    let mut tables = TargetRows::default();
    let set = ChangeSet::new(changes, spec, &|_| vec![], BadRows::Fail, schema, &mut tables)?;
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
    for group in KeyUnionFind::group_keys(&set, &[], &set.keys.sorted()).chunk_by(|a, b| a.0 == b.0) {
        let keys: Vec<(u32, PriorKeyState)> = group.iter().map(|&(_, k)| (k, prior_state(stored.get(&k)))).collect();
        let records: Vec<&ChangeRecord> = group.iter().flat_map(|(_, k)| set.records_of(*k)).collect();
        resolver.resolve_group(&keys, &records, &mut resolved)?;
    }
    for outcome in &resolved.outcomes {
        let at = stored.get(&outcome.key).map(|s| s.0);
        match (outcome.row, at) {
            (RowChange::Replace, Some(at)) => kept[at] = Some(outcome.state.row_location(columns)),
            (RowChange::Remove, Some(at)) => kept[at] = None,
            (RowChange::Insert, _) => inserts.push((outcome.key, outcome.state.row_location(columns))),
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
    rows.chunks(8192).map(|chunk| tables.gather_rows(schema, schema, &chunk.iter().collect::<Vec<_>>())).collect()
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
    report: &mut ReductionReport,
) -> Result<(Vec<Option<CellLocation>>, CurrentRows)> {
    let place = "the current rows";
    let mut kept: Vec<Option<CellLocation>> = Vec::new();
    let mut stored: CurrentRows = HashMap::new();
    let (mut key, mut number) = (Vec::new(), 0);
    for batch in current {
        let orders = RowOrders::new(batch, spec, place)?;
        let table = tables.add_table(conform(batch, schema, place)?);
        for row in 0..batch.num_rows() {
            orders.encode_key(row, spec, place, number, &mut key)?;
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

fn prior_state(stored: Option<&(usize, RecordOrder, RowRef)>) -> PriorKeyState {
    match stored {
        None => PriorKeyState { state: KeyState::unknown(), stored: false, is_new: false },
        Some((_, order, at)) => {
            let state =
                KeyState { live: Some(order.clone()), base: order.clone(), source: Some(*at), ..KeyState::unknown() };
            PriorKeyState { state, stored: true, is_new: false }
        }
    }
}
