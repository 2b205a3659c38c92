use std::sync::Arc;

use biscuit_core::{Error, Result};
use serde_json::value::RawValue;

use crate::json::{self, Object};

/// One change of a table as Debezium writes it.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    pub(crate) op: String,
    pub(crate) before: Option<&'a RawValue>,
    pub(crate) after: Option<&'a RawValue>,
    pub(crate) source: Object<'a>,
    pub(crate) key: Option<&'a RawValue>,
    /// The embedded schema of the value.
    pub(crate) schema: Option<&'a RawValue>,
    /// The headers; none where the line has no place for them.
    pub(crate) headers: Option<Headers<'a>>,
}

/// The headers of a record that say something about it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Headers<'a> {
    /// The key that the row has after this delete.
    pub(crate) new_key: Option<&'a RawValue>,
    /// The key that the row had before this create.
    pub(crate) old_key: Option<&'a RawValue>,
}

/// What a line holds.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    Event(Event<'a>),
    /// Nothing that changes a table: a Kafka tombstone, a logical message, a transaction marker, a heartbeat.
    Nothing,
}

/// Reads a line of any of the forms.
///
/// # Errors
/// `InvalidJson`, `NotAnEnvelope`.
pub(crate) fn parse<'a>(line: &'a str, file: &Arc<str>, place: u64) -> Result<Line<'a>> {
    if line.trim() == "null" {
        return Ok(Line::Nothing);
    }
    let outer = json::object_line(line, file, place)?;
    let is_wrapped = outer.get("value").is_some() && outer.get("op").is_none() && outer.get("payload").is_none();
    let (key, headers, value) = match is_wrapped {
        true => (outer.some("key"), headers(&outer, file, place)?, outer.some("value")),
        false => (None, None, None),
    };
    let inner = match (is_wrapped, value) {
        (true, None) => return Ok(Line::Nothing),
        (true, Some(v)) => nested(v, file, place)?,
        (false, _) => outer,
    };
    let (schema, envelope) = match (inner.get("payload"), inner.get("schema")) {
        (Some(payload), Some(schema)) if payload.get() != "null" => {
            (Some(schema).filter(|s| s.get() != "null"), nested(payload, file, place)?)
        }
        (Some(_), Some(_)) => return Ok(Line::Nothing),
        _ => (None, inner),
    };
    let Some(op) = envelope.some("op").and_then(|o| json::string(o.get())) else {
        // Transaction markers and heartbeats are what Debezium writes besides changes.
        let known = envelope.get("status").is_some() || (envelope.0.len() == 1 && envelope.get("ts_ms").is_some());
        let not = || Error::data("NotAnEnvelope", "the line is no Debezium envelope: it has no `op`").at(file, place);
        return if known { Ok(Line::Nothing) } else { Err(not()) };
    };
    if op == "m" {
        return Ok(Line::Nothing);
    }
    let Some(source) = envelope.some("source") else {
        return Err(Error::data("NotAnEnvelope", "the envelope has no `source`").at(file, place));
    };
    let source = nested(source, file, place)?;
    let (before, after) = (envelope.some("before"), envelope.some("after"));
    let key = match key {
        Some(k) => payload(k, file, place)?,
        None => None,
    };
    Ok(Line::Event(Event { op, before, after, source, key, schema, headers }))
}

fn nested<'a>(raw: &'a RawValue, file: &str, place: u64) -> Result<Object<'a>> {
    json::object(raw.get()).map_err(|e| json::invalid(&e, file, place))
}

/// What is inside `{"schema": …, "payload": …}`, or the value itself; none for null.
fn payload<'a>(raw: &'a RawValue, file: &str, place: u64) -> Result<Option<&'a RawValue>> {
    if !raw.get().starts_with('{') {
        return Ok(Some(raw).filter(|r| r.get() != "null"));
    }
    let object = nested(raw, file, place)?;
    match (object.get("schema"), object.get("payload")) {
        (Some(_), Some(p)) => Ok(Some(p).filter(|p| p.get() != "null")),
        _ => Ok(Some(raw)),
    }
}

/// Headers are an object, or a list of objects with `key` and `value`.
fn headers<'a>(outer: &Object<'a>, file: &str, place: u64) -> Result<Option<Headers<'a>>> {
    let Some(raw) = outer.some("headers") else { return Ok(None) };
    let pairs: Vec<(String, &RawValue)> = match json::items(raw.get()) {
        Some(items) => {
            let mut pairs = Vec::new();
            for item in items {
                let item = nested(item, file, place)?;
                if let (Some(k), Some(v)) = (item.get("key").and_then(|k| json::string(k.get())), item.get("value")) {
                    pairs.push((k, v));
                }
            }
            pairs
        }
        None => nested(raw, file, place)?.0,
    };
    let mut headers = Headers::default();
    for (name, value) in pairs {
        match name.as_str() {
            "__debezium.newkey" => headers.new_key = payload(value, file, place)?,
            "__debezium.oldkey" => headers.old_key = payload(value, file, place)?,
            _ => {}
        }
    }
    Ok(Some(headers))
}
