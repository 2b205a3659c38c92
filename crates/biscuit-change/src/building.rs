use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use serde_json::value::RawValue;

use crate::cell::{Cell, to_array};
use crate::changes::{ChangeBatch, Completeness, Move, MoveKind};
use crate::codec::Codec;
use crate::envelope::Event;
use crate::json;
use crate::op::Op;
use crate::placeholder::is_placeholder;
use crate::row_changes::ambiguous;
use crate::text::wrong_type;

/// A field of `source` that is stored as an order column.
#[derive(Debug, Clone)]
pub(crate) struct SourceField {
    pub(crate) field: String,
    pub(crate) name: String,
}

/// A key column, how it is read, and its value.
type KeyCell = (String, Codec, Cell);

/// Records that share their codecs, column by column.
#[derive(Debug)]
pub(crate) struct Building {
    pub(crate) codecs: Arc<Vec<(String, Codec)>>,
    pub(crate) file: Arc<str>,
    cells: Vec<Vec<Cell>>,
    missing: Vec<Vec<usize>>,
    order: Vec<Vec<Cell>>,
    ops: Vec<Op>,
    codes: Vec<Arc<str>>,
    places: Vec<u64>,
    moves: Vec<(usize, MoveKind, Vec<KeyCell>)>,
}

impl Building {
    pub(crate) fn new(codecs: Arc<Vec<(String, Codec)>>, fields: &[SourceField], file: &Arc<str>) -> Result<Self> {
        if let Some(f) = fields.iter().find(|f| codecs.iter().any(|(n, _)| n.eq_ignore_ascii_case(&f.name))) {
            let message = format!(
                "the order would be stored as `{}`, which is a column of the table: choose another name",
                f.name
            );
            return Err(Error::usage("ColumnClash", message));
        }
        let n = codecs.len();
        Ok(Self {
            codecs,
            file: file.clone(),
            cells: vec![vec![]; n],
            missing: vec![vec![]; n],
            order: vec![vec![]; fields.len()],
            ops: vec![],
            codes: vec![],
            places: vec![],
            moves: vec![],
        })
    }

