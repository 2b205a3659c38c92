use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_change::ChangeBatch;
use biscuit_core::{Error, Result};
use biscuit_journal::{Head, Journal};
use biscuit_merge::{MergeSpec, Retraction, Retractions, key_and_order};
use bytes::Bytes;
use datafusion::arrow::array::ArrayRef;

use crate::calendar::{Calendar, Period};
use crate::effective::Effective;
use crate::plan::{By, Periods};

/// The state file of what was taken back.
pub(crate) const RETRACTED: &str = "retracted";

const MAGIC: &[u8] = b"biscuit retracted 1\n";

/// What was taken back: by key and the time at which the record says it took effect, in microseconds, the order of the newest record
/// that says that it did not. A record that is older than that one never counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Retracted(BTreeMap<(Vec<u8>, i64), Vec<u8>>);

/// One that is new, with the time at which the record that says so takes effect.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) key: Vec<u8>,
    pub(crate) effective: i64,
    pub(crate) order: Vec<u8>,
    pub(crate) until: i64,
}

fn damaged() -> Error {
    Error::conflict("Diverged", "the state file of what was taken back cannot be read")
}

impl Retracted {
    pub(crate) async fn load(journal: &Journal, head: &Head) -> Result<Self> {
        let Some(file) = head.state.get(RETRACTED) else { return Ok(Self::default()) };
        Self::read(&journal.read_state(head, file).await?)
    }

    /// Each entry as the length and bytes of its key, its time, and the length and bytes of its order.
    pub(crate) fn write(&self) -> Bytes {
        let mut out = MAGIC.to_vec();
        for ((key, effective), order) in &self.0 {
            for part in [key, &effective.to_le_bytes().to_vec(), order] {
                out.extend((part.len() as u32).to_le_bytes());
                out.extend(part);
            }
        }
        out.into()
    }

    fn read(bytes: &Bytes) -> Result<Self> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let mut next = || -> Result<Option<Vec<u8>>> {
            if rest.is_empty() {
                return Ok(None);
            }
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
            let (part, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
            rest = tail;
            Ok(Some(part.to_vec()))
        };
        let mut all = BTreeMap::new();
        while let Some(key) = next()? {
            let (Some(effective), Some(order)) = (next()?, next()?) else { return Err(damaged()) };
            let effective = i64::from_le_bytes(effective.try_into().map_err(|_| damaged())?);
            all.insert((key, effective), order);
        }
        Ok(Self(all))
    }

    /// Takes up what the records of a batch take back; answers with what is new by it.
    ///
    /// # Errors
    /// `EffectiveType` for a column that holds no time, naming file and row.
    pub(crate) fn take(&mut self, batch: &ChangeBatch, periods: &Periods, spec: &MergeSpec) -> Result<Vec<New>> {
        let (Some(column), By::Effective(effective)) = (&periods.retracts, &periods.by) else { return Ok(vec![]) };
        // A file whose records take nothing back need not have the column.
        let Some(array) = batch.rows.column_by_name(column) else { return Ok(vec![]) };
        let place = format!("`{}`", batch.file);
        let (back, own) = (Effective::of(array, column, &place)?, Effective::new(batch, effective)?);
        let known = key_and_order(batch, spec)?;
        let mut new = Vec::new();
        for (row, known) in known.into_iter().enumerate() {
            let at = match back.at(row, column, &periods.calendar) {
                Ok(at) => at.as_micros(),
                Err(e) if e.code() == "NullEffective" => continue,
                Err(e) => return Err(e.with_column(column).at(&batch.file, batch.places[row])),
            };
            // What has no key, order or time of its own is refused where it is looked at.
            let (Some((key, order)), Ok(until)) = (known, own.at(row, effective, &periods.calendar)) else { continue };
            if self.0.get(&(key.clone(), at)).is_none_or(|known| *known < order) {
                self.0.insert((key.clone(), at), order.clone());
                new.push(New { key, effective: at, order, until: until.as_micros() });
            }
        }
        Ok(new)
    }

    /// The rows of the records that were not taken back.
    pub(crate) fn others(&self, batch: &ChangeBatch, periods: &Periods, spec: &MergeSpec) -> Result<Option<Vec<u32>>> {
        let By::Effective(column) = &periods.by else { return Ok(None) };
        if self.0.is_empty() {
            return Ok(None);
        }
        let effective = Effective::new(batch, column)?;
        let mut others = Vec::new();
        for (row, known) in key_and_order(batch, spec)?.into_iter().enumerate() {
            let is_back = match (known, effective.at(row, column, &periods.calendar)) {
                (Some((key, order)), Ok(at)) => self.0.get(&(key, at.as_micros())).is_some_and(|by| order < *by),
                _ => false,
            };
            if !is_back {
                others.push(u32::try_from(row).expect("a batch has fewer than 2^32 rows"));
            }
        }
        Ok((others.len() < batch.ops.len()).then_some(others))
    }
}

/// What is new, as the merge takes it: in slices that are these periods.
pub(crate) fn retractions(new: &[New], periods: &Periods, slices: &[Period]) -> Result<Retractions> {
    let By::Effective(column) = &periods.by else { return Ok(Retractions::default()) };
    let place = |micros: i64| {
        let place = slices.partition_point(|p| p.end().as_micros() <= micros);
        u32::try_from(place).expect("there are fewer than 2^32 periods")
    };
    let all = new.iter().map(|n| Retraction {
        key: n.key.clone(),
        order: n.order.clone(),
        effective: n.effective,
        from: place(n.effective),
        until: place(n.until),
    });
    let all = all.filter(|r| r.from < r.until).collect();
    let (name, calendar): (String, Calendar) = (column.clone(), periods.calendar);
    let effective = move |array: &ArrayRef, row: usize| {
        let one = array.slice(row, 1);
        let column = Effective::of(&one, &name, "the table").ok()?;
        column.at(0, &name, &calendar).ok().map(biscuit_core::Instant::as_micros)
    };
    Ok(Retractions { column: column.clone(), effective: Some(Arc::new(effective)), all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_is_read_back() {
        let mut all = Retracted::default();
        all.0.insert((b"k1".to_vec(), -7), vec![1, 2]);
        all.0.insert((vec![], 8), vec![]);
        assert_eq!(Retracted::read(&all.write()).expect("entries"), all);
        assert_eq!(Retracted::read(&Bytes::from_static(b"biscuit retracted 1\n\x05")).unwrap_err().code(), "Diverged");
    }
}
