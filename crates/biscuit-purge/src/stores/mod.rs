//! The store that lists and deletes objects, its errors, and its form over any `ObjectStore`.

pub(crate) mod any_store;
pub(crate) mod store;
pub(crate) mod store_error;
