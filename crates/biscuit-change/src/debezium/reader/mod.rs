//! Reads Debezium envelopes and flattened records from JSON, Parquet and Avro files.
//!
//! Each record is parsed as an event, decoded with the codecs of its schema or contract, and added to a batch. A
//! batch ends with its part of the file, or when the codecs, the file or the log server change.

mod documents;
mod parts;
mod schemas;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_merge::internal::{KNOWN_CODES, RawSource, UnchangedPlaceholder, null_rows};
use biscuit_merge::{ParsedOp, RawRows, RefusedRecord, parse_op};
use biscuit_schema::{Contract, ContractColumn};
use bytes::Bytes;

use crate::codes;
use crate::debezium::contract_columns::coerce_batch;
use crate::debezium::envelope::{self, ChangeEvent};
use crate::debezium::options::DebeziumOptions;
use crate::debezium::reader::documents::DocumentsSoFar;
use crate::debezium::source_field::{SourceField, default_order};
use crate::files::chunks::TextSettings;
use crate::files::lines::{ColumnCodecs, Line, LinePart, RecordIndex, each_part, select_raws};
use crate::json::scanner::{JsonScanner, JsonValue};
use crate::records::builder::{BatchBuilder, BuiltBatch, ReaderContext};
use crate::records::change_records::ChangeRecords;
use crate::records::refused::QuarantineRule;
use crate::tables::name::{SourceTable, check_one, is_one};
use crate::values::codec::ValueCodec;
use crate::values::declared::{LossCounter, RowPlaces, as_written, as_written_in, not_null_columns};
use crate::values::text::is_key_or_header_file;

/// Reads files of Debezium envelopes or flattened records.
///
/// ```
/// use biscuit_change::{DebeziumOptions, DebeziumReader};
/// use biscuit_schema::Contract;
///
/// let contract = Contract::from_json(r#"{"key": ["id"], "columns": [{"name": "id", "type": "bigint"}]}"#)?;
/// let mut reader = DebeziumReader::new(DebeziumOptions::default().with_contract(contract).with_table("public.bill"));
/// let bill = r#"{"op":"c","before":null,"after":{"id":1},"source":{"schema":"public","table":"bill","lsn":7}}"#;
/// let log = r#"{"op":"c","before":null,"after":{"id":2},"source":{"schema":"public","table":"log","lsn":8}}"#;
/// reader.read("a.jsonl", &format!("{bill}\n{log}\n").into())?;
/// let changes = reader.finish()?;
///
/// assert_eq!((changes.len(), changes.other_tables), (1, 1));
/// assert_eq!(changes.order, ["__lsn"]);
/// # Ok::<(), biscuit_core::Error>(())
/// ```
#[derive(Debug)]
pub struct DebeziumReader {
    settings: Arc<DebeziumSettings>,
    /// Codecs by the JSON text of the embedded schema.
    embedded: HashMap<String, Arc<ColumnCodecs>>,
    /// Embedded schema of the last record, with its codecs.
    last_schema: Option<(String, Arc<ColumnCodecs>)>,
    /// Codecs of the current part, if the file is Parquet or Avro.
    of_file: Option<Arc<ColumnCodecs>>,
    /// Fields of `source` that are stored as the order; `None` until the options or the first record determine them.
    fields: Option<Vec<SourceField>>,
    key: Vec<String>,
    /// Record from which this reader learned the key.
    key_place: Option<(Arc<str>, u64)>,
    tables: BTreeSet<SourceTable>,
    /// Operation codes so far.
    known_ops: Vec<(String, ParsedOp)>,
    /// Table of the last record, and whether it is the wanted one.
    last_table: Option<(SourceTable, bool)>,
    building: Option<BatchBuilder>,
    documents: DocumentsSoFar,
    scanner: JsonScanner,
    document_scanner: JsonScanner,
    /// Text of the current part.
    text: Arc<String>,
    /// Raw records of the current part, for quarantined records.
    raws: RawSource,
    changes: ChangeRecords,
    /// Whether records of the table were taken before the end.
    pub(crate) has_taken: bool,
}

/// Settings that do not change while records are read.
#[derive(Debug)]
struct DebeziumSettings {
    options: DebeziumOptions,
    quarantine_rule: QuarantineRule,
    placeholder: Result<UnchangedPlaceholder, Arc<Error>>,
    /// Codecs of the contract, for records without a schema.
    declared: Option<Arc<ColumnCodecs>>,
    /// Codecs of the contract for documents of MongoDB.
    documents: Option<Arc<ColumnCodecs>>,
    not_null: Vec<String>,
}

