//! Resolves the keys of a part in one period, from their records, stored rows and key metadata. Without I/O.

use biscuit_core::Result;
use biscuit_merge::internal::{
    ChangeRecord, KeyResolver, KeyState, KeyUnionFind, PriorKeyState, RecordOrder, ResolvedKeys, RowRef,
};
use biscuit_merge::{OrderAuthority, TombstonePolicy};
use hashbrown::HashMap;

use crate::part::progress::{PartInProgress, PeriodStep};
use crate::state::key_metadata::KeyMetadata;
use crate::table::context::TableContext;
use crate::table::scan::{StoredKey, StoredRows};

/// Stands for a row whose values were not fetched. Using its values is a defect and fails: no table has this number.
const NOT_FETCHED: RowRef = RowRef { table: u32::MAX, row: u32::MAX };

/// Returns the keys of the part with their groups, sorted by group. Records of this run and key metadata
/// of earlier runs connect keys.
pub(crate) fn sorted_groups(part: &PartInProgress) -> Result<Vec<(u32, u32)>> {
    let mut ties = Vec::new();
    for (key, timeline) in &part.timelines {
        for kept in timeline.all() {
            for to in kept.target_keys()? {
                ties.extend(part.set.keys.find(&to).map(|to| (*key, to)));
            }
        }
    }
    Ok(KeyUnionFind::group_keys(&part.set, &ties, &part.sorted))
}

/// Returns the groups that have to be resolved in a period.
pub(crate) fn groups_of_period(part: &PartInProgress, step: &PeriodStep, groups: &[(u32, u32)]) -> Vec<(u32, u32)> {
    if !step.has_periods || step.is_truncated() {
        return groups.to_vec();
    }
    let mut now = Vec::new();
    for group in groups.chunk_by(|a, b| a.0 == b.0) {
        if group.iter().any(|(_, key)| {
            part.retractions.needs_state(*key, step.period) || !part.active_records(step, *key).is_empty()
        }) {
            now.extend_from_slice(group);
        }
    }
    now
}

/// Resolves some groups: applies their records to the prior states of their keys.
pub(crate) fn resolve_groups(
    context: &TableContext,
    part: &mut PartInProgress,
    step: &PeriodStep,
    stored: &StoredRows,
    fetched: &HashMap<u32, RowRef>,
    groups: &[(u32, u32)],
) -> Result<ResolvedKeys> {
    let mut resolved = ResolvedKeys::default();
    for group in groups.chunk_by(|a, b| a.0 == b.0) {
        if let [(_, key)] = group
            && !step.kept.contains_key(key)
            && !part.retractions.needs_state(*key, step.period)
        {
            let row = stored.row(*key);
            let row = row.map(|r| (&r.order, fetched.get(key).copied().unwrap_or(NOT_FETCHED)));
            if new_resolver(context, part, step).resolve_simple(
                *key,
                row,
                &part.active_records(step, *key),
                &mut resolved,
            ) {
                continue;
            }
        }
        let mut keys: Vec<(u32, PriorKeyState)> = Vec::with_capacity(group.len());
        for &(_, key) in group {
            keys.push((key, prior_state(context, part, step, key, stored.row(key), fetched.get(&key).copied())?));
        }
        let active: Vec<_> = keys.iter().map(|(k, _)| part.active_records(step, *k)).collect();
        let records: Vec<&ChangeRecord> = active.iter().flat_map(|of_key| of_key.iter()).collect();
        new_resolver(context, part, step).resolve_group(&keys, &records, &mut resolved)?;
    }
    Ok(resolved)
}

fn new_resolver<'a>(context: &'a TableContext, part: &'a PartInProgress, step: &'a PeriodStep) -> KeyResolver<'a> {
    KeyResolver {
        set: &part.set,
        spec: &context.spec,
        schema: &context.target,
        tables: &part.tables,
        truncated: step.truncated.as_ref(),
        truncated_before: step.truncated_before.as_ref(),
        bad_rows: context.options.bad_rows,
        period: step.period,
    }
}

/// Returns the prior state of a key, from its key metadata and its row.
fn prior_state(
    context: &TableContext,
    part: &mut PartInProgress,
    step: &PeriodStep,
    key: u32,
    row: Option<&StoredKey>,
    fetched: Option<RowRef>,
) -> Result<PriorKeyState> {
    let at = row.map(|_| fetched.unwrap_or(NOT_FETCHED));
    let mut state = match step.kept.get(&key) {
        None => KeyState::unknown(),
        Some(kept) => kept.restore_state(at, &context.target, &mut part.tables)?,
    };
    match row {
        // The row is missing although the key metadata expects one: the key counts as unknown.
        None if state.live.is_some() => state = KeyState { key_changes: state.key_changes, ..KeyState::unknown() },
        // An external row of a key without a live state counts by its own order, against the tombstone if there
        // is one.
        Some(row) if state.live.is_none() && row.order >= state.base => {
            (state.live, state.base, state.source) = (Some(row.order.clone()), row.order.clone(), at);
        }
        _ => {}
    }
    let prior = PriorKeyState { state, stored: row.is_some(), is_new: false };
    Ok(part.retractions.unless_retracted(key, step.period, prior, &context.target, &part.tables))
}

/// Returns the changes of key metadata: new content for a key, or `None` for metadata that is not needed any
/// more. Metadata is needed if the stored rows alone do not determine the state:
/// - a row whose order is not in its columns, or that has registers of its own,
/// - a tombstone, unless a truncate covers it or deletes are not remembered,
/// - a key change whose values may still be asked for.
pub(crate) fn metadata_changes(
    context: &TableContext,
    part: &PartInProgress,
    step: &PeriodStep,
    resolved: &ResolvedKeys,
) -> Result<Vec<(u32, Option<KeyMetadata>)>> {
    let mut changes = Vec::new();
    for outcome in &resolved.outcomes {
        let (state, had) = (&outcome.state, step.kept.contains_key(&outcome.key));
        let nothing = match &state.live {
            // A reloaded row may have a greater order than its order columns.
            Some(_) => context.spec.authority == OrderAuthority::Order && state.is_in_the_row(&context.spec),
            None => {
                let covered =
                    step.truncated.as_ref().is_some_and(|t| state.base <= *t) || state.base == RecordOrder::oldest();
                let forget = context.spec.tombstones == TombstonePolicy::Forget;
                state.key_changes.is_empty() && (covered || forget)
            }
        };
        if (nothing && !had) || (had && outcome.before.as_deref() == Some(state)) {
            continue;
        }
        let kept = if nothing { None } else { Some(KeyMetadata::from_state(state, &context.target, &part.tables)?) };
        changes.push((outcome.key, kept));
    }
    Ok(changes)
}
