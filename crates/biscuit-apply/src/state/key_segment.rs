//! Key metadata: what merges remember of keys in addition to their rows, in sorted state files.
//! Key segments form a small LSM tree: each run writes one segment with the changed keys, and the newest segment that
//! names a key is valid for it. After `MOST_SEGMENTS` segments, all of them are merged into one.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use biscuit_core::{Error, Result, catch_panic};
use biscuit_dataset::Dataset;
use biscuit_dataset::encryption::FileEncryption;
use biscuit_dataset::internal::reading;
use biscuit_journal::{CommitExtras, Journal, ObservedTable, TableHead};
use biscuit_merge::internal::{
    ColumnState, KeyChangeState, KeyState, KeyTable, RecordOrder, RowRef, TargetRows, decode,
};
use biscuit_rewrite::ErasureSubjects;
use biscuit_schema::internal::conform;
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use hashbrown::{HashMap, HashSet};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};

/// Beginning of the names of key segments; the version follows. Within a segment, entries are sorted by key.
const SEGMENT: &str = "keys-";
/// Number of segments from which a run merges all of them into one.
const MOST_SEGMENTS: usize = 8;

/// An encoded key and its metadata. An empty timeline means that nothing is remembered of the key any more; it hides
/// entries in older segments.
pub(crate) type SegmentEntry = (Arc<[u8]>, KeyTimeline);

/// The metadata of a key by period: each entry is valid from its period until before the next entry. `None` means
/// that there is no metadata from this period on. A table without periods has one entry, under 0.
/// Example: `[(2, tombstone), (4, None)]` means that the key is deleted in the periods 2 and 3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyTimeline(pub(crate) Vec<(i64, Option<KeyMetadata>)>);

impl KeyTimeline {
    /// Returns the timeline for a table without periods.
    pub(crate) fn of(kept: Option<KeyMetadata>) -> Self {
        Self(kept.map(|kept| (0, Some(kept))).into_iter().collect())
    }

