//! The reader of change files of any format.

use std::sync::Arc;

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

    pub(crate) fn read(&mut self, name: &str, bytes: Bytes) -> Result<()> {
        match self {
            Self::Rows(r) => r.read(name, bytes),
            Self::Debezium(r) => r.read(name, &bytes),
            Self::Dms(r) => r.read(name, bytes),
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

    /// Whether the reader takes decoded rows. Debezium envelopes are read from text.
    pub(crate) fn accepts_rows(&self) -> bool {
        !matches!(self, Self::Debezium(_))
    }

    /// Whether a file belongs to the table that is read.
    pub(crate) fn wants_file(&mut self, name: &str) -> Result<bool> {
        match self {
            Self::Dms(r) => r.wants_file(name),
            _ => Ok(true),
        }
    }

    pub(crate) fn read_batch(&mut self, name: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        match self {
            Self::Rows(r) => r.read_batch(name, rows, first),
            Self::Dms(r) => r.read_batch(name, rows, first),
            Self::Debezium(_) => Err(Error::internal("envelopes cannot be read from decoded rows")),
        }
    }

    pub(crate) fn take_batches(&mut self) -> Vec<ChangeBatch> {
        match self {
            Self::Rows(r) => r.take_batches(),
            Self::Dms(r) => r.take_batches(),
            Self::Debezium(_) => vec![],
        }
    }

    pub(crate) fn finish(self) -> Result<ChangeRecords> {
        match self {
            Self::Rows(r) => r.finish(),
            Self::Debezium(r) => r.finish(),
            Self::Dms(r) => r.finish(),
        }
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
