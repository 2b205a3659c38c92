//! How commands reach stores, keys and AWS.

pub(crate) mod context;
pub(crate) mod iam_policies;
pub(crate) mod meter;
pub(crate) mod pii;
pub(crate) mod stores;