impl DebeziumReader {
    /// Creates a reader.
    pub fn new(options: DebeziumOptions) -> Self {
        let contract = options.contract.as_ref();
        let declared = contract.map(|c| {
            Arc::new(c.columns.iter().map(|col| (col.name.clone(), ValueCodec::for_column(col, &c.debezium))).collect())
        });
        let of_documents =
            |col: &ContractColumn| (col.name.clone(), ValueCodec::Written(as_written(col.column_type.arrow())));
        let documents = contract.map(|c| Arc::new(c.columns.iter().map(of_documents).collect()));
        let first = |own: &Vec<String>, theirs: fn(&Contract) -> &Vec<String>| match own.is_empty() {
            false => own.clone(),
            true => contract.map(theirs).cloned().unwrap_or_default(),
        };
        let key = first(&options.key, |c| &c.key);
        let order = first(&options.order, |c| &c.order);
        let settings = DebeziumSettings {
            quarantine_rule: QuarantineRule::new(options.bad_rows, options.contract.as_ref()),
            placeholder: UnchangedPlaceholder::new(options.placeholder.as_deref()).map_err(Arc::new),
            not_null: options.contract.as_ref().map(not_null_columns).unwrap_or_default(),
            options,
            declared,
            documents,
        };
        let mut reader = Self {
            settings: Arc::new(settings),
            embedded: HashMap::new(),
            last_schema: None,
            of_file: None,
            fields: None,
            key,
            key_place: None,
            tables: BTreeSet::new(),
            known_ops: vec![],
            last_table: None,
            building: None,
            documents: DocumentsSoFar::default(),
            scanner: JsonScanner::default(),
            document_scanner: JsonScanner::default(),
            text: Arc::default(),
            raws: RawSource::Text { text: Arc::default(), header: None, spans: vec![] },
            changes: ChangeRecords::default(),
            has_taken: false,
        };
        if !order.is_empty() {
            reader.order_by(&order);
        }
        reader
    }

    /// Sets the order. Entries with the prefix `source.` are stored in columns of their own, other entries are
    /// columns of the table.
    fn order_by<S: AsRef<str>>(&mut self, order: &[S]) {
        let mut names = self.settings.options.order_as.iter();
        let mut fields = Vec::new();
        for o in order {
            let name = match o.as_ref().strip_prefix("source.") {
                Some(field) => {
                    let name = names.next().cloned().unwrap_or_else(|| format!("__{field}"));
                    fields.push(SourceField { field: field.to_owned(), name: name.clone() });
                    name
                }
                None => o.as_ref().to_owned(),
            };
            self.changes.order.push(name);
        }
        self.fields = Some(fields);
    }

    /// Reads one file: JSON, plain or compressed, or Parquet or Avro whose rows are envelopes or flattened records.
    ///
    /// # Errors
    /// About a record, with file and line, unless the record is quarantined: `InvalidJson`, `NotAnEnvelope`,
    /// `UntypedRecords`, `UnknownOp`, `WrongType`, `MissingImage`, `KeyDrift`, `AmbiguousPlaceholder`,
    /// `NullNotAllowed`, `ColumnClash`. About the file or the options: `EmptyFile`, `TruncatedInput`, `InvalidText`,
    /// `UnreadableParquet`, `UnreadableAvro`, `InvalidPlaceholder`.
    pub fn read(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        self.read_as(file, bytes, None)
    }

