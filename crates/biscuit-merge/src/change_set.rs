use std::sync::Arc;

use biscuit_change::{ChangeBatch, Changes, MoveKind, Op};
use biscuit_core::{Error, Result};
use biscuit_dataset::conform;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use crate::encode::{Encoder, Purpose, Unencodable, decode};
use crate::order::Order;
use crate::spec::MergeSpec;
use crate::table::{Givens, RowRef, Tables};

/// One change record.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) key: u32,
    pub(crate) order: Order,
    pub(crate) op: Op,
    /// Its batch and row; the batch's table has the same number.
    pub(crate) at: RowRef,
    /// The other half of a key update, by key.
    pub(crate) link: Option<(MoveKind, u32)>,
}

/// The keys of a run: those with change records, and those that these refer to.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_bytes: HashMap<Arc<[u8]>, u32>,
    pub(crate) bytes: Vec<Arc<[u8]>>,
}

impl Keys {
    pub(crate) fn intern(&mut self, bytes: &[u8]) -> u32 {
        if let Some(&k) = self.by_bytes.get(bytes) {
            return k;
        }
        let k = u32::try_from(self.bytes.len()).expect("there are fewer than 2^32 keys");
        let bytes: Arc<[u8]> = bytes.into();
        self.bytes.push(bytes.clone());
        self.by_bytes.insert(bytes, k);
        k
    }

    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.by_bytes.get(bytes).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// The change records of a run, checked, sorted by key and order, without exact duplicates.
#[derive(Debug)]
pub(crate) struct ChangeSet {
    pub(crate) batches: Vec<ChangeBatch>,
    pub(crate) givens: Vec<Givens>,
    pub(crate) keys: Arc<Keys>,
    /// By key, then ascending by order. No two have the same key and order.
    pub(crate) records: Vec<Record>,
    /// Orders of truncates, ascending, each once.
    pub(crate) truncates: Vec<Order>,
    pub(crate) truncate_records: u64,
    /// Records that repeat another of this run.
    pub(crate) duplicates: u64,
}

impl ChangeSet {
    /// Checks and sorts the records; their rows become the first tables, in the columns of `target`.
    ///
    /// # Errors
    /// `NullKey`, `NullOrder`, `TextOrder`, `KeyType`, `OrderType`, `MissingColumn`, `UnknownOp`, `AmbiguousOrder`,
    /// naming column, file and row.
    pub(crate) fn new(changes: Changes, spec: &MergeSpec, target: &SchemaRef, tables: &mut Tables) -> Result<Self> {
        let mut set = Self {
            batches: vec![],
            givens: vec![],
            keys: Arc::default(),
            records: vec![],
            truncates: vec![],
            truncate_records: 0,
            duplicates: 0,
        };
        for batch in changes.batches.into_iter().filter(|b| !b.ops.is_empty()) {
            let place = format!("`{}`", batch.file);
            let table = tables.add(conform(&batch.rows, target, &place)?);
            set.encode(&batch, spec, table)?;
            set.givens.push(Givens::new(&batch, target, &spec.ignore_null));
            set.batches.push(batch);
        }
        set.truncates.sort();
        set.truncates.dedup();
        set.records.sort_by(|a, b| (a.key, &a.order, a.at).cmp(&(b.key, &b.order, b.at)));
        set.remove_duplicates(spec, target, tables)?;
        Ok(set)
    }

    /// The keys, while nobody else looks at them.
    pub(crate) fn keys_mut(&mut self) -> &mut Keys {
        Arc::get_mut(&mut self.keys).expect("keys are shared only after the last was added")
    }

    fn encode(&mut self, batch: &ChangeBatch, spec: &MergeSpec, table: u32) -> Result<()> {
        let place = format!("`{}`", batch.file);
        let keys = Encoder::new(&batch.rows, &spec.key, Purpose::Key, &place)?;
        let orders = Encoder::new(&batch.rows, &spec.order, Purpose::Order, &place)?;
        let mut links = vec![None; if batch.moves.is_empty() { 0 } else { batch.ops.len() }];
        for m in &batch.moves {
            let other = self.encode_key(&m.key, spec, batch, m.row)?;
            links[m.row] = Some((m.kind, other));
        }
        let (mut bytes, mut order) = (Vec::new(), Vec::new());
        for (row, &op) in batch.ops.iter().enumerate() {
            order.clear();
            orders.encode(row, &mut order).map_err(|why| bad_order(why, spec, batch, row))?;
            let order = Order::new(batch.rank, &order, op_rank(spec, batch, row)?);
            if op == Op::Truncate {
                self.truncates.push(order);
                self.truncate_records += 1;
                continue;
            }
            bytes.clear();
            keys.encode(row, &mut bytes).map_err(|why| null_key(why, &spec.key, batch, row))?;
            let at = RowRef { table, row: u32::try_from(row).expect("a batch has fewer than 2^32 rows") };
            let link = links.get(row).copied().flatten();
            let key = self.keys_mut().intern(&bytes);
            self.records.push(Record { key, order, op, at, link });
        }
        Ok(())
    }

