//! Commands that delete files or rows, or decide about quarantined records and interrupted commits.

pub(crate) mod forget;
pub(crate) mod lifecycle;
pub(crate) mod purge;
pub(crate) mod quarantine;
pub(crate) mod recover;
