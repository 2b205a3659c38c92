//! A reduction that remembers the states of its keys from run to run, as a table does: tombstones, orders of single
//! columns and truncates included. It has no files, so that a property test can run it some thousand times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use biscuit_core::Result;
use biscuit_merge::internal::{
    ChangeSet, KeyResolver, KeyState, KeyUnionFind, PriorKeyState, RecordOrder, ResolvedKeys, RowOrders, RowRef,
    TargetRows, decode_tuple, schema_without, schema_without_null_columns,
};
use biscuit_merge::{BadRows, ChangeColumns, MergeSpec, RecordVerdicts, TombstonePolicy, row_changes};
use biscuit_schema::internal::conform;
use biscuit_schema::merge_schemas;
use serde_json::Value;

use crate::rows::objects;

/// Reference to the only row of a remembered key. `Memory::prior` replaces it by the place of the row in a run.
const REMEMBERED: RowRef = RowRef { table: 0, row: 0 };

/// The memory of a key: its state, and the values to which the state refers, as a batch of one row.
#[derive(Debug, Clone)]
struct RememberedKey {
    state: KeyState,
    row: Option<RecordBatch>,
}

/// The states of all keys, by encoded key.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    spec: MergeSpec,
    schema: SchemaRef,
    keys: BTreeMap<Vec<u8>, RememberedKey>,
    truncated: Option<RecordOrder>,
}

impl Memory {
    /// Begins with these rows. Of several rows of a key the newest counts.
    pub(crate) fn new(spec: &MergeSpec, current: &RecordBatch) -> Result<Self> {
        let mut keys: BTreeMap<Vec<u8>, RememberedKey> = BTreeMap::new();
        // A batch without columns has no rows, and no key columns to encode.
        let orders = (current.num_rows() > 0).then(|| RowOrders::new(current, spec, "the current rows")).transpose()?;
        for (row, orders) in (0..current.num_rows()).zip(orders.iter().cycle()) {
            let mut key = Vec::new();
            orders.encode_key(row, spec, "the current rows", row as u64, &mut key)?;
            let order = orders.order(row, spec, "the current rows", row as u64)?;
            let state = KeyState {
                live: Some(order.clone()),
                base: order.clone(),
                source: Some(REMEMBERED),
                ..KeyState::unknown()
            };
            if keys.get(&key).is_none_or(|other| other.state.base <= order) {
                keys.insert(key, RememberedKey { state, row: Some(current.slice(row, 1)) });
            }
        }
        Ok(Self { spec: spec.clone(), schema: schema_without_null_columns(&current.schema()), keys, truncated: None })
    }

    /// Applies the records of one run and returns their verdicts. A run that fails changes nothing.
    pub(crate) fn run(&mut self, batches: &[RecordBatch]) -> Result<RecordVerdicts> {
        let mut verdicts = RecordVerdicts::default();
        let (mut records, mut schema) = (Vec::new(), self.schema.clone());
        for batch in batches {
            let places = (1..=batch.num_rows() as u64).collect();
            let columns = ChangeColumns::default().with_op("op");
            let (batch, ignored) = row_changes(batch, &"the changes".into(), places, &columns)?;
            verdicts.ignored += ignored;
            let stored = schema_without(&batch.rows.schema(), &self.spec.drop_columns);
            schema = schema_without_null_columns(&Arc::new(merge_schemas(&schema, &stored, "the changes")?));
            records.push(batch);
        }
        let mut tables = TargetRows::default();
        let set = ChangeSet::new(records, &self.spec, &|_| vec![], BadRows::Fail, &schema, &mut tables)?;
        verdicts.duplicate += set.duplicates + set.truncate_records - set.truncates.len() as u64;
        let truncates = set.truncates.iter().map(|(_, order)| order);
        let truncated = truncates.clone().chain(&self.truncated).max().cloned();
        for order in truncates {
            let v = &mut verdicts;
            *(if self.truncated.as_ref().is_some_and(|known| order <= known) {
                &mut v.late
            } else if Some(order) == truncated.as_ref() {
                &mut v.deleted
            } else {
                &mut v.superseded
            }) += 1;
        }
        let keys = set.keys.sorted();
        let mut prior = BTreeMap::new();
        for key in &keys {
            prior.insert(*key, self.prior(set.keys.bytes(*key), &schema, &mut tables)?);
        }
        let resolver = KeyResolver {
            set: &set,
            spec: &self.spec,
            schema: &schema,
            tables: &tables,
            truncated: truncated.as_ref(),
            truncated_before: self.truncated.as_ref(),
            bad_rows: BadRows::Fail,
            period: 0,
        };
        let mut resolved = ResolvedKeys::default();
        for group in KeyUnionFind::group_keys(&set, &[], &keys).chunk_by(|a, b| a.0 == b.0) {
            let priors: Vec<(u32, PriorKeyState)> = group.iter().map(|(_, k)| (*k, prior[k].clone())).collect();
            let records: Vec<_> = group.iter().flat_map(|(_, k)| set.records_of(*k)).collect();
            resolver.resolve_group(&priors, &records, &mut resolved)?;
        }
        verdicts.add(&resolved.verdicts);
        self.remember(&resolved, &set, &tables, schema, truncated)?;
        Ok(verdicts)
    }

