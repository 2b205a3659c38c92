//! Retractions: records that state that an earlier record of their key never took effect when it said it did. They
//! are remembered in a state file, so that a retracted record that arrives again, or late, never counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_apply::MergeSpec;
use biscuit_apply::internal::{RetractedRecord, RetractionSet, key_and_order};
use biscuit_change::ChangeBatch;
use biscuit_core::Result;
use biscuit_journal::{Journal, TableHead};
use bytes::Bytes;
use datafusion::arrow::array::ArrayRef;

use crate::codes;
use crate::period::calendar::{Period, PeriodCalendar};
use crate::period::effective::EffectiveColumn;
use crate::period::plan::{PeriodBasis, PeriodPlan};
use crate::state_file::StateFileKind;

/// State file of retractions. Three parts for each entry: key, effective time, order.
pub(crate) const RETRACTED: StateFileKind = StateFileKind("retracted");

/// Retractions by key and by effective time of the retracted record, in microseconds. The value is the order of the
/// newest record that retracts it. A record with this key and time and a lower order never counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RetractedKeys(BTreeMap<(Vec<u8>, i64), Vec<u8>>);

/// A new retraction, with the effective time of the record that retracts.
#[derive(Debug)]
pub(crate) struct NewRetraction {
    pub(crate) key: Vec<u8>,
    pub(crate) effective: i64,
    pub(crate) order: Vec<u8>,
    /// Effective time of the retracting record. From `effective` to `until`, the key has its earlier state again.
    pub(crate) until: i64,
}

impl RetractedKeys {
    pub(crate) async fn load(journal: &Journal, head: &TableHead) -> Result<Self> {
        Self::read(RETRACTED.load_parts(journal, head).await?)
    }

    pub(crate) fn write(&self) -> Bytes {
        let entry = |((key, effective), order): (&(Vec<u8>, i64), &Vec<u8>)| {
            [key.clone(), effective.to_le_bytes().to_vec(), order.clone()]
        };
        RETRACTED.write(self.0.iter().flat_map(entry))
    }

    fn read(parts: Vec<Vec<u8>>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let mut all = BTreeMap::new();
        while let Some(key) = parts.next() {
            let (Some(effective), Some(order)) = (parts.next(), parts.next()) else {
                return Err(RETRACTED.damaged_error());
            };
            let effective = i64::from_le_bytes(effective.try_into().map_err(|_| RETRACTED.damaged_error())?);
            all.insert((key, effective), order);
        }
        Ok(Self(all))
    }

    /// Removes the retractions of the keys that `theirs` selects. Returns how many were removed.
    pub(crate) fn forget_keys(&mut self, theirs: &dyn Fn(&[u8]) -> bool) -> u64 {
        let before = self.0.len();
        self.0.retain(|(key, _), _| !theirs(key));
        (before - self.0.len()) as u64
    }

    /// Adds the retractions in the records of a batch. Returns those that are new.
    ///
    /// # Errors
    /// `EffectiveType` for a column that does not contain times, with file and row.
    pub(crate) fn add_retractions(
        &mut self,
        batch: &ChangeBatch,
        periods: &PeriodPlan,
        spec: &MergeSpec,
    ) -> Result<Vec<NewRetraction>> {
        let (Some(column), PeriodBasis::Effective(effective)) = (&periods.retracts, &periods.by) else {
            return Ok(vec![]);
        };
        // A file without retractions need not have the column.
        let Some(array) = batch.rows.column_by_name(column) else { return Ok(vec![]) };
        let place = format!("`{}`", batch.file);
        let (back, own) =
            (EffectiveColumn::from_array(array, column, &place)?, EffectiveColumn::new(batch, effective)?);
        let known = key_and_order(batch, spec)?;
        let mut new = Vec::new();
        for (row, known) in known.into_iter().enumerate() {
            let at = match back.effective_time(row, column, &periods.calendar) {
                Ok(at) => at.as_micros(),
                Err(e) if e.is(codes::NULL_EFFECTIVE) => continue,
                Err(e) => return Err(e.with_column(column).at(&batch.file, batch.places[row])),
            };
            // A record without key, order or effective time is refused elsewhere.
            let (Some((key, order)), Ok(until)) = (known, own.effective_time(row, effective, &periods.calendar)) else {
                continue;
            };
            // Last-writer-wins by order: an older retraction does not replace a newer one, so the order of arrival
            // does not matter.
            if self.0.get(&(key.clone(), at)).is_none_or(|known| *known < order) {
                self.0.insert((key.clone(), at), order.clone());
                new.push(NewRetraction { key, effective: at, order, until: until.as_micros() });
            }
        }
        Ok(new)
    }

