//! Commands that read tables, stores and contracts, and change nothing.

pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod verify;
