//! What the reader learns from schemas and message keys: codecs of the columns, and the key.

use std::sync::Arc;

use biscuit_core::{Error, Result};

use crate::codes;
use crate::debezium::connect_schema::ConnectSchema;
use crate::debezium::envelope::{ChangeEvent, META};
use crate::debezium::reader::DebeziumReader;
use crate::files::lines::ColumnCodecs;
use crate::json::scanner::JsonField;

impl DebeziumReader {
    /// Adapts codecs of a schema to the types and names of the contract.
    pub(super) fn decode_for_contract(&self, codecs: &mut ColumnCodecs) {
        let Some(contract) = &self.settings.options.contract else { return };
        for (name, codec) in codecs {
            if let Some(column) = contract.column_for(name) {
                codec.decode_for(column.column_type.arrow(), &contract.debezium);
                name.clone_from(&column.name);
            }
        }
    }

    /// Takes the key columns from the message keys, if neither the options nor the contract have a key. All message
    /// keys must have the same columns.
    pub(super) fn learn_key(&mut self, event: &ChangeEvent<'_>, file: &Arc<str>, place: u64) -> Result<()> {
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
    pub(super) fn choose_codecs(
        &mut self,
        event: &ChangeEvent<'_>,
        file: &Arc<str>,
        place: u64,
    ) -> Result<Arc<ColumnCodecs>> {
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
}

/// Error for message keys with other columns than before.
pub(super) fn key_drift(here: &[String], before: &[String]) -> Error {
    let (here, before) = (here.join(", "), before.join(", "));
    let message = format!("the key columns are {here} here and were {before} before; name the key columns");
    Error::new(codes::KEY_DRIFT, message)
}
