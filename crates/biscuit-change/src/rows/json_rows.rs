//! Lines of JSON as rows with typed columns.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use biscuit_core::{Error, Result};
use biscuit_merge::internal::RawSource;
use biscuit_merge::{PLACEHOLDER, RefusedRecord};
use biscuit_schema::internal::{MAX_FIELDS, check_names};
use biscuit_schema::{ContractColumn, SchemaInference};

use crate::files::chunks::TextChunk;
use crate::files::lines::too_long;
use crate::json::object;
use crate::json::scanner::{ByName, JsonField, JsonScanner};
use crate::records::change_records::ChangeRecords;
use crate::records::refused::{QuarantineRule, RowsInProgress, line_spans};
use crate::values::cells::{Cell, CellDecoder, DecodedCells};
use crate::values::codec::{self, ValueCodec, ValuePosition};
use crate::values::declared::{LossCounter, RowPlaces, RowTyping, as_written, coerce_values};
use crate::values::text::{InvalidValue, two_fields, wrong_type};

/// Maximum number of rows in a batch.
const BATCH_ROWS: usize = 65_536;

/// Function that returns the column of a name in the lines; `None` if its values are not needed.
pub(crate) type ColumnByName<'a> = &'a mut dyn FnMut(&str) -> Result<Option<ContractColumn>>;

/// A chunk with lines of JSON.
pub(crate) struct JsonRows {
    file: Arc<str>,
    text: Arc<String>,
    first: u64,
    only: Option<u64>,
    max_record: usize,
}

impl JsonRows {
    /// Creates the rows of a chunk.
    ///
    /// # Errors
    /// `InvalidText`.
    pub(crate) fn new(mut chunk: TextChunk) -> Result<Self> {
        let text = chunk.take_text()?;
        let TextChunk { file, first, only, max_record, .. } = chunk;
        Ok(Self { file, text, first, only, max_record })
    }

    /// Returns the lines, which are read one batch after the other.
    pub(crate) fn lines(&mut self) -> JsonLines<'_> {
        let (first, only) = (self.first, self.only);
        let spans = line_spans(&self.text).map(move |(line, span)| (only.unwrap_or(first + line - 1), span));
        JsonLines { rows: self, lines: Box::new(spans) }
    }
}

/// Lines of a chunk that were not read yet.
pub(crate) struct JsonLines<'a> {
    rows: &'a JsonRows,
    lines: Box<dyn Iterator<Item = (u64, Range<usize>)> + 'a>,
}

impl JsonLines<'_> {
    /// Returns the next batch of rows; `None` at the end. Lines without the field `op` are counted. Invalid lines are
    /// quarantined if `rule` allows it, and invalid values become null if the contract allows it.
    ///
    /// # Errors
    /// `InvalidJson`, `DuplicateColumn`, `TooDeep`, `TooLarge`, `TooManyColumns`, `WrongType` and others about a line
    /// that is not quarantined; errors of `column`.
    pub(crate) fn next_part(
        &mut self,
        scanner: &mut JsonScanner,
        column: ColumnByName<'_>,
        op: Option<&str>,
        rule: &QuarantineRule,
        changes: &mut ChangeRecords,
    ) -> Result<Option<RowsInProgress>> {
        let mut found = FoundLines::new(self.rows);
        while found.places.len() < BATCH_ROWS {
            let Some((place, span)) = self.lines.next() else { break };
            let line = &self.rows.text[span.clone()];
            // A Kafka tombstone, which has no row.
            if line.trim() == "null" {
                changes.ignored += 1;
                continue;
            }
            if let Err(e) = found.add_line(scanner, place, span, column) {
                if !rule.covers(&e) {
                    // An invalid value in a line before takes precedence.
                    return found.into_rows(rule, changes).and(Err(e));
                }
                let raw = format!("{line}\n").into_bytes();
                changes.refused.push(RefusedRecord::new(&self.rows.file, place, &e, raw));
            }
        }
        if found.places.is_empty() {
            return Ok(None);
        }
        changes.without_op += op.map_or(0, |op| found.count_without(op));
        found.into_rows(rule, changes).map(Some)
    }
}

