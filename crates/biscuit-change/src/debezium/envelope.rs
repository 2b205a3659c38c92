//! Parses a line into a change event: envelopes, envelopes with their schema, flattened records, and any of these
//! wrapped with message key and headers.

use std::borrow::Cow;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_merge::LogServer;
use serde_json::value::RawValue;

use crate::codes;
use crate::debezium::source_field::SourceField;
use crate::json::object;
use crate::json::scanner::{JsonScanner, JsonValue, KnownName};
use crate::tables::name::SourceTable;

/// Change of a table as Debezium writes it.
#[derive(Debug, Clone)]
pub(crate) struct ChangeEvent<'a> {
    pub(crate) op: Cow<'a, str>,
    pub(crate) before: Option<JsonValue<'a>>,
    pub(crate) after: Option<JsonValue<'a>>,
    pub(crate) source: EventSource<'a>,
    pub(crate) key: Option<JsonValue<'a>>,
    /// Embedded schema of the value.
    pub(crate) schema: Option<&'a str>,
    /// Message headers; `None` if the line does not contain headers. The difference to empty headers matters: only
    /// with headers is it certain that a create is not half of a key change.
    pub(crate) headers: Option<EventHeaders<'a>>,
    /// Whether the record is flattened: a row with metadata in columns, as written by `ExtractNewRecordState`.
    pub(crate) flat: bool,
    /// Whether the images are texts of MongoDB documents.
    pub(crate) is_document: bool,
    /// `updateDescription` of an update of a MongoDB document.
    pub(crate) update: Option<&'a str>,
    /// Columns that a sparse update sets in addition to the key; `None` for a full image.
    pub(crate) only: Option<&'a [String]>,
    /// Schema or database of the table, if the record contains it.
    pub(crate) schema_name: Option<Cow<'a, str>>,
    /// Database of the schema, if the record contains both.
    pub(crate) database: Option<Cow<'a, str>>,
    /// Name of the table; empty if the record does not contain it.
    pub(crate) table: Cow<'a, str>,
}

/// Where a record describes its origin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventSource<'a> {
    /// `source` of an envelope.
    Object(JsonValue<'a>),
    /// Metadata columns of a flattened record, such as `__lsn` and `__source_ts_ms`.
    Columns(JsonValue<'a>),
}

impl<'a> EventSource<'a> {
    /// Returns the value of a field if it exists and is not null.
    pub(crate) fn non_null(self, name: &str) -> Option<JsonValue<'a>> {
        match self {
            Self::Object(source) => source.non_null(name),
            Self::Columns(row) => {
                let is_named = |column: &str| {
                    let field = column.strip_prefix(META)?;
                    Some(field.strip_prefix("source_").unwrap_or(field) == name)
                };
                let value = row.fields().find(|column| is_named(column.name()) == Some(true))?.value;
                (!value.is_null()).then_some(value)
            }
        }
    }
}

impl<'a> ChangeEvent<'a> {
    /// Returns the name of the table.
    pub(crate) fn table_name(&self) -> SourceTable {
        let owned = |name: &Option<Cow<'_, str>>| name.as_deref().map(str::to_owned);
        let database = owned(&self.database).filter(|_| self.schema_name.is_some());
        SourceTable { database, schema: owned(&self.schema_name), table: self.table.to_string() }
    }

    /// Returns whether this is the name of the table.
    pub(crate) fn is_of(&self, table: &SourceTable) -> bool {
        let database = self.database.as_deref().filter(|_| self.schema_name.is_some());
        self.table == table.table
            && self.schema_name.as_deref() == table.schema.as_deref()
            && database == table.database.as_deref()
    }

