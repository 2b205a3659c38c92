//! Reads files with records of several tables in one pass: each record is passed to the reader of its table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::{Error, Result};
use biscuit_merge::ChangeBatch;
use bytes::Bytes;

use crate::codes;
use crate::csv::dialect::CsvDialect;
use crate::csv::records;
use crate::debezium::envelope::{self, ChangeEvent};
use crate::debezium::options::DebeziumOptions;
use crate::debezium::reader::DebeziumReader;
use crate::dms::file_name::{DmsFile, DmsFileKind};
use crate::dms::options::DmsOptions;
use crate::dms::reader::DmsReader;
use crate::files::chunks::{RecordSeparation, TextChunk, TextChunks, TextSettings};
use crate::files::lines::{Line, LinePart, each_part};
use crate::files::parts::{ChunkReader, TableChunkReader, TextForm};
use crate::json::scanner::JsonScanner;
use crate::records::change_records::ChangeRecords;
use crate::tables::name::SourceTable;
use crate::values::text::is_key_or_header_file;

/// Format and options for the records of one table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TableRecordFormat {
    /// Debezium envelopes, whole or flattened.
    Debezium(DebeziumOptions),
    /// Files of AWS DMS.
    Dms(DmsOptions),
}

/// Reads files of several tables in one pass. Each record is passed to the reader of its table, which is created at
/// the first record of the table.
///
/// An error in the records of one table ends the reading of this table only.
///
/// ```
/// use biscuit_change::{DebeziumOptions, TablesReader};
/// use biscuit_schema::Contract;
///
/// let contract = Contract::from_json(r#"{"key": ["id"], "columns": [{"name": "id", "type": "bigint"}]}"#)?;
/// let mut reader = TablesReader::debezium(|_| Ok(DebeziumOptions::default().with_contract(contract.clone())));
/// for (table, lsn) in [("orders", 7), ("lines", 8), ("orders", 9)] {
///     let source = format!(r#"{{"schema":"public","table":"{table}","lsn":{lsn}}}"#);
///     let value = format!(r#"{{"op":"c","before":null,"after":{{"id":{lsn}}},"source":{source}}}"#);
///     reader.read("a.jsonl", &value.into())?;
/// }
///
/// for (table, changes) in reader.finish() {
///     assert_eq!(changes?.len(), if table.to_string() == "public.orders" { 2 } else { 1 });
/// }
/// # Ok::<(), biscuit_core::Error>(())
/// ```
pub struct TablesReader<'a> {
    kind: TableReaders,
    make: ReaderFactory<'a>,
    ignored: u64,
    /// Tables whose reading ended with an error. Further records of these tables are skipped.
    failed: BTreeMap<SourceTable, Error>,
    settings: TextSettings,
    scanner: JsonScanner,
}

/// Function that returns the options of a table.
type ReaderFactory<'a> = Box<dyn FnMut(&SourceTable) -> Result<TableRecordFormat> + Send + 'a>;

enum TableReaders {
    Debezium(BTreeMap<SourceTable, DebeziumReader>),
    Dms(BTreeMap<SourceTable, DmsReader>),
}

/// Name and change records of one table, or the error that ended its reading.
pub type TableChanges = (SourceTable, Result<ChangeRecords>);

impl fmt::Debug for TablesReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TablesReader").finish_non_exhaustive()
    }
}

/// Refuses records that do not contain the name of their table.
///
/// # Errors
/// `UnnamedTable`.
fn check_named(table: &SourceTable) -> Result<()> {
    if !table.table.is_empty() {
        return Ok(());
    }
    let message = "the record does not contain the name of its table; name one table for these files, or let the connector write the name";
    Err(Error::new(codes::UNNAMED_TABLE, message))
}

/// Passes an event to the reader of its table, which is created at the first event of the table.
fn add_event(
    readers: &mut BTreeMap<SourceTable, DebeziumReader>,
    failed: &mut BTreeMap<SourceTable, Error>,
    make: &mut ReaderFactory<'_>,
    event: &ChangeEvent<'_>,
    line: &Line<'_>,
    part: &LinePart,
    file: &Arc<str>,
) -> Result<()> {
    let table = event.table_name();
    if failed.contains_key(&table) {
        return Ok(());
    }
    if !readers.contains_key(&table) {
        let mut options = match check_named(&table).and_then(|()| make(&table)) {
            Ok(TableRecordFormat::Debezium(options)) => options,
            Ok(_) => return Err(Error::internal("options of another kind")),
            Err(e) => {
                failed.insert(table, e.at(file, line.place));
                return Ok(());
            }
        };
        options.table = Some(table.to_string());
        let mut reader = DebeziumReader::new(options);
        reader.begin_part(part);
        readers.insert(table.clone(), reader);
    }
    let reader = readers.get_mut(&table).expect("the reader was inserted above");
    let read = reader.add_event(event, line, file);
    if let Err(e) = read.or_else(|e| reader.refuse_record(e, file, line.place, &line.pick)) {
        readers.remove(&table);
        failed.insert(table, e);
    }
    Ok(())
}

