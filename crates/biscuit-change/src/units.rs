use std::ops::Range;
use std::sync::Arc;

use biscuit_core::Result;
use bytes::Bytes;

use crate::codec::Codec;
use crate::columnar::{self, is_columnar};
use crate::refused::{Raws, lines};
use crate::text::json_text;

/// The columns of a table and how they are read.
pub(crate) type Codecs = Vec<(String, Codec)>;

/// A step in the reading of a file.
pub(crate) enum Unit<'a> {
    /// A part of the file, and the codecs of its columns where it holds columns.
    Begin(&'a Raws, Option<&'a Arc<Codecs>>),
    /// A record as JSON, where it is in the part, and its row in the file.
    Line(&'a str, Pick, u64),
    /// The end of the part.
    End,
}

/// Reads a file as lines of JSON. Rows of a file that holds columns are the lines they would be; their types are the
/// file's.
pub(crate) fn each_line(
    file: &Arc<str>,
    bytes: &Bytes,
    row: Option<u64>,
    max_unpacked: Option<u64>,
    step: &mut dyn FnMut(Unit<'_>) -> Result<()>,
) -> Result<()> {
    if is_columnar(bytes) {
        for part in columnar::parts(file, bytes.clone(), false, row, max_unpacked)? {
            let part = part?;
            let codecs = Arc::new(columnar::codecs(&part.batch));
            step(Unit::Begin(&Raws::Rows(part.batch.clone()), Some(&codecs)))?;
            for (i, &place) in part.places.iter().enumerate() {
                let pick = Pick::Row(u32::try_from(i).expect("a batch has fewer than 2^32 rows"));
                step(Unit::Line(&columnar::line(&part.batch, i)?, pick, place))?;
            }
            step(Unit::End)?;
        }
        return Ok(());
    }
    let text: Arc<str> = json_text(file, bytes, max_unpacked, None)?.into();
    step(Unit::Begin(&Raws::Text { text: text.clone(), header: None, spans: vec![] }, None))?;
    for (place, span) in lines(&text) {
        step(Unit::Line(&text[span.clone()], Pick::Span(span), row.unwrap_or(place)))?;
    }
    step(Unit::End)
}

/// Where a record is in what its file was read as.
#[derive(Debug, Clone)]
pub(crate) enum Pick {
    Span(Range<usize>),
    Row(u32),
}

pub(crate) fn picked(raws: &Raws, picks: Vec<Pick>) -> Result<Raws> {
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    for pick in picks {
        match pick {
            Pick::Span(span) => all.push(span),
            Pick::Row(row) => rows.push(row),
        }
    }
    match raws {
        Raws::Text { text, header, .. } => Ok(Raws::Text { text: text.clone(), header: header.clone(), spans: all }),
        Raws::Rows(_) | Raws::Each(_) => raws.pick(&rows),
    }
}