    /// Returns the server whose log contains the record, if `fields` include the log file of MySQL or MariaDB.
    pub(crate) fn log_server(&self, fields: &[SourceField]) -> Option<LogServer> {
        let named = |field: &str| fields.iter().find(|f| f.field == field).map(|f| f.name.clone());
        let (column, position) = (named("file")?, named("pos"));
        let text = |name: &str| {
            let value = self.source.non_null(name)?;
            Some(value.as_text().map_or_else(|| value.raw().to_owned(), Cow::into_owned))
        };
        // Snapshot rows have the server id 0.
        let server_id = text("server_id").filter(|id| id != "0" && !self.is_snapshot());
        let gtid = text("gtid").filter(|gtid| !gtid.is_empty() && server_id.is_some());
        // MySQL writes `uuid:transaction` or `uuid:tag:transaction`, MariaDB `domain-server-transaction`.
        let source = |gtid: String| match gtid.split_once(':') {
            Some((uuid, _)) => uuid.to_owned(),
            None => gtid.rsplit_once('-').map_or(gtid.clone(), |(source, _)| source.to_owned()),
        };
        Some(LogServer { server_id, gtid_source: gtid.map(source), column, position })
    }

    /// Returns the position in the log from a field of `source`; `None` for snapshot rows without a position. `id` is
    /// the number of the field in the `source` of another record, if it is known.
    pub(crate) fn position(&self, field: &SourceField, id: Option<usize>) -> Option<JsonValue<'a>> {
        let value = match (self.source, id) {
            // The field has another number in records with another form, such as with and without message key.
            (EventSource::Object(source), Some(id)) => {
                source.get_by_id(id).or_else(|| source.get(&field.field)).filter(|value| !value.is_null())
            }
            _ => self.source.non_null(&field.field),
        };
        // Snapshot rows of MongoDB have the time at which the connector read them, which cannot be compared with the
        // times of the server.
        value.filter(|_| !(self.is_document && self.is_snapshot()))
    }

    /// Returns whether the event is a row of an initial or incremental snapshot, and not a change.
    pub(crate) fn is_snapshot(&self) -> bool {
        let is_read = self.op.eq_ignore_ascii_case("r");
        is_read && self.source.non_null("snapshot").is_some_and(|s| !matches!(s.raw(), "false" | "\"false\""))
    }
}

/// Headers that link the two halves of a key change.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct EventHeaders<'a> {
    /// Key of the row after this delete.
    pub(crate) new_key: Option<&'a str>,
    /// Key of the row before this create.
    pub(crate) old_key: Option<&'a str>,
}

/// Parses a line. Returns `None` for a line that does not change a table: a Kafka tombstone, a logical message, a
/// transaction marker, a heartbeat, a schema change, a notification or a signal.
///
/// # Errors
/// `InvalidJson`, `TooDeep`, `DuplicateColumn`, `NotAnEnvelope`.
pub(crate) fn parse<'a>(
    scanner: &'a mut JsonScanner,
    line: &'a str,
    file: &Arc<str>,
    place: u64,
) -> Result<Option<ChangeEvent<'a>>> {
    let Some(message) = unwrapped(scanner, line, file, place)? else { return Ok(None) };
    let EventMessage { envelope, key, headers, topic, schema } = message;
    let [op, source, before, after] =
        envelope.pick([KnownName::Op, KnownName::Source, KnownName::Before, KnownName::After]);
    // A flattened row may have a column `op` of its own; unlike an envelope, it has no `source`.
    let op = op.and_then(JsonValue::as_text).filter(|_| source.is_some() || !is_flat(envelope));
    let Some(op) = op else {
        if is_flat(envelope) {
            return Ok(Some(parse_flattened(envelope, key, schema, headers, topic.as_deref())));
        }
        let not = || {
            Error::new(codes::NOT_AN_ENVELOPE, "the line is not a Debezium envelope, because it has no `op`")
                .at(file, place)
        };
        return if is_other_message(envelope) { Ok(None) } else { Err(not()) };
    };
    // A logical decoding message of PostgreSQL.
    if op == "m" {
        return Ok(None);
    }
    let Some(source) = source.filter(|source| !source.is_null()) else {
        return Err(Error::new(codes::NOT_AN_ENVELOPE, "the envelope has no `source`").at(file, place));
    };
    check_object(source, file, place)?;
    let [connector, schema_name, database, table, collection] = source.pick([
        KnownName::Connector,
        KnownName::Schema,
        KnownName::Database,
        KnownName::Table,
        KnownName::Collection,
    ]);
    let text = |value: Option<JsonValue<'a>>| value.and_then(JsonValue::as_text);
    let is_document = connector.is_some_and(|connector| connector.raw() == "\"mongodb\"");
    // MySQL and MongoDB have only `db`, which then takes the place of the schema.
    let (schema_name, database) = match (text(schema_name), text(database)) {
        (Some(schema), database) => (Some(schema), database),
        (None, database) => (database, None),
    };
    let [update] = if is_document { envelope.pick([KnownName::UpdateDescription]) } else { [None] };
    let non_null = |value: Option<JsonValue<'a>>| value.filter(|value| !value.is_null());
    Ok(Some(ChangeEvent {
        op,
        before: non_null(before),
        after: non_null(after),
        source: EventSource::Object(source),
        key,
        schema,
        headers,
        flat: false,
        is_document,
        update: non_null(update).map(JsonValue::raw),
        only: None,
        schema_name,
        database,
        table: text(if is_document { collection } else { table }).unwrap_or_default(),
    }))
}

