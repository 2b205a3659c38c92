//! Key metadata: what merges remember of a key in addition to its row, by period, and its stored form.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use biscuit_core::{Error, Result};
use biscuit_merge::internal::{ColumnState, KeyChangeState, KeyState, RecordOrder, RowRef, TargetRows};
use biscuit_rewrite::ErasureSubjects;
use biscuit_schema::internal::conform;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

/// The metadata of a key by period: each entry is valid from its period until before the next entry. `None` means
/// that there is no metadata from this period on. A table without periods has one entry, under 0.
/// Example: `[(2, tombstone), (4, None)]` means that the key is deleted in the periods 2 and 3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyTimeline(pub(crate) Vec<(i64, Option<KeyMetadata>)>);

impl KeyTimeline {
    /// Returns the timeline for a table without periods.
    pub(crate) fn from_metadata(kept: Option<KeyMetadata>) -> Self {
        Self(kept.map(|kept| (0, Some(kept))).into_iter().collect())
    }

    /// Returns the metadata in a period.
    pub(crate) fn metadata_at(&self, period: i64) -> Option<&KeyMetadata> {
        let before = self.0.partition_point(|(number, _)| *number <= period);
        self.0[..before].last().and_then(|(_, kept)| kept.as_ref())
    }

    /// Returns the metadata of all periods.
    pub(crate) fn all(&self) -> impl Iterator<Item = &KeyMetadata> {
        self.0.iter().filter_map(|(_, kept)| kept.as_ref())
    }

    /// Returns the timeline after a run. `now` has the metadata after the run in each period that was resolved, in
    /// ascending order. All other periods keep their metadata, although an entry before them may have changed. So the
    /// period after each resolved one may need an entry of its own; `next` returns the number of that period.
    pub(crate) fn after_run(&self, now: &Self, next: impl Fn(i64) -> Option<i64>) -> Self {
        let following = now.0.iter().filter_map(|(number, _)| next(*number));
        let mut numbers: Vec<i64> = self.0.iter().chain(&now.0).map(|(number, _)| *number).chain(following).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut after: Vec<(i64, Option<KeyMetadata>)> = Vec::new();
        for number in numbers {
            let kept = match now.0.iter().find(|(n, _)| *n == number) {
                Some((_, kept)) => kept.clone(),
                None => self.metadata_at(number).cloned(),
            };
            if after.last().map_or(kept.is_some(), |(_, last)| *last != kept) {
                after.push((number, kept));
            }
        }
        Self(after)
    }
}

/// The stored form of a [`KeyState`], without the values that are in the row of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyMetadata {
    pub(super) live: Option<RecordOrder>,
    pub(super) base: RecordOrder,
    pub(super) extra: ExtraKeyMetadata,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExtraKeyMetadata {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) columns: Vec<StoredColumn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) key_changes: Vec<StoredKeyChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredColumn {
    name: String,
    order: String,
    /// A delete has set the value to null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cleared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredKeyChange {
    pub(super) to: String,
    at: String,
    applied: bool,
    columns: Vec<StoredColumn>,
    /// The image of the row as an Arrow IPC stream of one row, with the columns that have a value. Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes a key or an order that is stored as text.
pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|e| damaged_segment().with_source(e))
}

pub(super) fn damaged_segment() -> Error {
    Error::new(biscuit_journal::codes::DIVERGED, "a state file with key metadata cannot be read")
}

pub(super) fn unreadable_segment(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    damaged_segment().with_source(e)
}

impl KeyMetadata {
    /// Returns the stored form of a state. Values of registers are in the row and are not stored; only images of key
    /// changes are.
    pub(crate) fn from_state(state: &KeyState, schema: &SchemaRef, tables: &TargetRows) -> Result<Self> {
        let column = |c: &ColumnState| StoredColumn {
            name: schema.field(c.column).name().clone(),
            order: encode_base64(c.order.bytes()),
            cleared: c.value.is_none(),
        };
        let columns = state.columns.iter().filter(|c| c.order != state.base).map(column).collect();
        let mut key_changes = Vec::with_capacity(state.key_changes.len());
        for m in &state.key_changes {
            let image = if m.applied { None } else { image_as_text(m, schema, tables)? };
            let columns = m.columns.iter().map(column).collect();
            key_changes.push(StoredKeyChange {
                to: encode_base64(&m.to),
                at: encode_base64(m.at.bytes()),
                applied: m.applied,
                columns,
                image,
            });
        }
        Ok(Self {
            live: state.live.clone(),
            base: state.base.clone(),
            extra: ExtraKeyMetadata { columns, key_changes },
        })
    }