/// Lines that become a batch: for each column, where its values are.
struct FoundLines<'a> {
    rows: &'a JsonRows,
    places: Vec<u64>,
    spans: Vec<Range<usize>>,
    columns: Vec<LineColumn>,
    targets: ByName<FieldTarget>,
}

/// Where the values of a name go.
#[derive(Clone, Copy)]
enum FieldTarget {
    /// Index in `columns`.
    Column(usize),
    Dropped,
}

struct LineColumn {
    column: ContractColumn,
    cells: Vec<Cell>,
}

impl<'a> FoundLines<'a> {
    fn new(rows: &'a JsonRows) -> Self {
        Self { rows, places: vec![], spans: vec![], columns: vec![], targets: ByName::default() }
    }

    /// Adds a line. If it returns an error, nothing was added.
    fn add_line(
        &mut self,
        scanner: &mut JsonScanner,
        place: u64,
        span: Range<usize>,
        column: ColumnByName<'_>,
    ) -> Result<()> {
        let rows = self.places.len();
        self.add_cells(scanner, place, &span, column).inspect_err(|_| {
            self.columns.iter_mut().for_each(|column| column.cells.truncate(rows));
        })?;
        self.places.push(place);
        self.spans.push(span);
        Ok(())
    }

    /// Adds the cells of a line, maybe not all of them if there is an error.
    fn add_cells(
        &mut self,
        scanner: &mut JsonScanner,
        place: u64,
        span: &Range<usize>,
        column: ColumnByName<'_>,
    ) -> Result<()> {
        let (file, row) = (&self.rows.file, self.places.len());
        let line = &self.rows.text[span.clone()];
        if line.len() > self.rows.max_record {
            return Err(too_long(file, place, self.rows.max_record));
        }
        let Some(object) = scanner.scan(line) else { return Err(object::refused_line(line, file, place)) };
        for field in object.fields() {
            let target = match self.targets.get(field) {
                Some(target) => target,
                None => match self.resolve_field(field, column) {
                    Err(e) if e.file().is_none() => return Err(e.at(&self.rows.file, place)),
                    resolved => resolved?,
                },
            };
            let FieldTarget::Column(at) = target else { continue };
            let cells = &mut self.columns[at].cells;
            if cells.len() > row {
                let name = &self.columns[at].column.name;
                return Err(two_fields(name).at(file, place));
            }
            cells.resize(row, Cell::NULL);
            let value = field.value.span();
            cells.push(Cell::at(span.start + value.start..span.start + value.end));
        }
        Ok(())
    }

    fn resolve_field(&mut self, field: JsonField<'_>, column: ColumnByName<'_>) -> Result<FieldTarget> {
        let target = match column(field.name())? {
            None => FieldTarget::Dropped,
            Some(column) => {
                // Names in another letter case, and former names, belong to the same column of a contract.
                let known = self.columns.iter().position(|known| known.column.name == column.name);
                if known.is_none() && self.columns.len() == MAX_FIELDS {
                    let message = format!("the rows have more than {MAX_FIELDS} columns");
                    return Err(Error::new(biscuit_schema::codes::TOO_MANY_COLUMNS, message));
                }
                FieldTarget::Column(known.unwrap_or_else(|| {
                    self.columns.push(LineColumn { column, cells: vec![] });
                    self.columns.len() - 1
                }))
            }
        };
        self.targets.set(field, target);
        Ok(target)
    }

    /// Returns the number of lines that do not have a column.
    fn count_without(&self, name: &str) -> u64 {
        let column = self.columns.iter().find(|column| column.column.name == name);
        let with = column.map_or(0, |column| column.cells.iter().filter(|cell| **cell != Cell::NULL).count());
        (self.places.len() - with) as u64
    }

