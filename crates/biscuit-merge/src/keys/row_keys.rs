//! Keys and orders of stored rows.

use arrow::array::RecordBatch;
use biscuit_core::{Error, Result};

use crate::codes;
use crate::keys::encoding::{EncodeError, TupleEncoder, TuplePurpose};
use crate::keys::record_order::{PLAIN_RANK, RecordOrder};
use crate::spec::MergeSpec;

/// Encoders for the key and the order of rows, one row after the other.
#[derive(Debug)]
pub struct RowOrders {
    keys: TupleEncoder,
    orders: Option<TupleEncoder>,
}

impl RowOrders {
    /// Creates the encoders. Rows of a file without the order columns have no order.
    pub fn new(batch: &RecordBatch, spec: &MergeSpec, place: &str) -> Result<Self> {
        let stored = spec.stores_order() && spec.order.iter().all(|o| batch.column_by_name(o).is_some());
        Ok(Self {
            keys: TupleEncoder::new(batch, &spec.key, TuplePurpose::Key, place)?,
            orders: if stored {
                Some(TupleEncoder::new(batch, &spec.order, TuplePurpose::Order, place)?)
            } else {
                None
            },
        })
    }

    /// Encodes the key of a row into `out`. `number` is the number of the row in the file, for messages.
    pub fn encode_key(&self, row: usize, spec: &MergeSpec, place: &str, number: u64, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        self.keys.encode(row, out).map_err(|reason| {
            let (EncodeError::Null(i) | EncodeError::NumberAsText(i)) = reason;
            null_key(&spec.key[i], place, number)
        })
    }

    /// Returns the order of a row; the oldest order if the row has none.
    pub fn order(&self, row: usize, spec: &MergeSpec, place: &str, number: u64) -> Result<RecordOrder> {
        match &self.orders {
            Some(orders) => stored_order(orders, row, spec, place, number),
            None => Ok(RecordOrder::oldest()),
        }
    }
}

/// Returns the error of a stored row whose key is null. `number` is the number of the row in the file, from 0.
pub fn null_key(column: &str, place: &str, number: u64) -> Error {
    Error::new(codes::NULL_KEY, format!("key column `{column}` is null in a stored row")).at(place, number + 1)
}

/// Returns the order of a stored row from its order columns.
///
/// # Errors
/// `TextOrder`.
pub fn stored_order(
    orders: &TupleEncoder,
    row: usize,
    spec: &MergeSpec,
    place: &str,
    number: u64,
) -> Result<RecordOrder> {
    let mut bytes = Vec::new();
    match orders.encode(row, &mut bytes) {
        Ok(()) => Ok(RecordOrder::new(PLAIN_RANK, &bytes, 0)),
        // An external row without an order is older than every record.
        Err(EncodeError::Null(_)) => Ok(RecordOrder::oldest()),
        Err(EncodeError::NumberAsText(i)) => {
            let message = format!(
                "order column `{}` is text that holds a number or a date in another format than ISO in a stored row",
                spec.order[i]
            );
            Err(Error::new(codes::TEXT_ORDER, message).at(place, number + 1))
        }
    }
}
