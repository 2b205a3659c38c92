//! Builds change batches from Debezium events: collects where the values of each column are, finds unchanged values,
//! links the two halves of key changes, and decodes the columns at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_merge::internal::{UnchangedPlaceholder, ambiguous_placeholder};
use biscuit_merge::{ChangeBatch, ChangeOp, KeyChange, KeyChangeKind, LogServer};
use biscuit_schema::{Contract, OnError};

use crate::codes;
use crate::debezium::envelope::{ChangeEvent, EventSource, META};
use crate::debezium::placeholder::is_placeholder;
use crate::debezium::source_field::SourceField;
use crate::files::lines::{ColumnCodecs, RecordIndex};
use crate::json::object;
use crate::json::scanner::{ByName, JsonField, JsonValue, string_text};
use crate::values::cells::{Cell, CellDecoder};
use crate::values::codec::{ValueCodec, ValuePosition};
use crate::values::declared::{NulledRows, push_once};
use crate::values::text::{two_fields, wrong_type};
use crate::values::text_value::{TextValue, to_array};

/// Name, codec and value of a key column.
type KeyCell = (String, ValueCodec, TextValue);

/// Maximum number of records in a batch, and maximum number of bytes of their values.
const BATCH_ROWS: usize = 65_536;
const BATCH_BYTES: usize = 256 << 20;

/// Number of records whose values are decoded at a time.
const DECODED_ROWS: usize = 512;

/// Settings that all records of a reader share.
#[derive(Debug)]
pub(crate) struct ReaderContext<'a> {
    pub(crate) contract: Option<&'a Contract>,
    pub(crate) key: &'a [String],
    pub(crate) fields: &'a [SourceField],
    pub(crate) placeholder: &'a UnchangedPlaceholder,
}

/// Returns whether a contract sets invalid values of a column to null (`on_error = "null"`).
fn sets_null(contract: Option<&Contract>, column: &str) -> bool {
    let declared = contract.and_then(|contract| Some((contract, contract.column_for(column)?)));
    declared.is_some_and(|(contract, column)| contract.on_error_of(column) == OnError::Null)
}

/// Where the values of a field go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldTarget {
    /// The field is not stored.
    Skipped,
    /// The field is the value of this column.
    Column(usize),
}

/// Records with the same codecs: the place of each value in the text, column by column.
///
/// Invariant: all vectors of `cells` and `order`, and `ops`, `codes` and `places`, have one entry for each record.
/// [`push`](Self::push) finds the cells of the whole record before it changes any of them.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    pub(crate) codecs: Arc<ColumnCodecs>,
    /// For each column, whether it is part of the key.
    is_key: Vec<bool>,
    /// For each column, whether its values may have fields that are not stored.
    is_nested: Vec<bool>,
    /// Text with the values of the records.
    text: Arc<String>,
    /// Text of records that were converted, instead of `text`.
    converted: Option<String>,
    targets: ByName<FieldTarget>,
    /// Approximate number of bytes of the values.
    bytes: usize,
    pub(crate) file: Arc<str>,
    /// Server whose log contains the records, if the positions of two servers cannot be compared.
    pub(crate) server: Option<LogServer>,
    /// Cells by column that are not decoded yet.
    cells: Vec<Vec<Cell>>,
    /// Cells by order column that are not decoded yet.
    order: Vec<Vec<Cell>>,
    /// Decoded values of both.
    decoders: Vec<CellDecoder>,
    order_decoders: Vec<CellDecoder>,
    /// For each column, the records with an unchanged value.
    unchanged: Vec<Vec<usize>>,
    /// Numbers of the names of the order columns in `source`, as far as they are known, and their generation.
    order_ids: Vec<Option<usize>>,
    order_generation: Option<u64>,
    ops: Vec<ChangeOp>,
    codes: Vec<Arc<str>>,
    /// Operation codes so far, as they are in the records and in lower case.
    known_codes: Vec<(String, Arc<str>)>,
    /// Cells of the current record.
    current: Vec<Cell>,
    places: Vec<u64>,
    key_changes: Vec<(usize, KeyChangeKind, Vec<KeyCell>)>,
    /// Columns of the records that have no codec.
    pub(crate) unknown: Vec<String>,
    /// Position of each record in the raw records, if raw records are kept.
    pub(crate) picks: Vec<RecordIndex>,
}

