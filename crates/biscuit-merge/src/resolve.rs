use biscuit_change::{MoveKind, Op};
use biscuit_core::{Error, Result};
use datafusion::arrow::datatypes::SchemaRef;

use crate::change_set::{ChangeSet, Record};
use crate::key_state::{ColumnState, KeyState, MoveState};
use crate::order::Order;
use crate::outcome::{Outcome, RowChange};
use crate::report::Verdicts;
use crate::spec::{Authority, MergeSpec, Ties};
use crate::table::{RowRef, Tables};

/// What was known of a key before the run.
#[derive(Debug, Clone)]
pub(crate) struct Prior {
    pub(crate) state: KeyState,
    /// Whether the target holds a row of it.
    pub(crate) stored: bool,
}

/// The answer of a merge that knows nothing of files: what becomes of every key.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) verdicts: Verdicts,
}

/// A key while its records are applied.
struct Work {
    key: u32,
    before: KeyState,
    stored: bool,
    now: KeyState,
    /// Whether any cell of the row, or the row's order, is another than before.
    touched: bool,
}

/// Applies the records of a run to what was known; `truncated` is the greatest order at or before which everything is
/// gone, and `truncated_before` what it was before the run.
pub(crate) struct Resolver<'a> {
    pub(crate) set: &'a ChangeSet,
    pub(crate) spec: &'a MergeSpec,
    pub(crate) schema: &'a SchemaRef,
    pub(crate) tables: &'a Tables,
    pub(crate) truncated: Option<&'a Order>,
    pub(crate) truncated_before: Option<&'a Order>,
}

/// Where a value for a row that has moved on comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// From a record of that order, which may be a repeated one.
    ByRecord,
    /// From the row of an older key, at the order of the key update.
    ByMove,
}

/// What one record did, before the end of its key is known.
enum Effect {
    /// The verdict that is final already.
    Final(fn(&mut Verdicts) -> &mut u64),
    /// Decided by what the key came to.
    Open,
    /// A late delete took values away, which newer records may give again.
    Cleared,
}

