//! Resolving keys: decides for each key which records win, and what is stored. Functions on values, without I/O.

pub(crate) mod change_set;
pub(crate) mod key_changes;
pub(crate) mod key_groups;
pub(crate) mod key_in_progress;
pub(crate) mod key_state;
pub(crate) mod outcome;
pub(crate) mod resolver;
pub(crate) mod target_rows;
