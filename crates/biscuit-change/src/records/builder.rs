//! Builds change batches from Debezium events: decodes images column by column, finds unchanged values, and links the
//! two halves of key changes.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_merge::internal::{UnchangedPlaceholder, ambiguous_placeholder};
use biscuit_merge::{ChangeBatch, ChangeOp, KeyChange, KeyChangeKind, LogServer};
use biscuit_schema::{Contract, OnError};
use serde_json::value::RawValue;

use crate::codes;
use crate::columnar::units::RecordIndex;
use crate::debezium::envelope::{ChangeEvent, META};
use crate::debezium::placeholder::is_placeholder;
use crate::debezium::source_field::SourceField;
use crate::json::object;
use crate::values::codec::{ValueCodec, ValuePosition};
use crate::values::declared::{NulledRows, push_once};
use crate::values::text::wrong_type;
use crate::values::text_value::{TextValue, to_array};

/// Name, codec and value of a key column.
type KeyCell = (String, ValueCodec, TextValue);

/// Maximum number of records in a batch, and maximum number of bytes of their values.
const BATCH_ROWS: usize = 65_536;
const BATCH_BYTES: usize = 256 << 20;

/// Settings that all records of a reader share.
#[derive(Debug)]
pub(crate) struct ReaderContext<'a> {
    pub(crate) contract: Option<&'a Contract>,
    pub(crate) key: &'a [String],
    pub(crate) fields: &'a [SourceField],
    pub(crate) placeholder: &'a UnchangedPlaceholder,
}

impl ReaderContext<'_> {
    /// Returns whether the contract sets invalid values of a column to null (`on_error = "null"`).
    fn sets_null(&self, column: &str) -> bool {
        let declared = self.contract.and_then(|contract| Some((contract, contract.column_for(column)?)));
        declared.is_some_and(|(contract, column)| contract.on_error_of(column) == OnError::Null)
    }
}

/// Records with the same codecs, stored column by column until the batch is finished.
///
/// Invariant: all vectors of `cells` and `order`, and `ops`, `codes` and `places`, have one entry for each record.
/// [`push`](Self::push) decodes the whole record before it changes any of them.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    pub(crate) codecs: Arc<Vec<(String, ValueCodec)>>,
    names: HashSet<String>,
    /// Approximate number of bytes of the values.
    bytes: usize,
    pub(crate) file: Arc<str>,
    /// Server whose log contains the records, if the positions of two servers cannot be compared.
    pub(crate) server: Option<LogServer>,
    /// Values by column.
    cells: Vec<Vec<TextValue>>,
    /// For each column, the records with an unchanged value.
    missing: Vec<Vec<usize>>,
    /// Values by order column.
    order: Vec<Vec<TextValue>>,
    ops: Vec<ChangeOp>,
    codes: Vec<Arc<str>>,
    places: Vec<u64>,
    key_changes: Vec<(usize, KeyChangeKind, Vec<KeyCell>)>,
    /// Invalid values that were set to null because of the contract.
    pub(crate) nulled: NulledRows,
    /// Columns of the records that have no codec.
    pub(crate) unknown: Vec<String>,
    /// Position of each record in the raw records, if raw records are kept.
    pub(crate) picks: Vec<RecordIndex>,
}

