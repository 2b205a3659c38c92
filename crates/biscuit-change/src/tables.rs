use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use bytes::Bytes;

use crate::changes::Changes;
use crate::csv_dialect::CsvDialect;
use crate::csv_rows;
use crate::debezium::DebeziumReader;
use crate::debezium_options::DebeziumOptions;
use crate::dms::{DmsOptions, DmsReader};
use crate::dms_file::{DmsFile, Kind};
use crate::envelope;
use crate::refused::Raws;
use crate::table_name::TableName;
use crate::text::{is_beside_values, text_of};
use crate::units::{Codecs, Unit, each_line};

/// How the records of one of several tables are read.
#[derive(Debug, Clone)]
pub enum TableFormat {
    /// Debezium envelopes, whole or flattened.
    Debezium(DebeziumOptions),
    /// What AWS DMS writes.
    Dms(DmsOptions),
}

/// Reads files of several tables in one pass: each record goes to the reader of its table, which is made when the first of
/// its records comes.
pub struct TablesReader<'a> {
    kind: Readers,
    make: Make<'a>,
    ignored: u64,
    /// Tables of which a record stopped the reading; the others go on.
    failed: BTreeMap<TableName, Error>,
    max_unpacked: Option<u64>,
}

/// Makes the options of a table.
type Make<'a> = Box<dyn FnMut(&TableName) -> Result<TableFormat> + Send + 'a>;

enum Readers {
    Debezium(BTreeMap<TableName, DebeziumReader>),
    Dms(BTreeMap<TableName, DmsReader>),
}

/// The change records of one of several tables, by its name.
pub type OfTable = (TableName, Result<Changes>);

impl fmt::Debug for TablesReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TablesReader").finish_non_exhaustive()
    }
}

/// Refuses records that do not say their table.
///
/// # Errors
/// `UnknownTable`.
fn check_named(table: &TableName) -> Result<()> {
    if !table.table.is_empty() {
        return Ok(());
    }
    let message = "the record does not say its table: name the table with its files, or have the connector write the table's name";
    Err(Error::data("UnknownTable", message))
}

impl<'a> TablesReader<'a> {
    /// A reader of Debezium files; `make` is asked for the options of each table.
    pub fn debezium(mut make: impl FnMut(&TableName) -> Result<DebeziumOptions> + Send + 'a) -> Self {
        let make = Box::new(move |table: &TableName| make(table).map(TableFormat::Debezium));
        Self { kind: Readers::Debezium(BTreeMap::new()), make, ignored: 0, failed: BTreeMap::new(), max_unpacked: None }
    }

    /// A reader of DMS files; `make` is asked for the options of each table.
    pub fn dms(mut make: impl FnMut(&TableName) -> Result<DmsOptions> + Send + 'a) -> Self {
        let make = Box::new(move |table: &TableName| make(table).map(TableFormat::Dms));
        Self { kind: Readers::Dms(BTreeMap::new()), make, ignored: 0, failed: BTreeMap::new(), max_unpacked: None }
    }

    /// The same reader with another limit for what one file is unpacked or decoded to, in bytes; the options of tables have it, too. Default: that of
    /// [`DebeziumOptions::max_unpacked`].
    pub fn with_max_unpacked(mut self, bytes: Option<u64>) -> Self {
        self.max_unpacked = bytes;
        self
    }

    /// Reads one file.
    ///
    /// # Errors
    /// An error about a line that does not say its table, and those about the file; an error about a table is with its
    /// records. `UnknownTable` for a DMS file whose path does not say it.
    pub fn read(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        match self.kind {
            Readers::Debezium(_) if is_beside_values(file) => {
                self.ignored += 1;
                Ok(())
            }
            Readers::Debezium(_) => self.debezium_file(file, bytes),
            Readers::Dms(_) => self.dms_file(file, bytes),
        }
    }

    fn debezium_file(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        let Self { kind: Readers::Debezium(readers), make, ignored, failed, max_unpacked } = self else {
            return Err(Error::internal("a reader of another kind"));
        };
        let name: Arc<str> = file.into();
        let mut part: Option<(Raws, Option<Arc<Codecs>>)> = None;
        each_line(&name, bytes, None, *max_unpacked, &mut |unit| match unit {
            Unit::Begin(raws, of_file) => {
                readers.values_mut().for_each(|r| r.begin(raws, of_file));
                part = Some((raws.clone(), of_file.cloned()));
                Ok(())
            }
            Unit::Line(line, pick, place) => {
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
                        Ok(TableFormat::Debezium(options)) => options,
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
            Unit::End => {
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
        let tables: BTreeSet<TableName> = match (named.kind, named.schema, named.table) {
            (Kind::Transactions, ..) => {
                let text = text_of(file, bytes, self.max_unpacked, None)?;
                let records = csv_rows::records(&text, &file.into(), CsvDialect::default())?;
                let name = |f: &csv::StringRecord| Some(TableName::new(Some(f.get(2)?), f.get(1)?));
                records.iter().filter_map(|(fields, ..)| name(fields)).collect()
            }
            (_, Some(schema), Some(table)) => BTreeSet::from([TableName::new(Some(&schema), &table)]),
            _ => {
                let message = "the path does not say the table: DMS writes `<schema>/<table>/<file>`";
                return Err(Error::data("UnknownTable", message).in_file(file));
            }
        };
        let Self { kind: Readers::Dms(readers), make, failed, .. } = self else {
            return Err(Error::internal("a reader of another kind"));
        };
        for table in tables.into_iter().filter(|t| !failed.contains_key(t)).collect::<Vec<_>>() {
            if !readers.contains_key(&table) {
                let mut options = match check_named(&table).and_then(|()| make(&table)) {
                    Ok(TableFormat::Dms(options)) => options,
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
    pub fn finish(self) -> Vec<OfTable> {
        let failed = self.failed.into_iter().map(|(t, e)| (t, Err(e)));
        let mut all: Vec<OfTable> = match self.kind {
            Readers::Debezium(readers) => readers.into_iter().map(|(t, r)| (t, r.finish())).chain(failed).collect(),
            Readers::Dms(readers) => {
                let alone = |r: DmsReader| r.finish().map(|changes| Changes { other_tables: 0, ..changes });
                readers.into_iter().map(|(t, r)| (t, alone(r))).chain(failed).collect()
            }
        };
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}
