//! Counts of S3 requests, and the store that counts them.

pub(crate) mod counts;
pub(crate) mod metered_store;
