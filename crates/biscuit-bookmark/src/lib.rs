#![doc = include_str!("../README.md")]

mod bookmark;
pub mod codes;
mod input;
mod object;
mod options;
mod replaced;
mod runs;
mod selection;
mod state;
mod tiers;

pub use bookmark::{Bookmark, SelectedInput};
pub use input::{ListedInput, SourcePlace, list};
pub use object::SourceObject;
pub use options::{BookmarkOptions, LatePolicy, MissingObjects, ObjectIdentity, OverwrittenPolicy, RunLimit};
pub use replaced::ReplacedOutput;
pub use runs::manifest::{RunKind, RunOutput, RunRecord};
pub use selection::explain::ObjectExplanation;
pub use selection::ignored::IgnoredReason;
pub use selection::mode::{ReadMode, ReplayRange, RunRef};
pub use selection::selected::{InputSelection, SelectionCounts};
pub use state::{BookmarkState, bookmark_names};
