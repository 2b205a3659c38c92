//! State that the commands share, and the places in which they delete objects. Stores, keys and catalogs are opened by
//! `biscuit_aws`.

pub(crate) mod context;
pub(crate) mod stores;