impl BatchBuilder {
    pub(crate) fn new(codecs: Arc<Vec<(String, ValueCodec)>>, fields: &[SourceField], file: &Arc<str>) -> Result<Self> {
        if let Some(f) = fields.iter().find(|f| codecs.iter().any(|(n, _)| n.eq_ignore_ascii_case(&f.name))) {
            let message = format!(
                "cannot store the order as `{}`: the table has a column of this name; choose another name for the order column",
                f.name
            );
            return Err(Error::new(codes::COLUMN_CLASH, message));
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

    /// Returns whether the batch has reached its maximum size. Text arrays have offsets of 31 bits, so the limit
    /// keeps them far below 2 GiB.
    pub(crate) fn is_full(&self) -> bool {
        self.ops.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Adds a record. If it returns an error, nothing was added.
    pub(crate) fn push(
        &mut self,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<()> {
        let object = self.choose_image(event, op, context, place)?;
        let mut cells = Vec::with_capacity(self.codecs.len());
        let mut nulled = Vec::new();
        for i in 0..self.codecs.len() {
            let cell = self.read_cell(i, &object, event, op, context, place).or_else(|e| {
                // An ambiguous placeholder may be an unchanged value; null would overwrite the stored value.
                let is_null =
                    context.sets_null(&self.codecs[i].0) && !e.is(biscuit_merge::codes::AMBIGUOUS_PLACEHOLDER);
                if is_null { Ok(Some(TextValue::Null)).inspect(|_| nulled.push((i, e.code()))) } else { Err(e) }
            });
            cells.push(cell?);
        }
        let mut order = Vec::with_capacity(context.fields.len());
        for f in context.fields {
            let cell = match event.position(f) {
                Some(raw) => f.decode(raw.get()),
                // A snapshot row has no position in the log and is older than every change that has one.
                None if event.is_snapshot() => Ok(f.before_all()),
                None => Ok(TextValue::Null),
            };
            order.push(cell.map_err(|reason| wrong_type(&format!("source.{}", f.field), reason, &self.file, place))?);
        }
        // The last step that can fail: from here on, the record is added.
        let half = self.key_change_half(event, op, context, place)?;
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
            // Fast path: most records have their columns in the order of the codecs.
            let own = self.codecs.get(i).is_some_and(|(c, _)| c == name)
                || self.names.contains(name)
                || (event.flat && name.starts_with(META));
            if !own {
                push_once(&mut self.unknown, name.clone());
            }
        }
        // With an embedded schema, the codecs have all fields of the record.
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

    /// Returns the image that the columns are read from: `after` for an upsert, and for a delete the message key or,
    /// if the key columns are not all in it, `before`.
    fn choose_image<'a>(
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
        let parse = |raw: &'a RawValue| self.parse_object(raw, context, place);
        let object = image.map_or_else(|| Ok(object::JsonObject::default()), parse)?;
        match (op, event.before) {
            // The declared key may have more columns than the message key.
            (ChangeOp::Delete, Some(before)) if key.iter().any(|k| object.get(k).is_none()) => parse(before),
            _ => Ok(object),
        }
    }

    /// Returns the value of column `i`; `None` for an unchanged value.
    fn read_cell(
        &self,
        i: usize,
        object: &object::JsonObject<'_>,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<Option<TextValue>> {
        let (name, codec) = &self.codecs[i];
        // Values of a delete other than the key may be padding, such as empty texts.
        if op != ChangeOp::Upsert && !context.key.contains(name) {
            return Ok(Some(TextValue::Null));
        }
        let is_included = |only: &[String]| only.contains(name) || context.key.contains(name);
        if op == ChangeOp::Upsert && event.only.is_some_and(|only| !is_included(only)) {
            return Ok(None);
        }
        // Fast path: most records have their columns in the order of the codecs.
        let raw = match object.0.get(i) {
            Some((n, raw)) if n == name => raw.get(),
            _ => object.get(name).map_or("null", RawValue::get),
        };
        // The placeholder means an unchanged value in updates, and in creates that are half of a key change. Snapshot
        // rows and other creates contain real values only, even if the text is the placeholder. A create without
        // headers could be either one.
        if op == ChangeOp::Upsert && context.placeholder.may_match(raw) {
            let cell = placeholder_cell(codec, raw);
            if cell.as_ref().is_some_and(|c| is_placeholder(context.placeholder, c)) {
                let gives_nothing = match (event.op.as_str(), event.headers) {
                    ("u" | "U" | "", _) => true,
                    ("r" | "R", _) => false,
                    (_, Some(headers)) => headers.old_key.is_some(),
                    (_, None) => return Err(ambiguous_placeholder(name, &self.file, place)),
                };
                if gives_nothing {
                    return Ok(None);
                }
            }
        }
        codec.decode(raw).map(Some).map_err(|reason| wrong_type(name, reason, &self.file, place))
    }

    /// Returns which half of a key change the record is, with the key of the other half.
    fn key_change_half(
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
        let object = self.parse_object(raw, context, place)?;
        let mut cells = Vec::with_capacity(key.len());
        for name in key {
            // The header contains a key of the table, so it is decoded with the codecs of the key columns.
            let codec = self.codecs.iter().find(|(n, _)| n == name).map(|(_, c)| c.clone());
            let (Some(codec), Some(value)) = (codec, object.get(name)) else {
                let message = format!("the header of a key change does not contain the key column `{name}`");
                return Err(Error::new(biscuit_schema::codes::MISSING_COLUMN, message)
                    .with_column(name)
                    .at(&self.file, place));
            };
            let cell = codec.decode(value.get()).map_err(|reason| wrong_type(name, reason, &self.file, place))?;
            cells.push((name.clone(), codec, cell));
        }
        Ok(Some((kind, cells)))
    }

    /// Parses an object and renames its fields to the columns of the contract: names match in any letter case, and as
    /// former names.
    fn parse_object<'a>(
        &self,
        raw: &'a RawValue,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<object::JsonObject<'a>> {
        let mut object = object::parse_object(raw.get()).map_err(|e| object::invalid_json(&e, &self.file, place))?;
        let Some(contract) = context.contract else { return Ok(object) };
        for at in 0..object.0.len() {
            let name = &object.0[at].0;
            let is_own = self.codecs.get(at).is_some_and(|(own, _)| own == name) || self.names.contains(name);
            let Some(column) = contract.column_for(name).filter(|column| !is_own && column.name != *name) else {
                continue;
            };
            if object.0.iter().any(|(other, _)| *other == column.name) {
                let message = format!("two fields of the record belong to column `{}`", column.name);
                return Err(Error::new(biscuit_schema::codes::DUPLICATE_COLUMN, message)
                    .with_column(&column.name)
                    .at(&self.file, place));
            }
            object.0[at].0.clone_from(&column.name);
        }
        Ok(object)
    }

    fn missing_image(&self, what: &str, place: u64) -> Error {
        Error::new(codes::MISSING_IMAGE, format!("the envelope has no {what}")).at(&self.file, place)
    }

    /// Converts the records into a batch: the table columns first, then the order columns `fields`.
    pub(crate) fn finish(self, fields: &[SourceField]) -> Result<ChangeBatch> {
        let rows = self.ops.len();
        // Table columns first, then order columns: `coerce_batch` in the reader relies on this sequence.
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
        let put_together = |e| Error::internal("cannot build a batch of envelopes").with_source(e);
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
        let (codes, server) = (self.codes, self.server);
        let batch = ChangeBatch::new(rows, self.ops, self.file, self.places);
        Ok(ChangeBatch { codes, present, key_changes, server, ..batch })
    }
}

/// Decodes a value that may be the placeholder: with the codec, or else as text, list of numbers or list of texts,
/// because the connector writes the placeholder in place of a number, time or list, too.
fn placeholder_cell(codec: &ValueCodec, raw: &str) -> Option<TextValue> {
    let of_list = || ValueCodec::List(Box::new(ValueCodec::Plain(DataType::Int64))).decode(raw).ok();
    let of_texts = || ValueCodec::List(Box::new(ValueCodec::Plain(DataType::Utf8))).decode(raw).ok();
    codec.decode(raw).ok().or_else(|| object::parse_string(raw).map(TextValue::Text)).or_else(of_list).or_else(of_texts)
}
