//! Parses a line into a change event: envelopes, envelopes with their schema, flattened records, and any of these
//! wrapped with message key and headers.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_merge::LogServer;
use serde_json::value::RawValue;

use crate::codes;
use crate::debezium::source_field::SourceField;
use crate::json::object::{self, JsonObject};
use crate::tables::name::SourceTable;

/// Change of a table as Debezium writes it.
#[derive(Debug)]
pub(crate) struct ChangeEvent<'a> {
    pub(crate) op: String,
    pub(crate) before: Option<&'a RawValue>,
    pub(crate) after: Option<&'a RawValue>,
    pub(crate) source: JsonObject<'a>,
    pub(crate) key: Option<&'a RawValue>,
    /// Embedded schema of the value.
    pub(crate) schema: Option<&'a RawValue>,
    /// Message headers; `None` if the line does not contain headers. The difference to empty headers matters: only
    /// with headers is it certain that a create is not half of a key change.
    pub(crate) headers: Option<EventHeaders<'a>>,
    /// Whether the record is flattened: a row with metadata in columns, as written by `ExtractNewRecordState`.
    pub(crate) flat: bool,
    /// Whether the images are texts of MongoDB documents.
    pub(crate) is_document: bool,
    /// `updateDescription` of an update of a MongoDB document.
    pub(crate) update: Option<&'a RawValue>,
    /// Columns that a sparse update sets in addition to the key; `None` for a full image.
    pub(crate) only: Option<&'a [String]>,
    /// Schema or database of the table, if the record contains it.
    pub(crate) schema_name: Option<String>,
    /// Database of the schema, if the record contains both.
    pub(crate) database: Option<String>,
    /// Name of the table; empty if the record does not contain it.
    pub(crate) table: String,
}

impl ChangeEvent<'_> {
    /// Returns the name of the table.
    pub(crate) fn table_name(&self) -> SourceTable {
        let database = self.database.clone().filter(|_| self.schema_name.is_some());
        SourceTable { database, schema: self.schema_name.clone(), table: self.table.clone() }
    }

    /// Returns the server whose log contains the record, if `fields` include the log file of MySQL or MariaDB.
    pub(crate) fn log_server(&self, fields: &[SourceField]) -> Option<LogServer> {
        let named = |field: &str| fields.iter().find(|f| f.field == field).map(|f| f.name.clone());
        let (column, position) = (named("file")?, named("pos"));
        let text = |name: &str| {
            self.source.non_null(name).map(|v| object::parse_string(v.get()).unwrap_or_else(|| v.get().to_owned()))
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

    /// Returns the position in the log from a field of `source`; `None` for snapshot rows without a position.
    pub(crate) fn position(&self, field: &SourceField) -> Option<&'_ RawValue> {
        // Snapshot rows of MongoDB have the time at which the connector read them, which cannot be compared with the
        // times of the server.
        self.source.non_null(&field.field).filter(|_| !(self.is_document && self.is_snapshot()))
    }

    /// Returns whether the event is a row of an initial or incremental snapshot, and not a change.
    pub(crate) fn is_snapshot(&self) -> bool {
        let is_read = self.op.eq_ignore_ascii_case("r");
        is_read && self.source.non_null("snapshot").is_some_and(|s| !matches!(s.get(), "false" | "\"false\""))
    }
}

/// Headers that link the two halves of a key change.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct EventHeaders<'a> {
    /// Key of the row after this delete.
    pub(crate) new_key: Option<&'a RawValue>,
    /// Key of the row before this create.
    pub(crate) old_key: Option<&'a RawValue>,
}

