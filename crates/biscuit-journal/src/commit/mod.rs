//! One change of a table: staging, the commit, publishing.

pub(crate) mod interrupt;
pub(crate) mod publish;
pub(crate) mod staged;
pub(crate) mod stager;
pub(crate) mod table_commit;
