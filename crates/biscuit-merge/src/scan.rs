use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::{OpenFile, align};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::TryStreamExt;
use hashbrown::HashMap;

use crate::change_set::Keys;
use crate::encode::{Encoder, Purpose, Unencodable};
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
    /// By file, rows of other keys that a truncate takes away.
    pub(crate) truncated: Vec<Vec<u64>>,
}

impl Stored {
    /// Of several rows of one key the newest stands, the last of equally new ones.
    pub(crate) fn of(scans: Vec<FileScan>) -> Self {
        let mut stored = Self::default();
        for (file, scan) in scans.into_iter().enumerate() {
            for m in scan.matches {
                let place = Place { file, row: m.row };
                match stored.rows.get_mut(&m.key) {
                    None => drop(stored.rows.insert(m.key, StoredKey { place, order: m.order, surplus: vec![] })),
                    Some(s) if m.order >= s.order => {
                        s.surplus.push(std::mem::replace(&mut s.place, place));
                        s.order = m.order;
                    }
                    Some(s) => s.surplus.push(place),
                }
            }
            stored.truncated.push(scan.truncated);
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
            Error::data("NullKey", format!("key column `{}` is null in a stored row", spec.key[i]))
                .at(place, number + 1)
        })
    }

    pub(crate) fn order(&self, row: usize, spec: &MergeSpec, place: &str, number: u64) -> Result<Order> {
        let Some(orders) = &self.orders else { return Ok(Order::oldest()) };
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
}

/// Reads the key and order columns of a file and finds the rows that the run is about.
///
/// # Errors
/// `MissingColumn`, `NullKey`, `KeyType`, `OrderType`, and those of the file.
pub(crate) async fn scan(
    file: OpenFile,
    target: SchemaRef,
    spec: Arc<MergeSpec>,
    keys: Arc<Keys>,
    truncated: Option<Order>,
) -> Result<FileScan> {
    let place = format!("`{}`", file.file.path);
    let constant = |n: &str| file.file.partition.iter().any(|(p, _)| p == n);
    for k in spec.key.iter().filter(|k| !constant(k)) {
        biscuit_schema::column_index(file.schema(), k, &place)?;
    }
    let wanted: Vec<&str> = spec.key.iter().chain(&spec.order).map(String::as_str).collect();
    let there = |n: &str| file.schema().index_of(n).is_ok() || constant(n);
    let fields: Vec<_> =
        target.fields().iter().filter(|f| wanted.contains(&f.name().as_str()) && there(f.name())).cloned().collect();
    let narrow = Arc::new(Schema::new(fields));
    let mut batches = file.stream(Some(&wanted))?;
    let mut found = FileScan::default();
    let mut number = 0;
    let mut key = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        let batch = align(&batch, &file.file.partition, &narrow, &place)?;
        let rows = RowOrders::new(&batch, &spec, &place)?;
        for row in 0..batch.num_rows() {
            rows.key(row, &spec, &place, number, &mut key)?;
            if let Some(k) = keys.find(&key) {
                found.matches.push(Match { key: k, row: number, order: rows.order(row, &spec, &place, number)? });
            } else if let Some(t) = &truncated
                && rows.order(row, &spec, &place, number)? <= *t
            {
                found.truncated.push(number);
            }
            number += 1;
        }
    }
    Ok(found)
}
