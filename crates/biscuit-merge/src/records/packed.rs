//! Packed form of change records: one Arrow batch that can be written to disk, sent or stored, and read back.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    UInt8Array, UInt64Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, UInt8Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use biscuit_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::records::key_change::{KeyChange, KeyChangeKind};
use crate::records::op::ChangeOp;
use crate::records::refused::{RawSource, RowEncoder};

/// Names of the columns after the table columns. They are stored, so they must not change.
const OP: &str = "op";
const PLACE: &str = "place";
const CODE: &str = "code";
const PRESENT: &str = "present ";
const RAW: &str = "raw";
const KEY_CHANGE: &str = "key change";
const KEY_CHANGE_KEY: &str = "key change key";
/// Keys of the schema metadata, for values that all records share.
const FILE: &str = "file";
const RANK: &str = "rank";
const PERIOD: &str = "period";
const SPARSE: &str = "sparse";
const SERVER: &str = "server";
const COLUMNS: &str = "columns";
const HEADER: &str = "header";
/// Prefix of the metadata keys of the raw records.
const OF_RAW: &str = "raw ";

fn arrow_error(e: ArrowError) -> Error {
    Error::internal("cannot pack or unpack change records").with_source(e)
}

fn damaged_batch() -> Error {
    Error::internal("the batch does not contain packed change records")
}

/// Packs the parts of change records. Each part is stored at most once; [`PackedReader`] reads them back.
pub(crate) struct PackedWriter {
    metadata: HashMap<String, String>,
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl PackedWriter {
    /// Begins with the columns to store. `file` is the name of their file.
    pub(crate) fn new(rows: &RecordBatch, file: &str) -> Self {
        let width = (COLUMNS.to_owned(), rows.num_columns().to_string());
        Self {
            metadata: HashMap::from([(FILE.to_owned(), file.to_owned()), width]),
            fields: rows.schema().fields().iter().map(|f| f.as_ref().clone()).collect(),
            columns: rows.columns().to_vec(),
        }
    }

    pub(crate) fn numbers(&mut self, rank: u8, period: u32) {
        self.metadata.insert(RANK.to_owned(), rank.to_string());
        self.metadata.insert(PERIOD.to_owned(), period.to_string());
    }

    pub(crate) fn sparse(&mut self) {
        self.metadata.insert(SPARSE.to_owned(), String::new());
    }

    pub(crate) fn server(&mut self, server: &impl Serialize) -> Result<()> {
        let server =
            serde_json::to_string(server).map_err(|e| Error::internal("cannot pack the log server").with_source(e))?;
        self.metadata.insert(SERVER.to_owned(), server);
        Ok(())
    }

    pub(crate) fn ops(&mut self, ops: &[ChangeOp]) {
        self.add(OP, Arc::new(ops.iter().map(|op| Some(*op as u8)).collect::<UInt8Array>()));
    }

    pub(crate) fn places(&mut self, places: &[u64]) {
        self.add(PLACE, Arc::new(UInt64Array::from(places.to_vec())));
    }

    /// Adds the operation codes, unless no record has one.
    pub(crate) fn codes(&mut self, codes: &[Arc<str>]) {
        if codes.iter().any(|c| !c.is_empty()) {
            self.add(CODE, Arc::new(StringArray::from_iter_values(codes.iter())));
        }
    }

    /// Adds the records in which each column is present.
    pub(crate) fn present(&mut self, present: &[Option<BooleanBuffer>]) {
        for (i, present) in present.iter().enumerate() {
            if let Some(present) = present {
                self.add(format!("{PRESENT}{i}"), Arc::new(BooleanArray::new(present.clone(), None)));
            }
        }
    }

    pub(crate) fn raw(&mut self, raw: &RawSource) -> Result<()> {
        match raw {
            RawSource::Text { text, header, spans } => {
                header.as_ref().map(|h| self.metadata.insert(HEADER.to_owned(), h.to_string()));
                let records = spans.iter().map(|s: &Range<usize>| &text[s.clone()]);
                self.add(RAW, Arc::new(StringArray::from_iter_values(records)));
            }
            RawSource::Each(all) => self.add(RAW, Arc::new(all.iter().map(Some).collect::<BinaryArray>())),
            RawSource::Rows { rows, .. } => {
                let own = rows.schema().metadata().clone();
                self.metadata.extend(own.into_iter().map(|(k, v)| (format!("{OF_RAW}{k}"), v)));
                let rows = StructArray::try_new_with_length(
                    rows.schema().fields().clone(),
                    rows.columns().to_vec(),
                    None,
                    rows.num_rows(),
                );
                self.add(RAW, Arc::new(rows.map_err(arrow_error)?));
            }
        }
        Ok(())
    }

    /// Adds the key changes among `records` records, unless there is none.
    pub(crate) fn key_changes(&mut self, key_changes: &[KeyChange], records: usize) -> Result<()> {
        if key_changes.is_empty() {
            return Ok(());
        }
        let (mut kinds, mut keys) = (vec![None; records], vec![None; records]);
        for m in key_changes {
            kinds[m.row] = Some(u8::from(m.kind == KeyChangeKind::From));
            keys[m.row] = Some(to_bytes(&m.key)?);
        }
        self.add(KEY_CHANGE, Arc::new(UInt8Array::from(kinds)));
        self.add(KEY_CHANGE_KEY, Arc::new(keys.iter().map(Option::as_deref).collect::<BinaryArray>()));
        Ok(())
    }

    fn add(&mut self, name: impl Into<String>, column: ArrayRef) {
        self.fields.push(Field::new(name, column.data_type().clone(), true));
        self.columns.push(column);
    }

    pub(crate) fn finish(self, records: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(records));
        let schema = Schema::new(self.fields).with_metadata(self.metadata);
        RecordBatch::try_new_with_options(Arc::new(schema), self.columns, &options).map_err(arrow_error)
    }
}

