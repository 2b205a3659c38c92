//! Reads Debezium envelopes and flattened records from JSON, Parquet and Avro files.
//!
//! Each record is parsed as an event, decoded with the codecs of its schema or contract, and added to a batch. A
//! batch ends with its part of the file, or when the codecs, the file or the log server change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::{Error, Result};
use biscuit_merge::internal::{KNOWN_CODES, RawSource, UnchangedPlaceholder, null_rows};
use biscuit_merge::{ChangeBatch, ParsedOp, RawRows, RefusedRecord, parse_op};
use biscuit_schema::{Contract, ContractColumn};
use bytes::Bytes;

use crate::codes;
use crate::debezium::connect_schema::ConnectSchema;
use crate::debezium::contract_columns::coerce_batch;
use crate::debezium::documents::{DocumentImages, IdKind, document_identity};
use crate::debezium::envelope::{self, ChangeEvent, META};
use crate::debezium::options::DebeziumOptions;
use crate::debezium::source_field::{SourceField, default_order};
use crate::files::chunks::{RecordSeparation, TextChunk, TextSettings};
use crate::files::lines::{ColumnCodecs, Line, LinePart, RecordIndex, each_part, select_raws};
use crate::files::parts::{ChunkReader, TextForm};
use crate::json::object;
use crate::json::scanner::{JsonField, JsonScanner, JsonValue};
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

impl DebeziumSettings {
    /// Returns a copy for a reader on another core. Nothing in it is shared: the counters of shared parts are written
    /// for every record, which is slow if several cores do it.
    fn for_part(&self) -> Self {
        let own = |codecs: &Option<Arc<ColumnCodecs>>| codecs.as_deref().cloned().map(Arc::new);
        Self {
            options: self.options.clone(),
            quarantine_rule: self.quarantine_rule.clone(),
            placeholder: self.placeholder.clone(),
            declared: own(&self.declared),
            documents: own(&self.documents),
            not_null: self.not_null.clone(),
        }
    }
}

/// What the reader knows of the MongoDB documents so far.
#[derive(Debug, Default)]
struct DocumentsSoFar {
    /// Whether an update with its document was read, so that the connector looks documents up.
    updates_have_documents: bool,
    /// Updates inside of a field without a document, until the end decides on them.
    without_document: Vec<WithoutDocument>,
    /// Keys of the deletes. Only in a part of a reader, which does not know the updates before it.
    deleted: Vec<Option<String>>,
    is_part: bool,
    /// Kind of the `_id`s so far, and the record from which it is known.
    id_kind: Option<(IdKind, Arc<str>, u64)>,
}

/// Update inside of a field of a MongoDB document whose record does not have the document.
#[derive(Debug)]
struct WithoutDocument {
    key: Option<String>,
    error: Error,
    /// Record for the quarantine, if it may be quarantined.
    refused: Option<RefusedRecord>,
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

