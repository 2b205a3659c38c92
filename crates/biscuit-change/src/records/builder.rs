use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, OnError};
use serde_json::value::RawValue;

use crate::columnar::units::RecordIndex;
use crate::debezium::envelope::{ChangeEvent, META};
use crate::debezium::placeholder::UnchangedPlaceholder;
use crate::debezium::source_field::SourceField;
use crate::json::object;
use crate::records::change_records::{AbsentColumns, ChangeBatch, KeyChange, KeyChangeKind, LogServer};
use crate::records::op::ChangeOp;
use crate::rows::changes::ambiguous;
use crate::values::codec::{ValueCodec, ValuePosition};
use crate::values::declared::{NulledRows, push_once};
use crate::values::text::wrong_type;
use crate::values::text_value::{TextValue, to_array};

/// A key column, how it is read, and its value.
type KeyCell = (String, ValueCodec, TextValue);

/// Records of a batch, and bytes of their values.
const BATCH_ROWS: usize = 65_536;
const BATCH_BYTES: usize = 256 << 20;

/// What is the same for all records of a reader.
#[derive(Debug)]
pub(crate) struct ReaderContext<'a> {
    pub(crate) contract: Option<&'a Contract>,
    pub(crate) key: &'a [String],
    pub(crate) fields: &'a [SourceField],
    pub(crate) placeholder: &'a UnchangedPlaceholder,
}

impl ReaderContext<'_> {
    /// Whether the contract makes invalid values of a column null (`on_error = "null"`).
    fn nulls(&self, column: &str) -> bool {
        let declared = self.contract.and_then(|contract| Some((contract, contract.column_for(column)?)));
        declared.is_some_and(|(contract, column)| contract.on_error_of(column) == OnError::Null)
    }
}

/// Records that share their codecs, column by column.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    pub(crate) codecs: Arc<Vec<(String, ValueCodec)>>,
    names: HashSet<String>,
    /// Bytes of the records' text.
    bytes: usize,
    pub(crate) file: Arc<str>,
    /// Whose log the records are in, where that matters.
    pub(crate) server: Option<LogServer>,
    cells: Vec<Vec<TextValue>>,
    missing: Vec<Vec<usize>>,
    order: Vec<Vec<TextValue>>,
    ops: Vec<ChangeOp>,
    codes: Vec<Arc<str>>,
    places: Vec<u64>,
    key_changes: Vec<(usize, KeyChangeKind, Vec<KeyCell>)>,
    /// Invalid values that the contract made null.
    pub(crate) nulled: NulledRows,
    /// Columns of the records that no codec reads.
    pub(crate) unknown: Vec<String>,
    /// Where the records are in what was read, if that is wanted.
    pub(crate) picks: Vec<RecordIndex>,
}

impl BatchBuilder {
    pub(crate) fn new(codecs: Arc<Vec<(String, ValueCodec)>>, fields: &[SourceField], file: &Arc<str>) -> Result<Self> {
        if let Some(f) = fields.iter().find(|f| codecs.iter().any(|(n, _)| n.eq_ignore_ascii_case(&f.name))) {
            let message = format!(
                "the order would be stored as `{}`, which is a column of the table: choose another name",
                f.name
            );
            return Err(Error::usage("ColumnClash", message));
        }
        let n = codecs.len();
        Ok(Self {
            names: codecs.iter().map(|(name, _)| name.clone()).collect(),
            bytes: 0,
            codecs,
            file: file.clone(),
            server: None,
            cells: vec![vec![]; n],
            missing: vec![vec![]; n],
            order: vec![vec![]; fields.len()],
            ops: vec![],
            codes: vec![],
            places: vec![],
            key_changes: vec![],
            nulled: NulledRows::new(),
            unknown: vec![],
            picks: vec![],
        })
    }

