use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use bytes::Bytes;

use crate::columnar::units::{ColumnCodecs, ReadUnit, each_line};
use crate::csv::dialect::CsvDialect;
use crate::csv::records;
use crate::debezium::envelope;
use crate::debezium::options::DebeziumOptions;
use crate::debezium::reader::DebeziumReader;
use crate::dms::file_name::{DmsFile, DmsFileKind};
use crate::dms::reader::{DmsOptions, DmsReader};
use crate::records::change_records::ChangeRecords;
use crate::records::refused::RawSource;
use crate::tables::name::SourceTable;
use crate::values::text::{is_beside_values, text_of};

/// How the records of one of several tables are read.
#[derive(Debug, Clone)]
pub enum TableRecordFormat {
    /// Debezium envelopes, whole or flattened.
    Debezium(DebeziumOptions),
    /// What AWS DMS writes.
    Dms(DmsOptions),
}

/// Reads files of several tables in one pass: each record goes to the reader of its table, which is made when the first of
/// its records comes.
pub struct TablesReader<'a> {
    kind: TableReaders,
    make: ReaderFactory<'a>,
    ignored: u64,
    /// Tables of which a record stopped the reading; the others go on.
    failed: BTreeMap<SourceTable, Error>,
    max_decompressed: Option<u64>,
}

/// Makes the options of a table.
type ReaderFactory<'a> = Box<dyn FnMut(&SourceTable) -> Result<TableRecordFormat> + Send + 'a>;

enum TableReaders {
    Debezium(BTreeMap<SourceTable, DebeziumReader>),
    Dms(BTreeMap<SourceTable, DmsReader>),
}

/// The change records of one of several tables, by its name.
pub type TableChanges = (SourceTable, Result<ChangeRecords>);

impl fmt::Debug for TablesReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TablesReader").finish_non_exhaustive()
    }
}

/// Refuses records that do not say their table.
///
/// # Errors
/// `UnknownTable`.
fn check_named(table: &SourceTable) -> Result<()> {
    if !table.table.is_empty() {
        return Ok(());
    }
    let message = "the record does not say its table: name the table with its files, or have the connector write the table's name";
    Err(Error::data("UnknownTable", message))
}

impl<'a> TablesReader<'a> {
    /// A reader of Debezium files; `make` is asked for the options of each table.
    pub fn debezium(mut make: impl FnMut(&SourceTable) -> Result<DebeziumOptions> + Send + 'a) -> Self {
        let make = Box::new(move |table: &SourceTable| make(table).map(TableRecordFormat::Debezium));
        Self {
            kind: TableReaders::Debezium(BTreeMap::new()),
            make,
            ignored: 0,
            failed: BTreeMap::new(),
            max_decompressed: None,
        }
    }

    /// A reader of DMS files; `make` is asked for the options of each table.
    pub fn dms(mut make: impl FnMut(&SourceTable) -> Result<DmsOptions> + Send + 'a) -> Self {
        let make = Box::new(move |table: &SourceTable| make(table).map(TableRecordFormat::Dms));
        Self {
            kind: TableReaders::Dms(BTreeMap::new()),
            make,
            ignored: 0,
            failed: BTreeMap::new(),
            max_decompressed: None,
        }
    }

    /// The same reader with another limit for what one file is unpacked or decoded to, in bytes; the options of tables have it, too. Default: that of
    /// [`DebeziumOptions::max_decompressed`].
    pub fn with_max_decompressed(mut self, bytes: Option<u64>) -> Self {
        self.max_decompressed = bytes;
        self
    }

    /// Reads one file.
    ///
    /// # Errors
    /// An error about a line that does not say its table, and those about the file; an error about a table is with its
    /// records. `UnknownTable` for a DMS file whose path does not say it.
    pub fn read(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        match self.kind {
            TableReaders::Debezium(_) if is_beside_values(file) => {
                self.ignored += 1;
                Ok(())
            }
            TableReaders::Debezium(_) => self.debezium_file(file, bytes),
            TableReaders::Dms(_) => self.dms_file(file, bytes),
        }
    }