/// The parts of a message. From the outside to the inside: message (`key`, `value`, `headers`), converter (`schema`,
/// `payload`), envelope.
struct EventMessage<'a> {
    envelope: JsonValue<'a>,
    key: Option<JsonValue<'a>>,
    headers: Option<EventHeaders<'a>>,
    topic: Option<Cow<'a, str>>,
    schema: Option<&'a str>,
}

/// Removes the message and the converter around an envelope. Returns `None` for a Kafka tombstone.
fn unwrapped<'a>(
    scanner: &'a mut JsonScanner,
    line: &'a str,
    file: &Arc<str>,
    place: u64,
) -> Result<Option<EventMessage<'a>>> {
    if line.trim() == "null" {
        return Ok(None);
    }
    let Some(outer) = scanner.scan(line) else { return Err(object::refused_line(line, file, place)) };
    let [value, op, payload, schema] =
        outer.pick([KnownName::Value, KnownName::Op, KnownName::Payload, KnownName::Schema]);
    // A table may have a column `value`, so the line must not be an envelope itself.
    let wrapped = value.filter(|_| op.is_none() && payload.is_none());
    let (mut key, mut headers, mut topic) = (None, None, None);
    let (inner, payload, schema) = match wrapped {
        Some(value) if value.is_null() => return Ok(None),
        Some(value) => {
            check_object(value, file, place)?;
            let [own_key, own_headers, own_topic] = outer.pick([KnownName::Key, KnownName::Headers, KnownName::Topic]);
            key = own_key.and_then(find_payload);
            headers = read_headers(own_headers, file, place)?;
            topic = own_topic.and_then(JsonValue::as_text);
            let [payload, schema] = value.pick([KnownName::Payload, KnownName::Schema]);
            (value, payload, schema)
        }
        None => (outer, payload, schema),
    };
    let (schema, envelope) = match (payload, schema) {
        (Some(payload), Some(schema)) if !payload.is_null() => {
            check_object(payload, file, place)?;
            (Some(schema).filter(|schema| !schema.is_null()), payload)
        }
        (Some(_), Some(_)) => return Ok(None),
        _ => (None, inner),
    };
    Ok(Some(EventMessage { envelope, key, headers, topic, schema: schema.map(JsonValue::raw) }))
}

/// Returns whether this is a record of Debezium that is not a change: a transaction marker, a heartbeat, a schema
/// change, a notification or a signal.
fn is_other_message(envelope: JsonValue<'_>) -> bool {
    let has = |names: &[&str]| names.iter().all(|name| envelope.get(name).is_some());
    let fields = envelope.fields().count();
    let heartbeat = fields == 1 && has(&["ts_ms"]);
    let schema = has(&["ddl"]) || has(&["tableChanges"]);
    let notification = has(&["aggregate_type", "type"]) || has(&["aggregateType", "type"]);
    let signal = fields <= 3 && has(&["type", "data"]);
    has(&["status"]) || heartbeat || schema || notification || signal
}

/// Default prefix of the metadata columns of flattened records.
pub(crate) const META: &str = "__";

fn is_flat(row: JsonValue<'_>) -> bool {
    row.fields().any(|field| matches!(field.name(), "__op" | "__deleted"))
}

