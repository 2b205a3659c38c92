//! Access of the commands to stores, key files and AWS services.

pub(crate) mod context;
pub(crate) mod iam_policies;
pub(crate) mod meter;
pub(crate) mod pii;
pub(crate) mod stores;