/// Finished batch, with the records that are refused or have values that became null.
pub(crate) struct BuiltBatch {
    pub(crate) batch: ChangeBatch,
    /// Records with an invalid value, each with its first error.
    pub(crate) bad: BTreeMap<usize, Error>,
    /// Invalid values that were set to null because of the contract.
    pub(crate) nulled: NulledRows,
}

impl BatchBuilder {
    /// Creates a builder of records in `text`.
    ///
    /// # Errors
    /// `ColumnClash`.
    pub(crate) fn new(
        codecs: Arc<ColumnCodecs>,
        context: &ReaderContext<'_>,
        file: &Arc<str>,
        text: &Arc<String>,
    ) -> Result<Self> {
        let fields = context.fields;
        if let Some(f) = fields.iter().find(|f| codecs.iter().any(|(n, _)| n.eq_ignore_ascii_case(&f.name))) {
            let message = format!(
                "cannot store the order as `{}`: the table has a column of this name; choose another name for the order column",
                f.name
            );
            return Err(Error::new(codes::COLUMN_CLASH, message));
        }
        let n = codecs.len();
        Ok(Self {
            decoders: codecs.iter().map(|(name, codec)| new_decoder(context.contract, name, codec)).collect(),
            is_key: codecs.iter().map(|(name, _)| context.key.contains(name)).collect(),
            is_nested: codecs.iter().map(|(_, codec)| codec.data_type().is_nested()).collect(),
            text: text.clone(),
            converted: None,
            targets: ByName::default(),
            bytes: 0,
            codecs,
            file: file.clone(),
            server: None,
            order_decoders: fields.iter().map(SourceField::decoder).collect(),
            unchanged: vec![vec![]; n],
            cells: vec![vec![]; n],
            order: vec![vec![]; fields.len()],
            order_ids: vec![],
            order_generation: None,
            ops: vec![],
            codes: vec![],
            known_codes: vec![],
            current: vec![],
            places: vec![],
            key_changes: vec![],
            unknown: vec![],
            picks: vec![],
        })
    }

