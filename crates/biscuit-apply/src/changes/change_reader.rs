//! The reader of change files of any format.

use std::sync::Arc;

use biscuit_change::internal::{ChunkReader, TextChunk, TextForm};
use biscuit_change::{
    BadRows, ChangeBatch, ChangeFormat, ChangeRecords, DebeziumReader, DmsReader, RefusedRecord, RowsReader,
};
use biscuit_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;

/// Reader of one format.
pub(crate) enum ChangeReader {
    Rows(Box<RowsReader>),
    Debezium(Box<DebeziumReader>),
    Dms(Box<DmsReader>),
}

impl ChangeReader {
    pub(crate) fn new(format: &ChangeFormat) -> Self {
        match format {
            ChangeFormat::Rows(options) => Self::Rows(Box::new(RowsReader::new(options.clone()))),
            ChangeFormat::Debezium(options) => Self::Debezium(Box::new(DebeziumReader::new(options.clone()))),
            ChangeFormat::Dms(options) => Self::Dms(Box::new(DmsReader::new(options.clone()))),
        }
    }

    pub(crate) fn read_record(&mut self, record: &RefusedRecord) -> Result<()> {
        let raw = Bytes::from(record.raw.clone());
        match self {
            Self::Rows(r) => r.read_record(&record.file, record.row, raw),
            Self::Debezium(r) => r.read_record(&record.file, record.row, &raw),
            Self::Dms(r) => r.read_record(&record.file, record.row, raw),
        }
    }

    /// Returns whether key or order are known only when records have been read.
    pub(crate) fn needs_records_for_key(&self) -> bool {
        matches!(self, Self::Debezium(_)) && self.known_key_and_order().is_none()
    }

    /// Returns the key columns and the order columns, as far as they are known.
    pub(crate) fn key_and_order(&self) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Rows(_) => Default::default(),
            Self::Debezium(reader) => owned(reader.key_and_order()),
            Self::Dms(reader) => owned(reader.key_and_order()),
        }
    }

    /// Returns key and order if both are known.
    pub(crate) fn known_key_and_order(&self) -> Option<(Vec<String>, Vec<String>)> {
        Some(self.key_and_order()).filter(|(key, order)| !key.is_empty() && !order.is_empty())
    }

    pub(crate) fn finish(self) -> Result<ChangeRecords> {
        match self {
            Self::Rows(r) => r.finish(),
            Self::Debezium(r) => r.finish(),
            Self::Dms(r) => r.finish(),
        }
    }
}

fn owned((key, order): (&[String], &[String])) -> (Vec<String>, Vec<String>) {
    (key.to_vec(), order.to_vec())
}

/// Calls a method of the reader of any format.
macro_rules! each_format {
    ($reader:expr, $own:ident => $call:expr) => {
        match $reader {
            ChangeReader::Rows($own) => $call,
            ChangeReader::Debezium($own) => $call,
            ChangeReader::Dms($own) => $call,
        }
    };
}

/// Calls a method of the reader of any format with another reader of the same format.
macro_rules! both_formats {
    ($reader:expr, $other:expr, ($own:ident, $of_other:ident) => $call:expr, $otherwise:expr) => {
        match ($reader, $other) {
            (ChangeReader::Rows($own), ChangeReader::Rows($of_other)) => $call,
            (ChangeReader::Debezium($own), ChangeReader::Debezium($of_other)) => $call,
            (ChangeReader::Dms($own), ChangeReader::Dms($of_other)) => $call,
            _ => $otherwise,
        }
    };
}

impl ChunkReader for ChangeReader {
    fn text_form(&mut self, file: &str) -> Result<Option<TextForm>> {
        each_format!(self, reader => reader.text_form(file))
    }

    fn needs_types(&self) -> bool {
        each_format!(self, reader => reader.needs_types())
    }

    fn learn_types(&mut self, chunk: TextChunk) -> Result<()> {
        each_format!(self, reader => reader.learn_types(chunk))
    }

    fn end_types(&mut self, learner: Self) {
        both_formats!(self, learner, (own, learner) => own.end_types(*learner), {});
    }

    fn new_part(&self) -> Option<Self> {
        match self {
            Self::Rows(reader) => reader.new_part().map(|part| Self::Rows(Box::new(part))),
            Self::Debezium(reader) => reader.new_part().map(|part| Self::Debezium(Box::new(part))),
            Self::Dms(reader) => reader.new_part().map(|part| Self::Dms(Box::new(part))),
        }
    }

    fn read_chunk(&mut self, chunk: TextChunk) -> Result<()> {
        each_format!(self, reader => reader.read_chunk(chunk))
    }

    fn read_rows(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        each_format!(self, reader => reader.read_rows(file, rows, first))
    }

    fn add_part(&mut self, part: Self) -> Result<()> {
        both_formats!(self, part, (own, part) => own.add_part(*part), Err(Error::internal("parts of two formats")))
    }

    fn take_batches(&mut self) -> Vec<ChangeBatch> {
        each_format!(self, reader => reader.take_batches())
    }
}

/// Reads quarantined records again. Records that still cannot be read are in `refused` of the result.
pub(crate) fn reread_records(records: &[RefusedRecord], format: &ChangeFormat) -> Result<ChangeRecords> {
    let mut reader = ChangeReader::new(&format.clone().with_bad_rows(BadRows::Quarantine));
    let mut unreadable = Vec::new();
    for record in records {
        match reader.read_record(record) {
            Ok(()) => {}
            // A record without its original form, or of a file that is damaged as a whole, remains as it is.
            Err(e) if e.kind() == ErrorKind::Data => unreadable.push(record.clone()),
            Err(e) => return Err(e),
        }
    }
    let mut changes = reader.finish()?;
    changes.refused.extend(unreadable);
    Ok(changes)
}