impl<'a> TablesReader<'a> {
    /// Creates a reader of Debezium files; `make` returns the options of each table.
    pub fn debezium(mut make: impl FnMut(&SourceTable) -> Result<DebeziumOptions> + Send + 'a) -> Self {
        let make = Box::new(move |table: &SourceTable| make(table).map(TableRecordFormat::Debezium));
        Self {
            kind: TableReaders::Debezium(BTreeMap::new()),
            make,
            ignored: 0,
            failed: BTreeMap::new(),
            settings: TextSettings::default(),
            scanner: JsonScanner::default(),
        }
    }

    /// Creates a reader of DMS files; `make` returns the options of each table.
    pub fn dms(mut make: impl FnMut(&SourceTable) -> Result<DmsOptions> + Send + 'a) -> Self {
        let make = Box::new(move |table: &SourceTable| make(table).map(TableRecordFormat::Dms));
        Self {
            kind: TableReaders::Dms(BTreeMap::new()),
            make,
            ignored: 0,
            failed: BTreeMap::new(),
            settings: TextSettings::default(),
            scanner: JsonScanner::default(),
        }
    }

    /// Sets the maximum size of one file after decompression or decoding, in bytes. Beyond it, the file is refused
    /// with `TooLarge`. DMS files of one table are read with the limit in the options of the table, which is set
    /// separately. Default: see [`DebeziumOptions::max_decompressed`].
    #[must_use]
    pub fn with_max_decompressed(mut self, bytes: Option<u64>) -> Self {
        self.settings.max_decompressed = bytes;
        self
    }

    /// Sets the maximum size of one record in a text file, in bytes. A larger record is refused with `TooLarge`.
    /// Default: see [`DebeziumOptions::max_record`].
    #[must_use]
    pub fn with_max_record(mut self, bytes: Option<u64>) -> Self {
        self.settings.max_record = bytes;
        self
    }

    /// Reads one file.
    ///
    /// # Errors
    /// Errors about the file, and about a line that is not a record. `UnnamedTable` for a DMS file whose path does
    /// not contain the table. An error about the records of a table is in the result of that table; see
    /// [`finish`](Self::finish).
    pub fn read(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        match self.kind {
            TableReaders::Debezium(_) if is_key_or_header_file(file) => {
                self.ignored += 1;
                Ok(())
            }
            TableReaders::Debezium(_) => self.debezium_file(file, bytes),
            TableReaders::Dms(_) => self.dms_file(file, bytes),
        }
    }

    fn debezium_file(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        let (name, settings): (Arc<str>, _) = (file.into(), self.settings);
        each_part(&name, bytes, None, &settings, &mut |part| self.debezium_part(&part, &name))
    }

    fn debezium_part(&mut self, part: &LinePart, name: &Arc<str>) -> Result<()> {
        let Self { kind: TableReaders::Debezium(readers), make, ignored, failed, scanner, .. } = self else {
            return Err(Error::internal("a reader of another kind"));
        };
        readers.values_mut().for_each(|reader| reader.begin_part(part));
        for line in part.lines() {
            part.check_size(&line, name)?;
            match envelope::parse(scanner, line.text, name, line.place)? {
                Some(event) => add_event(readers, failed, make, &event, &line, part, name)?,
                None => *ignored += 1,
            }
        }
        let flushed: Vec<_> = readers.iter_mut().map(|(t, r)| (t.clone(), r.finish_batch())).collect();
        for (table, e) in flushed.into_iter().filter_map(|(t, r)| Some((t, r.err()?))) {
            readers.remove(&table);
            failed.insert(table, e);
        }
        Ok(())
    }