    fn encode_key(&mut self, key: &RecordBatch, spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Result<u32> {
        let encoder = Encoder::new(key, &spec.key, Purpose::Key, "the header of a key update")?;
        let mut bytes = Vec::new();
        encoder.encode(0, &mut bytes).map_err(|why| null_key(why, &spec.key, batch, row))?;
        Ok(self.keys_mut().intern(&bytes))
    }

    /// Drops records that repeat another; two of one key and order that differ have no winner.
    fn remove_duplicates(&mut self, spec: &MergeSpec, target: &SchemaRef, tables: &Tables) -> Result<()> {
        let mut kept: Vec<Record> = Vec::with_capacity(self.records.len());
        for record in std::mem::take(&mut self.records) {
            match kept.last_mut() {
                Some(last) if last.key == record.key && last.order == record.order => {
                    if let Some(column) = self.difference(last, &record, target, tables) {
                        return Err(self.ambiguous(last, &record, column.as_deref(), spec));
                    }
                    last.link = last.link.or(record.link);
                    self.duplicates += 1;
                }
                _ => kept.push(record),
            }
        }
        self.records = kept;
        Ok(())
    }

    /// What two records differ in: the operation, or a column; none if they say the same.
    fn difference(&self, a: &Record, b: &Record, target: &SchemaRef, tables: &Tables) -> Option<Option<String>> {
        if a.op != b.op {
            return Some(None);
        }
        if a.op == Op::Delete {
            return None;
        }
        let (ga, gb) = (&self.givens[a.at.table as usize], &self.givens[b.at.table as usize]);
        let (ra, rb) = (a.at.row as usize, b.at.row as usize);
        let differs = |c: &usize| {
            let (x, y) = (ga.gives(ra, *c), gb.gives(rb, *c));
            x != y || (x && !tables.same(Some(a.at), Some(b.at), *c))
        };
        (0..target.fields().len()).find(differs).map(|c| Some(target.field(c).name().clone()))
    }

    fn ambiguous(&self, a: &Record, b: &Record, column: Option<&str>, spec: &MergeSpec) -> Error {
        let what = column.map_or("in their operation".to_owned(), |c| format!("in column `{c}`"));
        let (file, row) = self.place(b.at);
        let (first, first_row) = self.place(a.at);
        let message = format!(
            "two records of one key have the same order ({}) and differ {what}: no rule says which is newer; the other is {first}, row {first_row}",
            spec.order.join(", ")
        );
        Error::data("AmbiguousOrder", message).at(file, row).with_detail("key", self.key_text(a.key))
    }

    /// The records of a key, ascending by order.
    pub(crate) fn records_of(&self, key: u32) -> impl Iterator<Item = &Record> {
        let first = self.records.partition_point(|r| r.key < key);
        self.records[first..].iter().take_while(move |r| r.key == key)
    }

    /// The file and row of a record.
    pub(crate) fn place(&self, at: RowRef) -> (&str, u64) {
        let batch = &self.batches[at.table as usize];
        (&batch.file, batch.places[at.row as usize])
    }

    /// A key's values, for details that are shown only on request.
    pub(crate) fn key_text(&self, key: u32) -> String {
        decode(&self.keys.bytes[key as usize]).join(", ")
    }

    /// What a record says of each column.
    pub(crate) fn givens_of(&self, record: &Record) -> (&Givens, usize) {
        (&self.givens[record.at.table as usize], record.at.row as usize)
    }
}

fn op_rank(spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Result<u8> {
    if spec.op_rank.is_empty() {
        return Ok(0);
    }
    let code = &batch.codes[row];
    // Where there is no code, the row is what a full load has: below all ranked ones.
    if code.is_empty() {
        return Ok(0);
    }
    let at = spec.op_rank.iter().position(|c| **c == **code);
    at.and_then(|i| u8::try_from(i).ok()).ok_or_else(|| {
        Error::data("UnknownOp", "the operation code is not among the ranked ones")
            .at(&batch.file, batch.places[row])
            .with_detail("op", code.to_string())
    })
}

fn null_key(why: Unencodable, key: &[String], batch: &ChangeBatch, row: usize) -> Error {
    let (Unencodable::Null(i) | Unencodable::NumberAsText(i)) = why;
    Error::data("NullKey", format!("key column `{}` is null", key[i])).at(&batch.file, batch.places[row])
}

fn bad_order(why: Unencodable, spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Error {
    let e = match why {
        Unencodable::Null(i) => Error::data("NullOrder", format!("order column `{}` is null", spec.order[i])),
        Unencodable::NumberAsText(i) => Error::data(
            "TextOrder",
            format!(
                "order column `{}` is text that holds a number, and \"10\" sorts before \"9\": declare its type",
                spec.order[i]
            ),
        ),
    };
    e.at(&batch.file, batch.places[row])
}
