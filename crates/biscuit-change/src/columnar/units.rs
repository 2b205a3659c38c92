use std::ops::Range;
use std::sync::Arc;

use biscuit_core::Result;
use biscuit_merge::internal::RawSource;
use bytes::Bytes;

use crate::columnar::rows::{self, is_columnar};
use crate::records::refused::{QuarantineRule, line_spans, parquet_row};
use crate::values::codec::ValueCodec;
use crate::values::text::json_text;

/// Columns of a table with their codecs.
pub(crate) type ColumnCodecs = Vec<(String, ValueCodec)>;

/// Step of [`each_line`]. Each part of a file is one `Begin`, any number of `Line`s and one `End`.
pub(crate) enum ReadUnit<'a> {
    /// Begin of a part, with the codecs of its columns if the file has a schema.
    Begin(&'a RawSource, Option<&'a Arc<ColumnCodecs>>),
    /// Record as JSON, its position in the part, and its row in the file.
    Line(&'a str, RecordIndex, u64),
    /// End of the part.
    End,
}

/// Reads a file as lines of JSON. Rows of Parquet and Avro files are converted to the JSON that Kafka Connect would
/// write, and keep the types of the file as codecs.
pub(crate) fn each_line(
    file: &Arc<str>,
    bytes: &Bytes,
    row: Option<u64>,
    max_decompressed: Option<u64>,
    step: &mut dyn FnMut(ReadUnit<'_>) -> Result<()>,
) -> Result<()> {
    if is_columnar(bytes) {
        // The parts need not keep raw records, because `Begin` passes the rows themselves on.
        for part in rows::read_parts(file, bytes.clone(), &QuarantineRule::default(), row, max_decompressed)? {
            let part = part?;
            let codecs = Arc::new(rows::find_codecs(&part.batch));
            step(ReadUnit::Begin(&RawSource::Rows { rows: part.batch.clone(), encode: parquet_row }, Some(&codecs)))?;
            for (i, &place) in part.places.iter().enumerate() {
                let pick = RecordIndex::Row(u32::try_from(i).expect("a batch has fewer than 2^32 rows"));
                step(ReadUnit::Line(&rows::row_as_json(&part.batch, i)?, pick, place))?;
            }
            step(ReadUnit::End)?;
        }
        return Ok(());
    }
    let text: Arc<str> = json_text(file, bytes, max_decompressed, None)?.into();
    step(ReadUnit::Begin(&RawSource::Text { text: text.clone(), header: None, spans: vec![] }, None))?;
    for (place, span) in line_spans(&text) {
        step(ReadUnit::Line(&text[span.clone()], RecordIndex::Span(span), row.unwrap_or(place)))?;
    }
    step(ReadUnit::End)
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
