#![doc = include_str!("../README.md")]

mod bookmark;
mod change;
mod explain;
mod ignore;
mod input;
mod known;
mod lineage;
mod manifest;
mod mode;
mod object;
mod select;
mod state;
mod tiers;

pub use bookmark::{Bookmark, BookmarkOptions, Identity, Late, Limit, Overwritten};
pub use change::Change;
pub use explain::Explanation;
pub use ignore::Ignored;
pub use input::{Input, Place, list};
pub use lineage::Replaced;
pub use manifest::{Output, RunKind, RunRecord};
pub use mode::{Mode, Replay, RunRef};
pub use object::Object;
pub use select::{Counts, Selection};
pub use state::{State, bookmarks};