/// Converts a flattened record, a row with its metadata in columns, as written by `ExtractNewRecordState`.
///
/// Both images are the row: an upsert reads `after`, and a delete reads its key from `before`.
fn parse_flattened<'a>(
    row: JsonValue<'a>,
    key: Option<JsonValue<'a>>,
    schema: Option<&'a str>,
    headers: Option<EventHeaders<'a>>,
    topic: Option<&str>,
) -> ChangeEvent<'a> {
    let text = |name: &str| row.text_of(name);
    let deleted = row.get("__deleted").is_some_and(|deleted| matches!(deleted.raw(), "true" | "\"true\""));
    let op = if deleted { "d".into() } else { text("__op").unwrap_or_default() };
    // A topic is called `prefix.schema.table`; it names the table if no column does.
    let topic = topic.unwrap_or_default();
    let mut parts = topic.rsplit('.').filter(|_| !topic.is_empty()).map(|part| Cow::Owned(part.to_owned()));
    let (of_topic, schema_of_topic) = (parts.next(), parts.next());
    let (own_schema, own_database) =
        (text("__schema").or_else(|| text("__source_schema")), text("__db").or_else(|| text("__source_db")));
    let database = own_database.clone().filter(|_| own_schema.is_some());
    let schema_name = own_schema.or(own_database).or(schema_of_topic);
    let own_table = ["__table", "__source_table", "__collection", "__source_collection"].into_iter().find_map(text);
    ChangeEvent {
        op,
        before: Some(row),
        after: Some(row),
        source: EventSource::Columns(row),
        key,
        schema,
        headers,
        flat: true,
        is_document: false,
        update: None,
        only: None,
        schema_name,
        database,
        table: own_table.or(of_topic).unwrap_or_default(),
    }
}

/// Refuses a value that is not an object.
fn check_object(value: JsonValue<'_>, file: &Arc<str>, place: u64) -> Result<()> {
    if value.is_object() {
        return Ok(());
    }
    match object::parse_object(value.raw()) {
        Err(e) => Err(object::invalid_json(&e, file, place)),
        Ok(_) => Err(Error::internal("an object was not recognized")),
    }
}

/// Returns the payload of `{"schema": …, "payload": …}`, or any other value itself; `None` for null.
fn find_payload(value: JsonValue<'_>) -> Option<JsonValue<'_>> {
    match value.pick([KnownName::Schema, KnownName::Payload]) {
        [Some(_), Some(payload)] => Some(payload),
        _ => Some(value),
    }
    .filter(|value| !value.is_null())
}

/// Reads the headers, which are an object, or a list of objects with `key` and `value`.
fn read_headers<'a>(headers: Option<JsonValue<'a>>, file: &str, place: u64) -> Result<Option<EventHeaders<'a>>> {
    let Some(raw) = headers.filter(|headers| !headers.is_null()).map(JsonValue::raw) else { return Ok(None) };
    let mut headers = EventHeaders::default();
    // Most records have no headers of key changes.
    if !raw.contains("__debezium.") {
        return Ok(Some(headers));
    }
    let parse = |raw: &'a str| object::parse_object(raw).map_err(|e| object::invalid_json(&e, file, place));
    let pairs: Vec<(String, &'a RawValue)> = match object::parse_items(raw) {
        Some(items) => {
            let mut pairs = Vec::new();
            for item in items {
                let item = parse(item.get())?;
                let name = item.get("key").and_then(|name| object::parse_string(name.get()));
                pairs.extend(name.zip(item.get("value")));
            }
            pairs
        }
        None => parse(raw)?.0,
    };
    let payload = |value: &'a RawValue| {
        let raw = value.get();
        let payload = match raw.starts_with('{') {
            true => {
                let object = parse(raw)?;
                object.get("schema").and(object.get("payload")).map_or(raw, RawValue::get)
            }
            false => raw,
        };
        Ok::<_, Error>(Some(payload).filter(|payload| *payload != "null"))
    };
    for (name, value) in pairs {
        match name.as_str() {
            "__debezium.newkey" => headers.new_key = payload(value)?,
            "__debezium.oldkey" => headers.old_key = payload(value)?,
            _ => {}
        }
    }
    Ok(Some(headers))
}