    /// Restores the state. Values are read from the stored row `row`, and images become tables. Columns that the
    /// table does not have any more are left out.
    pub(crate) fn restore_state(
        &self,
        row: Option<RowRef>,
        schema: &SchemaRef,
        tables: &mut TargetRows,
    ) -> Result<KeyState> {
        let column = |c: &StoredColumn, value: Option<RowRef>| -> Result<Option<ColumnState>> {
            let Ok(column) = schema.index_of(&c.name) else { return Ok(None) };
            let value = value.filter(|_| !c.cleared);
            Ok(Some(ColumnState { column, order: RecordOrder::from_bytes(&decode_base64(&c.order)?), value }))
        };
        let columns = self.extra.columns.iter().filter_map(|c| column(c, row).transpose()).collect::<Result<_>>()?;
        let mut key_changes = Vec::new();
        for m in &self.extra.key_changes {
            let image = match &m.image {
                None => None,
                Some(image) => {
                    let table = tables.add_table(conform(
                        &read_image(&decode_base64(image)?)?,
                        schema,
                        "an image of a key update",
                    )?);
                    Some(RowRef { table, row: 0 })
                }
            };
            let columns = m.columns.iter().filter_map(|c| column(c, image).transpose()).collect::<Result<_>>()?;
            let (to, at) = (decode_base64(&m.to)?.into(), RecordOrder::from_bytes(&decode_base64(&m.at)?));
            key_changes.push(KeyChangeState { to, at, applied: m.applied, columns });
        }
        Ok(KeyState { live: self.live.clone(), base: self.base.clone(), source: row, columns, key_changes })
    }

    /// Returns the keys to which the key changes of this key lead.
    pub(crate) fn target_keys(&self) -> Result<Vec<Vec<u8>>> {
        self.extra.key_changes.iter().map(|m| decode_base64(&m.to)).collect()
    }

    /// Returns the order of the row; `None` for a tombstone.
    pub(crate) fn live(&self) -> Option<&RecordOrder> {
        self.live.as_ref()
    }

    /// Whether values of the row are needed even if all records are full images.
    pub(crate) fn has_parts(&self) -> bool {
        !self.extra.columns.is_empty() || !self.extra.key_changes.is_empty()
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.live.is_none() && self.extra.key_changes.is_empty()
    }
}

/// Writes the image of a key change.
fn image_as_text(m: &KeyChangeState, schema: &SchemaRef, tables: &TargetRows) -> Result<Option<String>> {
    let valued: Vec<&ColumnState> = m.columns.iter().filter(|c| c.value.is_some()).collect();
    if valued.is_empty() {
        return Ok(None);
    }
    let fields: Vec<_> = valued.iter().map(|c| schema.field(c.column).clone()).collect();
    let cell = |c: &&ColumnState| {
        let (array, row) = tables.column(c.value.expect("only valued columns are taken"), c.column);
        array.slice(row, 1)
    };
    let columns: Vec<ArrayRef> = valued.iter().map(cell).collect();
    let internal = |e| Error::internal("an image could not be written").with_source(e);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(internal)?;
    let mut out = Vec::new();
    let mut writer =
        datafusion::arrow::ipc::writer::StreamWriter::try_new(&mut out, &batch.schema()).map_err(internal)?;
    writer.write(&batch).and_then(|()| writer.finish()).map_err(internal)?;
    drop(writer);
    Ok(Some(encode_base64(&out)))
}

fn read_image(bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = datafusion::arrow::ipc::reader::StreamReader::try_new(bytes, None).map_err(unreadable_segment)?;
    reader.next().ok_or_else(damaged_segment)?.map_err(unreadable_segment)
}

/// Returns the new key of a key change if the image is a row of these subjects.
pub(super) fn is_of(one: &StoredKeyChange, subjects: &ErasureSubjects) -> Result<Option<Vec<u8>>> {
    let Some(image) = &one.image else { return Ok(None) };
    let row = read_image(&decode_base64(image)?)?;
    let column = row.column_by_name(subjects.column());
    // A column whose type has no text form has none of the values.
    let is_theirs = column.is_some_and(|column| subjects.find_rows(column).is_ok_and(|rows| !rows.is_empty()));
    is_theirs.then(|| decode_base64(&one.to)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(order: u8) -> Option<KeyMetadata> {
        Some(KeyMetadata { live: None, base: RecordOrder::new(1, &[order], 0), extra: ExtraKeyMetadata::default() })
    }

    #[test]
    fn metadata_is_valid_until_the_next_entry_of_the_timeline() {
        let timeline = KeyTimeline(vec![(2, tombstone(5)), (4, None)]);
        let at = |period| timeline.metadata_at(period).map(|kept| kept.base.bytes()[1]);
        assert_eq!([1, 2, 3, 4, 9].map(at), [None, Some(5), Some(5), None, None]);
    }

    #[test]
    fn change_of_one_period_does_not_change_later_periods() {
        let before = KeyTimeline(vec![(2, tombstone(5))]);
        // A late row that is newer than the delete comes in period 2, and is replaced in period 3.
        let next = |period: i64| (period < 9).then_some(period + 1);
        let after = before.after_run(&KeyTimeline(vec![(2, None), (3, tombstone(5))]), next);
        assert_eq!(after, KeyTimeline(vec![(3, tombstone(5))]));
        // An equal delete from period 1 on needs no second entry.
        let both = KeyTimeline(vec![(1, tombstone(5)), (2, tombstone(5))]);
        assert_eq!(before.after_run(&both, next), KeyTimeline(vec![(1, tombstone(5))]));
        // Only period 2 is rebuilt.
        assert_eq!(before.after_run(&KeyTimeline(vec![(2, None)]), next), KeyTimeline(vec![(3, tombstone(5))]));
        // Period 2 is the newest period.
        assert_eq!(before.after_run(&KeyTimeline(vec![(2, None)]), |_| None), KeyTimeline::default());
    }
}
