//! Parts of a file as lines of JSON. Rows of Parquet and Avro files are converted to the JSON that Kafka Connect would
//! write, so that envelopes in all formats are read by the same code.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::{Error, Result};
use biscuit_merge::internal::RawSource;
use bytes::Bytes;

use crate::columnar::rows::{self, is_columnar};
use crate::files::chunks::{RecordSeparation, TextChunk, TextChunks, TextSettings};
use crate::records::refused::{QuarantineRule, line_spans, parquet_row};
use crate::values::codec::ValueCodec;

/// Columns of a table with their codecs.
pub(crate) type ColumnCodecs = Vec<(String, ValueCodec)>;

/// Consecutive records of a file as lines of JSON.
pub(crate) struct LinePart {
    pub(crate) text: Arc<String>,
    /// Records as they are in the file.
    pub(crate) raws: RawSource,
    /// Codecs of the columns, if the file has a schema.
    pub(crate) codecs: Option<Arc<ColumnCodecs>>,
    /// Number of the first line, or of each row.
    places: PartPlaces,
    max_record: usize,
}

enum PartPlaces {
    Lines(u64),
    Rows(Vec<u64>),
}

/// A line of a part.
pub(crate) struct Line<'a> {
    pub(crate) text: &'a str,
    /// Position in the text of the part.
    pub(crate) start: usize,
    /// Line or row in the file, from 1.
    pub(crate) place: u64,
    /// Position in the raw records.
    pub(crate) pick: RecordIndex,
}

impl LinePart {
    /// Creates a part from lines of text.
    ///
    /// # Errors
    /// `InvalidText`.
    pub(crate) fn from_chunk(mut chunk: TextChunk) -> Result<Self> {
        let (first, max_record) = (chunk.only.unwrap_or(chunk.first), chunk.max_record);
        let text = chunk.take_text()?;
        let raws = RawSource::Text { text: text.clone(), header: None, spans: vec![] };
        Ok(Self { text, raws, codecs: None, places: PartPlaces::Lines(first), max_record })
    }

    /// Creates a part from rows of a Parquet or Avro file, with the number of each row in the file.
    ///
    /// # Errors
    /// `Overflow` for a value that has no JSON form.
    pub(crate) fn from_rows(rows: RecordBatch, places: Vec<u64>) -> Result<Self> {
        let mut text = String::new();
        for row in 0..rows.num_rows() {
            rows::write_row_as_json(&rows, row, &mut text)?;
            text.push('\n');
        }
        Ok(Self {
            text: Arc::new(text),
            codecs: Some(Arc::new(rows::find_codecs(&rows))),
            raws: RawSource::Rows { rows, encode: parquet_row },
            places: PartPlaces::Rows(places),
            max_record: usize::MAX,
        })
    }

    /// Returns the lines that are not blank.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        line_spans(&self.text).map(|(line, span)| {
            let (place, pick) = match &self.places {
                PartPlaces::Lines(first) => (first + line - 1, RecordIndex::Span(span.clone())),
                PartPlaces::Rows(places) => {
                    let row = usize::try_from(line - 1).expect("a batch has fewer than 2^32 rows");
                    (places[row], RecordIndex::Row(row as u32))
                }
            };
            Line { text: &self.text[span.clone()], start: span.start, place, pick }
        })
    }

    /// Refuses a line with more bytes than allowed.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(crate) fn check_size(&self, line: &Line<'_>, file: &str) -> Result<()> {
        match line.text.len() > self.max_record {
            true => Err(too_long(file, line.place, self.max_record)),
            false => Ok(()),
        }
    }
}

/// Error for a record with more bytes than allowed.
pub(crate) fn too_long(file: &str, row: u64, maximum: usize) -> Error {
    let message = format!(
        "the record has more than {maximum} bytes; if it is valid, raise the limit with --max-record or `max_record` of the source"
    );
    Error::new(biscuit_schema::codes::TOO_LARGE, message).at(file, row)
}

/// Reads a file in parts and passes them to `take`. `row` is the row number of a quarantined record that is read
/// again.
///
/// # Errors
/// Errors of the file, and of `take`.
pub(crate) fn each_part(
    file: &Arc<str>,
    bytes: &Bytes,
    row: Option<u64>,
    settings: &TextSettings,
    take: &mut dyn FnMut(LinePart) -> Result<()>,
) -> Result<()> {
    if is_columnar(bytes) {
        // The parts need not keep raw records, because a part has the rows themselves.
        let rows = rows::read_parts(file, bytes.clone(), &QuarantineRule::default(), row, settings.max_decompressed)?;
        for part in rows {
            let part = part?;
            take(LinePart::from_rows(part.batch, part.places)?)?;
        }
        return Ok(());
    }
    let mut chunks = TextChunks::of_bytes(file, bytes, RecordSeparation::Json, settings, row)?;
    while let Some(chunk) = chunks.next_chunk()? {
        take(LinePart::from_chunk(chunk)?)?;
    }
    Ok(())
}

/// Position of a record in the raw records of a part.
#[derive(Debug, Clone)]
pub(crate) enum RecordIndex {
    Span(Range<usize>),
    Row(u32),
}

/// Returns the raw records at these positions.
pub(crate) fn select_raws(raws: &RawSource, picks: Vec<RecordIndex>) -> Result<RawSource> {
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    for pick in picks {
        match pick {
            RecordIndex::Span(span) => all.push(span),
            RecordIndex::Row(row) => rows.push(row),
        }
    }
    match raws {
        RawSource::Text { text, header, .. } => {
            Ok(RawSource::Text { text: text.clone(), header: header.clone(), spans: all })
        }
        RawSource::Rows { .. } | RawSource::Each(_) => raws.select_rows(&rows),
    }
}
