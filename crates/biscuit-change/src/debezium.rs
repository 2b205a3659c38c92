use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use biscuit_core::{Error, Result};
use biscuit_schema::Contract;
use bytes::Bytes;

use crate::building::{Building, SourceField};
use crate::changes::{ChangeBatch, Changes};
use crate::codec::Codec;
use crate::connect::ConnectSchema;
use crate::envelope::{self, Event, Line};
use crate::json;
use crate::op::{ParsedOp, parse_op};
use crate::row_changes::check_nulls;
use crate::rows::{RowsOptions, to_contract};
use crate::text::text_of;

/// Choices of a Debezium reader that have a default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DebeziumOptions {
    /// The table whose records are wanted, `schema.table` or `table`. Default: the one that the files have.
    pub table: Option<String>,
    /// Declared columns and types. Default: the embedded schemas.
    pub contract: Option<Contract>,
    /// The key columns. Default: the contract's, else those of the records' keys.
    pub key: Vec<String>,
    /// Fields of `source` (`source.lsn`) or columns that order the changes. Default: the contract's, else `source.lsn`.
    pub order: Vec<String>,
    /// The names under which fields of `source` are stored. Default: `__` and the field.
    pub order_as: Vec<String>,
}

impl DebeziumOptions {
    /// The same options for one table.
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// The same options with a contract.
    pub fn with_contract(mut self, contract: Contract) -> Self {
        self.contract = Some(contract);
        self
    }

    /// The same options with a key.
    pub fn with_key<S: Into<String>>(mut self, key: impl IntoIterator<Item = S>) -> Self {
        self.key = key.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with an order.
    pub fn with_order<S: Into<String>>(mut self, order: impl IntoIterator<Item = S>) -> Self {
        self.order = order.into_iter().map(Into::into).collect();
        self
    }

    /// The same options with other names for stored fields of `source`.
    pub fn with_order_as<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.order_as = names.into_iter().map(Into::into).collect();
        self
    }
}

/// Reads files of Debezium envelopes.
#[derive(Debug)]
pub struct DebeziumReader {
    options: DebeziumOptions,
    declared: Option<Arc<Vec<(String, Codec)>>>,
    embedded: HashMap<String, Arc<Vec<(String, Codec)>>>,
    fields: Vec<SourceField>,
    key: Vec<String>,
    tables: BTreeSet<String>,
    building: Option<Building>,
    changes: Changes,
}

impl DebeziumReader {
    /// A reader with these options.
    pub fn new(options: DebeziumOptions) -> Self {
        let contract = options.contract.as_ref();
        let declared = contract.map(|c| {
            Arc::new(c.columns.iter().map(|col| (col.name.clone(), Codec::declared(col, &c.debezium))).collect())
        });
        let first = |own: &Vec<String>, theirs: fn(&Contract) -> &Vec<String>| match own.is_empty() {
            false => own.clone(),
            true => contract.map(theirs).cloned().unwrap_or_default(),
        };
        let key = first(&options.key, |c| &c.key);
        let mut order = first(&options.order, |c| &c.order);
        if order.is_empty() {
            order.push("source.lsn".to_owned());
        }
        let mut names = options.order_as.iter();
        let mut fields = Vec::new();
        let mut changes = Changes::default();
        for o in &order {
            let name = match o.strip_prefix("source.") {
                Some(field) => {
                    let name = names.next().cloned().unwrap_or_else(|| format!("__{field}"));
                    fields.push(SourceField { field: field.to_owned(), name: name.clone() });
                    name
                }
                None => o.clone(),
            };
            changes.order.push(name);
        }
        let embedded = HashMap::new();
        Self { options, declared, embedded, fields, key, tables: BTreeSet::new(), building: None, changes }
    }