    /// Whether it holds as much as a batch may: an array counts the bytes of its texts with 31 bits.
    pub(crate) fn is_full(&self) -> bool {
        self.ops.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Adds a record, whole or not at all.
    pub(crate) fn push(
        &mut self,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<()> {
        let object = self.image(event, op, context, place)?;
        let mut cells = Vec::with_capacity(self.codecs.len());
        let mut nulled = Vec::new();
        for i in 0..self.codecs.len() {
            let cell = self.cell(i, &object, event, op, context, place).or_else(|e| {
                let is_null = context.nulls(&self.codecs[i].0) && e.code() != "AmbiguousPlaceholder";
                if is_null { Ok(Some(TextValue::Null)).inspect(|_| nulled.push((i, e.code()))) } else { Err(e) }
            });
            cells.push(cell?);
        }
        let mut order = Vec::with_capacity(context.fields.len());
        for f in context.fields {
            let cell = match event.position(f) {
                Some(raw) => f.decode(raw.get()),
                // What a snapshot read has no place in the log, and is older than every change that has one.
                None if event.is_snapshot() => Ok(f.before_all()),
                None => Ok(TextValue::Null),
            };
            order.push(cell.map_err(|reason| wrong_type(&format!("source.{}", f.field), reason, &self.file, place))?);
        }
        let half = self.half(event, op, context, place)?;
        let row = self.ops.len();
        for (i, code) in nulled {
            self.nulled.entry(self.codecs[i].0.clone()).or_default().push((row, code));
        }
        for (i, cell) in cells.into_iter().enumerate() {
            self.bytes += cell.as_ref().map_or(0, TextValue::size);
            if cell.is_none() {
                self.missing[i].push(row);
            }
            self.cells[i].push(cell.unwrap_or(TextValue::Null));
        }
        for (i, (name, _)) in object.0.iter().enumerate() {
            // Records mostly have the columns in their order.
            let own = self.codecs.get(i).is_some_and(|(c, _)| c == name)
                || self.names.contains(name)
                || (event.flat && name.starts_with(META));
            if !own {
                push_once(&mut self.unknown, name.clone());
            }
        }
        if event.schema.is_none() {
            for (name, codec) in self.codecs.iter() {
                if let Some(raw) = object.get(name) {
                    codec.unknown_fields(raw.get(), ValuePosition { name, inside: None }, &mut self.unknown);
                }
            }
        }
        self.order.iter_mut().zip(order).for_each(|(column, cell)| column.push(cell));
        self.key_changes.extend(half.map(|(kind, cells)| (row, kind, cells)));
        self.ops.push(op);
        self.codes.push(event.op.to_lowercase().into());
        self.places.push(place);
        Ok(())
    }

    /// What the record says of the row.
    fn image<'a>(
        &self,
        event: &ChangeEvent<'a>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<object::JsonObject<'a>> {
        let key = context.key;
        let image = match op {
            ChangeOp::Upsert => Some(event.after.ok_or_else(|| self.missing_image("after", place))?),
            ChangeOp::Delete => {
                event.key.or(event.before).map(Some).ok_or_else(|| self.missing_image("key or before", place))?
            }
            ChangeOp::Truncate => None,
        };
        let parse = |raw: &'a RawValue| self.object(raw, context, place);
        let object = image.map_or_else(|| Ok(object::JsonObject::default()), parse)?;
        match (op, event.before) {
            // A declared key may be wider than the message's key.
            (ChangeOp::Delete, Some(before)) if key.iter().any(|k| object.get(k).is_none()) => parse(before),
            _ => Ok(object),
        }
    }

    /// A column's value; none where it was not available.
    fn cell(
        &self,
        i: usize,
        object: &object::JsonObject<'_>,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<Option<TextValue>> {
        let (name, codec) = &self.codecs[i];
        // What a delete says besides the key may be padding.
        if op != ChangeOp::Upsert && !context.key.contains(name) {
            return Ok(Some(TextValue::Null));
        }
        let is_said = |only: &[String]| only.contains(name) || context.key.contains(name);
        if op == ChangeOp::Upsert && event.only.is_some_and(|only| !is_said(only)) {
            return Ok(None);
        }
        let raw = match object.0.get(i) {
            Some((n, raw)) if n == name => raw.get(),
            _ => object.get(name).map_or("null", RawValue::get),
        };
        if op == ChangeOp::Upsert && context.placeholder.may_be(raw) {
            let cell = placeholder_cell(codec, raw);
            if cell.as_ref().is_some_and(|c| context.placeholder.is(c)) {
                let gives_nothing = match (event.op.as_str(), event.headers) {
                    ("u" | "U" | "", _) => true,
                    ("r" | "R", _) => false,
                    (_, Some(headers)) => headers.old_key.is_some(),
                    (_, None) => return Err(ambiguous(name, &self.file, place)),
                };
                if gives_nothing {
                    return Ok(None);
                }
            }
        }
        codec.decode(raw).map(Some).map_err(|reason| wrong_type(name, reason, &self.file, place))
    }

    /// Which half of a key update the record is, and the key of the other half.
    fn half(
        &self,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<Option<(KeyChangeKind, Vec<KeyCell>)>> {
        let key = context.key;
        let Some(headers) = event.headers else { return Ok(None) };
        let (kind, raw) = match (op, headers.new_key, headers.old_key) {
            (ChangeOp::Delete, Some(raw), _) => (KeyChangeKind::To, raw),
            (ChangeOp::Upsert, _, Some(raw)) => (KeyChangeKind::From, raw),
            _ => return Ok(None),
        };
        let object = self.object(raw, context, place)?;
        let mut cells = Vec::with_capacity(key.len());
        for name in key {
            let codec = self.codecs.iter().find(|(n, _)| n == name).map(|(_, c)| c.clone());
            let (Some(codec), Some(value)) = (codec, object.get(name)) else {
                let message = format!("the header of a key update does not name the key column `{name}`");
                return Err(Error::data("MissingColumn", message).with_column(name).at(&self.file, place));
            };
            let cell = codec.decode(value.get()).map_err(|reason| wrong_type(name, reason, &self.file, place))?;
            cells.push((name.clone(), codec, cell));
        }
        Ok(Some((kind, cells)))
    }

    /// Parses an object and renames its fields to the contract's columns: names match in any letter case, and by former names.
    fn object<'a>(&self, raw: &'a RawValue, context: &ReaderContext<'_>, place: u64) -> Result<object::JsonObject<'a>> {
        let mut object = object::object(raw.get()).map_err(|e| object::invalid(&e, &self.file, place))?;
        let Some(contract) = context.contract else { return Ok(object) };
        for at in 0..object.0.len() {
            let name = &object.0[at].0;
            let is_own = self.codecs.get(at).is_some_and(|(own, _)| own == name) || self.names.contains(name);
            let Some(column) = contract.column_for(name).filter(|column| !is_own && column.name != *name) else {
                continue;
            };
            if object.0.iter().any(|(other, _)| *other == column.name) {
                let message = format!("two fields of the record are column `{}`", column.name);
                return Err(Error::data("DuplicateColumn", message).with_column(&column.name).at(&self.file, place));
            }
            object.0[at].0.clone_from(&column.name);
        }
        Ok(object)
    }

    fn missing_image(&self, what: &str, place: u64) -> Error {
        Error::data("MissingImage", format!("the envelope has no {what}")).at(&self.file, place)
    }

    pub(crate) fn finish(self, fields: &[SourceField]) -> Result<ChangeBatch> {
        let rows = self.ops.len();
        let mut schema = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        let mut present: Vec<Option<BooleanBuffer>> = Vec::new();
        let first = self.places.first().copied().unwrap_or_default();
        for ((name, codec), (cells, missing)) in self.codecs.iter().zip(self.cells.iter().zip(&self.missing)) {
            let t = codec.data_type();
            arrays.push(to_array(&t, cells).map_err(|reason| wrong_type(name, reason, &self.file, first))?);
            schema.push(Field::new(name, t, true));
            let mut all = vec![true; rows];
            missing.iter().for_each(|&r| all[r] = false);
            present.push((!missing.is_empty()).then(|| BooleanBuffer::from(all)));
        }
        for (f, cells) in fields.iter().zip(&self.order) {
            let t = f.data_type();
            arrays.push(to_array(&t, cells).map_err(|reason| wrong_type(&f.name, reason, &self.file, first))?);
            schema.push(Field::new(&f.name, t, true));
            present.push(None);
        }
        let put_together = |e| Error::internal("envelopes could not be put together").with_source(e);
        let rows = RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays).map_err(put_together)?;
        let mut key_changes = Vec::new();
        for (row, kind, cells) in self.key_changes {
            let mut columns: Vec<(String, ArrayRef)> = Vec::new();
            for (name, codec, cell) in cells {
                let array = to_array(&codec.data_type(), &[cell]);
                columns.push((name.clone(), array.map_err(|reason| wrong_type(&name, reason, &self.file, first))?));
            }
            key_changes.push(KeyChange { row, kind, key: RecordBatch::try_from_iter(columns).map_err(put_together)? });
        }
        let completeness = AbsentColumns::Full;
        let (ops, codes, file, places) = (self.ops, self.codes, self.file, self.places);
        let server = self.server;
        Ok(ChangeBatch {
            rows,
            ops,
            codes,
            present,
            completeness,
            rank: 1,
            period: 0,
            key_changes,
            server,
            file,
            places,
            raw: None,
        })
    }
}

/// The cell as the codec reads it, or as plain text where a number or time has the placeholder's text in its place.
fn placeholder_cell(codec: &ValueCodec, raw: &str) -> Option<TextValue> {
    let of_list = || ValueCodec::List(Box::new(ValueCodec::Plain(DataType::Int64))).decode(raw).ok();
    let of_texts = || ValueCodec::List(Box::new(ValueCodec::Plain(DataType::Utf8))).decode(raw).ok();
    codec.decode(raw).ok().or_else(|| object::string(raw).map(TextValue::Text)).or_else(of_list).or_else(of_texts)
}