/// Reads the parts of packed change records.
pub(crate) struct PackedReader<'a> {
    packed: &'a RecordBatch,
    /// Number of columns to store. A table column may be called `op` or `place`: names are only looked up after these
    /// columns.
    width: usize,
}

impl<'a> PackedReader<'a> {
    pub(crate) fn new(packed: &'a RecordBatch) -> Result<Self> {
        Ok(Self { packed, width: number(packed, COLUMNS)? })
    }

    fn metadata(&self, name: &str) -> Option<&str> {
        metadata(self.packed, name)
    }

    fn column(&self, name: &str) -> Option<&'a ArrayRef> {
        let schema = self.packed.schema();
        let at = (self.width..schema.fields().len()).find(|&i| schema.field(i).name() == name)?;
        Some(self.packed.column(at))
    }

    pub(crate) fn rows(&self, records: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(records));
        let fields: Fields = self.packed.schema().fields().iter().take(self.width).cloned().collect();
        let columns = self.packed.columns().iter().take(self.width).cloned().collect();
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(arrow_error)
    }

    pub(crate) fn ops(&self) -> Result<Vec<ChangeOp>> {
        let ops = self.column(OP).and_then(|c| c.as_primitive_opt::<UInt8Type>()).ok_or_else(damaged_batch)?;
        ops.values().iter().map(|op| op_of(*op)).collect()
    }

    pub(crate) fn places(&self) -> Result<Vec<u64>> {
        let places = self.column(PLACE).and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or_else(damaged_batch)?;
        Ok(places.values().to_vec())
    }

    pub(crate) fn codes(&self) -> Vec<Arc<str>> {
        match self.column(CODE).and_then(|c| c.as_string_opt::<i32>()) {
            Some(codes) => codes.iter().map(|c| c.unwrap_or_default().into()).collect(),
            None => vec![],
        }
    }

    pub(crate) fn present(&self) -> Vec<Option<BooleanBuffer>> {
        let present = |i: usize| self.column(&format!("{PRESENT}{i}")).map(|g| g.as_boolean().values().clone());
        (0..self.width).map(present).collect()
    }

    pub(crate) fn raw(&self, encode: RowEncoder) -> Result<Option<RawSource>> {
        self.column(RAW).map(|column| restore_raws(column, &self.packed.schema(), encode)).transpose()
    }

    pub(crate) fn key_changes(&self, records: usize) -> Result<Vec<KeyChange>> {
        let mut key_changes = Vec::new();
        if let (Some(kinds), Some(keys)) = (self.column(KEY_CHANGE), self.column(KEY_CHANGE_KEY)) {
            let kinds = kinds.as_primitive::<UInt8Type>();
            for row in (0..records).filter(|r| kinds.is_valid(*r)) {
                let kind = if kinds.value(row) == 0 { KeyChangeKind::To } else { KeyChangeKind::From };
                key_changes.push(KeyChange { row, kind, key: from_bytes(keys.as_binary::<i32>().value(row))? });
            }
        }
        Ok(key_changes)
    }

    pub(crate) fn is_sparse(&self) -> bool {
        self.metadata(SPARSE).is_some()
    }

    pub(crate) fn rank(&self) -> Result<u8> {
        u8::try_from(number(self.packed, RANK)?).map_err(|_| damaged_batch())
    }

    pub(crate) fn period(&self) -> Result<u32> {
        u32::try_from(number(self.packed, PERIOD)?).map_err(|_| damaged_batch())
    }

    pub(crate) fn server<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.metadata(SERVER).map(serde_json::from_str).transpose().map_err(|_| damaged_batch())
    }

    pub(crate) fn file(&self) -> Result<Arc<str>> {
        Ok(self.metadata(FILE).ok_or_else(damaged_batch)?.into())
    }
}