/// Parses a line. Returns `None` for a line that does not change a table: a Kafka tombstone, a logical message, a
/// transaction marker, a heartbeat, a schema change, a notification or a signal.
///
/// # Errors
/// `InvalidJson`, `NotAnEnvelope`.
pub(crate) fn parse<'a>(line: &'a str, file: &Arc<str>, place: u64) -> Result<Option<ChangeEvent<'a>>> {
    let Some(message) = unwrapped(line, file, place)? else { return Ok(None) };
    let EventMessage { envelope, row, key, headers, topic, schema } = message;
    // A flattened row may have a column `op` of its own; unlike an envelope, it has no `source`.
    let Some(op) = text(&envelope, "op").filter(|_| envelope.get("source").is_some() || !is_flat(&envelope)) else {
        if is_flat(&envelope) {
            let row = row.or_else(|| serde_json::from_str(line).ok());
            return Ok(Some(parse_flattened(&envelope, row, key, schema, headers, topic.as_deref())));
        }
        let not = || {
            Error::new(codes::NOT_AN_ENVELOPE, "the line is not a Debezium envelope, because it has no `op`")
                .at(file, place)
        };
        return if is_other_message(&envelope) { Ok(None) } else { Err(not()) };
    };
    // A logical decoding message of PostgreSQL.
    if op == "m" {
        return Ok(None);
    }
    let Some(source) = envelope.non_null("source") else {
        return Err(Error::new(codes::NOT_AN_ENVELOPE, "the envelope has no `source`").at(file, place));
    };
    let source = parse_object(source, file, place)?;
    let is_document = text(&source, "connector").as_deref() == Some("mongodb");
    let (before, after) = (envelope.non_null("before"), envelope.non_null("after"));
    // MySQL and MongoDB have only `db`, which then takes the place of the schema.
    let (schema_name, database) = match (text(&source, "schema"), text(&source, "db")) {
        (Some(schema), database) => (Some(schema), database),
        (None, database) => (database, None),
    };
    let table = text(&source, if is_document { "collection" } else { "table" }).unwrap_or_default();
    let update = envelope.non_null("updateDescription").filter(|_| is_document);
    Ok(Some(ChangeEvent {
        op,
        before,
        after,
        source,
        key,
        schema,
        headers,
        flat: false,
        is_document,
        update,
        only: None,
        schema_name,
        database,
        table,
    }))
}

/// The parts of a message. From the outside to the inside: message (`key`, `value`, `headers`), converter (`schema`,
/// `payload`), envelope.
struct EventMessage<'a> {
    envelope: JsonObject<'a>,
    /// Text of the envelope if something is around it.
    row: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    headers: Option<EventHeaders<'a>>,
    topic: Option<String>,
    schema: Option<&'a RawValue>,
}

/// Removes the message and the converter around an envelope. Returns `None` for a Kafka tombstone.
fn unwrapped<'a>(line: &'a str, file: &Arc<str>, place: u64) -> Result<Option<EventMessage<'a>>> {
    if line.trim() == "null" {
        return Ok(None);
    }
    let outer = object::object_line(line, file, place)?;
    // A table may have a column `value`, so the line must not be an envelope itself.
    let is_wrapped = outer.get("value").is_some() && outer.get("op").is_none() && outer.get("payload").is_none();
    let (key, headers, value) = match is_wrapped {
        true => (outer.non_null("key"), read_headers(&outer, file, place)?, outer.non_null("value")),
        false => (None, None, None),
    };
    let topic = outer.non_null("topic").filter(|_| is_wrapped).and_then(|t| object::parse_string(t.get()));
    let (inner, raw) = match (is_wrapped, value) {
        (true, None) => return Ok(None),
        (true, Some(v)) => (parse_object(v, file, place)?, Some(v)),
        (false, _) => (outer, None),
    };
    let (schema, envelope, row) = match (inner.get("payload"), inner.get("schema")) {
        (Some(payload), Some(schema)) if payload.get() != "null" => {
            (Some(schema).filter(|s| s.get() != "null"), parse_object(payload, file, place)?, Some(payload))
        }
        (Some(_), Some(_)) => return Ok(None),
        _ => (None, inner, raw),
    };
    let key = match key {
        Some(k) => find_payload(k, file, place)?,
        None => None,
    };
    Ok(Some(EventMessage { envelope, row, key, headers, topic, schema }))
}

/// Returns a field that is a text.
fn text(object: &JsonObject<'_>, name: &str) -> Option<String> {
    object.non_null(name).and_then(|value| object::parse_string(value.get()))
}

/// Returns whether this is a record of Debezium that is not a change: a transaction marker, a heartbeat, a schema
/// change, a notification or a signal.
fn is_other_message(envelope: &JsonObject<'_>) -> bool {
    let has = |names: &[&str]| names.iter().all(|name| envelope.get(name).is_some());
    let heartbeat = envelope.0.len() == 1 && has(&["ts_ms"]);
    let schema = has(&["ddl"]) || has(&["tableChanges"]);
    let notification = has(&["aggregate_type", "type"]) || has(&["aggregateType", "type"]);
    let signal = envelope.0.len() <= 3 && has(&["type", "data"]);
    has(&["status"]) || heartbeat || schema || notification || signal
}