impl Resolver<'_> {
    /// Resolves one group of keys that key updates tie together; most groups are one key.
    pub(crate) fn group(&self, keys: &[(u32, Prior)], records: &[&Record], out: &mut Resolved) -> Result<()> {
        let mut works: Vec<Work> = keys.iter().map(|(key, prior)| self.begin(*key, prior)).collect();
        let raised;
        let mut records: Vec<&Record> = records.to_vec();
        if self.spec.authority == Authority::Reload {
            raised = raise(&records, &works);
            records = raised.iter().collect();
        }
        // A delete comes before the create of the same order: it keeps the image that the create may ask for.
        records.sort_by(|a, b| (&a.order, a.op == Op::Upsert, a.at).cmp(&(&b.order, b.op == Op::Upsert, b.at)));
        let (mut open, mut cleared) = (Vec::new(), Vec::new());
        for record in records {
            match self.apply(record, &mut works)? {
                Effect::Final(count) => *count(&mut out.verdicts) += 1,
                Effect::Open => open.push(record),
                Effect::Cleared => cleared.push(record),
            }
        }
        let work_of =
            |record: &Record| works.iter().find(|w| w.key == record.key).expect("every record's key is in its group");
        for record in cleared {
            self.check_cleared(record, work_of(record))?;
            out.verdicts.merged += 1;
        }
        for record in open {
            let work = work_of(record);
            self.check_available(record, work)?;
            *self.verdict(record, work)(&mut out.verdicts) += 1;
        }
        out.outcomes.extend(works.into_iter().map(finish));
        Ok(())
    }

    fn begin(&self, key: u32, prior: &Prior) -> Work {
        let mut now = prior.state.clone();
        let mut touched = false;
        if let Some(t) = self.truncated {
            let gone = now.live.as_ref().is_some_and(|live| live <= t);
            if gone || (now.live.is_none() && now.base <= *t) {
                touched = gone;
                now.remove(t);
                // What waits for a create at or before the truncate waits in vain.
                now.moves.retain(|m| m.at > *t);
            } else {
                touched = now.clear_older(t);
            }
        }
        Work { key, before: prior.state.clone(), stored: prior.stored, now, touched }
    }

    fn apply(&self, record: &Record, works: &mut [Work]) -> Result<Effect> {
        let reload = self.spec.authority == Authority::Reload && record.op == Op::Upsert;
        if !reload && self.truncated.is_some_and(|t| record.order <= *t) {
            let known = self.truncated_before.is_some_and(|t| record.order <= *t);
            return Ok(Effect::Final(if known { |v| &mut v.late } else { |v| &mut v.superseded }));
        }
        let at = works.iter().position(|w| w.key == record.key).expect("every record's key is in its group");
        match record.op {
            Op::Delete => self.delete(record, works, at),
            Op::Upsert => self.upsert(record, works, at),
            Op::Truncate => Err(Error::internal("a truncate has no key")),
        }
    }

    fn delete(&self, record: &Record, works: &mut [Work], at: usize) -> Result<Effect> {
        self.keep_image(record, works, at);
        let order = &record.order;
        let work = &mut works[at];
        for m in work.now.moves.iter_mut().filter(|m| !m.applied && m.at > *order) {
            for c in m.columns.iter_mut().filter(|c| c.order < *order) {
                (c.order, c.value) = (order.clone(), None);
            }
        }
        let tie = work.now.live.as_ref() == Some(order);
        let newest = work.now.live.as_ref().map_or(work.now.base <= *order, |live| live <= order);
        if !newest {
            if work.now.clear_older(order) {
                work.touched = true;
                return Ok(Effect::Cleared);
            }
            return Ok(Effect::Open);
        }
        if tie {
            self.refuse_tie(record)?;
        }
        let known = work.now.live.is_none() && work.now.base == *order;
        work.touched |= work.now.live.is_some();
        work.now.remove(order);
        Ok(match (tie, known) {
            (true, _) => Effect::Final(|v| &mut v.corrected),
            (_, true) => Effect::Final(|v| &mut v.unchanged),
            _ => Effect::Open,
        })
    }

    fn upsert(&self, record: &Record, works: &mut [Work], at: usize) -> Result<Effect> {
        let resolved = self.resolve_move(record, works, at)?;
        let given = self.given_columns(record).into_iter().chain(resolved.iter().copied()).collect();
        self.late_for_moves(record, given, works, at);
        let order = &record.order;
        let work = &mut works[at];
        let gone = work.now.live.is_none() && *order < work.now.base;
        if gone {
            return Ok(Effect::Open);
        }
        let replay = work.before.live.as_ref() == Some(order) || work.before.columns.iter().any(|c| c.order == *order);
        if replay && self.same_as_stored(record, work, &resolved) {
            return Ok(Effect::Final(|v| &mut v.unchanged));
        }
        let set = self.set_columns(record, &mut work.now, &resolved);
        let newer = work.now.live.as_ref().is_none_or(|live| live < order);
        if newer {
            work.now.live = Some(order.clone());
        }
        work.touched |= set || newer;
        if replay && set {
            self.refuse_tie(record)?;
            return Ok(Effect::Final(|v| &mut v.corrected));
        }
        Ok(Effect::Open)
    }

    /// Whether a record of a stored order says what is stored, as far as it is the one that said it.
    fn same_as_stored(&self, record: &Record, work: &Work, resolved: &[(usize, Option<RowRef>)]) -> bool {
        let (givens, row) = self.set.givens_of(record);
        (0..self.schema.fields().len()).all(|c| {
            let (order, value) = work.now.column(c);
            let given = givens.gives(row, c) && !resolved.iter().any(|(r, _)| *r == c);
            !given || *order > record.order || (*order == record.order && self.tables.same(value, Some(record.at), c))
        })
    }

    /// Gives each column to the record if it is not older; answers whether any was.
    fn set_columns(&self, record: &Record, now: &mut KeyState, resolved: &[(usize, Option<RowRef>)]) -> bool {
        let (givens, row) = self.set.givens_of(record);
        let (order, value) = (&record.order, Some(record.at));
        let mut set = false;
        if givens.all {
            set |= now.set_all(order, value, &[]);
        } else if givens.gives_unknown {
            let except: Vec<usize> = (0..self.schema.fields().len()).filter(|&c| !givens.gives(row, c)).collect();
            set |= now.set_all(order, value, &except);
        } else {
            for c in (0..self.schema.fields().len()).filter(|&c| givens.gives(row, c)) {
                if now.column(c).0 <= order {
                    now.set(c, order, value);
                    set = true;
                }
            }
        }
        for (c, value) in resolved {
            if now.column(*c).0 <= order {
                now.set(*c, order, *value);
                set = true;
            }
        }
        set
    }

    fn refuse_tie(&self, record: &Record) -> Result<()> {
        if self.spec.ties == Ties::LaterRunWins {
            return Ok(());
        }
        let (file, row) = self.set.place(record.at);
        let message = "the record has the order of what is stored, and other content";
        Err(Error::data("AmbiguousOrder", message).at(file, row).with_detail("key", self.set.key_text(record.key)))
    }

    /// The delete half of a key update keeps the row as it was, unless the create half has come already.
    fn keep_image(&self, record: &Record, works: &mut [Work], at: usize) {
        let Some((MoveKind::To, to)) = record.link else { return };
        let to_bytes = self.set.keys.bytes[to as usize].clone();
        let order = &record.order;
        // The create half has come if the new key has a state of that order or later; but where it has moved on since,
        // that state may be one of other records.
        let arrived = works.iter().find(|w| w.key == to).is_some_and(|w| {
            let newest = w.now.live.as_ref().unwrap_or(&w.now.base);
            newest >= order && !w.now.moves.iter().any(|m| m.at > *order)
        });
        let now = &mut works[at].now;
        let repeated = now.live.is_none() && now.base == *order;
        if arrived || repeated || now.moves.iter().any(|m| m.to == to_bytes && m.at == *order) {
            return;
        }
        let columns = match now.live {
            Some(_) => {
                (0..self.schema.fields().len()).map(|c| column_state(now, c)).filter(|c| c.order < *order).collect()
            }
            None => vec![],
        };
        now.moves.push(MoveState { to: to_bytes, at: order.clone(), applied: false, columns });
    }

    /// The create half of a key update takes values that were not available from the row of the old key.
    fn resolve_move(&self, record: &Record, works: &mut [Work], at: usize) -> Result<Vec<(usize, Option<RowRef>)>> {
        let Some((MoveKind::From, from)) = record.link else { return Ok(vec![]) };
        let (givens, row) = self.set.givens_of(record);
        let asked: Vec<usize> = givens.unavailable_columns(row).collect();
        let to_bytes = self.set.keys.bytes[record.key as usize].clone();
        let order = &record.order;
        let Some(old) = works.iter().position(|w| w.key == from) else { return Ok(vec![]) };
        let entry = works[old].now.moves.iter().position(|m| m.to == to_bytes && m.at == *order);
        if asked.is_empty() {
            entry.map(|e| works[old].now.moves.remove(e));
            return Ok(vec![]);
        }
        let now = &works[at].now;
        let done = asked.iter().all(|&c| now.column(c).0 >= order) && !now.moves.iter().any(|m| m.at > *order);
        if entry.is_some_and(|e| works[old].now.moves[e].applied) || done {
            return Ok(vec![]);
        }
        let image: Vec<ColumnState> = match entry {
            Some(e) => works[old].now.moves[e].columns.clone(),
            None if works[old].now.live.is_some() => asked.iter().map(|&c| column_state(&works[old].now, c)).collect(),
            None => vec![],
        };
        let mut kept = Vec::with_capacity(asked.len());
        for &c in &asked {
            let known = image.iter().find(|s| s.column == c && s.order < *order && s.value.is_some());
            kept.push(known.cloned().ok_or_else(|| self.unavailable(record, c))?);
        }
        let resolved = kept.iter().map(|s| (s.column, s.value)).collect();
        let moved = MoveState { to: to_bytes, at: order.clone(), applied: true, columns: kept };
        match entry {
            Some(e) => works[old].now.moves[e] = moved,
            None => works[old].now.moves.push(moved),
        }
        Ok(resolved)
    }

    /// A record older than a key update changes what the update moved, also after the create half took it.
    fn late_for_moves(&self, record: &Record, given: Vec<(usize, Option<RowRef>)>, works: &mut [Work], at: usize) {
        let mut late = vec![(at, record.order.clone(), given, Given::ByRecord)];
        while let Some((at, order, given, by)) = late.pop() {
            let mut fills = Vec::new();
            for m in works[at].now.moves.iter_mut().filter(|m| m.at > order) {
                let mut filled = Vec::new();
                for &(c, value) in &given {
                    match m.columns.iter_mut().find(|s| s.column == c) {
                        // The record that gave the value may come again.
                        Some(s)
                            if by == Given::ByRecord
                                && s.order == order
                                && (m.applied || self.tables.same(s.value, value, c)) =>
                        {
                            continue;
                        }
                        Some(s) if s.order <= order => (s.order, s.value) = (order.clone(), value),
                        None if !m.applied => m.columns.push(ColumnState { column: c, order: order.clone(), value }),
                        _ => continue,
                    }
                    filled.push((c, value));
                }
                if m.applied && !filled.is_empty() {
                    fills.push((m.to.clone(), m.at.clone(), filled));
                }
            }
            for (to, order, filled) in fills {
                let key = self.set.keys.find(&to);
                let Some(next) = works.iter().position(|w| Some(w.key) == key) else { continue };
                let work = &mut works[next];
                for (c, value) in &filled {
                    if *work.now.column(*c).0 == order {
                        work.now.set(*c, &order, *value);
                        work.touched = true;
                    }
                }
                late.push((next, order, filled, Given::ByMove));
            }
        }
    }

    fn given_columns(&self, record: &Record) -> Vec<(usize, Option<RowRef>)> {
        let (givens, row) = self.set.givens_of(record);
        let given = (0..self.schema.fields().len()).filter(|&c| givens.gives(row, c));
        given.map(|c| (c, Some(record.at))).collect()
    }

    /// A value that was not available must have come from somewhere by the end of the run.
    fn check_available(&self, record: &Record, work: &Work) -> Result<()> {
        let Some(live) = &work.now.live else { return Ok(()) };
        if record.op != Op::Upsert || record.order > *live {
            return Ok(());
        }
        let (givens, row) = self.set.givens_of(record);
        for c in givens.unavailable_columns(row) {
            let (order, value) = work.now.column(c);
            if value.is_none() && *order < record.order {
                return Err(self.unavailable(record, c));
            }
        }
        Ok(())
    }

    /// A late delete takes away values that newer records left as they were; where those were not available, there is
    /// nothing to put in their place.
    fn check_cleared(&self, record: &Record, work: &Work) -> Result<()> {
        if work.now.live.is_none() {
            return Ok(());
        }
        let cleared = (0..self.schema.fields().len()).find(|&c| {
            let (order, value) = work.now.column(c);
            *order == record.order && value.is_none() && !self.spec.ignore_null.covers(self.schema.field(c).name())
        });
        cleared.map_or(Ok(()), |c| Err(self.unavailable(record, c)))
    }

    fn unavailable(&self, record: &Record, column: usize) -> Error {
        let (file, row) = self.set.place(record.at);
        let name = self.schema.field(column).name();
        let message = format!(
            "the value of column `{name}` was not sent, because it did not change, and no earlier value is known"
        );
        Error::data("UnavailableWithoutPrior", message).at(file, row).with_detail("key", self.set.key_text(record.key))
    }

    /// The verdict of a record by what its key came to.
    fn verdict(&self, record: &Record, work: &Work) -> fn(&mut Verdicts) -> &mut u64 {
        let order = &record.order;
        let before = work.before.live.as_ref().unwrap_or(&work.before.base);
        let known = work.before.live.is_some() || work.before.base != Order::oldest();
        let gave = || {
            let in_columns = work.now.columns.iter().any(|c| c.value == Some(record.at));
            in_columns || (work.now.source == Some(record.at) && work.now.live.is_some())
        };
        match record.op {
            Op::Upsert if work.now.live.as_ref() == Some(order) => match work.stored {
                true => |v| &mut v.updated,
                false => |v| &mut v.inserted,
            },
            Op::Upsert if gave() => |v| &mut v.merged,
            Op::Delete if work.now.live.is_none() && work.now.base == *order => match work.stored {
                true => |v| &mut v.deleted,
                false => |v| &mut v.unchanged,
            },
            _ if known && order < before => |v| &mut v.late,
            _ => |v| &mut v.superseded,
        }
    }
}

