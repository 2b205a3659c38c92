//! Comparison of the folder of a table with its journal: live, external, retained and orphan files, and other tables.

pub(crate) mod observed;
pub(crate) mod orphans;
pub(crate) mod ownership;
pub(crate) mod protected;