/// Default prefix of the metadata columns of flattened records.
pub(crate) const META: &str = "__";

fn is_flat(row: &JsonObject<'_>) -> bool {
    row.get("__op").is_some() || row.get("__deleted").is_some()
}

/// Converts a flattened record, a row with its metadata in columns, as written by `ExtractNewRecordState`.
///
/// Both images are the row: an upsert reads `after`, and a delete reads its key from `before`.
fn parse_flattened<'a>(
    object: &JsonObject<'a>,
    row: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    schema: Option<&'a RawValue>,
    headers: Option<EventHeaders<'a>>,
    topic: Option<&str>,
) -> ChangeEvent<'a> {
    let text = |name: &str| object.non_null(name).and_then(|v| object::parse_string(v.get()));
    let deleted = object.non_null("__deleted").is_some_and(|d| matches!(d.get(), "true" | "\"true\""));
    let op = if deleted { "d".to_owned() } else { text("__op").unwrap_or_default() };
    // A topic is called `prefix.schema.table`; it names the table if no column does.
    let mut topic = topic.into_iter().flat_map(|t| t.rsplit('.'));
    let (of_topic, schema_of_topic) = (topic.next().map(str::to_owned), topic.next().map(str::to_owned));
    let (own_schema, own_database) =
        (text("__schema").or_else(|| text("__source_schema")), text("__db").or_else(|| text("__source_db")));
    let database = own_database.clone().filter(|_| own_schema.is_some());
    let schema_name = own_schema.or(own_database).or(schema_of_topic);
    let own_table = ["__table", "__source_table", "__collection", "__source_collection"].into_iter().find_map(text);
    let table = own_table.or(of_topic).unwrap_or_default();
    let meta = |(name, value): &(String, &'a RawValue)| {
        let name = name.strip_prefix(META)?;
        Some((name.strip_prefix("source_").unwrap_or(name).to_owned(), *value))
    };
    let source = JsonObject::new(object.0.iter().filter_map(meta).collect());
    ChangeEvent {
        op,
        before: row,
        after: row,
        source,
        key,
        schema,
        headers,
        flat: true,
        is_document: false,
        update: None,
        only: None,
        schema_name,
        database,
        table,
    }
}

fn parse_object<'a>(raw: &'a RawValue, file: &str, place: u64) -> Result<JsonObject<'a>> {
    object::parse_object(raw.get()).map_err(|e| object::invalid_json(&e, file, place))
}

/// Returns the payload of `{"schema": …, "payload": …}`, or any other value itself; `None` for null.
fn find_payload<'a>(raw: &'a RawValue, file: &str, place: u64) -> Result<Option<&'a RawValue>> {
    if !raw.get().starts_with('{') {
        return Ok(Some(raw).filter(|r| r.get() != "null"));
    }
    let object = parse_object(raw, file, place)?;
    match (object.get("schema"), object.get("payload")) {
        (Some(_), Some(p)) => Ok(Some(p).filter(|p| p.get() != "null")),
        _ => Ok(Some(raw)),
    }
}

/// Reads the headers, which are an object, or a list of objects with `key` and `value`.
fn read_headers<'a>(outer: &JsonObject<'a>, file: &str, place: u64) -> Result<Option<EventHeaders<'a>>> {
    let Some(raw) = outer.non_null("headers") else { return Ok(None) };
    let pairs: Vec<(String, &RawValue)> = match object::parse_items(raw.get()) {
        Some(items) => {
            let mut pairs = Vec::new();
            for item in items {
                let item = parse_object(item, file, place)?;
                if let (Some(k), Some(v)) =
                    (item.get("key").and_then(|k| object::parse_string(k.get())), item.get("value"))
                {
                    pairs.push((k, v));
                }
            }
            pairs
        }
        None => parse_object(raw, file, place)?.0,
    };
    let mut headers = EventHeaders::default();
    for (name, value) in pairs {
        match name.as_str() {
            "__debezium.newkey" => headers.new_key = find_payload(value, file, place)?,
            "__debezium.oldkey" => headers.old_key = find_payload(value, file, place)?,
            _ => {}
        }
    }
    Ok(Some(headers))
}