fn metadata<'a>(packed: &'a RecordBatch, name: &str) -> Option<&'a str> {
    packed.schema_ref().metadata().get(name).map(String::as_str)
}

fn number(packed: &RecordBatch, name: &str) -> Result<usize> {
    metadata(packed, name).and_then(|n| n.parse().ok()).ok_or_else(damaged_batch)
}

/// Inverse of `ChangeOp as u8`.
fn op_of(number: u8) -> Result<ChangeOp> {
    [ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Truncate]
        .into_iter()
        .find(|op| *op as u8 == number)
        .ok_or_else(damaged_batch)
}

/// Restores the raw records. The type of the column tells the variant: struct for rows, binary for single records,
/// text for lines.
fn restore_raws(column: &ArrayRef, schema: &Schema, encode: RowEncoder) -> Result<RawSource> {
    if let Some(rows) = column.as_struct_opt() {
        let own = schema.metadata().iter().filter_map(|(k, v)| Some((k.strip_prefix(OF_RAW)?.to_owned(), v.clone())));
        let schema = Schema::new(rows.fields().clone()).with_metadata(own.collect());
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(schema), rows.columns().to_vec(), &options);
        return Ok(RawSource::Rows { rows: rows.map_err(arrow_error)?, encode });
    }
    if let Some(each) = column.as_binary_opt::<i32>() {
        return Ok(RawSource::Each(each.iter().map(|raw| Arc::from(raw.unwrap_or_default())).collect()));
    }
    if *column.data_type() != DataType::Utf8 {
        return Err(damaged_batch());
    }
    let (mut text, mut spans) = (String::new(), Vec::with_capacity(column.len()));
    for record in column.as_string::<i32>().iter() {
        let from = text.len();
        text.push_str(record.unwrap_or_default());
        spans.push(from..text.len());
    }
    let header = schema.metadata().get(HEADER).map(|h| h.as_str().into());
    Ok(RawSource::Text { text: Arc::new(text), header, spans })
}

/// Key of one key change as an Arrow IPC stream: key columns may have other types than the columns of the table.
fn to_bytes(key: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &key.schema()).map_err(arrow_error)?;
    writer.write(key).and_then(|()| writer.finish()).map_err(arrow_error)?;
    writer.into_inner().map_err(arrow_error)
}

