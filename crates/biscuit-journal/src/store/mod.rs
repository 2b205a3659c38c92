//! The object store: durability of writes, and the capabilities that the protocol needs.

pub(crate) mod probe;
pub(crate) mod put_if_absent;
pub(crate) mod state_objects;
pub(crate) mod storage;
