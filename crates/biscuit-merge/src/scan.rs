use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{OpenFile, align};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use hashbrown::HashMap;

use crate::bounds::Bounds;
use crate::covers::Covers;
use crate::encode::{Encoder, Purpose, Unencodable};
use crate::keys::Keys;
use crate::order::{Order, PLAIN_RANK};
use crate::spec::MergeSpec;

/// A stored row whose key has change records.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    pub(crate) key: u32,
    pub(crate) row: u64,
    /// Its order by its own columns; the oldest one if they do not say it.
    pub(crate) order: Order,
}

/// What the key and order columns of one file show.
#[derive(Debug, Default)]
pub(crate) struct FileScan {
    pub(crate) matches: Vec<Match>,
    /// Rows of other keys that a truncate of this run takes away.
    pub(crate) truncated: Vec<u64>,
}

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) row: u64,
}

/// The row of one key.
#[derive(Debug)]
pub(crate) struct StoredKey {
    pub(crate) place: Place,
    /// Its order by its own columns.
    pub(crate) order: Order,
    /// Further rows of the key, which should not be.
    pub(crate) surplus: Vec<Place>,
}

/// What the target holds of the keys of a run.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) rows: HashMap<u32, StoredKey>,
    /// By file from the first one looked at on, rows of other keys that a truncate takes away.
    pub(crate) truncated: Vec<Vec<u64>>,
    /// The number of that file.
    pub(crate) first: usize,
}

impl Stored {
    /// Of several rows of one key the newest stands, the last of equally new ones. The files are numbered from `first` on.
    pub(crate) fn of(scans: &[Arc<FileScan>], first: usize) -> Self {
        let mut stored = Self { first, ..Self::default() };
        for (file, scan) in (first..).zip(scans) {
            for m in &scan.matches {
                let (place, order) = (Place { file, row: m.row }, m.order.clone());
                match stored.rows.get_mut(&m.key) {
                    None => drop(stored.rows.insert(m.key, StoredKey { place, order, surplus: vec![] })),
                    Some(s) if order >= s.order => {
                        s.surplus.push(std::mem::replace(&mut s.place, place));
                        s.order = order;
                    }
                    Some(s) => s.surplus.push(place),
                }
            }
            stored.truncated.push(scan.truncated.clone());
        }
        stored
    }
}

/// Rows in the key and order columns of `spec`, to be looked at one after the other.
pub(crate) struct RowOrders {
    keys: Encoder,
    orders: Option<Encoder>,
}

impl RowOrders {
    pub(crate) fn new(batch: &RecordBatch, spec: &MergeSpec, place: &str) -> Result<Self> {
        let stored = spec.stores_order() && spec.order.iter().all(|o| batch.column_by_name(o).is_some());
        Ok(Self {
            keys: Encoder::new(batch, &spec.key, Purpose::Key, place)?,
            orders: if stored { Some(Encoder::new(batch, &spec.order, Purpose::Order, place)?) } else { None },
        })
    }

    pub(crate) fn key(&self, row: usize, spec: &MergeSpec, place: &str, number: u64, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        self.keys.encode(row, out).map_err(|why| {
            let (Unencodable::Null(i) | Unencodable::NumberAsText(i)) = why;
            null_key(&spec.key[i], place, number)
        })
    }

    pub(crate) fn order(&self, row: usize, spec: &MergeSpec, place: &str, number: u64) -> Result<Order> {
        match &self.orders {
            Some(orders) => stored_order(orders, row, spec, place, number),
            None => Ok(Order::oldest()),
        }
    }
}

/// What the scans of all files have in common.
pub(crate) struct Wanted {
    pub(crate) target: SchemaRef,
    pub(crate) spec: Arc<MergeSpec>,
    pub(crate) keys: Arc<Keys>,
    /// The order at or before which rows of all keys go, if the run brings one.
    pub(crate) truncated: Option<Order>,
    /// Numbers of keys, by key.
    pub(crate) sorted: Arc<Vec<u32>>,
    /// The keys that the run is about here; other rows are none of its business.
    pub(crate) covers: Covers,
}

/// Finds the rows of one file that the run is about: in the row groups that may hold its keys by their statistics, by the key
/// columns alone; then the orders of the rows that were found. A truncate is about all rows, whose orders are read.
///
/// # Errors
/// `MissingColumn`, `NullKey`, `KeyType`, `OrderType`, and those of the file.
pub(crate) async fn scan(file: OpenFile, wanted: Arc<Wanted>) -> Result<FileScan> {
    let place = format!("`{}`", file.file.path);
    let constant = |n: &str| file.file.partition.iter().any(|(p, _)| p == n);
    for k in wanted.spec.key.iter().filter(|k| !constant(k)) {
        biscuit_schema::column_index(file.schema(), k, &place)?;
    }
    let scan = Scan { file: &file, wanted: &wanted, place };
    if wanted.truncated.is_some() {
        return scan.all().await;
    }
    let groups = scan.candidates()?;
    let mut found = FileScan::default();
    if !groups.is_empty() {
        found.matches = scan.keys(&groups).await?;
        scan.orders(&mut found.matches).await?;
    }
    Ok(found)
}

struct Scan<'a> {
    file: &'a OpenFile,
    wanted: &'a Wanted,
    place: String,
}

