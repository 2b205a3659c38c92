//! Reading of envelopes in parts, on several cores.

use std::sync::Arc;

use arrow::array::RecordBatch;
use biscuit_core::Result;
use biscuit_merge::ChangeBatch;
use biscuit_merge::internal::RawSource;

use crate::debezium::reader::documents::DocumentsSoFar;
use crate::debezium::reader::schemas::key_drift;
use crate::debezium::reader::{DebeziumReader, DebeziumSettings};
use crate::files::chunks::{RecordSeparation, TextChunk};
use crate::files::lines::{ColumnCodecs, LinePart};
use crate::files::parts::{ChunkReader, TextForm};
use crate::records::change_records::ChangeRecords;
use crate::values::text::is_key_or_header_file;

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
            has_taken: false,
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
        // Only saves parsing schemas again, so that it does not matter which part has the schemas.
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
