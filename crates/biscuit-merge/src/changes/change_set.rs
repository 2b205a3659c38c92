use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_change::{BadRows, ChangeBatch, ChangeOp, KeyChangeKind, RefusedRecord};
use biscuit_core::{Error, Result};
use biscuit_dataset::{check_folder, conform};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;

use crate::keys::encoding::{EncodeError, TupleEncoder, TuplePurpose, decode};
use crate::keys::key_table::KeyTable;
use crate::keys::record_order::RecordOrder;
use crate::spec::MergeSpec;
use crate::target::rows::{PresentColumns, RowRef, TargetRows};

/// One change record.
#[derive(Debug, Clone)]
pub(crate) struct ChangeRecord {
    pub(crate) key: u32,
    pub(crate) order: RecordOrder,
    pub(crate) op: ChangeOp,
    /// Its batch and row; the batch's table has the same number.
    pub(crate) at: RowRef,
    /// The other half of a key update, by key.
    pub(crate) link: Option<(KeyChangeKind, u32)>,
    /// The slice from which on it counts.
    pub(crate) period: u32,
}

/// The change records of a run, checked, sorted by key and order, without exact duplicates.
#[derive(Debug, Default)]
pub(crate) struct ChangeSet {
    pub(crate) batches: Vec<ChangeBatch>,
    pub(crate) present_columns: Vec<PresentColumns>,
    pub(crate) keys: Arc<KeyTable>,
    /// By number of key, then ascending by order. No two have the same key and order.
    pub(crate) records: Vec<ChangeRecord>,
    /// By key, where its records begin, and where those of the last end; keys without records may be missing at the end.
    starts: Vec<u32>,
    /// The slice from which on each truncate counts, and its order, ascending, each once.
    pub(crate) truncates: Vec<(u32, RecordOrder)>,
    pub(crate) truncate_records: u64,
    /// Records that repeat another of this run.
    pub(crate) duplicates: u64,
    /// Records that were put aside.
    pub(crate) refused: Vec<RefusedRecord>,
    bad_rows: BadRows,
}

impl ChangeSet {
    /// Checks and sorts the records; their rows become the first tables, in the columns of `target`.
    ///
    /// # Errors
    /// `NullKey`, `NullOrder`, `TextOrder`, `KeyType`, `OrderType`, `MissingColumn`, `UnknownOp`, `AmbiguousOrder`,
    /// naming column, file and row, unless such records are put aside.
    pub(crate) fn new(
        batches: Vec<ChangeBatch>,
        (spec, partition_by): (&MergeSpec, &[String]),
        bad_rows: BadRows,
        target: &SchemaRef,
        tables: &mut TargetRows,
    ) -> Result<Self> {
        let mut set = Self { bad_rows, ..Self::default() };
        for batch in batches.into_iter().filter(|b| !b.ops.is_empty()) {
            let place = format!("`{}`", batch.file);
            let table = tables.add(conform(&batch.rows, target, &place)?);
            let homeless = set.without_folder(&batch, partition_by)?;
            set.encode(&batch, spec, table, homeless)?;
            set.present_columns.push(PresentColumns::new(&batch, target, &spec.ignore_null));
            set.batches.push(batch);
        }
        set.truncates.sort();
        set.truncates.dedup();
        let numbers = set.keys_mut().renumber();
        for record in &mut set.records {
            record.key = numbers.of(record.key);
            record.link = record.link.map(|(kind, other)| (kind, numbers.of(other)));
        }
        // An integer was noted for each record, if there are no other keys.
        set.group(numbers.order);
        set.remove_duplicates(spec, target, tables)?;
        Ok(set)
    }

    /// The keys, while nobody else looks at them.
    pub(crate) fn keys_mut(&mut self) -> &mut KeyTable {
        Arc::get_mut(&mut self.keys).expect("keys are shared only after the last was added")
    }

