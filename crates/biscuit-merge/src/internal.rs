//! Parts for the other crates of Biscuit. They are outside of semantic versioning: any release may change or remove
//! them.

pub use crate::keys::encoding::{
    EncodeError, RawType, SingleColumnKeys, TupleEncoder, TuplePurpose, as_integer, decode_tuple, encode_integer,
    encode_raw, split_tuple,
};
pub use crate::keys::key_table::KeyTable;
pub use crate::keys::record_order::{PLAIN_RANK, RecordOrder};
pub use crate::keys::row_keys::{RowOrders, null_key, stored_order};
pub use crate::records::op::KNOWN_CODES;
pub use crate::records::placeholder::UnchangedPlaceholder;
pub use crate::records::refused::{RawSource, RowEncoder};
pub use crate::records::row_changes::{ambiguous_placeholder, null_rows, raw_row_changes};
pub use crate::resolve::change_set::{ChangeRecord, ChangeSet};
pub use crate::resolve::key_groups::KeyUnionFind;
pub use crate::resolve::key_state::{ColumnState, KeyChangeState, KeyState};
pub use crate::resolve::outcome::{KeyOutcome, RowChange};
pub use crate::resolve::resolver::{KeyResolver, PriorKeyState, ResolvedKeys};
pub use crate::resolve::target_rows::{
    CellLocation, PresentColumns, RowRef, TargetRows, schema_without, schema_without_null_columns,
};
