//! Changes of MongoDB documents, whose updates may come without the document.

use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_merge::RefusedRecord;

use crate::codes;
use crate::debezium::documents::{DocumentImages, IdKind, document_identity};
use crate::debezium::envelope::ChangeEvent;
use crate::debezium::reader::DebeziumReader;
use crate::files::lines::{Line, select_raws};
use crate::json::object;

/// State of the MongoDB documents that were read so far.
#[derive(Debug, Default)]
pub(super) struct DocumentsSoFar {
    /// Whether an update with its document was read, so that the connector looks documents up.
    pub(super) updates_have_documents: bool,
    /// Updates inside of a field without a document, until the end decides on them.
    pub(super) without_document: Vec<WithoutDocument>,
    /// Keys of the deletes. Only in a part of a reader, which does not know the updates before it.
    pub(super) deleted: Vec<Option<String>>,
    pub(super) is_part: bool,
    /// Kind of the `_id`s so far, and the record from which it is known.
    pub(super) id_kind: Option<(IdKind, Arc<str>, u64)>,
}

/// Update inside of a field of a MongoDB document whose record does not have the document.
#[derive(Debug)]
pub(super) struct WithoutDocument {
    key: Option<String>,
    error: Error,
    /// Record for the quarantine, if it may be quarantined.
    refused: Option<RefusedRecord>,
}

impl DebeziumReader {
    /// Adds a change of a MongoDB document.
    pub(super) fn add_document(&mut self, event: &ChangeEvent<'_>, line: &Line<'_>, file: &Arc<str>) -> Result<()> {
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
    pub(super) fn finish_documents(&mut self) -> Result<()> {
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
}

impl DocumentsSoFar {
    /// Refuses a collection with several kinds of `_id`s.
    ///
    /// # Errors
    /// `KeyDrift`.
    pub(super) fn learn_id_kind(&mut self, kind: IdKind, file: &Arc<str>, place: u64) -> Result<()> {
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
    pub(super) fn delete(&mut self, key: Option<String>) -> u64 {
        let before = self.without_document.len();
        self.without_document.retain(|update| update.key.is_none() || update.key != key);
        if self.is_part {
            self.deleted.push(key);
        }
        (before - self.without_document.len()) as u64
    }
}