    /// Adapts codecs of a schema to the types and names of the contract.
    fn decode_for_contract(&self, codecs: &mut ColumnCodecs) {
        let Some(contract) = &self.settings.options.contract else { return };
        for (name, codec) in codecs {
            if let Some(column) = contract.column_for(name) {
                codec.decode_for(column.column_type.arrow(), &contract.debezium);
                name.clone_from(&column.name);
            }
        }
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
        if self.key.is_empty() && !self.changes.is_empty() {
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

    /// Adds a change of a MongoDB document.
    fn add_document(&mut self, event: &ChangeEvent<'_>, line: &Line<'_>, file: &Arc<str>) -> Result<()> {
        let (settings, place) = (self.settings.clone(), line.place);
        let contract = settings.options.contract.as_ref().ok_or_else(|| {
            let message = "documents of MongoDB have no types; declare the columns in a contract";
            Error::new(codes::UNTYPED_RECORDS, message).at(file, place)
        })?;
        let (key, kind) = match document_identity(event, contract, file, place)? {
            Some((key, kind)) => (Some(key), kind),
            None => (None, None),
        };
        if let Some(kind) = kind {
            self.documents.learn_id_kind(kind, file, place)?;
        }
        if event.op.eq_ignore_ascii_case("d") {
            self.changes.ignored += self.documents.delete(key.clone());
        }
        // One update with its document is sufficient: the capture mode of a connector applies to all updates.
        let is_update = event.op.eq_ignore_ascii_case("u");
        self.documents.updates_have_documents |= is_update && event.after.is_some();
        match DocumentImages::from_event(event, contract, file, place) {
            Ok(images) => {
                let converted = images.to_line(event);
                let mut scanner = std::mem::take(&mut self.document_scanner);
                let added = match scanner.scan(&converted) {
                    Some(scanned) => {
                        let event = images.replace_images(event, scanned);
                        self.add_change(&event, line, file, Some(&converted))
                    }
                    None => Err(object::refused_line(&converted, file, place)),
                };
                self.document_scanner = scanner;
                added
            }
            // Either the document was deleted before the connector looked it up, or the connector never looks
            // documents up. `finish_documents` decides, when all records are known.
            Err(error) if is_update && error.is(codes::MISSING_IMAGE) => {
                let refused = match settings.quarantine_rule.covers(&error) {
                    false => None,
                    true => {
                        let raw = select_raws(&self.raws, vec![line.pick.clone()])?.get(0)?;
                        Some(RefusedRecord::new(file, place, &error, raw))
                    }
                };
                self.documents.without_document.push(WithoutDocument { key, error, refused });
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Ignores or refuses the updates inside of fields whose records did not have the document.
    fn finish_documents(&mut self) -> Result<()> {
        let updates = std::mem::take(&mut self.documents.without_document);
        if self.documents.updates_have_documents {
            // The connector looks documents up and found none, because it was deleted. Its delete event follows.
            self.changes.ignored += updates.len() as u64;
            return Ok(());
        }
        for WithoutDocument { error, refused, .. } in updates {
            self.changes.refused.push(refused.ok_or(error)?);
        }
        Ok(())
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

    /// Takes the key columns from the message keys, if neither the options nor the contract have a key. All message
    /// keys must have the same columns.
    fn learn_key(&mut self, event: &ChangeEvent<'_>, file: &Arc<str>, place: u64) -> Result<()> {
        let options = &self.settings.options;
        let contract = options.contract.as_ref();
        if !options.key.is_empty() || contract.is_some_and(|c| !c.key.is_empty()) {
            return Ok(());
        }
        let Some(key) = event.key.filter(|key| key.is_object()) else { return Ok(()) };
        let own = |name: &'_ str| contract.and_then(|c| c.column_for(name)).map(|column| column.name.clone());
        let is_same = |(field, known): (JsonField<'_>, &String)| {
            field.name() == known && contract.is_none() || own(field.name()).as_deref().unwrap_or(field.name()) == known
        };
        let fields = || key.fields();
        if fields().count() == self.key.len() && fields().zip(&self.key).all(is_same) {
            return Ok(());
        }
        let names: Vec<String> = fields().map(|f| own(f.name()).unwrap_or_else(|| f.name().to_owned())).collect();
        if !self.key.is_empty() {
            return Err(key_drift(&names, &self.key).at(file, place));
        }
        self.key = names;
        self.key_place = Some((file.clone(), place));
        Ok(())
    }

    /// Returns the codecs of an event: of MongoDB documents, of its embedded schema, of the file, or of the contract.
    fn choose_codecs(&mut self, event: &ChangeEvent<'_>, file: &Arc<str>, place: u64) -> Result<Arc<ColumnCodecs>> {
        if let Some(codecs) = self.settings.documents.as_ref().filter(|_| event.is_document) {
            return Ok(codecs.clone());
        }
        let Some(raw) = event.schema else {
            if let Some(codecs) = &self.of_file {
                return Ok(codecs.clone());
            }
            return self.settings.declared.clone().ok_or_else(|| {
                let message =
                    "the envelopes have no embedded schema, and JSON has no types; declare the columns in a contract";
                Error::new(codes::UNTYPED_RECORDS, message).at(file, place)
            });
        };
        // Most records have the schema of the record before, which is compared without hashing it.
        if let Some((_, codecs)) = self.last_schema.as_ref().filter(|(last, _)| last == raw) {
            return Ok(codecs.clone());
        }
        if let Some(known) = self.embedded.get(raw) {
            self.last_schema = Some((raw.to_owned(), known.clone()));
            return Ok(known.clone());
        }
        let schema: ConnectSchema = serde_json::from_str(raw).map_err(|e| {
            Error::new(codes::INVALID_SCHEMA, "the embedded schema cannot be read").at(file, place).with_source(e)
        })?;
        // The schema of an envelope describes `after` and `before`; the schema of a flattened record is the row
        // itself.
        let image = schema.child("after").or_else(|| schema.child("before")).filter(|_| !event.flat);
        let no_image = || {
            Error::new(codes::INVALID_SCHEMA, "the embedded schema has neither `after` nor `before`").at(file, place)
        };
        let of = |image: &ConnectSchema| image.columns().map_err(|e| e.at(file, place));
        let mut columns = match image {
            Some(image) => of(image)?,
            None if event.flat => of(&schema)?,
            None => return Err(no_image()),
        };
        columns.retain(|(name, _)| !event.flat || !name.starts_with(META));
        self.decode_for_contract(&mut columns);
        let codecs = Arc::new(columns);
        self.embedded.insert(raw.to_owned(), codecs.clone());
        self.last_schema = Some((raw.to_owned(), codecs.clone()));
        Ok(codecs)
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

/// Error for message keys with other columns than before.
fn key_drift(here: &[String], before: &[String]) -> Error {
    let (here, before) = (here.join(", "), before.join(", "));
    let message = format!("the key columns are {here} here and were {before} before; name the key columns");
    Error::new(codes::KEY_DRIFT, message)
}

impl DocumentsSoFar {
    /// Refuses a collection with several kinds of `_id`s.
    ///
    /// # Errors
    /// `KeyDrift`.
    fn learn_id_kind(&mut self, kind: IdKind, file: &Arc<str>, place: u64) -> Result<()> {
        match &self.id_kind {
            Some((known, ..)) if *known != kind => {
                let message = "the collection has both numbers and strings as `_id`, so that documents such as `1` and `\"1\"` would become one row; declare another key column in the contract";
                Err(Error::new(codes::KEY_DRIFT, message).with_column("_id").at(file, place))
            }
            Some(_) => Ok(()),
            None => {
                self.id_kind = Some((kind, file.clone(), place));
                Ok(())
            }
        }
    }

    /// Removes the updates of a deleted document, which the delete makes irrelevant. Returns their number.
    fn delete(&mut self, key: Option<String>) -> u64 {
        let before = self.without_document.len();
        self.without_document.retain(|update| update.key.is_none() || update.key != key);
        if self.is_part {
            self.deleted.push(key);
        }
        (before - self.without_document.len()) as u64
    }
}

impl ChunkReader for DebeziumReader {
    fn text_form(&mut self, file: &str) -> Result<Option<TextForm>> {
        if is_key_or_header_file(file) {
            self.changes.passed_over.push(file.to_owned());
            return Ok(None);
        }
        Ok(Some(TextForm { separation: RecordSeparation::Json, settings: self.text_settings() }))
    }

    fn needs_types(&self) -> bool {
        false
    }

    fn learn_types(&mut self, _: TextChunk) -> Result<()> {
        Ok(())
    }

    fn end_types(&mut self, _: Self) {}

    fn new_part(&self) -> Option<Self> {
        // The order and the key are learned from the first record; until then, records are read one after the other.
        let (fields, order) = (self.fields.clone()?, self.changes.order.clone());
        Some(Self {
            settings: Arc::new(self.settings.for_part()),
            embedded: self.embedded.iter().map(|(raw, codecs)| (raw.clone(), Arc::new(codecs.to_vec()))).collect(),
            last_schema: None,
            of_file: None,
            fields: Some(fields),
            key: self.key.clone(),
            key_place: None,
            tables: self.tables.clone(),
            known_ops: vec![],
            last_table: None,
            building: None,
            documents: DocumentsSoFar {
                is_part: true,
                id_kind: self.documents.id_kind.clone(),
                ..DocumentsSoFar::default()
            },
            scanner: self.scanner.clone(),
            document_scanner: self.document_scanner.clone(),
            text: Arc::default(),
            raws: RawSource::Text { text: Arc::default(), header: None, spans: vec![] },
            changes: ChangeRecords { order, ..ChangeRecords::default() },
        })
    }

    fn read_chunk(&mut self, chunk: TextChunk) -> Result<()> {
        let file = chunk.file.clone();
        self.read_part(&LinePart::from_chunk(chunk)?, &file)
    }

    fn read_rows(&mut self, file: &Arc<str>, rows: RecordBatch, first: u64) -> Result<()> {
        let places = (first..first + rows.num_rows() as u64).collect();
        self.read_part(&LinePart::from_rows(rows, places)?, file)
    }

    fn add_part(&mut self, part: Self) -> Result<()> {
        self.tables.extend(part.tables);
        if let Some((file, place)) = part.key_place {
            match self.key.is_empty() {
                true => (self.key, self.key_place) = (part.key, Some((file, place))),
                false if self.key != part.key => return Err(key_drift(&part.key, &self.key).at(&file, place)),
                false => {}
            }
        }
        if let Some((kind, file, place)) = part.documents.id_kind {
            self.documents.learn_id_kind(kind, &file, place)?;
        }
        self.documents.updates_have_documents |= part.documents.updates_have_documents;
        for key in part.documents.deleted {
            self.changes.ignored += self.documents.delete(key);
        }
        self.documents.without_document.extend(part.documents.without_document);
        if part.embedded.len() > self.embedded.len() {
            self.embedded = part.embedded;
        }
        self.changes.append(part.changes);
        Ok(())
    }

    fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes.batches)
    }
}
