//! What is in a table's folder, whose it is, and what is left over.

pub(crate) mod observed;
pub(crate) mod orphans;
pub(crate) mod ownership;
pub(crate) mod protected;