fn from_bytes(bytes: &[u8]) -> Result<RecordBatch> {
    StreamReader::try_new(bytes, None).map_err(arrow_error)?.next().ok_or_else(damaged_batch)?.map_err(arrow_error)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;
    use crate::records::change_batch::{AbsentColumns, ChangeBatch, LogServer};
    use crate::records::refused::RawRows;

    fn rows(ids: &[i64]) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("n"); ids.len()]));
        // Table columns with the names of packed columns.
        RecordBatch::try_from_iter([("op", ids), ("place", names)]).expect("the columns have equal lengths")
    }

    fn batch(raw: Option<RawSource>) -> ChangeBatch {
        ChangeBatch {
            rows: rows(&[5, 6, 7]),
            ops: vec![ChangeOp::Upsert, ChangeOp::Truncate, ChangeOp::Delete],
            codes: vec!["u".into(), "t".into(), "".into()],
            present: vec![None, Some(BooleanBuffer::from(vec![true, false, true]))],
            completeness: AbsentColumns::Sparse,
            rank: 0,
            period: 7,
            key_changes: vec![KeyChange { row: 2, kind: KeyChangeKind::To, key: rows(&[9]) }],
            server: Some(LogServer {
                server_id: Some("7".into()),
                gtid_source: None,
                column: "place".into(),
                position: None,
            }),
            file: "changes/a.jsonl".into(),
            places: vec![3, 9, 27],
            raw: raw.map(RawRows),
        }
    }

    fn as_text(row: &RecordBatch) -> Result<Vec<u8>> {
        Ok(format!("{row:?}").into_bytes())
    }

    #[test]
    fn packing_and_unpacking_preserves_everything() {
        let header = Some("h".into());
        let text = RawSource::Text { text: Arc::new("a\nbc\nd".to_owned()), header, spans: vec![0..1, 2..4, 5..6] };
        let as_rows = rows(&[1, 2, 3]);
        let metadata = HashMap::from([("avro.schema".to_owned(), "{}".to_owned())]);
        let schema = Arc::new(as_rows.schema().as_ref().clone().with_metadata(metadata));
        let rows = as_rows.with_schema(schema).expect("the columns are the same");
        let as_rows = RawSource::Rows { rows, encode: as_text };
        let each = RawSource::Each([&b"1"[..], b"", b"\xff"].map(Arc::from).to_vec());
        for raw in [None, Some(text), Some(as_rows), Some(each)] {
            let before = batch(raw);
            let after = ChangeBatch::unpack(&before.pack().unwrap(), as_text).unwrap();
            assert_eq!(after.rows.columns(), before.rows.columns());
            assert_eq!((&after.ops, &after.codes, &after.present), (&before.ops, &before.codes, &before.present));
            let kind = |b: &ChangeBatch| (b.completeness, b.rank, b.period, b.file.clone());
            assert_eq!(kind(&after), kind(&before));
            assert_eq!(after.places, before.places);
            let [m] = &after.key_changes[..] else { panic!("there is one key change") };
            assert_eq!((m.row, m.kind, &m.key), (2, KeyChangeKind::To, &before.key_changes[0].key));
            for row in 0..3 {
                let get = |b: &ChangeBatch| b.raw.as_ref().map(|r| r.0.get(row).unwrap());
                assert_eq!(get(&after), get(&before));
            }
        }
    }

    #[test]
    fn picked_records_keep_places_key_changes_and_present_columns() {
        let picked = batch(None).select_rows(&[2, 0]).unwrap();
        assert_eq!((picked.ops, picked.places), (vec![ChangeOp::Delete, ChangeOp::Upsert], vec![27, 3]));
        assert_eq!(picked.key_changes.iter().map(|m| m.row).collect::<Vec<_>>(), [0]);
        assert_eq!(picked.present[1], Some(BooleanBuffer::from(vec![true, true])));
    }
}
