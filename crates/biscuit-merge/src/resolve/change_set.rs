//! The change records of one part of a run: checked, encoded, and grouped by key.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use biscuit_core::{Error, Result};
use biscuit_schema::internal::conform;

use crate::codes;
use crate::keys::encoding::{EncodeError, TupleEncoder, TuplePurpose, decode_tuple};
use crate::keys::key_table::KeyTable;
use crate::keys::record_order::RecordOrder;
use crate::records::change_batch::ChangeBatch;
use crate::records::key_change::KeyChangeKind;
use crate::records::op::ChangeOp;
use crate::records::refused::{BadRows, RefusedRecord};
use crate::resolve::target_rows::{PresentColumns, RowRef, TargetRows};
use crate::spec::MergeSpec;

/// A change record with its encoded key and order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChangeRecord {
    /// Number of the key in the key table.
    pub key: u32,
    /// Order of the record.
    pub order: RecordOrder,
    /// Operation of the record.
    pub op: ChangeOp,
    /// Batch and row of the record. The rows of batch `n` are table `n` of the [`TargetRows`].
    pub at: RowRef,
    /// For one half of a key change: which half the record is, and the key of the other half.
    pub link: Option<(KeyChangeKind, u32)>,
    /// First period in which the record takes effect, by its place among the periods of the run.
    pub period: u32,
}

/// The change records of a part, sorted by key and order, without exact duplicates.
#[derive(Debug, Default)]
pub struct ChangeSet {
    /// Batches of the records.
    pub batches: Vec<ChangeBatch>,
    /// Present columns of each batch.
    pub present_columns: Vec<PresentColumns>,
    /// Keys of the records.
    pub keys: Arc<KeyTable>,
    /// Records by number of the key, then ascending by order. No two records have the same key and order.
    pub records: Vec<ChangeRecord>,
    /// For each key, the index of its first record; one more entry has the end of the last key. Entries of keys that
    /// were interned later may be missing at the end: these keys have no records.
    starts: Vec<u32>,
    /// Truncates as pairs of the first period in which they take effect, and their order. Ascending, without
    /// repetitions.
    pub truncates: Vec<(u32, RecordOrder)>,
    /// Number of truncate records, with repetitions.
    pub truncate_records: u64,
    /// Number of records that repeat another record of the part.
    pub duplicates: u64,
    /// Records that are quarantined.
    pub refused: Vec<RefusedRecord>,
    bad_rows: BadRows,
}

impl ChangeSet {
    /// Checks, encodes and sorts the records. Their rows become the first tables of `tables`, in the columns of
    /// `target`. `invalid_rows` returns the rows of a batch that the table cannot store, each once, with its error.
    ///
    /// # Errors
    /// `NullKey`, `NullOrder`, `TextOrder`, `KeyType`, `OrderType`, `MissingColumn`, `UnknownOp`, `AmbiguousOrder`,
    /// naming column, file and row. Records with these errors are quarantined instead, if `bad_rows` is `Quarantine`.
    pub fn new(
        batches: Vec<ChangeBatch>,
        spec: &MergeSpec,
        invalid_rows: &dyn Fn(&ChangeBatch) -> Vec<(usize, Error)>,
        bad_rows: BadRows,
        target: &SchemaRef,
        tables: &mut TargetRows,
    ) -> Result<Self> {
        let mut set = Self { bad_rows, ..Self::default() };
        for batch in batches.into_iter().filter(|b| !b.ops.is_empty()) {
            let place = format!("`{}`", batch.file);
            let table = tables.add_table(conform(&batch.rows, target, &place)?);
            let mut refused = BTreeSet::new();
            for (row, e) in invalid_rows(&batch) {
                set.refuse_record(&batch, row, e)?;
                refused.insert(row);
            }
            set.encode_batch(&batch, spec, table, refused)?;
            set.present_columns.push(PresentColumns::new(&batch, target, &spec.ignore_null));
            set.batches.push(batch);
        }
        set.truncates.sort();
        set.truncates.dedup();
        // From here on keys have their final numbers: translate the numbers that records and links have got while
        // they were encoded.
        let numbers = set.keys_mut().renumber();
        for record in &mut set.records {
            record.key = numbers.final_number(record.key);
            record.link = record.link.map(|(kind, other)| (kind, numbers.final_number(other)));
        }
        // If all keys are single integers of records, renumbering has sorted the records by key already.
        set.group_by_key(numbers.order);
        set.remove_duplicates(spec, target, tables)?;
        Ok(set)
    }

    /// Returns the keys for adding others. Keys are shared with scans only after the last key was added.
    pub fn keys_mut(&mut self) -> &mut KeyTable {
        Arc::get_mut(&mut self.keys).expect("keys are shared only after the last key was added")
    }