    /// Returns the metadata in a period.
    pub(crate) fn at(&self, period: i64) -> Option<&KeyMetadata> {
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
    pub(crate) fn with(&self, now: &Self, next: impl Fn(i64) -> Option<i64>) -> Self {
        let following = now.0.iter().filter_map(|(number, _)| next(*number));
        let mut numbers: Vec<i64> = self.0.iter().chain(&now.0).map(|(number, _)| *number).chain(following).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut after: Vec<(i64, Option<KeyMetadata>)> = Vec::new();
        for number in numbers {
            let kept = match now.0.iter().find(|(n, _)| *n == number) {
                Some((_, kept)) => kept.clone(),
                None => self.at(number).cloned(),
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
    live: Option<RecordOrder>,
    base: RecordOrder,
    extra: ExtraKeyMetadata,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ExtraKeyMetadata {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<StoredColumn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    key_changes: Vec<StoredKeyChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredColumn {
    name: String,
    order: String,
    /// A delete has set the value to null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cleared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredKeyChange {
    to: String,
    at: String,
    applied: bool,
    columns: Vec<StoredColumn>,
    /// The image of the row as an Arrow IPC stream of one row, with the columns that have a value. Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|e| damaged().with_source(e))
}

fn damaged() -> Error {
    Error::new(biscuit_journal::codes::DIVERGED, "a state file with key metadata cannot be read")
}

fn broken(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    damaged().with_source(e)
}

impl KeyMetadata {
    /// Returns the stored form of a state. Values of registers are in the row and are not stored; only images of key
    /// changes are.
    pub(crate) fn of(state: &KeyState, schema: &SchemaRef, tables: &TargetRows) -> Result<Self> {
        let column = |c: &ColumnState| StoredColumn {
            name: schema.field(c.column).name().clone(),
            order: text(c.order.bytes()),
            cleared: c.value.is_none(),
        };
        let columns = state.columns.iter().filter(|c| c.order != state.base).map(column).collect();
        let mut key_changes = Vec::with_capacity(state.key_changes.len());
        for m in &state.key_changes {
            let image = if m.applied { None } else { image(m, schema, tables)? };
            let columns = m.columns.iter().map(column).collect();
            key_changes.push(StoredKeyChange {
                to: text(&m.to),
                at: text(m.at.bytes()),
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
    pub(crate) fn state(&self, row: Option<RowRef>, schema: &SchemaRef, tables: &mut TargetRows) -> Result<KeyState> {
        let column = |c: &StoredColumn, value: Option<RowRef>| -> Result<Option<ColumnState>> {
            let Ok(column) = schema.index_of(&c.name) else { return Ok(None) };
            let value = value.filter(|_| !c.cleared);
            Ok(Some(ColumnState { column, order: RecordOrder::from_bytes(&bytes(&c.order)?), value }))
        };
        let columns = self.extra.columns.iter().filter_map(|c| column(c, row).transpose()).collect::<Result<_>>()?;
        let mut key_changes = Vec::new();
        for m in &self.extra.key_changes {
            let image = match &m.image {
                None => None,
                Some(image) => {
                    let table = tables.add(conform(&read_image(&bytes(image)?)?, schema, "an image of a key update")?);
                    Some(RowRef { table, row: 0 })
                }
            };
            let columns = m.columns.iter().filter_map(|c| column(c, image).transpose()).collect::<Result<_>>()?;
            let (to, at) = (bytes(&m.to)?.into(), RecordOrder::from_bytes(&bytes(&m.at)?));
            key_changes.push(KeyChangeState { to, at, applied: m.applied, columns });
        }
        Ok(KeyState { live: self.live.clone(), base: self.base.clone(), source: row, columns, key_changes })
    }

    /// Returns the keys to which the key changes of this key lead.
    pub(crate) fn moved_to(&self) -> Result<Vec<Vec<u8>>> {
        self.extra.key_changes.iter().map(|m| bytes(&m.to)).collect()
    }

    /// Returns the order of the row; `None` for a tombstone.
    pub(crate) fn live(&self) -> Option<&RecordOrder> {
        self.live.as_ref()
    }

    /// Whether values of the row are needed even if all records are full images.
    pub(crate) fn has_parts(&self) -> bool {
        !self.extra.columns.is_empty() || !self.extra.key_changes.is_empty()
    }

    fn is_tombstone(&self) -> bool {
        self.live.is_none() && self.extra.key_changes.is_empty()
    }
}

/// Writes the image of a key change.
fn image(m: &KeyChangeState, schema: &SchemaRef, tables: &TargetRows) -> Result<Option<String>> {
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
    Ok(Some(text(&out)))
}

fn read_image(bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = datafusion::arrow::ipc::reader::StreamReader::try_new(bytes, None).map_err(broken)?;
    reader.next().ok_or_else(damaged)?.map_err(broken)
}

/// Returns the new key of a key change if the image is a row of these subjects.
fn is_of(one: &StoredKeyChange, subjects: &ErasureSubjects) -> Result<Option<Vec<u8>>> {
    let Some(image) = &one.image else { return Ok(None) };
    let row = read_image(&bytes(image)?)?;
    let column = row.column_by_name(subjects.column());
    // A column whose type has no text form has none of the values.
    let is_theirs = column.is_some_and(|column| subjects.places(column).is_ok_and(|rows| !rows.is_empty()));
    is_theirs.then(|| bytes(&one.to)).transpose()
}

/// Column with the number of the period, in segments of tables with periods.
const PERIOD: &str = "period";

/// Returns the schema of a segment.
fn schema(by_period: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("key", DataType::Binary, false),
        Field::new("row_order", DataType::Binary, true),
        Field::new("base_order", DataType::Binary, true),
        Field::new("details", DataType::Utf8, true),
    ];
    if by_period {
        fields.push(Field::new(PERIOD, DataType::Int64, true));
    }
    Arc::new(Schema::new(fields))
}

/// Returns the content of a segment. Entries must be sorted by key, so that row groups are found by their statistics.
/// Returns the name of the state file of the segment that a version writes.
fn segment_name(version: u64) -> String {
    format!("{SEGMENT}{version:020}")
}

fn write(entries: &[SegmentEntry], seal: Option<Arc<FileEncryptionProperties>>) -> Result<Bytes> {
    let internal = |e| Error::internal("a segment could not be written").with_source(e);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(65_536));
    let properties = match seal {
        Some(seal) => properties.with_file_encryption_properties(seal).build(),
        None => properties.build(),
    };
    let mut out = Vec::new();
    let by_period = entries.iter().flat_map(|(_, timeline)| &timeline.0).any(|(period, _)| *period != 0);
    let mut writer = ArrowWriter::try_new(&mut out, schema(by_period), Some(properties)).map_err(internal)?;
    // A key without metadata needs a row, which hides older segments.
    let nothing: &[(i64, Option<KeyMetadata>)] = &[(0, None)];
    let lines = entries.iter().flat_map(|(key, timeline)| {
        let lines = if timeline.0.is_empty() { nothing } else { &timeline.0 };
        lines.iter().map(move |(period, kept)| (key, *period, kept))
    });
    let lines: Vec<_> = lines.collect();
    for chunk in lines.chunks(65_536) {
        let kept = |f: fn(&KeyMetadata) -> Option<&[u8]>| -> ArrayRef {
            Arc::new(chunk.iter().map(|(_, _, k)| k.as_ref().and_then(f)).collect::<BinaryArray>())
        };
        let extra = |k: &Option<KeyMetadata>| -> Result<Option<String>> {
            match k {
                Some(k) if !(k.extra.columns.is_empty() && k.extra.key_changes.is_empty()) => Ok(Some(
                    serde_json::to_string(&k.extra)
                        .map_err(|e| Error::internal("an entry could not be written").with_source(e))?,
                )),
                _ => Ok(None),
            }
        };
        let extras = chunk.iter().map(|(_, _, k)| extra(k)).collect::<Result<Vec<_>>>()?;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(chunk.iter().map(|(key, _, _)| Some(key.as_ref())).collect::<BinaryArray>()),
            kept(|k| k.live.as_ref().map(RecordOrder::bytes)),
            kept(|k| Some(k.base.bytes())),
            Arc::new(StringArray::from(extras)),
        ];
        if by_period {
            columns.push(Arc::new(Int64Array::from_iter_values(chunk.iter().map(|(_, period, _)| *period))));
        }
        let batch = RecordBatch::try_new(schema(by_period), columns)
            .map_err(|e| Error::internal("the columns of a segment could not be joined").with_source(e))?;
        writer.write(&batch).map_err(internal)?;
    }
    writer.close().map_err(internal)?;
    Ok(out.into())
}

/// Runs a decoder. A panic in it means that the segment is damaged.
fn decoded<T, E: std::error::Error + Send + Sync + 'static>(decoder: impl FnOnce() -> Result<T, E>) -> Result<T> {
    catch_panic(decoder).map_err(broken)?.map_err(broken)
}

/// Gets a key, a period, and the metadata of the key from this period on.
type SegmentVisitor<'a> = dyn FnMut(&[u8], i64, Option<KeyMetadata>) + 'a;

/// Calls `each` with all entries of the row groups whose key range `wanted` selects. The entries of a key are
/// adjacent, in ascending order of periods.
fn read(segment: &KeySegment, wanted: &dyn Fn(&[u8], &[u8]) -> bool, each: &mut SegmentVisitor<'_>) -> Result<()> {
    let (bytes, options) = (segment.bytes.clone(), segment.options.clone());
    let builder = decoded(|| ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options))?;
    let groups = builder.metadata().row_groups().iter().enumerate();
    let may = groups.filter(|(_, g)| match g.column(0).statistics() {
        Some(Statistics::ByteArray(s)) => match (s.min_opt(), s.max_opt()) {
            (Some(min), Some(max)) => wanted(min.data(), max.data()),
            _ => true,
        },
        _ => true,
    });
    let groups: Vec<usize> = may.map(|(i, _)| i).collect();
    let mut reader = decoded(|| builder.with_row_groups(groups).with_batch_size(8192).build())?;
    while let Some(batch) = decoded(|| reader.next().transpose())? {
        let column = |i: usize| batch.column(i).as_binary_opt::<i32>().ok_or_else(damaged);
        let (keys, live, base) = (column(0)?, column(1)?, column(2)?);
        let extra = batch.column(3).as_string_opt::<i32>().ok_or_else(damaged)?;
        let periods = batch.column_by_name(PERIOD).and_then(|c| c.as_primitive_opt::<Int64Type>());
        for row in 0..batch.num_rows() {
            let kept = if base.is_null(row) {
                None
            } else {
                let extra = if extra.is_valid(row) {
                    serde_json::from_str(extra.value(row)).map_err(broken)?
                } else {
                    ExtraKeyMetadata::default()
                };
                let live = live.is_valid(row).then(|| RecordOrder::from_bytes(live.value(row)));
                Some(KeyMetadata { live, base: RecordOrder::from_bytes(base.value(row)), extra })
            };
            each(keys.value(row), periods.map_or(0, |s| s.value(row)), kept);
        }
    }
    Ok(())
}

/// One key segment.
#[derive(Debug)]
struct KeySegment {
    name: String,
    bytes: Bytes,
    /// Options for reading, with the decryption keys of an encrypted segment.
    options: ArrowReaderOptions,
}

impl KeySegment {
    fn is_sealed(&self) -> bool {
        self.options.file_decryption_properties().is_some()
    }
}

/// The key segments of one version of a table.
#[derive(Debug)]
pub(crate) struct KeySegments {
    /// Newest first. Names end with a padded version, so names sort by version.
    files: Vec<KeySegment>,
    /// Whether the table has diverged since the segments were written. Then metadata of rows no longer counts, and
    /// each row counts by its own order, as an external row does. Tombstones still count.
    diverged: bool,
}

impl KeySegments {
    /// Loads the key segments of an observed version.
    ///
    /// # Errors
    /// The errors of [`load`](Self::load).
    pub(crate) async fn of_observed(
        journal: &Journal,
        observed: &ObservedTable,
        keys: Option<&FileEncryption>,
    ) -> Result<Self> {
        let segments = Self::load(journal, &observed.head, keys).await?;
        Ok(if observed.diverged { segments.after_divergence() } else { segments })
    }

    /// Loads the key segments of a version, all of whose metadata counts.
    ///
    /// # Errors
    /// `NoFileKeys` if they are encrypted and there are no keys for them; the errors of the journal.
    pub(crate) async fn load(journal: &Journal, head: &TableHead, keys: Option<&FileEncryption>) -> Result<Self> {
        let mut files = Vec::new();
        for (name, file) in head.state.iter().rev().filter(|(n, _)| n.starts_with(SEGMENT)) {
            let bytes = journal.read_state(head, file).await?;
            let options = reading(&bytes, name, keys).await?;
            files.push(KeySegment { name: name.clone(), bytes, options });
        }
        Ok(Self { files, diverged: false })
    }

    /// Returns the segments of a table that has diverged since they were written.
    pub(crate) fn after_divergence(self) -> Self {
        Self { diverged: true, ..self }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether metadata still counts.
    fn counts(&self, kept: &KeyMetadata) -> bool {
        !self.diverged || kept.live.is_none()
    }

    /// Adds the metadata of all keys from number `from` on to `found`.
    pub(crate) fn find(&self, keys: &KeyTable, from: usize, found: &mut HashMap<u32, KeyTimeline>) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let new = u32::try_from(from).expect("there are fewer than 2^32 keys")..;
        let new = new.take_while(|k| (*k as usize) < keys.len());
        let mut sorted: Vec<&[u8]> = new.map(|k| keys.bytes(k)).collect();
        sorted.sort_unstable();
        let wanted = |min: &[u8], max: &[u8]| {
            let first = sorted.partition_point(|k| *k < min);
            // A statistic may be truncated. Then the greatest key only begins with it.
            sorted.get(first).is_some_and(|k| *k <= max || k.starts_with(max))
        };
        // For each key, the newest segment that names it. Entries of older segments are not valid, even if the entry
        // of the newest one is empty.
        let mut newest: HashMap<u32, usize> = HashMap::new();
        for (number, segment) in self.files.iter().enumerate() {
            read(segment, &wanted, &mut |key, period, kept| {
                let key = keys.find(key).filter(|k| *k as usize >= from);
                if let Some(k) = key.filter(|k| *newest.entry(*k).or_insert(number) == number)
                    && kept.as_ref().is_none_or(|kept| self.counts(kept))
                {
                    found.entry(k).or_default().0.push((period, kept));
                }
            })?;
        }
        found.retain(|_, timeline| timeline.all().next().is_some());
        Ok(())
    }

    /// Returns the old and the new keys of all key changes in all segments. Outdated entries only connect more keys
    /// than necessary.
    pub(crate) fn linked_keys(&self) -> Result<HashSet<Vec<u8>>> {
        let (mut linked, mut failed) = (HashSet::new(), None);
        for segment in &self.files {
            read(segment, &|_, _| true, &mut |key, _, kept| {
                let to = kept.map_or(Ok(vec![]), |k| k.moved_to());
                match to {
                    Ok(to) if to.is_empty() => {}
                    Ok(to) => linked.extend(to.into_iter().chain([key.to_vec()])),
                    Err(e) => failed = Some(e),
                }
            })?;
        }
        failed.map_or(Ok(linked), Err)
    }

    /// Returns the old and the new keys of key changes whose image is a row of these subjects.
    pub(crate) fn on_their_way(&self, subjects: &ErasureSubjects) -> Result<HashSet<Vec<u8>>> {
        let mut theirs = HashSet::new();
        for segment in &self.files {
            let mut failed = None;
            read(segment, &|_, _| true, &mut |key, _, kept| {
                for one in kept.iter().flat_map(|kept| &kept.extra.key_changes) {
                    match is_of(one, subjects) {
                        Ok(None) => {}
                        Ok(Some(to)) => theirs.extend([key.to_vec(), to]),
                        Err(e) => failed = Some(e),
                    }
                }
            })?;
            failed.map_or(Ok(()), Err)?;
        }
        Ok(theirs)
    }

    /// Returns the changes after which no state file contains the keys that `theirs` selects, and the number of keys
    /// whose metadata is removed. Outdated entries of older segments are removed as well. Returns `None` if no
    /// segment contains such a key.
    pub(crate) async fn without(
        &self,
        theirs: &dyn Fn(&[u8]) -> bool,
        version: u64,
        encryption: Option<&FileEncryption>,
    ) -> Result<Option<(CommitExtras, u64)>> {
        let (mut found, mut mentioned, mut failed) = (HashSet::new(), false, None);
        for segment in &self.files {
            read(segment, &|_, _| true, &mut |key, _, kept| {
                if theirs(key) {
                    found.insert(key.to_vec());
                }
                match kept.map_or(Ok(vec![]), |kept| kept.moved_to()) {
                    Ok(to) => mentioned |= to.iter().any(|to| theirs(to)),
                    Err(e) => failed = Some(e),
                }
            })?;
        }
        failed.map_or(Ok(()), Err)?;
        if found.is_empty() && !mentioned {
            return Ok(None);
        }
        let mut rest: Vec<SegmentEntry> = Vec::new();
        for (key, mut timeline) in self.all()?.into_iter().filter(|(key, _)| !found.contains(key)) {
            for kept in timeline.0.iter_mut().filter_map(|(_, kept)| kept.as_mut()) {
                kept.extra.key_changes.retain(|m| !bytes(&m.to).is_ok_and(|to| theirs(&to)));
            }
            rest.push((key.into(), timeline));
        }
        let seal = match encryption.filter(|encryption| encryption.encrypts()) {
            Some(encryption) => Some(encryption.whole().await?),
            None => None,
        };
        Ok(Some((self.replaced_by(&rest, version, seal)?, found.len() as u64)))
    }

    /// Returns all valid entries in the order of their keys.
    pub(crate) fn all(&self) -> Result<Vec<(Vec<u8>, KeyTimeline)>> {
        let mut entries: BTreeMap<Vec<u8>, (usize, KeyTimeline)> = BTreeMap::new();
        for (number, segment) in self.files.iter().enumerate() {
            read(segment, &|_, _| true, &mut |key, period, kept| {
                let (newest, timeline) =
                    entries.entry(key.to_vec()).or_insert_with(|| (number, KeyTimeline::default()));
                if *newest == number && kept.as_ref().is_none_or(|kept| self.counts(kept)) {
                    timeline.0.push((period, kept));
                }
            })?;
        }
        let timelines = entries.into_iter().map(|(key, (_, timeline))| (key, timeline));
        Ok(timelines.filter(|(_, timeline)| timeline.all().next().is_some()).collect())
    }

    /// Returns the state files to write and to remove for changed metadata. Tombstones that a truncate covers are
    /// removed when segments are merged. For a table with encrypted columns, segments are encrypted as well, because
    /// images of key changes are rows.
    pub(crate) async fn update(
        &self,
        mut changes: Vec<SegmentEntry>,
        version: u64,
        truncated: Option<&RecordOrder>,
        encryption: Option<&FileEncryption>,
    ) -> Result<CommitExtras> {
        let mut extras = CommitExtras::default();
        let encryption = encryption.filter(|encryption| encryption.encrypts());
        // Segments from before the table was encrypted may contain rows in plain text.
        let write_all =
            self.diverged || (encryption.is_some() && self.files.iter().any(|segment| !segment.is_sealed()));
        if changes.is_empty() && !write_all {
            return Ok(extras);
        }
        let seal = match encryption {
            Some(encryption) => Some(encryption.whole().await?),
            None => None,
        };
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        if self.files.len() + 1 < MOST_SEGMENTS && !write_all {
            extras.put_state(segment_name(version), write(&changes, seal)?);
            return Ok(extras);
        }
        let mut all: BTreeMap<Arc<[u8]>, KeyTimeline> = self.all()?.into_iter().map(|(k, t)| (k.into(), t)).collect();
        all.extend(changes);
        let covered = |k: &KeyMetadata| k.is_tombstone() && truncated.is_some_and(|t| k.base <= *t);
        let rest: Vec<SegmentEntry> =
            all.into_iter().filter(|(_, timeline)| timeline.all().any(|k| !covered(k))).collect();
        self.replaced_by(&rest, version, seal)
    }

    /// Removes all segments, and writes these entries as the only one; without entries, none.
    fn replaced_by(
        &self,
        entries: &[SegmentEntry],
        version: u64,
        seal: Option<Arc<FileEncryptionProperties>>,
    ) -> Result<CommitExtras> {
        let mut extras = CommitExtras::default();
        self.files.iter().for_each(|segment| extras.remove_state(segment.name.as_str()));
        if !entries.is_empty() {
            extras.put_state(segment_name(version), write(entries, seal)?);
        }
        Ok(extras)
    }
}

/// Key metadata, for inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredKeyMetadata {
    /// Values of the key columns as text.
    pub key: Vec<String>,
    /// Values of the order columns as text: of the delete for a tombstone, otherwise of the row. Instants are
    /// nanoseconds.
    pub order: Vec<String>,
    /// Whether the entry is a tombstone.
    pub is_tombstone: bool,
}

/// Returns the key metadata of a table, sorted by key, including tombstones. For tests and for inspection.
///
/// # Errors
/// `NoFileKeys` if the metadata is encrypted and the dataset has no keys for it; the errors of the journal.
pub async fn held_keys(dataset: &Dataset) -> Result<Vec<StoredKeyMetadata>> {
    let head = dataset.journal().head().await?;
    let all = KeySegments::load(dataset.journal(), &head, dataset.encryption()).await?.all()?;
    let held = |(key, kept): (&[u8], &KeyMetadata)| {
        let order = kept.live.as_ref().unwrap_or(&kept.base);
        let columns = order.bytes().get(1..order.bytes().len().saturating_sub(1)).unwrap_or_default();
        StoredKeyMetadata { key: decode(key), order: decode(columns), is_tombstone: kept.live.is_none() }
    };
    Ok(all.iter().flat_map(|(key, timeline)| timeline.all().map(move |kept| held((key, kept)))).collect())
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
        let at = |period| timeline.at(period).map(|kept| kept.base.bytes()[1]);
        assert_eq!([1, 2, 3, 4, 9].map(at), [None, Some(5), Some(5), None, None]);
    }

    #[test]
    fn change_of_one_period_does_not_change_later_periods() {
        let before = KeyTimeline(vec![(2, tombstone(5))]);
        // A late row that is newer than the delete comes in period 2, and is replaced in period 3.
        let next = |period: i64| (period < 9).then_some(period + 1);
        let after = before.with(&KeyTimeline(vec![(2, None), (3, tombstone(5))]), next);
        assert_eq!(after, KeyTimeline(vec![(3, tombstone(5))]));
        // An equal delete from period 1 on needs no second entry.
        let both = KeyTimeline(vec![(1, tombstone(5)), (2, tombstone(5))]);
        assert_eq!(before.with(&both, next), KeyTimeline(vec![(1, tombstone(5))]));
        // Only period 2 is rebuilt.
        assert_eq!(before.with(&KeyTimeline(vec![(2, None)]), next), KeyTimeline(vec![(3, tombstone(5))]));
        // Period 2 is the newest period.
        assert_eq!(before.with(&KeyTimeline(vec![(2, None)]), |_| None), KeyTimeline::default());
    }
}