impl Scan<'_> {
    /// The columns of the target with these names, as far as the file has them.
    fn narrow(&self, names: &[&str]) -> SchemaRef {
        let constant = |n: &str| self.file.file.partition.iter().any(|(p, _)| p == n);
        let there = |n: &str| self.file.schema().index_of(n).is_ok() || constant(n);
        let wanted = |f: &&Arc<Field>| names.contains(&f.name().as_str()) && there(f.name());
        Arc::new(Schema::new(self.wanted.target.fields().iter().filter(wanted).cloned().collect::<Vec<_>>()))
    }

    fn candidates(&self) -> Result<Vec<usize>> {
        let keys = &self.wanted.keys;
        let sorted: Vec<&[u8]> = self.wanted.sorted.iter().map(|k| keys.bytes(*k)).collect();
        let first = &self.wanted.spec.key[0];
        if self.file.schema().index_of(first).is_err() {
            // A key column in the path is the same in all rows.
            return Ok((0..self.file.group_starts().len() - 1).collect());
        }
        let bounds = Bounds::of(self.file, first)?;
        Ok((0..bounds.len()).filter(|&g| bounds[g].may_hold(&sorted)).collect())
    }

    async fn keys(&self, groups: &[usize]) -> Result<Vec<Match>> {
        let (wanted, spec) = (self.wanted, &self.wanted.spec);
        let names: Vec<&str> = spec.key.iter().map(String::as_str).collect();
        let narrow = self.narrow(&names);
        let mut batches = self.file.stream_groups(Some(&names), groups)?;
        let starts = self.file.group_starts();
        let numbers: Vec<_> = groups.iter().map(|&g| starts[g]..starts[g + 1]).collect();
        let mut numbers = numbers.into_iter().flatten();
        let (mut matches, mut bytes) = (Vec::new(), Vec::new());
        while let Some(batch) = batches.try_next().await? {
            let batch = align(&batch, &self.file.file.partition, &narrow, &self.place)?;
            let rows: Vec<u64> = numbers.by_ref().take(batch.num_rows()).collect();
            let mut null = None;
            let mut found = |row: usize, key| matches.push(Match { key, row: rows[row], order: Order::oldest() });
            let probed = spec.key.len() == 1
                && wanted.keys.find_column(batch.column(0), &mut found, &mut |row| null = null.or(Some(row)));
            if let Some(row) = null {
                return Err(null_key(&spec.key[0], &self.place, rows[row]));
            }
            if !probed {
                let orders = RowOrders::new(&batch, spec, &self.place)?;
                for (row, number) in rows.iter().enumerate() {
                    orders.key(row, spec, &self.place, *number, &mut bytes)?;
                    wanted.keys.find(&bytes).inspect(|key| found(row, *key));
                }
            }
        }
        Ok(matches)
    }

    /// Reads the orders of the rows that were found.
    async fn orders(&self, matches: &mut [Match]) -> Result<()> {
        let spec = &self.wanted.spec;
        let read: Vec<&str> = spec.order.iter().map(String::as_str).collect();
        let narrow = self.narrow(&read);
        if matches.is_empty() || !spec.stores_order() || !spec.order.iter().all(|o| narrow.index_of(o).is_ok()) {
            return Ok(());
        }
        let rows: Vec<u64> = matches.iter().map(|m| m.row).collect();
        let mut batches = self.file.stream_rows(Some(&read), &rows)?;
        let mut matches = matches.iter_mut();
        while let Some(batch) = batches.try_next().await? {
            let batch = align(&batch, &self.file.file.partition, &narrow, &self.place)?;
            let orders = Encoder::new(&batch, &spec.order, Purpose::Order, &self.place)?;
            for (row, m) in matches.by_ref().take(batch.num_rows()).enumerate() {
                m.order = stored_order(&orders, row, spec, &self.place, m.row)?;
            }
        }
        Ok(())
    }

    async fn all(&self) -> Result<FileScan> {
        let (wanted, spec) = (self.wanted, &self.wanted.spec);
        let names: Vec<&str> = spec.key.iter().chain(&spec.order).map(String::as_str).collect();
        let narrow = self.narrow(&names);
        let mut batches = self.file.stream(Some(&names))?;
        let (mut found, mut number, mut key) = (FileScan::default(), 0, Vec::new());
        while let Some(batch) = batches.try_next().await? {
            let batch = align(&batch, &self.file.file.partition, &narrow, &self.place)?;
            let rows = RowOrders::new(&batch, spec, &self.place)?;
            for row in 0..batch.num_rows() {
                rows.key(row, spec, &self.place, number, &mut key)?;
                let order = || rows.order(row, spec, &self.place, number);
                if let Some(k) = wanted.keys.find(&key) {
                    found.matches.push(Match { key: k, row: number, order: order()? });
                } else if let Some(t) = &wanted.truncated
                    && wanted.covers.has(&key)
                    && order()? <= *t
                {
                    found.truncated.push(number);
                }
                number += 1;
            }
        }
        Ok(found)
    }
}

fn null_key(column: &str, place: &str, number: u64) -> Error {
    Error::data("NullKey", format!("key column `{column}` is null in a stored row")).at(place, number + 1)
}

fn stored_order(orders: &Encoder, row: usize, spec: &MergeSpec, place: &str, number: u64) -> Result<Order> {
    let mut bytes = Vec::new();
    match orders.encode(row, &mut bytes) {
        Ok(()) => Ok(Order::new(PLAIN_RANK, &bytes, 0)),
        // A row that somebody else wrote without an order is older than every record.
        Err(Unencodable::Null(_)) => Ok(Order::oldest()),
        Err(Unencodable::NumberAsText(i)) => {
            let message = format!("order column `{}` is text that holds a number in a stored row", spec.order[i]);
            Err(Error::data("TextOrder", message).at(place, number + 1))
        }
    }
}
