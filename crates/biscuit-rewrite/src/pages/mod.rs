//! Copies, finds and makes single pages.

pub(crate) mod bloom;
pub(crate) mod copy;
pub(crate) mod headers;
pub(crate) mod hybrid;
pub(crate) mod page_store;
pub(crate) mod paged_group;
