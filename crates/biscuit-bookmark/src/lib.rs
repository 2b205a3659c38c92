#![doc = include_str!("../README.md")]

mod bookmark;
mod change;
pub mod codes;
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

pub use bookmark::{Bookmark, BookmarkOptions, LatePolicy, ObjectIdentity, OverwrittenPolicy, RunLimit};
pub use change::BookmarkUpdate;
pub use explain::ObjectExplanation;
pub use ignore::IgnoredReason;
pub use input::{ListedInput, SourcePlace, list};
pub use lineage::ReplacedOutput;
pub use manifest::{RunKind, RunOutput, RunRecord};
pub use mode::{ReadMode, ReplayRange, RunRef};
pub use object::SourceObject;
pub use select::{InputSelection, SelectionCounts};
pub use state::{BookmarkState, bookmarks};