    fn dms_file(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        let named = DmsFile::parse(file);
        let tables: BTreeSet<SourceTable> = match (named.kind, named.schema, named.table) {
            (DmsFileKind::Transactions, ..) => {
                let (name, separation) = (Arc::from(file), RecordSeparation::Csv(CsvDialect::default()));
                let mut chunks = TextChunks::of_bytes(&name, bytes, separation, &self.settings, None)?;
                let table = |f: &csv::StringRecord| Some(SourceTable::new(Some(f.get(2)?), f.get(1)?));
                let mut tables = BTreeSet::new();
                while let Some(chunk) = chunks.next_chunk()? {
                    let records = records::parse_records(chunk.as_text()?, &name, chunk.first, CsvDialect::default())?;
                    tables.extend(records.iter().filter_map(|(fields, ..)| table(fields)));
                }
                tables
            }
            (_, Some(schema), Some(table)) => BTreeSet::from([SourceTable::new(Some(&schema), &table)]),
            _ => {
                let message = "the path does not contain the table; DMS writes `<schema>/<table>/<file>`";
                return Err(Error::new(codes::UNNAMED_TABLE, message).in_file(file));
            }
        };
        let Self { kind: TableReaders::Dms(readers), make, failed, .. } = self else {
            return Err(Error::internal("a reader of another kind"));
        };
        for table in tables.into_iter().filter(|t| !failed.contains_key(t)).collect::<Vec<_>>() {
            if !readers.contains_key(&table) {
                let mut options = match check_named(&table).and_then(|()| make(&table)) {
                    Ok(TableRecordFormat::Dms(options)) => options,
                    Ok(_) => return Err(Error::internal("options of another kind")),
                    Err(e) => {
                        failed.insert(table, e.in_file(file));
                        continue;
                    }
                };
                options.table = Some(table.to_string());
                readers.insert(table.clone(), DmsReader::new(options));
            }
            if let Err(e) = readers.get_mut(&table).expect("the reader was inserted above").read(file, bytes.clone()) {
                readers.remove(&table);
                failed.insert(table, e);
            }
        }
        Ok(())
    }

    /// Takes the change records that are ready, by table. The others are returned by [`finish`](Self::finish), for example
    /// those from CSV without a contract. If the records of a table cause an error later, those that were taken before do
    /// not count either.
    pub fn take_batches(&mut self) -> Vec<(SourceTable, Vec<ChangeBatch>)> {
        let taken: Vec<_> = match &mut self.kind {
            TableReaders::Debezium(readers) => {
                let taken = readers.iter_mut().map(|(table, reader)| {
                    let batches = reader.take_batches();
                    reader.has_taken |= batches.iter().any(|batch| !batch.ops.is_empty());
                    (table.clone(), batches)
                });
                taken.collect()
            }
            TableReaders::Dms(readers) => {
                readers.iter_mut().map(|(table, reader)| (table.clone(), reader.take_batches())).collect()
            }
        };
        taken.into_iter().filter(|(_, batches)| !batches.is_empty()).collect()
    }

    /// Number of records that are not a change of any table.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Returns the change records of each table, sorted by name. A table whose records caused an error has the error
    /// instead, for example `KeylessRecords` for a table without a key.
    pub fn finish(self) -> Vec<TableChanges> {
        let failed = self.failed.into_iter().map(|(t, e)| (t, Err(e)));
        let mut all: Vec<TableChanges> = match self.kind {
            TableReaders::Debezium(readers) => {
                readers.into_iter().map(|(t, r)| (t, r.finish())).chain(failed).collect()
            }
            TableReaders::Dms(readers) => {
                // In one pass, records of other tables are not skipped: they are in the results of their tables.
                let alone = |r: DmsReader| r.finish().map(|changes| ChangeRecords { other_tables: 0, ..changes });
                readers.into_iter().map(|(t, r)| (t, alone(r))).chain(failed).collect()
            }
        };
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl TableChunkReader for TablesReader<'_> {
    fn text_form(&self, file: &str) -> Option<TextForm> {
        match self.kind {
            TableReaders::Debezium(_) if !is_key_or_header_file(file) => {
                Some(TextForm { separation: RecordSeparation::Json, settings: self.settings })
            }
            _ => None,
        }
    }

    fn read_chunk(&mut self, chunk: TextChunk) -> Result<()> {
        let file = chunk.file.clone();
        self.debezium_part(&LinePart::from_chunk(chunk)?, &file)
    }

    fn read_rows(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        let places = (first..first + rows.num_rows() as u64).collect();
        self.debezium_part(&LinePart::from_rows(rows, places)?, file)
    }
}