    /// Returns the state of a key before a run, whose remembered row becomes one of the tables of the run.
    fn prior(&self, key: &[u8], schema: &SchemaRef, tables: &mut TargetRows) -> Result<PriorKeyState> {
        let Some(key) = self.keys.get(key) else {
            return Ok(PriorKeyState { state: KeyState::unknown(), stored: false, is_new: false });
        };
        let mut state = key.state.clone();
        if let Some(row) = &key.row {
            let at = RowRef { table: tables.add_table(conform(row, schema, "the current rows")?), row: 0 };
            refer_to(&mut state, at);
        }
        Ok(PriorKeyState { stored: state.live.is_some(), state, is_new: false })
    }

    /// Replaces the states of the keys of a run by their outcomes, and applies truncates to all other keys.
    fn remember(
        &mut self,
        resolved: &ResolvedKeys,
        set: &ChangeSet,
        tables: &TargetRows,
        schema: SchemaRef,
        truncated: Option<RecordOrder>,
    ) -> Result<()> {
        let mut changed = BTreeSet::new();
        for outcome in &resolved.outcomes {
            let key = set.keys.bytes(outcome.key).to_vec();
            let mut state = outcome.state.clone();
            let row = state.live.is_some().then(|| state.row_location(schema.fields().len()));
            let row = row.map(|row| tables.gather_rows(&schema, &schema, &[&row])).transpose()?;
            refer_to(&mut state, REMEMBERED);
            changed.insert(key.clone());
            self.keys.insert(key, RememberedKey { state, row });
        }
        if let Some(order) = &truncated {
            for (_, other) in self.keys.iter_mut().filter(|(key, _)| !changed.contains(*key)) {
                match other.state.live.as_ref().is_some_and(|live| live > order) {
                    true => drop(other.state.clear_older(order)),
                    false if other.state.base <= *order => other.state.remove_row(order),
                    false => {}
                }
            }
        }
        if self.spec.tombstones == TombstonePolicy::Forget {
            self.keys.retain(|_, key| key.state.live.is_some());
        }
        (self.schema, self.truncated) = (schema, truncated);
        Ok(())
    }

    /// Returns the rows, sorted by key.
    pub(crate) fn rows(&self) -> Result<Vec<Value>> {
        let mut tables = TargetRows::default();
        let mut rows = Vec::new();
        for key in self.keys.keys() {
            let state = self.prior(key, &self.schema, &mut tables)?.state;
            rows.extend(state.live.is_some().then(|| state.row_location(self.schema.fields().len())));
        }
        Ok(objects(&[tables.gather_rows(&self.schema, &self.schema, &rows.iter().collect::<Vec<_>>())?]))
    }

    /// Returns the keys of the tombstones with their orders, as texts.
    pub(crate) fn tombstones(&self) -> BTreeMap<String, String> {
        // The first and the last byte are the ranks of the source and of the operation.
        let order = |base: &RecordOrder| decode_tuple(&base.bytes()[1..base.bytes().len() - 1]).join(",");
        let dead = self.keys.iter().filter(|(_, key)| key.state.live.is_none());
        dead.map(|(key, remembered)| (decode_tuple(key).join(","), order(&remembered.state.base))).collect()
    }
}

/// Makes all values of a state refer to one row, which has the value of each column.
fn refer_to(state: &mut KeyState, at: RowRef) {
    state.source = state.source.map(|_| at);
    for column in &mut state.columns {
        column.value = column.value.map(|_| at);
    }
}
