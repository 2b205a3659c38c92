//! The log: records, checkpoints, the head, and where their objects are.

pub(crate) mod head;
pub(crate) mod layout;
pub(crate) mod pointer;
pub(crate) mod record;
