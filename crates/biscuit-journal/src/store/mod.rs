//! The store: durable writes, and what it has to be able to do.

pub(crate) mod probe;
pub(crate) mod put_if_absent;
pub(crate) mod storage;