    /// Reads a quarantined record again from [`RefusedRecord::raw`]. The record keeps its row number in the original
    /// file.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub fn read_record(&mut self, file: &str, row: u64, raw: &Bytes) -> Result<()> {
        self.read_as(file, raw, Some(row))
    }

    fn read_as(&mut self, file: &str, bytes: &Bytes, row: Option<u64>) -> Result<()> {
        if is_key_or_header_file(file) {
            self.changes.passed_over.push(file.to_owned());
            return Ok(());
        }
        let name: Arc<str> = file.into();
        let settings = self.text_settings();
        each_part(&name, bytes, row, &settings, &mut |part| self.read_part(&part, &name))
    }

    fn text_settings(&self) -> TextSettings {
        let options = &self.settings.options;
        TextSettings { encoding: None, max_decompressed: options.max_decompressed, max_record: options.max_record }
    }

    fn read_part(&mut self, part: &LinePart, file: &Arc<str>) -> Result<()> {
        self.begin_part(part);
        let refused = self.changes.refused.len();
        for line in part.lines() {
            if let Err(e) = part.check_size(&line, file).and_then(|()| self.read_line(&line, file)) {
                self.refuse_record(e, file, line.place, &line.pick)?;
            }
        }
        self.finish_batch()?;
        self.changes.refused[refused..].sort_by_key(|record| record.row);
        Ok(())
    }

    /// Returns the key columns and the order columns, as far as the options and the records so far determine them.
    pub fn key_and_order(&self) -> (&[String], &[String]) {
        (&self.key, &self.changes.order)
    }

    /// Begins a part of a file.
    pub(crate) fn begin_part(&mut self, part: &LinePart) {
        self.text = part.text.clone();
        self.raws = part.raws.clone();
        self.of_file = part.codecs.as_ref().map(|codecs| {
            let mut codecs = codecs.as_ref().clone();
            self.decode_for_contract(&mut codecs);
            Arc::new(codecs)
        });
    }

    /// Quarantines a record, or returns its error if it is not to be quarantined. An invalid record before it in the
    /// batch, which is found when the batch is finished, takes precedence.
    pub(crate) fn refuse_record(&mut self, e: Error, file: &str, place: u64, pick: &RecordIndex) -> Result<()> {
        if !self.settings.quarantine_rule.covers(&e) {
            self.finish_batch()?;
            return Err(e);
        }
        let raw = select_raws(&self.raws, vec![pick.clone()])?.get(0)?;
        self.changes.refused.push(RefusedRecord::new(file, place, &e, raw));
        Ok(())
    }

    fn read_line(&mut self, line: &Line<'_>, file: &Arc<str>) -> Result<()> {
        // The event borrows the scanner while the rest of the reader changes.
        let mut scanner = std::mem::take(&mut self.scanner);
        let read = match envelope::parse(&mut scanner, line.text, file, line.place) {
            Ok(Some(event)) => self.add_event(&event, line, file),
            Ok(None) => {
                self.changes.ignored += 1;
                Ok(())
            }
            Err(e) => Err(e),
        };
        self.scanner = scanner;
        read
    }

    /// Returns the change records of all files.
    ///
    /// # Errors
    /// `SeveralTables` if the files have records of several tables, or the wanted name matches several;
    /// `KeylessRecords` for a table without a key; `MissingImage` for an update of a MongoDB document without the
    /// document.
    pub fn finish(mut self) -> Result<ChangeRecords> {
        check_one(&self.tables)?;
        self.finish_documents()?;
        if self.key.is_empty() && (self.has_taken || !self.changes.is_empty()) {
            let table = self.tables.first().map_or("the table".to_owned(), ToString::to_string);
            let message = format!(
                "the records of `{table}` have no key, which is required to find the current row; name the key columns if the table has any"
            );
            return Err(Error::new(codes::KEYLESS_RECORDS, message));
        }
        self.changes.key = self.key;
        Ok(self.changes)
    }

    /// Adds an event of the wanted table. `line` is the record in the text of the current part.
    pub(crate) fn add_event(&mut self, event: &ChangeEvent<'_>, line: &Line<'_>, file: &Arc<str>) -> Result<()> {
        let is_wanted = match &self.last_table {
            Some((last, is_wanted)) if event.is_of(last) => *is_wanted,
            _ => {
                let name = event.table_name();
                let is_wanted = self.settings.options.table.as_ref().is_none_or(|wanted| name.is_meant_by(wanted));
                if is_wanted {
                    self.tables.insert(name.clone());
                }
                // `finish` returns the error of several tables, with the names of all of them.
                let is_wanted = is_wanted && is_one(&self.tables);
                self.last_table = Some((name, is_wanted));
                is_wanted
            }
        };
        if !is_wanted {
            self.changes.other_tables += 1;
            return Ok(());
        }
        if event.is_document {
            return self.add_document(event, line, file);
        }
        self.add_change(event, line, file, None)
    }

    /// Adds a change to the current batch, or to a new batch if codecs, text or log server differ or the batch is
    /// full. `converted` is the scanned text of the record if it is not the line itself.
    fn add_change(
        &mut self,
        event: &ChangeEvent<'_>,
        line: &Line<'_>,
        file: &Arc<str>,
        converted: Option<&str>,
    ) -> Result<()> {
        let (settings, place) = (self.settings.clone(), line.place);
        let known = self.known_ops.iter().find(|(code, _)| code == event.op.as_ref()).map(|(_, op)| *op);
        let parsed = known.unwrap_or_else(|| parse_op(Some(event.op.as_ref()).filter(|op| !op.is_empty())));
        if known.is_none() && parsed != ParsedOp::Unknown {
            self.known_ops.push((event.op.clone().into_owned(), parsed));
        }
        let ParsedOp::Change(op) = parsed else {
            let message = format!("the envelope has an unknown operation code; known codes are {KNOWN_CODES}");
            let e = Error::new(biscuit_merge::codes::UNKNOWN_OP, message);
            return Err(e.at(file, place).with_detail("op", event.op.as_ref()));
        };
        if self.fields.is_none() {
            let connector = event.source.non_null("connector").and_then(JsonValue::as_text);
            self.order_by(default_order(connector.as_deref()));
        }
        self.learn_key(event, file, place)?;
        let codecs = self.choose_codecs(event, file, place)?;
        // Both are back at the end. They are taken out, because the batch before may have to be finished.
        let fields = self.fields.take().expect("the order was set above");
        let key = std::mem::take(&mut self.key);
        let placeholder = settings.placeholder.as_ref().map_err(|e| Error::new(e.error_code(), e.message()));
        let added = placeholder.and_then(|placeholder| {
            let context =
                ReaderContext { contract: settings.options.contract.as_ref(), key: &key, fields: &fields, placeholder };
            let server = event.log_server(&fields);
            let fits = |b: &BatchBuilder| {
                Arc::ptr_eq(&b.codecs, &codecs) && b.is_of(&self.text) && b.server == server && !b.is_full()
            };
            if !self.building.as_ref().is_some_and(fits) {
                self.finish_batch_of(&fields)?;
                let mut building = BatchBuilder::new(codecs, &context, file, &self.text)?;
                building.server = server;
                self.building = Some(building);
            }
            let building = self.building.as_mut().expect("the batch was created above");
            let start = converted.map_or(line.start, |text| building.add_converted(text));
            building.push(event, op, &context, place, start)?;
            if settings.quarantine_rule.may_quarantine() {
                building.picks.push(line.pick.clone());
            }
            Ok(())
        });
        (self.fields, self.key) = (Some(fields), key);
        added
    }

    /// Finishes the current batch: converts it to the contract, and quarantines or refuses records that do not
    /// comply.
    pub(crate) fn finish_batch(&mut self) -> Result<()> {
        let fields = self.fields.take().unwrap_or_default();
        let finished = self.finish_batch_of(&fields);
        self.fields = (!fields.is_empty() || !self.changes.order.is_empty()).then_some(fields);
        finished
    }

    fn finish_batch_of(&mut self, fields: &[SourceField]) -> Result<()> {
        let Some(mut building) = self.building.take() else { return Ok(()) };
        let settings = self.settings.clone();
        let (rule, contract) = (&settings.quarantine_rule, settings.options.contract.as_ref());
        let picks = std::mem::take(&mut building.picks);
        let dropped = std::mem::take(&mut building.unknown);
        self.changes.add_losses(LossCounter { dropped, ..LossCounter::default() });
        let BuiltBatch { mut batch, mut bad, nulled } = building.finish(fields, contract)?;
        if rule.may_quarantine() {
            batch.raw = Some(RawRows(select_raws(&self.raws, picks)?));
        }
        match contract {
            Some(contract) => {
                // The sequence matters: defaults are added first, then values that were invalid become null again,
                // and only then nulls in columns that are not nullable can be found.
                let (complying, faults, mut lost) = coerce_batch(batch, contract, fields.len())?;
                batch = complying;
                batch.rows = lost.restore_nulls(&batch.rows, contract, &nulled)?;
                self.changes.add_losses(lost);
                for (row, e) in faults.into_iter().chain(null_rows(&batch, &settings.not_null)) {
                    bad.entry(row).or_insert(e);
                }
            }
            None => {
                let (rows, faults) =
                    as_written_in(&batch.rows, None, RowPlaces { file: &batch.file, places: &batch.places })?;
                batch.rows = rows;
                for (row, e) in faults {
                    bad.entry(row).or_insert(e);
                }
            }
        }
        if let Some((&row, _)) = bad.iter().find(|(_, e)| !rule.covers(e))
            && let Some(e) = bad.remove(&row)
        {
            return Err(e);
        }
        let rows: Vec<usize> = bad.keys().copied().collect();
        for (row, e) in bad {
            self.changes.refused.push(batch.refuse_row(row, e)?);
        }
        batch = batch.without_rows(&rows)?;
        self.changes.batches.push(batch);
        Ok(())
    }
}