    pub(crate) fn push(
        &mut self,
        event: &Event<'_>,
        op: Op,
        key: &[String],
        fields: &[SourceField],
        place: u64,
        dropped: Option<&mut Vec<String>>,
    ) -> Result<()> {
        let row = self.ops.len();
        let image = match op {
            Op::Upsert => Some(event.after.ok_or_else(|| self.missing_image("after", place))?),
            Op::Delete => {
                event.key.or(event.before).map(Some).ok_or_else(|| self.missing_image("key or before", place))?
            }
            Op::Truncate => None,
        };
        let mut object = match image {
            Some(raw) => json::object(raw.get()).map_err(|e| json::invalid(&e, &self.file, place))?,
            None => json::Object::default(),
        };
        // A declared key may be wider than the message's key.
        if let (Op::Delete, Some(before)) = (op, event.before)
            && key.iter().any(|k| object.get(k).is_none())
        {
            object = json::object(before.get()).map_err(|e| json::invalid(&e, &self.file, place))?;
        }
        if let Some(dropped) = dropped {
            let unknown = object.0.iter().map(|(n, _)| n).filter(|n| !self.codecs.iter().any(|(c, _)| c == *n));
            let unknown: Vec<String> = unknown.filter(|n| !dropped.contains(n)).cloned().collect();
            dropped.extend(unknown);
        }
        for i in 0..self.codecs.len() {
            let cell = self.cell(i, &object, event, op, key, row, place)?;
            self.cells[i].push(cell);
        }
        for (column, f) in self.order.iter_mut().zip(fields) {
            let raw = event.source.some(&f.field).map(RawValue::get);
            let cell = raw.map_or(Ok(Cell::Null), |r| Codec::Plain(DataType::Int64).decode(r));
            column.push(cell.map_err(|why| wrong_type(&format!("source.{}", f.field), &why, &self.file, place))?);
        }
        self.moves(event, op, key, row, place)?;
        self.ops.push(op);
        self.codes.push(event.op.to_lowercase().into());
        self.places.push(place);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `push`, taken apart only for its length")]
    fn cell(
        &mut self,
        i: usize,
        object: &json::Object<'_>,
        event: &Event<'_>,
        op: Op,
        key: &[String],
        row: usize,
        place: u64,
    ) -> Result<Cell> {
        let (name, codec) = &self.codecs[i];
        // What a delete says besides the key may be padding.
        if op != Op::Upsert && !key.contains(name) {
            return Ok(Cell::Null);
        }
        let raw = match object.0.get(i) {
            Some((n, raw)) if n == name => raw.get(),
            _ => object.get(name).map_or("null", RawValue::get),
        };
        if op == Op::Upsert && looks_unavailable(raw) {
            let cell = placeholder_cell(codec, raw);
            if cell.as_ref().is_none_or(is_placeholder) {
                let gives_nothing = match (event.op.as_str(), event.headers) {
                    ("u" | "U", _) => true,
                    ("r" | "R", _) => false,
                    (_, Some(headers)) => headers.old_key.is_some(),
                    (_, None) => return Err(ambiguous(name, &self.file, place)),
                };
                if gives_nothing {
                    self.missing[i].push(row);
                    return Ok(Cell::Null);
                }
            }
        }
        codec.decode(raw).map_err(|why| wrong_type(name, &why, &self.file, place))
    }

    fn moves(&mut self, event: &Event<'_>, op: Op, key: &[String], row: usize, place: u64) -> Result<()> {
        let Some(headers) = event.headers else { return Ok(()) };
        let (kind, raw) = match (op, headers.new_key, headers.old_key) {
            (Op::Delete, Some(raw), _) => (MoveKind::To, raw),
            (Op::Upsert, _, Some(raw)) => (MoveKind::From, raw),
            _ => return Ok(()),
        };
        let object = json::object(raw.get()).map_err(|e| json::invalid(&e, &self.file, place))?;
        let mut cells = Vec::with_capacity(key.len());
        for name in key {
            let codec = self.codecs.iter().find(|(n, _)| n == name).map(|(_, c)| c.clone());
            let (Some(codec), Some(value)) = (codec, object.get(name)) else {
                let message = format!("the header of a key update does not name the key column `{name}`");
                return Err(Error::data("MissingColumn", message).at(&self.file, place));
            };
            let cell = codec.decode(value.get()).map_err(|why| wrong_type(name, &why, &self.file, place))?;
            cells.push((name.clone(), codec, cell));
        }
        self.moves.push((row, kind, cells));
        Ok(())
    }

    fn missing_image(&self, what: &str, place: u64) -> Error {
        Error::data("MissingImage", format!("the envelope has no {what}")).at(&self.file, place)
    }

    pub(crate) fn finish(self, fields: &[SourceField]) -> Result<ChangeBatch> {
        let rows = self.ops.len();
        let mut schema = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        let mut given: Vec<Option<BooleanBuffer>> = Vec::new();
        let first = self.places.first().copied().unwrap_or_default();
        for ((name, codec), (cells, missing)) in self.codecs.iter().zip(self.cells.iter().zip(&self.missing)) {
            let t = codec.data_type();
            arrays.push(to_array(&t, cells).map_err(|why| wrong_type(name, &why, &self.file, first))?);
            schema.push(Field::new(name, t, true));
            let mut all = vec![true; rows];
            missing.iter().for_each(|&r| all[r] = false);
            given.push((!missing.is_empty()).then(|| BooleanBuffer::from(all)));
        }
        for (f, cells) in fields.iter().zip(&self.order) {
            arrays.push(to_array(&DataType::Int64, cells).map_err(|why| wrong_type(&f.name, &why, &self.file, first))?);
            schema.push(Field::new(&f.name, DataType::Int64, true));
            given.push(None);
        }
        let put_together = |e| Error::internal("envelopes could not be put together").with_source(e);
        let rows = RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays).map_err(put_together)?;
        let mut moves = Vec::new();
        for (row, kind, cells) in self.moves {
            let mut columns: Vec<(String, ArrayRef)> = Vec::new();
            for (name, codec, cell) in cells {
                let array = to_array(&codec.data_type(), &[cell]);
                columns.push((name.clone(), array.map_err(|why| wrong_type(&name, &why, &self.file, first))?));
            }
            moves.push(Move { row, kind, key: RecordBatch::try_from_iter(columns).map_err(put_together)? });
        }
        let completeness = Completeness::Full;
        let (ops, codes, file, places) = (self.ops, self.codes, self.file, self.places);
        Ok(ChangeBatch { rows, ops, codes, given, completeness, rank: 1, moves, file, places })
    }
}

/// A quick look, before anything is decoded: the text, its base64, or a list that may hold either.
fn looks_unavailable(raw: &str) -> bool {
    raw.starts_with("\"__debezium_unav")
        || raw.starts_with("\"X19kZWJleml1bV91bmF2")
        || raw.starts_with("[\"__debezium_unav")
        || raw.starts_with("[95")
}

/// The cell as the codec reads it, or as plain text where a number or time has the placeholder's text in its place.
fn placeholder_cell(codec: &Codec, raw: &str) -> Option<Cell> {
    codec.decode(raw).ok().or_else(|| json::string(raw).map(Cell::Text))
}
