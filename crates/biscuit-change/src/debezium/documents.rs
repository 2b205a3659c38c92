//! Changes of MongoDB documents, which envelopes contain as text in Extended JSON.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_schema::Contract;
use biscuit_schema::internal::{is_too_deep, too_deep};
use serde_json::value::RawValue;

use crate::codes;
use crate::debezium::envelope::{ChangeEvent, EventSource};
use crate::json::extended::{quote_json, to_plain_json};
use crate::json::object::{self, JsonObject};
use crate::json::scanner::JsonValue;
use crate::values::text::wrong_type;

/// Field that identifies a document.
const ID: &str = "_id";

/// Images of a change in plain JSON, with the names of the columns of the contract.
#[derive(Debug, Default)]
pub(crate) struct DocumentImages {
    /// Object with the `_id` only.
    key: Option<String>,
    before: Option<String>,
    after: Option<String>,
    /// Columns that an update without a document changes.
    only: Option<Vec<String>>,
}

/// Kind of an `_id`. The text `"1"` and the number `1` identify different documents, but are equal as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdKind {
    Text,
    /// Number, true or false.
    Scalar,
}

/// Returns the `_id` of the document of an event as plain JSON, and its kind, from the message key or the document;
/// `None` if neither has it.
///
/// # Errors
/// `InvalidJson`, `TooDeep`, `WrongType`.
pub(crate) fn document_identity(
    event: &ChangeEvent<'_>,
    contract: &Contract,
    file: &Arc<str>,
    place: u64,
) -> Result<Option<(String, Option<IdKind>)>> {
    let reading = DocumentContext { contract, file, place };
    let raw = match event.key.filter(|key| key.is_object()) {
        Some(key) => Some(reading.id_of_key(key.raw())?),
        None => match event.after.or(event.before) {
            Some(document) => reading.id_of_document(document.raw())?,
            None => None,
        },
    };
    let Some(raw) = raw else { return Ok(None) };
    let id = to_plain_json(&raw).map_err(|reason| wrong_type(ID, reason, file, place))?;
    let kind = match (raw.as_bytes().first(), id.as_bytes().first()) {
        (Some(b'"'), _) => Some(IdKind::Text),
        (_, Some(b'-' | b'0'..=b'9' | b't' | b'f')) => Some(IdKind::Scalar),
        _ => None,
    };
    Ok(Some((id, kind)))
}

impl DocumentImages {
    /// Converts the images of an event. An update without its document gets an image of the changed fields only.
    ///
    /// # Errors
    /// `InvalidJson`, `TooDeep`, `DuplicateColumn`, `WrongType`, `Overflow`; `MissingImage` for a change inside of a
    /// field without the document.
    pub(crate) fn from_event(
        event: &ChangeEvent<'_>,
        contract: &Contract,
        file: &Arc<str>,
        place: u64,
    ) -> Result<Self> {
        let reading = DocumentContext { contract, file, place };
        let image = |value: Option<JsonValue<'_>>| value.map(|value| reading.convert_document(value.raw())).transpose();
        let (before, after) = (image(event.before)?, image(event.after)?);
        let key = match event.key.filter(|key| key.is_object()) {
            Some(key) => Some(reading.convert_key(key.raw())?),
            // In files without message keys, the `_id` is in the document.
            None => match after.as_ref().or(before.as_ref()) {
                Some(document) => reading.key_of_document(document)?,
                None => None,
            },
        };
        let mut images = Self { key, before, after, only: None };
        let is_update = event.op.eq_ignore_ascii_case("u");
        if is_update && images.after.is_none() {
            reading.changed_fields(event.update, &mut images)?;
        }
        Ok(images)
    }

    /// Returns the record as a line with these images, and the source of the event.
    pub(crate) fn to_line(&self, event: &ChangeEvent<'_>) -> String {
        let mut line = String::from("{");
        for (name, image) in [("key", &self.key), ("before", &self.before), ("after", &self.after)] {
            if let Some(image) = image {
                line.push_str(&format!("\"{name}\":{image},"));
            }
        }
        let source = if let EventSource::Object(source) = event.source { source.raw() } else { "{}" };
        line.push_str(&format!("\"source\":{source}}}"));
        line
    }

    /// Returns the event with the images of a scanned line of [`to_line`](Self::to_line).
    pub(crate) fn replace_images<'a>(&'a self, event: &ChangeEvent<'a>, line: JsonValue<'a>) -> ChangeEvent<'a> {
        ChangeEvent {
            before: line.get("before"),
            after: line.get("after"),
            source: line.get("source").map_or(event.source, EventSource::Object),
            key: line.get("key"),
            schema: None,
            headers: None,
            flat: false,
            is_document: true,
            update: None,
            only: self.only.as_deref(),
            ..event.clone()
        }
    }
}

/// Contract and position of a record.
struct DocumentContext<'a> {
    contract: &'a Contract,
    file: &'a Arc<str>,
    place: u64,
}

