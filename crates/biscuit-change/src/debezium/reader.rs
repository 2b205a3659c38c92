//! Reads Debezium envelopes and flattened records from JSON, Parquet and Avro files.
//!
//! Each record is parsed as an event, decoded with the codecs of its schema or contract, and added to a batch. A
//! batch ends with its part of the file, or when the codecs, the file or the log server change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_merge::internal::{KNOWN_CODES, RawSource, UnchangedPlaceholder, null_rows};
use biscuit_merge::{ParsedOp, RawRows, RefusedRecord, parse_op};
use biscuit_schema::{Contract, ContractColumn};
use bytes::Bytes;

use crate::codes;
use crate::columnar::units::{ColumnCodecs, ReadUnit, RecordIndex, each_line, select_raws};
use crate::debezium::connect_schema::ConnectSchema;
use crate::debezium::contract_columns::coerce_batch;
use crate::debezium::documents::{DocumentImages, IdKind, document_identity};
use crate::debezium::envelope::{self, ChangeEvent, META};
use crate::debezium::options::DebeziumOptions;
use crate::debezium::source_field::{SourceField, default_order};
use crate::json::object;
use crate::records::builder::{BatchBuilder, ReaderContext};
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
    options: DebeziumOptions,
    quarantine_rule: QuarantineRule,
    placeholder: Result<UnchangedPlaceholder>,
    /// Codecs of the contract, for records without a schema.
    declared: Option<Arc<ColumnCodecs>>,
    /// Codecs of the contract for documents of MongoDB.
    documents: Option<Arc<ColumnCodecs>>,
    /// Codecs by the JSON text of the embedded schema.
    embedded: HashMap<String, Arc<ColumnCodecs>>,
    /// Codecs of the current part, if the file is Parquet or Avro.
    of_file: Option<Arc<ColumnCodecs>>,
    /// Fields of `source` that are stored as the order; `None` until the options or the first record determine them.
    fields: Option<Vec<SourceField>>,
    key: Vec<String>,
    tables: BTreeSet<SourceTable>,
    building: Option<BatchBuilder>,
    /// Whether an update with its document was read, so that the connector looks documents up.
    updates_have_documents: bool,
    /// Updates inside of a field without a document, until the end decides on them.
    without_document: Vec<WithoutDocument>,
    /// Kind of the `_id`s so far.
    id_kind: Option<IdKind>,
    /// Raw records of the current part, for quarantined records.
    raws: RawSource,
    changes: ChangeRecords,
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
        let mut reader = Self {
            quarantine_rule: QuarantineRule::new(options.bad_rows, options.contract.as_ref()),
            placeholder: UnchangedPlaceholder::new(options.placeholder.as_deref()),
            options,
            declared,
            documents,
            updates_have_documents: false,
            without_document: vec![],
            id_kind: None,
            embedded: HashMap::new(),
            of_file: None,
            fields: None,
            key,
            tables: BTreeSet::new(),
            building: None,
            raws: RawSource::Text { text: "".into(), header: None, spans: vec![] },
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
        let mut names = self.options.order_as.iter();
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
        let max_decompressed = self.options.max_decompressed;
        each_line(&name, bytes, row, max_decompressed, &mut |unit| match unit {
            ReadUnit::Begin(raws, of_file) => {
                self.begin_part(raws, of_file);
                Ok(())
            }
            ReadUnit::Line(line, pick, place) => match self.read_line(line, pick.clone(), &name, place) {
                Err(e) => self.refuse_record(e, &name, place, &pick),
                Ok(()) => Ok(()),
            },
            ReadUnit::End => self.finish_batch(),
        })
    }

    /// Begins a part of a file.
    pub(crate) fn begin_part(&mut self, raws: &RawSource, of_file: Option<&Arc<ColumnCodecs>>) {
        self.raws = raws.clone();
        self.of_file = of_file.map(|codecs| {
            let mut codecs = codecs.as_ref().clone();
            self.decode_for_contract(&mut codecs);
            Arc::new(codecs)
        });
    }

    /// Adapts codecs of a schema to the types and names of the contract.
    fn decode_for_contract(&self, codecs: &mut ColumnCodecs) {
        let Some(contract) = &self.options.contract else { return };
        for (name, codec) in codecs {
            if let Some(column) = contract.column_for(name) {
                codec.decode_for(column.column_type.arrow(), &contract.debezium);
                name.clone_from(&column.name);
            }
        }
    }

    /// Quarantines a record, or returns its error if it is not to be quarantined.
    pub(crate) fn refuse_record(&mut self, e: Error, file: &str, place: u64, pick: &RecordIndex) -> Result<()> {
        if !self.quarantine_rule.covers(&e) {
            return Err(e);
        }
        let raw = select_raws(&self.raws, vec![pick.clone()])?.get(0)?;
        self.changes.refused.push(RefusedRecord::new(file, place, &e, raw));
        Ok(())
    }

    fn read_line(&mut self, line: &str, pick: RecordIndex, file: &Arc<str>, place: u64) -> Result<()> {
        match envelope::parse(line, file, place)? {
            None => self.changes.ignored += 1,
            Some(event) => self.add_event(&event, pick, file, place)?,
        }
        Ok(())
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

    /// Adds an event of the wanted table.
    pub(crate) fn add_event(
        &mut self,
        event: &ChangeEvent<'_>,
        pick: RecordIndex,
        file: &Arc<str>,
        place: u64,
    ) -> Result<()> {
        let name = event.table_name();
        if self.options.table.as_ref().is_some_and(|wanted| !name.is_meant_by(wanted)) {
            self.changes.other_tables += 1;
            return Ok(());
        }
        self.tables.insert(name);
        if !is_one(&self.tables) {
            // `finish` returns the error, with the names of all tables.
            self.changes.other_tables += 1;
            return Ok(());
        }
        if event.is_document {
            return self.add_document(event, pick, file, place);
        }
        self.add_change(event, pick, file, place)
    }

    /// Adds a change of a MongoDB document.
    fn add_document(&mut self, event: &ChangeEvent<'_>, pick: RecordIndex, file: &Arc<str>, place: u64) -> Result<()> {
        let contract = self.options.contract.as_ref().ok_or_else(|| {
            let message = "documents of MongoDB have no types; declare the columns in a contract";
            Error::new(codes::UNTYPED_RECORDS, message).at(file, place)
        })?;
        let (key, kind) = match document_identity(event, contract, file, place)? {
            Some((key, kind)) => (Some(key), kind),
            None => (None, None),
        };
        match (self.id_kind, kind) {
            (Some(known), Some(kind)) if known != kind => {
                let message = "the collection has both numbers and strings as `_id`, so that documents such as `1` and `\"1\"` would become one row; declare another key column in the contract";
                return Err(Error::new(codes::KEY_DRIFT, message).with_column("_id").at(file, place));
            }
            (None, Some(_)) => self.id_kind = kind,
            _ => {}
        }
        // A delete makes earlier updates of its document irrelevant.
        if event.op.eq_ignore_ascii_case("d") && !self.without_document.is_empty() {
            let before = self.without_document.len();
            self.without_document.retain(|update| update.key.is_none() || update.key != key);
            self.changes.ignored += (before - self.without_document.len()) as u64;
        }
        // One update with its document is sufficient: the capture mode of a connector applies to all updates.
        let is_update = event.op.eq_ignore_ascii_case("u");
        self.updates_have_documents |= is_update && event.after.is_some();
        match DocumentImages::from_event(event, contract, file, place) {
            Ok(images) => self.add_change(&images.replace_images(event), pick, file, place),
            // Either the document was deleted before the connector looked it up, or the connector never looks
            // documents up. `finish_documents` decides, when all records are known.
            Err(error) if is_update && error.is(codes::MISSING_IMAGE) => {
                let refused = match self.quarantine_rule.covers(&error) {
                    false => None,
                    true => {
                        let raw = select_raws(&self.raws, vec![pick])?.get(0)?;
                        Some(RefusedRecord::new(file, place, &error, raw))
                    }
                };
                self.without_document.push(WithoutDocument { key, error, refused });
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Ignores or refuses the updates inside of fields whose records did not have the document.
    fn finish_documents(&mut self) -> Result<()> {
        let updates = std::mem::take(&mut self.without_document);
        if self.updates_have_documents {
            // The connector looks documents up and found none, because it was deleted. Its delete event follows.
            self.changes.ignored += updates.len() as u64;
            return Ok(());
        }
        for WithoutDocument { error, refused, .. } in updates {
            self.changes.refused.push(refused.ok_or(error)?);
        }
        Ok(())
    }

    /// Adds a change to the current batch, or to a new batch if codecs, file or log server differ or the batch is
    /// full.
    fn add_change(&mut self, event: &ChangeEvent<'_>, pick: RecordIndex, file: &Arc<str>, place: u64) -> Result<()> {
        let ParsedOp::Change(op) = parse_op(Some(event.op.as_str()).filter(|op| !op.is_empty())) else {
            let message = format!("the envelope has an unknown operation code; known codes are {KNOWN_CODES}");
            let e = Error::new(biscuit_merge::codes::UNKNOWN_OP, message);
            return Err(e.at(file, place).with_detail("op", &event.op));
        };
        if self.fields.is_none() {
            let connector = event.source.non_null("connector").and_then(|c| object::parse_string(c.get()));
            self.order_by(default_order(connector.as_deref()));
        }
        self.learn_key(event, file, place)?;
        let codecs = self.choose_codecs(event, file, place)?;
        let server = event.log_server(self.fields.as_deref().unwrap_or_default());
        let fits =
            |b: &BatchBuilder| Arc::ptr_eq(&b.codecs, &codecs) && b.file == *file && b.server == server && !b.is_full();
        let same = self.building.as_ref().is_some_and(fits);
        if !same {
            self.finish_batch()?;
        }
        let fields = self.fields.as_deref().expect("the order was set above");
        if !same {
            let mut building = BatchBuilder::new(codecs, fields, file)?;
            building.server = server;
            self.building = Some(building);
        }
        let building = self.building.as_mut().expect("the batch was created above");
        let placeholder = self.placeholder.as_ref().map_err(|e| Error::new(e.error_code(), e.message()))?;
        let contract = self.options.contract.as_ref();
        building.push(event, op, &ReaderContext { contract, key: &self.key, fields, placeholder }, place)?;
        if self.quarantine_rule.may_quarantine() {
            building.picks.push(pick);
        }
        Ok(())
    }

    /// Takes the key columns from the message keys, if neither the options nor the contract have a key. All message
    /// keys must have the same columns.
    fn learn_key(&mut self, event: &ChangeEvent<'_>, file: &Arc<str>, place: u64) -> Result<()> {
        if !self.options.key.is_empty() || self.options.contract.as_ref().is_some_and(|c| !c.key.is_empty()) {
            return Ok(());
        }
        let Some(key) = event.key.and_then(|k| object::parse_object(k.get()).ok()) else { return Ok(()) };
        let own = |name: String| match self.options.contract.as_ref().and_then(|c| c.column_for(&name)) {
            Some(column) => column.name.clone(),
            None => name,
        };
        let names: Vec<String> = key.0.into_iter().map(|(n, _)| own(n)).collect();
        if self.key.is_empty() {
            self.key = names;
        } else if self.key != names {
            let message = format!(
                "the key columns are {} here and were {} before; name the key columns",
                names.join(", "),
                self.key.join(", ")
            );
            return Err(Error::new(codes::KEY_DRIFT, message).at(file, place));
        }
        Ok(())
    }

    /// Returns the codecs of an event: of MongoDB documents, of its embedded schema, of the file, or of the contract.
    fn choose_codecs(&mut self, event: &ChangeEvent<'_>, file: &Arc<str>, place: u64) -> Result<Arc<ColumnCodecs>> {
        if let Some(codecs) = self.documents.as_ref().filter(|_| event.is_document) {
            return Ok(codecs.clone());
        }
        let Some(raw) = event.schema else {
            if let Some(codecs) = &self.of_file {
                return Ok(codecs.clone());
            }
            return self.declared.clone().ok_or_else(|| {
                let message =
                    "the envelopes have no embedded schema, and JSON has no types; declare the columns in a contract";
                Error::new(codes::UNTYPED_RECORDS, message).at(file, place)
            });
        };
        if let Some(known) = self.embedded.get(raw.get()) {
            return Ok(known.clone());
        }
        let schema: ConnectSchema = serde_json::from_str(raw.get()).map_err(|e| {
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
        self.embedded.insert(raw.get().to_owned(), codecs.clone());
        Ok(codecs)
    }

    /// Finishes the current batch: converts it to the contract, and quarantines or refuses records that do not
    /// comply.
    pub(crate) fn finish_batch(&mut self) -> Result<()> {
        let Some(mut building) = self.building.take() else { return Ok(()) };
        let fields = self.fields.as_deref().unwrap_or_default();
        let picks = std::mem::take(&mut building.picks);
        let (dropped, nulled) = (std::mem::take(&mut building.unknown), std::mem::take(&mut building.nulled));
        self.changes.add_losses(LossCounter { dropped, ..LossCounter::default() });
        let mut batch = building.finish(fields)?;
        if self.quarantine_rule.may_quarantine() {
            batch.raw = Some(RawRows(select_raws(&self.raws, picks)?));
        }
        let mut bad = BTreeMap::new();
        match &self.options.contract {
            Some(contract) => {
                // The sequence matters: defaults are added first, then values that were invalid become null again,
                // and only then nulls in columns that are not nullable can be found.
                let (complying, faults, mut lost) = coerce_batch(batch, contract, fields.len())?;
                batch = complying;
                batch.rows = lost.restore_nulls(&batch.rows, contract, &nulled)?;
                bad = faults;
                self.changes.add_losses(lost);
                for (row, e) in null_rows(&batch, &not_null_columns(contract)) {
                    bad.entry(row).or_insert(e);
                }
            }
            None => {
                let (rows, faults) =
                    as_written_in(&batch.rows, None, RowPlaces { file: &batch.file, places: &batch.places })?;
                batch.rows = rows;
                bad.extend(faults);
            }
        }
        if let Some((&row, _)) = bad.iter().find(|(_, e)| !self.quarantine_rule.covers(e))
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