    /// Converts the lines to rows, column by column.
    fn into_rows(mut self, rule: &QuarantineRule, changes: &mut ChangeRecords) -> Result<RowsInProgress> {
        let (file, rows) = (self.rows.file.clone(), self.places.len());
        let columns = std::mem::take(&mut self.columns);
        let mut bad = vec![false; rows];
        let mut refuse = |row: usize, e: Error| {
            if !std::mem::replace(&mut bad[row], true) {
                if !rule.covers(&e) {
                    return Err(e);
                }
                let line = format!("{}\n", &self.rows.text[self.spans[row].clone()]);
                changes.refused.push(RefusedRecord::new(&file, self.places[row], &e, line.into_bytes()));
            }
            Ok(())
        };
        let mut lost = LossCounter::default();
        let mut fields = Vec::with_capacity(columns.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
        for LineColumn { column, mut cells } in columns {
            cells.resize(rows, Cell::NULL);
            let first = self.places.first().copied().unwrap_or_default();
            let decoded = decode_column(&column, &cells, &self.rows.text, &mut lost.dropped);
            let decoded = decoded.map_err(|reason| wrong_type(&column.name, reason, &file, first))?;
            for (row, reason) in decoded.invalid {
                let is_placeholder = cells[row].raw(&self.rows.text).is_some_and(|raw| raw.contains(PLACEHOLDER));
                if !lost.sets_null(&column, reason.code().name(), is_placeholder) {
                    refuse(row, wrong_type(&column.name, reason, &file, self.places[row]))?;
                }
            }
            let at = RowPlaces { file: &file, places: &self.places };
            let (array, faults) = coerce_values(&column, &decoded.array, at, &mut lost)?;
            faults.into_iter().try_for_each(|(row, e)| refuse(row, e))?;
            fields.push(Field::new(&column.name, array.data_type().clone(), true));
            arrays.push(array);
        }
        changes.add_losses(lost);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::new(fields));
        check_names(&schema, &format!("`{file}`"))?;
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|e| Error::internal("cannot build a batch of JSON rows").with_source(e))?;
        let (text, spans) = (self.rows.text.clone(), self.spans);
        let raws = rule.may_quarantine().then_some(RawSource::Text { text, header: None, spans });
        RowsInProgress { batch, places: self.places, raws, typing: RowTyping::Coerced }.without_rows(&bad)
    }
}

/// Decodes a column as it is written, to be coerced to its type.
fn decode_column(
    column: &ContractColumn,
    cells: &[Cell],
    text: &str,
    dropped: &mut Vec<String>,
) -> Result<DecodedCells, InvalidValue> {
    let t = as_written(column.column_type.arrow());
    let mut decoder = match &t {
        DataType::Utf8 => CellDecoder::of_column(&ValueCodec::Written(t.clone()), column.column_type.arrow()),
        t => CellDecoder::each(t.clone()),
    };
    let at = ValuePosition { name: &column.name, inside: None };
    decoder.append(cells, text, &mut |raw| codec::as_written(&t, raw, at, dropped));
    decoder.finish()
}

/// Adds the values of the columns for which `is_wanted` returns true to an inference. Lines that are not an object are
/// skipped: they are errors when they are read.
pub(crate) fn infer_lines(
    chunk: &TextChunk,
    scanner: &mut JsonScanner,
    is_wanted: &dyn Fn(&str) -> bool,
    inference: &mut SchemaInference,
) -> Result<()> {
    let text = chunk.as_text()?;
    let mut wanted = ByName::default();
    for (line, span) in line_spans(text) {
        let Some(object) = scanner.scan(&text[span]) else { continue };
        for field in object.fields() {
            let is_wanted = wanted.get(field).unwrap_or_else(|| {
                let is_wanted = is_wanted(field.name());
                wanted.set(field, is_wanted);
                is_wanted
            });
            if is_wanted {
                let place = chunk.only.unwrap_or(chunk.first + line - 1);
                inference.add_json_value(&chunk.file, place, field.name(), field.value.raw());
            }
        }
    }
    Ok(())
}
