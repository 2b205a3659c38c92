use std::sync::Arc;

/// The full order of a record: source rank, order columns, operation rank, encoded so that bytes compare as the parts
/// do. Nothing is older than the empty one, which stands for a row whose order is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Order(Arc<[u8]>);

impl Order {
    /// Older than every record.
    pub(crate) fn oldest() -> Self {
        Self(Arc::from([]))
    }

    pub(crate) fn new(rank: u8, columns: &[u8], op_rank: u8) -> Self {
        let mut bytes = Vec::with_capacity(columns.len() + 2);
        bytes.push(rank);
        bytes.extend_from_slice(columns);
        bytes.push(op_rank);
        Self(bytes.into())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the order columns of the stored row say all of it: the rank of changes, and no operation rank.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.first() == Some(&PLAIN_RANK) && self.0.last() == Some(&0)
    }
}

/// The source rank of changes, which stored rows have unless their sidecar says otherwise.
pub(crate) const PLAIN_RANK: u8 = 1;
