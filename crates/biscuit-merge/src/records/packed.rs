//! Packed form of change records: one Arrow batch that can be written to disk, sent or stored, and read back.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    UInt8Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, UInt8Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use biscuit_core::{Error, Result};

use crate::records::change_batch::{AbsentColumns, ChangeBatch, KeyChange, KeyChangeKind};
use crate::records::op::ChangeOp;
use crate::records::refused::{RawRows, RawSource, RowEncoder};

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

fn failed(e: ArrowError) -> Error {
    Error::internal("cannot pack or unpack change records").with_source(e)
}

fn damaged() -> Error {
    Error::internal("the batch does not contain packed change records")
}

impl ChangeBatch {
    /// Packs the batch into one Arrow batch: first the columns to store, then the columns about the records
    /// (`op`, `place`, `code` and so on). Values that all records share are in the schema metadata.
    ///
    /// Tables with periods store pending records in this form, so [`unpack`](Self::unpack) of later versions must
    /// read it.
    ///
    /// # Errors
    /// `Internal`.
    pub fn pack(&self) -> Result<RecordBatch> {
        let mut metadata: HashMap<String, String> = HashMap::from([
            (FILE.to_owned(), self.file.to_string()),
            (RANK.to_owned(), self.rank.to_string()),
            (PERIOD.to_owned(), self.period.to_string()),
            (COLUMNS.to_owned(), self.rows.num_columns().to_string()),
        ]);
        if self.completeness == AbsentColumns::Sparse {
            metadata.insert(SPARSE.to_owned(), String::new());
        }
        if let Some(server) = &self.server {
            let server = serde_json::to_string(server)
                .map_err(|e| Error::internal("cannot pack the log server").with_source(e))?;
            metadata.insert(SERVER.to_owned(), server);
        }
        let mut fields: Vec<Field> = self.rows.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut columns = self.rows.columns().to_vec();
        let mut add = |name: String, column: ArrayRef| {
            fields.push(Field::new(name, column.data_type().clone(), true));
            columns.push(column);
        };
        add(OP.to_owned(), Arc::new(self.ops.iter().map(|op| Some(*op as u8)).collect::<UInt8Array>()));
        add(PLACE.to_owned(), Arc::new(UInt64Array::from(self.places.clone())));
        if self.codes.iter().any(|c| !c.is_empty()) {
            add(CODE.to_owned(), Arc::new(StringArray::from_iter_values(self.codes.iter())));
        }
        for (i, present) in self.present.iter().enumerate() {
            if let Some(present) = present {
                add(format!("{PRESENT}{i}"), Arc::new(BooleanArray::new(present.clone(), None)));
            }
        }
        match self.raw.as_ref().map(|r| &r.0) {
            None => {}
            Some(RawSource::Text { text, header, spans }) => {
                header.as_ref().map(|h| metadata.insert(HEADER.to_owned(), h.to_string()));
                let records = spans.iter().map(|s: &Range<usize>| &text[s.clone()]);
                add(RAW.to_owned(), Arc::new(StringArray::from_iter_values(records)));
            }
            Some(RawSource::Each(all)) => add(RAW.to_owned(), Arc::new(all.iter().map(Some).collect::<BinaryArray>())),
            Some(RawSource::Rows { rows, .. }) => {
                let own = rows.schema().metadata().clone();
                metadata.extend(own.into_iter().map(|(k, v)| (format!("{OF_RAW}{k}"), v)));
                let rows = StructArray::try_new_with_length(
                    rows.schema().fields().clone(),
                    rows.columns().to_vec(),
                    None,
                    rows.num_rows(),
                );
                add(RAW.to_owned(), Arc::new(rows.map_err(failed)?));
            }
        }
        if !self.key_changes.is_empty() {
            let (mut kinds, mut keys) = (vec![None; self.ops.len()], vec![None; self.ops.len()]);
            for m in &self.key_changes {
                kinds[m.row] = Some(u8::from(m.kind == KeyChangeKind::From));
                keys[m.row] = Some(to_bytes(&m.key)?);
            }
            add(KEY_CHANGE.to_owned(), Arc::new(UInt8Array::from(kinds)));
            add(KEY_CHANGE_KEY.to_owned(), Arc::new(keys.iter().map(Option::as_deref).collect::<BinaryArray>()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.ops.len()));
        let schema = Schema::new(fields).with_metadata(metadata);
        RecordBatch::try_new_with_options(Arc::new(schema), columns, &options).map_err(failed)
    }

    /// Unpacks a batch that [`pack`](Self::pack) made. `encode` writes raw rows as files again.
    ///
    /// # Errors
    /// `Internal` for any other batch.
    pub fn unpack(packed: &RecordBatch, encode: RowEncoder) -> Result<Self> {
        let schema = packed.schema();
        let metadata = |name: &str| schema.metadata().get(name);
        let number = |name: &str| metadata(name).and_then(|n| n.parse::<usize>().ok()).ok_or_else(damaged);
        // A table column may be called `op` or `place`: names are only looked up after the first `width` columns.
        let width = number(COLUMNS)?;
        let rest = |name: &str| {
            let at = (width..schema.fields().len()).find(|&i| schema.field(i).name() == name)?;
            Some(packed.column(at))
        };
        let ops = rest(OP).and_then(|c| c.as_primitive_opt::<UInt8Type>()).ok_or_else(damaged)?;
        let ops = ops.values().iter().map(|op| op_of(*op)).collect::<Result<Vec<_>>>()?;
        let places = rest(PLACE).and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or_else(damaged)?;
        let codes: Vec<Arc<str>> = match rest(CODE).and_then(|c| c.as_string_opt::<i32>()) {
            Some(codes) => codes.iter().map(|c| c.unwrap_or_default().into()).collect(),
            None => vec![],
        };
        let present = |i: usize| rest(&format!("{PRESENT}{i}")).map(|g| g.as_boolean().values().clone());
        let raw = match rest(RAW) {
            None => None,
            Some(column) => Some(RawRows(raws(column, &schema, encode)?)),
        };
        let mut key_changes = Vec::new();
        if let (Some(kinds), Some(keys)) = (rest(KEY_CHANGE), rest(KEY_CHANGE_KEY)) {
            let kinds = kinds.as_primitive::<UInt8Type>();
            for row in (0..ops.len()).filter(|r| kinds.is_valid(*r)) {
                let kind = if kinds.value(row) == 0 { KeyChangeKind::To } else { KeyChangeKind::From };
                key_changes.push(KeyChange { row, kind, key: from_bytes(keys.as_binary::<i32>().value(row))? });
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(ops.len()));
        let fields: Fields = schema.fields().iter().take(width).cloned().collect();
        let columns = packed.columns().iter().take(width).cloned().collect();
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
        Ok(Self {
            rows: rows.map_err(failed)?,
            codes,
            present: (0..width).map(present).collect(),
            completeness: if metadata(SPARSE).is_some() { AbsentColumns::Sparse } else { AbsentColumns::Full },
            rank: u8::try_from(number(RANK)?).map_err(|_| damaged())?,
            period: u32::try_from(number(PERIOD)?).map_err(|_| damaged())?,
            server: metadata(SERVER).map(|s| serde_json::from_str(s)).transpose().map_err(|_| damaged())?,
            key_changes,
            file: metadata(FILE).ok_or_else(damaged)?.as_str().into(),
            places: places.values().to_vec(),
            raw,
            ops,
        })
    }
}

/// Inverse of `ChangeOp as u8`.
fn op_of(number: u8) -> Result<ChangeOp> {
    [ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Truncate]
        .into_iter()
        .find(|op| *op as u8 == number)
        .ok_or_else(damaged)
}

/// Restores the raw records. The type of the column tells the variant: struct for rows, binary for single records,
/// text for lines.
fn raws(column: &ArrayRef, schema: &Schema, encode: RowEncoder) -> Result<RawSource> {
    if let Some(rows) = column.as_struct_opt() {
        let own = schema.metadata().iter().filter_map(|(k, v)| Some((k.strip_prefix(OF_RAW)?.to_owned(), v.clone())));
        let schema = Schema::new(rows.fields().clone()).with_metadata(own.collect());
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(schema), rows.columns().to_vec(), &options);
        return Ok(RawSource::Rows { rows: rows.map_err(failed)?, encode });
    }
    if let Some(each) = column.as_binary_opt::<i32>() {
        return Ok(RawSource::Each(each.iter().map(|raw| Arc::from(raw.unwrap_or_default())).collect()));
    }
    if *column.data_type() != DataType::Utf8 {
        return Err(damaged());
    }
    let (mut text, mut spans) = (String::new(), Vec::with_capacity(column.len()));
    for record in column.as_string::<i32>().iter() {
        let from = text.len();
        text.push_str(record.unwrap_or_default());
        spans.push(from..text.len());
    }
    let header = schema.metadata().get(HEADER).map(|h| h.as_str().into());
    Ok(RawSource::Text { text: text.into(), header, spans })
}

/// Key of one key change as an Arrow IPC stream: key columns may have other types than the columns of the table.
fn to_bytes(key: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &key.schema()).map_err(failed)?;
    writer.write(key).and_then(|()| writer.finish()).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

fn from_bytes(bytes: &[u8]) -> Result<RecordBatch> {
    StreamReader::try_new(bytes, None).map_err(failed)?.next().ok_or_else(damaged)?.map_err(failed)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::buffer::BooleanBuffer;

    use super::*;
    use crate::records::change_batch::LogServer;

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
        let text = RawSource::Text { text: "a\nbc\nd".into(), header, spans: vec![0..1, 2..4, 5..6] };
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
        let picked = batch(None).pick(&[2, 0]).unwrap();
        assert_eq!((picked.ops, picked.places), (vec![ChangeOp::Delete, ChangeOp::Upsert], vec![27, 3]));
        assert_eq!(picked.key_changes.iter().map(|m| m.row).collect::<Vec<_>>(), [0]);
        assert_eq!(picked.present[1], Some(BooleanBuffer::from(vec![true, true])));
    }
}
