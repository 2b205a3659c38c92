//! Records of runs: which inputs a run read, and which outputs it wrote.

pub(crate) mod lineage;
pub(crate) mod manifest;
pub(crate) mod remembered;
