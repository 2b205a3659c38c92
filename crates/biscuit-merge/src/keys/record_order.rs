//! The full order of a record, as bytes that compare like the order.

use std::sync::Arc;

/// The full order of a record: source rank, encoded order columns, and rank of the operation. Bytes compare as these
/// parts do, one after the other.
///
/// The empty order is older than every record. It stands for a row whose order is not known.
#[derive(Debug, Clone)]
pub struct RecordOrder(OrderBytes);

/// Number of bytes that are stored inline. Most orders are short: an instant and both ranks have 19 bytes.
const INLINE: usize = 22;

#[derive(Debug, Clone)]
enum OrderBytes {
    /// Length, and the bytes padded with zeros.
    Inline(u8, [u8; INLINE]),
    Shared(Arc<[u8]>),
}

impl RecordOrder {
    /// Returns the order that is older than every record.
    pub fn oldest() -> Self {
        Self::from_bytes(&[])
    }

    /// Creates the order of a record from its parts.
    pub fn new(rank: u8, columns: &[u8], op_rank: u8) -> Self {
        let mut bytes = [0; INLINE];
        if columns.len() + 2 > INLINE {
            return Self(OrderBytes::Shared([&[rank], columns, &[op_rank]].concat().into()));
        }
        bytes[0] = rank;
        bytes[1..=columns.len()].copy_from_slice(columns);
        bytes[columns.len() + 1] = op_rank;
        Self(OrderBytes::Inline(inline_length(columns.len() + 2), bytes))
    }

    /// Restores an order from its stored bytes.
    pub fn from_bytes(stored: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..stored.len()) {
            Some(start) => {
                start.copy_from_slice(stored);
                Self(OrderBytes::Inline(inline_length(stored.len()), bytes))
            }
            None => Self(OrderBytes::Shared(stored.into())),
        }
    }

    /// Returns the bytes of the order, as they are stored.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            OrderBytes::Inline(length, bytes) => &bytes[..usize::from(*length)],
            OrderBytes::Shared(bytes) => bytes,
        }
    }

    /// Whether the order columns of a stored row give the full order: its source rank is the rank of changes, and its
    /// operation has no rank.
    pub fn is_plain(&self) -> bool {
        self.bytes().first() == Some(&PLAIN_RANK) && self.bytes().last() == Some(&0)
    }
}

/// Source rank of changes. A stored row has it unless its key metadata has another order.
pub const PLAIN_RANK: u8 = 1;

/// Converts inline bytes to two numbers that compare as the bytes do, without a call of `memcmp`. The first number
/// has bytes 0 to 15 and the second bytes 14 to 21, so that two bytes are in both.
fn to_words(bytes: &[u8; INLINE]) -> (u128, u64) {
    let first = bytes.first_chunk().expect("there are 16 bytes");
    let last = bytes.last_chunk().expect("there are 8 bytes");
    (u128::from_be_bytes(*first), u64::from_be_bytes(*last))
}

fn inline_length(bytes: usize) -> u8 {
    u8::try_from(bytes).expect("inline orders have at most 22 bytes")
}

impl PartialEq for RecordOrder {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for RecordOrder {}

impl PartialOrd for RecordOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RecordOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (&self.0, &other.0) {
            // Bytes after the end are zero, and so at most what the other order has there. If all bytes are equal,
            // the shorter order is a prefix of the longer one and compares less.
            (OrderBytes::Inline(a_length, a), OrderBytes::Inline(b_length, b)) => {
                (to_words(a), a_length).cmp(&(to_words(b), b_length))
            }
            _ => self.bytes().cmp(other.bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_zeros_count_and_padding_does_not() {
        let all: Vec<Vec<u8>> =
            [&[][..], &[0], &[0, 0], &[0, 1], &[1], &[1, 0], &[1, 0, 0, 2], &[1, 1], &[0; INLINE], &[0; INLINE + 1]]
                .map(<[u8]>::to_vec)
                .into();
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let orders = (RecordOrder::from_bytes(a), RecordOrder::from_bytes(b));
            assert_eq!(orders.0.cmp(&orders.1), a.cmp(b), "{a:?} and {b:?}");
            assert_eq!(orders.0 == orders.1, a == b, "{a:?} and {b:?}");
        }
    }

    #[test]
    fn inline_and_shared_orders_compare_by_their_bytes() {
        for n in [0, 1, INLINE - 2, INLINE - 1, INLINE, 100] {
            let columns = vec![7; n];
            let order = RecordOrder::new(1, &columns, 0);
            assert_eq!(order.bytes(), [&[1], columns.as_slice(), &[0]].concat());
            assert_eq!(order, RecordOrder::from_bytes(order.bytes()));
            assert!(
                order > RecordOrder::oldest()
                    && order < RecordOrder::new(1, &vec![7; n + 1], 0)
                    && order < RecordOrder::new(1, &columns, 1)
            );
        }
    }
}