/// The records, the newest of each key with the order of what it replaces if that is greater.
fn raise(records: &[&Record], works: &[Work]) -> Vec<Record> {
    let mut raised: Vec<Record> = records.iter().map(|r| (*r).clone()).collect();
    for work in works {
        let now = &work.now;
        let orders = now.live.iter().chain([&now.base]).chain(now.columns.iter().map(|c| &c.order));
        let newest = raised.iter_mut().filter(|r| r.key == work.key).max_by(|a, b| a.order.cmp(&b.order));
        if let (Some(record), Some(floor)) = (newest, orders.max())
            && record.order < *floor
        {
            record.order = floor.clone();
        }
    }
    raised
}

fn column_state(state: &KeyState, column: usize) -> ColumnState {
    let (order, value) = state.column(column);
    ColumnState { column, order: order.clone(), value }
}

fn finish(work: Work) -> Outcome {
    let row = match (work.stored, work.now.live.is_some()) {
        (true, false) => RowChange::Remove,
        (false, true) => RowChange::Insert,
        (true, true) if work.touched => RowChange::Replace,
        _ => RowChange::Keep,
    };
    Outcome { key: work.key, row, state: work.now }
}

/// Joins keys that key updates tie together.
#[derive(Debug)]
pub(crate) struct Groups(Vec<u32>);

impl Groups {
    /// All keys of a run in groups: those that the key updates of its records, or these ties, bring together.
    pub(crate) fn of(set: &ChangeSet, ties: &[(u32, u32)]) -> Vec<Vec<u32>> {
        let mut groups = Self::new(set.keys.len());
        for record in &set.records {
            record.link.inspect(|(_, other)| groups.join(record.key, *other));
        }
        ties.iter().for_each(|(a, b)| groups.join(*a, *b));
        let keys = u32::try_from(set.keys.len()).expect("there are fewer than 2^32 keys");
        let mut sorted: Vec<(u32, u32)> = (0..keys).map(|k| (groups.root(k), k)).collect();
        sorted.sort_unstable();
        sorted.chunk_by(|a, b| a.0 == b.0).map(|g| g.iter().map(|(_, k)| *k).collect()).collect()
    }

    fn new(keys: usize) -> Self {
        Self((0..u32::try_from(keys).expect("there are fewer than 2^32 keys")).collect())
    }

    fn root(&mut self, key: u32) -> u32 {
        let mut at = key;
        while self.0[at as usize] != at {
            let up = self.0[at as usize];
            self.0[at as usize] = self.0[up as usize];
            at = up;
        }
        at
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}
