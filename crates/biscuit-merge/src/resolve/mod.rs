//! The decision, key by key: which record wins, and what remains of it.

pub(crate) mod key_changes;
pub(crate) mod key_state;
pub(crate) mod outcome;
pub(crate) mod resolver;
pub(crate) mod retraction;
