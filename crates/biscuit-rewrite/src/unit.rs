//! Parts of a [`RewriteUnit`](crate::RewriteUnit): edits of row groups, new rows and options, and the description of a
//! written unit.

pub use crate::plan::edits::RowGroupEdits;
pub use crate::plan::unit::{BloomFilters, ForcedRewrite, InsertedRows, SmallGroups, WrittenUnit};