    /// Reads one file of JSON lines, plain or gzip.
    ///
    /// # Errors
    /// `InvalidJson`, `NotAnEnvelope`, `UntypedRecords`, `UnknownOp`, `WrongType`, `MissingImage`, `KeyDrift`,
    /// `AmbiguousPlaceholder`, `ColumnClash`, naming file and line; `EmptyFile`, `TruncatedInput`, `NotUtf8`.
    pub fn read(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        let name: Arc<str> = file.into();
        let text = text_of(file, bytes)?;
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let place = i as u64 + 1;
            match envelope::parse(line, &name, place)? {
                Line::Nothing => self.changes.ignored += 1,
                Line::Event(event) => self.event(&event, &name, place)?,
            }
        }
        self.flush()
    }

    /// The change records of all files.
    ///
    /// # Errors
    /// `SeveralTables` if the files have more than one and none was named; `NoKey` for a table without a key.
    pub fn finish(mut self) -> Result<Changes> {
        if self.options.table.is_none() && self.tables.len() > 1 {
            let names: Vec<_> = self.tables.iter().map(String::as_str).collect();
            return Err(Error::usage(
                "SeveralTables",
                format!("the files have several tables, name one of {}", names.join(", ")),
            ));
        }
        if self.key.is_empty() && !self.changes.is_empty() {
            let table = self.tables.first().map_or("the table", String::as_str);
            let message = format!(
                "the records of `{table}` have no key: a table without a key has no current state; name key columns if it has some"
            );
            return Err(Error::data("NoKey", message));
        }
        self.changes.key = self.key;
        Ok(self.changes)
    }

    fn event(&mut self, event: &Event<'_>, file: &Arc<str>, place: u64) -> Result<()> {
        let part = |name| event.source.some(name).and_then(|v| json::string(v.get()));
        let table = part("table").unwrap_or_default();
        let qualified = part("schema").or_else(|| part("db")).map_or(table.clone(), |s| format!("{s}.{table}"));
        if self.options.table.as_ref().is_some_and(|t| *t != qualified && *t != table) {
            self.changes.other_tables += 1;
            return Ok(());
        }
        self.tables.insert(qualified);
        if self.options.table.is_none() && self.tables.len() > 1 {
            // The error comes at the end, with the names of all tables.
            self.changes.other_tables += 1;
            return Ok(());
        }
        let ParsedOp::Change(op) = parse_op(Some(&event.op)) else {
            let e = Error::data("UnknownOp", "the envelope has an operation code that is not known");
            return Err(e.at(file, place).with_detail("op", &event.op));
        };
        self.learn_key(event, file, place)?;
        let codecs = self.codecs(event, file, place)?;
        let same = self.building.as_ref().is_some_and(|b| Arc::ptr_eq(&b.codecs, &codecs) && b.file == *file);
        if !same {
            self.flush()?;
            self.building = Some(Building::new(codecs, &self.fields, file)?);
        }
        let (key, fields) = (&self.key, &self.fields);
        let dropped = &mut self.changes.dropped_columns;
        let contract = self.declared.is_some();
        let building = self.building.as_mut().expect("it was made above");
        building.push(event, op, key, fields, place, contract.then_some(dropped))
    }

    fn learn_key(&mut self, event: &Event<'_>, file: &Arc<str>, place: u64) -> Result<()> {
        if !self.options.key.is_empty() || self.options.contract.as_ref().is_some_and(|c| !c.key.is_empty()) {
            return Ok(());
        }
        let Some(key) = event.key.and_then(|k| json::object(k.get()).ok()) else { return Ok(()) };
        let names: Vec<String> = key.0.into_iter().map(|(n, _)| n).collect();
        if self.key.is_empty() {
            self.key = names;
        } else if self.key != names {
            let message = format!("the key is {} here and {} before", names.join(", "), self.key.join(", "));
            return Err(Error::data("KeyDrift", message).at(file, place));
        }
        Ok(())
    }

    fn codecs(&mut self, event: &Event<'_>, file: &Arc<str>, place: u64) -> Result<Arc<Vec<(String, Codec)>>> {
        let Some(raw) = event.schema else {
            return self.declared.clone().ok_or_else(|| {
                let message = "the envelopes carry no schema, and JSON has no types: declare the columns in a contract";
                Error::data("UntypedRecords", message).at(file, place)
            });
        };
        if let Some(known) = self.embedded.get(raw.get()) {
            return Ok(known.clone());
        }
        let schema: ConnectSchema = serde_json::from_str(raw.get()).map_err(|e| {
            Error::data("InvalidSchema", "the embedded schema cannot be read").at(file, place).with_source(e)
        })?;
        let image = schema.child("after").or_else(|| schema.child("before"));
        let columns =
            image.ok_or_else(|| Error::data("InvalidSchema", "the embedded schema has no `after`").at(file, place))?;
        let codecs = Arc::new(columns.columns()?);
        self.embedded.insert(raw.get().to_owned(), codecs.clone());
        Ok(codecs)
    }

    fn flush(&mut self) -> Result<()> {
        let Some(building) = self.building.take() else { return Ok(()) };
        let mut batch = building.finish(&self.fields)?;
        if let Some(contract) = &self.options.contract {
            let order = self.fields.len();
            batch = under_contract(batch, contract, order, &mut self.changes.dropped_columns)?;
            check_nulls(&batch.rows, &batch.ops, &batch.given, contract, &batch.file, &batch.places)?;
        }
        self.changes.batches.push(batch);
        Ok(())
    }
}

/// Puts a batch with embedded types into the contract's columns; the order columns at its end stay.
fn under_contract(
    mut batch: ChangeBatch,
    contract: &Contract,
    order: usize,
    dropped: &mut Vec<String>,
) -> Result<ChangeBatch> {
    let schema = batch.rows.schema();
    let data = schema.fields().len() - order;
    let columns: Vec<usize> = (0..data).collect();
    let part = batch.rows.project(&columns).expect("indices come from this batch");
    let declared = to_contract(&part, contract, &RowsOptions::default(), dropped, &batch.file)?;
    let kept: Vec<usize> = columns.into_iter().filter(|&i| contract.column(schema.field(i).name()).is_some()).collect();
    let tail = data..schema.fields().len();
    let fields: Vec<_> =
        declared.schema().fields().iter().cloned().chain(tail.clone().map(|i| schema.fields()[i].clone())).collect();
    let arrays: Vec<_> =
        declared.columns().iter().cloned().chain(tail.clone().map(|i| batch.rows.column(i).clone())).collect();
    batch.given = kept.into_iter().chain(tail).map(|i| batch.given[i].clone()).collect();
    batch.rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|e| Error::internal("records could not be put in the contract's columns").with_source(e))?;
    Ok(batch)
}