impl DocumentContext<'_> {
    /// Returns the name of the column of a field.
    fn column_name<'n>(&'n self, field: &'n str) -> &'n str {
        self.contract.column_for(field).map_or(field, |column| &column.name)
    }

    /// Returns a field as plain JSON, `"column":value`.
    fn field_as_json(&self, name: &str, value: &str) -> Result<String> {
        let value = to_plain_json(value).map_err(|reason| wrong_type(name, reason, self.file, self.place))?;
        Ok(format!("{}:{value}", quote_json(self.column_name(name))))
    }

    fn parse_object<'o>(&self, text: &'o str) -> Result<JsonObject<'o>> {
        if is_too_deep(text.as_bytes()) {
            return Err(too_deep("the document").at(self.file, self.place));
        }
        object::parse_object(text).map_err(|e| object::invalid_json(&e, self.file, self.place))
    }

    /// Converts a document, which is text in the envelope.
    fn convert_document(&self, raw: &str) -> Result<String> {
        let text = object::parse_string(raw).unwrap_or_else(|| raw.to_owned());
        let object = self.parse_object(&text)?;
        let fields = object.0.iter().map(|(name, value)| self.field_as_json(name, value.get()));
        let plain = format!("{{{}}}", fields.collect::<Result<Vec<_>>>()?.join(","));
        // Parsed again, because two fields may belong to one column, which is an error.
        object::object_line(&plain, self.file, self.place)?;
        Ok(plain)
    }

    /// Returns the `_id` in a message key, which contains it as text: `{"id": "{\"$oid\": …}"}`.
    fn id_of_key(&self, raw: &str) -> Result<String> {
        let object = self.parse_object(raw)?;
        let id = object.get("id").or_else(|| object.get(ID)).map(RawValue::get).unwrap_or(raw);
        let text = object::parse_string(id).unwrap_or_else(|| id.to_owned());
        match is_too_deep(text.as_bytes()) {
            true => Err(too_deep("the key").at(self.file, self.place)),
            false => Ok(text),
        }
    }

    /// Returns the `_id` in a document.
    fn id_of_document(&self, raw: &str) -> Result<Option<String>> {
        let text = object::parse_string(raw).unwrap_or_else(|| raw.to_owned());
        Ok(self.parse_object(&text)?.get(ID).map(|id| id.get().to_owned()))
    }

    /// Returns the key object of a message key.
    fn convert_key(&self, raw: &str) -> Result<String> {
        Ok(format!("{{{}}}", self.field_as_json(ID, &self.id_of_key(raw)?)?))
    }

    /// Returns the key object of a converted document.
    fn key_of_document(&self, document: &str) -> Result<Option<String>> {
        let object = self.parse_object(document)?;
        let id = self.column_name(ID);
        Ok(object.get(id).map(|value| format!("{{{}:{}}}", quote_json(id), value.get())))
    }

    /// Builds the image of an update without its document from `updateDescription`: the key, the updated fields, and
    /// null for each removed field.
    fn changed_fields(&self, update: Option<&str>, images: &mut DocumentImages) -> Result<()> {
        let missing = |what: &str| {
            let message = format!(
                "the update has no document, and {what}; capture with `capture.mode=change_streams_update_full`, or quarantine such records with `--bad-rows quarantine`"
            );
            Error::new(codes::MISSING_IMAGE, message).at(self.file, self.place)
        };
        let update = update.ok_or_else(|| missing("its changed fields are missing"))?;
        let update = self.parse_object(update)?;
        let key = images.key.as_deref().ok_or_else(|| missing("its key is missing"))?;
        // The key is an object `{"column":value}`; without its braces it is the first field of the image.
        let mut fields = vec![key[1..key.len() - 1].to_owned()];
        let mut only = Vec::new();
        let updated = update
            .non_null("updatedFields")
            .map(|raw| object::parse_string(raw.get()).unwrap_or_else(|| raw.get().to_owned()));
        let updated = updated.as_deref().map(|text| self.parse_object(text)).transpose()?.unwrap_or_default();
        let removed =
            update.non_null("removedFields").and_then(|raw| object::parse_items(raw.get())).unwrap_or_default();
        let removed: Vec<String> = removed.iter().filter_map(|name| object::parse_string(name.get())).collect();
        let is_nested = |name: &str| name.contains('.');
        // A change inside of a field contains only a part of the value of its column.
        let inside = updated.0.iter().map(|(name, _)| name).chain(&removed).find(|name| is_nested(name));
        if let Some(name) = inside {
            return Err(missing(&format!("it changes `{name}`, which is inside of a field")).with_column(name));
        }
        if update
            .non_null("truncatedArrays")
            .is_some_and(|raw| object::parse_items(raw.get()).is_none_or(|all| !all.is_empty()))
        {
            return Err(missing("it changes the length of an array"));
        }
        for (name, value) in &updated.0 {
            fields.push(self.field_as_json(name, value.get())?);
            only.push(self.column_name(name).to_owned());
        }
        // The document may also have a field with the current name of the column, whose value must not become null.
        if let Some(name) = removed.iter().find(|name| self.column_name(name) != name.as_str()) {
            let message = format!("it removes `{name}`, which is another name of column `{}`", self.column_name(name));
            return Err(missing(&message).with_column(self.column_name(name)));
        }
        for name in &removed {
            fields.push(self.field_as_json(name, "null")?);
            only.push(self.column_name(name).to_owned());
        }
        let after = format!("{{{}}}", fields.join(","));
        // Parsed again, because two fields may belong to one column, which is an error.
        object::object_line(&after, self.file, self.place)?;
        images.after = Some(after);
        images.only = Some(only);
        Ok(())
    }
}