    /// Refuses rows whose partition columns hold texts that have no folder.
    fn without_folder(&mut self, batch: &ChangeBatch, partition_by: &[String]) -> Result<BTreeSet<usize>> {
        let mut bad = BTreeSet::new();
        for name in partition_by {
            let Some(texts) = batch.rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()) else { continue };
            for (row, text) in texts.iter().enumerate().filter(|(row, _)| batch.ops[*row] == ChangeOp::Upsert) {
                if let Some(Err(e)) = text.map(|text| check_folder(name, text))
                    && bad.insert(row)
                {
                    self.refuse(batch, row, e.at(&batch.file, batch.places[row]))?;
                }
            }
        }
        Ok(bad)
    }

    fn encode(&mut self, batch: &ChangeBatch, spec: &MergeSpec, table: u32, mut bad: BTreeSet<usize>) -> Result<()> {
        let place = format!("`{}`", batch.file);
        let keys = TupleEncoder::new(&batch.rows, &spec.key, TuplePurpose::Key, &place)?;
        let orders = TupleEncoder::new(&batch.rows, &spec.order, TuplePurpose::Order, &place)?;
        let mut links = vec![None; if batch.key_changes.is_empty() { 0 } else { batch.ops.len() }];
        for m in &batch.key_changes {
            match self.encode_key(&m.key, spec, batch, m.row) {
                Ok(other) => links[m.row] = Some((m.kind, other)),
                Err(e) => {
                    if bad.insert(m.row) {
                        self.refuse(batch, m.row, e)?;
                    }
                }
            }
        }
        let values = keys.values();
        let (mut bytes, mut order) = (Vec::new(), Vec::new());
        for (row, &op) in batch.ops.iter().enumerate().filter(|(row, _)| !bad.contains(row)) {
            order.clear();
            let encoded = orders.encode(row, &mut order).map_err(|reason| bad_order(reason, spec, batch, row));
            let order = match encoded.and_then(|()| op_rank(spec, batch, row)) {
                Ok(rank) => RecordOrder::new(batch.rank, &order, rank),
                Err(e) => {
                    self.refuse(batch, row, e)?;
                    continue;
                }
            };
            if op == ChangeOp::Truncate {
                self.truncates.push((batch.period, order));
                self.truncate_records += 1;
                continue;
            }
            let key = match &values {
                Some(values) => self.keys_mut().note(values, row).ok_or(EncodeError::Null(0)),
                None => {
                    bytes.clear();
                    keys.encode(row, &mut bytes).map(|()| self.keys_mut().intern(&bytes))
                }
            };
            let key = match key {
                Ok(key) => key,
                Err(reason) => {
                    self.refuse(batch, row, null_key(reason, &spec.key, batch, row))?;
                    continue;
                }
            };
            let at = RowRef { table, row: u32::try_from(row).expect("a batch has fewer than 2^32 rows") };
            let link = links.get(row).copied().flatten();
            self.records.push(ChangeRecord { key, order, op, at, link, period: batch.period });
        }
        Ok(())
    }

    /// Puts a record aside, or else ends in its error.
    fn refuse(&mut self, batch: &ChangeBatch, row: usize, e: Error) -> Result<()> {
        if self.bad_rows == BadRows::Fail {
            return Err(e);
        }
        self.refused.push(batch.refuse(row, e)?);
        Ok(())
    }

    fn encode_key(&mut self, key: &RecordBatch, spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Result<u32> {
        let encoder = TupleEncoder::new(key, &spec.key, TuplePurpose::Key, "the header of a key update")?;
        let mut bytes = Vec::new();
        encoder.encode(0, &mut bytes).map_err(|reason| null_key(reason, &spec.key, batch, row))?;
        Ok(self.keys_mut().intern(&bytes))
    }

    /// Brings the records of each key together, ascending by order. `by_key` are their places by key, if they are known.
    fn group(&mut self, by_key: Option<Vec<u32>>) {
        self.starts = vec![0; self.keys.len() + 1];
        for record in &self.records {
            self.starts[record.key as usize + 1] += 1;
        }
        for k in 1..self.starts.len() {
            self.starts[k] += self.starts[k - 1];
        }
        let by_key = by_key.unwrap_or_else(|| self.by_key());
        // Moving them within their list instead takes no second one, and waits for memory at every step.
        self.records = by_key.iter().map(|at| self.records[*at as usize].clone()).collect();
        for k in 0..self.keys.len() {
            let own = &mut self.records[self.starts[k] as usize..self.starts[k + 1] as usize];
            if own.len() > 1 {
                own.sort_unstable_by(|a, b| (&a.order, a.at).cmp(&(&b.order, b.at)));
            }
        }
    }

    /// The places of records by key, those of a key in their order; `starts` are known.
    fn by_key(&self) -> Vec<u32> {
        let mut next = self.starts.clone();
        let mut by_key = vec![0_u32; self.records.len()];
        for (record, at) in self.records.iter().zip(0..) {
            let place = &mut next[record.key as usize];
            by_key[*place as usize] = at;
            *place += 1;
        }
        by_key
    }

    /// Drops records that repeat another; of those of one key and order that differ none can be said to be newer.
    fn remove_duplicates(&mut self, spec: &MergeSpec, target: &SchemaRef, tables: &TargetRows) -> Result<()> {
        let same = |a: &ChangeRecord, b: &ChangeRecord| a.key == b.key && a.order == b.order;
        if !self.records.windows(2).any(|pair| same(&pair[0], &pair[1])) {
            return Ok(());
        }
        let mut kept: Vec<ChangeRecord> = Vec::with_capacity(self.records.len());
        let records = std::mem::take(&mut self.records);
        for same in records.chunk_by(same) {
            let (first, others) = same.split_first().expect("no chunk is empty");
            let differs = |r: &ChangeRecord| Some((r.clone(), self.difference(first, r, target, tables)?));
            if let Some((other, column)) = others.iter().find_map(differs) {
                let e = self.ambiguous(first, &other, column.as_deref(), spec);
                if self.bad_rows == BadRows::Fail {
                    return Err(e);
                }
                for r in same {
                    let e = self.ambiguous(first, if r.at == first.at { &other } else { r }, column.as_deref(), spec);
                    let batch = &self.batches[r.at.table as usize];
                    self.refused.push(batch.refuse(r.at.row as usize, e)?);
                }
                continue;
            }
            let link = same.iter().find_map(|r| r.link);
            // What is effective earlier is all the later.
            let period = same.iter().map(|r| r.period).min().unwrap_or(first.period);
            kept.push(ChangeRecord { link, period, ..first.clone() });
            self.duplicates += others.len() as u64;
        }
        self.records = kept;
        // They are grouped still.
        let mut starts = vec![0; self.starts.len()];
        self.records.iter().for_each(|r| starts[r.key as usize + 1] += 1);
        for k in 1..starts.len() {
            starts[k] += starts[k - 1];
        }
        self.starts = starts;
        Ok(())
    }

    /// What two records differ in: the operation, or a column; none if they say the same.
    fn difference(
        &self,
        a: &ChangeRecord,
        b: &ChangeRecord,
        target: &SchemaRef,
        tables: &TargetRows,
    ) -> Option<Option<String>> {
        if a.op != b.op {
            return Some(None);
        }
        if a.op == ChangeOp::Delete {
            return None;
        }
        let (ga, gb) = (&self.present_columns[a.at.table as usize], &self.present_columns[b.at.table as usize]);
        let (ra, rb) = (a.at.row as usize, b.at.row as usize);
        let differs = |c: &usize| {
            let (x, y) = (ga.gives(ra, *c), gb.gives(rb, *c));
            x != y || (x && !tables.same(Some(a.at), Some(b.at), *c))
        };
        (0..target.fields().len()).find(differs).map(|c| Some(target.field(c).name().clone()))
    }

    fn ambiguous(&self, a: &ChangeRecord, b: &ChangeRecord, column: Option<&str>, spec: &MergeSpec) -> Error {
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
    pub(crate) fn records_of(&self, key: u32) -> &[ChangeRecord] {
        &self.records[self.range_of(key)]
    }

    /// Where the records of a key are among all of them.
    pub(crate) fn range_of(&self, key: u32) -> std::ops::Range<usize> {
        let start = |k: usize| self.starts.get(k).map_or(self.records.len(), |at| *at as usize);
        start(key as usize)..start(key as usize + 1)
    }

    /// The file and row of a record.
    pub(crate) fn place(&self, at: RowRef) -> (&str, u64) {
        let batch = &self.batches[at.table as usize];
        (&batch.file, batch.places[at.row as usize])
    }

    /// A key's values, for details that are shown only on request.
    pub(crate) fn key_text(&self, key: u32) -> String {
        decode(self.keys.bytes(key)).join(", ")
    }

    /// What a record says of each column.
    pub(crate) fn present_columns_of(&self, record: &ChangeRecord) -> (&PresentColumns, usize) {
        (&self.present_columns[record.at.table as usize], record.at.row as usize)
    }
}

fn op_rank(spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Result<u8> {
    if spec.op_rank.is_empty() {
        return Ok(0);
    }
    let code = batch.code(row);
    // Where there is no code, the row is what a full load has: below all ranked ones.
    if code.is_empty() {
        return Ok(0);
    }
    let at = spec.op_rank.iter().position(|c| **c == *code);
    at.and_then(|i| u8::try_from(i).ok()).ok_or_else(|| {
        Error::data("UnknownOp", "the operation code is not among the ranked ones")
            .at(&batch.file, batch.places[row])
            .with_detail("op", code.to_string())
    })
}

fn null_key(reason: EncodeError, key: &[String], batch: &ChangeBatch, row: usize) -> Error {
    let (EncodeError::Null(i) | EncodeError::NumberAsText(i)) = reason;
    Error::data("NullKey", format!("key column `{}` is null", key[i]))
        .with_column(&key[i])
        .at(&batch.file, batch.places[row])
}

fn bad_order(reason: EncodeError, spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Error {
    let (EncodeError::Null(column) | EncodeError::NumberAsText(column)) = reason;
    let e = match reason {
        EncodeError::Null(i) => Error::data("NullOrder", format!("order column `{}` is null", spec.order[i])),
        EncodeError::NumberAsText(i) => Error::data(
            "TextOrder",
            format!(
                "order column `{}` is text that holds a number, or a date that is not ISO's, and \"10\" sorts before \"9\": declare its type, or write dates as 2024-02-29",
                spec.order[i]
            ),
        ),
    };
    e.with_column(&spec.order[column]).at(&batch.file, batch.places[row])
}