    /// Whether nothing is retracted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the records that are not retracted, and the number of retracted records.
    pub(crate) fn remove_all_retracted(
        &self,
        batches: Vec<ChangeBatch>,
        periods: &PeriodPlan,
        spec: &MergeSpec,
    ) -> Result<(Vec<ChangeBatch>, u64)> {
        let (mut others, mut taken_back) = (Vec::with_capacity(batches.len()), 0);
        for batch in batches {
            let (batch, count) = self.remove_retracted(batch, periods, spec)?;
            taken_back += count;
            others.push(batch);
        }
        Ok((others, taken_back))
    }

    /// Returns the records of a batch that are not retracted, and the number of retracted records.
    pub(crate) fn remove_retracted(
        &self,
        batch: ChangeBatch,
        periods: &PeriodPlan,
        spec: &MergeSpec,
    ) -> Result<(ChangeBatch, u64)> {
        let PeriodBasis::Effective(column) = &periods.by else { return Ok((batch, 0)) };
        if self.is_empty() {
            return Ok((batch, 0));
        }
        let effective = EffectiveColumn::new(&batch, column)?;
        let mut rows = Vec::new();
        for (row, known) in (0..).zip(key_and_order(&batch, spec)?) {
            let at = effective.effective_time(row as usize, column, &periods.calendar);
            let by =
                known.zip(at.ok()).and_then(|((key, order), at)| Some((order, self.0.get(&(key, at.as_micros()))?)));
            if by.is_none_or(|(order, by)| order >= *by) {
                rows.push(row);
            }
        }
        let taken_back = (batch.ops.len() - rows.len()) as u64;
        Ok((if taken_back == 0 { batch } else { batch.select_rows(&rows)? }, taken_back))
    }
}

/// Converts new retractions to the form that the merge takes, with indices of periods in place of times.
pub(crate) fn retraction_set(new: &[NewRetraction], periods: &PeriodPlan, commit_periods: &[Period]) -> RetractionSet {
    let PeriodBasis::Effective(column) = &periods.by else { return RetractionSet::default() };
    let place = |micros: i64| {
        let place = commit_periods.partition_point(|p| p.end().as_micros() <= micros);
        u32::try_from(place).expect("there are fewer than 2^32 periods")
    };
    let all = new.iter().map(|n| RetractedRecord {
        key: n.key.clone(),
        order: n.order.clone(),
        effective: n.effective,
        from: place(n.effective),
        until: place(n.until),
    });
    let all = all.filter(|r| r.from < r.until).collect();
    let (name, calendar): (String, PeriodCalendar) = (column.clone(), periods.calendar);
    let effective = move |array: &ArrayRef, row: usize| {
        let one = array.slice(row, 1);
        let column = EffectiveColumn::from_array(&one, &name, "the table").ok()?;
        column.effective_time(0, &name, &calendar).ok().map(biscuit_core::Instant::as_micros)
    };
    RetractionSet { column: column.clone(), effective: Some(Arc::new(effective)), all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retractions_are_read_back() {
        let mut all = RetractedKeys::default();
        all.0.insert((b"k1".to_vec(), -7), vec![1, 2]);
        all.0.insert((vec![], 8), vec![]);
        let again = RETRACTED.read(&all.write()).expect("the parts are readable");
        assert_eq!(RetractedKeys::read(again).expect("the entries are read"), all);
        for parts in [vec![vec![], vec![0; 8]], vec![vec![], vec![0; 7], vec![]]] {
            assert_eq!(RetractedKeys::read(parts).unwrap_err().code(), "Diverged");
        }
    }
}
