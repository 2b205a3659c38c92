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
mod options;
mod select;
mod selection;
mod state;
mod tiers;

pub use bookmark::Bookmark;
pub use change::{BookmarkUpdate, ReplacedOutput};
pub use explain::ObjectExplanation;
pub use ignore::IgnoredReason;
pub use input::{ListedInput, SourcePlace, list};
pub use manifest::{RunKind, RunOutput, RunRecord};
pub use mode::{ReadMode, ReplayRange, RunRef};
pub use object::SourceObject;
pub use options::{BookmarkOptions, LatePolicy, ObjectIdentity, OverwrittenPolicy, RunLimit};
pub use selection::{InputSelection, SelectionCounts};
pub use state::{BookmarkState, bookmarks};