    /// Encodes the keys and orders of a batch. Rows in `bad` are refused already.
    fn encode_batch(
        &mut self,
        batch: &ChangeBatch,
        spec: &MergeSpec,
        table: u32,
        mut bad: BTreeSet<usize>,
    ) -> Result<()> {
        let place = format!("`{}`", batch.file);
        let keys = TupleEncoder::new(&batch.rows, &spec.key, TuplePurpose::Key, &place)?;
        let orders = TupleEncoder::new(&batch.rows, &spec.order, TuplePurpose::Order, &place)?;
        let mut links = vec![None; if batch.key_changes.is_empty() { 0 } else { batch.ops.len() }];
        for m in &batch.key_changes {
            match self.encode_key(&m.key, spec, batch, m.row) {
                Ok(other) => links[m.row] = Some((m.kind, other)),
                Err(e) => {
                    if bad.insert(m.row) {
                        self.refuse_record(batch, m.row, e)?;
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
                    self.refuse_record(batch, row, e)?;
                    continue;
                }
            };
            if op == ChangeOp::Truncate {
                self.truncates.push((batch.period, order));
                self.truncate_records += 1;
                continue;
            }
            let key = match &values {
                Some(values) => self.keys_mut().intern_row(values, row).ok_or(EncodeError::Null(0)),
                None => {
                    bytes.clear();
                    keys.encode(row, &mut bytes).map(|()| self.keys_mut().intern(&bytes))
                }
            };
            let key = match key {
                Ok(key) => key,
                Err(reason) => {
                    self.refuse_record(batch, row, null_key(reason, &spec.key, batch, row))?;
                    continue;
                }
            };
            let at = RowRef { table, row: u32::try_from(row).expect("a batch has fewer than 2^32 rows") };
            let link = links.get(row).copied().flatten();
            self.records.push(ChangeRecord { key, order, op, at, link, period: batch.period });
        }
        Ok(())
    }

    /// Quarantines a record, or fails with its error.
    fn refuse_record(&mut self, batch: &ChangeBatch, row: usize, e: Error) -> Result<()> {
        if self.bad_rows == BadRows::Fail {
            return Err(e);
        }
        self.refused.push(batch.refuse_row(row, e)?);
        Ok(())
    }

    /// Returns the number of the key of the other half of a key change.
    fn encode_key(&mut self, key: &RecordBatch, spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Result<u32> {
        let encoder = TupleEncoder::new(key, &spec.key, TuplePurpose::Key, "the header of a key update")?;
        let mut bytes = Vec::new();
        encoder.encode(0, &mut bytes).map_err(|reason| null_key(reason, &spec.key, batch, row))?;
        Ok(self.keys_mut().intern(&bytes))
    }

    /// Groups the records by key, and sorts the records of each key by order. `by_key` has the indices of the records
    /// by key, if these are known. Otherwise a counting sort finds them.
    fn group_by_key(&mut self, by_key: Option<Vec<u32>>) {
        // First the number of records of each key, then the prefix sums of these numbers.
        self.starts = vec![0; self.keys.len() + 1];
        for record in &self.records {
            self.starts[record.key as usize + 1] += 1;
        }
        for k in 1..self.starts.len() {
            self.starts[k] += self.starts[k - 1];
        }
        let by_key = by_key.unwrap_or_else(|| self.by_key());
        // Moving the records within their list would save the second list, but would wait for memory at each step.
        self.records = by_key.iter().map(|at| self.records[*at as usize].clone()).collect();
        for k in 0..self.keys.len() {
            let own = &mut self.records[self.starts[k] as usize..self.starts[k + 1] as usize];
            if own.len() > 1 {
                // The position makes the result independent of the sort algorithm: equal orders are next to each
                // other, in the order of input.
                own.sort_unstable_by(|a, b| (&a.order, a.at).cmp(&(&b.order, b.at)));
            }
        }
    }

    /// Returns the indices of the records by key; records of one key in the order of input. This is the second half
    /// of the counting sort and needs `starts`.
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

    /// Removes records that repeat another record. Records of one key and order with different content are invalid,
    /// all of them: none is known to be newer.
    fn remove_duplicates(&mut self, spec: &MergeSpec, target: &SchemaRef, tables: &TargetRows) -> Result<()> {
        let same = |a: &ChangeRecord, b: &ChangeRecord| a.key == b.key && a.order == b.order;
        if !self.records.windows(2).any(|pair| same(&pair[0], &pair[1])) {
            return Ok(());
        }
        let mut kept: Vec<ChangeRecord> = Vec::with_capacity(self.records.len());
        let records = std::mem::take(&mut self.records);
        for same in records.chunk_by(same) {
            let (first, others) = same.split_first().expect("`chunk_by` returns no empty chunk");
            let differs = |r: &ChangeRecord| Some((r.clone(), self.find_difference(first, r, target, tables)?));
            if let Some((other, column)) = others.iter().find_map(differs) {
                let e = self.ambiguous_order(first, &other, column.as_deref(), spec);
                if self.bad_rows == BadRows::Fail {
                    return Err(e);
                }
                for r in same {
                    let e =
                        self.ambiguous_order(first, if r.at == first.at { &other } else { r }, column.as_deref(), spec);
                    let batch = &self.batches[r.at.table as usize];
                    self.refused.push(batch.refuse_row(r.at.row as usize, e)?);
                }
                continue;
            }
            let link = same.iter().find_map(|r| r.link);
            // A record that takes effect in an earlier period also takes effect in all later periods.
            let period = same.iter().map(|r| r.period).min().unwrap_or(first.period);
            kept.push(ChangeRecord { link, period, ..first.clone() });
            self.duplicates += others.len() as u64;
        }
        self.records = kept;
        // The records are still grouped; only their numbers have changed.
        let mut starts = vec![0; self.starts.len()];
        self.records.iter().for_each(|r| starts[r.key as usize + 1] += 1);
        for k in 1..starts.len() {
            starts[k] += starts[k - 1];
        }
        self.starts = starts;
        Ok(())
    }

    /// Returns how two records differ: `Some(None)` in the operation, `Some(column)` in a column, `None` if their
    /// content is equal. Values of deletes are not compared.
    fn find_difference(
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
            let (x, y) = (ga.has_column(ra, *c), gb.has_column(rb, *c));
            x != y || (x && !tables.is_same_value(Some(a.at), Some(b.at), *c))
        };
        (0..target.fields().len()).find(differs).map(|c| Some(target.field(c).name().clone()))
    }

    fn ambiguous_order(&self, a: &ChangeRecord, b: &ChangeRecord, column: Option<&str>, spec: &MergeSpec) -> Error {
        let what = column.map_or("in their operation".to_owned(), |c| format!("in column `{c}`"));
        let (file, row) = self.place(b.at);
        let (first, first_row) = self.place(a.at);
        let message = format!(
            "two records of one key have the same order ({}) and differ {what}, so that neither is newer; the other record is {first}, row {first_row}. Add an order column that distinguishes them",
            spec.order.join(", ")
        );
        Error::new(codes::AMBIGUOUS_ORDER, message).at(file, row).with_detail("key", self.key_text(a.key))
    }

    /// Returns the records of a key, ascending by order.
    pub fn records_of(&self, key: u32) -> &[ChangeRecord] {
        &self.records[self.range_of(key)]
    }

    /// Returns the range of the records of a key in `records`.
    pub fn range_of(&self, key: u32) -> std::ops::Range<usize> {
        let start = |k: usize| self.starts.get(k).map_or(self.records.len(), |at| *at as usize);
        start(key as usize)..start(key as usize + 1)
    }

    /// Returns the file and the row of a record.
    pub fn place(&self, at: RowRef) -> (&str, u64) {
        let batch = &self.batches[at.table as usize];
        (&batch.file, batch.places[at.row as usize])
    }

    /// Returns the values of a key as text. Only for details of errors, which are shown on request.
    pub fn key_text(&self, key: u32) -> String {
        decode_tuple(self.keys.bytes(key)).join(", ")
    }

    /// Returns the present columns of the batch of a record, and the row of the record in it.
    pub fn present_columns_of(&self, record: &ChangeRecord) -> (&PresentColumns, usize) {
        (&self.present_columns[record.at.table as usize], record.at.row as usize)
    }
}

/// Returns the rank of the operation code of a record, the last part of its order.
fn op_rank(spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Result<u8> {
    if spec.op_rank.is_empty() {
        return Ok(0);
    }
    let code = batch.operation_code(row);
    // A row without a code is one of a full load, and ranks below all listed codes.
    if code.is_empty() {
        return Ok(0);
    }
    let at = spec.op_rank.iter().position(|c| **c == *code);
    at.and_then(|i| u8::try_from(i).ok()).ok_or_else(|| {
        Error::new(codes::UNKNOWN_OP, "the operation code is not in `op_rank`; add it there")
            .at(&batch.file, batch.places[row])
            .with_detail("op", code.to_string())
    })
}

fn null_key(reason: EncodeError, key: &[String], batch: &ChangeBatch, row: usize) -> Error {
    let (EncodeError::Null(i) | EncodeError::NumberAsText(i)) = reason;
    Error::new(codes::NULL_KEY, format!("key column `{}` is null", key[i]))
        .with_column(&key[i])
        .at(&batch.file, batch.places[row])
}

fn bad_order(reason: EncodeError, spec: &MergeSpec, batch: &ChangeBatch, row: usize) -> Error {
    let (EncodeError::Null(column) | EncodeError::NumberAsText(column)) = reason;
    let e = match reason {
        EncodeError::Null(i) => Error::new(codes::NULL_ORDER, format!("order column `{}` is null", spec.order[i])),
        EncodeError::NumberAsText(i) => Error::new(
            codes::TEXT_ORDER,
            format!(
                "order column `{}` is text that holds a number or a date in another format than ISO, which does not sort by value (\"10\" is before \"9\"); declare its type, or write dates as 2024-02-29",
                spec.order[i]
            ),
        ),
    };
    e.with_column(&spec.order[column]).at(&batch.file, batch.places[row])
}