    /// Returns whether the batch has reached its maximum size. Text arrays have offsets of 31 bits, so the limit
    /// keeps them far below 2 GiB.
    pub(crate) fn is_full(&self) -> bool {
        self.ops.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Returns whether the records are in this text.
    pub(crate) fn is_of(&self, text: &Arc<String>) -> bool {
        Arc::ptr_eq(&self.text, text)
    }

    /// Adds the text of a record that was converted. Returns its position. All records of the batch must be
    /// converted.
    pub(crate) fn add_converted(&mut self, record: &str) -> usize {
        let converted = self.converted.get_or_insert_default();
        let start = converted.len();
        converted.push_str(record);
        start
    }

    /// Adds a record. `start` is the position of the scanned object in the text. If it returns an error, nothing was
    /// added.
    pub(crate) fn push(
        &mut self,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
        start: usize,
    ) -> Result<()> {
        let mut cells = std::mem::take(&mut self.current);
        cells.clear();
        cells.resize(self.codecs.len(), Cell::NULL);
        let found = self.find_cells(event, op, context, place, start, &mut cells);
        self.current = cells;
        // The last step that can fail: from here on, the record is added.
        let half = found.and_then(|()| self.key_change_half(event, op, context, place))?;
        let row = self.ops.len();
        for (column, cell) in self.cells.iter_mut().zip(&self.current) {
            self.bytes += size_of::<Cell>() + cell.len();
            column.push(*cell);
        }
        if let EventSource::Object(source) = event.source
            && self.order_generation.replace(source.generation()) != Some(source.generation())
        {
            self.order_ids = context.fields.iter().map(|field| source.id_of(&field.field)).collect();
        }
        for (i, field) in context.fields.iter().enumerate() {
            self.order[i].push(match event.position(field, self.order_ids.get(i).copied().flatten()) {
                Some(value) => Cell::at(start + value.span().start..start + value.span().end),
                // A snapshot row has no position in the log and is older than every change that has one.
                None if event.is_snapshot() => Cell::BEFORE_ALL,
                None => Cell::NULL,
            });
        }
        self.key_changes.extend(half.map(|(kind, cells)| (row, kind, cells)));
        self.ops.push(op);
        let code = self.code_of(&event.op);
        self.codes.push(code);
        self.places.push(place);
        if self.ops.len().is_multiple_of(DECODED_ROWS) {
            self.decode(context.fields);
        }
        Ok(())
    }

    /// Decodes the cells so far.
    fn decode(&mut self, fields: &[SourceField]) {
        let text = self.converted.as_deref().unwrap_or(self.text.as_str());
        let columns = self.codecs.iter().zip(&mut self.decoders).zip(&mut self.cells).zip(&mut self.unchanged);
        for ((((_, codec), decoder), cells), unchanged) in columns {
            let first = self.ops.len() - cells.len();
            let rows = (first..).zip(cells.iter()).filter(|(_, cell)| **cell == Cell::UNCHANGED);
            unchanged.extend(rows.map(|(row, _)| row));
            decoder.append(cells, text, &mut |raw| codec.decode(raw));
            cells.clear();
        }
        for ((field, decoder), cells) in fields.iter().zip(&mut self.order_decoders).zip(&mut self.order) {
            decoder.append(cells, text, &mut |raw| field.decode(raw));
            cells.clear();
        }
    }

    /// Finds the cell of each column in the image of an event: `after` for an upsert, and for a delete the message key
    /// or, if the key columns are not all in it, `before`.
    fn find_cells(
        &mut self,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
        start: usize,
        cells: &mut [Cell],
    ) -> Result<()> {
        let missing =
            |what: &str| Error::new(codes::MISSING_IMAGE, format!("the envelope has no {what}")).at(&self.file, place);
        let image = match op {
            ChangeOp::Upsert => event.after.ok_or_else(|| missing("after"))?,
            ChangeOp::Delete => event.key.or(event.before).ok_or_else(|| missing("key or before"))?,
            ChangeOp::Truncate => return Ok(()),
        };
        self.cells_of(image, event, context, place, start, cells)?;
        if op == ChangeOp::Upsert {
            return self.mark_unchanged(cells, event, context, place);
        }
        // The declared key may have more columns than the message key.
        let in_key = context.key.iter().all(|key| self.codecs.iter().any(|(name, _)| name == key));
        let has_key = in_key && cells.iter().zip(&self.is_key).all(|(cell, is_key)| *cell != Cell::NULL || !is_key);
        if let Some(before) = event.before.filter(|_| !has_key) {
            cells.fill(Cell::NULL);
            self.cells_of(before, event, context, place, start, cells)?;
        }
        // Values of a delete other than the key may be padding, such as empty texts.
        for (cell, _) in cells.iter_mut().zip(&self.is_key).filter(|(_, is_key)| !**is_key) {
            *cell = Cell::NULL;
        }
        Ok(())
    }

    /// Finds the cell of each column in an image.
    fn cells_of(
        &mut self,
        image: JsonValue<'_>,
        event: &ChangeEvent<'_>,
        context: &ReaderContext<'_>,
        place: u64,
        start: usize,
        cells: &mut [Cell],
    ) -> Result<()> {
        if !image.is_object() {
            let e = object::parse_object(image.raw()).err();
            return Err(e.map_or_else(
                || Error::internal("an object was not recognized"),
                |e| object::invalid_json(&e, &self.file, place),
            ));
        }
        for field in image.fields() {
            let target = self.targets.get(field).unwrap_or_else(|| self.resolve_field(field, event, context));
            let FieldTarget::Column(column) = target else { continue };
            if cells[column] != Cell::NULL {
                let name = &self.codecs[column].0;
                return Err(two_fields(name).at(&self.file, place));
            }
            let span = field.value.span();
            cells[column] = Cell::at(start + span.start..start + span.end);
            // With an embedded schema, the codecs have all fields of the record.
            if self.is_nested[column] && event.schema.is_none() {
                let (name, codec) = &self.codecs[column];
                let at = ValuePosition { name, inside: None };
                codec.unknown_fields(field.value.raw(), at, &mut self.unknown);
            }
        }
        Ok(())
    }

    /// Finds the column of a field: by its name, in any letter case, or by a former name in the contract. A field
    /// without a column is listed in `unknown`.
    fn resolve_field(
        &mut self,
        field: JsonField<'_>,
        event: &ChangeEvent<'_>,
        context: &ReaderContext<'_>,
    ) -> FieldTarget {
        let name = field.name();
        let column = |name: &str| self.codecs.iter().position(|(own, _)| own == name);
        let declared = || context.contract.and_then(|contract| contract.column_for(name));
        let target = match column(name) {
            Some(own) => FieldTarget::Column(own),
            None => match declared() {
                Some(declared) => column(&declared.name).map_or(FieldTarget::Skipped, FieldTarget::Column),
                None => FieldTarget::Skipped,
            },
        };
        if target == FieldTarget::Skipped && !(event.flat && name.starts_with(META)) {
            push_once(&mut self.unknown, declared().map_or(name, |declared| &declared.name).to_owned());
        }
        self.targets.set(field, target);
        target
    }

    /// Replaces the cells of unchanged values in an upsert: columns that a sparse update does not have, and
    /// placeholders.
    ///
    /// The placeholder means an unchanged value in updates, and in creates that are half of a key change. Snapshot
    /// rows and other creates contain real values only, even if the text is the placeholder. A create without headers
    /// could be either one.
    fn mark_unchanged(
        &self,
        cells: &mut [Cell],
        event: &ChangeEvent<'_>,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<()> {
        if let Some(only) = event.only {
            for (at, cell) in cells.iter_mut().enumerate() {
                if !only.contains(&self.codecs[at].0) && !self.is_key[at] {
                    *cell = Cell::UNCHANGED;
                }
            }
        }
        let Some(image) = event.after else { return Ok(()) };
        for field in image.fields() {
            let raw = field.value.raw();
            if !context.placeholder.may_match(raw) {
                continue;
            }
            let Some(FieldTarget::Column(at)) = self.targets.get(field) else { continue };
            let (name, codec) = &self.codecs[at];
            if cells[at] == Cell::UNCHANGED
                || !placeholder_cell(codec, raw).is_some_and(|c| is_placeholder(context.placeholder, &c))
            {
                continue;
            }
            let gives_nothing = match (event.op.as_ref(), event.headers) {
                ("u" | "U" | "", _) => true,
                ("r" | "R", _) => false,
                (_, Some(headers)) => headers.old_key.is_some(),
                (_, None) => return Err(ambiguous_placeholder(name, &self.file, place)),
            };
            if gives_nothing {
                cells[at] = Cell::UNCHANGED;
            }
        }
        Ok(())
    }

    /// Returns an operation code in lower case.
    fn code_of(&mut self, op: &str) -> Arc<str> {
        if let Some((_, code)) = self.known_codes.iter().find(|(known, _)| known == op) {
            return code.clone();
        }
        let code: Arc<str> = op.to_lowercase().into();
        // Known operations have few codes, so that the list is short.
        self.known_codes.push((op.to_owned(), code.clone()));
        code
    }

    /// Returns which half of a key change the record is, with the key of the other half.
    fn key_change_half(
        &self,
        event: &ChangeEvent<'_>,
        op: ChangeOp,
        context: &ReaderContext<'_>,
        place: u64,
    ) -> Result<Option<(KeyChangeKind, Vec<KeyCell>)>> {
        let Some(headers) = event.headers else { return Ok(None) };
        let (kind, raw) = match (op, headers.new_key, headers.old_key) {
            (ChangeOp::Delete, Some(raw), _) => (KeyChangeKind::To, raw),
            (ChangeOp::Upsert, _, Some(raw)) => (KeyChangeKind::From, raw),
            _ => return Ok(None),
        };
        let object = object::parse_object(raw).map_err(|e| object::invalid_json(&e, &self.file, place))?;
        // A field belongs to a column by its name, in any letter case, or by a former name in the contract.
        let named = |name: &str| {
            let column = |field: &str| context.contract.and_then(|contract| contract.column_for(field));
            let renamed = || object.0.iter().find(|(field, _)| column(field).is_some_and(|column| column.name == name));
            object.get(name).or_else(|| renamed().map(|(_, value)| *value))
        };
        let mut cells = Vec::with_capacity(context.key.len());
        for name in context.key {
            // The header contains a key of the table, so it is decoded with the codecs of the key columns.
            let codec = self.codecs.iter().find(|(n, _)| n == name).map(|(_, c)| c.clone());
            let (Some(codec), Some(value)) = (codec, named(name)) else {
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

    /// Decodes the records into a batch: the table columns first, then the order columns `fields`.
    ///
    /// # Errors
    /// `TooLarge`, `Overflow`; `Internal`. Records with invalid values are in the result.
    pub(crate) fn finish(mut self, fields: &[SourceField], contract: Option<&Contract>) -> Result<BuiltBatch> {
        self.decode(fields);
        let rows = self.ops.len();
        let first = self.places.first().copied().unwrap_or_default();
        let (mut bad, mut nulled) = (BTreeMap::new(), NulledRows::new());
        // Table columns first, then order columns: `coerce_batch` in the reader relies on this sequence.
        let mut schema = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        let mut present: Vec<Option<BooleanBuffer>> = Vec::new();
        for (((name, _), decoder), unchanged) in self.codecs.iter().zip(self.decoders).zip(&self.unchanged) {
            let decoded = decoder.finish().map_err(|reason| wrong_type(name, reason, &self.file, first))?;
            let becomes_null = !decoded.invalid.is_empty() && sets_null(contract, name);
            for (row, reason) in decoded.invalid {
                let e = wrong_type(name, reason, &self.file, self.places[row]);
                if becomes_null {
                    nulled.entry(name.clone()).or_default().push((row, e.code()));
                } else {
                    bad.entry(row).or_insert(e);
                }
            }
            schema.push(Field::new(name, decoded.array.data_type().clone(), true));
            arrays.push(decoded.array);
            let is_present = |row: usize| unchanged.binary_search(&row).is_err();
            present.push((!unchanged.is_empty()).then(|| BooleanBuffer::collect_bool(rows, is_present)));
        }
        for (f, decoder) in fields.iter().zip(self.order_decoders) {
            let named = format!("source.{}", f.field);
            let decoded = decoder.finish().map_err(|reason| wrong_type(&named, reason, &self.file, first))?;
            for (row, reason) in decoded.invalid {
                bad.entry(row).or_insert_with(|| wrong_type(&named, reason, &self.file, self.places[row]));
            }
            schema.push(Field::new(&f.name, decoded.array.data_type().clone(), true));
            arrays.push(decoded.array);
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
        Ok(BuiltBatch { batch: ChangeBatch { codes, present, key_changes, server, ..batch }, bad, nulled })
    }
}

/// Returns the decoder of a column. The values of a contract's column are coerced to its type later.
fn new_decoder(contract: Option<&Contract>, name: &str, codec: &ValueCodec) -> CellDecoder {
    match contract.and_then(|contract| contract.column_for(name)) {
        Some(column) => CellDecoder::of_column(codec, column.column_type.arrow()),
        None => CellDecoder::new(codec),
    }
}

/// Decodes a value that may be the placeholder: with the codec, or else as text, list of numbers or list of texts,
/// because the connector writes the placeholder in place of a number, time or list, too.
fn placeholder_cell(codec: &ValueCodec, raw: &str) -> Option<TextValue> {
    let of_list = || ValueCodec::List(Box::new(ValueCodec::Plain(DataType::Int64))).decode(raw).ok();
    let of_texts = || ValueCodec::List(Box::new(ValueCodec::Plain(DataType::Utf8))).decode(raw).ok();
    let text = || string_text(raw).map(|text| TextValue::Text(text.into_owned()));
    codec.decode(raw).ok().or_else(text).or_else(of_list).or_else(of_texts)
}