    fn debezium_file(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        let Self { kind: TableReaders::Debezium(readers), make, ignored, failed, max_decompressed } = self else {
            return Err(Error::internal("a reader of another kind"));
        };
        let name: Arc<str> = file.into();
        let mut part: Option<(RawSource, Option<Arc<ColumnCodecs>>)> = None;
        each_line(&name, bytes, None, *max_decompressed, &mut |unit| match unit {
            ReadUnit::Begin(raws, of_file) => {
                readers.values_mut().for_each(|r| r.begin(raws, of_file));
                part = Some((raws.clone(), of_file.cloned()));
                Ok(())
            }
            ReadUnit::Line(line, pick, place) => {
                let Some(event) = envelope::parse(line, &name, place)? else {
                    *ignored += 1;
                    return Ok(());
                };
                let table = event.table_name();
                if failed.contains_key(&table) {
                    return Ok(());
                }
                if !readers.contains_key(&table) {
                    let mut options = match check_named(&table).and_then(|()| make(&table)) {
                        Ok(TableRecordFormat::Debezium(options)) => options,
                        Ok(_) => return Err(Error::internal("options of another kind")),
                        Err(e) => {
                            failed.insert(table, e.at(&name, place));
                            return Ok(());
                        }
                    };
                    options.table = Some(table.to_string());
                    let mut reader = DebeziumReader::new(options);
                    part.iter().for_each(|(raws, of_file)| reader.begin(raws, of_file.as_ref()));
                    readers.insert(table.clone(), reader);
                }
                let reader = readers.get_mut(&table).expect("it was made above");
                let read = reader.event(&event, pick.clone(), &name, place);
                if let Err(e) = read.or_else(|e| reader.refuse(e, &name, place, &pick)) {
                    readers.remove(&table);
                    failed.insert(table, e);
                }
                Ok(())
            }
            ReadUnit::End => {
                let flushed: Vec<_> = readers.iter_mut().map(|(t, r)| (t.clone(), r.flush())).collect();
                for (table, e) in flushed.into_iter().filter_map(|(t, r)| Some((t, r.err()?))) {
                    readers.remove(&table);
                    failed.insert(table, e);
                }
                Ok(())
            }
        })
    }

    fn dms_file(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        let named = DmsFile::of(file);
        let tables: BTreeSet<SourceTable> = match (named.kind, named.schema, named.table) {
            (DmsFileKind::Transactions, ..) => {
                let text = text_of(file, bytes, self.max_decompressed, None)?;
                let records = records::records(&text, &file.into(), CsvDialect::default())?;
                let name = |f: &csv::StringRecord| Some(SourceTable::new(Some(f.get(2)?), f.get(1)?));
                records.iter().filter_map(|(fields, ..)| name(fields)).collect()
            }
            (_, Some(schema), Some(table)) => BTreeSet::from([SourceTable::new(Some(&schema), &table)]),
            _ => {
                let message = "the path does not say the table: DMS writes `<schema>/<table>/<file>`";
                return Err(Error::data("UnknownTable", message).in_file(file));
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
            if let Err(e) = readers.get_mut(&table).expect("it was made above").read(file, bytes.clone()) {
                readers.remove(&table);
                failed.insert(table, e);
            }
        }
        Ok(())
    }

    /// Records that are no change of any table.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The change records of every table, by name, each with its own error if it has one: `NoKey` for a table without a
    /// key, and so on.
    pub fn finish(self) -> Vec<TableChanges> {
        let failed = self.failed.into_iter().map(|(t, e)| (t, Err(e)));
        let mut all: Vec<TableChanges> = match self.kind {
            TableReaders::Debezium(readers) => {
                readers.into_iter().map(|(t, r)| (t, r.finish())).chain(failed).collect()
            }
            TableReaders::Dms(readers) => {
                let alone = |r: DmsReader| r.finish().map(|changes| ChangeRecords { other_tables: 0, ..changes });
                readers.into_iter().map(|(t, r)| (t, alone(r))).chain(failed).collect()
            }
        };
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}
